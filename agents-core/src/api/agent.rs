//! Agent: defaults for runs, and the provider that executes them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, EnvVar, FreeForm, NameRef, Parameters, Payloads, Resources},
    implementation_spec::SourceProvider,
    kind::{Column, Kind, Rule, Says},
    prompt::SystemPromptRef,
    runtime::RuntimeSpec,
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
    const COLUMNS: &'static [Column] = &[
        Column { name: "Provider", path: ".spec.providerRef.name", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.conditions[?(@.type==\"Ready\")].reason", kind: "string", wide: false },
        Column {
            name: "Message",
            path: ".status.conditions[?(@.type==\"Ready\")].message",
            kind: "string",
            wide: true,
        },
    ];
    const RULES: &'static [Rule] = &[Rule {
        field: ".spec.defaults",
        expression: "!has(self.spec.defaults) || !has(self.spec.defaults.systemPrompt) || !has(self.spec.defaults.systemPromptRef)",
        message: "give systemPrompt or systemPromptRef, not both",
    }];
    const EXAMPLE: &'static str = include_str!("examples/agent.yaml");
    const SAYS: Says = Says::Conditions;
    const ACTED_ON: bool = true;
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
    /// Free settings of this agent, in templates as `agent.config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<FreeForm>,
    /// Settings of one provider, by its name; kept as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub provider: BTreeMap<String, FreeForm>,
    /// Default Memory; a run's wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_ref: Option<NameRef>,
    /// Default VersionControlProvider; a run's and a work item's win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_ref: Option<NameRef>,
    /// What this agent's runs may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<AgentSecurity>,
    /// How many of this agent's runs are under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// What is told to other systems about this agent's runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observability: Option<Observability>,
    /// Default timeout, retries and system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<AgentDefaults>,
}

/// What an agent's runs may use. An absent list restricts nothing; an empty one allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSecurity {
    /// Whether pods may go beyond Pod Security "restricted"; they may not when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_privileged: Option<bool>,
    /// Service accounts of pods; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 253)))]
    pub allowed_service_accounts: Option<Vec<String>>,
    /// Secrets; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 253)))]
    pub allowed_secrets: Option<Vec<String>>,
    /// Images; `*` stands for any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 1024)))]
    pub allowed_images: Option<Vec<String>>,
    /// Systems that work items may come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub allowed_implementation_source_providers: Option<Vec<SourceProvider>>,
}

/// How many runs are under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Concurrency {
    /// Runs at most; the controller's limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub limit: Option<i32>,
}

/// What is told to other systems, where the controller is connected to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observability {
    /// Lifecycle events go to NATS; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_enabled: Option<bool>,
    /// Completions go to Kafka; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka_completions: Option<bool>,
    /// Accepted for older manifests, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graf_enabled: Option<bool>,
}

/// Defaults of an Agent's runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentDefaults {
    /// System prompt of runs that bring none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub system_prompt: Option<String>,
    /// Where that system prompt is read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_prompt_ref: Option<SystemPromptRef>,
    /// Wall time from the first start over all attempts, in seconds; no limit when 0 or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
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
    /// When this status was written last; accepted for objects of older controllers, never written: each change has its
    /// own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
