//! What users write and read: one file per kind, holding its Spec and Status types with serde and schemars and
//! nothing else. Behaviour belongs to the other rooms.
//!
//! Bounds stand here as schema (counted in characters by the API server) and again in [`mod@crate::resolve`] (counted
//! in bytes), because the local engine has no API server in front of it.

pub mod agent;
pub mod agent_provider;
pub mod agent_run;
pub mod common;
pub mod implementation_spec;
mod kind;
pub mod prompt;
pub mod runtime;
pub mod workflow;
pub mod workload;

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use agent_provider::{AgentProvider, AgentProviderSpec, AgentProviderStatus};
pub use agent_run::{AgentRun, AgentRunSpec, AgentRunStatus};
pub use implementation_spec::{ImplementationSpec, ImplementationSpecSpec, ImplementationSpecStatus};
pub use kind::{CATEGORY, Column, GROUP, Kind, Meta, Resource, Rule, VERSION, absent_spec};
