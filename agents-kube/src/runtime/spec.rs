//! How the runner's spec reaches the pod: in an annotation of the pod template while it fits, else in a ConfigMap
//! beside the Job. Both are read as the same file with the same bytes.

use agents_core::{
    marks::ANNOTATION_SPEC,
    name::ChildName,
    plan::{RunnerSpec, digest::sha256, pod::SPEC_FILE, runner_spec::Limits},
};
use agents_runtime::spec_file;

/// Most bytes of keys and values of a template's annotations. Kubernetes refuses 256 KiB; admission plug-ins that add
/// annotations of their own need some room.
pub const MAX_ANNOTATIONS: usize = 200 * 1024;
/// Most bytes of an encoded spec in a ConfigMap, under the 1 MiB that Kubernetes allows for all of it.
pub(super) const MAX_CONFIG_MAP: usize = 1_000_000;

/// What carries the runner's spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecCarrier {
    /// The annotation [`ANNOTATION_SPEC`] of the pod, read through a downward-API file.
    Annotation,
    /// A ConfigMap of this name, under the key [`SPEC_FILE`].
    ConfigMap(ChildName),
}

/// A spec that nothing can carry.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The runner's spec has no JSON form.
    #[error("the runner's spec has no JSON form")]
    Json(#[source] serde_json::Error),
    /// The runner's spec cannot be compressed.
    #[error("the runner's spec cannot be compressed")]
    Compress(#[source] std::io::Error),
    /// The runner's spec fits no object.
    #[error(
        "the runner's spec has {bytes} bytes when compressed, more than the {} that fit a ConfigMap",
        MAX_CONFIG_MAP
    )]
    SpecTooLarge {
        /// Its size when encoded.
        bytes: usize,
    },
}

/// `spec` as the file the runner reads.
pub(super) fn encode(spec: &RunnerSpec) -> Result<String, CarrierError> {
    let json = serde_json::to_vec(spec).map_err(CarrierError::Json)?;
    spec_file::encode(&json).map_err(CarrierError::Compress)
}

/// What tells a spec from another one of the same attempt, whose Job was refused before its provider was mended. The time
/// that is left is another one at each try, and the grace may be another leader's.
fn identity(spec: &RunnerSpec) -> Result<String, CarrierError> {
    let untimed = RunnerSpec { limits: Limits::default(), ..spec.clone() };
    Ok(sha256(&serde_json::to_vec(&untimed).map_err(CarrierError::Json)?))
}

/// The carrier of `spec`, which has `bytes` bytes when encoded, beside annotations of `others` bytes.
pub(super) fn carrier(
    name: &ChildName,
    spec: &RunnerSpec,
    bytes: usize,
    others: usize,
) -> Result<SpecCarrier, CarrierError> {
    if bytes.saturating_add(others).saturating_add(ANNOTATION_SPEC.len()) <= MAX_ANNOTATIONS {
        Ok(SpecCarrier::Annotation)
    } else if bytes.saturating_add(SPEC_FILE.len()) <= MAX_CONFIG_MAP {
        Ok(SpecCarrier::ConfigMap(name.beside(&format!("spec/{}", identity(spec)?))))
    } else {
        Err(CarrierError::SpecTooLarge { bytes })
    }
}
