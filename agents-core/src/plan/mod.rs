//! From what was resolved to what will be executed: the runner's JSON, the pod, and the digest over both.

pub mod bounds;
mod build;
pub mod digest;
mod look;
pub mod pod;
mod render;
pub mod runner_spec;

pub use bounds::{Amounts, Bounds};
pub use build::{
    CONTAINER, Defaults, ExecutionPlan, INSTALL_CONTAINER, PlanError, RUNNER_PATH, SPEC_DIR, plan, plan_with, pod_of,
};
pub use look::{Looked, ROOTS, look};
pub use render::{MAX_RENDERED_TOTAL, Rendered, render_provider};
pub use runner_spec::RunnerSpec;
