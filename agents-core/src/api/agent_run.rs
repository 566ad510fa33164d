//! AgentRun: one execution of one work item by one agent.

mod status;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{FreeForm, NameRef, Parameters, Payloads},
    implementation_spec::Implementation,
    kind::{Column, Frozen, Kind, Resource, Rule, Says},
    prompt::SystemPromptRef,
    runtime::{RuntimeOverrides, RuntimeSpec},
    workflow::Workflow,
    workload::{Volume, Workload},
};
use crate::kept;

pub use self::status::{
    AgentRunStatus, ArtifactStatus, Attempt, BlockedBy, ContractStatus, OutputStatus, Phase, QueueStatus, RunnerStatus,
    RuntimeRefStatus, Stopping, VcsStatus,
};

/// Attempts kept in `status.attempts`; older ones are dropped, their usage stays in `status.usage`.
pub const MAX_ATTEMPTS_KEPT: usize = 20;

/// One execution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentRun;

impl Kind for AgentRun {
    const KIND: &'static str = "AgentRun";
    const PLURAL: &'static str = "agentruns";
    const SINGULAR: &'static str = "agentrun";
    const SHORT_NAMES: &'static [&'static str] = &["ar"];
    const DESCRIPTION: &'static str = "One execution of a work item by an agent.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Agent", path: ".spec.agentRef.name", kind: "string", wide: false },
        Column { name: "Attempt", path: ".status.attempt", kind: "integer", wide: false },
        Column { name: "Started", path: ".status.startedAt", kind: "date", wide: false },
        Column { name: "Finished", path: ".status.finishedAt", kind: "date", wide: false },
        Column { name: "Runtime", path: ".status.runtimeRef.type", kind: "string", wide: true },
        Column { name: "Commit", path: ".status.vcs.headCommit", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[
        Rule {
            field: ".spec.cancel",
            expression: "!(has(oldSelf.spec.cancel) && oldSelf.spec.cancel) || (has(self.spec.cancel) && self.spec.cancel)",
            message: "cancel cannot be taken back",
        },
        Rule {
            field: ".spec.implementationSpecRef",
            expression: "has(self.spec.implementationSpecRef) || has(self.spec.implementationRef) || has(self.spec.implementation) || has(self.spec.workflow)",
            message: "a run needs a work item: give implementationSpecRef or implementation.inline",
        },
        Rule {
            field: ".spec.systemPrompt",
            expression: "!has(self.spec.systemPrompt) || !has(self.spec.systemPromptRef)",
            message: "give systemPrompt or systemPromptRef, not both",
        },
    ];
    const FROZEN: Option<Frozen> = Some(FROZEN);
    const SELECTABLE: &'static [&'static str] = &[".status.phase", ".spec.agentRef.name"];
    const SAYS: Says = Says::Reason;
    const EXAMPLE: &'static str = include_str!("examples/agentrun.yaml");
    const UNFINISHED: Option<&'static str> =
        Some("status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled");
    const FIRST_PHASE: Option<&'static str> = Some(Phase::Pending.as_str());
    const ACTED_ON: bool = true;
    fn kept(object: &Resource<Self>) -> Option<Resource<Self>> {
        kept::agent_run(object)
    }
    type Spec = AgentRunSpec;
    type Status = AgentRunStatus;
}

/// Free until the controller has judged the run, and for templates. The phase does not tell whether it has: before it does,
/// the definition's default is read.
const FROZEN: Frozen = Frozen {
    fields: &[
        "agentRef",
        "implementationSpecRef",
        "implementationRef",
        "implementation",
        "goal",
        "idempotencyKey",
        "deliveryId",
        "parameters",
        "payloads",
        "systemPrompt",
        "systemPromptRef",
        "secrets",
        "memoryRef",
        "budgetRef",
        "approvalPolicyRef",
        "workspaceRef",
        "vcsRef",
        "vcsPolicy",
        "execution",
        "workload",
        "runtime",
        "runtimeOverrides",
        "provider",
        "workflow",
        "priority",
        "outputs",
        "retryPolicy",
        "timeoutSeconds",
    ],
    unless: "!has(oldSelf.status) || !has(oldSelf.status.observedGeneration) || \
             (has(oldSelf.status.phase) && oldSelf.status.phase == 'Template')",
    message: "is immutable once the run was judged: make a new run",
};

/// Desired state of an AgentRun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRunSpec {
    /// The Agent that does the work.
    pub agent_ref: NameRef,
    /// The ImplementationSpec to work on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation_spec_ref: Option<NameRef>,
    /// Other spelling of `implementationSpecRef`; both may be given when they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation_ref: Option<NameRef>,
    /// A work item given in place; wins over a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation: Option<Implementation>,
    /// What the run is to reach, and at what price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// A key under which the run was asked for; written by the HTTP API from its `Idempotency-Key` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub idempotency_key: Option<String>,
    /// Other spelling of `idempotencyKey`; both may be given when they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub delivery_id: Option<String>,
    /// Values for the provider's templates, also exported as `AGENT_INPUT_<KEY>`.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub parameters: Parameters,
    /// Larger values for the provider's templates.
    #[serde(default, skip_serializing_if = "Payloads::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub payloads: Payloads,
    /// System prompt of this run; wins over the Agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub system_prompt: Option<String>,
    /// Where the system prompt of this run is read from; wins over the Agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_prompt_ref: Option<SystemPromptRef>,
    /// Names of Secrets whose keys the provider gets as variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub secrets: Vec<String>,
    /// The Memory the provider works with; the Agent's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_ref: Option<NameRef>,
    /// The Budget that pays for the run, besides those that select it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ref: Option<NameRef>,
    /// The ApprovalPolicy that must let the run pass, besides those that select it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_policy_ref: Option<NameRef>,
    /// The Workspace mounted as the run's working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_ref: Option<NameRef>,
    /// The VersionControlProvider that gives access to the repository; else the work item's, else the Agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_ref: Option<NameRef>,
    /// What the run may do to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_policy: Option<VcsPolicy>,
    /// Where the work happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// Image, resources and volumes of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Runtime of this run; else the Agent's, else the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSpec>,
    /// Settings that win over those of the chosen runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_overrides: Option<RuntimeOverrides>,
    /// Settings of one provider, by its name; kept as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub provider: BTreeMap<String, FreeForm>,
    /// The steps of a run with `runtime.type: workflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Workflow>,
    /// Place in the queue of runs that wait for a slot: higher first, 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<i32>,
    /// Files that must exist for success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub outputs: Vec<Output>,
    /// What happens after a failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// Wall time from the first start over all attempts, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub timeout_seconds: Option<i64>,
    /// Holds the run before its next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Ends the run: gracefully, then by force. Cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// Time the finished run is kept, in seconds; the controller's default when absent. The annotation
    /// `agents.proompteng.ai/retain` keeps it for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// What a run is to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Goal {
    /// What is to be reached.
    #[schemars(length(min = 1, max = 8192))]
    pub objective: String,
    /// Tokens the run may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub token_budget: Option<i64>,
}

/// What a run may do to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct VcsPolicy {
    /// Fail the run when no VersionControlProvider gives access; otherwise it starts without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// `read-write` (the default), `read-only`, or `none`: no access at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<VcsMode>,
}

/// Access to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VcsMode {
    /// Fetch and push.
    ReadWrite,
    /// Fetch.
    ReadOnly,
    /// Nothing.
    None,
}

/// Where the work happens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Execution {
    /// Coordinates of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinates: Option<Coordinates>,
}

/// Coordinates of the work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Coordinates {
    /// A repository that the runner checks out before the provider starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitCoordinates>,
    /// Image and volumes of the place the work happens in; `workload` wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceCoordinates>,
}

/// Image and volumes of the place the work happens in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceCoordinates {
    /// Image the provider runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Volumes, mounted into the provider's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
}

/// A repository to check out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GitCoordinates {
    /// `https://`, `http://`, `ssh://`, `git://`, `file://` or `user@host:path`; without a password, and over HTTP
    /// without a user too, for it may be a token. To `agents run` also the path of a repository.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Branch, tag or commit; the remote's default branch when absent.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub reference: Option<String>,
    /// Folder inside the repository in which the provider starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
}

/// A file that must exist for success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// Name of the output, unique in the run.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Path of a regular file: relative to the folder named by `AGENT_OUTPUTS_DIR`, or absolute below `/workspace`.
    /// Without it, `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Attempts besides the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub limit: Option<i32>,
    /// Wait before the second attempt, in seconds, counted from the end of the first; doubled for each further one,
    /// up to one hour. 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub backoff_seconds: Option<i64>,
    /// `fresh` (the default) starts the provider anew; `resume` continues its former conversation in the same workspace
    /// where the provider can, and starts anew where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RetryMode>,
}

/// How a failed attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RetryMode {
    /// From nothing.
    Fresh,
    /// From where it stopped.
    Resume,
}
