//! Every kind of the product, once: generators, checks and caches walk this list instead of keeping their own.
//!
//! A kind is named in `visit`; while it has no rules of its own, also in `declared`.

mod any;

pub use self::any::{AnyKind, status_of};
use crate::{
    api::{
        Agent, AgentProvider, AgentRun, ApprovalPolicy, Artifact, Budget, ImplementationSource, ImplementationSpec,
        Memory, Orchestration, OrchestrationRun, Schedule, SecretBinding, Signal, SignalDelivery, Tool, ToolRun,
        VersionControlProvider, Workspace,
    },
    decide::rules::Decide,
};

/// Something done for each kind.
pub trait Visitor {
    /// Does it for `K`.
    fn visit<K: Decide>(&mut self);
}

/// Calls `visitor` for every kind, in the order in which they are documented.
pub fn visit(visitor: &mut impl Visitor) {
    visitor.visit::<Agent>();
    visitor.visit::<AgentProvider>();
    visitor.visit::<AgentRun>();
    visitor.visit::<ImplementationSpec>();
    visitor.visit::<ImplementationSource>();
    visitor.visit::<Memory>();
    visitor.visit::<VersionControlProvider>();
    visitor.visit::<Orchestration>();
    visitor.visit::<OrchestrationRun>();
    visitor.visit::<Schedule>();
    visitor.visit::<Budget>();
    visitor.visit::<ApprovalPolicy>();
    visitor.visit::<Signal>();
    visitor.visit::<SignalDelivery>();
    visitor.visit::<Artifact>();
    visitor.visit::<Tool>();
    visitor.visit::<ToolRun>();
    visitor.visit::<Workspace>();
    visitor.visit::<SecretBinding>();
}

macro_rules! declared {
    ($($kind:ident),+ $(,)?) => { $(impl Decide for $kind {})+ };
}

declared!(
    Agent,
    AgentProvider,
    ImplementationSpec,
    ImplementationSource,
    Memory,
    VersionControlProvider,
    Orchestration,
    OrchestrationRun,
    Schedule,
    Budget,
    ApprovalPolicy,
    Artifact,
    Tool,
    ToolRun,
    Workspace,
    SecretBinding,
);
