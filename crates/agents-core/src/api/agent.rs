//! Agent: defaults for runs, and the provider that executes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, EnvVar, NameRef, Parameters, Payloads, Resources, RuntimeSpec},
    kind::{Column, Kind},
};

/// Who does the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agent;

impl Kind for Agent {
    const KIND: &'static str = "Agent";
    const PLURAL: &'static str = "agents";
    const SINGULAR: &'static str = "agent";
    const SHORT_NAMES: &'static [&'static str] = &["ag"];
    const DESCRIPTION: &'static str = "Defaults and provider shared by the runs of one agent.";
    const COLUMNS: &'static [Column] =
        &[Column { name: "Provider", path: ".spec.providerRef.name", kind: "string", wide: false }];
    const EXAMPLE: &'static str = include_str!("examples/agent.yaml");
    type Spec = AgentSpec;
    type Status = AgentStatus;
}

/// Desired state of an Agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// The AgentProvider that executes the runs.
    pub provider_ref: NameRef,
    /// Default parameters; a run's parameters win.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub inputs: Parameters,
    /// Default payloads; a run's payloads win.
    #[serde(default, skip_serializing_if = "Payloads::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub payloads: Payloads,
    /// Variables of the provider's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub env: Vec<EnvVar>,
    /// Default runtime; a run's runtime wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSpec>,
    /// Default resources; a run's workload wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Default timeout and retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<AgentDefaults>,
}

/// Defaults of an Agent's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentDefaults {
    /// Wall time from the first start over all attempts, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub timeout_seconds: Option<i64>,
    /// Attempts besides the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub retry_limit: Option<i32>,
}

/// Observed state of an Agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
