//! Agent.

use super::{Check, Faults, Reference, values};
use crate::{
    api::{Agent, AgentProvider, AgentSpec, Kind},
    exec, normalise,
    status::Reason,
};

impl Check for Agent {
    fn check(spec: &AgentSpec, faults: &mut Faults) {
        let AgentSpec {
            provider_ref: _,
            inputs,
            payloads,
            env,
            runtime,
            resources,
            config,
            provider,
            memory_ref: _,
            vcs_ref: _,
            security: _,
            concurrency: _,
            observability: _,
            defaults: _,
        } = spec;
        values::check("spec.inputs", inputs, "spec.payloads", payloads, faults);
        values::exported("spec.inputs", inputs, faults);
        for (n, variable) in env.iter().enumerate() {
            let field = format!("spec.env[{n}]");
            values::variable(&format!("{field}.name"), &variable.name, faults);
            faults.perhaps(&format!("{field}.value"), exec::value_of(&variable.name, &variable.value));
        }
        if let Some(runtime) = runtime {
            let settings = normalise::runtime("spec.runtime", runtime, faults);
            values::image("spec.runtime.job.image", settings.job.image.as_ref(), faults);
            if let Some(resources) = &settings.job.resources {
                values::resources("spec.runtime.job.resources", resources, faults);
            }
        }
        values::free("spec.runtime.config", runtime.as_ref().and_then(|runtime| runtime.config.as_ref()), faults);
        if let Some(resources) = resources {
            values::resources("spec.resources", resources, faults);
        }
        values::free("spec.config", config.as_ref(), faults);
        for (name, settings) in provider {
            values::free(&format!("spec.provider.{name}"), Some(settings), faults);
        }
    }

    fn references(spec: &AgentSpec) -> Vec<Reference> {
        vec![Reference {
            field: "spec.providerRef",
            kind: AgentProvider::KIND,
            name: spec.provider_ref.name.clone(),
            absent: Reason::ProviderNotFound,
        }]
    }
}
