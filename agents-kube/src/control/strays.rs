//! What lives although no run wants it: Jobs and pods of runs that have ended, are gone, or have gone on to another
//! attempt. A create that lands late, a status that somebody wrote and a Job deleted without its pods leave such.
//!
//! Caches say what may be a stray, and cost nothing: an ordinary end is over, or is being deleted, by the time that
//! anybody looks. What still lives after the wait for ordinary races is confirmed by one read of the run, and of the
//! Job, and then ended as an attempt is. ConfigMaps need no care here: their owner is the run, and Kubernetes collects
//! them with it.
//!
//! A Job that was kept as the record of an attempt is one too once its run says what became of the attempt: letting it go
//! follows that status, and may have failed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRun, Kind, runtime::RuntimeKind},
    decide::{
        Confirm, Effect, Plan, Refusal,
        agent_run::{current_attempt, forced_after, is_finished},
    },
    mutant::{self, Mutant},
    name::SubmissionKey,
    runtime::RuntimeRef,
    status::{after, seconds},
};
use agents_runtime::{
    adapter::{Grace, Registry},
    driver::{Failure, World},
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    cached::Cached,
    caches::Caches,
    world::{may_act, of_api},
};
use crate::{
    client::{Calls, OrAbsent, Target},
    lease::Tenure,
    object,
    runtime::{JobView, PodView, has_ended, is_ours, observe},
    watch::{Key, Slot},
};

/// How long something is left alone that no run seems to want: its run's own event may still be on its way, and so may
/// the deletion of what belongs to a run that was deleted. In seconds.
const RACE_SECONDS: i64 = 10;
/// How long something is left alone after a read that found it wanted, or after it was ended by force. In seconds.
const AGAIN_SECONDS: i64 = 300;

/// What may be a stray.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Id {
    /// A Job, with its pods.
    Job(Key),
    /// A pod whose Job is not there.
    Pod(Key),
}

/// Something that lives, or that is kept, and that no watched run wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    /// What it was submitted as, with the uid of its Job.
    reference: RuntimeRef,
    /// Name of its run.
    run: String,
    attempt: i32,
    /// Whether its Job's pods can be read through the adapter.
    has_job: bool,
    /// Whether nothing of it lives and its Job stays, as the record of the attempt, until it is let go.
    is_record: bool,
    /// When it is out of time, if its deletion was asked for.
    ending: Option<Ending>,
}

/// A deletion that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// At this time.
    Since(Timestamp),
    /// Its pods are not being deleted yet.
    Unknown,
}

/// What the API server says of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// There is none of that name and uid.
    Gone,
    /// It has ended.
    Ended,
    /// It goes on with this attempt, or one that cannot be read.
    GoesOn { attempt: Option<i32> },
}

impl Said {
    fn wants(&self, attempt: i32) -> bool {
        match self {
            Self::Gone | Self::Ended => false,
            Self::GoesOn { attempt: current } => current.is_none_or(|current| attempt >= current),
        }
    }
}

/// The little that is read of a run: what it says of itself must be readable whatever else is not.
#[derive(Debug, Deserialize)]
struct RunView {
    metadata: RunMetadata,
    #[serde(default)]
    status: Value,
}

#[derive(Debug, Deserialize)]
struct RunMetadata {
    uid: String,
}

impl RunView {
    fn said(&self, uid: &str) -> Said {
        if self.metadata.uid != uid {
            return Said::Gone;
        }
        if matches!(self.status["phase"].as_str(), Some("Succeeded" | "Failed" | "Cancelled")) {
            return Said::Ended;
        }
        let attempt = match self.status["attempts"].as_array().and_then(|attempts| attempts.last()) {
            None => Some(1),
            Some(last) => {
                let number = last["number"].as_i64().and_then(|number| i32::try_from(number).ok());
                number.map(|number| number.saturating_add(i32::from(last["finishedAt"].is_string())))
            }
        };
        Said::GoesOn { attempt }
    }
}

/// A stray and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    id: Id,
    stray: Stray,
    /// When it may be asked about.
    not_before: Timestamp,
    /// What its run says, once that was read.
    said: Option<Said>,
}

/// Leaves it alone, asks, or ends it.
fn decide(snapshot: &Snapshot, grace_seconds: u64, now: Timestamp) -> Plan<()> {
    let Snapshot { id: _, stray, not_before, said } = snapshot;
    if now < *not_before {
        return Plan { wake: Some(*not_before), ..Plan::settled() };
    }
    let again = |wait| Some(after(now, seconds(wait)));
    match said {
        _ if mutant::is_on(Mutant::LeavesTheEndedAlive) => Plan::settled(),
        None if stray.is_record => Plan::confirm(Confirm::object()),
        None => Plan::confirm(Confirm::object().and(Confirm::submission(stray.submission()))),
        Some(said) if said.wants(stray.attempt) => Plan { wake: again(AGAIN_SECONDS), ..Plan::settled() },
        Some(_) if stray.is_record => {
            let let_go = Effect::LetGo { reference: stray.reference.clone() };
            Plan { after: vec![let_go], wake: again(AGAIN_SECONDS), ..Plan::settled() }
        }
        Some(_) => {
            let wait = stray.wait_after_end(grace_seconds);
            let grace_seconds = if stray.ending.is_none() { grace_seconds } else { 0 };
            let cancel = Effect::Cancel { reference: stray.reference.clone(), grace_seconds };
            Plan { after: vec![cancel], wake: again(wait), ..Plan::settled() }
        }
    }
}

/// Whether the watched run wants this attempt of the run `uid` to live.
pub(super) fn is_wanted(watched: Option<&Slot<Cached>>, uid: &str, attempt: i32) -> bool {
    let Some(watched) = watched else { return false };
    match watched.object().and_then(|object| object.object::<AgentRun>()) {
        // Nobody knows what it wants.
        None => true,
        Some(run) => run.metadata.uid == uid && !is_finished(&run) && attempt >= current_attempt(run.status.as_ref()),
    }
}

impl Stray {
    /// The Job and its pods, if something of it lives or it is kept.
    pub(super) fn of_job(job: &JobView, pods: &[Arc<PodView>]) -> Option<Self> {
        let (owner, attempt) = (job.owner.as_ref()?, job.attempt?);
        // What goes by another name was submitted by nobody of us.
        let reference = reference(&job.namespace, &owner.name, &owner.uid, attempt, &job.uid)
            .filter(|reference| reference.name.as_str() == job.name && is_ours(job, &owner.uid) && job.marks.agree())?;
        let lives = observe(&owner.uid, None, Some(job), pods.iter().map(AsRef::as_ref)).is_live();
        let is_record = !lives && job.kept && !job.deleting;
        if !lives && !is_record {
            return None;
        }
        let asked = pods.iter().filter(|pod| !has_ended(pod)).filter_map(|pod| pod.deletion_asked).min();
        let ending = match (job.deleting, asked) {
            (_, Some(asked)) => Some(Ending::Since(asked)),
            (true, None) => Some(Ending::Unknown),
            (false, None) => None,
        };
        Some(Self { reference, run: owner.name.clone(), attempt, has_job: true, is_record, ending })
    }

    /// A pod without its Job, if it lives.
    pub(super) fn of_pod(pod: &PodView) -> Option<Self> {
        let job_uid = pod.job_uid.as_deref().or(pod.cut_off_from.as_deref())?;
        let (run, uid, attempt) = (pod.run.as_deref()?, pod.run_uid.as_deref()?, pod.attempt?);
        let reference = reference(&pod.namespace, run, uid, attempt, job_uid).filter(|_| !has_ended(pod))?;
        let ending = pod.deletion_asked.map(Ending::Since);
        Some(Self { reference, run: run.to_owned(), attempt, has_job: false, is_record: false, ending })
    }

    /// Its run.
    pub(super) fn run(&self) -> Key {
        Key::new(&self.reference.namespace, &self.run)
    }

    /// Its Job, there or not.
    pub(super) fn job(&self) -> Key {
        Key::new(&self.reference.namespace, self.reference.name.as_str())
    }

    pub(super) fn run_uid(&self) -> &str {
        &self.reference.owner_uid
    }

    /// Which submission it is.
    fn submission(&self) -> SubmissionKey {
        SubmissionKey::of_attempt(self.run_uid(), self.attempt)
    }

    pub(super) fn job_uid(&self) -> Option<&str> {
        self.reference.uid.as_deref()
    }

    pub(super) fn attempt(&self) -> i32 {
        self.attempt
    }

    /// When it may be asked about, if it was noticed now.
    fn first_look(&self, grace_seconds: u64, now: Timestamp) -> Timestamp {
        match self.ending {
            None => after(now, seconds(RACE_SECONDS)),
            // Pods that are being deleted have their own grace.
            Some(Ending::Since(asked)) => after(asked, seconds(forced_after(grace_seconds))),
            Some(Ending::Unknown) => after(now, seconds(forced_after(grace_seconds))),
        }
    }

    /// How long it has once its end was asked for, in seconds.
    fn wait_after_end(&self, grace_seconds: u64) -> i64 {
        if self.ending.is_none() { forced_after(grace_seconds) } else { AGAIN_SECONDS }
    }
}

fn reference(namespace: &str, run: &str, run_uid: &str, attempt: i32, job_uid: &str) -> Option<RuntimeRef> {
    let key = SubmissionKey::of_attempt(run_uid, attempt);
    let reference = RuntimeRef::of(RuntimeKind::Job, namespace, run, &key);
    (attempt > 0).then(|| RuntimeRef { uid: Some(job_uid.to_owned()), ..reference })
}

/// What is remembered of something until it is no stray any more.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// Whether its deletion is reckoned with in the time.
    ending: bool,
    not_before: Timestamp,
}

/// Strays as the Kubernetes API knows them.
#[derive(Debug)]
pub(crate) struct StrayWorld {
    calls: Calls,
    caches: Arc<Caches>,
    adapters: Registry,
    grace_seconds: u64,
    tenure: Option<Tenure>,
    /// What may be a stray, and when it may be asked about.
    suspects: Mutex<HashMap<Id, Suspect>>,
}

impl StrayWorld {
    /// Looks through `caches`; ends through `adapters` with this grace.
    pub(crate) fn new(
        calls: Calls,
        caches: Arc<Caches>,
        adapters: Registry,
        grace_seconds: u64,
        tenure: Option<Tenure>,
    ) -> Self {
        Self { calls, caches, adapters, grace_seconds, tenure, suspects: Mutex::default() }
    }

    /// A panic while the lock was held leaves at most one time out, which only makes the next wait longer.
    fn suspects(&self) -> MutexGuard<'_, HashMap<Id, Suspect>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it may be asked about: a deletion that began since it was noticed has its own time.
    fn not_before(&self, id: &Id, stray: &Stray) -> Timestamp {
        let look = stray.first_look(self.grace_seconds, self.now());
        let mut suspects = self.suspects();
        let suspect =
            suspects.entry(id.clone()).or_insert(Suspect { ending: stray.ending.is_some(), not_before: look });
        if stray.ending.is_some() && !suspect.ending {
            *suspect = Suspect { ending: true, not_before: look.max(suspect.not_before) };
        }
        suspect.not_before
    }

    fn leave_until(&self, id: &Id, not_before: Timestamp) {
        self.suspects().insert(id.clone(), Suspect { ending: true, not_before });
    }

    async fn ask(&self, stray: &Stray) -> Result<Said, Failure> {
        let run = stray.run();
        let step = "read the run of what may be a stray";
        let read = self.calls.get::<RunView>(&Target::of::<object::AgentRun>(), step, &run.namespace, &run.name).await;
        let read = read.or_absent().map_err(of_api)?;
        Ok(read.map_or(Said::Gone, |run| run.said(stray.run_uid())))
    }
}

#[async_trait]
impl World for StrayWorld {
    type Key = Id;
    type Snapshot = Snapshot;
    type Status = ();

    async fn gather(&self, id: &Id, confirm: &Confirm) -> Result<Option<Snapshot>, Failure> {
        let Some(adapter) = self.adapters.get(RuntimeKind::Job) else { return Ok(None) };
        let Some(mut stray) = self.caches.stray(id) else {
            self.suspects().remove(id);
            return Ok(None);
        };
        let said = if confirm.object { Some(self.ask(&stray).await?) } else { None };
        if confirm.submissions.contains(&stray.submission()) && stray.has_job {
            // What is read consistently is laid over the caches.
            adapter.status(&stray.reference).await.map_err(|error| Failure::of_adapter("observe a stray", error))?;
            match self.caches.stray(id) {
                Some(still) => stray = still,
                None => return Ok(None),
            }
        }
        let not_before = self.not_before(id, &stray);
        if said.as_ref().is_some_and(|said| said.wants(stray.attempt)) {
            self.leave_until(id, after(self.now(), seconds(AGAIN_SECONDS)));
        }
        Ok(Some(Snapshot { id: id.clone(), stray, not_before, said }))
    }

    fn decide(&self, snapshot: &Snapshot, _: &[Refusal], now: Timestamp) -> Plan<()> {
        decide(snapshot, self.grace_seconds, now)
    }

    async fn perform(&self, snapshot: &Snapshot, effect: &Effect) -> Result<(), Failure> {
        may_act(self.tenure.as_ref())?;
        match effect {
            Effect::Cancel { reference, grace_seconds } => {
                let Some(adapter) = self.adapters.get(reference.runtime) else { return Ok(()) };
                tracing::warn!(
                    job = %reference.name, job.uid = reference.uid, namespace = reference.namespace,
                    object.kind = AgentRun::KIND, object.uid = reference.owner_uid, grace_seconds, "it lives although no run wants it, and is ended"
                );
                let cancelled = adapter.cancel(reference, Grace(Duration::from_secs(*grace_seconds))).await;
                cancelled.map_err(|error| Failure::of_adapter("end a stray", error))?;
                let wait = snapshot.stray.wait_after_end(self.grace_seconds);
                self.leave_until(&snapshot.id, after(self.now(), seconds(wait)));
                Ok(())
            }
            Effect::LetGo { reference } => {
                let Some(adapter) = self.adapters.get(reference.runtime) else { return Ok(()) };
                // It has time: until then it costs no more than its place.
                self.leave_until(&snapshot.id, after(self.now(), seconds(AGAIN_SECONDS)));
                let let_go = adapter.keep(reference, false).await;
                let_go.map_err(|error| Failure::of_adapter("let a record be collected", error))
            }
            Effect::Submit(_) | Effect::Keep { .. } | Effect::Emit(_) => Ok(()),
        }
    }

    async fn store(&self, _: &Snapshot, (): &()) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.calls.clock().now()
    }
}

#[cfg(test)]
mod tests;
