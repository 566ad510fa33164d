//! ToolRun: one execution of one Tool.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    common::{Condition, FreeForm, NameRef, Parameters},
    kind::{Column, Frozen, Kind, Rule, Says},
};

/// One execution of a Tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToolRun;

impl Kind for ToolRun {
    const GROUP: &'static str = "tools.proompteng.ai";
    const KIND: &'static str = "ToolRun";
    const PLURAL: &'static str = "toolruns";
    const SINGULAR: &'static str = "toolrun";
    const SHORT_NAMES: &'static [&'static str] = &["tr"];
    const DESCRIPTION: &'static str = "One execution of a Tool.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Tool", path: ".spec.toolRef.name", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Started", path: ".status.startedAt", kind: "date", wide: false },
        Column { name: "Finished", path: ".status.finishedAt", kind: "date", wide: false },
        Column { name: "Exit", path: ".status.exitCode", kind: "integer", wide: true },
        Column { name: "Run", path: ".status.runId", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[Rule {
        field: ".spec.cancel",
        expression: "!(has(oldSelf.spec.cancel) && oldSelf.spec.cancel) || (has(self.spec.cancel) && self.spec.cancel)",
        message: "cancel cannot be taken back",
    }];
    const FROZEN: Option<Frozen> = Some(FROZEN);
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const SAYS: Says = Says::Reason;
    const EXAMPLE: &'static str = include_str!("examples/toolrun.yaml");
    type Spec = ToolRunSpec;
    type Status = ToolRunStatus;
}

/// Free until the controller has judged the run.
const FROZEN: Frozen = Frozen {
    fields: &["toolRef", "parameters", "runtime", "deliveryId"],
    unless: "!has(oldSelf.status) || !has(oldSelf.status.phase)",
    message: "is immutable once the run was judged: make a new run",
};

/// Desired state of a ToolRun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolRunSpec {
    /// The Tool to run.
    pub tool_ref: NameRef,
    /// Values for the Tool's templates: at most 100, of at most 2048 bytes each.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub parameters: Parameters,
    /// Settings of the Job that runs it, as in `runtime.config` of an AgentRun. At most 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<FreeForm>,
    /// What makes a repeated request one: given by who creates the object on behalf of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub delivery_id: Option<String>,
    /// Ends the run: gracefully, then by force. Cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
}

/// Stage of a ToolRun's life. A terminal phase never changes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToolRunPhase {
    /// Its container has not started yet.
    Pending,
    /// Its container has started.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended because its user asked.
    Cancelled,
}

/// Observed state of a ToolRun.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolRunStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Stage of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ToolRunPhase>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// When this status was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Name of what executes it, for those who look for it by one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub run_id: Option<String>,
    /// What executes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_ref: Option<ToolRuntimeRef>,
    /// When it was handed to the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<Timestamp>,
    /// When its container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it reached its terminal phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Exit code of the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What it left behind, as the Tool's `outputSchema` says. At most 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<FreeForm>,
    /// Current conditions, one per type: Accepted, InvalidSpec, Blocked, InProgress, Succeeded, Failed, Cancelled, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What executes a ToolRun. Other fields of a runtime are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ToolRuntimeRef {
    /// The runtime adapter, such as `job`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub kind: Option<String>,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Namespace of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub namespace: Option<String>,
    /// Unique id of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uid: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Map<String, Value>,
}
