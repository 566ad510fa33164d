//! SignalDelivery: one occurrence of a Signal, or one decision that an ApprovalPolicy waits for.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, FreeForm, NameRef},
    kind::{Column, Kind, Resource, Rule},
};
use crate::kept;

/// One occurrence of a Signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalDelivery;

impl Kind for SignalDelivery {
    const GROUP: &'static str = "signals.proompteng.ai";
    const KIND: &'static str = "SignalDelivery";
    const PLURAL: &'static str = "signaldeliveries";
    const SINGULAR: &'static str = "signaldelivery";
    const SHORT_NAMES: &'static [&'static str] = &["sigd"];
    const DESCRIPTION: &'static str = "One occurrence of a Signal, or one decision on what an ApprovalPolicy holds.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Signal", path: ".spec.signalRef.name", kind: "string", wide: false },
        Column { name: "Delivery", path: ".spec.deliveryId", kind: "string", wide: false },
        Column { name: "Run", path: ".spec.runRef.name", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Decision", path: ".spec.decision.verdict", kind: "string", wide: true },
        Column { name: "Decided-By", path: ".spec.decision.decidedBy", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[
        Rule {
            field: ".spec",
            expression: "self.spec == oldSelf.spec",
            message: "a delivery is immutable: what was sent was sent; create another one",
        },
        Rule {
            field: ".spec",
            expression: "has(self.spec.signalRef) || has(self.spec.decision)",
            message: "a delivery names its signalRef, or carries a decision",
        },
        Rule {
            field: ".spec.runRef",
            expression: "!has(self.spec.decision) || has(self.spec.runRef)",
            message: "a decision names the run it is about in runRef",
        },
    ];
    const SELECTABLE: &'static [&'static str] = &[".status.phase", ".spec.signalRef.name"];
    const ACTED_ON: bool = true;
    const EXAMPLE: &'static str = include_str!("examples/signaldelivery.yaml");
    fn kept(delivery: &Resource<Self>) -> Option<Resource<Self>> {
        kept::signal_delivery(delivery)
    }
    type Spec = SignalDeliverySpec;
    type Status = SignalDeliveryStatus;
}

/// Desired state of a SignalDelivery. It never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalDeliverySpec {
    /// The Signal that occurred; needed unless a decision is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_ref: Option<NameRef>,
    /// The sender's own id of this occurrence: a second delivery of the Signal with the same id is a `Duplicate` of the first
    /// when it says the same, and refused as `Conflict` when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub delivery_id: Option<String>,
    /// What the occurrence says; becomes the output of the step that waited. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<FreeForm>,
    /// The run it is meant for; every run that waits for the Signal when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ref: Option<RunRef>,
    /// The answer to what an ApprovalPolicy asks. Nothing asks yet, and one that is stored before something does will not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// The run that something is meant for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRef {
    /// Kind of the run, such as `AgentRun`, `OrchestrationRun` or `ToolRun`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the run.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its unique id, so that a later run of the same name is not meant; any run of the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub uid: Option<String>,
    /// The step that waits; every step that waits for it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub step: Option<String>,
}

/// The answer to what an ApprovalPolicy asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Whether the run may go on.
    pub verdict: Verdict,
    /// The ApprovalPolicy that asks; every one that holds the run when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<NameRef>,
    /// `status.planDigest` of what was looked at: a plan that has changed since needs another decision.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub plan_digest: String,
    /// User name of who decides; nothing checks yet that it is the sender's.
    #[schemars(length(min = 1, max = 253))]
    pub decided_by: String,
    /// Groups of who decides, as the API server knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub groups: Vec<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub comment: Option<String>,
}

/// A decision's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may go on.
    Approve,
    /// It may not.
    Deny,
}

/// Observed state of a SignalDelivery.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalDeliveryStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Pending` until it is judged by its Signal, then `Delivered`, `Duplicate` or `Invalid` for good.
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
    /// When it was found to be in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
