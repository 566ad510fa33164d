//! Which changes of an object are news for those that depend on it.
//!
//! Decisions read the spec of what they refer to, and nothing else of it: a status that is written, a label or an
//! annotation changes none. So what is kept of each object is what tells one spec from another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::cached::Cached;
use crate::watch::{Change, Key};

/// What decisions can tell of an object.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// This object, with the spec of this generation.
    Read { uid: Box<str>, generation: i64 },
    /// It cannot be read, and why.
    Unreadable(Arc<str>),
}

/// The meaning of each object of a kind, as it was told last.
#[derive(Debug, Default)]
pub(super) struct Meanings(Mutex<HashMap<Key, Meaning>>);

impl Meanings {
    /// Takes a change in; whether decisions can tell it.
    pub(super) fn changed_by(&self, change: &Change<Cached>) -> bool {
        let (key, meaning) = match change {
            Change::Seen(key, object) => {
                let uid = object.uid().into();
                (key, object.generation().map(|generation| Meaning::Read { uid, generation }))
            }
            Change::Unreadable(key, why) => (key, Some(Meaning::Unreadable(Arc::clone(why)))),
            Change::Left(key, _) => (key, None),
        };
        let mut known = self.known();
        let Some(meaning) = meaning else {
            known.remove(key);
            return true;
        };
        let same = known.get(key) == Some(&meaning);
        known.insert(key.clone(), meaning);
        !same
    }

    /// Nothing is left half done under this lock.
    fn known(&self) -> MutexGuard<'_, HashMap<Key, Meaning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
