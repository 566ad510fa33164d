//! The one loop: gather → decide → effects before → store status → effects after → look again later.
//!
//! The controller, the local engine and the simulator run this loop over their own [`World`]. The driver owns the queue:
//! one reconcile per key at a time, changes during a reconcile run it once more, what failed or was refused waits per key
//! whatever changes meanwhile, and wakes come from the Plan alone. Every task lives in one `JoinSet`, so dropping the driver is the crash.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt::Debug,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use agents_core::{
    decide::{Confirm, Effect, Plan, Refusal},
    id::Id,
    name::SubmissionKey,
    status::Reason,
};
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{self, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::adapter::{AdapterError, Class};

/// Longest wait between two tries of a failing reconcile.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Shortest wait between two tries of a failing reconcile.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// A decision that takes longer is dear: many of them in a row would keep everything else of the thread waiting.
const DEAR: Duration = Duration::from_millis(5);
/// Longest rest after a dear decision.
const LONGEST_REST: Duration = Duration::from_millis(100);
/// Longest timer: a wake further away is looked at again on the way, so that a clock that jumps is noticed.
const MAX_SLEEP: Duration = Duration::from_secs(600);

/// Where snapshots come from and effects go to.
///
/// # Guarantees asked of it
/// `gather` sees every write that `store` and `perform` of the same world made before. `store` replaces the status only
/// if the object has not changed since the snapshot, and otherwise fails with [`Class::Retry`].
#[async_trait]
pub trait World: Send + Sync + 'static {
    /// What is reconciled, by name.
    type Key: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static;
    /// Everything a decision may depend on.
    type Snapshot: Send + Sync;
    /// What is stored.
    type Status: Send + Sync;

    /// Gathers a snapshot; the facts named by `confirm` are read consistently. `None` when the object is gone.
    async fn gather(&self, key: &Self::Key, confirm: &Confirm) -> Result<Option<Self::Snapshot>, Failure>;
    /// The decision: a call of a function of agents-core and nothing else. `refused` are the submissions that were refused
    /// just now.
    fn decide(&self, snapshot: &Self::Snapshot, refused: &[Refusal], now: Timestamp) -> Plan<Self::Status>;
    /// Performs one effect.
    async fn perform(&self, snapshot: &Self::Snapshot, effect: &Effect) -> Result<(), Failure>;
    /// Stores the whole status.
    async fn store(&self, snapshot: &Self::Snapshot, status: &Self::Status) -> Result<(), Failure>;
    /// Wall time.
    fn now(&self) -> Timestamp;
}

/// A step of a reconcile that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}: {message}")]
pub struct Failure {
    /// What was tried, such as `create the job`.
    pub step: &'static str,
    /// What the driver does about it.
    pub class: Class,
    /// What users see.
    pub reason: Reason,
    /// For people, without secrets.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// The object changed since the snapshot; a new snapshot decides again at once.
    pub fn stale(step: &'static str) -> Self {
        Self {
            step,
            class: Class::RetryAfter(Duration::ZERO),
            reason: Reason::RuntimeUnavailable,
            message: "the object has changed".to_owned(),
            source: None,
        }
    }

    /// The reconcile panicked: one object's defect must not end the work on the others.
    fn panicked(error: task::JoinError) -> Self {
        Self {
            step: "reconcile",
            class: Class::Retry,
            reason: Reason::RuntimeUnavailable,
            message: "the reconcile ended abnormally".to_owned(),
            source: Some(Box::new(error)),
        }
    }

    /// An effect that no rule of the object's kind asks for: passed over, it would be believed to have happened.
    pub fn unknown_effect(id: &Id, effect: &Effect) -> Self {
        Self {
            step: "carry out the decision",
            class: Class::Terminal,
            reason: Reason::RuntimeUnavailable,
            message: format!("{id} has nothing that executes it: {:?}", effect.kind()),
            source: None,
        }
    }

    /// An adapter's error.
    pub fn of_adapter(step: &'static str, error: AdapterError) -> Self {
        Self { step, class: error.class, reason: error.reason(), message: error.to_string(), source: error.source }
    }
}

/// What one reconcile came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The object is gone.
    Gone,
    /// Decided; look again at this time, if at all.
    Until(Option<Timestamp>),
    /// The same after an effect was refused: another look at once would only be refused again.
    Refused(Option<Timestamp>),
}

/// One pass of the loop for one key.
///
/// # Errors
/// The first step that failed. A submission refused for good is no error: it is decided upon once more, with the refusal.
pub async fn reconcile<W: World>(world: &W, key: &W::Key) -> Result<Settled, Failure> {
    paced(world, key, &Pace::default()).await
}

/// Keeps dear decisions from taking the whole thread: one at a time, and after each the thread is left to others for as
/// long as it took. Time is spent and never asked for: it is no input of what is decided.
#[derive(Debug)]
struct Pace(Semaphore);

impl Default for Pace {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Pace {
    async fn decide<T>(&self, decide: impl FnOnce() -> T) -> T {
        // It is never closed.
        let _turn = self.0.acquire().await;
        let began = Instant::now();
        let decided = decide();
        let took = began.elapsed();
        if took >= DEAR {
            tokio::time::sleep(took.min(LONGEST_REST)).await;
        }
        decided
    }
}

async fn paced<W: World>(world: &W, key: &W::Key, pace: &Pace) -> Result<Settled, Failure> {
    let mut confirm = Confirm::default();
    let mut refused: Vec<Refusal> = Vec::new();
    loop {
        let Some(snapshot) = world.gather(key, &confirm).await? else {
            return Ok(Settled::Gone);
        };
        let plan = pace.decide(|| world.decide(&snapshot, &refused, world.now())).await;
        if !confirm.covers(&plan.confirm) {
            confirm = confirm.and(plan.confirm);
            continue;
        }
        let Plan { confirm: _, before, status, after, wake } = plan;
        let known = refused.len();
        for effect in &before {
            let Err(failure) = world.perform(&snapshot, effect).await else { continue };
            // One submission is nothing to another: each is tried, and every refusal is decided upon.
            match effect.submission() {
                Some(submission) if is_refusal(failure.class) && !is_among(&refused, submission) => {
                    let Failure { step: _, class, reason, message, source: _ } = failure;
                    let terminal = class == Class::Terminal;
                    refused.push(Refusal { submission: submission.clone(), reason, message, terminal });
                }
                Some(_) | None => return Err(failure),
            }
        }
        if refused.len() > known {
            continue;
        }
        if let Some(status) = status {
            world.store(&snapshot, &status).await?;
        }
        for effect in &after {
            world.perform(&snapshot, effect).await?;
        }
        return Ok(if refused.is_empty() { Settled::Until(wake) } else { Settled::Refused(wake) });
    }
}

fn is_among(refused: &[Refusal], submission: &SubmissionKey) -> bool {
    refused.iter().any(|refusal| refusal.submission == *submission)
}

fn is_refusal(class: Class) -> bool {
    match class {
        Class::WaitForChange | Class::Terminal => true,
        Class::Retry | Class::RetryAfter(_) => false,
    }
}

/// Asks the driver to look at a key.
#[derive(Debug)]
pub struct Requests<K>(mpsc::UnboundedSender<(K, Urgency)>);

/// Whether a request heeds the wait of a key that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Something has changed: events can be many, and what made the key fail may be overload.
    Event,
    /// A person waits.
    Person,
}

impl<K> Clone for Requests<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Requests<K> {
    /// Looks at `key` soon; after a failure or a refusal, no sooner than its wait is over. Asking often costs one
    /// reconcile at a time.
    pub fn ask(&self, key: K) {
        // A driver that has ended needs nothing any more.
        let _ = self.0.send((key, Urgency::Event));
    }

    /// The same without heeding such a wait, for what a person asks and nothing repeats.
    pub fn ask_now(&self, key: K) {
        let _ = self.0.send((key, Urgency::Person));
    }
}

/// How a driver works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Reconciles under way at once.
    pub concurrency: usize,
    /// Spreads backoff between replicas; the same seed gives the same waits.
    pub seed: u64,
    /// Time that reconciles under way have when the driver shuts down.
    pub drain: Duration,
    /// Longest wait between two tries of a failing reconcile, unless the failure asks for more; at most 30 s.
    pub longest_backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 16, seed: 0, drain: Duration::from_secs(15), longest_backoff: MAX_BACKOFF }
    }
}

/// The loop over a [`World`].
#[derive(Debug)]
pub struct Driver<W: World> {
    world: Arc<W>,
    options: Options,
    sender: mpsc::UnboundedSender<(W::Key, Urgency)>,
    receiver: mpsc::UnboundedReceiver<(W::Key, Urgency)>,
}

impl<W: World> Driver<W> {
    /// A driver that has not started.
    pub fn new(world: Arc<W>, options: Options) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { world, options, sender, receiver }
    }

    /// A handle that asks for reconciles.
    pub fn requests(&self) -> Requests<W::Key> {
        Requests(self.sender.clone())
    }

    /// Runs until `shutdown`, then lets reconciles under way finish.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { world, options, sender: _sender, mut receiver } = self;
        let mut queue: Queue<W::Key> = Queue::new(options.seed, options.longest_backoff);
        let mut running: JoinSet<Result<Settled, Failure>> = JoinSet::new();
        let pace = Arc::new(Pace::default());
        // A task that panics returns nothing: its id is what still tells whose it was.
        let mut keys: HashMap<task::Id, W::Key> = HashMap::new();
        loop {
            while running.len() < options.concurrency {
                let Some(key) = queue.start() else { break };
                let (world, pace) = (Arc::clone(&world), Arc::clone(&pace));
                let task = running.spawn({
                    let key = key.clone();
                    async move { paced(&*world, &key, &pace).await }
                });
                keys.insert(task.id(), key);
            }
            let next = queue.next_wake();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(joined) = running.join_next_with_id() => {
                    let (id, result) = match joined {
                        Ok((id, result)) => (id, result),
                        Err(error) => (error.id(), Err(Failure::panicked(error))),
                    };
                    if let Some(key) = keys.remove(&id) {
                        queue.finished(&key, &result, world.now(), Instant::now());
                    }
                }
                Some((key, urgency)) = receiver.recv() => {
                    let now = Instant::now();
                    queue.ask(key, urgency, now);
                    while let Ok((key, urgency)) = receiver.try_recv() {
                        queue.ask(key, urgency, now);
                    }
                }
                () = sleep_until(next), if next.is_some() => queue.wake(Instant::now()),
            }
        }
        let drained = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(options.drain, drained).await.is_err() {
            tracing::warn!(left = running.len(), "reconciles were still under way at the end of shutdown");
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Which keys are to be looked at, and when.
#[derive(Debug)]
struct Queue<K> {
    seed: u64,
    longest_backoff: Duration,
    ready: VecDeque<K>,
    queued: HashSet<K>,
    running: HashMap<K, Again>,
    wakes: BTreeMap<Instant, Vec<K>>,
    wake_of: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    /// No event has a key looked at before this.
    not_before: HashMap<K, Instant>,
}

/// Whether a key under way was asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Yes,
    /// By a person.
    Now,
}

impl<K: Clone + Eq + Hash + Ord + Debug> Queue<K> {
    fn new(seed: u64, longest_backoff: Duration) -> Self {
        Self {
            seed,
            longest_backoff,
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashMap::new(),
            wakes: BTreeMap::new(),
            wake_of: HashMap::new(),
            failures: HashMap::new(),
            not_before: HashMap::new(),
        }
    }

    fn ask(&mut self, key: K, urgency: Urgency, now: Instant) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = match (*again, urgency) {
                (Again::Now, _) | (_, Urgency::Person) => Again::Now,
                (Again::No | Again::Yes, Urgency::Event) => Again::Yes,
            };
            return;
        }
        let held = self.not_before.get(&key).copied().filter(|at| *at > now);
        if let (Some(at), Urgency::Event) = (held, urgency) {
            self.wake_by(&key, at);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn start(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.forget_wake(&key);
        self.not_before.remove(&key);
        self.running.insert(key.clone(), Again::No);
        Some(key)
    }

    fn finished(&mut self, key: &K, result: &Result<Settled, Failure>, wall: Timestamp, now: Instant) {
        let again = self.running.remove(key).unwrap_or(Again::No);
        // Wall time is read in whole nanoseconds and timers round down to milliseconds: one more keeps a wake from coming
        // too early and deciding nothing.
        let until = |wake: Timestamp| {
            let wait = Duration::try_from(wake.duration_since(wall)).unwrap_or_default();
            now + wait.saturating_add(Duration::from_millis(1)).min(MAX_SLEEP)
        };
        let (not_before, wake) = match result {
            Ok(Settled::Gone) => {
                self.failures.remove(key);
                (None, None)
            }
            Ok(Settled::Until(wake)) => {
                self.failures.remove(key);
                (None, wake.map(until))
            }
            Ok(Settled::Refused(wake)) => {
                let count = self.failed(key);
                let at = now + self.backoff(key, count);
                (Some(at), wake.map(|wake| until(wake).max(at)))
            }
            Err(failure) => {
                let count = self.failed(key);
                let backoff = self.backoff(key, count);
                let wait = match failure.class {
                    // Only the first is decided anew at once: what changes all the time is not chased.
                    Class::RetryAfter(wait) if wait.is_zero() && count == 1 => wait,
                    Class::RetryAfter(wait) => wait.max(backoff),
                    Class::Retry | Class::WaitForChange | Class::Terminal => backoff,
                }
                .min(MAX_SLEEP);
                tracing::warn!(
                    ?key,
                    failures = count,
                    ?wait,
                    error = failure as &dyn std::error::Error,
                    "reconcile failed"
                );
                (Some(now + wait), Some(now + wait))
            }
        };
        if let Some(at) = not_before {
            self.not_before.insert(key.clone(), at);
        }
        if let Some(at) = wake {
            self.wake_by(key, at);
        }
        match again {
            Again::No => {}
            Again::Yes => self.ask(key.clone(), Urgency::Event, now),
            Again::Now => self.ask(key.clone(), Urgency::Person, now),
        }
    }

    /// The wait after this many failures in a row.
    fn backoff(&self, key: &K, count: u32) -> Duration {
        backoff(key, count, self.seed).min(self.longest_backoff)
    }

    /// Counts one more failure in a row.
    fn failed(&mut self, key: &K) -> u32 {
        let count = self.failures.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    /// Has the key looked at no later than this.
    fn wake_by(&mut self, key: &K, at: Instant) {
        if self.wake_of.get(key).is_some_and(|known| *known <= at) {
            return;
        }
        self.forget_wake(key);
        self.wakes.entry(at).or_default().push(key.clone());
        self.wake_of.insert(key.clone(), at);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.wakes.keys().next().copied()
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.wakes.first_entry() {
            if *entry.key() > now {
                break;
            }
            for key in entry.remove() {
                self.wake_of.remove(&key);
                self.ask(key, Urgency::Event, now);
            }
        }
    }

    fn forget_wake(&mut self, key: &K) {
        if let Some(at) = self.wake_of.remove(key)
            && let Some(keys) = self.wakes.get_mut(&at)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.wakes.remove(&at);
            }
        }
    }
}

/// Doubles from [`MIN_BACKOFF`] to [`MAX_BACKOFF`], and takes off up to a quarter by a hash of key, count and seed, so
/// that many keys that failed together do not come back together.
fn backoff<K: Hash>(key: &K, count: u32, seed: u64) -> Duration {
    let full = MIN_BACKOFF.saturating_mul(1 << count.saturating_sub(1).min(16)).min(MAX_BACKOFF);
    let mut hasher = std::hash::DefaultHasher::new();
    (key, count, seed).hash(&mut hasher);
    let off = u32::try_from(hasher.finish() % 256).unwrap_or(0);
    full.saturating_sub(full.saturating_mul(off) / 1024)
}

#[cfg(test)]
mod tests;
