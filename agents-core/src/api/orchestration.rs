//! Orchestration: steps that depend on each other.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    common::{Condition, FreeForm, NameRef, Parameters},
    implementation_spec::Implementation,
    kind::{Column, Kind},
    runtime::RuntimeSpec,
    workload::Workload,
};

/// Largest number of steps.
pub const MAX_STEPS: usize = 100;
/// Largest number of steps in `finally`.
pub const MAX_FINALLY: usize = 20;

/// Steps that depend on each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orchestration;

impl Kind for Orchestration {
    const GROUP: &'static str = "orchestration.proompteng.ai";
    const KIND: &'static str = "Orchestration";
    const PLURAL: &'static str = "orchestrations";
    const SINGULAR: &'static str = "orchestration";
    const SHORT_NAMES: &'static [&'static str] = &["orch"];
    const DESCRIPTION: &'static str = "Steps that depend on each other: agent runs, tools, approvals, signals.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Entrypoint", path: ".spec.entrypoint", kind: "string", wide: false },
        Column { name: "Steps", path: ".status.steps", kind: "integer", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const EXAMPLE: &'static str = include_str!("examples/orchestration.yaml");
    type Spec = OrchestrationSpec;
    type Status = OrchestrationStatus;
}

/// Desired state of an Orchestration. A run keeps the steps it began with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[self.steps.map(s, s.name)].all(names, self.steps.all(s, !has(s.dependsOn) || s.dependsOn.all(d, d in names)))",
        "message": "dependsOn names a step that is not there",
        "fieldPath": ".steps"
    },
    {
        "rule": "self.steps.all(s, !has(s.dependsOn) || self.steps.all(t, !(t.name in s.dependsOn) || !has(t.dependsOn) || !(s.name in t.dependsOn)))",
        "message": "two steps wait for each other",
        "fieldPath": ".steps"
    },
    {
        "rule": "!has(self.finally) || [self.finally.map(s, s.name)].all(names, self.finally.all(s, !has(s.dependsOn) || s.dependsOn.all(d, d in names)))",
        "message": "dependsOn names a step that is not in finally; all of finally comes after the other steps anyway",
        "fieldPath": ".finally"
    },
    {
        "rule": "!has(self.finally) || [self.finally.map(s, s.name)].all(names, self.steps.all(s, !(s.name in names)))",
        "message": "a step of finally has the name of another step",
        "fieldPath": ".finally"
    }
]))]
pub struct OrchestrationSpec {
    /// Name of the step to look at first, for people; one of `steps`. What runs is decided by `dependsOn` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub entrypoint: Option<String>,
    /// The steps, from 1 to 100, each with a name of its own.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<Step>,
    /// Steps that run when no other step runs any more, however they ended, at most 20. They may depend on each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub finally: Vec<Step>,
    /// How many steps run at one time, from 1 to 100. As many as can when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: Option<i32>,
    /// What a failed step does to the run, where the step does not say it. `fail` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Free settings for whoever reads the definition; at most 64 KiB. Nothing of the product reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<FreeForm>,
}

/// What a failed step does to its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// No further step starts, those that run are cancelled, and the run fails.
    Fail,
    /// The steps that depend on it go on as if it had succeeded without outputs, and the run may succeed.
    Continue,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepKind {
    /// Runs an Agent: `agentRef` and a work item.
    AgentRun,
    /// Runs a Tool: `toolRef`.
    ToolRun,
    /// Runs another Orchestration: `orchestrationRef`.
    SubOrchestration,
    /// Waits for an ApprovalPolicy: `policyRef`.
    ApprovalGate,
    /// Waits for a Signal: `signalRef` or `deliveryId`.
    SignalWait,
    /// Stores what the steps before it have given, so that a repeated run can go on from here.
    Checkpoint,
    /// Reads or writes a Memory: `memoryRef`, or the namespace's default.
    MemoryOp,
}

/// Which deliveries of a Signal end a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignalScope {
    /// Only those whose `runRef` names this run.
    Run,
    /// Also those that name no run.
    Any,
}

/// One step. What an AgentRun can say besides the fields here may be given, too, and is passed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true, "x-kubernetes-validations" = [
    {
        "rule": "!has(self.dependsOn) || !(self.name in self.dependsOn)",
        "message": "a step cannot depend on itself",
        "fieldPath": ".dependsOn"
    },
    {
        "rule": "self.kind != 'AgentRun' || has(self.agentRef) || (has(self.with) && 'agentRef' in self.with)",
        "message": "a step of kind AgentRun needs agentRef",
        "fieldPath": ".agentRef"
    },
    {
        "rule": "self.kind != 'ToolRun' || has(self.toolRef) || (has(self.with) && 'toolRef' in self.with)",
        "message": "a step of kind ToolRun needs toolRef",
        "fieldPath": ".toolRef"
    },
    {
        "rule": "self.kind != 'SubOrchestration' || has(self.orchestrationRef) || (has(self.with) && 'orchestrationRef' in self.with)",
        "message": "a step of kind SubOrchestration needs orchestrationRef",
        "fieldPath": ".orchestrationRef"
    },
    {
        "rule": "self.kind != 'ApprovalGate' || has(self.policyRef) || (has(self.with) && 'policyRef' in self.with)",
        "message": "a step of kind ApprovalGate needs policyRef",
        "fieldPath": ".policyRef"
    }
]))]
pub struct Step {
    /// Name, unique in the Orchestration: letters, digits, `-`, `_` and `.`, at most 63, as in a label.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// What it does.
    pub kind: StepKind,
    /// Names of the steps that must have succeeded before, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    pub depends_on: Vec<String>,
    /// CEL expression over `parameters` and `steps`, at most 4096 characters: the step is skipped when it is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub when: Option<String>,
    /// Parameters of what the step starts, at most 100 of 2048 bytes; they win over the run's. Values are templates over
    /// `parameters` and `steps.<name>.outputs` of earlier steps. `agentRef`, `toolRef`, `orchestrationRef`, `policyRef`,
    /// `signalRef`, `deliveryId` and `implementationSpecRef` may be given here by name, too.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub with: Parameters,
    /// Attempts besides the first, from 0 to 100. 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: Option<i32>,
    /// Wait before the second attempt, in seconds, from 0 to one day; doubled for each further one, up to one hour. 10 when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub retry_backoff_seconds: Option<i32>,
    /// How long one attempt may take, in seconds, at most one year; a gate or a wait fails then. Without end when 0 or
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub timeout_seconds: Option<i32>,
    /// What a failure of this step does to the run; the Orchestration's `onFailure` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// The Agent of an AgentRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ref: Option<NameRef>,
    /// The Tool of a ToolRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_ref: Option<NameRef>,
    /// The Orchestration of a SubOrchestration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orchestration_ref: Option<NameRef>,
    /// Name of the ApprovalPolicy of an ApprovalGate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub policy_ref: Option<String>,
    /// The Signal of a SignalWait: `name` in it, or the name itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_ref: Option<NameOrRef>,
    /// The one delivery that a SignalWait waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub delivery_id: Option<String>,
    /// Which deliveries end a SignalWait. `any` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_scope: Option<SignalScope>,
    /// The work item of an AgentRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation_spec_ref: Option<NameRef>,
    /// The work item of an AgentRun, given in place; wins over the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation: Option<Implementation>,
    /// The Memory of an AgentRun or a MemoryOp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_ref: Option<NameRef>,
    /// The VersionControlProvider of an AgentRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_ref: Option<NameRef>,
    /// The Workspace that the step's pods mount; steps with the same one share its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_ref: Option<NameRef>,
    /// Names of the Secrets that an AgentRun wants, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub secrets: Vec<String>,
    /// Runtime of an AgentRun or a ToolRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeSpec>,
    /// Image and resources of an AgentRun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// How long what the step started is kept after its end, in seconds, at most ten years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Map<String, Value>,
}

/// A reference written as `{name: x}` or as `x`, kept as it was written. The schema cannot say either-or, so anything is
/// read and the check refuses what is neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameOrRef(pub Value);

impl NameOrRef {
    /// The name, unless it is something else.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Value::String(name) => Some(name),
            Value::Object(reference) => reference.get("name").and_then(Value::as_str),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
        }
    }
}

impl JsonSchema for NameOrRef {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "NameOrRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Observed state of an Orchestration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrchestrationStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Pending` or `Invalid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub phase: Option<String>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// Number of steps, those of `finally` included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<i32>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
