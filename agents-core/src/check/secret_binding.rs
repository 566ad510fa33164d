//! SecretBinding: the schema says all there is.

use super::{Check, Faults};
use crate::api::{SecretBinding, SecretBindingSpec};

impl Check for SecretBinding {
    fn check(spec: &SecretBindingSpec, _: &mut Faults) {
        let SecretBindingSpec { subjects: _, allowed_secrets: _ } = spec;
    }
}
