//! Runs as Kubernetes Jobs: the `job` runtime adapter.
//!
//! `manifest` turns a submission into objects, `pod` a [`PodPlan`](agents_core::plan::pod::PodPlan) into a pod and
//! `pod_read` a pod back into a plan; `fingerprint` says what a pod executes; `view` projects what the API server answers, `observe` says what it means; `job`
//! makes the calls through the seam of `api`. All but `api` and `job` are pure.

mod api;
mod cached;
mod fingerprint;
mod job;
mod manifest;
mod observe;
mod pod;
mod pod_read;
mod spec;
mod view;

pub use api::JobApi;
pub use cached::CachedJobs;
pub use fingerprint::Fingerprint;
pub use job::{JobAdapter, ReportSecret, is_admitted_job_of, is_the_job_of, note_admission};
pub use manifest::{DEFAULT_TTL, JobSettings, MIN_TTL, Manifests, manifests};
pub use observe::{has_ended, is_ours, observe, overdue};
pub use pod::pod_template;
pub use pod_read::{NotPlanned, read_pod};
pub use spec::{CarrierError, MAX_ANNOTATIONS, SpecCarrier};
pub use view::{ConfigMapView, ContainerState, JobEnd, JobView, Marks, OwnerView, Phase, PodNote, PodView, Terminated};
