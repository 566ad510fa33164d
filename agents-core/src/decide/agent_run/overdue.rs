//! Attempts whose end was asked for and is overdue: the node that should have ended them says nothing.
//!
//! A node that does not answer may be off, or go on beyond everybody's reach. So what it was given counts as running until
//! the node answers or the cluster has given it up, and no attempt follows meanwhile. A run that no attempt follows in
//! any case need not wait for that: once it is to end, it ends, and says what may still run.

use jiff::Timestamp;

use super::{Blocker, Decision, current_attempt, outcome::Outcome, retry};
use crate::{
    api::{
        AgentRunStatus,
        agent_run::{Phase, Stopping},
    },
    decide::Plan,
    runtime::Overdue,
    status::{after, seconds},
};

/// Time after which it is told that an end is overdue, in seconds: a node that answers needs no more.
const TOLD_AFTER_SECONDS: i64 = 60;
/// Time after which a run ends without it, counted from where nothing gentler is left to be tried, in seconds.
const GIVEN_UP_AFTER_SECONDS: i64 = 300;

impl Decision<'_> {
    /// The end that is overdue, once that is to be told.
    fn overdue(&self) -> Option<&Overdue> {
        self.sighting.overdue.as_ref().filter(|overdue| self.now >= told_at(overdue))
    }

    /// When an end that is due will be told to be overdue.
    pub(super) fn overdue_at(&self) -> Option<Timestamp> {
        self.sighting.overdue.as_ref().map(told_at).filter(|at| *at > self.now)
    }

    /// What keeps an attempt from ending that nobody of ours ends.
    pub(super) fn unended(&self) -> Option<Blocker> {
        self.overdue().map(|overdue| Blocker::overdue(overdue, None))
    }

    /// Says of an attempt that is being ended what keeps it from ending.
    pub(super) fn still_stopping(&self, stopping: &Stopping) -> Plan<AgentRunStatus> {
        let Some(overdue) = self.overdue() else { return Plan::settled() };
        let last = self.is_the_last(&Outcome::given_up(stopping, overdue, self.now));
        let mut record = self.record();
        record.blocked(&[Blocker::overdue(overdue, last.then(|| self.given_up_at(stopping, overdue)))]);
        record.into_plan()
    }

    /// Ends a run without the answer of its node, where no attempt would follow and nothing else is left to be done.
    pub(super) fn given_up(&self, stopping: &Stopping) -> Option<Plan<AgentRunStatus>> {
        let overdue = self.overdue().filter(|overdue| self.now >= self.given_up_at(stopping, overdue))?;
        let outcome = Outcome::given_up(stopping, overdue, self.now);
        if !self.is_the_last(&outcome) {
            return None;
        }
        // It may have ended just now.
        Some(if self.sighting.consistent { self.end(&outcome) } else { self.confirm() })
    }

    fn given_up_at(&self, stopping: &Stopping, overdue: &Overdue) -> Timestamp {
        after(self.forced_at(stopping.at).max(overdue.since), seconds(GIVEN_UP_AFTER_SECONDS))
    }

    /// Whether no attempt would follow one that ended so.
    fn is_the_last(&self, outcome: &Outcome) -> bool {
        let status = self.run().status.as_ref();
        let next = || {
            let started = status.and_then(|status| status.started_at);
            retry::next(&self.terms(), current_attempt(status), outcome, started)
        };
        outcome.ended == Phase::Cancelled || self.user_wants_to_stop().is_some() || next().is_err()
    }
}

fn told_at(overdue: &Overdue) -> Timestamp {
    after(overdue.since, seconds(TOLD_AFTER_SECONDS))
}
