//! Everything outside the Kubernetes API: the runtime adapter contract, the reconcile driver, the runner library, the
//! process adapter, the reading of manifests and the local engine. Whoever holds objects keeps [`links`] and [`tags`] of them.

pub mod adapter;
pub mod causes;
pub mod conformance;
pub mod driver;
pub mod lines;
pub mod links;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(any(feature = "manifest", feature = "runner"))]
pub mod pipes;
#[cfg(feature = "process")]
pub mod process;
#[cfg(feature = "runner")]
pub mod runner;
#[cfg(feature = "runner")]
mod shortage;
#[cfg(feature = "spec-file")]
pub mod spec_file;
pub mod tags;
