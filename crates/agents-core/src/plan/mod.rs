//! From what was resolved to what will be executed: the runner's JSON, the pod, and the digest over both.

//mod build;
pub mod digest;
//pub mod pod;
pub mod runner_spec;

//pub use build::{Defaults, ExecutionPlan, PlanError, plan};
pub use runner_spec::RunnerSpec;
