//! The calls the Job adapter makes, as a trait: one implementation over the API server, another in tests.
//!
//! Every call has a deadline. A call that was not answered in time may still take effect.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};

use super::view::{ConfigMapView, JobView, PodView};

/// Calls of the Kubernetes API.
///
/// What is read comes from the API server's present state, never from a cache. Deletions and changes carry the uid of
/// what is meant, so that another object of the same name is never touched.
#[async_trait]
pub trait JobApi: Send + Sync + fmt::Debug {
    /// Creates a Job.
    async fn create_job(&self, namespace: &str, job: &Job) -> Result<JobView, CallError>;
    /// Reads a Job; `None` when there is none.
    async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<JobView>, CallError>;
    /// Lists the pods of the Job with this uid.
    async fn pods_of_job(&self, namespace: &str, job_uid: &str) -> Result<Vec<PodView>, CallError>;
    /// Changes how long a Job stays after its end, in seconds; `None` marks it as kept, for as long as its run.
    async fn set_job_ttl(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        ttl_seconds: Option<i32>,
    ) -> Result<JobView, CallError>;
    /// Deletes a Job after its pods.
    async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError>;
    /// Deletes a pod, with this much time between TERM and KILL.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, grace_seconds: u32) -> Result<(), CallError>;
    /// Creates a ConfigMap.
    async fn create_config_map(&self, namespace: &str, config_map: &ConfigMap) -> Result<(), CallError>;
    /// Reads a ConfigMap; `None` when there is none.
    async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMapView>, CallError>;
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
