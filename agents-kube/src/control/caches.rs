//! Everything that is watched, and which run a Job or a pod belongs to.
//!
//! Objects of our kinds are in [`Kinds`]; Jobs and pods are watched by our label, since neither can be selected by its
//! end. A change asks for whatever it concerns, while this replica leads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use agents_core::{
    api::{AgentRun, Kind, Resource},
    decide::agent_run::current_attempt,
    id::{Id, Key},
    kinds::AnyKind,
    marks::{LABEL_MANAGED_BY, MANAGED_BY},
    name::{ChildName, SubmissionKey},
};
use agents_runtime::driver::Requests;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use tokio::task::JoinSet;

use super::{
    cached::Cached,
    kinds::{Kinds, Namespaces, News},
    strays,
};
use crate::{
    client::{Calls, Scope, Target},
    runtime::{JobView, PodView},
    watch::{Change, Projection, Settings, Slot, Watch},
};

/// Which caches hold their first complete list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Name and trouble of every cache that is not complete.
    pub missing: Vec<(&'static str, Option<String>)>,
}

/// Everything watched.
#[derive(Debug)]
pub(crate) struct Caches {
    /// Objects of our kinds.
    pub kinds: Arc<Kinds>,
    /// Our Jobs.
    pub jobs: Arc<Watch<JobView>>,
    /// Their pods.
    pub pods: Arc<Watch<PodView>>,
    index: Mutex<Index>,
}

/// Who looks at what.
#[derive(Debug, Clone)]
pub(crate) struct Asks {
    /// At objects that are executed on a runtime.
    pub executed: Requests<Id>,
    /// At all others, if their status is kept.
    pub declared: Option<Requests<Id>>,
    /// At what no run seems to want.
    pub strays: Requests<strays::Id>,
}

impl Asks {
    fn ask(&self, id: Id) {
        if AnyKind::is_executed(id.kind) {
            self.executed.ask(id);
        } else if let Some(declared) = &self.declared {
            declared.ask(id);
        }
    }
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

    fn ask(&self, id: Id) {
        if let Some(asks) = self.asks() {
            asks.ask(id);
        }
    }

    fn run(&self, key: Key) {
        self.ask(Id::new(AgentRun::KIND, key));
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
}

impl Caches {
    /// Caches that hold nothing until [`Caches::start`].
    pub(crate) fn new(calls: &Calls, namespaces: &Namespaces, settings: Settings) -> Self {
        let ours = Scope { labels: Some(format!("{LABEL_MANAGED_BY}={MANAGED_BY}")), ..namespaces.scope() };
        Self {
            kinds: Arc::new(Kinds::new(calls, namespaces, settings)),
            jobs: Arc::new(Watch::new(Target::of::<Job>(), calls.clone(), ours.clone(), settings)),
            pods: Arc::new(Watch::new(Target::of::<Pod>(), calls.clone(), ours, settings)),
            index: Mutex::default(),
        }
    }

    /// Keeps what runs are decided from up to date by tasks in `tasks`, and asks for each object that a change concerns,
    /// and for what no run seems to want, while `open`.
    pub(crate) fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>, asks: &Asks, open: &Arc<AtomicBool>) {
        let requests = &Ask { asks: asks.clone(), open: Arc::clone(open) };
        self.follow_kinds(tasks, requests, true);
        self.follow(tasks, requests, &self.jobs, Self::on_job);
        self.follow(tasks, requests, &self.pods, Self::on_pod);
    }

    /// The same for every other kind.
    pub(crate) fn start_declared(self: &Arc<Self>, tasks: &mut JoinSet<()>, asks: &Asks, open: &Arc<AtomicBool>) {
        self.follow_kinds(tasks, &Ask { asks: asks.clone(), open: Arc::clone(open) }, false);
    }

    fn follow_kinds(self: &Arc<Self>, tasks: &mut JoinSet<()>, requests: &Ask, of_runs: bool) {
        let (caches, ask) = (Arc::clone(self), requests.clone());
        self.kinds.start(tasks, of_runs, &move |news: News<'_>| {
            let News { change, concerned } = news;
            for id in concerned {
                ask.ask(id);
            }
            let Some((id, change)) = change else { return };
            if id.kind == AgentRun::KIND {
                caches.on_run(change, &ask);
            }
            match change {
                Change::Seen(_, object) => {
                    if let Some(why) = object.why_unreadable() {
                        tracing::warn!(object = %id, why, "the object cannot be read");
                    }
                }
                Change::Unreadable(_, why) => tracing::warn!(object = %id, why = &**why, "the object cannot be read"),
                Change::Left(..) => {}
            }
            ask.ask(id);
        });
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

    /// Which Job is whose, and what may be left of an attempt that is over.
    fn on_run(&self, change: &Change<Cached>, ask: &Ask) {
        match change {
            Change::Seen(key, object) => {
                if let Some(run) = object.object::<AgentRun>() {
                    self.index().run_of_uid.insert(run.metadata.uid.clone(), key.clone());
                    self.suspect_former(&run, current_attempt(run.status.as_ref()).saturating_sub(1), ask);
                }
            }
            Change::Left(key, last) => {
                if let Some(last) = last {
                    self.index().run_of_uid.remove(last.uid());
                }
                match last.as_ref().and_then(|last| last.object::<AgentRun>()) {
                    Some(run) => self.suspect_former(&run, current_attempt(run.status.as_ref()), ask),
                    None => self.suspect_all_of(key, ask),
                }
            }
            Change::Unreadable(..) => {}
        }
    }

    fn on_job(&self, change: &Change<JobView>, ask: &Ask) {
        let job = match change {
            Change::Seen(_, job) | Change::Left(_, Some(job)) => job,
            Change::Unreadable(..) | Change::Left(_, None) => return,
        };
        if let Some(owner) = &job.owner {
            ask.run(Key::new(&job.namespace, &owner.name));
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
            ask.run(run.clone());
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

    /// Which of its Jobs live is not known; at most a few are of a run of that name.
    fn suspect_all_of(&self, run: &Key, ask: &Ask) {
        let of_run = |job: &JobView| {
            job.namespace == run.namespace && job.owner.as_ref().is_some_and(|owner| owner.name == run.name)
        };
        for job in self.jobs.objects().into_iter().filter(|job| of_run(job)) {
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
        strays::is_wanted(self.kinds.runs.get(run).as_ref(), uid, attempt)
    }

    fn has_job(&self, stray: &strays::Stray) -> bool {
        self.jobs.get(&stray.job()).is_some_and(|slot| match slot {
            Slot::Read(job) => stray.job_uid() == Some(&job.uid),
            Slot::Unreadable(_) => true,
        })
    }

    /// Asks for every object of what runs are decided from, readable or not.
    pub(crate) fn ask_all(&self, asks: &Asks) {
        for object in self.kinds.which(true).flat_map(|kept| kept.watch.objects()) {
            asks.ask(object.id());
        }
    }

    /// Asks for every run.
    pub(crate) fn ask_runs(&self, asks: &Asks) {
        for run in self.kinds.runs.objects() {
            asks.ask(run.id());
        }
    }

    /// Asks for everything that may be a stray.
    pub(crate) fn ask_strays(&self, asks: &Asks) {
        let key = |namespace: &str, name: &str| Key::new(namespace, name);
        let jobs = self.jobs.objects().into_iter().map(|job| strays::Id::Job(key(&job.namespace, &job.name)));
        let pods = self.pods.objects().into_iter().map(|pod| strays::Id::Pod(key(&pod.namespace, &pod.name)));
        jobs.chain(pods).filter(|id| self.stray(id).is_some()).for_each(|id| asks.strays.ask(id));
    }

    /// Ends when everything that runs are decided from is listed.
    pub(crate) async fn synced(&self) {
        tokio::join!(self.declarations_synced(), self.jobs.synced(), self.pods.synced());
    }

    /// Ends when everything that users declare for runs is listed; Jobs and pods may still be missing.
    pub(crate) async fn declarations_synced(&self) {
        for kept in self.kinds.which(true) {
            kept.watch.synced().await;
        }
    }

    /// Whether Jobs and pods are listed.
    pub(crate) fn executions_are_synced(&self) -> bool {
        self.jobs.is_synced() && self.pods.is_synced()
    }

    /// Which of the caches that runs are decided from are complete.
    pub(crate) fn ready(&self) -> Ready {
        let kinds = self.kinds.which(true).map(|kept| (kept.row.any.plural, kept.watch.health()));
        let executions = [("jobs", self.jobs.health()), ("pods", self.pods.health())];
        Ready {
            missing: kinds
                .chain(executions)
                .filter(|(_, health)| !health.synced)
                .map(|(name, health)| (name, health.trouble))
                .collect(),
        }
    }

    /// Whether they hold nothing.
    pub(crate) fn are_empty(&self) -> bool {
        self.kinds.which(true).all(|kept| kept.watch.is_empty()) && self.jobs.is_empty()
    }

    /// About how many bytes are kept, by kind and namespace.
    pub(crate) fn weights(&self) -> Vec<(&'static str, BTreeMap<String, usize>)> {
        let kinds = self.kinds.all().map(|kept| (kept.row.any.plural, kept.watch.weights()));
        kinds.chain([("jobs", self.jobs.weights()), ("pods", self.pods.weights())]).collect()
    }

    /// A Job of ours and its pods.
    pub(crate) fn job_and_pods(&self, key: &Key) -> Option<(Arc<JobView>, Vec<Arc<PodView>>)> {
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
