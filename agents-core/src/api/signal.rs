//! Signal: a named event that runs wait for.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    common::{Condition, FreeForm},
    kind::{Column, Kind},
};

/// A named event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signal;

impl Kind for Signal {
    const GROUP: &'static str = "signals.proompteng.ai";
    const KIND: &'static str = "Signal";
    const PLURAL: &'static str = "signals";
    const SINGULAR: &'static str = "signal";
    const SHORT_NAMES: &'static [&'static str] = &["sig"];
    const DESCRIPTION: &'static str = "A named event from outside that orchestrations wait for.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Channel", path: ".spec.channel", kind: "string", wide: false },
        Column { name: "Last", path: ".status.lastDeliveryAt", kind: "date", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Description", path: ".spec.description", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const SPEC_OPTIONAL: bool = true;
    const ACTED_ON: bool = true;
    const EXAMPLE: &'static str = include_str!("examples/signal.yaml");
    type Spec = SignalSpec;
    type Status = SignalStatus;
}

/// Desired state of a Signal. Further fields are kept as they are, for whoever sends it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct SignalSpec {
    /// Where it comes from, such as `slack`, `github` or `http`; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub channel: Option<String>,
    /// What it means, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Payload that a delivery has where its own says nothing; at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<FreeForm>,
    /// JSON Schema, dialect 2020-12, that the payload of every delivery must satisfy; any payload does when absent. Local
    /// `$ref`s that come to an end are followed. Annotations such as `title`, `format` and `x-…` say nothing; every other
    /// keyword that is not of the dialect is refused, and `unevaluatedItems`, `unevaluatedProperties`, `$anchor` and
    /// `$dynamicRef` with them. At most 32 patterns of 1024 bytes, without look-around and back-references, and together
    /// not large, as `.{1,5000}` is: `maxLength` says how long a text is. At most 64 KiB, and 128 KiB with what `$ref`s lay
    /// out. Only the first problem of a schema or a payload is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_schema: Option<FreeForm>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Map<String, Value>,
}

/// Observed state of a Signal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, or `Invalid` with what is wrong in `message`.
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
    /// When it was delivered last; written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery_at: Option<Timestamp>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
