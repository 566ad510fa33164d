//! AgentRun.

use super::{Check, Fault, Faults, implementation_spec, values};
use crate::{
    api::{
        AgentRun, AgentRunSpec,
        agent_run::{GitCoordinates, Output},
        common::Payloads,
        runtime::RuntimeKind,
        workload::Workload,
    },
    git::{self, CoordinatesError},
    graph::Node,
    normalise, place,
};

const GIT_URL: &str = "spec.execution.coordinates.git.url";

impl Check for AgentRun {
    fn check(spec: &AgentRunSpec, faults: &mut Faults) {
        match (&spec.implementation_spec_ref, &spec.implementation_ref) {
            (Some(a), Some(b)) if a != b => faults.add(
                "spec.implementationRef",
                format!("names {:?} while spec.implementationSpecRef names {:?}: give one of them", b.name, a.name),
            ),
            (None, None) if spec.implementation.is_none() && spec.workflow.is_none() => faults.add(
                "spec.implementationSpecRef",
                "a run needs a work item: give implementationSpecRef, or implementation.inline".to_owned(),
            ),
            _ => {}
        }
        if let Some(work) = &spec.implementation {
            implementation_spec::check_work_item("spec.implementation.inline", &work.inline, faults);
        }
        values::check("spec.parameters", &spec.parameters, "spec.payloads", &spec.payloads, faults);
        values::exported("spec.parameters", &spec.parameters, faults);
        faults.distinct("spec.outputs", spec.outputs.iter().map(|output| &output.name));
        for (n, output) in spec.outputs.iter().enumerate() {
            let Output { name, path } = output;
            if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                faults.add(format!("spec.outputs[{n}].name"), "an output's name is one path segment".to_owned());
            }
            let field = if path.is_some() { "path" } else { "name" };
            if let Err(error) = place::of_output(output) {
                faults.add(format!("spec.outputs[{n}].{field}"), format!("an output lies below /workspace: {error}"));
            }
        }
        let is_told = |n: usize, earlier: usize| spec.outputs[n].name == spec.outputs[earlier].name;
        for (n, earlier) in place::shared_outputs(&spec.outputs).into_iter().filter(|(n, at)| !is_told(*n, *at)) {
            let field = if spec.outputs[n].path.is_some() { "path" } else { "name" };
            faults.add(
                format!("spec.outputs[{n}].{field}"),
                format!("is the place of spec.outputs[{earlier}], or one of them lies below the other"),
            );
        }
        let coordinates = spec.execution.as_ref().and_then(|execution| execution.coordinates.as_ref());
        if let Some(workspace) = coordinates.and_then(|coordinates| coordinates.workspace.as_ref()) {
            let at = "spec.execution.coordinates.workspace";
            values::image(&format!("{at}.image"), workspace.image.as_ref(), faults);
            values::volumes(&format!("{at}.volumes"), &workspace.volumes, faults);
        }
        if let Some(git) = coordinates.and_then(|coordinates| coordinates.git.as_ref()) {
            // A path means a repository to `agents run`, which makes an address of it before the run is resolved.
            let kept = |fault: &Fault| fault.field != GIT_URL || !git::is_path(&git.url);
            for Fault { field, problem } in coordinates_faults(git).into_iter().filter(kept) {
                faults.add(field, problem);
            }
        }
        faults.same(
            ("spec.idempotencyKey", spec.idempotency_key.as_ref()),
            ("spec.deliveryId", spec.delivery_id.as_ref()),
        );
        if let Some(runtime) = &spec.runtime {
            let settings = normalise::runtime("spec.runtime", runtime, faults);
            values::image("spec.runtime.job.image", settings.job.image.as_ref(), faults);
            if let Some(resources) = &settings.job.resources {
                values::resources("spec.runtime.job.resources", resources, faults);
            }
            values::free("spec.runtime.config", runtime.config.as_ref(), faults);
        }
        if let Some(job) = spec.runtime_overrides.as_ref().and_then(|overrides| overrides.job.clone()) {
            values::image("spec.runtimeOverrides.job.image", job.image.as_ref(), faults);
            if let Some(resources) = &job.resources {
                values::resources("spec.runtimeOverrides.job.resources", resources, faults);
            }
            normalise::service_account("spec.runtimeOverrides", &mut { job }, faults);
        }
        workload("spec.workload", spec.workload.as_ref(), faults);
        for (name, settings) in &spec.provider {
            values::free(&format!("spec.provider.{name}"), Some(settings), faults);
        }
        steps(spec, faults);
    }
}

/// Everything that is wrong with the coordinates of the repository.
fn coordinates_faults(git: &GitCoordinates) -> Vec<Fault> {
    let fault = |CoordinatesError { field, problem }| Fault {
        field: format!("spec.execution.coordinates.git.{field}"),
        problem: problem.to_owned(),
    };
    git::problems(git).into_iter().map(fault).collect()
}

/// What is wrong with the address of the repository where a path is none.
pub fn address_fault(git: &GitCoordinates) -> Option<Fault> {
    coordinates_faults(git).into_iter().find(|fault| fault.field == GIT_URL)
}

fn steps(spec: &AgentRunSpec, faults: &mut Faults) {
    let steps = spec.workflow.as_ref().map(|workflow| workflow.steps.as_slice()).unwrap_or_default();
    if !steps.is_empty() && spec.runtime.as_ref().and_then(|runtime| runtime.kind) == Some(RuntimeKind::Job) {
        faults.add("spec.workflow.steps", "a run of runtime.type job has no steps: say workflow");
    }
    let nodes: Vec<_> = steps.iter().map(|step| Node { name: &step.name, depends_on: &step.depends_on }).collect();
    super::steps::order("spec.workflow.steps", &nodes, faults);
    for (n, step) in steps.iter().enumerate() {
        let at = format!("spec.workflow.steps[{n}]");
        values::check(&format!("{at}.parameters"), &step.parameters, "", &Payloads::new(), faults);
        values::exported(&format!("{at}.parameters"), &step.parameters, faults);
        if let Some(work) = &step.implementation {
            implementation_spec::check_work_item(&format!("{at}.implementation.inline"), &work.inline, faults);
        }
        workload(&format!("{at}.workload"), step.workload.as_ref(), faults);
        let own = spec.implementation_spec_ref.is_some()
            || spec.implementation_ref.is_some()
            || spec.implementation.is_some();
        if !own && step.implementation.is_none() && step.implementation_spec_ref.is_none() {
            faults.add(format!("{at}.implementationSpecRef"), "neither the step nor the run has a work item");
        }
    }
}

fn workload(at: &str, workload: Option<&Workload>, faults: &mut Faults) {
    let Some(Workload { image, resources, volumes }) = workload else { return };
    values::image(&format!("{at}.image"), image.as_ref(), faults);
    if let Some(resources) = resources {
        values::resources(&format!("{at}.resources"), resources, faults);
    }
    values::volumes(&format!("{at}.volumes"), volumes, faults);
}
