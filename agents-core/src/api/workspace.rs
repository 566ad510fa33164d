//! Workspace: a volume that runs and steps share.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, Scalar},
    kind::{Column, Kind, Rule, Says},
};

/// A volume that outlives runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Workspace;

impl Kind for Workspace {
    const GROUP: &'static str = "workspaces.proompteng.ai";
    const KIND: &'static str = "Workspace";
    const PLURAL: &'static str = "workspaces";
    const SINGULAR: &'static str = "workspace";
    const SHORT_NAMES: &'static [&'static str] = &["ws"];
    const DESCRIPTION: &'static str = "A volume that runs and steps share: a claim with a size and an end.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Size", path: ".spec.size", kind: "string", wide: false },
        Column { name: "Volume", path: ".status.volumeName", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "LastUsed", path: ".status.lastUsedAt", kind: "date", wide: true },
        Column { name: "Class", path: ".spec.storageClassName", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[
        Rule { field: ".spec.size", expression: SHRINKS, message: "a volume cannot shrink" },
        Rule {
            field: ".spec.storageClassName",
            expression: CLASS,
            message: "storageClassName is immutable once the volume was asked for",
        },
        Rule {
            field: ".spec.accessModes",
            expression: MODES,
            message: "accessModes are immutable once the volume was asked for",
        },
    ];
    const SPEC_OPTIONAL: bool = true;
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const SAYS: Says = Says::Reason;
    const EXAMPLE: &'static str = include_str!("examples/workspace.yaml");
    type Spec = WorkspaceSpec;
    type Status = WorkspaceStatus;
}

/// Without a phase, or with the phase Invalid, no volume was asked for yet.
macro_rules! once_asked_for {
    ($rule:literal) => {
        concat!("!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Invalid' || ", $rule)
    };
}

/// Only two sizes can be compared; without one there is the default.
const SHRINKS: &str = once_asked_for!(
    "!has(oldSelf.spec) || !has(oldSelf.spec.size) || !has(self.spec) || !has(self.spec.size) \
     || quantity(string(self.spec.size)).compareTo(quantity(string(oldSelf.spec.size))) >= 0"
);
const CLASS: &str = once_asked_for!(
    "((has(self.spec) && has(self.spec.storageClassName)) ? [self.spec.storageClassName] : []) \
     == ((has(oldSelf.spec) && has(oldSelf.spec.storageClassName)) ? [oldSelf.spec.storageClassName] : [])"
);
const MODES: &str = once_asked_for!(
    "((has(self.spec) && has(self.spec.accessModes)) ? self.spec.accessModes.map(mode, string(mode)) : []) \
     == ((has(oldSelf.spec) && has(oldSelf.spec.accessModes)) ? oldSelf.spec.accessModes.map(mode, string(mode)) : [])"
);

/// Desired state of a Workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceSpec {
    /// StorageClass of the volume; the cluster's default when absent, none when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), pattern(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub storage_class_name: Option<String>,
    /// Size of the volume, as a quantity such as `10Gi`; `1Gi` when absent. It can grow where the StorageClass allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "isQuantity(string(self))", "message": "not a quantity: write a number with an optional suffix, such as 10Gi"},
        {"rule": "!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))", "message": "a volume has a size above 0"},
    ]))]
    pub size: Option<Scalar>,
    /// How the volume may be mounted; `ReadWriteOnce` when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = [
        {"rule": "!('ReadWriteOncePod' in self) || size(self) == 1", "message": "ReadWriteOncePod allows no other mode"},
    ]))]
    pub access_modes: Vec<AccessMode>,
    /// Seconds after its last use at which the workspace is given up, 0 to 315360000; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds: Option<i64>,
    /// What then happens to the volume: `delete`, also when absent, or `retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,
}

/// How a volume may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// Read and written from one node.
    ReadWriteOnce,
    /// Read from many nodes.
    ReadOnlyMany,
    /// Read and written from many nodes.
    ReadWriteMany,
    /// Read and written by one pod.
    ReadWriteOncePod,
}

/// What happens to the volume of a workspace that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reclaim {
    /// It is deleted.
    Delete,
    /// It stays.
    Retain,
}

/// State of a Workspace in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkspacePhase {
    /// Its volume was asked for.
    Pending,
    /// Its volume can be mounted.
    Ready,
    /// Its volume is lost.
    Failed,
    /// Given up, because its time was over.
    Expired,
    /// The spec can never work.
    Invalid,
}

/// Observed state of a Workspace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<WorkspacePhase>,
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
    /// Name of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub claim_name: Option<String>,
    /// Name of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub volume_name: Option<String>,
    /// Size that the volume has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Scalar>,
    /// When a run used it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// When it is given up if nobody uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Current conditions, one per type: Ready, InvalidSpec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
