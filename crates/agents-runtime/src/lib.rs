//! Everything outside the Kubernetes API: the runtime adapter contract, the reconcile driver, the runner library, the
//! process adapter and the local engine.

pub mod adapter;
pub mod driver;
#[cfg(feature = "runner")]
pub mod runner;
