//! Memory: the schema says all there is.

use super::{Check, Faults};
use crate::api::{Memory, MemorySpec};

impl Check for Memory {
    fn check(spec: &MemorySpec, _: &mut Faults) {
        let MemorySpec { kind: _, connection: _, capabilities: _, default: _ } = spec;
    }
}
