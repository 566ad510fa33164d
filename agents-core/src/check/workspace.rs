//! Workspace.

use super::{Check, Faults, values};
use crate::{
    api::{Workspace, WorkspaceSpec},
    quantity::Quantity,
};

impl Check for Workspace {
    fn check(spec: &WorkspaceSpec, faults: &mut Faults) {
        let WorkspaceSpec { storage_class_name: _, size, access_modes: _, ttl_seconds: _, reclaim: _ } = spec;
        if let Some(size) = size {
            // The local engine has no API server in front of it, which also lets sizes pass that it then cuts.
            let amount = values::quantity("spec.size", size.as_str(), faults);
            if amount.is_some_and(Quantity::is_zero) {
                faults.add("spec.size", "a volume has a size above 0");
            }
        }
    }
}
