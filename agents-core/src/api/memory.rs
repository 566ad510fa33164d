//! Memory: where agents keep what they know between runs.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, SecretKeyRef},
    kind::{Column, Kind},
};

/// A store that agents remember in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory;

impl Kind for Memory {
    const KIND: &'static str = "Memory";
    const PLURAL: &'static str = "memories";
    const SINGULAR: &'static str = "memory";
    const SHORT_NAMES: &'static [&'static str] = &["mem"];
    const DESCRIPTION: &'static str = "A store in which agents keep what they know between runs.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Type", path: ".spec.type", kind: "string", wide: false },
        Column { name: "Default", path: ".spec.default", kind: "boolean", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "LastCheck", path: ".status.lastCheckedAt", kind: "date", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/memory.yaml");
    type Spec = MemorySpec;
    type Status = MemoryStatus;
}

/// Desired state of a Memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemorySpec {
    /// What the store is: `postgres`, `redis`, `weaviate`, `pinecone`, or `custom` for one spoken to over HTTP.
    #[serde(rename = "type")]
    pub kind: MemoryType,
    /// How the store is reached.
    pub connection: MemoryConnection,
    /// What the store is used for; everything that its type can when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<MemoryCapability>,
    /// Whether runs of this namespace that name no Memory use this one; `false` when absent. At most one of a namespace
    /// should say so: of several the oldest is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
}

/// What a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemoryType {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// Weaviate.
    Weaviate,
    /// Pinecone.
    Pinecone,
    /// Anything else, over HTTP.
    Custom,
}

/// How a store is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryConnection {
    /// The Secret with the connection string, or with endpoint and credentials; its key is `url` when none is given.
    pub secret_ref: SecretKeyRef,
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemoryCapability {
    /// Find what is similar.
    Vector,
    /// Keep values by key.
    Kv,
    /// Keep large objects.
    Blob,
}

/// State of a Memory in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemoryPhase {
    /// Not looked at yet, or waiting for its Secret.
    Pending,
    /// Answers.
    Ready,
    /// Does not answer; tried again with growing pauses.
    Unreachable,
    /// The spec can never work.
    Invalid,
}

/// Observed state of a Memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MemoryPhase>,
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
    /// When the connection was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checked_at: Option<Timestamp>,
    /// When the connection is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_check_at: Option<Timestamp>,
    /// Tries that failed since the last one that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    /// What the store was found able to do, of what it is used for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<MemoryCapability>,
    /// Current conditions, one per type: Ready, InvalidSpec, Unreachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
