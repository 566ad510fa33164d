//! Everything outside the Kubernetes API: the runtime adapter contract, the reconcile driver, the runner library, the
//! process adapter, the reading of manifests and the local engine.

pub mod adapter;
pub mod causes;
pub mod conformance;
pub mod driver;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "process")]
pub mod process;
#[cfg(feature = "runner")]
pub mod runner;
#[cfg(feature = "spec-file")]
pub mod spec_file;
