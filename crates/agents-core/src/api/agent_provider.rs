//! AgentProvider: how to invoke one agent CLI.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, TemplateText, Workload},
    kind::{Column, Kind},
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
    const COLUMNS: &'static [Column] = &[Column { name: "Binary", path: ".spec.binary", kind: "string", wide: false }];
    const EXAMPLE: &'static str = include_str!("examples/agentprovider.yaml");
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
    /// How tokens are read from the provider's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageSource>,
    /// Image and resources the provider needs; an Agent's and a run's win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageSource {
    /// A named parser of the provider's standard output.
    pub parser: UsageParser,
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
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
