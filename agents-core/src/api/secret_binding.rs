//! SecretBinding: which Secrets which agents may use.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, Subject},
    kind::{Column, Kind},
};

/// A permission to use Secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecretBinding;

impl Kind for SecretBinding {
    const GROUP: &'static str = "security.proompteng.ai";
    const KIND: &'static str = "SecretBinding";
    const PLURAL: &'static str = "secretbindings";
    const SINGULAR: &'static str = "secretbinding";
    const SHORT_NAMES: &'static [&'static str] = &["sb"];
    const DESCRIPTION: &'static str =
        "Which Secrets the runs of which agents may use. Once a namespace has one, what none allows is denied.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Secrets", path: ".spec.allowedSecrets", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Subjects", path: ".spec.subjects", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const SPEC_OPTIONAL: bool = true;
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/secretbinding.yaml");
    type Spec = SecretBindingSpec;
    type Status = SecretBindingStatus;
}

/// Desired state of a SecretBinding. Without subjects or without Secrets it allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretBindingSpec {
    /// Who may use the Secrets: Agents, Orchestrations, Tools, by kind and name. Empty: nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub subjects: Vec<Subject>,
    /// Names of Secrets in the namespace of this object, each in full: there are no patterns. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 253), pattern(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_secrets: Vec<String>,
}

/// State of a SecretBinding in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecretBindingPhase {
    /// Not looked at yet.
    Pending,
    /// In force.
    Ready,
    /// The spec can never work.
    Invalid,
}

/// Observed state of a SecretBinding.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretBindingStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SecretBindingPhase>,
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
