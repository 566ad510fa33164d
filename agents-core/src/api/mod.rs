//! What users write and read: one file per kind, holding its Spec and Status types with serde and schemars and
//! nothing else. Behaviour belongs to the other rooms.
//!
//! Bounds stand here as schema (counted in characters by the API server) and again in [`mod@crate::resolve`] (counted
//! in bytes), because the local engine has no API server in front of it.

pub mod agent;
pub mod agent_provider;
pub mod agent_run;
pub mod approval_policy;
pub mod artifact;
pub mod budget;
pub mod common;
pub mod implementation_source;
pub mod implementation_spec;
mod kind;
pub mod memory;
pub mod orchestration;
pub mod orchestration_run;
pub mod prompt;
pub mod runtime;
pub mod schedule;
pub mod secret_binding;
pub mod signal;
pub mod signal_delivery;
pub mod tool;
pub mod tool_run;
pub mod version_control_provider;
pub mod workflow;
pub mod workload;
pub mod workspace;

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use agent_provider::{AgentProvider, AgentProviderSpec, AgentProviderStatus};
pub use agent_run::{AgentRun, AgentRunSpec, AgentRunStatus};
pub use approval_policy::{ApprovalPolicy, ApprovalPolicySpec, ApprovalPolicyStatus};
pub use artifact::{Artifact, ArtifactSpec, ArtifactStatus};
pub use budget::{Budget, BudgetSpec, BudgetStatus};
pub use implementation_source::{ImplementationSource, ImplementationSourceSpec, ImplementationSourceStatus};
pub use implementation_spec::{ImplementationSpec, ImplementationSpecSpec, ImplementationSpecStatus};
pub use kind::{CATEGORY, Column, Frozen, GROUP, Kind, Meta, Resource, Rule, Says, VERSION, absent_spec};
pub use memory::{Memory, MemorySpec, MemoryStatus};
pub use orchestration::{Orchestration, OrchestrationSpec, OrchestrationStatus};
pub use orchestration_run::{OrchestrationRun, OrchestrationRunSpec, OrchestrationRunStatus};
pub use schedule::{Schedule, ScheduleSpec, ScheduleStatus};
pub use secret_binding::{SecretBinding, SecretBindingSpec, SecretBindingStatus};
pub use signal::{Signal, SignalSpec, SignalStatus};
pub use signal_delivery::{SignalDelivery, SignalDeliverySpec, SignalDeliveryStatus};
pub use tool::{Tool, ToolSpec, ToolStatus};
pub use tool_run::{ToolRun, ToolRunSpec, ToolRunStatus};
pub use version_control_provider::{VersionControlProvider, VersionControlProviderSpec, VersionControlProviderStatus};
pub use workspace::{Workspace, WorkspaceSpec, WorkspaceStatus};
