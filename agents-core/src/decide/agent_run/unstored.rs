//! Statuses that cannot be stored: an attempt without a record is kept where it ran, and none is started.
//!
//! The status is the record of an attempt. While the API server refuses it, what executes the attempt is the record
//! instead, so it is kept from being collected ([`Effect::Keep`]) until a status was stored, and the engine remembers
//! what it handed over or saw. Nothing new is started before a status was stored again.

use super::{Blocker, Decision, Warning};
use crate::{
    api::AgentRunStatus,
    decide::{Effect, Plan},
    mutant::{self, Mutant},
    runtime::Observation,
    status::Reason,
};

/// Refusals in a row, of a kind that may pass by itself, from which on they count as lasting.
const LASTING_AFTER: u32 = 3;

/// A status that could not be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstored {
    /// How often in a row.
    pub times: u32,
    /// Whether the same status is refused until somebody changes something.
    pub refused: bool,
    /// Why, for people.
    pub message: String,
}

impl Unstored {
    /// Whether it is more than a moment's trouble.
    pub fn lasts(&self) -> bool {
        self.refused || self.times >= LASTING_AFTER
    }

    /// Whether it lasts as of now.
    fn is_news(&self) -> bool {
        self.times == if self.refused { 1 } else { LASTING_AFTER }
    }
}

impl Decision<'_> {
    /// The Plan, with what keeps the attempt's record while the status cannot be it.
    pub(super) fn with_its_record(&self, mut plan: Plan<AgentRunStatus>) -> Plan<AgentRunStatus> {
        if !plan.confirm.is_nothing() {
            return plan;
        }
        let sighting = self.sighting;
        let there = sighting.observation != Observation::Lost;
        if let Some(unstored) = self.snapshot.unstored.as_ref().filter(|unstored| unstored.lasts()) {
            if unstored.is_news() {
                let message = format!("the status cannot be stored: {}", unstored.message);
                plan.before.insert(0, super::warn(Reason::StatusRefused, &message));
            }
            if there && !sighting.kept && !mutant::is_on(Mutant::ResubmitsUnrecorded) {
                plan.before.insert(0, Effect::Keep { reference: self.reference() });
            }
        }
        let number = super::current_attempt(self.run().status.as_ref());
        let records = |status: &AgentRunStatus| status.attempts.last().is_some_and(|last| last.number == number);
        let recorded = plan.status.as_deref().map_or(self.recorded().is_some(), records);
        if there && sighting.kept && recorded {
            plan.after.insert(0, Effect::LetGo { reference: self.reference() });
        }
        plan
    }

    /// Nothing is started after a status that could not be stored, before one was: what is started needs a record.
    pub(super) fn try_to_store(&self, unstored: &Unstored, warning: Option<Warning>) -> Plan<AgentRunStatus> {
        let mut record = self.record();
        record.warn(warning);
        record.blocked(&[Blocker::unstored(unstored)]);
        let mut plan = record.into_trial();
        plan.wake = Some(self.now);
        plan
    }
}
