//! The runner's input: JSON with everything one attempt needs, so that the runner needs no cluster access.
//!
//! The shape is a contract between two versions of the product: fields are added, never changed. Unknown fields are
//! ignored; a wrong type is an error that names the field. What of it is covered by the digest: [`super::digest`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::{
    agent_provider::{InputFile, UsageSource},
    agent_run::{GitCoordinates, Output},
    common::{EnvVar, TemplateText},
    implementation_spec::ImplementationSpecSpec,
};

/// Value of [`RunnerSpec::schema_version`].
pub const SCHEMA_VERSION: &str = "agents.proompteng.ai/runner/v1";
/// The folder of the run inside the container.
pub const WORKSPACE: &str = "/workspace";
/// The other folder in which input files may lie.
pub const HOME: &str = "/root";
/// Where the runner writes its status file.
pub const STATUS_PATH: &str = "/workspace/.agent/status.json";
/// Where the runner keeps the provider's output.
pub const LOG_PATH: &str = "/workspace/.agent/log.txt";
/// Where the provider leaves declared outputs.
pub const OUTPUTS_DIR: &str = "/workspace/.agent/outputs";
/// Where the repository is checked out.
pub const CHECKOUT_DIR: &str = "/workspace/repository";
/// Time between TERM and KILL when nothing else is said, in seconds.
pub const DEFAULT_GRACE_SECONDS: u64 = 30;

/// Input of one runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerSpec {
    /// [`SCHEMA_VERSION`]; absent in the oldest specs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// Name of the provider.
    pub provider: String,
    /// Parameters, after defaults.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Payloads, after defaults.
    #[serde(default)]
    pub payloads: BTreeMap<String, String>,
    /// How to invoke the provider; when absent it is loaded by name from the folder `AGENT_PROVIDERS_DIR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_spec: Option<ProviderSpec>,
    /// The work item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation: Option<ImplementationSpecSpec>,
    /// Name of the ImplementationSpec; absent for an inline one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation_name: Option<String>,
    /// Which run and attempt this is.
    #[serde(default)]
    pub run: RunIdentity,
    /// The agent.
    #[serde(default)]
    pub agent: AgentIdentity,
    /// Repository to check out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitCoordinates>,
    /// Files that must exist for success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
    /// Variables of the Agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Names of variables whose values are secrets: they are redacted from every output of the runner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    /// Bounds of the attempt; not covered by the digest.
    #[serde(default)]
    pub limits: Limits,
    /// Where the runner writes.
    #[serde(default)]
    pub artifacts: ArtifactPaths,
    /// Where `/workspace` and `/root` really are, when the runner is not in a container of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<Roots>,
    /// Where the provider may report to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observability: Option<Observability>,
    /// `sha256:` of the pod the plan asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_digest: Option<String>,
    /// `sha256:` of this spec; the runner recomputes it and refuses to start when it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
}

/// How to invoke the provider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSpec {
    /// Program to start.
    pub binary: String,
    /// One template per argument.
    #[serde(default)]
    pub args_template: Vec<TemplateText>,
    /// One template per variable.
    #[serde(default)]
    pub env_template: BTreeMap<String, TemplateText>,
    /// Files written before the start.
    #[serde(default)]
    pub input_files: Vec<InputFile>,
    /// How tokens are read from the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageSource>,
}

/// Which run, step and attempt this is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunIdentity {
    /// Name of the AgentRun.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Number of the attempt, from 1; not covered by the digest.
    pub attempt: i32,
}

/// The agent, as templates see it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentIdentity {
    /// Name of the Agent.
    pub name: String,
}

/// Bounds of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Wall time of this attempt, in seconds; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// Time between TERM and KILL, in seconds; absent: [`DEFAULT_GRACE_SECONDS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Largest log file, in bytes; absent: 64 MiB. The tail is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
}

/// Where the runner writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArtifactPaths {
    /// Status file.
    pub status_path: String,
    /// The provider's output.
    pub log_path: String,
}

impl Default for ArtifactPaths {
    fn default() -> Self {
        Self { status_path: STATUS_PATH.to_owned(), log_path: LOG_PATH.to_owned() }
    }
}

/// Where the well-known folders really are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// What `/workspace` stands for.
    pub workspace: String,
    /// What `/root` stands for.
    pub home: String,
}

/// Where the provider may report to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Exported as `NATS_URL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_url: Option<String>,
    /// Exported as `GRAF_BASE_URL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graf_base_url: Option<String>,
}
