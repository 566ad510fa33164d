//! The runtime contract: what an adapter does, and what every adapter guarantees.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use agents_core::{
    api::runtime::RuntimeKind,
    decide::{EffectKind, Plan},
    runtime::{Observation, RuntimeRef, Submission},
    status::Reason,
};
use async_trait::async_trait;
use jiff::Timestamp;

/// How much time a cancelled submission has to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(pub Duration);

/// What an adapter can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Changes are pushed to the manager; otherwise the submission is polled.
    pub pushes: bool,
    /// Shortest time between two polls of one submission.
    pub poll_interval: Duration,
    /// What it creates is collected with the run by Kubernetes itself.
    pub garbage_collected: bool,
    /// The submission carries a pod that policy can check.
    pub has_pod: bool,
}

impl Capabilities {
    /// Makes sure that a live submission of an adapter that does not push is looked at again in time.
    pub fn add_poll<S>(&self, plan: &mut Plan<S>, observation: &Observation, now: Timestamp) {
        if !self.pushes && (observation.is_live() || plan.before.iter().any(|e| e.kind() == EffectKind::Submit)) {
            let next = now.saturating_add(self.poll_interval).unwrap_or(Timestamp::MAX);
            plan.wake = Some(plan.wake.map_or(next, |wake| wake.min(next)));
        }
    }
}

/// Starts, observes and ends submissions.
///
/// # Expected flow
/// `submit` once per attempt (perhaps several times, by several controllers), `status` until it is finished, `cancel`
/// when the run is to end early.
///
/// # Guarantees every adapter gives, proven by the conformance suite
/// - `submit` with the same key twice gives the same reference and one execution, also when the two calls race or the
///   first caller died.
/// - A name taken by something that is not this run's submission is [`AdapterErrorKind::Conflict`]; it is left alone.
/// - `status` of an unknown reference is [`Observation::Lost`], not an error.
/// - `cancel` and `keep` are idempotent and succeed on what is gone.
///
/// # Errors
/// Each carries a [`Class`], which alone decides what the driver does next, and a [`Reason`], which users see.
#[async_trait]
pub trait RuntimeAdapter: Send + Sync + fmt::Debug {
    /// The runtime it serves.
    fn runtime(&self) -> RuntimeKind;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Starts `submission` unless it was started before.
    async fn submit(&self, submission: &Submission) -> Result<RuntimeRef, AdapterError>;

    /// Reads the present state from the runtime itself, never from a cache.
    async fn status(&self, reference: &RuntimeRef) -> Result<Observation, AdapterError>;

    /// Keeps what is left of the submission from being collected after its end (`kept`), or lets it be collected after its
    /// usual time again: an engine asks for it while it cannot record how the submission ended. Nothing to do, and no
    /// error, for what is gone and for a runtime that collects nothing by itself.
    async fn keep(&self, reference: &RuntimeRef, kept: bool) -> Result<(), AdapterError> {
        let _ = (reference, kept);
        Ok(())
    }

    /// Asks the submission to end, and ends it by force after `grace`. Returns when the runtime has taken the request,
    /// not when everything has ended.
    async fn cancel(&self, reference: &RuntimeRef, grace: Grace) -> Result<(), AdapterError>;
}

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again with backoff: the same call may succeed.
    Retry,
    /// Try again, not before this time has passed.
    RetryAfter(Duration),
    /// The same call can only succeed after something else changed; users see the reason meanwhile.
    WaitForChange,
    /// The same call can never succeed.
    Terminal,
}

/// What went wrong in an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterErrorKind {
    /// The runtime cannot be reached, or did not answer in time. Whether the call took effect is unknown.
    Unavailable,
    /// The name is taken by something that is not ours.
    Conflict,
    /// The runtime understood the call and refused it.
    Rejected,
    /// A Secret, or a key of it, that the submission needs does not exist.
    SecretMissing,
}

/// An error of an adapter.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct AdapterError {
    /// What went wrong.
    pub kind: AdapterErrorKind,
    /// What the caller does about it.
    pub class: Class,
    /// For people, without secrets.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl AdapterError {
    /// The runtime cannot be reached; the call is repeated.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: AdapterErrorKind::Unavailable, class: Class::Retry, message: message.into(), source: None }
    }

    /// The name is taken by something that is not ours.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { kind: AdapterErrorKind::Conflict, class: Class::WaitForChange, message: message.into(), source: None }
    }

    /// A needed secret value does not exist; nothing was started.
    pub fn secret_missing(message: impl Into<String>) -> Self {
        Self {
            kind: AdapterErrorKind::SecretMissing,
            class: Class::WaitForChange,
            message: message.into(),
            source: None,
        }
    }

    /// The runtime refused, and will always refuse.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self { kind: AdapterErrorKind::Rejected, class: Class::Terminal, message: message.into(), source: None }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Changes what the caller does about it.
    #[must_use]
    pub fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// The reason users see.
    pub fn reason(&self) -> Reason {
        match self.kind {
            AdapterErrorKind::Unavailable => Reason::RuntimeUnavailable,
            AdapterErrorKind::Conflict => Reason::Conflict,
            AdapterErrorKind::SecretMissing => Reason::SecretMissing,
            AdapterErrorKind::Rejected => Reason::SubmitRejected,
        }
    }
}

/// The adapters of one engine, by runtime.
#[derive(Debug, Clone, Default)]
pub struct Registry(BTreeMap<RuntimeKind, Arc<dyn RuntimeAdapter>>);

impl Registry {
    /// Adds an adapter; a later one for the same runtime replaces an earlier one.
    #[must_use]
    pub fn with(mut self, adapter: Arc<dyn RuntimeAdapter>) -> Self {
        self.0.insert(adapter.runtime(), adapter);
        self
    }

    /// The adapter of a runtime.
    pub fn get(&self, runtime: RuntimeKind) -> Option<&Arc<dyn RuntimeAdapter>> {
        self.0.get(&runtime)
    }

    /// The runtimes that have an adapter.
    pub fn runtimes(&self) -> impl Iterator<Item = RuntimeKind> + '_ {
        self.0.keys().copied()
    }
}
