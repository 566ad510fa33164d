//! The leader lease: an election by one optimistic replace, whose outcome saves work and is never needed for
//! correctness.
//!
//! The published crates overwrite without a version or compare wall clocks of different machines; here the decision is
//! pure ([`elect`]) and every write names the version it replaces. The lease also remembers how long nobody led, across
//! crashes, because the end of an execution may have been collected meanwhile.

mod candidate;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use agents_core::{
    marks::{ANNOTATION_LEFT_BY, ANNOTATION_UNLED_SINCE},
    plan::digest::sha256,
};
use agents_runtime::adapter::Class;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::core::ObjectMeta;
use tokio::time;
use tokio_util::sync::CancellationToken;

use self::candidate::{Candidate, Step};
pub use self::candidate::{Decision, Observed, Params, Record, elect};
use crate::{
    client::{ApiError, ApiErrorKind, Calls, OrAbsent, Target},
    clock::Clock,
};

/// Leaders whose words are kept: each may have handed something over that is not recorded yet.
const MAX_LEFT: usize = 5;
/// Longest word of a leader that is read, in bytes.
const MAX_WORD: usize = 4096;
/// Deadline of one call: several must fit into a tenure.
const CALL_DEADLINE: Duration = Duration::from_secs(3);
/// Time between two log lines about an election that is interrupted for long.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Failed calls in a row that are no passing trouble any more.
const SEVERAL: u64 = 3;
/// Longest lease of another that is respected.
const MAX_DURATION: i32 = 3600;

/// Longest part of a lease's name that is for people, in bytes.
const MAX_READABLE: usize = 180;

/// Name of the lease under which the runs of `namespace` are decided, where one namespace holds the leases of several:
/// `lease` and the namespace for people, and a hash of both, since together they can be longer than a name, and `a-b` of
/// `c` reads like `a` of `b-c`. At most 200 bytes.
pub fn name_for(lease: &str, namespace: &str) -> String {
    // Neither may contain a slash.
    let hash = &sha256(format!("{lease}/{namespace}").as_bytes())["sha256:".len()..][..16];
    let readable: String = format!("{lease}-{namespace}").chars().take(MAX_READABLE).collect();
    format!("{}-{hash}", readable.trim_end_matches(['-', '.']))
}

/// Takes part in the election of one lease.
///
/// # Expected flow
/// [`Elector::acquire`], then [`Elector::hold`] beside the work, which asks [`Tenure::may_act`] before each effect.
/// Work ends before `hold` is told to stop, because that gives the lease away. When `hold` says [`Ended::Lost`], the
/// work ends; it may begin anew with another elector of another identity.
///
/// # Guarantees
/// Two electors of one lease never have the right to act at the same moment, as long as nobody else writes the lease
/// and their clocks run alike within the margin.
#[derive(Debug)]
pub struct Elector {
    calls: Calls,
    namespace: String,
    name: String,
    identity: String,
    params: Params,
    candidate: Candidate,
    object: Option<Lease>,
    /// Namespace and name of the lease before this one.
    former: Option<(String, String)>,
    unled_since: Option<Timestamp>,
    /// What this leader leaves for the next ones.
    word: Option<String>,
    /// What the leaders before this one left, the latest first.
    left: Vec<String>,
    tenure: Tenure,
    recovered: Arc<AtomicBool>,
    trouble: Trouble,
}

/// What keeps an election from going on, for health pages and for a log that is not flooded.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<Ongoing>>>);

#[derive(Debug)]
struct Ongoing {
    message: String,
    calls: u64,
    told: Duration,
}

impl Trouble {
    /// Why the last call failed, once several did in a row and until one succeeds.
    pub fn message(&self) -> Option<String> {
        self.lock().as_ref().filter(|ongoing| ongoing.calls >= SEVERAL).map(|ongoing| ongoing.message.clone())
    }

    /// A call failed. How many did in a row, when it is time to tell.
    fn goes_on(&self, message: String, now: Duration) -> Option<u64> {
        let mut ongoing = self.lock();
        let (calls, told) = ongoing.as_ref().map_or((1, None), |before| (before.calls + 1, Some(before.told)));
        let due = told.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY);
        let told = told.filter(|_| !due).unwrap_or(now);
        *ongoing = Some(Ongoing { message, calls, told });
        due.then_some(calls)
    }

    /// A call succeeded. Whether one had failed before.
    fn ends(&self) -> bool {
        self.lock().take().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ongoing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to act, as it stands now.
#[derive(Debug, Clone)]
pub struct Tenure {
    clock: Arc<dyn Clock>,
    /// Boot time in nanoseconds; 0 without the right.
    until: Arc<AtomicU64>,
}

impl Tenure {
    /// Whether effects may be performed.
    pub fn may_act(&self) -> bool {
        self.clock.boot() < Duration::from_nanos(self.until.load(Ordering::Acquire))
    }

    fn set(&self, until: Option<Duration>) {
        let nanos = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.until.store(nanos, Ordering::Release);
    }
}

/// A leadership that has begun.
#[derive(Debug)]
#[must_use = "the time that nobody led is remembered until it is `recovered`"]
pub struct Term {
    /// When the last leader that had judged everything renewed last, by its own wall clock; `None` when there was none.
    pub unled_since: Option<Timestamp>,
    /// How long nobody led, by this machine's wall clock; zero when there was no leader before.
    pub gap: Duration,
    /// When that leader had acted last at the latest: it may have acted for as long as its last renewal lasted.
    pub acted_until: Option<Timestamp>,
    /// What the last few leaders left ([`Elector::leaving`]) where that differs, the latest first.
    pub left: Vec<String>,
    recovered: Arc<AtomicBool>,
}

impl Term {
    /// Everything that may have happened while nobody led is judged and stored: the next leader starts from here.
    pub fn recovered(self) {
        self.recovered.store(true, Ordering::Release);
    }
}

/// How holding the lease ended.
#[derive(Debug)]
pub enum Ended {
    /// Given away as asked; another may lead at once.
    Released,
    /// Could not be given away: others wait for it to run out.
    Unreleased(ApiError),
    /// Taken by another, or not renewed in time. What it led must not go on.
    Lost,
}

impl Elector {
    /// An elector for `namespace/name`. `identity` differs from every other process's, earlier ones included.
    pub fn new(
        calls: Calls,
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
        params: Params,
    ) -> Self {
        let identity = identity.into();
        let tenure = Tenure { clock: Arc::clone(calls.clock()), until: Arc::default() };
        Self {
            calls: calls.with_deadline(CALL_DEADLINE).regardless(),
            namespace: namespace.into(),
            name: name.into(),
            candidate: Candidate::new(identity.clone(), params),
            identity,
            params,
            object: None,
            former: None,
            unled_since: None,
            word: None,
            left: Vec::new(),
            tenure,
            recovered: Arc::default(),
            trouble: Trouble::default(),
        }
    }

    /// The lease takes the place of another one: where it does not exist yet, the other's times say how long nobody led.
    /// The other is read once and never written; a missing right to read it is taken for its absence.
    #[must_use]
    pub fn after(mut self, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let former = (namespace.into(), name.into());
        self.former = (former != (self.namespace.clone(), self.name.clone())).then_some(former);
        self
    }

    /// Leaves `word` for later leaders: at most 4 KiB that say by what this one acts.
    #[must_use]
    pub fn leaving(mut self, word: impl Into<String>) -> Self {
        self.word = Some(word.into()).filter(|word| word.len() <= MAX_WORD);
        self
    }

    /// What keeps the election from going on.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// The right to act, to be asked before each effect.
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Waits for the lease; `None` when stopped before.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> Option<Term> {
        loop {
            let now = self.boot();
            let step = self.candidate.step(now);
            let work = async {
                match &step {
                    Step::Wait(until) => time::sleep(until.saturating_sub(now)).await,
                    Step::Read | Step::Write { .. } => self.perform(&step).await,
                    // Only a leader steps down.
                    Step::Over => (),
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = work => (),
            }
            if let Some(until) = self.candidate.acts_until() {
                self.tenure.set(Some(until));
                let gap = self.unled_since.map_or(Duration::ZERO, |since| {
                    let passed = self.calls.clock().now().duration_since(since);
                    Duration::try_from(passed).unwrap_or_default()
                });
                tracing::info!(lease = %self.name, identity = %self.identity, ?gap, "leading");
                return Some(Term {
                    unled_since: self.unled_since,
                    gap,
                    acted_until: self.unled_since.and_then(|since| since.checked_add(self.params.duration).ok()),
                    left: self.left.clone(),
                    recovered: Arc::clone(&self.recovered),
                });
            }
        }
    }

    /// Renews the lease until stopped, then gives it away; or until it is lost.
    pub async fn hold(&mut self, shutdown: &CancellationToken) -> Ended {
        loop {
            if shutdown.is_cancelled() {
                return self.release().await;
            }
            let now = self.boot();
            let left = self.candidate.acts_until().unwrap_or_default().saturating_sub(now);
            match self.candidate.step(now) {
                Step::Over => {
                    self.tenure.set(None);
                    tracing::warn!(lease = %self.name, identity = %self.identity, "the lease is lost");
                    return Ended::Lost;
                }
                Step::Wait(until) => {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => (),
                        () = time::sleep(until.saturating_sub(now)) => (),
                    }
                }
                // A call under way when the shutdown comes is finished: its answer names the version that is released.
                step @ (Step::Read | Step::Write { .. }) => {
                    tokio::select! {
                        biased;
                        () = time::sleep(left) => (),
                        () = self.perform(&step) => self.tenure.set(self.candidate.acts_until()),
                    }
                }
            }
        }
    }

    /// Gives the lease away. Nothing may be acting any more.
    async fn release(&mut self) -> Ended {
        self.tenure.set(None);
        let mut last = None;
        for _ in 0..2 {
            let Some(mut lease) = self.object.clone() else {
                return Ended::Released;
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ended::Released;
            }
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(self.calls.clock().now()));
            self.settle(&mut lease);
            match self
                .calls
                .replace::<Lease>(&Target::of::<Lease>(), "release the lease", &self.namespace, &self.name, &lease)
                .await
            {
                Ok(_) => return Ended::Released,
                Err(error) => last = Some(error),
            }
            match self.fetch().await {
                Ok(lease) => self.object = lease,
                Err(error) => return Ended::Unreleased(error),
            }
        }
        last.map_or(Ended::Released, Ended::Unreleased)
    }

    /// Performs one call and takes in what it came to.
    async fn perform(&mut self, step: &Step) {
        let began = self.boot();
        let result = match step {
            Step::Write { over, acquires } => self.write(over.as_deref(), *acquires).await.map(|lease| {
                let record = self.record(&lease);
                self.object = Some(lease);
                self.candidate.wrote(record, began, self.boot());
            }),
            Step::Read | Step::Wait(_) | Step::Over => self.fetch().await.map(|lease| {
                let record = lease.as_ref().map(|lease| self.record(lease));
                self.object = lease;
                self.candidate.read(record, self.boot());
            }),
        };
        let now = self.boot();
        let Err(error) = result else {
            // A read that a write must follow says nothing about the write.
            let goes_on = matches!(step, Step::Write { .. }) || matches!(self.candidate.step(now), Step::Wait(_));
            if goes_on && self.trouble.ends() {
                tracing::info!(lease = %self.name, namespace = %self.namespace, "the election goes on");
            }
            return;
        };
        match error.kind {
            ApiErrorKind::Conflict | ApiErrorKind::AlreadyExists | ApiErrorKind::NotFound
                if matches!(step, Step::Write { .. }) =>
            {
                self.candidate.refused(now);
            }
            _ => {
                let calls = self.trouble.goes_on(error.to_string(), now);
                if let Some(calls) = calls {
                    let namespace = &self.namespace;
                    tracing::warn!(lease = %self.name, %namespace, calls, %error, "the election is interrupted");
                }
                self.candidate.failed(now);
            }
        }
    }

    /// The lease before this one.
    async fn former_lease(&self) -> Result<Option<Lease>, ApiError> {
        let Some((namespace, name)) = &self.former else { return Ok(None) };
        match self.calls.get::<Lease>(&Target::of::<Lease>(), "read the former lease", namespace, name).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if matches!(error.class, Class::Retry | Class::RetryAfter(_)) => Err(error),
            Err(error) => {
                tracing::debug!(lease = name, %namespace, %error, "there is no former lease");
                Ok(None)
            }
        }
    }

    async fn fetch(&self) -> Result<Option<Lease>, ApiError> {
        self.calls.get::<Lease>(&Target::of::<Lease>(), "read the lease", &self.namespace, &self.name).await.or_absent()
    }

    async fn write(&mut self, over: Option<&str>, acquires: bool) -> Result<Lease, ApiError> {
        let now = MicroTime(self.calls.clock().now());
        let mut lease = match (&self.object, over) {
            (Some(lease), Some(_)) => lease.clone(),
            _ => Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            },
        };
        lease.metadata.resource_version = over.map(str::to_owned);
        lease.metadata.managed_fields = None;
        if acquires {
            let former = if over.is_some() { Some(lease.clone()) } else { self.former_lease().await? };
            self.unled_since = former.as_ref().and_then(|former| unled_since(former, &self.identity));
            self.left = former.as_ref().map(left_by).unwrap_or_default();
            self.left.retain(|word| self.word.as_ref() != Some(word));
            self.left.truncate(MAX_LEFT - 1);
            if let Some(word) = &self.word {
                let all: Vec<&String> = std::iter::once(word).chain(&self.left).collect();
                // Texts have a JSON form.
                let all = serde_json::to_string(&all).unwrap_or_default();
                lease.metadata.annotations.get_or_insert_default().insert(ANNOTATION_LEFT_BY.to_owned(), all);
            }
            if let Some(since) = self.unled_since {
                let annotations = lease.metadata.annotations.get_or_insert_default();
                annotations.insert(ANNOTATION_UNLED_SINCE.to_owned(), since.to_string());
            }
        } else {
            self.settle(&mut lease);
        }
        let LeaseSpec { holder_identity, lease_duration_seconds, acquire_time, renew_time, lease_transitions, .. } =
            lease.spec.get_or_insert_default();
        if acquires {
            *acquire_time = Some(now.clone());
            *lease_transitions = Some(lease_transitions.unwrap_or_default().saturating_add(1));
        }
        *holder_identity = Some(self.identity.clone());
        *lease_duration_seconds = i32::try_from(self.params.duration.as_secs()).ok();
        *renew_time = Some(now);
        let (namespace, name) = (&self.namespace, &self.name);
        match over {
            Some(_) => self.calls.replace(&Target::of::<Lease>(), "write the lease", namespace, name, &lease).await,
            None => self.calls.create(&Target::of::<Lease>(), "create the lease", namespace, &lease).await,
        }
    }

    /// Forgets the time that nobody led, once it is dealt with.
    fn settle(&self, lease: &mut Lease) {
        if self.recovered.load(Ordering::Acquire)
            && let Some(annotations) = &mut lease.metadata.annotations
        {
            annotations.remove(ANNOTATION_UNLED_SINCE);
        }
    }

    fn record(&self, lease: &Lease) -> Record {
        let spec = lease.spec.as_ref();
        let seconds = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds.min(MAX_DURATION)).ok());
        Record {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
            duration: seconds.map_or(self.params.duration, Duration::from_secs),
            version: lease.metadata.resource_version.clone(),
        }
    }

    fn boot(&self) -> Duration {
        self.calls.clock().boot()
    }
}

/// What leaders have left in the lease, as far as it can be read.
fn left_by(lease: &Lease) -> Vec<String> {
    let annotation = lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_LEFT_BY));
    let words: Vec<String> = annotation.and_then(|words| serde_json::from_str(words).ok()).unwrap_or_default();
    words.into_iter().filter(|word| word.len() <= MAX_WORD).collect()
}

/// Since when nobody has led and judged, as the lease tells before it is taken. An acquisition of ours whose answer was
/// lost has left it in the annotation, as has a leader that died before it had judged.
fn unled_since(lease: &Lease, identity: &str) -> Option<Timestamp> {
    let noted = lease
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(ANNOTATION_UNLED_SINCE)?.parse().ok());
    let spec = lease.spec.as_ref()?;
    noted.or_else(|| {
        let ours = spec.holder_identity.as_deref() == Some(identity);
        (!ours).then(|| spec.renew_time.as_ref().map(|time| time.0)).flatten()
    })
}

#[cfg(test)]
mod tests;
