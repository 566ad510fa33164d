//! What a cache keeps of a large object: all that decisions read before something is planned, and no texts.
//!
//! A run may carry more than a megabyte of payloads and steps, a work item a quarter of one, and most of them wait or run
//! for hours, while their texts are read once, when an attempt is planned. So a cache keeps a copy without them and
//! notes what it took away; a decision that comes to need them asks for the whole object
//! ([`Confirm::whole`](crate::decide::Confirm)).

use std::{collections::BTreeMap, io};

use serde::Serialize;

use crate::{
    api::{
        AgentRun, AgentRunSpec, ImplementationSpec, ImplementationSpecSpec, Kind, Resource, SignalDelivery,
        SignalDeliverySpec, implementation_spec::Implementation,
    },
    check::{self, Check, Fault},
    plan::digest,
};

/// Length of a spec as it is stored up to which all of it is kept, in bytes: the usual run is read never, and costs less
/// than this.
pub const KEPT_WHOLE: usize = 8 * 1024;

/// What was judged of a spec before parts of it were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Length of the whole spec as it is stored, in bytes.
    pub bytes: usize,
    /// The digest that the status keeps of a run's spec, or of what a delivery says.
    pub spec_hash: String,
    /// Every fault of the whole spec.
    pub faults: Vec<Fault>,
}

/// Counts what is written to it, as the API server would write it: its JSON spells five more characters as `\u….`.
#[derive(Debug, Default)]
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let escaped = bytes.iter().filter(|byte| matches!(byte, b'<' | b'>' | b'&')).count();
        // U+2028 and U+2029 take three bytes, and six when they are escaped.
        let separators = bytes.windows(3).filter(|at| matches!(at, [0xe2, 0x80, 0xa8 | 0xa9])).count();
        self.0 = self.0.saturating_add(bytes.len() + escaped * 5 + separators * 3);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Length of the JSON that the API server stores of `value`, in bytes.
pub(crate) fn stored_bytes(value: &impl Serialize) -> usize {
    let mut count = Count::default();
    // What cannot be written has not been read either; a length that is too short refuses nothing that is right.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Every fault of an object's spec, of what was left out too.
pub fn faults<K: Check>(object: &Resource<K>) -> Vec<Fault> {
    match &object.metadata.left_out {
        Some(left_out) => left_out.faults.clone(),
        None => check::faults::<K>(&object.spec),
    }
}

/// The digest that a run's status keeps of its spec: over what may not change after submission.
pub fn spec_hash(run: &Resource<AgentRun>) -> String {
    match &run.metadata.left_out {
        Some(left_out) => left_out.spec_hash.clone(),
        None => hash(&run.spec),
    }
}

fn hash(spec: &AgentRunSpec) -> String {
    let fixed = AgentRunSpec { suspend: None, cancel: None, ttl_seconds_after_finished: None, ..spec.clone() };
    digest::of_json(&serde_json::to_value(&fixed).unwrap_or_default())
}

/// The copy of a large object that is kept, with `spec` in place of the whole; `None` of an object that is kept whole.
fn copy<K: Kind>(
    object: &Resource<K>,
    slim: impl FnOnce(&K::Spec) -> K::Spec,
    judge: impl FnOnce(&K::Spec) -> (String, Vec<Fault>),
) -> Option<Resource<K>> {
    if object.metadata.left_out.is_some() {
        return None;
    }
    let bytes = stored_bytes(&object.spec);
    if bytes <= KEPT_WHOLE {
        return None;
    }
    let (spec_hash, faults) = judge(&object.spec);
    let mut metadata = object.metadata.clone();
    metadata.left_out = Some(Box::new(LeftOut { bytes, spec_hash, faults }));
    Some(Resource { metadata, spec: slim(&object.spec), status: object.status.clone() })
}

pub(crate) fn agent_run(run: &Resource<AgentRun>) -> Option<Resource<AgentRun>> {
    copy(run, slim_run, |spec| (hash(spec), check::faults::<AgentRun>(spec)))
}

/// What two deliveries of one id must have in common: the digest of everything that is delivered.
pub fn content(delivery: &Resource<SignalDelivery>) -> String {
    match &delivery.metadata.left_out {
        Some(left_out) => left_out.spec_hash.clone(),
        None => delivered(&delivery.spec),
    }
}

fn delivered(spec: &SignalDeliverySpec) -> String {
    let SignalDeliverySpec { signal_ref: _, delivery_id: _, payload, run_ref, decision } = spec;
    digest::of_json(&serde_json::json!([payload, run_ref, decision]))
}

pub(crate) fn signal_delivery(delivery: &Resource<SignalDelivery>) -> Option<Resource<SignalDelivery>> {
    let slim = |spec: &SignalDeliverySpec| SignalDeliverySpec { payload: None, ..spec.clone() };
    copy(delivery, slim, |spec| (delivered(spec), check::faults::<SignalDelivery>(spec)))
}

pub(crate) fn implementation_spec(work: &Resource<ImplementationSpec>) -> Option<Resource<ImplementationSpec>> {
    copy(work, slim_work, |spec| (String::new(), check::faults::<ImplementationSpec>(spec)))
}

fn slim_run(spec: &AgentRunSpec) -> AgentRunSpec {
    let AgentRunSpec {
        agent_ref,
        implementation_spec_ref,
        implementation_ref,
        implementation,
        goal: _,
        idempotency_key,
        delivery_id,
        parameters: _,
        payloads: _,
        system_prompt: _,
        system_prompt_ref,
        secrets,
        memory_ref,
        budget_ref,
        approval_policy_ref,
        workspace_ref,
        vcs_ref,
        vcs_policy,
        execution: _,
        workload: _,
        runtime,
        runtime_overrides: _,
        provider: _,
        workflow: _,
        priority,
        outputs,
        retry_policy,
        timeout_seconds,
        suspend,
        cancel,
        ttl_seconds_after_finished,
    } = spec;
    // Of the runtime only its name is read before a plan; its settings may be long.
    let runtime =
        runtime.as_ref().map(|runtime| crate::api::runtime::RuntimeSpec { kind: runtime.kind, ..Default::default() });
    AgentRunSpec {
        agent_ref: agent_ref.clone(),
        implementation_spec_ref: implementation_spec_ref.clone(),
        implementation_ref: implementation_ref.clone(),
        implementation: implementation.as_ref().map(|work| Implementation { inline: slim_work(&work.inline) }),
        goal: None,
        idempotency_key: idempotency_key.clone(),
        delivery_id: delivery_id.clone(),
        parameters: BTreeMap::default(),
        payloads: BTreeMap::default(),
        system_prompt: None,
        system_prompt_ref: system_prompt_ref.clone(),
        secrets: secrets.clone(),
        memory_ref: memory_ref.clone(),
        budget_ref: budget_ref.clone(),
        approval_policy_ref: approval_policy_ref.clone(),
        workspace_ref: workspace_ref.clone(),
        vcs_ref: vcs_ref.clone(),
        vcs_policy: *vcs_policy,
        execution: None,
        workload: None,
        runtime,
        runtime_overrides: None,
        provider: BTreeMap::default(),
        workflow: None,
        priority: *priority,
        outputs: outputs.clone(),
        retry_policy: *retry_policy,
        timeout_seconds: *timeout_seconds,
        suspend: *suspend,
        cancel: *cancel,
        ttl_seconds_after_finished: *ttl_seconds_after_finished,
    }
}

fn slim_work(spec: &ImplementationSpecSpec) -> ImplementationSpecSpec {
    let ImplementationSpecSpec {
        text: _,
        summary,
        description: _,
        acceptance_criteria: _,
        labels: _,
        source,
        contract: _,
        vcs_ref,
    } = spec;
    ImplementationSpecSpec {
        summary: summary.clone(),
        source: source.clone(),
        vcs_ref: vcs_ref.clone(),
        ..ImplementationSpecSpec::default()
    }
}

#[cfg(test)]
mod tests;
