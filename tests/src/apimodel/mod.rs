//! An in-process Kubernetes API server for simulations: a tower service under a `kube::Client`, deterministic, on the
//! runtime's paused time, with a Job controller, a kubelet and a garbage collector of the same kind.
//!
//! It models what controllers rely on and trip over: versions and conflicts, the status subresource, finalizers,
//! selector watches, bookmarks, expiry, paging, owners. It does not model authorization, quotas, admission, CRD
//! schemas, field ownership, or namespaces as objects; those belong to the ring with a real API server. [`conformance`]
//! holds the request sequences whose answers must be the same on both.
//!
//! Start at [`World`].

mod actors;
mod answer;
mod builtin;
mod clock;
pub mod conformance;
mod fault;
mod garbage;
mod jobs;
mod judge;
mod kubelet;
mod metadata;
mod outcome;
mod request;
mod resource;
mod selector;
mod service;
mod store;
mod verbs;
mod watch;
mod world;

pub use clock::Clock;
pub use fault::{CrashAt, CrashPoint, Fault, Faults, Rule, WatchFault, WatchRule, When, Words};
pub use judge::{ATTEMPT_LABEL, Broken, RUN_UID_LABEL, Submission, Violation};
pub use outcome::Outcome;
pub use request::{Log, Record, Verb};
pub use resource::RESOURCES;
pub use store::{Change, Commit, Key};
pub use world::{NAMESPACE, Settings, Settled, Supervised, World};
