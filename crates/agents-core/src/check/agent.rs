//! Agent.

use super::{Check, Faults, values};
use crate::api::{Agent, AgentSpec};

impl Check for Agent {
    fn check(spec: &AgentSpec, faults: &mut Faults) {
        let AgentSpec { provider_ref: _, inputs, payloads, env, runtime: _, resources: _, defaults: _ } = spec;
        values::check("spec.inputs", inputs, "spec.payloads", payloads, faults);
        for (n, variable) in env.iter().enumerate() {
            values::variable(&format!("spec.env[{n}].name"), &variable.name, faults);
        }
    }
}
