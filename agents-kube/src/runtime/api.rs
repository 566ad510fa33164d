//! The calls the Job adapter makes, as a trait: one implementation over the API server, another in tests.
//!
//! Every call has a deadline. A call that was not answered in time may still take effect.

use std::fmt;

use async_trait::async_trait;
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};

use super::{
    fingerprint::Fingerprint,
    view::{ConfigMapView, JobView, PodView},
};
use crate::client::ApiError;

/// Calls of the Kubernetes API.
///
/// What is read comes from the API server's present state, never from a cache. Deletions and changes carry the uid of
/// what is meant, so that another object of the same name is never touched.
#[async_trait]
pub trait JobApi: Send + Sync + fmt::Debug {
    /// Creates a Job.
    async fn create_job(&self, namespace: &str, job: &Job) -> Result<JobView, ApiError>;
    /// What a Job would be once it was admitted; nothing is created.
    async fn would_create_job(&self, namespace: &str, job: &Job) -> Result<JobView, ApiError>;
    /// Notes `pod` in a Job as the fingerprint that it was made with.
    async fn note_fingerprint(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        pod: Fingerprint,
    ) -> Result<JobView, ApiError>;
    /// Reads a Job; `None` when there is none.
    async fn get_job(&self, namespace: &str, name: &str) -> Result<Option<JobView>, ApiError>;
    /// Lists the pods of the Job with this uid.
    async fn pods_of_job(&self, namespace: &str, job_uid: &str) -> Result<Vec<PodView>, ApiError>;
    /// Changes how long a Job stays after its end, in seconds; `None` marks it as kept, for as long as its run.
    async fn set_job_ttl(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        ttl_seconds: Option<i32>,
    ) -> Result<JobView, ApiError>;
    /// Deletes a Job after its pods.
    async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError>;
    /// Deletes a pod, with this much time between TERM and KILL.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, grace_seconds: u32) -> Result<(), ApiError>;
    /// Creates a ConfigMap.
    async fn create_config_map(&self, namespace: &str, config_map: &ConfigMap) -> Result<(), ApiError>;
    /// Reads a ConfigMap; `None` when there is none.
    async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMapView>, ApiError>;
}
