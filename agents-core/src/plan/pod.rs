//! The pod of an attempt as plain data: an allow-list of everything a pod of ours may carry.
//!
//! Policy checks it; the Job adapter translates it one to one and may add nothing that grants access. What is not a
//! field here cannot be asked for: host namespaces, privileges, added capabilities, host paths, tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything a pod of ours may carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlan {
    /// Service account; its token is never mounted.
    pub service_account: String,
    /// Containers that run before, in order.
    pub init_containers: Vec<ContainerPlan>,
    /// The container of the runner.
    pub container: ContainerPlan,
    /// Volumes.
    pub volumes: Vec<VolumePlan>,
    /// User, group and group of files. Always set, never 0.
    pub run_as: RunAs,
    /// Time between TERM and KILL, in seconds.
    pub grace_seconds: i64,
}

/// The identity of every process of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User.
    pub user: i64,
    /// Group.
    pub group: i64,
    /// Group that owns volumes.
    pub fs_group: i64,
}

/// The identity when nothing else is said.
pub const NOBODY: RunAs = RunAs { user: 65532, group: 65532, fs_group: 65532 };

/// A container: no privileges, no added capabilities, default seccomp profile, always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPlan {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Program and arguments; the image's own entrypoint is never used.
    pub command: Vec<String>,
    /// Variables.
    pub env: Vec<EnvPlan>,
    /// Asked for, by resource name.
    pub requests: BTreeMap<String, String>,
    /// Upper bounds, by resource name.
    pub limits: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<MountPlan>,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvPlan {
    /// Name.
    pub name: String,
    /// Where its value comes from.
    pub source: EnvSource,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EnvSource {
    /// The plan itself.
    Value(String),
    /// A key of a Secret in the pod's namespace.
    #[serde(rename_all = "camelCase")]
    Secret {
        /// Secret.
        secret: String,
        /// Key.
        key: String,
        /// Start without it when it is absent.
        optional: bool,
    },
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPlan {
    /// Name of the volume.
    pub volume: String,
    /// Where.
    pub path: String,
    /// Only this entry of the volume.
    pub sub_path: Option<String>,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumePlan {
    /// Name.
    pub name: String,
    /// What is in it.
    pub source: VolumeSource,
}

/// What is in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeSource {
    /// An empty folder that lives as long as the pod.
    #[serde(rename_all = "camelCase")]
    Scratch {
        /// Its largest size, as a quantity; absent: as large as the node's disk.
        size_limit: Option<String>,
    },
    /// The runner's spec, as one file named [`SPEC_FILE`]: the adapter decides whether an annotation or a ConfigMap of
    /// the same run carries it.
    RunnerSpec,
}

/// File name of the runner's spec in its volume.
pub const SPEC_FILE: &str = "runner-spec";
