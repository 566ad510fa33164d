//! Artifact: the schema says all there is.

use super::{Check, Faults};
use crate::api::{Artifact, ArtifactSpec};

impl Check for Artifact {
    fn check(spec: &ArtifactSpec, _: &mut Faults) {
        let ArtifactSpec { storage_ref: _, lifecycle: _ } = spec;
    }
}
