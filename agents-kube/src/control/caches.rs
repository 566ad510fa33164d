//! The watched caches that runs are decided from, and which run a change concerns.
//!
//! Runs are watched while they are not finished; Jobs and pods by our label, since neither can be selected by its end.
//! A change of anything a run depends on asks for that run; the index that knows which one is kept here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use agents_core::{
    api::{Agent, AgentProvider, AgentRun, ImplementationSpec, Resource},
    decide::agent_run::{current_attempt, open_attempt},
    marks::{LABEL_MANAGED_BY, MANAGED_BY},
    name::{ChildName, SubmissionKey},
    resolve::{Found, References},
};
use agents_runtime::driver::Requests;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use tokio::task::JoinSet;

use super::{meanings::Meanings, strays};
use crate::{
    client::{Calls, Scope, Target},
    object::Object,
    runtime::{JobView, PodView},
    watch::{Change, Key, Projection, Settings, Slot, Watch},
};

/// Every phase that never changes again; a run in one of them is not watched.
const NOT_FINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled";

/// Whose runs are looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Those of one namespace.
    One(String),
    /// Those of all namespaces.
    All,
}

impl Namespaces {
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::One(namespace) => Scope { namespace: Some(namespace.clone()), ..Scope::default() },
            Self::All => Scope::default(),
        }
    }
}

type Of<K> = Watch<Resource<K>>;

/// Which caches hold their first complete list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Name and trouble of every cache that is not complete.
    pub missing: Vec<(&'static str, Option<String>)>,
}

/// Everything watched.
#[derive(Debug)]
pub struct Caches {
    /// Runs that are not finished.
    pub runs: Arc<Of<AgentRun>>,
    /// Agents.
    pub agents: Arc<Of<Agent>>,
    /// Providers.
    pub providers: Arc<Of<AgentProvider>>,
    /// Work items.
    pub implementations: Arc<Of<ImplementationSpec>>,
    /// Our Jobs.
    pub jobs: Arc<Watch<JobView>>,
    /// Their pods.
    pub pods: Arc<Watch<PodView>>,
    index: Mutex<Index>,
    told: Told,
}

/// What runs were told of the objects that they refer to.
#[derive(Debug, Default)]
struct Told {
    agents: Meanings,
    providers: Meanings,
    implementations: Meanings,
}

/// Who looks at what.
#[derive(Debug, Clone)]
pub struct Asks {
    /// At runs.
    pub runs: Requests<Key>,
    /// At what no run seems to want.
    pub strays: Requests<strays::Id>,
    /// At runs that cannot be read.
    pub unreadable: Requests<Key>,
}

/// Asks while this replica leads: nobody else takes what is asked for, and everything is asked for when it begins to.
#[derive(Debug, Clone)]
struct Ask {
    asks: Asks,
    open: Arc<AtomicBool>,
}

impl Ask {
    fn asks(&self) -> Option<&Asks> {
        self.open.load(Ordering::Acquire).then_some(&self.asks)
    }

    fn ask(&self, key: Key) {
        if let Some(asks) = self.asks() {
            asks.runs.ask(key);
        }
    }

    fn suspect(&self, id: strays::Id) {
        if let Some(asks) = self.asks() {
            asks.strays.ask(id);
        }
    }
}

/// What leads from a Job or a pod back to its run.
#[derive(Debug, Default)]
struct Index {
    run_of_uid: HashMap<String, Key>,
    pods_of_job: HashMap<String, BTreeSet<Key>>,
    /// Pods that were cut off from their Job: its events are not theirs any more.
    cut_off: BTreeSet<Key>,
    /// Runs that cannot be read.
    unreadable: BTreeSet<Key>,
}

impl Caches {
    /// Caches that hold nothing until [`Caches::start`].
    pub fn new(calls: &Calls, namespaces: &Namespaces, settings: Settings) -> Self {
        let all = namespaces.scope();
        let unfinished = Scope { fields: Some(NOT_FINISHED.to_owned()), ..all.clone() };
        let ours = Scope { labels: Some(format!("{LABEL_MANAGED_BY}={MANAGED_BY}")), ..all.clone() };
        Self {
            runs: Arc::new(Watch::new(Target::of::<Object<AgentRun>>(), calls.clone(), unfinished, settings)),
            agents: Arc::new(Watch::new(Target::of::<Object<Agent>>(), calls.clone(), all.clone(), settings)),
            providers: Arc::new(Watch::new(
                Target::of::<Object<AgentProvider>>(),
                calls.clone(),
                all.clone(),
                settings,
            )),
            implementations: Arc::new(Watch::new(
                Target::of::<Object<ImplementationSpec>>(),
                calls.clone(),
                all,
                settings,
            )),
            jobs: Arc::new(Watch::new(Target::of::<Job>(), calls.clone(), ours.clone(), settings)),
            pods: Arc::new(Watch::new(Target::of::<Pod>(), calls.clone(), ours, settings)),
            index: Mutex::default(),
            told: Told::default(),
        }
    }

    /// Keeps every cache up to date by tasks in `tasks`, and asks for each run that a change concerns, and for what no run
    /// seems to want, while `open`.
    pub fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>, asks: &Asks, open: &Arc<AtomicBool>) {
        let requests = &Ask { asks: asks.clone(), open: Arc::clone(open) };
        self.follow(tasks, requests, &self.runs, Self::on_run);
        self.follow(tasks, requests, &self.agents, Self::on_agent);
        self.follow(tasks, requests, &self.providers, Self::on_provider);
        self.follow(tasks, requests, &self.implementations, Self::on_work);
        self.follow(tasks, requests, &self.jobs, Self::on_job);
        self.follow(tasks, requests, &self.pods, Self::on_pod);
    }

    fn follow<P: Projection>(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        requests: &Ask,
        watch: &Arc<Watch<P>>,
        told: fn(&Self, &Change<P>, &Ask),
    ) {
        let (caches, requests) = (Arc::clone(self), requests.clone());
        let watch = Arc::clone(watch);
        tasks.spawn(async move { watch.run(move |change| told(&caches, &change, &requests)).await });
    }

    fn on_run(&self, change: &Change<Resource<AgentRun>>, ask: &Ask) {
        match change {
            Change::Seen(key, run) => {
                self.index().unreadable.remove(key);
                self.index().run_of_uid.insert(run.metadata.uid.clone(), key.clone());
                self.suspect_former(run, current_attempt(run.status.as_ref()).saturating_sub(1), ask);
            }
            Change::Left(key, Some(run)) => {
                self.index().unreadable.remove(key);
                self.index().run_of_uid.remove(&run.metadata.uid);
                self.suspect_former(run, current_attempt(run.status.as_ref()), ask);
            }
            Change::Unreadable(key, why) => {
                tracing::warn!(run = %key, why = &**why, "the run cannot be read");
                self.index().unreadable.insert(key.clone());
                if let Some(asks) = ask.asks() {
                    asks.unreadable.ask(key.clone());
                }
            }
            // Which of its Jobs live is not known; at most a few are of a run of that name.
            Change::Left(key, None) => {
                self.index().unreadable.remove(key);
                self.suspect_all(ask, |job| {
                    job.namespace == key.namespace && job.owner.as_ref().is_some_and(|owner| owner.name == key.name)
                });
            }
        }
        ask.ask(change.key().clone());
    }

    fn on_agent(&self, change: &Change<Resource<Agent>>, ask: &Ask) {
        if self.told.agents.changed_by(change) {
            let Key { namespace, name } = change.key();
            self.waiting(namespace, ask, |run| run.spec.agent_ref.name == *name);
        }
    }

    fn on_provider(&self, change: &Change<Resource<AgentProvider>>, ask: &Ask) {
        if self.told.providers.changed_by(change) {
            let Key { namespace, name } = change.key();
            let agents = self.agents.objects_in(namespace);
            let with_it = agents.iter().filter(|agent| agent.spec.provider_ref.name == *name);
            let with_it: BTreeSet<&str> = with_it.map(|agent| agent.metadata.name.as_str()).collect();
            self.waiting(namespace, ask, |run| with_it.contains(run.spec.agent_ref.name.as_str()));
        }
    }

    fn on_work(&self, change: &Change<Resource<ImplementationSpec>>, ask: &Ask) {
        if self.told.implementations.changed_by(change) {
            let Key { namespace, name } = change.key();
            self.waiting(namespace, ask, |run| work_of(run) == Some(name));
        }
    }

    fn on_job(&self, change: &Change<JobView>, ask: &Ask) {
        let job = match change {
            Change::Seen(_, job) | Change::Left(_, Some(job)) => job,
            Change::Unreadable(..) | Change::Left(_, None) => return,
        };
        if let Some(owner) = &job.owner {
            ask.ask(Key::new(&job.namespace, &owner.name));
        }
        self.suspect(strays::Id::Job(change.key().clone()), ask);
        if let Change::Left(..) = change {
            // Its pods may have stayed.
            for pod in self.index().pods_of_job.get(&job.uid).into_iter().flatten() {
                ask.suspect(strays::Id::Pod(pod.clone()));
            }
        }
    }

    fn on_pod(&self, change: &Change<PodView>, ask: &Ask) {
        let (pod, left) = match change {
            Change::Seen(_, pod) => (pod, false),
            Change::Left(_, Some(pod)) => (pod, true),
            Change::Unreadable(..) | Change::Left(_, None) => return,
        };
        let mut index = self.index();
        if let Some(job) = &pod.cut_off_from {
            if let Some(pods) = index.pods_of_job.get_mut(&**job) {
                pods.remove(change.key());
            }
            if left {
                index.cut_off.remove(change.key());
            } else {
                index.cut_off.insert(change.key().clone());
            }
        }
        if let Some(job) = &pod.job_uid {
            if left {
                if let Some(pods) = index.pods_of_job.get_mut(job) {
                    pods.remove(change.key());
                    if pods.is_empty() {
                        index.pods_of_job.remove(job);
                    }
                }
            } else {
                index.pods_of_job.entry(job.clone()).or_default().insert(change.key().clone());
            }
        }
        if let Some(run) = pod.run_uid.as_ref().and_then(|uid| index.run_of_uid.get(uid)) {
            ask.ask(run.clone());
        }
        drop(index);
        // Nearly every pod is wanted.
        if let (Some(run), Some(uid), Some(attempt)) = (&pod.run, &pod.run_uid, pod.attempt)
            && self.wants(&Key::new(&pod.namespace, &**run), uid, attempt)
        {
            return;
        }
        let id = match strays::Stray::of_pod(pod) {
            None => return,
            Some(stray) if self.has_job(&stray) => strays::Id::Job(stray.job()),
            Some(_) => strays::Id::Pod(change.key().clone()),
        };
        self.suspect(id, ask);
    }

    /// Asks for it if it may be a stray.
    fn suspect(&self, id: strays::Id, ask: &Ask) {
        if self.stray(&id).is_some() {
            ask.suspect(id);
        }
    }

    /// Asks for what lives of this attempt of a run although nobody wants it.
    fn suspect_former(&self, run: &Resource<AgentRun>, attempt: i32, ask: &Ask) {
        if attempt > 0 {
            let meta = &run.metadata;
            let job = ChildName::of(&meta.name, &SubmissionKey::of_attempt(&meta.uid, attempt));
            self.suspect(strays::Id::Job(Key::new(&meta.namespace, job.as_str())), ask);
            let cut_off = self.index().cut_off.clone();
            for pod in cut_off {
                self.suspect(strays::Id::Pod(pod), ask);
            }
        }
    }

    fn suspect_all(&self, ask: &Ask, which: impl Fn(&JobView) -> bool) {
        for job in self.jobs.objects().into_iter().filter(|job| which(job)) {
            self.suspect(strays::Id::Job(Key::new(&job.namespace, &job.name)), ask);
        }
    }

    /// What lives and is wanted by no watched run, by these caches alone.
    pub(super) fn stray(&self, id: &strays::Id) -> Option<strays::Stray> {
        let stray = match id {
            strays::Id::Job(key) => {
                // Nearly every Job is wanted or over; its pods are looked at last.
                let job = self.jobs.get(key)?.object().cloned()?;
                let owner = job.owner.as_ref()?;
                if self.wants(&Key::new(&job.namespace, &owner.name), &owner.uid, job.attempt?) {
                    return None;
                }
                let (job, pods) = self.job_and_pods(key)?;
                strays::Stray::of_job(&job, &pods)?
            }
            strays::Id::Pod(key) => {
                strays::Stray::of_pod(self.pods.get(key)?.object()?).filter(|stray| !self.has_job(stray))?
            }
        };
        (!self.wants(&stray.run(), stray.run_uid(), stray.attempt())).then_some(stray)
    }

    fn wants(&self, run: &Key, uid: &str, attempt: i32) -> bool {
        strays::is_wanted(self.runs.get(run).as_ref(), uid, attempt)
    }

    fn has_job(&self, stray: &strays::Stray) -> bool {
        self.jobs.get(&stray.job()).is_some_and(|slot| match slot {
            Slot::Read(job) => stray.job_uid() == Some(&job.uid),
            Slot::Unreadable(_) => true,
        })
    }

    /// Asks for the runs of the namespace that refer to what has changed and have nothing under way: they may wait for it.
    fn waiting(&self, namespace: &str, ask: &Ask, refers: impl Fn(&Resource<AgentRun>) -> bool) {
        if ask.asks().is_none() {
            return;
        }
        for run in self.runs.objects_in(namespace) {
            let under_way = run.status.as_ref().and_then(open_attempt).is_some();
            if !under_way && refers(&run) {
                ask.ask(Key::new(namespace, &run.metadata.name));
            }
        }
    }

    /// Asks for every run, readable or not.
    pub fn ask_all(&self, asks: &Asks) {
        for run in self.runs.objects() {
            asks.runs.ask(Key::new(&run.metadata.namespace, &run.metadata.name));
        }
        self.index().unreadable.iter().for_each(|key| asks.unreadable.ask(key.clone()));
    }

    /// Asks for everything that may be a stray.
    pub fn ask_strays(&self, asks: &Asks) {
        let key = |namespace: &str, name: &str| Key::new(namespace, name);
        let jobs = self.jobs.objects().into_iter().map(|job| strays::Id::Job(key(&job.namespace, &job.name)));
        let pods = self.pods.objects().into_iter().map(|pod| strays::Id::Pod(key(&pod.namespace, &pod.name)));
        jobs.chain(pods).filter(|id| self.stray(id).is_some()).for_each(|id| asks.strays.ask(id));
    }

    /// Ends when every cache holds its first complete list.
    pub async fn synced(&self) {
        let Self { runs, agents, providers, implementations, jobs, pods, index: _, told: _ } = self;
        tokio::join!(
            runs.synced(),
            agents.synced(),
            providers.synced(),
            implementations.synced(),
            jobs.synced(),
            pods.synced()
        );
    }

    /// Ends when everything that users declare is listed; Jobs and pods may still be missing.
    pub async fn declarations_synced(&self) {
        let Self { runs, agents, providers, implementations, jobs: _, pods: _, index: _, told: _ } = self;
        tokio::join!(runs.synced(), agents.synced(), providers.synced(), implementations.synced());
    }

    /// Whether Jobs and pods are listed.
    pub fn executions_are_synced(&self) -> bool {
        self.jobs.is_synced() && self.pods.is_synced()
    }

    /// Which caches are complete.
    pub fn ready(&self) -> Ready {
        let Self { runs, agents, providers, implementations, jobs, pods, index: _, told: _ } = self;
        let all = [
            ("agentruns", runs.health()),
            ("agents", agents.health()),
            ("agentproviders", providers.health()),
            ("implementationspecs", implementations.health()),
            ("jobs", jobs.health()),
            ("pods", pods.health()),
        ];
        Ready {
            missing: all
                .into_iter()
                .filter(|(_, health)| !health.synced)
                .map(|(name, health)| (name, health.trouble))
                .collect(),
        }
    }

    /// About how many bytes are kept, by kind and namespace.
    pub fn weights(&self) -> Vec<(&'static str, BTreeMap<String, usize>)> {
        let Self { runs, agents, providers, implementations, jobs, pods, index: _, told: _ } = self;
        vec![
            ("agentruns", runs.weights()),
            ("agents", agents.weights()),
            ("agentproviders", providers.weights()),
            ("implementationspecs", implementations.weights()),
            ("jobs", jobs.weights()),
            ("pods", pods.weights()),
        ]
    }

    /// The objects that a run refers to.
    pub fn references(&self, run: &Resource<AgentRun>) -> References {
        let namespace = &run.metadata.namespace;
        let agent = found(&self.agents, namespace, &run.spec.agent_ref.name);
        let provider = match &agent {
            Found::Object(agent) => found(&self.providers, namespace, &agent.spec.provider_ref.name),
            Found::Absent | Found::Unreadable(_) => Found::Absent,
        };
        let implementation = work_of(run).map_or(Found::Absent, |work| found(&self.implementations, namespace, work));
        References { agent, provider, implementation }
    }

    /// A Job of ours and its pods.
    pub fn job_and_pods(&self, key: &Key) -> Option<(Arc<JobView>, Vec<Arc<PodView>>)> {
        let job = Arc::clone(self.jobs.get(key)?.object()?);
        let pods = self.index().pods_of_job.get(&job.uid).cloned().unwrap_or_default();
        let pods = pods.iter().filter_map(|pod| self.pods.get(pod)?.object().cloned()).collect();
        Some((job, pods))
    }

    /// A panic while the lock was held leaves at most one entry out, which its next change puts back.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work item that a run names, unless it has one of its own.
fn work_of(run: &Resource<AgentRun>) -> Option<&str> {
    let work = run.spec.implementation_spec_ref.as_ref().or(run.spec.implementation_ref.as_ref());
    work.filter(|_| run.spec.implementation.is_none()).map(|work| work.name.as_str())
}

fn found<K: agents_core::api::Kind>(watch: &Of<K>, namespace: &str, name: &str) -> Found<Resource<K>> {
    match watch.get(&Key::new(namespace, name)) {
        None => Found::Absent,
        Some(Slot::Read(object)) => Found::Object(object),
        Some(Slot::Unreadable(why)) => Found::Unreadable(why.to_string()),
    }
}
