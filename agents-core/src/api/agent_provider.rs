//! AgentProvider: how to invoke one agent CLI.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, FreeForm, Resources, TemplateText},
    kind::{Column, Kind, Rule, Says},
    workload::Volume,
};

/// How an agent CLI is started and read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentProvider;

impl Kind for AgentProvider {
    const KIND: &'static str = "AgentProvider";
    const PLURAL: &'static str = "agentproviders";
    const SINGULAR: &'static str = "agentprovider";
    const SHORT_NAMES: &'static [&'static str] = &["ap"];
    const DESCRIPTION: &'static str = "How to invoke an agent CLI: binary, templates, credentials, usage.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Binary", path: ".spec.binary", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.conditions[?(@.type==\"Ready\")].reason", kind: "string", wide: false },
        Column { name: "Image", path: ".spec.workload.image", kind: "string", wide: true },
        Column {
            name: "Message",
            path: ".status.conditions[?(@.type==\"Ready\")].message",
            kind: "string",
            wide: true,
        },
    ];
    const RULES: &'static [Rule] = &[Rule {
        field: ".spec.usage",
        expression: "!has(self.spec.usage) || has(self.spec.usage.parser) != has(self.spec.usage.file)",
        message: "usage is read by a parser or from a file: give exactly one of them",
    }];
    const EXAMPLE: &'static str = include_str!("examples/agentprovider.yaml");
    const SAYS: Says = Says::Conditions;
    const ACTED_ON: bool = true;
    type Spec = AgentProviderSpec;
    type Status = AgentProviderStatus;
}

/// Desired state of an AgentProvider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentProviderSpec {
    /// Program to start: an absolute path, or a name looked up in PATH.
    #[schemars(length(min = 1, max = 4096))]
    pub binary: String,
    /// One template per argument. No shell is involved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args_template: Vec<TemplateText>,
    /// One template per variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub env_template: BTreeMap<String, TemplateText>,
    /// Files written before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub input_files: Vec<InputFile>,
    /// Variables taken from Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secret_env: Vec<SecretEnv>,
    /// Files that are stored as artifacts after a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub output_artifacts: Vec<OutputArtifact>,
    /// JSON Schema of the parameters that the templates read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<FreeForm>,
    /// How tokens are read from the provider's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageSource>,
    /// How a former conversation is continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// The protocol between runner and provider, when it is more than a process; `binary` is then `agent-runner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// What recent failures of the provider do to its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Image, resources and identity the provider needs; an Agent's and a run's win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<ProviderWorkload>,
}

/// A file that is stored as an artifact after a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputArtifact {
    /// Name of the artifact.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Path of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub path: Option<String>,
    /// Key in the store; the artifact is not uploaded without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key: Option<String>,
    /// Address under which the artifact is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
}

/// How a former conversation is continued.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// Templates of the arguments that take the place of `argsTemplate`; `run.conversation` is the id to continue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args_template: Vec<TemplateText>,
}

/// A protocol between runner and provider. Fields of adapters that are not known here are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Adapter {
    /// Name of the adapter, such as `exec` or `codex-app-server`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Settings of `type: exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecAdapter>,
    /// Settings of every other adapter.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// A provider that is started as a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ExecAdapter {
    /// Program to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub binary: Option<String>,
    /// One template per argument; the provider's when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args_template: Vec<TemplateText>,
    /// One template per variable, besides the provider's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub env_template: BTreeMap<String, TemplateText>,
    /// Files written before the start, besides the provider's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub input_files: Vec<InputFile>,
    /// Files stored after a run, besides the provider's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub output_artifacts: Vec<OutputArtifact>,
    /// Further settings.
    #[serde(flatten)]
    #[schemars(skip)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// What recent failures of a provider do to its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `degrade` (the default) only says so; `block` holds further runs until the provider has recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_failure_policy: Option<CapacityFailurePolicy>,
}

/// What a provider without capacity does to its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CapacityFailurePolicy {
    /// They are started all the same.
    Degrade,
    /// They wait.
    Block,
}

/// Image, resources and identity a provider needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderWorkload {
    /// Image the provider runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// CPU, memory and other resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Volumes of the pod, mounted into the provider's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
    /// Service account of the pod; an Agent's and a run's win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// A token of that service account for another party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountToken>,
}

/// A projected service account token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountToken {
    /// The party that is to accept the token.
    #[schemars(length(min = 1, max = 253))]
    pub audience: String,
    /// How long a token is valid, in seconds; it is renewed before.
    #[schemars(range(min = 600, max = 3600))]
    pub expiration_seconds: i64,
    /// Absolute path of the folder that holds the file `token`.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/"))]
    pub mount_path: String,
}

/// A file written before the provider starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputFile {
    /// Absolute path below `/workspace` or `/root`.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
    /// Template of the content.
    pub content: TemplateText,
}

/// A variable taken from a Secret of the run's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretEnv {
    /// Variable name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Secret in the run's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Key inside the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Start without the variable when the Secret or its key is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// How tokens are read from the provider's output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UsageSource {
    /// A named parser of the provider's standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parser: Option<UsageParser>,
    /// A JSON file that the provider leaves, with the fields of `status.usage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub file: Option<String>,
}

/// A named parser of a provider's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UsageParser {
    /// The JSON lines of `codex exec --json`.
    #[serde(rename = "codex-json")]
    CodexJson,
}

/// Observed state of an AgentProvider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentProviderStatus {
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
