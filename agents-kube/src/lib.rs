//! Everything that speaks to the Kubernetes API: the custom resources as kube knows them, the client with its deadlines
//! and error classes, the watches whose age is proven, the leader lease, and manifests judged as the API server would.
//!
//! Nothing here has a listener, a thread, a signal handler, an environment read or a clock of its own: the embedding
//! program passes them in.

pub mod client;
mod clock;
mod control;
pub mod crd;
pub mod follow;
pub mod installed;
mod keeper;
pub mod lease;
#[cfg(feature = "lint")]
pub mod lint;
mod manager;
mod object;
pub mod rbac;
pub mod runtime;
pub mod watch;

pub use client::{ApiError, ApiErrorKind, Calls, OrAbsent};
pub use clock::{Clock, TimerClock};
pub use control::Namespaces;
pub use keeper::{Current, Keeper};
pub use manager::{Builder, Health, LeaseOptions, Manager, ManagerError};
pub use object::{Agent, AgentProvider, AgentRun, ImplementationSpec, Object};
pub use watch::{Change, Key, Projection, Slot, Watch};
