//! ImplementationSpec: what to implement, whoever asks and whoever does it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, NameRef},
    kind::{Column, Kind, Resource, Says},
};
use crate::kept;

/// Largest text and largest description, in bytes.
pub const MAX_TEXT_BYTES: usize = 128 * 1024;

/// A work item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImplementationSpec;

impl Kind for ImplementationSpec {
    const KIND: &'static str = "ImplementationSpec";
    const PLURAL: &'static str = "implementationspecs";
    const SINGULAR: &'static str = "implementationspec";
    const SHORT_NAMES: &'static [&'static str] = &["impl"];
    const DESCRIPTION: &'static str = "What to implement, independent of who asks and who does it.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Source", path: ".spec.source.provider", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Updated", path: ".status.syncedAt", kind: "date", wide: false },
        Column { name: "Summary", path: ".spec.summary", kind: "string", wide: true },
    ];
    const EXAMPLE: &'static str = include_str!("examples/implementationspec.yaml");
    const SAYS: Says = Says::Conditions;
    const ACTED_ON: bool = true;
    fn kept(object: &Resource<Self>) -> Option<Resource<Self>> {
        kept::implementation_spec(object)
    }
    type Spec = ImplementationSpecSpec;
    type Status = ImplementationSpecStatus;
}

/// Desired state of an ImplementationSpec, and the shape of an inline one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImplementationSpecSpec {
    /// The requirements, as plain text.
    #[schemars(length(max = 131_072))]
    pub text: String,
    /// One line of intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub summary: Option<String>,
    /// Long form, as Markdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 131_072))]
    pub description: Option<String>,
    /// What must hold when the work is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 4096)))]
    pub acceptance_criteria: Vec<String>,
    /// Tags of the work item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 256)))]
    pub labels: Vec<String>,
    /// Where the work item came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What a run of this work item must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// The VersionControlProvider of its repository; a run's wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs_ref: Option<NameRef>,
}

/// What a run of a work item must know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contract {
    /// Keys that must have a value once mappings are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub required_keys: Vec<String>,
    /// Keys that take the value of another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub mappings: Vec<Mapping>,
}

/// A key that takes the value of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mapping {
    /// Key that has the value.
    #[schemars(length(min = 1, max = 256))]
    pub from: String,
    /// Key that takes it.
    #[schemars(length(min = 1, max = 256))]
    pub to: String,
}

/// A work item given in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Implementation {
    /// The work item.
    pub inline: ImplementationSpecSpec,
}

/// Origin of a work item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The system it came from.
    pub provider: SourceProvider,
    /// Its id there, such as `owner/repo#123`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub external_id: Option<String>,
    /// Its page there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
}

/// A system that work items come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceProvider {
    /// GitHub Issues.
    Github,
    /// Linear.
    Linear,
    /// Written by hand.
    Manual,
    /// Anything else.
    Custom,
}

/// Observed state of an ImplementationSpec.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImplementationSpecStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the source was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced_at: Option<Timestamp>,
    /// Version of the work item at its source that was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub source_version: Option<String>,
    /// When this status was written last; accepted for objects of older controllers, never written: each change has its
    /// own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
