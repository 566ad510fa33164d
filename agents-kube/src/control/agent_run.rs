//! AgentRun: what its decision depends on besides objects, its effects to the adapters, and what this replica remembers of
//! runs whose status does not say everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRun, AgentRunStatus, Kind, Resource, runtime::RuntimeKind},
    decide::{
        Confirm, Effect, Plan, Refusal,
        agent_run::{
            RunSnapshot, Settings, Sighting, current_key, current_ref, decide, is_finished, open_attempt, ref_on,
        },
    },
    id::{Id, Key},
    name::SubmissionKey,
    plan::Defaults,
    resolve::References,
    runtime::{Observation, Overdue, RuntimeRef},
    status::Reason,
};
use agents_runtime::{
    adapter::{Class, Grace, Registry},
    driver::Failure,
};
use jiff::Timestamp;

use super::{
    caches::Caches,
    failed_creates::{FailedCreates, look_again},
    found::{Finding, Findings},
    submitted::Submitted,
    unstored::Unrecorded,
};
use crate::{
    client::{ApiError, ApiErrorKind, Calls},
    runtime::{is_ours, observe, overdue},
    watch::Slot,
};

/// Runs as the Kubernetes API knows them.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Calls of this controller.
    pub calls: Calls,
    /// What is watched.
    pub caches: Arc<Caches>,
    /// What executes runs.
    pub adapters: Registry,
    /// How runs are decided.
    pub settings: Settings,
    /// Start of a time, longer than results are kept, in which nobody led; known once this replica leads.
    pub blind_since: Mutex<Option<Timestamp>>,
    /// Runs that this replica has not decided since it leads and has listed everything, and whose current attempt an
    /// earlier one may have handed over.
    pub undecided: Mutex<BTreeSet<Key>>,
    /// What their status does not say.
    pub unrecorded: Arc<Unrecorded>,
    /// Which Jobs are known to be the ones of attempts that no status has recorded yet.
    pub submitted: Submitted,
    /// What was found of Jobs that stand under an attempt's name.
    pub findings: Findings,
    /// What earlier leaders filled in where it differs from what this one does; known once this replica leads.
    pub former_defaults: Mutex<Vec<Defaults>>,
    /// Why Jobs have no pods.
    pub failed_creates: FailedCreates,
}

impl Runs {
    /// Everything that a decision about `run` depends on; `None` while that is not known.
    pub(super) async fn gather(
        &self,
        run: Arc<Resource<AgentRun>>,
        object_proven: bool,
        confirm: &Confirm,
    ) -> Result<Option<RunSnapshot>, Failure> {
        // Every run is asked for again once Jobs and pods are listed; what was never submitted need not wait for them.
        if has_recorded_attempt(&run) && !self.caches.executions_are_synced() {
            return Ok(None);
        }
        let key = &key_of(&run);
        if is_finished(&run) {
            return Ok(Some(self.finished(key, run, object_proven)));
        }
        let mut references = self.caches.kinds.references(&run);
        if confirm.whole {
            self.caches.kinds.read_whole(&self.calls, &mut references).await?;
        }
        let (current, sighting) = self.sighted(key, &run, &references, confirm).await?;
        let blind_since = *self.blind_since.lock().unwrap_or_else(PoisonError::into_inner);
        let unstored = self.unrecorded.unstored_of(key);
        let submissions = [(current, sighting)].into();
        Ok(Some(RunSnapshot { run, object_proven, references, submissions, blind_since, unstored }))
    }

    /// A run about which nothing is decided any more: nothing is looked up for it.
    fn finished(&self, key: &Key, run: Arc<Resource<AgentRun>>, object_proven: bool) -> RunSnapshot {
        self.caches.kinds.forget(&Id::new(AgentRun::KIND, key.clone()));
        self.unrecorded.settled(key);
        let (references, submissions) = (References::default(), BTreeMap::new());
        RunSnapshot { run, object_proven, references, submissions, blind_since: None, unstored: None }
    }

    /// What is known of the current attempt.
    async fn sighted(
        &self,
        key: &Key,
        run: &Arc<Resource<AgentRun>>,
        references: &References,
        confirm: &Confirm,
    ) -> Result<(SubmissionKey, Sighting), Failure> {
        let current = current_key(run);
        let usual = current_ref(run, references, &self.settings);
        let found_on = self.found_elsewhere(run, usual.runtime);
        let mut reference = found_on.map_or(usual, |runtime| ref_on(run, runtime));
        if reference.uid.is_none() {
            reference.uid = self.submitted.uid_of(key, &reference);
        }
        let mut sighting = self.observed(&reference, confirm.submissions.contains(&current)).await?;
        sighting.found_on = found_on;
        if reference.uid.is_none() && sighting.observation != Observation::Lost {
            match self.found(key, run, references, &reference).await? {
                Finding::Ours => {}
                Finding::Stranger => sighting.observation = Observation::Lost,
                // Should it vanish, it is taken for what was handed over.
                Finding::InDoubt(why) => sighting.in_doubt = Some(why),
            }
        }
        if let Observation::Pending { cause: cause @ None, .. } = &mut sighting.observation
            && let Some((job, pods)) =
                self.caches.job_and_pods(&Key::new(&reference.namespace, reference.name.as_str()))
            && pods.is_empty()
        {
            *cause = self.failed_creates.of(&job).await;
        }
        // Attempts follow one another: of those before nothing is left to be recorded.
        if run.status.as_ref().and_then(open_attempt).is_some() {
            self.unrecorded.settled(key);
        } else {
            self.unrecorded.keep_only(key, &current);
            if sighting.observation != Observation::Lost {
                self.unrecorded.seen(key, current.clone());
            }
        }
        (sighting.handed_over, sighting.plan_digest) = self.unrecorded.handed_over_of(key, &current);
        sighting.overdue = sighting.observation.is_live().then(|| self.overdue(&reference)).flatten();
        Ok((current, sighting))
    }

    /// There is no such run any more, or none that can be read.
    pub(super) fn forget(&self, key: &Key) {
        self.unrecorded.forget(key);
        self.decided(key);
        self.submitted.forget(key);
        self.findings.forget(key);
    }

    /// What its runtime says, asked now if that is wanted or the only way.
    async fn observed(&self, reference: &RuntimeRef, wanted: bool) -> Result<Sighting, Failure> {
        let adapter = self.adapters.get(reference.runtime);
        let pushed = adapter.is_none_or(|adapter| adapter.capabilities().pushes);
        let sighting = match adapter {
            Some(adapter) if wanted || !pushed => {
                let observation = adapter
                    .status(reference)
                    .await
                    .map_err(|error| Failure::of_adapter("observe the attempt", error))?;
                Sighting::certain(observation)
            }
            Some(_) => Sighting::cached(self.watched(reference)),
            None => Sighting::certain(self.watched(reference)),
        };
        Ok(Sighting { kept: self.is_kept(reference), ..sighting })
    }

    /// Where an attempt was submitted that is not recorded yet, when that is not the `usual` place: the Agent may have
    /// been given another runtime since. Only what is watched is looked at.
    fn found_elsewhere(&self, run: &Resource<AgentRun>, usual: RuntimeKind) -> Option<RuntimeKind> {
        let watched = RuntimeKind::Job;
        if usual == watched || run.status.as_ref().and_then(open_attempt).is_some() {
            return None;
        }
        (self.watched(&ref_on(run, watched)) != Observation::Lost).then_some(watched)
    }

    /// Whether what executes the attempt stays until it is let go.
    fn is_kept(&self, reference: &RuntimeRef) -> bool {
        let key = Key::new(&reference.namespace, reference.name.as_str());
        let job = self.caches.jobs.get(&key);
        let job = job.as_ref().and_then(Slot::object).filter(|_| reference.runtime == RuntimeKind::Job);
        job.is_some_and(|job| job.kept && is_ours(job, &reference.owner_uid))
    }

    /// When what executes the attempt, and lives, was to have ended.
    fn overdue(&self, reference: &RuntimeRef) -> Option<Overdue> {
        let key = Key::new(&reference.namespace, reference.name.as_str());
        let (job, pods) = self.caches.job_and_pods(&key).filter(|_| reference.runtime == RuntimeKind::Job)?;
        overdue(&job, pods.iter().map(AsRef::as_ref))
    }

    /// Nothing of the run is left to be decided for the first time.
    fn decided(&self, key: &Key) {
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What the caches say.
    fn watched(&self, reference: &RuntimeRef) -> Observation {
        match reference.runtime {
            RuntimeKind::Job => {
                let key = Key::new(&reference.namespace, reference.name.as_str());
                let seen = self.caches.job_and_pods(&key);
                let (job, pods) = seen.as_ref().map_or((None, &[][..]), |(job, pods)| (Some(&**job), pods));
                observe(&reference.owner_uid, reference.uid.as_deref(), job, pods.iter().map(AsRef::as_ref))
            }
            RuntimeKind::Process
            | RuntimeKind::Workflow
            | RuntimeKind::Argo
            | RuntimeKind::Temporal
            | RuntimeKind::Custom
            | RuntimeKind::Other(_) => Observation::Lost,
        }
    }

    pub(super) fn decide(&self, snapshot: &RunSnapshot, refused: &[Refusal], now: Timestamp) -> Plan<AgentRunStatus> {
        let mut plan = decide(snapshot, &self.settings, refused, now);
        if let Some(adapter) = self.adapters.get(snapshot.reference(&self.settings).runtime) {
            adapter.capabilities().add_poll(&mut plan, &snapshot.current().observation, now);
        }
        look_again(&mut plan, &snapshot.current().observation, now);
        if plan.confirm.is_nothing() && plan.status.is_none() {
            self.decided(&key_of(&snapshot.run));
        }
        plan
    }

    /// Performs an effect on what executes the run.
    pub(super) async fn perform(&self, snapshot: &RunSnapshot, effect: &Effect) -> Result<(), Failure> {
        let adapter_of = |runtime: RuntimeKind| {
            self.adapters.get(runtime).ok_or_else(|| Failure {
                step: "find the adapter",
                class: Class::WaitForChange,
                reason: Reason::RuntimeNotConfigured,
                message: format!("no adapter for the runtime {runtime}"),
                source: None,
            })
        };
        match effect {
            Effect::Submit(submission) => {
                let submitted = adapter_of(submission.runtime)?.submit(submission).await;
                let reference = submitted.map_err(|error| Failure::of_adapter("submit the attempt", error))?;
                let key = key_of(&snapshot.run);
                self.submitted.remember(&key, &reference, reference.uid.as_deref());
                let plan_digest = submission.spec.plan_digest.clone();
                self.unrecorded.handed_over(&key, submission.key.clone(), plan_digest);
                Ok(())
            }
            Effect::Cancel { reference, grace_seconds } => {
                let grace = Grace(Duration::from_secs(*grace_seconds));
                let cancelled = adapter_of(reference.runtime)?.cancel(reference, grace).await;
                cancelled.map_err(|error| Failure::of_adapter("end the attempt", error))
            }
            Effect::Keep { reference } => {
                // The status is tried again in any case: where both are refused, the one may be cured alone.
                if let Err(error) = adapter_of(reference.runtime)?.keep(reference, true).await {
                    tracing::warn!(run = %key_of(&snapshot.run), %error, "what executes the attempt could not be kept");
                }
                Ok(())
            }
            Effect::LetGo { reference } => {
                let let_go = adapter_of(reference.runtime)?.keep(reference, false).await;
                let_go.map_err(|error| Failure::of_adapter("let the attempt be collected", error))
            }
            Effect::Emit(_) => Ok(()),
        }
    }

    /// The status says now what became of the attempts.
    pub(super) fn stored(&self, key: &Key, status: &AgentRunStatus) {
        let is_named = || status.runtime_ref.as_ref().is_some_and(|known| known.uid.is_some());
        if open_attempt(status).is_none_or(|_| is_named()) {
            self.submitted.forget(key);
        }
        self.stands(key);
    }

    /// The status says what was to be stored already.
    pub(super) fn stands(&self, key: &Key) {
        self.unrecorded.stored(key);
        self.decided(key);
    }

    /// The status could not be stored.
    pub(super) fn unstored(&self, key: &Key, error: &ApiError) {
        if error.kind != ApiErrorKind::Conflict {
            self.unrecorded.unstored(key, error);
        }
    }
}

fn key_of(run: &Resource<AgentRun>) -> Key {
    Key::new(&run.metadata.namespace, &run.metadata.name)
}

fn has_recorded_attempt(run: &Resource<AgentRun>) -> bool {
    run.status.as_ref().is_some_and(|status| !status.attempts.is_empty())
}
