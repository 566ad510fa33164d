//! Artifact: something a run made that outlives it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, NameRef},
    kind::{Column, Kind},
};

/// Something that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Artifact;

impl Kind for Artifact {
    const GROUP: &'static str = "artifacts.proompteng.ai";
    const KIND: &'static str = "Artifact";
    const PLURAL: &'static str = "artifacts";
    const SINGULAR: &'static str = "artifact";
    const SHORT_NAMES: &'static [&'static str] = &["art"];
    const DESCRIPTION: &'static str = "Something a run made that is kept: a log, a patch, a data set.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "URI", path: ".status.uri", kind: "string", wide: false },
        Column { name: "Size", path: ".status.sizeBytes", kind: "integer", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Expires", path: ".status.expiresAt", kind: "string", wide: true },
        Column { name: "Checksum", path: ".status.checksum", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const SPEC_OPTIONAL: bool = true;
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/artifact.yaml");
    type Spec = ArtifactSpec;
    type Status = ArtifactStatus;
}

/// Desired state of an Artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactSpec {
    /// The Secret that names the store (S3, GCS, Azure or a folder) and holds its credentials; the control plane's own
    /// store when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<NameRef>,
    /// How long it is kept; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<ArtifactLifecycle>,
}

/// How long an Artifact is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactLifecycle {
    /// Days after which it is deleted at the store, counted from when it was stored, 0 to 36500; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 36_500))]
    pub ttl_days: Option<i32>,
}

/// State of an Artifact in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArtifactPhase {
    /// Not stored yet.
    Pending,
    /// Stored.
    Ready,
    /// Could not be stored, or is gone from the store.
    Failed,
    /// Deleted at the store, because its time was over.
    Expired,
    /// The spec can never work.
    Invalid,
}

/// Observed state of an Artifact.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ArtifactPhase>,
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
    /// Where it is, such as `s3://bucket/key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub uri: Option<String>,
    /// `sha256:` of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub checksum: Option<String>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// When it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<Timestamp>,
    /// When it will be deleted at the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Current conditions, one per type: Ready, InvalidSpec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
