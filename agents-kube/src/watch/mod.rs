//! Our own list-watch, for the resources that irreversible decisions rest on.
//!
//! kube's watcher swallows the versions of bookmarks and lists, without which the age of a cache cannot be proven, and
//! decodes whole objects. This one decodes [`Projection`]s straight from the bytes, keeps what it cannot decode as
//! unreadable instead of failing, tells "left the set" from "gone", lays our own writes over what was watched, and
//! proves its age ([`Freshness`]).
//!
//! Which object an event is about is read from its projection; a fault in one object never ends the watch.

mod freshness;
mod lines;
mod run;
mod store;
mod version;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agents_core::api::{Kind, Resource};
pub use agents_core::id::Key;
use serde::de::DeserializeOwned;
use tokio::sync::{self, watch};

use self::store::Store;
pub use self::{
    freshness::{Freshness, MARK_EVERY, MAX_AGE},
    version::Version,
};
use crate::{
    client::{ApiError, Calls, Scope, Target},
    object::Object,
};

/// Which object, and which state of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Namespace; empty for objects without one.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Unique id.
    pub uid: &'a str,
    /// Version; empty when unknown, which compares as unknown.
    pub resource_version: &'a str,
}

/// The part of an object that a cache keeps, decoded from the object's own JSON.
///
/// It names the fields it reads and ignores all others, so that a newer API server does not break it.
pub trait Projection: DeserializeOwned + Debug + Send + Sync + 'static {
    /// Which object, and which state of it.
    fn identity(&self) -> Identity<'_>;

    /// The smaller copy that is kept of a large object; `None` of one that is kept whole.
    fn kept(&self) -> Option<Self> {
        None
    }

    /// Takes over what only another state of the same object shows, such as that a field was changed. Which of the two is
    /// older is not said.
    fn beside(&mut self, other: &Self) {
        let _ = other;
    }

    /// About how much is kept of what was `received` bytes of JSON, in bytes.
    fn weight(&self, received: usize) -> usize {
        let _ = received;
        size_of::<Self>()
    }
}

impl<K: Kind> Projection for Resource<K> {
    fn identity(&self) -> Identity<'_> {
        Identity {
            namespace: &self.metadata.namespace,
            name: &self.metadata.name,
            uid: &self.metadata.uid,
            resource_version: self.metadata.resource_version.as_deref().unwrap_or_default(),
        }
    }

    fn kept(&self) -> Option<Self> {
        K::kept(self)
    }

    fn weight(&self, received: usize) -> usize {
        let left_out = self.metadata.left_out.as_ref().map_or(0, |left_out| left_out.bytes);
        size_of::<Self>() + received.saturating_sub(left_out)
    }
}

impl<K: Kind> Projection for Object<K> {
    fn identity(&self) -> Identity<'_> {
        let metadata = &self.metadata;
        Identity {
            namespace: metadata.namespace.as_deref().unwrap_or_default(),
            name: metadata.name.as_deref().unwrap_or_default(),
            uid: metadata.uid.as_deref().unwrap_or_default(),
            resource_version: metadata.resource_version.as_deref().unwrap_or_default(),
        }
    }
}

/// What the cache holds for a key.
#[derive(Debug)]
pub enum Slot<P> {
    /// The object.
    Read(Arc<P>),
    /// The object exists and cannot be decoded; why, without its values.
    Unreadable(Arc<str>),
}

impl<P> Clone for Slot<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Read(object) => Self::Read(Arc::clone(object)),
            Self::Unreadable(why) => Self::Unreadable(Arc::clone(why)),
        }
    }
}

impl<P> Slot<P> {
    /// The object, if it can be read.
    pub fn object(&self) -> Option<&Arc<P>> {
        match self {
            Self::Read(object) => Some(object),
            Self::Unreadable(_) => None,
        }
    }

    fn beside(&mut self, other: &P)
    where
        P: Projection,
    {
        // Nobody else has it yet: it is what an answer was decoded into.
        if let Self::Read(object) = self
            && let Some(object) = Arc::get_mut(object)
        {
            object.beside(other);
        }
    }

    fn change(&self, key: Key) -> Change<P> {
        match self {
            Self::Read(object) => Change::Seen(key, Arc::clone(object)),
            Self::Unreadable(why) => Change::Unreadable(key, Arc::clone(why)),
        }
    }
}

/// News from a watch, told after the cache holds it.
#[derive(Debug)]
pub enum Change<P> {
    /// The object is new or has changed.
    Seen(Key, Arc<P>),
    /// The object is new or has changed, and cannot be decoded; why, without its values.
    Unreadable(Key, Arc<str>),
    /// The object is not in the watched set any more, with its last known state. Under a selector it may live on:
    /// nothing is concluded from this without a write of our own or one read.
    Left(Key, Option<Arc<P>>),
}

impl<P> Change<P> {
    /// Which object.
    pub fn key(&self) -> &Key {
        match self {
            Self::Seen(key, _) | Self::Unreadable(key, _) | Self::Left(key, _) => key,
        }
    }
}

/// How a watch behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Most objects on a page of a list; fewer where they are large.
    pub page: u32,
    /// How long the API server keeps a watch open at most; up to a tenth less, so that watches do not end together.
    pub open_for: Duration,
    /// How long a list is followed by watches alone: an event that was never delivered is found by the next list.
    pub trusted_for: Duration,
    /// Silence after which a watch counts as dead. A healthy one has a bookmark every two minutes at the latest.
    pub silence: Duration,
    /// Whether the kind may be missing, or hidden, for good: that is told once, and looked for more and more seldom.
    pub may_be_absent: bool,
    /// Spreads what would otherwise coincide.
    pub seed: u64,
}

impl Settings {
    /// The usual settings.
    pub fn seeded(seed: u64) -> Self {
        Self {
            page: 500,
            open_for: Duration::from_secs(290),
            trusted_for: Duration::from_secs(1800),
            silence: Duration::from_secs(150),
            may_be_absent: false,
            seed,
        }
    }
}

/// How a watch is doing, for health pages and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether the first list is complete.
    pub synced: bool,
    /// Objects in the cache.
    pub objects: usize,
    /// Version reached, and when it was received in boot time.
    pub proof: Option<(Version, Duration)>,
    /// How old the cache can be at most, if that is proven.
    pub age: Option<Duration>,
    /// Why the last list or watch failed, until one succeeds.
    pub trouble: Option<String>,
}

/// A watched set of objects of one kind, kept as projections `P`.
///
/// # Expected flow
/// One task runs [`Watch::run`]; everyone else reads. Each answer to a write of ours goes through [`Watch::wrote`] and
/// each consistent read through [`Watch::read_back`], both with the boot time from before the request.
///
/// # Guarantees
/// A read after `wrote` gives that state or a later one. `age` is never less than the truth.
pub struct Watch<P> {
    target: Target,
    calls: Calls,
    scope: Scope,
    settings: Settings,
    store: Mutex<Store<P>>,
    trouble: Mutex<Option<String>>,
    synced: watch::Sender<bool>,
    proving: sync::Mutex<()>,
}

impl<P> Debug for Watch<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("target", &self.target)
            .field("scope", &self.scope)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<P: Projection> Watch<P> {
    /// A watch that does nothing until it is run.
    pub fn new(target: Target, calls: Calls, scope: Scope, settings: Settings) -> Self {
        Self {
            target,
            calls,
            scope,
            settings,
            store: Mutex::default(),
            trouble: Mutex::default(),
            synced: watch::Sender::new(false),
            proving: sync::Mutex::default(),
        }
    }

    /// What the cache holds for a key, our own writes included.
    pub fn get(&self, key: &Key) -> Option<Slot<P>> {
        self.store().get(key)
    }

    /// Every readable object, our own writes included, in no particular order.
    pub fn objects(&self) -> Vec<Arc<P>> {
        self.store().objects()
    }

    /// The same of one namespace.
    pub fn objects_in(&self, namespace: &str) -> Vec<Arc<P>> {
        self.store().objects_in(namespace)
    }

    /// About how many bytes are kept of each namespace's objects.
    pub fn weights(&self) -> BTreeMap<String, usize> {
        self.store().weights()
    }

    /// Whether the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.store().len() == 0
    }

    /// Ends when the first list is complete.
    pub async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Takes in the answer to a write of ours whose request left after `began`. `over` is the version that the write
    /// named, `None` for one that made the object; the answer to a write that named none is taken in as a read.
    pub fn wrote(&self, object: P, over: Option<&str>, began: Duration) -> Arc<P> {
        let now = self.boot();
        self.store().wrote(object, over, began, now)
    }

    /// Takes in the answer of a consistent read whose request left after `began`; `None` when there is no such object.
    pub fn read_back(&self, key: &Key, object: Option<P>, began: Duration) -> Option<Arc<P>> {
        let now = self.boot();
        let mut store = self.store();
        let Some(object) = object else {
            store.gone(key, began, now);
            return None;
        };
        Some(store.overlay(object, now))
    }

    /// A write to this object may or may not have happened: until it is read back, what the cache says is in doubt.
    pub fn doubt(&self, key: Key) {
        self.store().doubt(key);
    }

    /// Whether a write to this object is unresolved.
    pub fn is_doubtful(&self, key: &Key) -> bool {
        self.store().is_doubtful(key)
    }

    /// The cache holds everything that happened longer ago than this; `None` while nothing is proven.
    pub fn age(&self) -> Option<Duration> {
        let now = self.boot();
        self.store().freshness.age(now)
    }

    /// Whether an irreversible decision may rest on the cache.
    pub fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age <= MAX_AGE)
    }

    /// Sets a mark that proves the cache's age once the watch has come as far, by at most one consistent list of one
    /// object per [`MARK_EVERY`]. Called while undecided work depends on the age; the proof follows with the next event
    /// or bookmark.
    pub async fn prove(&self) -> Result<(), ApiError> {
        let _single = self.proving.lock().await;
        let began = self.boot();
        if !self.store().freshness.wants_list(began) {
            return Ok(());
        }
        // Without the selectors: every object of the resource shares the version, and any one will do.
        let scope = Scope { namespace: self.scope.namespace.clone(), ..Scope::default() };
        let step = "prove the age of the cache";
        let page = self.calls.list(&self.target, step, &scope, 1, None, |_| ()).await?;
        let version = Version::parse(&page.resource_version);
        self.store().freshness.mark_list(&version, began);
        Ok(())
    }

    /// How the watch is doing.
    pub fn health(&self) -> Health {
        let now = self.boot();
        let store = self.store();
        Health {
            synced: *self.synced.borrow(),
            objects: store.len(),
            proof: store.position().cloned().zip(store.received()),
            age: store.freshness.age(now),
            trouble: self.trouble().clone(),
        }
    }

    /// A panic while the lock was held cannot leave the store half changed in a way that a list does not mend.
    fn store(&self) -> MutexGuard<'_, Store<P>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn boot(&self) -> Duration {
        self.calls.clock().boot()
    }
}

#[cfg(test)]
mod tests;
