//! Where a run executes: the choice of a runtime and the settings of each.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::{FreeForm, Resources, ShortText};

/// Where a run executes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSpec {
    /// The runtime: `job` (one Kubernetes Job per attempt), `workflow` (its steps as Jobs; without steps, one step named
    /// `main`), `argo`, `temporal`, `custom`, `process` (what `agents run` uses for every run), or one that a program
    /// that embeds the controller brings. While nothing executes it, a run waits with `RuntimeNotConfigured`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RuntimeKind>,
    /// Settings of `type: job` and of the Jobs of `type: workflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRuntime>,
    /// Settings of `type: argo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argo: Option<ArgoRuntime>,
    /// Settings of `type: temporal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal: Option<TemporalRuntime>,
    /// Settings of `type: custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomRuntime>,
    /// Other spelling of the settings of the chosen runtime: its keys are read into the block of that runtime; a key
    /// given in both with different values is refused, an unknown key is a warning. Of a runtime
    /// without a block it is not used, which is a warning too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<FreeForm>,
}

/// Settings of a run that win over those of its runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeOverrides {
    /// Wins over `runtime.job`, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRuntime>,
    /// Wins over `runtime.argo`, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argo: Option<ArgoRuntime>,
    /// Wins over `runtime.temporal`, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal: Option<TemporalRuntime>,
    /// Wins over `runtime.custom`, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomRuntime>,
}

/// A runtime by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RuntimeKind {
    /// One Kubernetes Job per attempt.
    Job,
    /// One local process per attempt; what `agents run` uses for every run.
    Process,
    /// Several steps, each of them a Job; without steps the same as [`RuntimeKind::Job`].
    Workflow,
    /// An Argo Workflow.
    Argo,
    /// A Temporal workflow.
    Temporal,
    /// Something behind an HTTP endpoint.
    Custom,
    /// One that a program that embeds the controller brings.
    Other(RuntimeName),
}

impl RuntimeKind {
    /// Those that have a name here.
    pub const KNOWN: [Self; 6] = [Self::Job, Self::Process, Self::Workflow, Self::Argo, Self::Temporal, Self::Custom];

    /// The name as written in manifests.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Job => "job",
            Self::Process => "process",
            Self::Workflow => "workflow",
            Self::Argo => "argo",
            Self::Temporal => "temporal",
            Self::Custom => "custom",
            Self::Other(name) => name.as_str(),
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RuntimeKind {
    type Err = NoRuntimeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == text);
        known.map_or_else(|| RuntimeName::new(text).map(Self::Other), Ok)
    }
}

impl TryFrom<String> for RuntimeKind {
    type Error = NoRuntimeName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RuntimeKind> for String {
    fn from(kind: RuntimeKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl JsonSchema for RuntimeKind {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RuntimeKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": RuntimeName::PATTERN, "maxLength": RuntimeName::MAX})
    }
}

/// Name of a runtime that is none of ours, such as `batch` or `batch.acme.example`.
///
/// It is small and of one size, so that what names a runtime can be copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeName {
    /// Ends with as many zeros as the name is shorter.
    bytes: [u8; Self::MAX],
}

/// A text that names no runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no name of a runtime: lower-case letters, digits, `-` and `.`, from a letter to a letter or digit, 63 at most"
)]
pub struct NoRuntimeName;

impl RuntimeName {
    /// Most characters.
    pub const MAX: usize = 63;
    /// What a name looks like.
    const PATTERN: &'static str = "^[a-z]([a-z0-9.-]*[a-z0-9])?$";

    /// # Errors
    /// The text is no such name.
    pub fn new(text: &str) -> Result<Self, NoRuntimeName> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().next_back()) else {
            return Err(NoRuntimeName);
        };
        let is_name = first.is_ascii_lowercase()
            && inner(last)
            && text.bytes().all(|c| inner(c) || matches!(c, b'-' | b'.'))
            && text.len() <= Self::MAX;
        if !is_name {
            return Err(NoRuntimeName);
        }
        let mut bytes = [0; Self::MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(Self::MAX);
        // Nothing but ASCII is put in.
        std::str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

impl fmt::Debug for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Settings of the Job runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRuntime {
    /// Image the provider runs in; `workload.image` wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Accepted for older manifests; the provider's `binary` is what is executed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Service account of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account: Option<String>,
    /// Other spelling of `serviceAccount`; both may be given when they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// CPU, memory and other resources; `workload.resources` wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, ShortText>,
    /// Taints of nodes that the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// As in a pod: which nodes attract or repel it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<FreeForm>,
    /// As in a pod: how pods spread over nodes and zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<FreeForm>,
    /// As in a pod: user, group and other settings of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security_context: Option<FreeForm>,
    /// Priority class of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Scheduler that places the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    /// Secrets with credentials for pulling the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<PullSecret>,
    /// Accepted for older manifests and overruled with a warning: attempts are `retryPolicy`'s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: Option<i32>,
    /// Time a finished Job is kept, in seconds; never shorter than the controller needs to read its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Time logs are kept, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub log_retention_seconds: Option<i64>,
}

/// A taint that a pod tolerates, as in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint; every key when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// `Equal` (the default) or `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint; every effect when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// Time the pod stays on a node after a `NoExecute` taint appeared, in seconds; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value are equal.
    Equal,
    /// The key is there.
    Exists,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// They are not placed.
    NoSchedule,
    /// They are placed elsewhere when possible.
    PreferNoSchedule,
    /// They are removed.
    NoExecute,
}

/// A Secret with credentials for pulling images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullSecret {
    /// Name of the Secret, in the run's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Settings of the Argo runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArgoRuntime {
    /// WorkflowTemplate that is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub workflow_template: Option<String>,
    /// Namespace of the Workflow; `argo-workflows` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Service account of the Workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account: Option<String>,
}

/// Settings of the Temporal runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemporalRuntime {
    /// Workflow type that is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub workflow_type: Option<String>,
    /// Task queue its workers listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub task_queue: Option<String>,
    /// `host:port` of the server; the controller's own setting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub address: Option<String>,
    /// Temporal namespace; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub namespace: Option<String>,
    /// Workflow id; derived from the run and its attempt when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub workflow_id: Option<String>,
    /// Time limits of the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TemporalTimeouts>,
}

/// Time limits of a Temporal workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct TemporalTimeouts {
    /// Of the workflow as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<TemporalWorkflowTimeouts>,
}

/// Time limits of a Temporal workflow as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemporalWorkflowTimeouts {
    /// Over all runs and retries, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000_000_i64))]
    pub workflow_execution_timeout_ms: Option<i64>,
    /// Of one run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000_000_i64))]
    pub workflow_run_timeout_ms: Option<i64>,
    /// Of one workflow task, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000_000_i64))]
    pub workflow_task_timeout_ms: Option<i64>,
}

/// Settings of the custom runtime.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CustomRuntime {
    /// `http://` or `https://` address that runs are sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^https?://"))]
    pub url: Option<String>,
    /// Other spelling of `url`; both may be given when they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// Body that is sent in place of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<FreeForm>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    #[test]
    fn a_name_of_ours_is_that_runtime_and_any_other_is_somebodys() {
        let read = |text: &str| from_value::<RuntimeKind>(json!(text)).ok();
        for known in RuntimeKind::KNOWN {
            assert_eq!(read(known.as_str()), Some(known));
        }
        let (longest, longer) = ("a".repeat(RuntimeName::MAX), "a".repeat(RuntimeName::MAX + 1));
        for name in ["a", "k8s", "batch.acme.example", "jobs", longest.as_str()] {
            let kind = read(name).unwrap();
            assert!(matches!(kind, RuntimeKind::Other(_)), "{name}");
            assert_eq!((kind.to_string().as_str(), to_value(kind).unwrap()), (name, json!(name)));
        }
        for no_name in ["", "Job", "1a", "-a", "a-", "a.", "a/b", "a b", "\u{e4}", "a\0", longer.as_str()] {
            assert_eq!(read(no_name), None, "{no_name:?}");
        }
        assert_eq!(from_value::<RuntimeKind>(Value::Null).ok(), None);
    }
}
