//! Tool: a command that is no agent, with a declared interface.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, EnvVar, FreeForm, Resources, TemplateText},
    kind::{Column, Kind},
};

/// A command with a declared interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tool;

impl Kind for Tool {
    const GROUP: &'static str = "tools.proompteng.ai";
    const KIND: &'static str = "Tool";
    const PLURAL: &'static str = "tools";
    const SINGULAR: &'static str = "tool";
    const SHORT_NAMES: &'static [&'static str] = &["tl"];
    const DESCRIPTION: &'static str = "A command that is no agent: what it runs, what it takes, what it gives.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Image", path: ".spec.image", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Timeout", path: ".spec.timeoutSeconds", kind: "integer", wide: true },
        Column { name: "Description", path: ".spec.description", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const SPEC_OPTIONAL: bool = true;
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/tool.yaml");
    type Spec = ToolSpec;
    type Status = ToolStatus;
}

/// Desired state of a Tool. Templates read `parameters`, `tool` and `toolRun`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolSpec {
    /// What the tool does, for the people and agents that choose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Image it runs in; the control plane's default image when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Program and first arguments, one template each; the image's own entrypoint when empty. No shell is involved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub command: Vec<TemplateText>,
    /// Further arguments, one template each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args: Vec<TemplateText>,
    /// Variables of the tool's environment, each name once; the values are templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// Folder it starts in, as an absolute path; the image's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), pattern(r"^/"))]
    pub working_dir: Option<String>,
    /// Service account of its pod; one without rights when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account: Option<String>,
    /// CPU, memory and other resources of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// JSON Schema of a ToolRun's parameters; any when absent. At most 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<FreeForm>,
    /// JSON Schema of what it leaves behind; anything when absent. At most 65536 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<FreeForm>,
    /// Wall time of a ToolRun, in seconds, 0 to 31536000; 3600 when absent, no bound when 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub timeout_seconds: Option<i64>,
    /// Seconds after its end at which a ToolRun is deleted, 0 to 31536000; the control plane's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// State of a Tool in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToolPhase {
    /// Not looked at yet.
    Pending,
    /// Can be run.
    Ready,
    /// The spec can never work.
    Invalid,
}

/// Observed state of a Tool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ToolPhase>,
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
    /// Current conditions, one per type: Ready, InvalidSpec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
