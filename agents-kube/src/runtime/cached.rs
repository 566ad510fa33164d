//! The Job adapter's calls over [`Calls`], with every answer laid over the watched caches: what was just created is
//! never missing from the next decision.

use std::{sync::Arc, time::Duration};

use agents_core::marks::{ANNOTATION_KEPT, ANNOTATION_POD};
use async_trait::async_trait;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::api::{Patch, PropagationPolicy};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{
    api::JobApi,
    fingerprint::Fingerprint,
    view::{ConfigMapView, JobView, PodView},
};
use crate::{
    client::{ApiError, Calls, Deletion, OrAbsent, Scope, Target},
    watch::{Key, Watch},
};

/// Pods of one Job that are read at most: an attempt has one, and a second only while the first is being replaced.
const MAX_PODS: u32 = 20;

/// The Job adapter's calls.
#[derive(Debug, Clone)]
pub struct CachedJobs {
    calls: Calls,
    jobs: Arc<Watch<JobView>>,
    pods: Arc<Watch<PodView>>,
}

impl CachedJobs {
    /// Calls whose answers are laid over these caches.
    pub fn new(calls: Calls, jobs: Arc<Watch<JobView>>, pods: Arc<Watch<PodView>>) -> Self {
        Self { calls, jobs, pods }
    }

    fn boot(&self) -> Duration {
        self.calls.clock().boot()
    }

    async fn change_job(
        &self,
        step: &'static str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<JobView, ApiError> {
        let began = self.boot();
        let target = Target::of::<Job>();
        let changed: JobView = self.calls.patch(&target, step, namespace, name, None, &Patch::Merge(patch)).await?;
        // It may have changed nothing.
        self.jobs.read_back(&Key::new(namespace, name), Some(changed.clone()), began);
        Ok(changed)
    }
}

#[async_trait]
impl JobApi for CachedJobs {
    async fn create_job(&self, namespace: &str, job: &Job) -> Result<JobView, ApiError> {
        let began = self.boot();
        let created: JobView = self.calls.create(&Target::of::<Job>(), "create the job", namespace, job).await?;
        Ok(self.jobs.wrote(created, None, began).as_ref().clone())
    }

    async fn would_create_job(&self, namespace: &str, job: &Job) -> Result<JobView, ApiError> {
        self.calls.would_create(&Target::of::<Job>(), "ask what the job would be", namespace, job).await
    }

    async fn note_fingerprint(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        pod: Fingerprint,
    ) -> Result<JobView, ApiError> {
        let patch = json!({"metadata": {"uid": uid, "annotations": {ANNOTATION_POD: pod.to_string()}}});
        self.change_job("note what admission made of the job", namespace, name, patch).await
    }

    async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<JobView>, ApiError> {
        let began = self.boot();
        let found: Option<JobView> =
            self.calls.get(&Target::of::<Job>(), "read the job", namespace, name).await.or_absent()?;
        // A foreign Job of our name is not of the watched set, so nothing would ever take it out of the cache.
        if found.as_ref().is_none_or(|job| job.attempt.is_some()) {
            self.jobs.read_back(&Key::new(namespace, name), found.clone(), began);
        }
        Ok(found)
    }

    async fn pods_of_job(&self, namespace: &str, job_uid: &str) -> Result<Vec<PodView>, ApiError> {
        let began = self.boot();
        let scope = Scope {
            namespace: Some(namespace.to_owned()),
            labels: Some(format!("batch.kubernetes.io/controller-uid={job_uid}")),
            fields: None,
        };
        let step = "list the pods of the job";
        let mut found = Vec::new();
        let take = |pod: &[u8]| found.push(serde_json::from_slice::<PodView>(pod));
        self.calls.list(&Target::of::<Pod>(), step, &scope, MAX_PODS, None, take).await?;
        let pods: Result<Vec<_>, _> = found.into_iter().collect();
        let pods = pods.map_err(|error| ApiError::undecodable(step, &error))?;
        let read_back = |pod: PodView| {
            let key = Key::new(&pod.namespace, &pod.name);
            self.pods.read_back(&key, Some(pod), began).map(Arc::unwrap_or_clone)
        };
        Ok(pods.into_iter().filter_map(read_back).collect())
    }

    async fn set_job_ttl(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        ttl_seconds: Option<i32>,
    ) -> Result<JobView, ApiError> {
        let why = ttl_seconds.is_none().then_some("until the status of its run could be stored");
        let patch = json!({
            "metadata": {"uid": uid, "annotations": {ANNOTATION_KEPT: why}},
            "spec": {"ttlSecondsAfterFinished": ttl_seconds},
        });
        self.change_job("change how long the job stays", namespace, name, patch).await
    }

    async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let deletion = Deletion { propagation: PropagationPolicy::Foreground, ..Deletion::of(uid) };
        self.calls.delete(&Target::of::<Job>(), "delete the job", namespace, name, &deletion).await
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, grace_seconds: u32) -> Result<(), ApiError> {
        let deletion = Deletion { grace_seconds: Some(grace_seconds), ..Deletion::of(uid) };
        self.calls.delete(&Target::of::<Pod>(), "delete the pod", namespace, name, &deletion).await
    }

    async fn create_config_map(&self, namespace: &str, config_map: &ConfigMap) -> Result<(), ApiError> {
        let _: IgnoredAny =
            self.calls.create(&Target::of::<ConfigMap>(), "create the config map", namespace, config_map).await?;
        Ok(())
    }

    async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMapView>, ApiError> {
        self.calls.get(&Target::of::<ConfigMap>(), "read the config map", namespace, name).await.or_absent()
    }
}
