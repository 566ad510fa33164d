//! What a watch has seen, with our own writes laid over it. Pure: no clock, no call; moments are passed in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Change, Key, Projection, Slot, freshness::Freshness, version::Version};

/// Keys that have left and are remembered, so that a repeated older event does not bring them back.
const MAX_LEFT: usize = 4096;

/// What an event says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It is in the set, in this state.
    Present,
    /// It is not in the set any more.
    Left,
}

/// An object as it came, decoded or not.
#[derive(Debug, Clone)]
pub(super) struct Seen<P> {
    pub(super) key: Key,
    pub(super) uid: Arc<str>,
    pub(super) version: Version,
    pub(super) slot: Slot<P>,
    /// About how much is kept of it, in bytes.
    pub(super) weight: usize,
}

#[derive(Debug)]
struct Entry<P> {
    uid: Arc<str>,
    version: Version,
    slot: Slot<P>,
    weight: usize,
    /// When its uid was heard first.
    heard: Duration,
    /// The list that has seen it last.
    generation: u64,
}

#[derive(Debug)]
enum Overlay<P> {
    /// Our write, or a consistent read.
    Object(Arc<P>, Version, Duration),
    /// A consistent read that found nothing, although the watch knew this uid.
    Gone(Arc<str>, Duration),
}

#[derive(Debug)]
pub(super) struct Store<P> {
    entries: BTreeMap<Key, Entry<P>>,
    overlays: HashMap<Key, Overlay<P>>,
    left: HashMap<Key, Version>,
    doubtful: BTreeSet<Key>,
    position: Option<Version>,
    received: Option<Duration>,
    generation: u64,
    pub(super) freshness: Freshness,
}

impl<P> Default for Store<P> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            overlays: HashMap::new(),
            left: HashMap::new(),
            doubtful: BTreeSet::new(),
            position: None,
            received: None,
            generation: 0,
            freshness: Freshness::default(),
        }
    }
}

impl<P: Projection> Store<P> {
    /// A list begins; what it does not name has left when it ends.
    pub(super) fn begin_list(&mut self) {
        self.generation += 1;
    }

    /// An object of the list.
    pub(super) fn listed(&mut self, seen: Seen<P>, now: Duration) -> Option<Change<P>> {
        let Seen { key, uid, version, slot, weight } = self.compared(seen);
        let heard = self.heard(&key, &uid, now);
        let entry = Entry { uid, version, slot, weight, heard, generation: self.generation };
        let change = match self.entries.get(&key) {
            Some(old) if old.version == entry.version && old.uid == entry.uid => None,
            _ => Some(entry.slot.change(key.clone())),
        };
        self.entries.insert(key, entry);
        change
    }

    /// The list, consistent at `version` and begun at `began`, is complete.
    pub(super) fn end_list(&mut self, version: Version, began: Duration, now: Duration) -> Vec<Change<P>> {
        let generation = self.generation;
        let mut changes = Vec::new();
        self.entries.retain(|key, entry| {
            let kept = entry.generation == generation;
            if !kept {
                changes.push(Change::Left(key.clone(), entry.slot.object().cloned()));
            }
            kept
        });
        self.left.clear();
        // The list began after these were written, so it shows them or what came after them.
        self.overlays.retain(|_, overlay| match overlay {
            Overlay::Object(_, _, at) | Overlay::Gone(_, at) => *at > began,
        });
        self.freshness.relisted(&version, began);
        self.received = Some(now);
        self.drop_reached(&version);
        self.position = Some(version);
        changes
    }

    /// An event of the watch. Repeated and older ones change nothing.
    pub(super) fn event(&mut self, said: Said, seen: Seen<P>, now: Duration) -> Option<Change<P>> {
        let Seen { key, uid, version, slot, weight } = self.compared(seen);
        let known = self.entries.get(&key);
        let stale = match (said, known) {
            (Said::Present, Some(entry)) => entry.version.reaches(&version) == Some(true),
            (Said::Present, None) => self.left.get(&key).is_some_and(|left| left.reaches(&version) == Some(true)),
            (Said::Left, Some(entry)) => entry.version != version && entry.version.reaches(&version) == Some(true),
            (Said::Left, None) => true,
        };
        let change = match (said, stale) {
            (_, true) => None,
            (Said::Present, false) => {
                let change = slot.change(key.clone());
                self.left.remove(&key);
                let heard = self.heard(&key, &uid, now);
                let generation = self.generation;
                let entry = Entry { uid, version: version.clone(), slot, weight, heard, generation };
                self.entries.insert(key.clone(), entry);
                Some(change)
            }
            (Said::Left, false) => {
                let last = self.entries.remove(&key).and_then(|entry| entry.slot.object().cloned());
                if self.left.len() >= MAX_LEFT {
                    self.left.clear();
                }
                self.left.insert(key.clone(), version.clone());
                Some(Change::Left(key.clone(), slot.object().cloned().or(last)))
            }
        };
        if let Some(Overlay::Gone(gone, _)) = self.overlays.get(&key)
            && self.entries.get(&key).is_none_or(|entry| entry.uid != *gone)
        {
            self.overlays.remove(&key);
        }
        self.reach(&version, now);
        change
    }

    /// With what only the state known before shows of it.
    fn compared(&self, mut seen: Seen<P>) -> Seen<P> {
        if let Some(known) = self.known(&seen.key, &seen.uid) {
            seen.slot.beside(known);
        }
        seen
    }

    /// What is known of this very object, by the watch or by a read.
    fn known<'a>(&'a self, key: &Key, uid: &str) -> Option<&'a P> {
        let found = match self.overlays.get(key) {
            Some(Overlay::Object(object, _, _)) => Some(object),
            Some(Overlay::Gone(..)) | None => self.entries.get(key).and_then(|entry| entry.slot.object()),
        };
        found.map(AsRef::as_ref).filter(|found| found.identity().uid == uid)
    }

    fn heard(&self, key: &Key, uid: &Arc<str>, now: Duration) -> Duration {
        self.entries.get(key).filter(|entry| entry.uid == *uid).map_or(now, |entry| entry.heard)
    }

    /// The watch has come as far as `version`.
    pub(super) fn reach(&mut self, version: &Version, now: Duration) {
        self.received = Some(now);
        self.freshness.reach(version);
        self.drop_reached(version);
        let ahead = self.position.as_ref().and_then(|position| position.reaches(version));
        if ahead != Some(true) {
            self.position = Some(version.clone());
        }
    }

    /// Takes in the answer to a write of ours that named the version `over`, or made the object: if it has changed the
    /// object, its version was the newest of all.
    pub(super) fn wrote(&mut self, object: P, over: Option<&str>, began: Duration, now: Duration) -> Arc<P> {
        let version = Version::parse(object.identity().resource_version);
        self.freshness.wrote(over.map(Version::parse).as_ref(), &version, began);
        self.overlay(object, now)
    }

    /// Lays our own write, or a consistent read, over the watch until the watch has come as far. The version of what was
    /// read is of the object's last change: it proves nothing of others.
    pub(super) fn overlay(&mut self, mut object: P, now: Duration) -> Arc<P> {
        let identity = object.identity();
        let key = Key::new(identity.namespace, identity.name);
        let version = Version::parse(identity.resource_version);
        if let Some(known) = self.known(&key, identity.uid) {
            object.beside(known);
        }
        let object = Arc::new(object);
        self.doubtful.remove(&key);
        let reached = self.position.as_ref().and_then(|position| position.reaches(&version)) == Some(true)
            || self.entries.get(&key).is_some_and(|entry| entry.version.reaches(&version) == Some(true));
        let newer = match self.overlays.get(&key) {
            Some(Overlay::Object(_, other, _)) => other.reaches(&version) == Some(true),
            Some(Overlay::Gone(..)) | None => false,
        };
        if !reached && !newer {
            let kept = object.kept().map_or_else(|| Arc::clone(&object), Arc::new);
            self.overlays.insert(key, Overlay::Object(kept, version, now));
        }
        object
    }

    /// A consistent read that left after `began` found nothing. What was heard since may be another object of the name.
    pub(super) fn gone(&mut self, key: &Key, began: Duration, now: Duration) {
        self.doubtful.remove(key);
        self.overlays.remove(key);
        if let Some(entry) = self.entries.get(key).filter(|entry| entry.heard <= began) {
            self.overlays.insert(key.clone(), Overlay::Gone(Arc::clone(&entry.uid), now));
        }
    }

    /// A write of ours to this object may or may not have happened.
    pub(super) fn doubt(&mut self, key: Key) {
        self.doubtful.insert(key);
    }

    pub(super) fn is_doubtful(&self, key: &Key) -> bool {
        self.doubtful.contains(key)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Slot<P>> {
        match self.overlays.get(key) {
            Some(Overlay::Object(object, _, _)) => Some(Slot::Read(Arc::clone(object))),
            Some(Overlay::Gone(..)) => None,
            None => self.entries.get(key).map(|entry| entry.slot.clone()),
        }
    }

    /// Every readable object, our own writes included.
    pub(super) fn objects(&self) -> Vec<Arc<P>> {
        self.merged(self.entries.iter(), |_| true)
    }

    /// The same of one namespace.
    pub(super) fn objects_in(&self, namespace: &str) -> Vec<Arc<P>> {
        let first = Key::new(namespace, "");
        let watched = self.entries.range(first..).take_while(|(key, _)| key.namespace == namespace);
        self.merged(watched, |key| key.namespace == namespace)
    }

    /// What was watched with our own writes over it, and what was only written.
    fn merged<'a>(
        &self,
        watched: impl Iterator<Item = (&'a Key, &'a Entry<P>)>,
        wanted: impl Fn(&Key) -> bool,
    ) -> Vec<Arc<P>> {
        let watched = watched.filter_map(|(key, entry)| match self.overlays.get(key) {
            Some(Overlay::Object(object, _, _)) => Some(Arc::clone(object)),
            Some(Overlay::Gone(..)) => None,
            None => entry.slot.object().cloned(),
        });
        let written = self.overlays.iter().filter_map(|(key, overlay)| match overlay {
            Overlay::Object(object, _, _) if wanted(key) && !self.entries.contains_key(key) => Some(Arc::clone(object)),
            Overlay::Object(..) | Overlay::Gone(..) => None,
        });
        watched.chain(written).collect()
    }

    /// About how much is kept of each namespace, in bytes.
    pub(super) fn weights(&self) -> BTreeMap<String, usize> {
        let mut weights = BTreeMap::new();
        for (key, entry) in &self.entries {
            // Keys are in order, so that a name is copied once.
            match weights.get_mut(&key.namespace) {
                Some(sum) => *sum += entry.weight,
                None => {
                    weights.insert(key.namespace.clone(), entry.weight);
                }
            }
        }
        weights
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn position(&self) -> Option<&Version> {
        self.position.as_ref()
    }

    pub(super) fn received(&self) -> Option<Duration> {
        self.received
    }

    /// The version is too old for the API server: only a list helps.
    pub(super) fn lose_position(&mut self) {
        self.position = None;
    }

    fn drop_reached(&mut self, version: &Version) {
        if self.overlays.is_empty() {
            return;
        }
        self.overlays.retain(|_, overlay| match overlay {
            Overlay::Object(_, own, _) => version.reaches(own) != Some(true),
            Overlay::Gone(..) => true,
        });
    }
}
