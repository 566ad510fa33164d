//! AgentRun: its snapshot from the caches, its effects to the adapters, its status to the API server.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRun, AgentRunStatus, ImplementationSpec, Kind, Resource, runtime::RuntimeKind},
    decide::{
        Confirm, Effect, Plan, Refusal,
        agent_run::{
            Observed, Remembered, RunSnapshot, Settings, current_attempt, current_ref, decide, open_attempt, ref_on,
        },
    },
    plan::Defaults,
    resolve::{Found, References},
    runtime::{Observation, Overdue, RuntimeRef},
    status::Reason,
};
use agents_runtime::{
    adapter::{Class, Grace, Registry},
    driver::{Failure, World},
};
use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    caches::Caches,
    failed_creates::{FailedCreates, look_again},
    found::{Finding, Findings},
    notices::{Notices, Regarding},
    pruned::Pruned,
    status_write,
    submitted::Submitted,
    unstored::{AttemptOf, Unrecorded},
};
use crate::{
    client::{ApiError, ApiErrorKind, Calls, OrAbsent, Target},
    lease::Tenure,
    object,
    runtime::{is_ours, observe, overdue},
    watch::{Key, Projection, Slot},
};

/// Runs as the Kubernetes API knows them.
#[derive(Debug)]
pub struct AgentRunWorld {
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
    /// The right to act, when there is an election.
    pub tenure: Option<Tenure>,
    /// Events.
    pub notices: Notices,
    /// What the installed definition does not store of a status.
    pub pruned: Pruned,
}

impl AgentRunWorld {
    /// The run, read consistently when it is in doubt or when `confirm` wants it and the cache's age is not proven.
    pub(super) async fn run(
        &self,
        key: &Key,
        confirm: Confirm,
    ) -> Result<Option<(Arc<Resource<AgentRun>>, bool)>, Failure> {
        let runs = &self.caches.runs;
        let fresh = runs.is_fresh();
        let cached = runs.get(key);
        let in_part = cached.as_ref().and_then(Slot::object).is_some_and(|run| run.metadata.left_out.is_some());
        if runs.is_doubtful(key) || (confirm.object && !fresh) || (confirm.whole && in_part) {
            let began = self.calls.clock().boot();
            let step = "read the run";
            let read = self
                .calls
                .get::<Resource<AgentRun>>(&Target::of::<object::AgentRun>(), step, &key.namespace, &key.name)
                .await;
            let read = read.or_absent().map_err(of_api)?;
            return Ok(runs.read_back(key, read, began).map(|run| (run, true)));
        }
        match cached {
            Some(Slot::Read(run)) => Ok(Some((run, fresh))),
            // The next change of one that cannot be read may be readable; the watch has told why it is not.
            None | Some(Slot::Unreadable(_)) => Ok(None),
        }
    }

    /// Reads the work item, when the cache holds only a part of it.
    pub(super) async fn read_whole(&self, references: &mut References) -> Result<(), Failure> {
        let Found::Object(work) = &references.implementation else { return Ok(()) };
        if work.metadata.left_out.is_none() {
            return Ok(());
        }
        let key = Key::new(&work.metadata.namespace, &work.metadata.name);
        let (target, began) = (Target::of::<object::ImplementationSpec>(), self.calls.clock().boot());
        let read =
            self.calls.get::<Resource<ImplementationSpec>>(&target, "read the work item", &key.namespace, &key.name);
        let read = read.await.or_absent().map_err(of_api)?;
        let found = self.caches.implementations.read_back(&key, read, began);
        references.implementation = found.map_or(Found::Absent, Found::Object);
        Ok(())
    }

    async fn observed(&self, reference: &RuntimeRef, confirm: Confirm) -> Result<Observed, Failure> {
        let adapter = self.adapters.get(reference.runtime);
        let pushed = adapter.is_none_or(|adapter| adapter.capabilities().pushes);
        match adapter {
            Some(adapter) if confirm.submission || !pushed => {
                let observation = adapter
                    .status(reference)
                    .await
                    .map_err(|error| Failure::of_adapter("observe the attempt", error))?;
                Ok(Observed { observation, consistent: true, kept: self.is_kept(reference) })
            }
            _ => Ok(Observed {
                observation: self.watched(reference),
                consistent: adapter.is_none(),
                kept: self.is_kept(reference),
            }),
        }
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

    /// What this replica remembers of the run, after it has seen `observation` of its current attempt.
    fn remembered(&self, key: &Key, run: &Resource<AgentRun>, observation: &Observation) -> Remembered {
        let attempt = attempt_of(run);
        if run.status.as_ref().and_then(open_attempt).is_some() {
            self.unrecorded.recorded(key);
        } else if *observation != Observation::Lost {
            self.unrecorded.seen(key, attempt.clone());
        }
        self.unrecorded.of(key, &attempt)
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
            | RuntimeKind::Custom => Observation::Lost,
        }
    }
}

fn attempt_of(run: &Resource<AgentRun>) -> AttemptOf {
    AttemptOf { uid: run.metadata.uid.clone(), attempt: current_attempt(run.status.as_ref()) }
}

fn key_of(run: &Resource<AgentRun>) -> Key {
    Key::new(&run.metadata.namespace, &run.metadata.name)
}

fn has_recorded_attempt(run: &Resource<AgentRun>) -> bool {
    run.status.as_ref().is_some_and(|status| !status.attempts.is_empty())
}

/// A leader whose time is over leaves the rest to the next one.
pub(super) fn may_act(tenure: Option<&Tenure>) -> Result<(), Failure> {
    if tenure.is_none_or(Tenure::may_act) {
        return Ok(());
    }
    Err(Failure {
        step: "act",
        class: Class::Retry,
        reason: Reason::RuntimeUnavailable,
        message: "the lease has run out".to_owned(),
        source: None,
    })
}

pub(super) fn of_api(error: ApiError) -> Failure {
    Failure {
        step: error.step,
        class: error.class,
        reason: Reason::RuntimeUnavailable,
        message: error.message.clone(),
        source: Some(Box::new(error)),
    }
}

#[async_trait]
impl World for AgentRunWorld {
    type Key = Key;
    type Snapshot = RunSnapshot;
    type Status = AgentRunStatus;

    async fn gather(&self, key: &Key, confirm: Confirm) -> Result<Option<RunSnapshot>, Failure> {
        let Some((run, object_proven)) = self.run(key, confirm).await? else {
            self.unrecorded.forget(key);
            self.decided(key);
            self.submitted.forget(key);
            self.findings.forget(key);
            return Ok(None);
        };
        // Every run is asked for again once Jobs and pods are listed; what was never submitted need not wait for them.
        if has_recorded_attempt(&run) && !self.caches.executions_are_synced() {
            return Ok(None);
        }
        let mut references = self.caches.references(&run);
        if confirm.whole {
            self.read_whole(&mut references).await?;
        }
        let usual = current_ref(&run, &references, &self.settings);
        let found_on = self.found_elsewhere(&run, usual.runtime);
        let mut reference = found_on.map_or(usual, |runtime| ref_on(&run, runtime));
        if reference.uid.is_none() {
            reference.uid = self.submitted.uid_of(key, &reference);
        }
        let mut observed = self.observed(&reference, confirm).await?;
        let mut in_doubt = None;
        if reference.uid.is_none() && observed.observation != Observation::Lost {
            match self.found(key, &run, &references, &reference).await? {
                Finding::Ours => {}
                Finding::Stranger => observed.observation = Observation::Lost,
                // Should it vanish, it is taken for what was handed over.
                Finding::InDoubt(why) => in_doubt = Some(why),
            }
        }
        if let Observation::Pending { cause: cause @ None, .. } = &mut observed.observation
            && let Some((job, pods)) =
                self.caches.job_and_pods(&Key::new(&reference.namespace, reference.name.as_str()))
            && pods.is_empty()
        {
            *cause = self.failed_creates.of(&job).await;
        }
        let blind_since = *self.blind_since.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = self.remembered(key, &run, &observed.observation);
        let overdue = observed.observation.is_live().then(|| self.overdue(&reference)).flatten();
        Ok(Some(RunSnapshot {
            run,
            object_proven,
            references,
            observed,
            overdue,
            in_doubt,
            found_on,
            blind_since,
            remembered,
        }))
    }

    fn decide(&self, snapshot: &RunSnapshot, refusal: Option<&Refusal>, now: Timestamp) -> Plan<AgentRunStatus> {
        let mut plan = decide(snapshot, &self.settings, refusal, now);
        if let Some(adapter) = self.adapters.get(snapshot.reference(&self.settings).runtime) {
            adapter.capabilities().add_poll(&mut plan, &snapshot.observed.observation, now);
        }
        look_again(&mut plan, &snapshot.observed.observation, now);
        if plan.confirm == Confirm::NOTHING && plan.status.is_none() {
            self.decided(&key_of(&snapshot.run));
        }
        plan
    }

    async fn perform(&self, snapshot: &RunSnapshot, effect: &Effect) -> Result<(), Failure> {
        let adapter_of = |runtime: RuntimeKind| {
            self.adapters.get(runtime).ok_or_else(|| Failure {
                step: "find the adapter",
                class: Class::WaitForChange,
                reason: Reason::RuntimeNotConfigured,
                message: format!("no adapter for the runtime {runtime}"),
                source: None,
            })
        };
        may_act(self.tenure.as_ref())?;
        match effect {
            Effect::Submit(submission) => {
                let submitted = adapter_of(submission.runtime)?.submit(submission).await;
                let reference = submitted.map_err(|error| Failure::of_adapter("submit the attempt", error))?;
                let key = key_of(&snapshot.run);
                self.submitted.remember(&key, &reference, reference.uid.as_deref());
                let plan_digest = submission.spec.plan_digest.clone();
                self.unrecorded.handed_over(&key, attempt_of(&snapshot.run), plan_digest);
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
            Effect::Emit(notice) => {
                let run = &snapshot.run.metadata;
                tracing::info!(
                    agentRun.uid = run.uid, agentRun.name = run.name, agentRun.namespace = run.namespace,
                    reason = %notice.reason, message = notice.message, "told"
                );
                let regarding = Regarding { namespace: &run.namespace, name: &run.name, uid: &run.uid };
                self.notices.tell(&regarding, notice, self.now());
                Ok(())
            }
        }
    }

    async fn store(&self, snapshot: &RunSnapshot, status: &AgentRunStatus) -> Result<(), Failure> {
        may_act(self.tenure.as_ref())?;
        let meta = &snapshot.run.metadata;
        let key = Key::new(&meta.namespace, &meta.name);
        if self.pruned.is_the_same(status, snapshot.run.status.as_ref()) {
            self.unrecorded.stored(&key);
            self.decided(&key);
            return Ok(());
        }
        let began = self.calls.clock().boot();
        let api_version = object::AgentRun::api_version();
        let body = status_write::body(&api_version, AgentRun::KIND, snapshot.run.identity(), status);
        let step = "store the status";
        let stored = self
            .calls
            .replace_status::<Resource<AgentRun>>(
                &Target::of::<object::AgentRun>(),
                step,
                &key.namespace,
                &key.name,
                &body,
            )
            .await;
        match stored {
            Ok(run) => {
                if open_attempt(status)
                    .is_none_or(|_| status.runtime_ref.as_ref().is_some_and(|known| known.uid.is_some()))
                {
                    self.submitted.forget(&key);
                }
                self.pruned.learn(status, run.status.as_ref());
                self.caches.runs.wrote(run, meta.resource_version.as_deref(), began);
                self.unrecorded.stored(&key);
                self.decided(&key);
                Ok(())
            }
            // Deleted meanwhile: there is nothing left to be true about.
            Err(error) if error.is_not_found() => {
                self.submitted.forget(&key);
                Ok(())
            }
            Err(error) => {
                if error.leaves_doubt() {
                    self.caches.runs.doubt(key.clone());
                }
                if error.kind != ApiErrorKind::Conflict {
                    self.unrecorded.unstored(&key, &error);
                }
                Err(of_api(error))
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.calls.clock().now()
    }
}
