//! AgentRun: from its snapshot to what to do now.
//!
//! A run folds over its submissions, each of which goes through the table of [`submission`]: today that is the current
//! attempt. [`mod@start`] hands one over, [`outcome`] judges a finished one, [`record`] writes the status, [`retry`] says when
//! the next one may start, [`overdue`] what becomes of one whose node says nothing.

mod outcome;
mod overdue;
mod record;
mod retry;
mod room;
mod start;
mod submission;
#[cfg(test)]
mod tests;
mod unstored;
mod warning;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use self::{
    outcome::Outcome,
    record::{Blocker, Record, Submitted, Warning},
    start::submission_of,
    submission::{Recorded, Step, Unwanted, step},
    warning::warning,
};
pub use self::{
    room::{MAX_OBJECT_BYTES, STATUS_ROOM_BYTES, no_room},
    submission::Sighting,
    unstored::Unstored,
};
use super::{Confirm, Effect, Notice, Plan, Refusal, rules::Decide};
use crate::{
    api::{
        AgentRun, AgentRunStatus, Resource,
        agent_run::{Attempt, Phase, Stopping},
        runtime::RuntimeKind,
    },
    marks::ANNOTATION_TEMPLATE,
    mutant::{self, Mutant},
    name::SubmissionKey,
    plan::{self, Defaults},
    policy,
    resolve::{References, resolve, terms::Terms},
    runtime::{Observation, RuntimeRef, Submission},
    status::{Reason, after, seconds},
};

impl Decide for AgentRun {
    const EXECUTED: bool = true;
}

/// A pending submission of which the runtime names no cause earns a status write only after this time, in seconds: a
/// start that takes so long needs a word. Until then the phase is right without a write.
const SLOW_START_SECONDS: i64 = 300;
/// Time between two looks at something that another party has to cure, in seconds.
const RECHECK_SECONDS: i64 = 30;
/// Time the runtime has beyond grace before an attempt is ended by force, in seconds.
const FORCE_AFTER_SECONDS: i64 = 30;
/// Time the runner has beyond its deadline and grace to report by itself, in seconds.
const DEADLINE_SLACK_SECONDS: i64 = 70;

/// How long what was asked to end has until it is ended by force, in seconds.
pub fn forced_after(grace_seconds: u64) -> i64 {
    grace_and(grace_seconds, FORCE_AFTER_SECONDS)
}

fn grace_and(grace_seconds: u64, more: i64) -> i64 {
    i64::try_from(grace_seconds).unwrap_or(i64::MAX).saturating_add(more)
}

/// What the engine is configured to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What is filled in where nobody said anything.
    pub defaults: Defaults,
    /// Runtime of a run that names none.
    pub default_runtime: RuntimeKind,
    /// Runtime of every run, whatever it names; the local engine has only one.
    pub only_runtime: Option<RuntimeKind>,
    /// Runtimes that have an adapter.
    pub runtimes: BTreeSet<RuntimeKind>,
    /// How long an image, a Secret or a container may fail before the attempt does, in seconds.
    pub start_limit_seconds: i64,
    /// Most that one object may take where it is stored, in bytes; `None` where nothing bounds it.
    pub max_object_bytes: Option<usize>,
    /// What runs may do. The service account of [`Defaults`] is allowed besides.
    pub policy: policy::Rules,
}

/// Everything a decision about a run depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSnapshot {
    /// The run.
    pub run: Arc<Resource<AgentRun>>,
    /// Whether the run is known to be young enough for an irreversible decision.
    pub object_proven: bool,
    /// What it refers to.
    pub references: References,
    /// What is known of its submissions; of one that is not here nothing is.
    pub submissions: BTreeMap<SubmissionKey, Sighting>,
    /// Start of a time, longer than results are kept, in which nobody looked after runs.
    pub blind_since: Option<Timestamp>,
    /// Why the status could not be stored the last time, although the run had not changed.
    pub unstored: Option<Unstored>,
}

/// What is known of a submission of which nobody has said anything.
static UNSEEN: Sighting = Sighting::cached(Observation::Lost);

impl RunSnapshot {
    /// Where nothing is cached: everything was read just now from what holds it, no other engine has ever looked after
    /// runs, and none of them is without its record.
    pub fn certain(run: Arc<Resource<AgentRun>>, references: References, observation: Observation) -> Self {
        let current = current_key(&run);
        Self {
            run,
            object_proven: true,
            references,
            submissions: [(current, Sighting::certain(observation))].into(),
            blind_since: None,
            unstored: None,
        }
    }

    /// What is known of the current attempt.
    pub fn current(&self) -> &Sighting {
        self.submissions.get(&current_key(&self.run)).unwrap_or(&UNSEEN)
    }

    /// The reference by which the current attempt was observed.
    pub fn reference(&self, settings: &Settings) -> RuntimeRef {
        match self.current().found_on {
            Some(runtime) => ref_on(&self.run, runtime),
            None => current_ref(&self.run, &self.references, settings),
        }
    }

    /// Whether nothing is left out of the run and of what it refers to.
    pub fn is_whole(&self) -> bool {
        let work = self.references.implementation.object();
        self.run.metadata.left_out.is_none() && work.is_none_or(|work| work.metadata.left_out.is_none())
    }
}

/// The attempt that the status has recorded and that has not ended.
pub fn open_attempt(status: &AgentRunStatus) -> Option<&Attempt> {
    status.attempts.last().filter(|attempt| attempt.finished_at.is_none())
}

/// Number of the attempt that is under way or comes next.
pub fn current_attempt(status: Option<&AgentRunStatus>) -> i32 {
    match status.and_then(|status| status.attempts.last()) {
        None => 1,
        Some(last) if last.finished_at.is_none() => last.number,
        Some(last) => last.number.saturating_add(1),
    }
}

/// The key of that attempt.
pub fn current_key(run: &Resource<AgentRun>) -> SubmissionKey {
    SubmissionKey::of_attempt(&run.metadata.uid, current_attempt(run.status.as_ref()))
}

/// When the current attempt can have been handed over first, while the status does not record it: at the creation of
/// its run, or at the end of the wait after the attempt before. `None` when it is recorded, and when none can follow.
pub fn first_possible(run: &Resource<AgentRun>) -> Option<Timestamp> {
    match run.status.as_ref().and_then(|status| status.attempts.last()) {
        None => run.metadata.creation_timestamp,
        Some(last) => retry::start_of_next(run, last),
    }
}

/// The reference by which the current attempt is found.
pub fn current_ref(run: &Resource<AgentRun>, references: &References, settings: &Settings) -> RuntimeRef {
    ref_on(run, runtime_of(run, references, settings))
}

/// The same on another runtime. Once the attempt is recorded, it is the object with the recorded uid and no other.
pub fn ref_on(run: &Resource<AgentRun>, runtime: RuntimeKind) -> RuntimeRef {
    let reference = RuntimeRef::of(runtime, &run.metadata.namespace, &run.metadata.name, &current_key(run));
    let recorded = run.status.as_ref().filter(|status| open_attempt(status).is_some());
    let recorded = recorded.and_then(|status| status.runtime_ref.as_ref());
    let uid = recorded
        .filter(|recorded| recorded.kind == runtime && recorded.name == reference.name.as_str())
        .and_then(|recorded| recorded.uid.clone());
    RuntimeRef { uid, ..reference }
}

/// What the current attempt of a run is submitted as, if it were submitted now; `None` when it could not be. Its time
/// limit is the whole one.
pub fn expected(run: &Resource<AgentRun>, references: &References, settings: &Settings) -> Option<Submission> {
    let resolved = resolve(run, references).ok()?;
    let plan = plan::plan(&resolved, &settings.defaults).ok()?;
    let timeout = resolved.terms.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let runtime = runtime_of(run, references, settings);
    Some(submission_of(&resolved, plan, runtime, current_attempt(run.status.as_ref()), timeout))
}

fn runtime_of(run: &Resource<AgentRun>, references: &References, settings: &Settings) -> RuntimeKind {
    let recorded = run
        .status
        .as_ref()
        .filter(|status| open_attempt(status).is_some())
        .and_then(|status| status.runtime_ref.as_ref())
        .map(|reference| reference.kind);
    let named = || Terms::of(run, references.agent.object()).runtime;
    match settings.only_runtime.or(recorded).or_else(named).unwrap_or(settings.default_runtime) {
        // Without steps, which are looked at before anything starts, a workflow is one Job.
        RuntimeKind::Workflow => RuntimeKind::Job,
        other => other,
    }
}

/// Whether the run has reached a phase that never changes again.
pub fn is_finished(run: &Resource<AgentRun>) -> bool {
    run.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_terminal)
}

/// Decides what to do about a run.
pub fn decide(
    snapshot: &RunSnapshot,
    settings: &Settings,
    refused: &[Refusal],
    now: Timestamp,
) -> Plan<AgentRunStatus> {
    let run = &snapshot.run;
    if is_finished(run) {
        return Plan::settled();
    }
    let sighting = snapshot.current();
    // A run that is under way stays one: as a template nobody would follow its attempt any more.
    let untouched = current_attempt(run.status.as_ref()) == 1 && sighting.observation == Observation::Lost;
    if untouched && run.metadata.annotations.get(ANNOTATION_TEMPLATE).is_some_and(|value| value == "true") {
        let mut record = Record::new(run, now);
        record.template();
        return record.into_plan();
    }
    let decision = Decision { snapshot, sighting, settings, refused, now, planned: OnceCell::new() };
    decision.with_its_record(decision.by_submission())
}

/// The arguments of one decision.
struct Decision<'a> {
    snapshot: &'a RunSnapshot,
    /// What is known of the current attempt besides what the status has recorded of it.
    sighting: &'a Sighting,
    settings: &'a Settings,
    refused: &'a [Refusal],
    now: Timestamp,
    /// What was planned in this decision: rendering is what costs most of it, and is done once.
    planned: OnceCell<Option<Submitted>>,
}

impl Decision<'_> {
    fn run(&self) -> &Resource<AgentRun> {
        &self.snapshot.run
    }

    fn terms(&self) -> Terms {
        Terms::of(self.run(), self.snapshot.references.agent.object())
    }

    /// Nothing to do before the runtime itself was asked about the current attempt.
    fn confirm(&self) -> Plan<AgentRunStatus> {
        Plan::confirm(Confirm::submission(current_key(self.run())))
    }

    /// The current attempt, when the status has recorded it.
    fn recorded(&self) -> Option<&Attempt> {
        open_attempt(self.run().status.as_ref()?)
    }

    /// Where the attempt is; of what lives the very object.
    fn reference(&self) -> RuntimeRef {
        let reference = self.snapshot.reference(self.settings);
        let seen = match &self.sighting.observation {
            Observation::Pending { uid, .. } | Observation::Running { uid, .. } => uid.clone(),
            Observation::Lost | Observation::Stopping | Observation::Finished(_) => None,
        };
        RuntimeRef { uid: reference.uid.or(seen), ..reference }
    }

    fn record(&self) -> Record {
        Record::new(self.run(), self.now)
    }

    fn by_submission(&self) -> Plan<AgentRunStatus> {
        let recorded = match self.recorded().map(|attempt| attempt.stopping.as_ref()) {
            Some(Some(stopping)) => Recorded::Ending(stopping),
            Some(None) => Recorded::UnderWay,
            None if self.was_handed_over() => Recorded::HandedOver,
            None => Recorded::Nothing,
        };
        match step(self.sighting.seen(|| self.unwanted()), recorded) {
            Step::Hold(doubt) => {
                let again = after(self.now, seconds(RECHECK_SECONDS));
                self.block(&[Blocker::in_doubt(doubt)], None, Some(again))
            }
            Step::Confirm => self.confirm(),
            Step::Start => self.not_submitted(),
            Step::Follow => self.follow(),
            Step::Stop((reason, why)) => self.stop(reason, &why),
            Step::StopAgain(stopping) => self.stop_again(stopping),
            Step::Lost => self.end(&Outcome::lost(self.now)),
            Step::Stopped(stopping, finish) => self.end(&Outcome::stopped(stopping, finish, self.now)),
            Step::Judge(finish) => {
                self.end(&Outcome::judge(finish, self.run(), current_attempt(self.run().status.as_ref())))
            }
        }
    }

    /// Whether this engine handed the attempt over or saw it, although the status does not say so: then it is gone, and
    /// is not started again.
    fn was_handed_over(&self) -> bool {
        self.sighting.handed_over && !mutant::is_on(Mutant::ResubmitsUnrecorded)
    }

    /// Why the run should end although its attempt lives.
    fn unwanted(&self) -> Option<Unwanted> {
        if let Some(wanted) = self.user_wants_to_stop() {
            return Some(wanted);
        }
        if let Some(deadline) = self.deadline()
            && self.now >= after(deadline, self.deadline_slack())
        {
            return Some((Reason::DeadlineExceeded, "the runner did not report within its deadline".to_owned()));
        }
        if let Observation::Pending { cause: Some(cause), .. } = &self.sighting.observation
            && cause.reason.is_bounded()
            && self.now
                >= after(self.hindered_since(cause.reason, cause.since), seconds(self.settings.start_limit_seconds))
        {
            return Some((cause.reason, cause.message.clone()));
        }
        None
    }

    fn user_wants_to_stop(&self) -> Option<Unwanted> {
        let run = self.run();
        if run.metadata.deletion_timestamp.is_some() {
            Some((Reason::Deleted, "the run is being deleted".to_owned()))
        } else if run.spec.cancel == Some(true) {
            Some((Reason::Cancelled, "spec.cancel is true".to_owned()))
        } else {
            None
        }
    }

    /// When the time of a run that has started is over.
    fn deadline(&self) -> Option<Timestamp> {
        let started = self.run().status.as_ref()?.started_at?;
        self.terms().deadline(started)
    }

    fn deadline_slack(&self) -> jiff::SignedDuration {
        seconds(grace_and(self.settings.defaults.grace_seconds, DEADLINE_SLACK_SECONDS))
    }

    /// The time a hindrance was recorded first: a runtime's own time may start anew with every look.
    fn hindered_since(&self, reason: Reason, said: Timestamp) -> Timestamp {
        let blocked = self.run().status.iter().flat_map(|status| &status.blocked_by);
        blocked.filter(|entry| entry.reason == reason.as_str()).map(|entry| entry.since).fold(said, Timestamp::min)
    }

    /// Ends a live attempt: first the intent is stored, then the runtime is told, again and again until it is gone.
    fn stop(&self, reason: Reason, why: &str) -> Plan<AgentRunStatus> {
        if let Some(confirm) = self.unread() {
            return confirm;
        }
        let mut record = self.record();
        record.observed(&self.reference(), &self.sighting.observation, self.submitted());
        let since = record.stopping(reason, why);
        self.told_to_end(since, record.into_plan())
    }

    /// The same of an attempt whose intent is stored.
    fn stop_again(&self, stopping: &Stopping) -> Plan<AgentRunStatus> {
        match self.given_up(stopping) {
            Some(given_up) => given_up,
            None => self.told_to_end(stopping.at, self.still_stopping(stopping)),
        }
    }

    /// The Plan, with the word to the runtime of an attempt that is being ended `since` then.
    fn told_to_end(&self, since: Timestamp, mut plan: Plan<AgentRunStatus>) -> Plan<AgentRunStatus> {
        let cancel = |grace_seconds| Effect::Cancel { reference: self.reference(), grace_seconds };
        let patience = self.forced_at(since);
        if self.now >= patience {
            plan.after.push(cancel(0));
        } else if self.sighting.observation != Observation::Stopping {
            plan.after.push(cancel(self.settings.defaults.grace_seconds));
        }
        let again = after(self.now, seconds(RECHECK_SECONDS));
        plan.wake = Some(if self.now < patience { patience.min(again) } else { again });
        plan
    }

    /// When an attempt that is being ended `since` then is ended by force.
    fn forced_at(&self, since: Timestamp) -> Timestamp {
        after(since, seconds(forced_after(self.settings.defaults.grace_seconds)))
    }

    /// Records what a live attempt does.
    fn follow(&self) -> Plan<AgentRunStatus> {
        let observation = &self.sighting.observation;
        let quiet_until = match observation {
            Observation::Pending { submitted_at, cause: None, .. } if self.recorded().is_none() => {
                Some(after(*submitted_at, seconds(SLOW_START_SECONDS)))
            }
            _ => None,
        };
        if let Some(until) = quiet_until
            && self.now < until
        {
            return Plan { wake: Some(until), ..Plan::settled() };
        }
        if let Some(confirm) = self.unread() {
            return confirm;
        }
        let mut record = self.record();
        record.observed(&self.reference(), observation, self.submitted());
        if let Some(blocker) = self.unended() {
            record.blocked(&[blocker]);
        }
        let (started, started_at) = (record.has_started_now(), record.started_at());
        let mut plan = record.into_plan();
        // Of a start that nobody was told to wait for, the status says enough, and so do the Events of the pod.
        if started && self.recorded().is_some() {
            plan.after.push(emit(Reason::Started, "the provider has started"));
        }
        let deadline = started_at
            .and_then(|started| self.terms().deadline(started))
            .map(|deadline| after(deadline, self.deadline_slack()));
        let start_limit = match observation {
            Observation::Pending { cause: Some(cause), .. } if cause.reason.is_bounded() => {
                Some(after(self.hindered_since(cause.reason, cause.since), seconds(self.settings.start_limit_seconds)))
            }
            _ => None,
        };
        plan.wake = [deadline, start_limit, self.overdue_at()].into_iter().flatten().min();
        plan
    }

    /// What was submitted: as this engine remembers it, else as it would be planned now. That is what it was unless a
    /// reference changed since, and the runner's report corrects the digest in that case. `None` once a digest is
    /// recorded: resolving and rendering it again would change nothing.
    fn submitted(&self) -> Option<Submitted> {
        if self.run().status.as_ref().is_some_and(|status| status.plan_digest.is_some()) {
            return None;
        }
        let planned = || {
            let resolved = resolve(self.run(), &self.snapshot.references).ok()?;
            let digest = match &self.sighting.plan_digest {
                Some(handed_over) => handed_over.clone(),
                None => plan::plan(&resolved, &self.settings.defaults).ok()?.digest,
            };
            Some(Submitted { digest, warning: warning(&resolved) })
        };
        self.planned.get_or_init(planned).clone()
    }

    /// What [`Self::submitted`] would plan is planned from whole objects: caches leave out what is long.
    fn unread(&self) -> Option<Plan<AgentRunStatus>> {
        let planned = self.run().status.as_ref().is_some_and(|status| status.plan_digest.is_some());
        let wanted = !planned && !self.snapshot.is_whole() && resolve(self.run(), &self.snapshot.references).is_ok();
        wanted.then(|| Plan::confirm(Confirm::whole()))
    }

    /// Ends an attempt, and the run with it unless another attempt follows.
    fn end(&self, outcome: &Outcome) -> Plan<AgentRunStatus> {
        if let Some(confirm) = self.unread() {
            return confirm;
        }
        let mut record = self.record();
        let attempt = record.finished(&self.reference(), outcome, self.submitted());
        let Outcome { ended, reason, message, .. } = outcome;
        // A wish to stop that came while the attempt was ending by itself takes the place of a retry.
        let wanted = self.user_wants_to_stop();
        match (ended, wanted) {
            (Phase::Succeeded, _) => record.terminal(Phase::Succeeded, *reason, message, outcome.finished_at),
            (Phase::Cancelled, _) => record.terminal(Phase::Cancelled, *reason, message, outcome.finished_at),
            (_, Some((wanted, why))) => record.terminal(Phase::Cancelled, wanted, &why, outcome.finished_at),
            (_, None) => match retry::next(&self.terms(), attempt, outcome, record.started_at()) {
                Ok(start) => {
                    record.blocked(&[Blocker::backoff(attempt, *reason, message, start)]);
                    let mut plan = record.into_plan();
                    plan.after.push(warn(*reason, &format!("attempt {attempt}: {message}")));
                    plan.wake = Some(start);
                    return plan;
                }
                Err(no_more) => {
                    let message = match no_more {
                        Some(why) => format!("{message}; {why}"),
                        None => message.clone(),
                    };
                    record.terminal(Phase::Failed, *reason, &message, outcome.finished_at);
                }
            },
        }
        told(record)
    }
}

/// A Plan that stores the end of a run and tells it.
fn told(record: Record) -> Plan<AgentRunStatus> {
    let notice = record.notice();
    let mut plan = record.into_plan();
    plan.after.push(Effect::Emit(notice));
    plan
}

fn emit(reason: Reason, message: &str) -> Effect {
    Effect::Emit(Notice { warning: false, reason, message: message.to_owned() })
}

fn warn(reason: Reason, message: &str) -> Effect {
    Effect::Emit(Notice { warning: true, reason, message: message.to_owned() })
}
