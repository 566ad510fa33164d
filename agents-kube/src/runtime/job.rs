//! The `job` runtime adapter: one Kubernetes Job per submission, found again by its deterministic name.
//!
//! The name is the only lock. Whoever finds it taken looks at the owner and at what is executed: what we would have made
//! ourselves is adopted, anything else is a conflict and left alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use agents_core::{
    api::runtime::RuntimeKind,
    mutant::{self, Mutant},
    name::SubmissionKey,
    plan::{RunnerSpec, digest::sha256, pod::SPEC_FILE, runner_spec::Limits},
    runtime::{Observation, RuntimeRef, Submission},
};
use agents_runtime::{
    adapter::{AdapterError, AdapterErrorKind, Capabilities, Class, Grace, RuntimeAdapter},
    spec_file,
};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};

use super::{
    api::JobApi,
    manifest::{JobSettings, Manifests, manifests},
    observe::{has_ended, is_ours, is_run, observe},
    view::{ConfigMapView, JobView, Marks, OwnerView},
};
use crate::client::{ApiError, ApiErrorKind};

/// Grace of a pod that is ended by force. With 0 the API server forgets the pod without asking its node, where it may
/// go on; with 1 the pod is there until the node says that it has ended.
const FORCED_GRACE_SECONDS: u32 = 1;

/// Runs submissions as Kubernetes Jobs.
#[derive(Debug, Clone)]
pub struct JobAdapter {
    api: Arc<dyn JobApi>,
    settings: JobSettings,
    secret: Option<ReportSecret>,
}

/// What the keys of reports are derived from: 32 random bytes that nobody else knows. Its `Debug` shows nothing of it.
#[derive(Clone, Copy)]
pub struct ReportSecret([u8; 32]);

impl std::fmt::Debug for ReportSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReportSecret(…)")
    }
}

impl ReportSecret {
    /// A secret of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The same for each try of one submission, another one for every other, and nothing to guess the secret by.
    fn key_of(self, submission: &Submission) -> String {
        let SubmissionKey { uid, step, iteration, attempt } = &submission.key;
        let mut bytes = self.0.to_vec();
        bytes.extend(format!("/{uid}/{step}/{iteration}/{attempt}/").into_bytes());
        bytes.extend(self.0);
        sha256(&bytes).split_off("sha256:".len())
    }
}

impl JobAdapter {
    /// An adapter over `api` with default settings.
    pub fn new(api: Arc<dyn JobApi>) -> Self {
        Self { api, settings: JobSettings::default(), secret: None }
    }

    /// Gives each submission a key that its runner repeats in its report, so that no other's is believed. Without a secret
    /// reports are believed by what they say alone.
    #[must_use]
    pub fn with_report_secret(mut self, secret: ReportSecret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Changes the settings.
    #[must_use]
    pub fn with_settings(mut self, settings: JobSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Creates the ConfigMap unless it is there; one that an earlier call of ours created has the same meaning.
    async fn ensure_config_map(&self, submission: &Submission, config_map: &ConfigMap) -> Result<(), AdapterError> {
        let namespace = &submission.namespace;
        let name = config_map.metadata.name.as_deref().unwrap_or_default();
        let step = || format!("create ConfigMap {namespace}/{name}");
        match self.api.create_config_map(namespace, config_map).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == ApiErrorKind::AlreadyExists => {
                let found = self.api.get_config_map(namespace, name).await;
                match found.map_err(|error| classify(&format!("read ConfigMap {namespace}/{name}"), error))? {
                    Some(ConfigMapView { owner: Some(owner), immutable, files })
                        if is_run(&owner, &submission.owner.uid) =>
                    {
                        let same = immutable && carries(&files, &submission.spec);
                        if same || mutant::is_on(Mutant::AdoptsByOwner) {
                            return Ok(());
                        }
                        Err(another("ConfigMap", namespace, name, "its runner's spec is not the one of this attempt"))
                    }
                    Some(ConfigMapView { owner, .. }) => Err(taken("ConfigMap", namespace, name, owner.as_ref())),
                    None => Err(gone_again(&step())),
                }
            }
            Err(error) => Err(classify(&step(), error)),
        }
    }

    async fn adopt(&self, submission: &Submission, made: &Job, wanted: &Marks) -> Result<RuntimeRef, AdapterError> {
        let (namespace, name) = (&submission.namespace, submission.name.as_str());
        let job = self.read(namespace, name).await?;
        match job {
            Some(job) if is_ours(&job, &submission.owner.uid) && job.attempt == Some(submission.key.attempt) => {
                if is_same(&job.marks, wanted) {
                    return Ok(reference(submission, &job));
                }
                match is_admitted(&*self.api, made, wanted, &job).await {
                    Ok(true) => {
                        note_admission(&*self.api, &job).await;
                        return Ok(reference(submission, &job));
                    }
                    Ok(false) => {}
                    Err(error) if matches!(error.class, Class::Retry | Class::RetryAfter(_)) => {
                        return Err(classify(&format!("learn what admission makes of Job {namespace}/{name}"), error));
                    }
                    Err(error) => tracing::debug!(%error, name, "what admission makes of a job is not known"),
                }
                Err(another("Job", namespace, name, "what it executes is not the plan of this attempt"))
            }
            Some(job) => Err(taken("Job", namespace, name, job.owner.as_ref())),
            None => Err(gone_again(&format!("create Job {namespace}/{name}"))),
        }
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Option<JobView>, AdapterError> {
        let job = self.api.get_job(namespace, name).await;
        job.map_err(|error| classify(&format!("read Job {namespace}/{name}"), error))
    }

    /// Deletes the Job of this uid.
    async fn delete(&self, namespace: &str, name: &str, uid: &str) -> Result<Deleted, AdapterError> {
        match self.api.delete_job(namespace, name, uid).await {
            Ok(()) => Ok(Deleted::Asked),
            Err(error) if error.is_not_found() => Ok(Deleted::Gone),
            Err(error) if error.kind == ApiErrorKind::Conflict => Ok(Deleted::Another),
            Err(error) => Err(classify(&format!("delete Job {namespace}/{name}"), error)),
        }
    }

    /// Ends what lives of the Job's pods, each with `grace_seconds` between TERM and KILL.
    async fn end_pods(&self, namespace: &str, job_uid: &str, grace_seconds: u32) -> Result<(), AdapterError> {
        let step = || format!("end the pods of Job {namespace}/{job_uid}");
        let pods = self.api.pods_of_job(namespace, job_uid).await;
        for pod in pods.map_err(|error| classify(&step(), error))?.iter().filter(|pod| !has_ended(pod)) {
            match self.api.delete_pod(namespace, &pod.name, &pod.uid, grace_seconds).await {
                Ok(()) => {}
                Err(error) if matches!(error.kind, ApiErrorKind::NotFound | ApiErrorKind::Conflict) => {}
                Err(error) => return Err(classify(&step(), error)),
            }
        }
        Ok(())
    }
}

/// What became of the deletion of a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    /// It is being deleted.
    Asked,
    /// There is none of that name.
    Gone,
    /// The name stands for another one now.
    Another,
}

#[async_trait]
impl RuntimeAdapter for JobAdapter {
    fn runtime(&self) -> RuntimeKind {
        RuntimeKind::Job
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pushes: true, poll_interval: Duration::from_secs(30), garbage_collected: true, has_pod: true }
    }

    async fn submit(&self, submission: &Submission) -> Result<RuntimeRef, AdapterError> {
        let key = self.secret.map(|secret| secret.key_of(submission));
        let Manifests { config_map, job, marks } = manifests(submission, self.settings, key.as_deref())
            .map_err(|error| AdapterError::rejected(error.to_string()).because(error))?;
        if let Some(config_map) = &config_map {
            self.ensure_config_map(submission, config_map).await?;
        }
        let (namespace, name) = (&submission.namespace, &submission.name);
        match self.api.create_job(namespace, &job).await {
            Ok(created) => {
                note_admission(&*self.api, &created).await;
                Ok(reference(submission, &created))
            }
            Err(error) if error.kind == ApiErrorKind::AlreadyExists => self.adopt(submission, &job, &marks).await,
            Err(error) => Err(classify(&format!("create Job {namespace}/{name}"), error)),
        }
    }

    /// The Job is read before its pods, so that the pods are at least as new: a Job that has ended is never seen with
    /// a pod that has not yet.
    async fn status(&self, reference: &RuntimeRef) -> Result<Observation, AdapterError> {
        let (namespace, name) = (&reference.namespace, reference.name.as_str());
        let job = self.read(namespace, name).await?;
        let pods = match &job {
            Some(job) if is_ours(job, &reference.owner_uid) => self
                .api
                .pods_of_job(namespace, &job.uid)
                .await
                .map_err(|error| classify(&format!("list the pods of Job {namespace}/{name}"), error))?,
            _ => vec![],
        };
        Ok(observe(&reference.owner_uid, reference.uid.as_deref(), job.as_ref(), &pods))
    }

    async fn keep(&self, reference: &RuntimeRef, kept: bool) -> Result<(), AdapterError> {
        let (namespace, name) = (&reference.namespace, reference.name.as_str());
        let Some(job) = self.read(namespace, name).await?.filter(|job| is_ours(job, &reference.owner_uid)) else {
            return Ok(());
        };
        let ttl = (!kept).then(|| self.settings.ttl_seconds());
        match self.api.set_job_ttl(namespace, name, &job.uid, ttl).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind, ApiErrorKind::NotFound | ApiErrorKind::Conflict) => Ok(()),
            Err(error) => Err(classify(&format!("change how long Job {namespace}/{name} stays"), error)),
        }
    }

    /// The pod's own grace holds, which the plan derives from the run's; only a grace of zero ends pods by force.
    async fn cancel(&self, reference: &RuntimeRef, grace: Grace) -> Result<(), AdapterError> {
        let (namespace, name) = (&reference.namespace, reference.name.as_str());
        let mut uid = reference.uid.clone();
        // The second round is for a reference whose Job was replaced by another one of ours.
        for _ in 0..2 {
            let target = match uid.take() {
                Some(uid) => uid,
                None => match self.read(namespace, name).await? {
                    Some(job) if is_ours(&job, &reference.owner_uid) && job.marks.agree() => job.uid,
                    _ => return Ok(()),
                },
            };
            match self.delete(namespace, name, &target).await? {
                Deleted::Asked if grace.0.is_zero() => {
                    return self.end_pods(namespace, &target, FORCED_GRACE_SECONDS).await;
                }
                Deleted::Asked => return Ok(()),
                // A Job that was deleted without its pods ends none of them.
                Deleted::Gone => {
                    let seconds = u32::try_from(grace.0.as_secs()).unwrap_or(u32::MAX).max(FORCED_GRACE_SECONDS);
                    return self.end_pods(namespace, &target, seconds).await;
                }
                Deleted::Another => {}
            }
        }
        Err(AdapterError::unavailable(format!("failed to delete Job {namespace}/{name}: it changed meanwhile")))
    }
}

fn reference(submission: &Submission, job: &JobView) -> RuntimeRef {
    RuntimeRef {
        runtime: RuntimeKind::Job,
        namespace: submission.namespace.clone(),
        name: submission.name.clone(),
        owner_uid: submission.owner.uid.clone(),
        uid: Some(job.uid.clone()),
    }
}

fn taken(kind: &str, namespace: &str, name: &str, owner: Option<&OwnerView>) -> AdapterError {
    let owner = match owner {
        Some(OwnerView { api_version, kind, name, uid }) => {
            format!("belongs to {kind} {name} of {api_version} ({uid})")
        }
        None => "has no owner".to_owned(),
    };
    AdapterError::conflict(format!("{kind} {namespace}/{name} exists and {owner}; delete it or rename it"))
}

fn another(kind: &str, namespace: &str, name: &str, why: &str) -> AdapterError {
    AdapterError::conflict(format!(
        "{kind} {namespace}/{name} exists and was made by someone else, or by a controller with other defaults: {why}; \
         delete it"
    ))
}

/// Whether a Job with the marks `found` executes what one with the marks `wanted` would.
fn is_same(found: &Marks, wanted: &Marks) -> bool {
    // The key is another one when another controller made it.
    let Marks { plan, pod, made: _, report_key: _ } = found;
    (*plan == wanted.plan && *pod == wanted.pod) || mutant::is_on(Mutant::AdoptsByOwner)
}

/// Whether `found` is what admission makes of `made` in this cluster, by a create that creates nothing.
async fn is_admitted(api: &dyn JobApi, made: &Job, wanted: &Marks, found: &JobView) -> Result<bool, ApiError> {
    if found.marks.plan != wanted.plan {
        return Ok(false);
    }
    let mut trial = made.clone();
    // Its own name is taken.
    trial.metadata.generate_name = trial.metadata.name.take().map(|name| name + "-");
    let admitted = api.would_create_job(&found.namespace, &trial).await?;
    Ok(admitted.marks.pod == found.marks.pod)
}

/// Whether `job` is what admission makes of the Job of `submission` in this cluster.
///
/// # Errors
/// That is not known: a webhook may be away, or not answer what would only be tried.
pub async fn is_admitted_job_of(api: &dyn JobApi, submission: &Submission, job: &JobView) -> Result<bool, ApiError> {
    let Ok(Manifests { config_map: _, job: made, marks }) = manifests(submission, JobSettings::default(), None) else {
        return Ok(false);
    };
    if job.attempt != Some(submission.key.attempt) {
        return Ok(false);
    }
    is_admitted(api, &made, &marks, job).await
}

/// Where admission has rewritten the pod template, the Job no longer says what it is; nobody else would end it then, should
/// its run be gone.
pub async fn note_admission(api: &dyn JobApi, job: &JobView) {
    if job.marks.agree() {
        return;
    }
    if let Err(error) = api.note_fingerprint(&job.namespace, &job.name, &job.uid, job.marks.pod).await {
        tracing::debug!(%error, job = job.name, "what admission made of the job is not noted");
    }
}

/// Whether `job`, found under its name, is the Job that `submission` makes: the same plan and the same pod.
pub fn is_the_job_of(submission: &Submission, job: &JobView) -> bool {
    let wanted = manifests(submission, JobSettings::default(), None);
    job.attempt == Some(submission.key.attempt) && wanted.is_ok_and(|wanted| is_same(&job.marks, &wanted.marks))
}

/// Whether these files of a ConfigMap carry `spec`, but for the time that is left and the grace.
fn carries(files: &BTreeMap<String, String>, spec: &RunnerSpec) -> bool {
    let carried = || {
        let file = STANDARD.decode(files.get(SPEC_FILE)?).ok()?;
        let json = spec_file::decode(&file).ok()?;
        serde_json::from_str::<RunnerSpec>(&json).ok()
    };
    let untimed = |spec: RunnerSpec| RunnerSpec { limits: Limits::default(), ..spec };
    carried().is_some_and(|carried| untimed(carried) == untimed(spec.clone()))
}

/// What a failed call means for the caller: the class of the call's own table, and whose fault it is.
fn classify(step: &str, error: ApiError) -> AdapterError {
    let kind = match error.kind {
        ApiErrorKind::Invalid
        | ApiErrorKind::Refused
        | ApiErrorKind::Denied
        | ApiErrorKind::Forbidden
        | ApiErrorKind::NotFound
        | ApiErrorKind::NotServed => AdapterErrorKind::Rejected,
        ApiErrorKind::AlreadyExists
        | ApiErrorKind::Conflict
        | ApiErrorKind::TooManyRequests { .. }
        | ApiErrorKind::Ambiguous
        | ApiErrorKind::Gone
        | ApiErrorKind::Unavailable
        | ApiErrorKind::NotSent
        | ApiErrorKind::Decode => AdapterErrorKind::Unavailable,
    };
    let message = format!("failed to {step}: {}", error.message);
    AdapterError { kind, class: error.class, message, source: Some(Box::new(error)) }
}

/// What was in the way of a create is gone again: the next try creates it.
fn gone_again(step: &str) -> AdapterError {
    AdapterError::unavailable(format!("failed to {step}: what had its name is gone again"))
}

#[cfg(test)]
mod tests;
