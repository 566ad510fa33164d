//! ToolRun.

use super::{Check, Faults, values};
use crate::api::{
    ToolRun, ToolRunSpec,
    common::{FreeForm, Payloads},
};

impl Check for ToolRun {
    fn check(spec: &ToolRunSpec, faults: &mut Faults) {
        let ToolRunSpec { tool_ref: _, parameters, runtime, delivery_id: _, cancel: _ } = spec;
        values::check("spec.parameters", parameters, "spec", &Payloads::new(), faults);
        if let Some(FreeForm(runtime)) = runtime {
            faults.free_form("spec.runtime", runtime);
        }
    }
}
