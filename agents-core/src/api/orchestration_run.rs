//! OrchestrationRun: one execution of an Orchestration.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    agent_run::{BlockedBy, Phase},
    common::{Condition, FreeForm, NameRef, Parameters, Usage},
    kind::{Column, Frozen, Kind, Rule, Says},
};

/// One execution of an Orchestration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrchestrationRun;

impl Kind for OrchestrationRun {
    const GROUP: &'static str = "orchestration.proompteng.ai";
    const KIND: &'static str = "OrchestrationRun";
    const PLURAL: &'static str = "orchestrationruns";
    const SINGULAR: &'static str = "orchestrationrun";
    const SHORT_NAMES: &'static [&'static str] = &["orun"];
    const DESCRIPTION: &'static str = "One execution of an Orchestration.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Orchestration", path: ".spec.orchestrationRef.name", kind: "string", wide: false },
        Column { name: "Done", path: ".status.completed", kind: "string", wide: false },
        Column { name: "Started", path: ".status.startedAt", kind: "date", wide: false },
        Column { name: "Finished", path: ".status.finishedAt", kind: "date", wide: false },
        Column { name: "RunId", path: ".status.runId", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[Rule {
        field: ".spec.cancel",
        expression: "!(has(oldSelf.spec.cancel) && oldSelf.spec.cancel) || (has(self.spec.cancel) && self.spec.cancel)",
        message: "cancel cannot be taken back",
    }];
    const FROZEN: Option<Frozen> = Some(FROZEN);
    const SELECTABLE: &'static [&'static str] = &[".status.phase", ".spec.orchestrationRef.name"];
    const SAYS: Says = Says::Reason;
    const EXAMPLE: &'static str = include_str!("examples/orchestrationrun.yaml");
    type Spec = OrchestrationRunSpec;
    type Status = OrchestrationRunStatus;
}

/// Free until the controller has judged the run, and for templates.
const FROZEN: Frozen = Frozen {
    fields: &["orchestrationRef", "parameters", "idempotencyKey", "deliveryId", "timeoutSeconds"],
    unless: "!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Template'",
    message: "is immutable once the run was judged: make a new run",
};

/// Desired state of an OrchestrationRun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrchestrationRunSpec {
    /// The Orchestration to execute, as it is when the run begins.
    pub orchestration_ref: NameRef,
    /// Values for the templates of its steps and for what they start, at most 100 of 2048 bytes.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub parameters: Parameters,
    /// Whoever submits the run twice with one key means one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub idempotency_key: Option<String>,
    /// Other spelling of `idempotencyKey`; both may be given when they are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub delivery_id: Option<String>,
    /// Wall time from the first start over all steps, in seconds, from 1 to one year. Without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub timeout_seconds: Option<i64>,
    /// Holds the run before its next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Ends the run and everything it started; `finally` still runs. Cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// How long the run is kept after its end, in seconds, at most ten years. The controller's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i32>,
}

/// Observed state of an OrchestrationRun.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrchestrationRunStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Stage of the run's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// Id of the run outside of Kubernetes, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run_id: Option<String>,
    /// How many steps have ended, of how many, such as `3/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub completed: Option<String>,
    /// When the first step started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the run reached its terminal phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The definition that the run began with; later changes of the Orchestration do not reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// The steps, one per name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 120), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub step_statuses: Vec<StepStatus>,
    /// Everything that keeps the run from going on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub blocked_by: Vec<BlockedBy>,
    /// Sum over everything it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The definition that a run began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Definition {
    /// Unique id of the Orchestration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uid: Option<String>,
    /// Generation of the Orchestration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// `sha256:` of its spec.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// Its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<FreeForm>,
    /// Name of the ConfigMap that holds its spec, when it is too large for a status.
    #[serde(rename = "configMapName", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub config_map_name: Option<String>,
}

/// Stage of a step's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepPhase {
    /// It has not started.
    Pending,
    /// It runs, or waits for what it is there to wait for.
    Running,
    /// An attempt failed and another one follows.
    Retrying,
    /// It did what it is there for.
    Succeeded,
    /// It ended without.
    Failed,
    /// It was ended because its run ends.
    Cancelled,
    /// It was left out: by `when`, or because a step before it did not succeed.
    Skipped,
}

/// Observed state of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What it does, as in the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub kind: Option<String>,
    /// Stage of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<StepPhase>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Number of the current attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// When the first attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When `phase` changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// When the next attempt starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<Timestamp>,
    /// What the step started or was ended by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_ref: Option<ResourceRef>,
    /// What later steps can read as `steps.<name>.outputs`.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub outputs: Parameters,
}

/// An object that a step is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRef {
    /// Group and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub api_version: Option<String>,
    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub kind: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub namespace: Option<String>,
    /// Unique id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uid: Option<String>,
}
