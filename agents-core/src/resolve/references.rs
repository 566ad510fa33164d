//! Which objects a run refers to. Whoever needs them finds them here and nowhere else.

use crate::{
    api::{Agent, AgentProvider, AgentRun, AgentRunSpec, ImplementationSpec, Kind, Resource, common::NameRef},
    look::{Found, Look},
};

/// The objects a run refers to, as they were found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct References {
    /// The Agent named by `spec.agentRef`.
    pub agent: Found<Resource<Agent>>,
    /// The AgentProvider named by that Agent.
    pub provider: Found<Resource<AgentProvider>>,
    /// The ImplementationSpec named by the run; not looked up when the work item is inline.
    pub implementation: Found<Resource<ImplementationSpec>>,
}

impl References {
    /// The kinds that are looked up.
    pub const KINDS: [&str; 3] = [Agent::KIND, AgentProvider::KIND, ImplementationSpec::KIND];

    /// Looks up everything that `run` refers to.
    pub fn of(run: &Resource<AgentRun>, look: &dyn Look) -> Self {
        let namespace = &run.metadata.namespace;
        let agent = look.find::<Agent>(namespace, &run.spec.agent_ref.name);
        let provider = match &agent {
            Found::Object(agent) => look.find(namespace, &agent.spec.provider_ref.name),
            Found::Absent | Found::Unreadable(_) => Found::Absent,
        };
        // One of its own wins.
        let work = work_ref(&run.spec).filter(|_| run.spec.implementation.is_none());
        let implementation = work.map_or(Found::Absent, |work| look.find(namespace, &work.name));
        Self { agent, provider, implementation }
    }
}

/// The work item that a run names, in either spelling.
pub(super) fn work_ref(spec: &AgentRunSpec) -> Option<&NameRef> {
    spec.implementation_spec_ref.as_ref().or(spec.implementation_ref.as_ref())
}
