//! What the provider's container is made of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Resources, Scalar};

/// What the provider's container is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Image the provider runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// CPU, memory and other resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Volumes of the pod, mounted into the provider's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<Volume>,
}

/// A volume, mounted into the provider's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.type != 'pvc' || has(self.claimName)", "message": "a volume of type pvc needs claimName", "fieldPath": ".claimName"},
    {"rule": "self.type != 'secret' || has(self.secretName)", "message": "a volume of type secret needs secretName", "fieldPath": ".secretName"},
]))]
pub struct Volume {
    /// Name, unique in the pod.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What the volume is.
    #[serde(rename = "type")]
    pub kind: VolumeKind,
    /// Absolute path in the container.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub mount_path: String,
    /// PersistentVolumeClaim of a `pvc`, in the run's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Secret of a `secret`, in the run's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Mounted for reading only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Medium of an `emptyDir`: the node's disk when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// Largest size of an `emptyDir`, as a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Scalar>,
}

/// What a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeKind {
    /// An empty folder that lives as long as the pod.
    #[serde(rename = "emptyDir")]
    EmptyDir,
    /// A PersistentVolumeClaim.
    #[serde(rename = "pvc")]
    Pvc,
    /// The keys of a Secret as files.
    #[serde(rename = "secret")]
    Secret,
}

/// Where an empty folder lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Medium {
    /// On the node's disk.
    #[serde(rename = "")]
    Default,
    /// In memory.
    Memory,
}
