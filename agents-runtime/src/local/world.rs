//! The world of the local engine: objects in memory, each run's record on disk, the process adapter beneath.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRun, AgentRunStatus, Meta, Resource, runtime::RuntimeKind},
    decide::{
        Confirm, Effect, Plan, Refusal,
        agent_run::{RunSnapshot, Settings, current_ref, decide, is_finished},
    },
    name::SubmissionKey,
    plan::{Bounds, Defaults},
    policy::Rules,
    resolve::References,
    runtime::{Observation, RuntimeRef},
    status::Reason,
};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use super::{
    Event,
    manifest::Manifests,
    places::RunFolder,
    stage::Stage,
    trouble::{Troubles, What},
};
use crate::{
    adapter::{Class, Grace, RuntimeAdapter},
    driver::{Failure, World},
    manifest::ObjectName,
    process::ProcessAdapter,
};

/// Time between TERM and KILL, in seconds: a person waits.
const GRACE_SECONDS: u64 = 10;
/// How long a start may fail before the attempt does, in seconds.
const START_LIMIT_SECONDS: i64 = 60;

/// A run and what belongs to it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: Arc<RunFolder>,
    pub(super) adapter: ProcessAdapter,
}

#[derive(Debug)]
pub(super) struct LocalWorld {
    manifests: Manifests,
    places: BTreeMap<ObjectName, Place>,
    runs: Mutex<BTreeMap<ObjectName, Resource<AgentRun>>>,
    settings: Settings,
    stage: Stage,
    troubles: Mutex<Troubles>,
    /// Told after every change of a run.
    pub(super) changed: Notify,
}

impl LocalWorld {
    pub(super) fn new(
        manifests: Manifests,
        runs: BTreeMap<ObjectName, (Resource<AgentRun>, Place)>,
        stage: Stage,
    ) -> Self {
        let (mut objects, mut places) = (BTreeMap::new(), BTreeMap::new());
        for (name, (run, place)) in runs {
            objects.insert(name.clone(), run);
            places.insert(name, place);
        }
        Self {
            manifests,
            places,
            runs: Mutex::new(objects),
            settings: Settings {
                defaults: Defaults {
                    image: String::new(),
                    runner_image: String::new(),
                    service_account: String::new(),
                    grace_seconds: GRACE_SECONDS,
                    // A process has no pod.
                    bounds: Bounds::none(),
                },
                default_runtime: RuntimeKind::Process,
                only_runtime: Some(RuntimeKind::Process),
                runtimes: BTreeSet::from([RuntimeKind::Process]),
                start_limit_seconds: START_LIMIT_SECONDS,
                max_object_bytes: None,
                policy: Rules::default(),
            },
            stage,
            troubles: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn names(&self) -> Vec<ObjectName> {
        self.places.keys().cloned().collect()
    }

    pub(super) fn place(&self, name: &ObjectName) -> Option<&Place> {
        self.places.get(name)
    }

    pub(super) fn run(&self, name: &ObjectName) -> Option<Resource<AgentRun>> {
        self.runs().get(name).cloned()
    }

    /// Where the attempt under way is found, or the one that comes next.
    pub(super) fn reference(&self, run: &Resource<AgentRun>) -> RuntimeRef {
        current_ref(run, &self.references(run), &self.settings)
    }

    /// Wants every run that has not ended to end.
    pub(super) fn cancel_all(&self) {
        for (name, run) in self.runs().iter_mut() {
            if is_finished(run) || run.spec.cancel == Some(true) {
                continue;
            }
            run.spec.cancel = Some(true);
            bump(run);
            if let Some(place) = self.places.get(name)
                && let Err(error) = place.folder.record(run)
            {
                // The wish holds in memory; only another engine would not know of it.
                tracing::warn!(run = name.1, error = &error as &dyn std::error::Error, "cannot record the cancel");
            }
        }
        self.changed.notify_waiters();
    }

    /// Ends everything that still lives, at once.
    pub(super) async fn kill_all(&self) {
        for name in self.names() {
            let (Some(run), Some(place)) = (self.run(&name), self.place(&name)) else { continue };
            if is_finished(&run) {
                continue;
            }
            if let Err(error) = place.adapter.cancel(&self.reference(&run), Grace(Duration::ZERO)).await {
                tracing::warn!(run = name.1, error = &error as &dyn std::error::Error, "cannot end the run by force");
            }
        }
    }

    /// Ends what is to end although that cannot be stored: a person waits for it. The adapter keeps a record of its own,
    /// and signals once however often it is asked.
    async fn cancel_unrecorded(&self, name: &ObjectName, run: &Resource<AgentRun>) {
        let (true, Some(place)) = (run.spec.cancel == Some(true), self.place(name)) else { return };
        let grace = Grace(Duration::from_secs(GRACE_SECONDS));
        if let Err(error) = place.adapter.cancel(&self.reference(run), grace).await {
            tracing::warn!(run = name.1, error = &error as &dyn std::error::Error, "cannot end the attempt");
        }
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Resource<AgentRun>>> {
        // Nothing is left half done under this lock.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn references(&self, run: &Resource<AgentRun>) -> References {
        References::of(run, &self.manifests)
    }

    pub(super) fn tell(&self, event: Event) {
        self.stage.tell(event);
    }

    pub(super) fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of the run lives, as its follower sees it.
    pub(super) fn seen(&self, name: &ObjectName, is_live: bool) {
        self.troubles().seen(name, is_live, Instant::now());
    }

    /// Whether the run is no longer waited for.
    pub(super) fn is_given_up(&self, name: &ObjectName) -> bool {
        self.troubles().is_given_up(name)
    }

    /// Notes that something is tried again, and says so the first time.
    fn in_trouble(&self, name: &ObjectName, what: What, message: &str) {
        let news = self.troubles().note(name, what, message, Instant::now());
        if let Some(text) = news {
            self.tell(Event::Remark(text));
        }
    }
}

#[async_trait]
impl World for LocalWorld {
    type Key = ObjectName;
    type Snapshot = RunSnapshot;
    type Status = AgentRunStatus;

    async fn gather(&self, key: &ObjectName, _: &Confirm) -> Result<Option<RunSnapshot>, Failure> {
        let (Some(run), Some(place)) = (self.run(key), self.place(key)) else {
            return Ok(None);
        };
        let references = self.references(&run);
        let observation = if is_finished(&run) {
            Observation::Lost
        } else {
            let reference = current_ref(&run, &references, &self.settings);
            match place.adapter.status(&reference).await {
                Ok(observation) => {
                    self.troubles().over(key, &What::Look);
                    observation
                }
                Err(error) => {
                    self.in_trouble(key, What::Look, &error.message);
                    return Err(Failure::of_adapter("read the attempt's state", error));
                }
            }
        };
        // Memory and the process adapter are the truth itself: there is no cache that could be behind.
        Ok(Some(RunSnapshot::certain(Arc::new(run), references, observation)))
    }

    fn decide(&self, snapshot: &RunSnapshot, refused: &[Refusal], now: Timestamp) -> Plan<AgentRunStatus> {
        decide(snapshot, &self.settings, refused, now)
    }

    async fn perform(&self, snapshot: &RunSnapshot, effect: &Effect) -> Result<(), Failure> {
        let meta = &snapshot.run.metadata;
        let key = (meta.namespace.clone(), meta.name.clone());
        let place = self.place(&key).ok_or_else(|| unknown("carry out the decision", &key))?;
        match effect {
            Effect::Submit(submission) => {
                if let Err(error) = place.adapter.submit(submission).await {
                    // What waits for a change is told as what the run waits for, and is not tried here.
                    if !matches!(error.class, Class::Terminal | Class::WaitForChange) {
                        self.in_trouble(&key, What::Start, &error.message);
                    }
                    return Err(Failure::of_adapter("start the attempt", error));
                }
                self.troubles().over(&key, &What::Start);
                self.changed.notify_waiters();
            }
            Effect::Cancel { reference, grace_seconds } => place
                .adapter
                .cancel(reference, Grace(Duration::from_secs(*grace_seconds)))
                .await
                .map_err(|error| Failure::of_adapter("end the attempt", error))?,
            // The folder of an attempt is never collected.
            Effect::Keep { reference: _ } | Effect::LetGo { reference: _ } => {}
            Effect::Emit(notice) => self.tell(Event::Notice { run: key.1, notice: notice.clone() }),
        }
        Ok(())
    }

    async fn store(&self, snapshot: &RunSnapshot, status: &AgentRunStatus) -> Result<(), Failure> {
        let meta = &snapshot.run.metadata;
        let key = (meta.namespace.clone(), meta.name.clone());
        let recorded = {
            let mut runs = self.runs();
            let run = runs.get_mut(&key).ok_or_else(|| unknown("store the status", &key))?;
            if run.metadata.resource_version != meta.resource_version {
                return Err(Failure::stale("store the status"));
            }
            let mut changed = run.clone();
            changed.status = Some(status.clone());
            bump(&mut changed);
            let recorded = self.places.get(&key).map_or(Ok(()), |place| place.folder.record(&changed));
            if recorded.is_ok() {
                run.clone_from(&changed);
            }
            recorded
        };
        if let Err(error) = recorded {
            self.in_trouble(&key, What::Store(Box::new(status.clone())), &error.to_string());
            self.cancel_unrecorded(&key, &snapshot.run).await;
            return Err(Failure {
                step: "store the status",
                class: Class::Retry,
                reason: Reason::RuntimeUnavailable,
                message: error.to_string(),
                source: Some(Box::new(error)),
            });
        }
        self.troubles().over(&key, &What::Store(Box::default()));
        self.changed.notify_waiters();
        self.tell(Event::Status { run: key.1, status: Arc::new(status.clone()) });
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Where the last attempt of a run that has ended is found.
pub(super) fn last_of(run: &Resource<AgentRun>) -> Option<RuntimeRef> {
    let last = run.status.as_ref().filter(|_| is_finished(run))?.attempts.last()?;
    let Meta { uid, namespace, name, .. } = &run.metadata;
    Some(RuntimeRef::of(RuntimeKind::Process, namespace, name, &SubmissionKey::of_attempt(uid, last.number)))
}

/// A run that says it is another than the one it was gathered for: were it passed over, it would never end.
fn unknown(step: &'static str, (namespace, name): &ObjectName) -> Failure {
    Failure {
        step,
        class: Class::Terminal,
        reason: Reason::RuntimeUnavailable,
        message: format!("there is no run {namespace}/{name} here"),
        source: None,
    }
}

fn bump(run: &mut Resource<AgentRun>) {
    let version = run.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
    run.metadata.resource_version = Some(version.unwrap_or(0).saturating_add(1).to_string());
}

#[cfg(test)]
mod tests {
    use agents_core::decide::Notice;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_run_that_is_not_here_is_no_success() {
        let world = LocalWorld::new(Manifests::default(), BTreeMap::new(), Stage::new().0);
        let run = json!({ "metadata": { "name": "a", "namespace": "n" }, "spec": { "agentRef": { "name": "x" } } });
        let run = Arc::new(serde_json::from_value(run).unwrap());
        let snapshot = RunSnapshot::certain(run, References::default(), Observation::Lost);
        let notice = Notice { warning: false, reason: Reason::Suspended, message: String::new() };
        let performed = world.perform(&snapshot, &Effect::Emit(notice)).await;
        let stored = world.store(&snapshot, &AgentRunStatus::default()).await;
        for result in [performed, stored] {
            assert!(result.unwrap_err().message.contains("n/a"));
        }
    }
}
