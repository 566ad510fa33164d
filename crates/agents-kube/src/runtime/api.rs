//! The calls the Job adapter makes, as a trait: one implementation over a [`kube::Client`], another in tests.
//!
//! Every call has a deadline. A call that was not answered in time may still take effect.

use std::{fmt, future::Future, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Client, Resource,
    api::{DeleteParams, ListParams, PostParams, Preconditions, PropagationPolicy},
    core::Request,
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::view::{JobView, OwnerView, PodView};

/// Longest wait for an answer of the API server.
const DEADLINE: Duration = Duration::from_secs(10);

/// Calls of the Kubernetes API.
///
/// What is read comes from the API server's present state, never from a cache. Deletions carry the uid of what is
/// meant, so that another object of the same name is never touched.
#[async_trait]
pub trait JobApi: Send + Sync + fmt::Debug {
    /// Creates a Job.
    async fn create_job(&self, namespace: &str, job: &Job) -> Result<JobView, CallError>;
    /// Reads a Job; `None` when there is none.
    async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<JobView>, CallError>;
    /// Lists the pods of the Job with this uid.
    async fn pods_of_job(&self, namespace: &str, job_uid: &str) -> Result<Vec<PodView>, CallError>;
    /// Deletes a Job after its pods.
    async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError>;
    /// Deletes a pod, with this much time between TERM and KILL.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, grace_seconds: u32) -> Result<(), CallError>;
    /// Creates a ConfigMap.
    async fn create_config_map(&self, namespace: &str, config_map: &ConfigMap) -> Result<(), CallError>;
    /// Reads the controller of a ConfigMap; `None` when there is no such ConfigMap.
    async fn config_map_owner(&self, namespace: &str, name: &str) -> Result<Option<Option<OwnerView>>, CallError>;
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server answered and refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Kubernetes' word for it: `AlreadyExists`, `Forbidden`, …
        reason: String,
        /// For people.
        message: String,
        /// How long to wait before the next try, when it says so.
        retry_after: Option<Duration>,
    },
    /// No answer came in time; whether the call took effect is unknown.
    #[error("no answer from the API server within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// No answer came, or none that can be read; whether the call took effect is unknown.
    #[error("no answer from the API server")]
    Unanswered(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CallError {
    /// Whether the object to create is there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { code: 409, reason, .. } if reason == "AlreadyExists")
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether a precondition did not hold, or another write came first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, reason, .. } if reason != "AlreadyExists")
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused {
                retry_after: status
                    .details
                    .as_ref()
                    .map(|details| details.retry_after_seconds)
                    .filter(|seconds| *seconds > 0)
                    .map(|seconds| Duration::from_secs(u64::from(seconds))),
                code: status.code,
                reason: status.reason,
                message: status.message,
            },
            other => Self::Unanswered(Box::new(other)),
        }
    }
}

/// The calls over a client.
#[derive(Clone)]
pub struct KubeJobs {
    client: Client,
}

impl fmt::Debug for KubeJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeJobs").finish_non_exhaustive()
    }
}

impl KubeJobs {
    /// The calls over `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, CallError> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        within_deadline(self.client.request::<T>(request)).await
    }
}

async fn within_deadline<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::TimedOut(DEADLINE)),
    }
}

fn at<K: Resource<DynamicType = ()>>(namespace: &str) -> Request {
    Request::new(K::url_path(&(), Some(namespace)))
}

fn body(object: &impl Serialize) -> Result<Vec<u8>, CallError> {
    serde_json::to_vec(object).map_err(|error| CallError::Unanswered(Box::new(error)))
}

fn of_uid(uid: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: None }
}

fn found<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl JobApi for KubeJobs {
    async fn create_job(&self, namespace: &str, job: &Job) -> Result<JobView, CallError> {
        self.call(at::<Job>(namespace).create(&PostParams::default(), body(job)?)).await
    }

    async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<JobView>, CallError> {
        found(self.call(at::<Job>(namespace).get(name, &kube::api::GetParams::default())).await)
    }

    async fn pods_of_job(&self, namespace: &str, job_uid: &str) -> Result<Vec<PodView>, CallError> {
        #[derive(Deserialize)]
        struct Pods {
            items: Vec<PodView>,
        }
        let selector = format!("batch.kubernetes.io/controller-uid={job_uid}");
        let Pods { items } = self.call(at::<Pod>(namespace).list(&ListParams::default().labels(&selector))).await?;
        Ok(items)
    }

    async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(of_uid(uid)),
            ..DeleteParams::default()
        };
        let IgnoredAny = self.call(at::<Job>(namespace).delete(name, &params)).await?;
        Ok(())
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, grace_seconds: u32) -> Result<(), CallError> {
        let params = DeleteParams {
            grace_period_seconds: Some(grace_seconds),
            preconditions: Some(of_uid(uid)),
            ..DeleteParams::default()
        };
        let IgnoredAny = self.call(at::<Pod>(namespace).delete(name, &params)).await?;
        Ok(())
    }

    async fn create_config_map(&self, namespace: &str, config_map: &ConfigMap) -> Result<(), CallError> {
        let request = at::<ConfigMap>(namespace).create(&PostParams::default(), body(config_map)?);
        let IgnoredAny = self.call(request).await?;
        Ok(())
    }

    async fn config_map_owner(&self, namespace: &str, name: &str) -> Result<Option<Option<OwnerView>>, CallError> {
        #[derive(Deserialize)]
        struct Found {
            metadata: super::view::OwnedBy,
        }
        let request = at::<ConfigMap>(namespace).get_metadata(name, &kube::api::GetParams::default());
        let answer: Option<Found> = found(self.call(request).await)?;
        Ok(answer.map(|Found { metadata }| metadata.controller))
    }
}
