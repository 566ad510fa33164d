//! Orchestration: its steps, their graph, and the two ways in which a step can name what it is about.

use super::{Check, Faults, approval_policy::expression, implementation_spec, steps, values};
use crate::{
    api::{
        Orchestration, OrchestrationSpec,
        common::{NameRef, Payloads},
        orchestration::{NameOrRef, Step, StepKind},
    },
    graph::Node,
};

/// What a step names, whichever spelling it uses: a field of its own, or an entry of `with`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepRefs<'a> {
    /// The Agent.
    pub agent: Option<&'a str>,
    /// The Tool.
    pub tool: Option<&'a str>,
    /// The Orchestration.
    pub orchestration: Option<&'a str>,
    /// The ApprovalPolicy.
    pub policy: Option<&'a str>,
    /// The Signal.
    pub signal: Option<&'a str>,
    /// The one delivery.
    pub delivery_id: Option<&'a str>,
    /// The ImplementationSpec.
    pub implementation_spec: Option<&'a str>,
}

/// What `step` names; where both spellings are used, the field.
pub fn step_refs(step: &Step) -> StepRefs<'_> {
    let [agent, tool, orchestration, policy, signal, delivery_id, implementation_spec] =
        spellings(step).map(|(_, field, with)| field.or(with));
    StepRefs { agent, tool, orchestration, policy, signal, delivery_id, implementation_spec }
}

/// Name, value of the field and value in `with` of everything that has both spellings.
fn spellings(step: &Step) -> [(&'static str, Option<&str>, Option<&str>); 7] {
    fn name(reference: Option<&NameRef>) -> Option<&str> {
        reference.map(|reference| reference.name.as_str())
    }
    let fields = [
        ("agentRef", name(step.agent_ref.as_ref())),
        ("toolRef", name(step.tool_ref.as_ref())),
        ("orchestrationRef", name(step.orchestration_ref.as_ref())),
        ("policyRef", step.policy_ref.as_deref()),
        ("signalRef", step.signal_ref.as_ref().and_then(NameOrRef::name)),
        ("deliveryId", step.delivery_id.as_deref()),
        ("implementationSpecRef", name(step.implementation_spec_ref.as_ref())),
    ];
    fields.map(|(key, field)| (key, field, step.with.get(key).map(|value| value.0.as_str())))
}

impl Check for Orchestration {
    fn check(spec: &OrchestrationSpec, faults: &mut Faults) {
        let OrchestrationSpec { entrypoint, steps, finally, parallelism: _, on_failure: _, policies } = spec;
        if let Some(entrypoint) = entrypoint
            && !steps.iter().any(|step| step.name == *entrypoint)
        {
            faults.add("spec.entrypoint", format!("no step is called {entrypoint:?}"));
        }
        for (at, steps) in [("spec.steps", steps), ("spec.finally", finally)] {
            check_graph(at, steps, faults);
            for (n, step) in steps.iter().enumerate() {
                check_step(&format!("{at}[{n}]"), step, faults);
            }
        }
        for (n, step) in finally.iter().enumerate() {
            if steps.iter().any(|other| other.name == step.name) {
                faults
                    .add(format!("spec.finally[{n}].name"), format!("{:?} is the name of another step too", step.name));
            }
        }
        if let Some(policies) = policies {
            faults.free_form("spec.policies", &policies.0);
        }
    }
}

fn check_graph(at: &str, steps: &[Step], faults: &mut Faults) {
    let nodes: Vec<Node<'_>> =
        steps.iter().map(|step| Node { name: &step.name, depends_on: &step.depends_on }).collect();
    steps::order(at, &nodes, faults);
}

fn check_step(at: &str, step: &Step, faults: &mut Faults) {
    values::check(&format!("{at}.with"), &step.with, at, &Payloads::new(), faults);
    if step.kind == StepKind::AgentRun {
        values::exported(&format!("{at}.with"), &step.with, faults);
    }
    for (key, field, with) in spellings(step) {
        faults.same((&format!("{at}.{key}"), field.as_ref()), (&format!("{at}.with.{key}"), with.as_ref()));
        if [field, with].into_iter().flatten().any(|name| name.is_empty() || name.chars().count() > 253) {
            faults.add(format!("{at}.{key}"), "a name has 1 to 253 characters");
        }
    }
    for (key, value) in &step.with {
        values::template_source(&format!("{at}.with.{key}"), value.0.as_str(), faults);
    }
    let refs = step_refs(step);
    if step.signal_ref.as_ref().is_some_and(|reference| reference.name().is_none()) {
        faults.add(format!("{at}.signalRef"), "a name, or an object with a name");
    }
    match step.kind {
        StepKind::AgentRun if refs.implementation_spec.is_none() && step.implementation.is_none() => faults.add(
            format!("{at}.implementationSpecRef"),
            "a step of kind AgentRun needs a work item: give implementationSpecRef, or implementation.inline",
        ),
        StepKind::SignalWait if step.signal_ref.is_none() && refs.signal.is_none() && refs.delivery_id.is_none() => {
            faults.add(format!("{at}.signalRef"), "a step of kind SignalWait needs signalRef or deliveryId");
        }
        StepKind::AgentRun
        | StepKind::ToolRun
        | StepKind::SubOrchestration
        | StepKind::ApprovalGate
        | StepKind::SignalWait
        | StepKind::Checkpoint
        | StepKind::MemoryOp => {}
    }
    if let Some(work) = &step.implementation {
        implementation_spec::check_work_item(&format!("{at}.implementation.inline"), &work.inline, faults);
    }
    if let Some(resources) = step.workload.as_ref().and_then(|workload| workload.resources.as_ref()) {
        values::resources(&format!("{at}.workload.resources"), resources, faults);
    }
    if let Some(when) = &step.when {
        expression(&format!("{at}.when"), when, faults);
    }
    faults.free_form(at, &step.extra);
}
