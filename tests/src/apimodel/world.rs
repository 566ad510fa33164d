//! The simulated world: one API model, its clock, its actors, and the handles that tests hold.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agents_kube::Calls;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{
    actors::Actors,
    answer::Refusal,
    clock::Clock,
    fault::{Fault, Faults, When},
    judge::{Judge, Submission, Violation},
    outcome::Outcome,
    request::{Log, Record, Request},
    resource,
    service::ApiService,
    store::{Key, Moment, Store},
};

/// Namespace of everything that names none.
pub const NAMESPACE: &str = "default";

/// Times of the model that a test may change.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two bookmarks of a watch.
    pub bookmarks: Duration,
    /// Between two progress reports of etcd, from which bookmarks of idle resources take their version.
    pub progress: Duration,
    /// From a request's arrival until it is carried out.
    pub latency: Duration,
    /// Whether the running actors collect garbage; when not, [`World::collect_garbage`] does.
    pub garbage: bool,
    /// How many pods that have not ended a quota of the namespace allows.
    pub pod_quota: Option<usize>,
    /// What an admission webhook puts before the images of pods as they are created.
    pub mirror: &'static str,
    /// How long nothing must be written for the world to count as settled.
    pub quiet: Duration,
    /// Requests of controllers that are refused with this HTTP status for as long as they stand here: a right that is
    /// missing, an admission policy, a definition of another version.
    pub denied: Vec<(When, u16)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmarks: Duration::from_secs(60),
            progress: Duration::from_secs(5),
            latency: Duration::ZERO,
            garbage: true,
            pod_quota: None,
            mirror: "",
            quiet: Duration::from_secs(60),
            denied: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(usize);

#[derive(Debug)]
struct ClientState {
    name: String,
    alive: bool,
    faultable: bool,
}

pub(super) struct State {
    pub(super) store: Store,
    pub(super) faults: Faults,
    pub(super) settings: Settings,
    pub(super) judge: Judge,
    pub(super) outcomes: BTreeMap<String, Vec<Outcome>>,
    actors: Actors,
    log: Vec<Record>,
    clients: Vec<ClientState>,
    crashed: VecDeque<String>,
}

impl State {
    pub(super) fn is_alive(&self, client: ClientId) -> bool {
        self.clients[client.0].alive
    }

    pub(super) fn is_faultable(&self, client: ClientId) -> bool {
        self.clients[client.0].faultable
    }

    pub(super) fn decide(&mut self, client: ClientId, request: &Request) -> Option<Fault> {
        let ClientState { name, faultable, .. } = &self.clients[client.0];
        if *faultable { self.faults.decide(request, name) } else { None }
    }

    /// The lasting refusal of `request`, if there is one.
    pub(super) fn denial(&self, client: ClientId, request: &Request) -> Option<Refusal> {
        let ClientState { name, faultable, .. } = &self.clients[client.0];
        let mut denied = self.settings.denied.iter().filter(|_| *faultable);
        denied.find(|(when, _)| when.matches(request, name)).map(|(_, code)| Refusal::scripted(*code))
    }

    pub(super) fn record(&mut self, client: ClientId, request: &Request, now: Moment, fault: Option<Fault>) -> usize {
        if self.is_faultable(client) {
            self.judge.asked(request, now.boot, self.store.version());
        }
        self.log.push(Record {
            at: now.boot,
            client: self.clients[client.0].name.clone(),
            verb: request.verb,
            path: request.path.clone(),
            query: request.query.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            resource: request.plural(),
            name: request.name.clone(),
            status: request.is_status(),
            effect: request.is_effect(),
            verdict: request.is_verdict(),
            patch: request.patch(),
            code: None,
            fault,
        });
        self.log.len() - 1
    }

    pub(super) fn answered(&mut self, record: usize, code: u16) {
        self.log[record].code = Some(code);
    }

    fn act(&mut self, now: Moment) -> Option<Duration> {
        let Self { store, settings, judge, outcomes, actors, .. } = self;
        actors.step(store, judge, outcomes, settings, now)
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) clock: Clock,
    crash: Notify,
}

impl Shared {
    /// The only way to the state: every write made inside is judged and announced.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State, Moment) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Moment { boot: self.clock.boot(), wall: self.clock.wall() };
        let result = f(&mut state, now);
        let State { store, judge, .. } = &mut *state;
        judge.observe(store);
        let version = store.version();
        self.changed.send_if_modified(|seen| std::mem::replace(seen, version) != version);
        result
    }

    pub(super) fn crash(&self, client: ClientId) {
        self.with(|state, _| {
            let client = &mut state.clients[client.0];
            client.alive = false;
            state.crashed.push_back(client.name.clone());
        });
        self.crash.notify_waiters();
    }
}

/// A simulated cluster. Needs a current-thread runtime with paused time.
pub struct World {
    seed: u64,
    shared: Arc<Shared>,
    clock: Clock,
    actors: Mutex<Option<Supervised>>,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Supervised(JoinHandle<()>);

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a world came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing was written since then.
    Since(Duration),
    /// Something still was at the deadline.
    Not,
}

impl World {
    /// An empty world. Everything random in it comes from `seed`.
    pub fn new(seed: u64) -> Self {
        crate::mutant::switch_named_on();
        let clock = Clock::starting_now();
        Self {
            seed,
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    store: Store::new(seed),
                    faults: Faults::new(seed),
                    settings: Settings::default(),
                    judge: Judge::default(),
                    outcomes: BTreeMap::new(),
                    actors: Actors::default(),
                    log: Vec::new(),
                    clients: Vec::new(),
                    crashed: VecDeque::new(),
                }),
                changed: watch::channel(0).0,
                clock: clock.clone(),
                crash: Notify::new(),
            }),
            clock: clock.skewed(jiff::SignedDuration::ZERO),
            actors: Mutex::new(None),
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The controllers' clock. Its jumps are not the server's.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The server's clock.
    pub fn server_clock(&self) -> Clock {
        self.shared.clock.clone()
    }

    /// A client for the tests themselves: no faults, no crashes. Logged as `test`.
    pub fn admin(&self) -> kube::Client {
        self.connect("test", false)
    }

    /// A client for a controller called `name`, subject to faults. Each incarnation of a controller takes a new one.
    pub fn client(&self, name: &str) -> kube::Client {
        self.connect(name, true)
    }

    /// The same as the product's own calls, fenced by their deadline, on the controllers' clock.
    pub fn calls(&self, name: &str) -> Calls {
        self.calls_by(name, Arc::new(self.clock()))
    }

    /// The same on a clock of the controller's own.
    pub fn calls_by(&self, name: &str, clock: Arc<dyn agents_kube::Clock>) -> Calls {
        Calls::over(self.service(name, true), clock, "agents")
    }

    fn connect(&self, name: &str, faultable: bool) -> kube::Client {
        kube::Client::new(self.service(name, faultable), NAMESPACE)
    }

    fn service(&self, name: &str, faultable: bool) -> ApiService {
        let client = self.shared.with(|state, _| {
            state.clients.push(ClientState { name: name.to_owned(), alive: true, faultable });
            ClientId(state.clients.len() - 1)
        });
        ApiService { shared: Arc::clone(&self.shared), client }
    }

    /// Kills every client called `name` now.
    pub fn kill(&self, name: &str) {
        let doomed: Vec<ClientId> = self.shared.with(|state, _| {
            let alive = state.clients.iter().enumerate().filter(|(_, client)| client.alive && client.name == name);
            alive.map(|(id, _)| ClientId(id)).collect()
        });
        for client in doomed {
            self.shared.crash(client);
        }
    }

    /// Waits until a client called `name` crashes, or takes notice of a crash that nobody awaited yet.
    pub async fn crashed(&self, name: &str) {
        crashed(&self.shared, name).await;
    }

    /// Runs a controller: `start` makes its future over fresh calls; a crash drops the future and starts the next
    /// one a second later, as does its own end. Ends when the handle is dropped.
    pub fn supervise<F, Fut>(&self, name: &str, mut start: F) -> Supervised
    where
        F: FnMut(Calls) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        let (seed, clock) = (self.seed, self.clock.clone());
        Supervised(tokio::spawn(async move {
            let world = Self { seed, shared, clock, actors: Mutex::new(None) };
            loop {
                let life = start(world.calls(&name));
                tokio::select! {
                    biased;
                    () = world.crashed(&name) => {}
                    () = life => {}
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }))
    }

    /// Stores the objects of a YAML text of one or more documents as the test, replacing what is there.
    ///
    /// # Panics
    /// When the text is not YAML, names a kind that is not served, or is refused.
    pub fn apply(&self, yaml: &str) -> Vec<Value> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("manifests are YAML");
        documents.into_iter().map(|document| self.store_object(document)).collect()
    }

    fn store_object(&self, mut object: Value) -> Value {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let resource = resource::of_kind(&text("apiVersion"), &text("kind"))
            .unwrap_or_else(|| panic!("the model serves no {} {}", text("apiVersion"), text("kind")));
        let meta = &object["metadata"];
        let key = Key {
            resource,
            namespace: meta["namespace"].as_str().unwrap_or(NAMESPACE).to_owned(),
            name: meta["name"].as_str().unwrap_or_default().to_owned(),
        };
        let stored = self.shared.with(|state, now| match state.store.get(&key) {
            None => state.store.create(resource, &key.namespace, object, now),
            Some(old) => {
                object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                state.store.update(&key, object, super::store::Part::Main, now)
            }
        });
        stored.unwrap_or_else(|refusal| panic!("{}/{} refused: {}", resource.plural, key.name, refusal.body()))
    }

    /// The object, if it is there. In the default namespace.
    pub fn object(&self, plural: &str, name: &str) -> Option<Value> {
        let key = Key { resource: resource::of_plural(plural), namespace: NAMESPACE.to_owned(), name: name.to_owned() };
        self.shared.with(|state, _| state.store.get(&key).cloned())
    }

    /// All objects of a resource.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        let resource = resource::of_plural(plural);
        self.shared.with(|state, _| state.store.list(resource, None).map(|(_, object)| object.clone()).collect())
    }

    /// Phase of an AgentRun; empty when it has none.
    pub fn phase(&self, run: &str) -> String {
        let phase = self.object("agentruns", run).and_then(|run| run["status"]["phase"].as_str().map(str::to_owned));
        phase.unwrap_or_default()
    }

    /// Every write so far, with the object before and after it.
    pub fn history(&self) -> Vec<super::store::Commit> {
        self.shared.with(|state, _| state.store.history().to_vec())
    }

    /// What every attempt of a run (by its name) does.
    pub fn outcome(&self, run: &str, outcome: Outcome) {
        self.outcomes(run, vec![outcome]);
    }

    /// What the attempts of a run do, in order; the last one repeats.
    pub fn outcomes(&self, run: &str, outcomes: Vec<Outcome>) {
        self.shared.with(|state, _| state.outcomes.insert(run.to_owned(), outcomes));
    }

    /// Starts the Job controller, the kubelet and the garbage collector; they act whenever something is due.
    pub fn run_actors(&self) {
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let mut changed = shared.changed.subscribe();
            loop {
                changed.mark_unchanged();
                let next = shared.with(State::act);
                let due = async {
                    match next {
                        Some(at) => tokio::time::sleep_until(shared.clock.instant(at)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    _ = changed.changed() => {}
                    () = due => {}
                }
            }
        });
        *self.actors.lock().unwrap_or_else(PoisonError::into_inner) = Some(Supervised(task));
    }

    /// Stops the actors: a cluster whose control plane stands still.
    pub fn stop_actors(&self) {
        *self.actors.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets the actors do once what is due; says when the next thing is.
    pub fn step_actors(&self) -> Option<Duration> {
        self.shared.with(State::act)
    }

    /// One pass of the garbage collector; says whether it did anything.
    pub fn collect_garbage(&self) -> bool {
        self.shared.with(|state, now| super::garbage::collect(&mut state.store, now))
    }

    /// Makes every version seen so far too old to be watched or paged from.
    pub fn compact(&self) {
        self.shared.with(|state, _| state.store.compact());
    }

    /// The definition of runs is one that knows none of these fields of their status and drops them.
    pub fn older_definition(&self, dropped: &[&'static str]) {
        self.shared.with(|state, _| state.store.dropped = dropped.to_vec());
    }

    /// Changes times of the model.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        self.shared.with(|state, _| change(&mut state.settings));
    }

    /// What an admission webhook puts before the images of Jobs as they are created.
    pub fn rewrite_jobs(&self, mirror: &'static str) {
        self.shared.with(|state, _| state.store.job_mirror = mirror);
    }

    /// Reads or changes the faults.
    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        self.shared.with(|state, _| change(&mut state.faults))
    }

    /// Every request so far.
    pub fn log(&self) -> Log {
        Log(self.shared.with(|state, _| state.log.clone()))
    }

    /// From now on no object but a Secret, and no request of a controller, may contain this text or its base64.
    pub fn canary(&self, text: &str) {
        self.shared.with(|state, _| state.judge.canaries.push(text.to_owned()));
    }

    /// Whether there is a secret that could be told.
    pub fn has_canary(&self) -> bool {
        self.shared.with(|state, _| !state.judge.canaries.is_empty())
    }

    /// How often the agent's container of each submission started.
    pub fn executions(&self) -> BTreeMap<Submission, u32> {
        self.shared.with(|state, _| state.judge.executions.clone())
    }

    /// How many Jobs were ever created for a submission.
    pub fn jobs_of(&self, run_uid: &str, attempt: i64) -> usize {
        self.shared.with(|state, _| state.judge.jobs_of(&(run_uid.to_owned(), attempt)))
    }

    /// Every broken promise so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.with(|state, _| state.judge.violations.clone())
    }

    /// Fails the test when a promise was broken.
    ///
    /// # Panics
    /// When there is a violation, with the seed and all of them.
    pub fn check(&self) {
        let violations = self.violations();
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert!(violations.is_empty(), "seed {}: promises broken:\n{}", self.seed, lines.join("\n"));
    }

    /// Waits until `done` holds after some write; says whether it did before `deadline` passed.
    pub async fn until(&self, deadline: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let mut changed = self.shared.changed.subscribe();
        let waiting = async {
            while !done(self) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, waiting).await.is_ok()
    }

    /// Waits until every AgentRun but templates has a terminal phase; says whether that came before `deadline` passed.
    pub async fn until_terminal(&self, deadline: Duration) -> bool {
        self.until(deadline, |world| {
            world.objects("agentruns").iter().all(|run| {
                matches!(run["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Cancelled" | "Template"))
            })
        })
        .await
    }

    /// Waits until nothing but leases and events was written, and no effect was even tried, for as long as
    /// [`Settings::quiet`] says.
    pub async fn settle(&self, deadline: Duration) -> Settled {
        let end = self.shared.clock.boot() + deadline;
        loop {
            let (last, quiet) = self.shared.with(|state, _| {
                let stored = state.store.history().iter().rev().find(|commit| !commit.key.resource.is_chatter());
                let tried = state.log.iter().rev().find(|record| record.effect || record.verdict);
                let last = stored.map(|c| c.at).into_iter().chain(tried.map(|r| r.at)).max().unwrap_or_default();
                (last, state.settings.quiet)
            });
            let now = self.shared.clock.boot();
            if now >= last + quiet {
                return Settled::Since(last);
            }
            if now >= end {
                return Settled::Not;
            }
            tokio::time::sleep_until(self.shared.clock.instant((last + quiet).min(end))).await;
        }
    }
}

async fn crashed(shared: &Shared, name: &str) {
    loop {
        let woken = shared.crash.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let taken = shared.with(|state, _| {
            let at = state.crashed.iter().position(|crashed| crashed == name)?;
            state.crashed.remove(at)
        });
        if taken.is_some() {
            return;
        }
        woken.await;
    }
}
