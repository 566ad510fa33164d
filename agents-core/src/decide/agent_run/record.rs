//! The one writer of a run's status: every change of it is a method here, and nothing is stored that did not change.

use jiff::Timestamp;

use super::{Unstored, outcome::Outcome, room};
use crate::{
    api::{
        AgentRun, AgentRunStatus, Resource,
        agent_run::{Attempt, BlockedBy, MAX_ATTEMPTS_KEPT, Phase, RunnerStatus, Stopping},
        common::Usage,
        runtime::RuntimeKind,
    },
    decide::{Notice, Plan, Refusal},
    kept,
    policy::Denial,
    resolve::Missing,
    runtime::{Observation, Overdue, RuntimeRef},
    status::{Conditions, Reason, Verdict, conditions, cut, whole_seconds},
};

/// Longest message in a list entry, in bytes.
const MAX_MESSAGE: usize = 1024;
/// What unblocks a run that we try to start again.
const TRIED_AGAIN: &str = "cure what the message says; it is tried again by itself";
/// Entries of `status.blockedBy` at most, which is what its schema allows.
pub(super) const MAX_BLOCKERS: usize = 64;

/// Something that keeps a run from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocker {
    reason: Reason,
    object: Option<String>,
    message: String,
    unblocked_by: String,
}

impl Blocker {
    pub(super) fn missing(missing: Missing) -> Self {
        let Missing { reason, object, message, unblocked_by } = missing;
        Self { reason, object: Some(object), message, unblocked_by }
    }

    pub(super) fn unrenderable(object: String, message: String) -> Self {
        let unblocked_by = format!("mend {object}");
        Self { reason: Reason::ReferenceUnreadable, object: Some(object), message, unblocked_by }
    }

    pub(super) fn suspended() -> Self {
        let reason = Reason::Suspended;
        let unblocked_by = reason.unblocked_by().unwrap_or_default().to_owned();
        Self { reason, object: None, message: "spec.suspend is true".to_owned(), unblocked_by }
    }

    pub(super) fn unsupported(fields: &[String]) -> Self {
        Self {
            reason: Reason::NotSupported,
            object: None,
            message: format!("this version does not carry out {}", fields.join(", ")),
            unblocked_by: "a controller that carries it out, or a run that does not ask for it".to_owned(),
        }
    }

    pub(super) fn no_runtime(runtime: RuntimeKind) -> Self {
        Self {
            reason: Reason::RuntimeNotConfigured,
            object: None,
            message: format!("no adapter for the runtime {runtime} is configured"),
            unblocked_by: format!("configure the runtime {runtime}, or make a run of another type"),
        }
    }

    pub(super) fn denied(denial: Denial) -> Self {
        let Denial { reason, message, unblocked_by } = denial;
        Self { reason, object: None, message, unblocked_by }
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        let Refusal { submission: _, reason, message, terminal: _ } = refusal;
        let unblocked_by = reason.unblocked_by().unwrap_or(TRIED_AGAIN);
        Self { reason: *reason, object: None, message: message.clone(), unblocked_by: unblocked_by.to_owned() }
    }

    pub(super) fn in_doubt(doubt: &str) -> Self {
        Self { reason: Reason::Conflict, object: None, message: doubt.to_owned(), unblocked_by: TRIED_AGAIN.to_owned() }
    }

    pub(super) fn unstored(unstored: &Unstored) -> Self {
        Self {
            reason: Reason::StatusRefused,
            object: None,
            message: format!("the status could not be stored: {}", unstored.message),
            unblocked_by: "a status that is stored; it is tried again by itself".to_owned(),
        }
    }

    pub(super) fn backoff(attempt: i32, reason: Reason, message: &str, start: Timestamp) -> Self {
        let next = attempt.saturating_add(1);
        Self {
            reason: Reason::Backoff,
            object: None,
            message: format!("attempt {attempt} ended with {reason}: {}", cut(message, 512)),
            unblocked_by: format!("attempt {next} starts at {}", whole_seconds(start)),
        }
    }

    pub(super) fn overdue(overdue: &Overdue, run_ends: Option<Timestamp>) -> Self {
        let Overdue { since, node } = overdue;
        let since = whole_seconds(*since);
        let unblocked_by = match run_ends {
            Some(at) => format!("an answer of the node; the run ends without one at {}", whole_seconds(at)),
            None => {
                "an answer of the node, or its deletion or the taint node.kubernetes.io/out-of-service once it is off; \
                     spec.cancel ends the run without"
                    .to_owned()
            }
        };
        Self {
            reason: Reason::NodeUnreachable,
            object: Some(format!("Node/{node}")),
            message: format!(
                "node {node} has not said that the attempt ended, which was due at {since}; it may still run there, so no \
                 other attempt is started"
            ),
            unblocked_by,
        }
    }

    fn hindrance(reason: Reason, message: &str, reference: &RuntimeRef) -> Self {
        let unblocked_by = reason.unblocked_by().unwrap_or("cure what the message says");
        Self {
            reason,
            object: Some(format!("{}/{}", reference.runtime, reference.name)),
            message: message.to_owned(),
            unblocked_by: unblocked_by.to_owned(),
        }
    }
}

/// Why a condition `Warning` holds, and its message.
pub(super) type Warning = (Reason, String);

/// What was submitted.
#[derive(Debug, Clone)]
pub(super) struct Submitted {
    pub(super) digest: String,
    pub(super) warning: Option<Warning>,
}

/// A status under change.
pub(super) struct Record {
    old: AgentRunStatus,
    new: AgentRunStatus,
    generation: Option<i64>,
    spec_hash: String,
    now: Timestamp,
    verdict: Verdict,
    reason: Reason,
    message: String,
    warning: Option<Warning>,
}

impl Record {
    pub(super) fn new(run: &Resource<AgentRun>, now: Timestamp) -> Self {
        let old = run.status.clone().unwrap_or_default();
        let spec_hash = match &old.spec_hash {
            // This spec was judged when the status was stored; the outcome stands in its condition `Warning`.
            Some(hash) if old.observed_generation.is_some() && old.observed_generation == run.metadata.generation => {
                hash.clone()
            }
            _ => kept::spec_hash(run),
        };
        let changed = old.spec_hash.as_ref().is_some_and(|hash| *hash != spec_hash);
        let warning = if changed {
            Some((
                Reason::SpecChanged,
                "the spec was changed after it was submitted; what was submitted goes on".to_owned(),
            ))
        } else {
            // A warning given once stays: what it was about was submitted.
            old.conditions
                .iter()
                .find(|condition| condition.kind == "Warning" && condition.reason != Reason::AsExpected.as_str())
                .and_then(|condition| Some((Reason::parse(&condition.reason)?, condition.message.clone())))
        };
        Self {
            new: old.clone(),
            generation: run.metadata.generation,
            spec_hash,
            now,
            verdict: Verdict::Pending,
            reason: Reason::AsExpected,
            message: String::new(),
            warning,
            old,
        }
    }

    fn say(&mut self, verdict: Verdict, phase: Phase, reason: Reason, message: &str) {
        self.verdict = verdict;
        self.reason = reason;
        message.clone_into(&mut self.message);
        self.new.phase = Some(phase);
    }

    /// Pending until the first provider container starts; Running sticks.
    fn live_phase(&self) -> Phase {
        if self.new.started_at.is_some() { Phase::Running } else { Phase::Pending }
    }

    pub(super) fn template(&mut self) {
        self.say(Verdict::Template, Phase::Template, Reason::Template, "a template is never executed");
    }

    pub(super) fn invalid(&mut self, reason: Reason, message: &str) {
        self.new.blocked_by.clear();
        self.new.finished_at = Some(whole_seconds(self.now));
        self.say(Verdict::InvalidSpec, Phase::Failed, reason, message);
    }

    pub(super) fn warn(&mut self, warning: Option<Warning>) {
        if warning.is_some() {
            self.warning = warning;
        }
    }

    pub(super) fn blocked(&mut self, blockers: &[Blocker]) {
        self.new.blocked_by = blockers
            .iter()
            .take(MAX_BLOCKERS)
            .map(|Blocker { reason, object, message, unblocked_by }| {
                let same = |entry: &&BlockedBy| entry.reason == reason.as_str() && entry.object == *object;
                BlockedBy {
                    reason: reason.as_str().to_owned(),
                    object: object.clone(),
                    message: cut(message, MAX_MESSAGE),
                    since: self.old.blocked_by.iter().find(same).map_or(whole_seconds(self.now), |entry| entry.since),
                    unblocked_by: cut(unblocked_by, 512),
                }
            })
            .collect();
        let Some(first) = blockers.first() else { return };
        let text = blockers.iter().map(|blocker| blocker.message.as_str()).collect::<Vec<_>>().join("; ");
        let phase = self.live_phase();
        let verdict = if phase == Phase::Running { Verdict::RunningBlocked } else { Verdict::PendingBlocked };
        self.say(verdict, phase, first.reason, &text);
    }

    /// The entry of the current attempt, made when there is none.
    fn attempt(&mut self) -> &mut Attempt {
        let number = super::current_attempt(Some(&self.new));
        if super::open_attempt(&self.new).is_none() {
            if self.new.attempts.len() >= MAX_ATTEMPTS_KEPT {
                self.new.attempts.remove(0);
            }
            self.new.attempts.push(Attempt { number, ..Attempt::default() });
        }
        self.new.attempt = Some(number);
        if self.new.spec_hash.is_none() {
            self.new.spec_hash = Some(self.spec_hash.clone());
        }
        let last = self.new.attempts.len() - 1;
        &mut self.new.attempts[last]
    }

    /// Writes down what a live attempt does.
    pub(super) fn observed(&mut self, reference: &RuntimeRef, observation: &Observation, plan: Option<Submitted>) {
        let (submitted, started, uid) = match observation {
            Observation::Pending { submitted_at, uid, cause: _ } => (Some(*submitted_at), None, uid.clone()),
            Observation::Running { submitted_at, started_at, uid } => {
                (Some(*submitted_at), Some(*started_at), uid.clone())
            }
            Observation::Stopping | Observation::Lost | Observation::Finished(_) => (None, None, None),
        };
        self.times(submitted, started);
        self.new.runtime_ref =
            Some(RuntimeRef { uid: uid.or_else(|| self.known_uid(reference)), ..reference.clone() }.to_status());
        if let Some(Submitted { digest, warning }) = plan {
            self.warn(warning);
            self.new.plan_digest = Some(digest);
        }
        match observation {
            Observation::Pending { cause, .. } => {
                let blocker = match cause {
                    Some(cause) => Blocker::hindrance(cause.reason, &cause.message, reference),
                    None => Blocker::hindrance(Reason::Starting, "handed to the runtime, not started yet", reference),
                };
                self.blocked(&[blocker]);
            }
            Observation::Running { .. } => {
                let last = self.attempt();
                last.phase = Some(Phase::Running);
                self.new.blocked_by.clear();
                self.say(Verdict::Running, Phase::Running, Reason::Running, "the provider is running");
            }
            Observation::Stopping | Observation::Lost | Observation::Finished(_) => {
                let phase = self.live_phase();
                let verdict = if phase == Phase::Running { Verdict::Running } else { Verdict::Pending };
                if phase == Phase::Running {
                    self.say(verdict, phase, Reason::Running, "what executes the attempt is being torn down");
                } else {
                    self.blocked(&[Blocker::hindrance(
                        Reason::Starting,
                        "what executes the attempt is being torn down",
                        reference,
                    )]);
                }
            }
        }
    }

    fn known_uid(&self, reference: &RuntimeRef) -> Option<String> {
        let known = self.old.runtime_ref.as_ref().filter(|known| known.name == reference.name.as_str())?;
        known.uid.clone()
    }

    fn times(&mut self, submitted: Option<Timestamp>, started: Option<Timestamp>) {
        let (submitted, started) = (submitted.map(whole_seconds), started.map(whole_seconds));
        let attempt = self.attempt();
        attempt.submitted_at = attempt.submitted_at.or(submitted);
        attempt.started_at = attempt.started_at.or(started);
        let (submitted, started) = (attempt.submitted_at, attempt.started_at);
        self.new.submitted_at = self.new.submitted_at.or(submitted);
        self.new.started_at = self.new.started_at.or(started);
    }

    /// When the first provider container started, as far as this change knows.
    pub(super) fn started_at(&self) -> Option<Timestamp> {
        self.new.started_at
    }

    /// Whether the attempt's start is written down by this change.
    pub(super) fn has_started_now(&self) -> bool {
        let started = |status: &AgentRunStatus| {
            status.attempts.last().and_then(|attempt| attempt.started_at.map(|_| attempt.number))
        };
        started(&self.new).is_some() && started(&self.new) != started(&self.old)
    }

    /// Writes down that we end the attempt, and since when.
    pub(super) fn stopping(&mut self, reason: Reason, message: &str) -> Timestamp {
        let at = whole_seconds(self.now);
        let attempt = self.attempt();
        attempt.stopping = Some(Stopping { reason: reason.as_str().to_owned(), at });
        let message = format!("stopping: {message}");
        if attempt.started_at.is_some() {
            self.new.blocked_by.clear();
            self.say(Verdict::Running, Phase::Running, reason, &message);
        } else {
            let blocker = Blocker { reason, object: None, message, unblocked_by: "its end".to_owned() };
            self.blocked(&[blocker]);
        }
        at
    }

    /// Writes down how the attempt ended, and gives its number.
    pub(super) fn finished(&mut self, reference: &RuntimeRef, outcome: &Outcome, plan: Option<Submitted>) -> i32 {
        let Outcome { ended, reason, message, submitted_at, started_at, finished_at, uid, exit_code, report } = outcome;
        self.times(*submitted_at, *started_at);
        let uid = uid.clone().or_else(|| self.known_uid(reference));
        self.new.runtime_ref = Some(RuntimeRef { uid, ..reference.clone() }.to_status());
        let attempt = self.attempt();
        let number = attempt.number;
        attempt.phase = Some(*ended);
        attempt.reason = Some(reason.as_str().to_owned());
        attempt.message = Some(cut(message, MAX_MESSAGE));
        attempt.finished_at = Some(whole_seconds(*finished_at));
        // The provider's own code where the runner could report it: the runner's differs for its own failures.
        attempt.exit_code = match report {
            Some(report) => report.exit_code,
            None => *exit_code,
        };
        attempt.signal = report.as_ref().and_then(|report| report.signal);
        attempt.usage = report.as_ref().and_then(|report| report.usage);
        self.new.blocked_by.clear();
        if let Some(report) = report {
            self.new.usage = match (self.new.usage, report.usage) {
                (None, None) => None,
                (a, b) => Some(Usage::plus(a.unwrap_or_default(), b.unwrap_or_default())),
            };
            self.new.outputs.clone_from(&report.outputs);
            self.new.vcs.clone_from(&report.vcs);
            self.new.runner = Some(RunnerStatus {
                provider: Some(report.provider.clone()),
                exit_code: report.exit_code,
                signal: report.signal,
                started_at: report.started_at.map(whole_seconds),
                finished_at: Some(whole_seconds(report.finished_at)),
                conversation: report.conversation.clone(),
                error: report.error.clone(),
                others: serde_json::Map::new(),
            });
        }
        let plan = plan.map(|Submitted { digest, warning }| {
            self.warn(warning);
            digest
        });
        let reported = report.as_ref().map(|report| report.plan_digest.clone()).filter(|digest| !digest.is_empty());
        if let Some(digest) = reported.or(plan) {
            self.new.plan_digest = Some(digest);
        }
        number
    }

    pub(super) fn terminal(&mut self, phase: Phase, reason: Reason, message: &str, at: Timestamp) {
        self.new.blocked_by.clear();
        self.new.finished_at = Some(whole_seconds(at));
        let verdict = match phase {
            Phase::Succeeded => Verdict::Succeeded,
            Phase::Cancelled => Verdict::Cancelled,
            Phase::Failed | Phase::Pending | Phase::Running | Phase::Template => Verdict::Failed,
        };
        self.say(verdict, phase, reason, message);
    }

    /// The Event that tells the end of the run.
    pub(super) fn notice(&self) -> Notice {
        Notice {
            warning: self.new.phase == Some(Phase::Failed),
            reason: self.reason,
            message: cut(&self.message, MAX_MESSAGE),
        }
    }

    /// A Plan that stores the status if it changed.
    pub(super) fn into_plan(self) -> Plan<AgentRunStatus> {
        let (old, new) = self.finish();
        let status = (new != old).then(|| Box::new(new));
        Plan { status, ..Plan::settled() }
    }

    /// A Plan that stores the status even if it is the stored one, to see whether it can be.
    pub(super) fn into_trial(self) -> Plan<AgentRunStatus> {
        Plan { status: Some(Box::new(self.finish().1)), ..Plan::settled() }
    }

    /// The status before and after.
    fn finish(mut self) -> (AgentRunStatus, AgentRunStatus) {
        let warning = self.warning.as_ref().map(|(reason, message)| (*reason, message.as_str()));
        let from = Conditions {
            verdict: self.verdict,
            reason: self.reason,
            message: &self.message,
            warning,
            generation: self.generation,
        };
        self.new.conditions = conditions(&from, &self.old.conditions, self.now);
        self.new.reason = Some(self.reason.as_str().to_owned());
        self.new.message = Some(cut(&self.message, 4096));
        self.new.observed_generation = self.generation;
        room::fit(&mut self.new);
        (self.old, self.new)
    }
}
