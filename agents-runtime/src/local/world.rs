//! The world of the local engine: objects in memory, the records of what must outlast it on disk, the process adapter
//! beneath.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRun, AgentRunStatus, Kind as _, Meta, Resource, runtime::RuntimeKind},
    decide::{
        Confirm, Effect, Plan, Refusal,
        agent_run::{RunSnapshot, Settings, current_ref, decide, is_finished},
        declaration,
    },
    id::{Id, Key},
    look::AnyResource,
    name::SubmissionKey,
    plan::{Bounds, Defaults},
    policy::Rules,
    runtime::{Observation, RuntimeRef},
    status::Reason,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::{sync::Notify, time::Instant};

use super::{
    Event,
    objects::{Declared, Objects, run_id},
    places::RunFolder,
    records::{Records, are_kept},
    stage::Stage,
    trouble::{Troubles, What},
};
use crate::{
    adapter::{Class, Grace, RuntimeAdapter},
    driver::{Failure, Requests, World},
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
    objects: Objects,
    places: BTreeMap<Key, Place>,
    /// None while another engine keeps them, or there is nothing to keep.
    records: Option<Records>,
    /// Who is asked when a change concerns others; known once the engine runs.
    requests: OnceLock<Requests<Id>>,
    /// Held while an object is stored that no other one may be stored beside.
    alone: tokio::sync::Mutex<()>,
    settings: Settings,
    stage: Stage,
    troubles: Mutex<Troubles>,
    /// Told after every change of a run.
    pub(super) changed: Notify,
}

/// An object and everything that a decision about it depends on.
#[derive(Debug)]
pub(super) enum Snapshot {
    /// A run.
    Run(Box<RunSnapshot>),
    /// Any other object.
    Declared(Box<Declared>),
}

/// What is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Status {
    /// Of a run.
    Run(Box<AgentRunStatus>),
    /// Of any other object.
    Fields(Map<String, Value>),
}

impl LocalWorld {
    /// The world of these objects, and of these runs with their places.
    pub(super) fn new(
        objects: BTreeMap<Id, Arc<AnyResource>>,
        runs: BTreeMap<Key, (Resource<AgentRun>, Place)>,
        records: Option<Records>,
        stage: Stage,
    ) -> Self {
        let (all, mut places) = (Objects::default(), BTreeMap::new());
        for (id, object) in objects {
            all.insert(&id, object);
        }
        for (name, (run, place)) in runs {
            all.insert(&run_id(&name), Arc::new(run));
            places.insert(name, place);
        }
        Self {
            objects: all,
            places,
            records,
            requests: OnceLock::new(),
            alone: tokio::sync::Mutex::default(),
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

    /// The runs.
    pub(super) fn names(&self) -> Vec<Key> {
        self.places.keys().cloned().collect()
    }

    /// Has everything decided by whoever takes these requests, and again when it is concerned by a change: runs first, for
    /// they are what a person waits for.
    pub(super) fn ask_of(&self, requests: &Requests<Id>) {
        let all = self.places.keys().map(run_id).chain(self.objects.declared());
        all.for_each(|id| requests.ask(id));
        // An engine runs once.
        let _ = self.requests.set(requests.clone());
    }

    fn concerned(&self, ids: BTreeSet<Id>) {
        if let Some(requests) = self.requests.get() {
            for id in ids {
                requests.ask(id);
            }
        }
    }

    /// Objects that are not executed and whose status is not what it is to be now. One that is to change later by itself is
    /// none of them.
    pub(super) fn undecided(&self) -> Vec<Id> {
        self.objects.undecided()
    }

    pub(super) fn place(&self, name: &Key) -> Option<&Place> {
        self.places.get(name)
    }

    pub(super) fn run(&self, name: &Key) -> Option<Arc<Resource<AgentRun>>> {
        self.objects.run(name)
    }

    /// Where the attempt under way is found, or the one that comes next.
    pub(super) fn reference(&self, run: &Resource<AgentRun>) -> RuntimeRef {
        current_ref(run, &self.objects.references(run, false), &self.settings)
    }

    /// Wants every run that has not ended to end.
    pub(super) fn cancel_all(&self) {
        for (name, place) in &self.places {
            let Ok(concerned) = self.objects.change_run(name, |run| {
                if is_finished(run) || run.spec.cancel == Some(true) {
                    return Ok::<_, Infallible>(None);
                }
                let mut run = run.clone();
                run.spec.cancel = Some(true);
                bump(&mut run);
                if let Err(error) = place.folder.record(&run) {
                    // The wish holds in memory; only another engine would not know of it.
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(run = name.name, error, "cannot record the cancel");
                }
                Ok(Some(run))
            });
            self.concerned(concerned);
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
                tracing::warn!(
                    run = name.name,
                    error = &error as &dyn std::error::Error,
                    "cannot end the run by force"
                );
            }
        }
    }

    /// Ends what is to end although that cannot be stored: a person waits for it. The adapter keeps a record of its own,
    /// and signals once however often it is asked.
    async fn cancel_unrecorded(&self, name: &Key, run: &Resource<AgentRun>) {
        let (true, Some(place)) = (run.spec.cancel == Some(true), self.place(name)) else { return };
        let grace = Grace(Duration::from_secs(GRACE_SECONDS));
        if let Err(error) = place.adapter.cancel(&self.reference(run), grace).await {
            tracing::warn!(run = name.name, error = &error as &dyn std::error::Error, "cannot end the attempt");
        }
    }

    pub(super) fn tell(&self, event: Event) {
        self.stage.tell(event);
    }

    pub(super) fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of the run lives, as its follower sees it.
    pub(super) fn seen(&self, name: &Key, is_live: bool) {
        self.troubles().seen(&run_id(name), is_live, Instant::now());
    }

    /// Whether the run is no longer waited for.
    pub(super) fn is_given_up(&self, name: &Key) -> bool {
        self.troubles().is_given_up(&run_id(name))
    }

    /// Notes that something is tried again, and says so the first time.
    fn in_trouble(&self, id: &Id, what: What, message: &str) {
        let news = self.troubles().note(id, what, message, Instant::now());
        if let Some(text) = news {
            self.tell(Event::Remark(text));
        }
    }
}

impl LocalWorld {
    async fn gather_run(&self, name: &Key) -> Result<Option<RunSnapshot>, Failure> {
        let (Some(run), Some(place)) = (self.run(name), self.place(name)) else { return Ok(None) };
        let (id, references) = (run_id(name), self.objects.references(&run, true));
        let observation = if is_finished(&run) {
            Observation::Lost
        } else {
            let reference = current_ref(&run, &references, &self.settings);
            match place.adapter.status(&reference).await {
                Ok(observation) => {
                    self.troubles().over(&id, &What::Look);
                    observation
                }
                Err(error) => {
                    self.in_trouble(&id, What::Look, &error.message);
                    return Err(Failure::of_adapter("read the attempt's state", error));
                }
            }
        };
        // Memory and the process adapter are the truth itself: there is no cache that could be behind.
        Ok(Some(RunSnapshot::certain(run, references, observation)))
    }

    async fn perform_for_run(&self, snapshot: &RunSnapshot, effect: &Effect) -> Result<(), Failure> {
        let id = run_id(&name_of(&snapshot.run));
        let place = self.place(&id.key).ok_or_else(|| unknown("carry out the decision", &id))?;
        match effect {
            Effect::Submit(submission) => {
                if let Err(error) = place.adapter.submit(submission).await {
                    // What waits for a change is told as what the run waits for, and is not tried here.
                    if !matches!(error.class, Class::Terminal | Class::WaitForChange) {
                        self.in_trouble(&id, What::Start, &error.message);
                    }
                    return Err(Failure::of_adapter("start the attempt", error));
                }
                self.troubles().over(&id, &What::Start);
                self.changed.notify_waiters();
            }
            Effect::Cancel { reference, grace_seconds } => place
                .adapter
                .cancel(reference, Grace(Duration::from_secs(*grace_seconds)))
                .await
                .map_err(|error| Failure::of_adapter("end the attempt", error))?,
            // The folder of an attempt is never collected.
            Effect::Keep { reference: _ } | Effect::LetGo { reference: _ } => {}
            Effect::Emit(notice) => self.tell(Event::Notice { object: title(&id), notice: notice.clone() }),
        }
        Ok(())
    }

    async fn store_run(&self, snapshot: &RunSnapshot, status: &AgentRunStatus) -> Result<(), Failure> {
        let (meta, name) = (&snapshot.run.metadata, name_of(&snapshot.run));
        let id = run_id(&name);
        let place = self.place(&name).ok_or_else(|| unknown("store the status", &id))?;
        let changed = self.objects.change_run(&name, |run| {
            if run.metadata.resource_version != meta.resource_version {
                return Err(Unstored::Stale);
            }
            let mut changed = Resource { status: Some(status.clone()), ..run.clone() };
            bump(&mut changed);
            place.folder.record(&changed).map_err(Unstored::Unrecorded)?;
            Ok(Some(changed))
        });
        match changed {
            Ok(concerned) => {
                self.stored(&id, concerned);
                self.changed.notify_waiters();
            }
            Err(Unstored::Stale) => return Err(Failure::stale("store the status")),
            Err(Unstored::Unrecorded(error)) => {
                let failure = self.unrecorded(&id, Some(Box::new(status.clone())), error);
                self.cancel_unrecorded(&name, &snapshot.run).await;
                return Err(failure);
            }
        }
        self.tell(Event::Status { run: name.name, status: Arc::new(status.clone()) });
        Ok(())
    }

    async fn store_declared(&self, declared: &Declared, status: &Map<String, Value>) -> Result<(), Failure> {
        let (id, kind) = (&declared.id, declared.before.kind);
        let _alone = if kind.exclusive { Some(self.alone.lock().await) } else { None };
        let object = self.objects.with_status(declared, status).ok_or_else(|| Failure::stale("store the status"))?;
        if let Some(records) = self.records.as_ref().filter(|_| are_kept(kind)) {
            records.record(kind, id, &*object.resource).map_err(|error| self.unrecorded(id, None, error))?;
        }
        let concerned = self.objects.stored(declared, object);
        self.stored(id, concerned);
        let phase = |status: &Map<String, Value>| status.get("phase").and_then(Value::as_str).map(str::to_owned);
        let news = phase(status).filter(|now| Some(now) != phase(&declared.declaration.status).as_ref());
        if let Some(phase) = news.filter(|_| are_kept(kind)) {
            self.tell(Event::Phase { object: title(id), phase });
        }
        Ok(())
    }

    fn stored(&self, id: &Id, concerned: BTreeSet<Id>) {
        self.troubles().over(id, &What::Store(None));
        self.concerned(concerned);
    }

    fn unrecorded(&self, id: &Id, status: Option<Box<AgentRunStatus>>, error: io::Error) -> Failure {
        self.in_trouble(id, What::Store(status), &error.to_string());
        Failure {
            step: "store the status",
            class: Class::Retry,
            reason: Reason::RuntimeUnavailable,
            message: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}

/// Why the status of a run is not stored.
#[derive(Debug)]
enum Unstored {
    /// The run has changed since it was decided upon.
    Stale,
    /// It could not be recorded.
    Unrecorded(io::Error),
}

#[async_trait]
impl World for LocalWorld {
    type Key = Id;
    type Snapshot = Snapshot;
    type Status = Status;

    async fn gather(&self, id: &Id, _: &Confirm) -> Result<Option<Snapshot>, Failure> {
        if id.kind == AgentRun::KIND {
            let run = self.gather_run(&id.key).await?;
            return Ok(run.map(|run| Snapshot::Run(Box::new(run))));
        }
        let declared = self.objects.gather(id).map_err(|error| Failure {
            step: "read the object",
            class: Class::Terminal,
            reason: Reason::RuntimeUnavailable,
            message: error.to_string(),
            source: Some(Box::new(error)),
        })?;
        Ok(declared.map(|declared| Snapshot::Declared(Box::new(declared))))
    }

    fn decide(&self, snapshot: &Snapshot, refused: &[Refusal], now: Timestamp) -> Plan<Status> {
        match snapshot {
            Snapshot::Run(run) => decide(run, &self.settings, refused, now).map(|status| Status::Run(Box::new(status))),
            Snapshot::Declared(declared) => {
                let plan = declaration::decide(&declared.declaration, declared.rules.as_deref(), now);
                if plan.status.is_none() {
                    self.objects.decided(declared);
                }
                plan.map(Status::Fields)
            }
        }
    }

    async fn perform(&self, snapshot: &Snapshot, effect: &Effect) -> Result<(), Failure> {
        match (snapshot, effect) {
            (Snapshot::Run(run), effect) => self.perform_for_run(run, effect).await,
            (Snapshot::Declared(declared), Effect::Emit(notice)) => {
                self.tell(Event::Notice { object: title(&declared.id), notice: notice.clone() });
                Ok(())
            }
            (Snapshot::Declared(declared), effect) => Err(Failure::unknown_effect(&declared.id, effect)),
        }
    }

    async fn store(&self, snapshot: &Snapshot, status: &Status) -> Result<(), Failure> {
        match (snapshot, status) {
            (Snapshot::Run(run), Status::Run(status)) => self.store_run(run, status).await,
            (Snapshot::Declared(declared), Status::Fields(status)) => self.store_declared(declared, status).await,
            (Snapshot::Run(_), Status::Fields(_)) | (Snapshot::Declared(_), Status::Run(_)) => {
                Err(Failure::stale("store the status"))
            }
        }
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
fn unknown(step: &'static str, id: &Id) -> Failure {
    Failure {
        step,
        class: Class::Terminal,
        reason: Reason::RuntimeUnavailable,
        message: format!("there is no {id} here"),
        source: None,
    }
}

fn name_of(run: &Resource<AgentRun>) -> Key {
    Key::new(&run.metadata.namespace, &run.metadata.name)
}

/// An object as people are told of it; of a run its name is enough.
pub(super) fn title(Id { kind, key }: &Id) -> String {
    if *kind == AgentRun::KIND { key.name.clone() } else { format!("{kind}/{}", key.name) }
}

fn bump(run: &mut Resource<AgentRun>) {
    let version = run.metadata.resource_version.as_deref().and_then(|version| version.parse::<u64>().ok());
    run.metadata.resource_version = Some(version.unwrap_or(0).saturating_add(1).to_string());
}

#[cfg(test)]
mod tests {
    use agents_core::{decide::Notice, resolve::References};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_run_that_is_not_here_is_no_success() {
        let world = LocalWorld::new(BTreeMap::new(), BTreeMap::new(), None, Stage::new().0);
        let run = json!({ "metadata": { "name": "a", "namespace": "n" }, "spec": { "agentRef": { "name": "x" } } });
        let run = Arc::new(serde_json::from_value(run).unwrap());
        let snapshot = RunSnapshot::certain(run, References::default(), Observation::Lost);
        let snapshot = Snapshot::Run(Box::new(snapshot));
        let notice = Notice { warning: false, reason: Reason::Suspended, message: String::new() };
        let performed = world.perform(&snapshot, &Effect::Emit(notice)).await;
        let stored = world.store(&snapshot, &Status::Run(Box::default())).await;
        for result in [performed, stored] {
            assert!(result.unwrap_err().message.contains("AgentRun/a in n"));
        }
    }
}
