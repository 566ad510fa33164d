//! AgentRun.

use std::collections::BTreeSet;

use super::{Check, Faults, implementation_spec, values};
use crate::api::{AgentRun, AgentRunSpec, agent_run::Output, common::RuntimeKind};

impl Check for AgentRun {
    fn check(spec: &AgentRunSpec, faults: &mut Faults) {
        match (&spec.implementation_spec_ref, &spec.implementation_ref) {
            (Some(a), Some(b)) if a != b => faults.add(
                "spec.implementationRef",
                format!("names {:?} while spec.implementationSpecRef names {:?}: give one of them", b.name, a.name),
            ),
            (None, None) if spec.implementation.is_none() => faults.add(
                "spec.implementationSpecRef",
                "a run needs a work item: give implementationSpecRef, or implementation.inline".to_owned(),
            ),
            _ => {}
        }
        if let Some(work) = &spec.implementation {
            implementation_spec::check_work_item("spec.implementation.inline", &work.inline, faults);
        }
        values::check("spec.parameters", &spec.parameters, "spec.payloads", &spec.payloads, faults);
        let mut names = BTreeSet::new();
        for (n, output) in spec.outputs.iter().enumerate() {
            let Output { name, path } = output;
            if !names.insert(name) {
                faults.add(format!("spec.outputs[{n}].name"), format!("{name:?} is declared twice"));
            }
            if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                faults.add(format!("spec.outputs[{n}].name"), "an output's name is one path segment".to_owned());
            }
            if let Some(path) = path
                && (path.contains('\0') || path.split('/').any(|part| part == ".."))
            {
                faults.add(format!("spec.outputs[{n}].path"), "a path without `..`, below the workspace".to_owned());
            }
            if let Some(path) = path
                && path.starts_with('/')
                && !path.starts_with("/workspace/")
            {
                faults.add(format!("spec.outputs[{n}].path"), "an absolute path lies below /workspace".to_owned());
            }
        }
        if spec.runtime.as_ref().and_then(|runtime| runtime.kind) == Some(RuntimeKind::Process)
            && spec.runtime.as_ref().is_some_and(|runtime| runtime.job.is_some())
        {
            faults.add("spec.runtime.job", "settings of another runtime than runtime.type names".to_owned());
        }
    }
}
