//! Which changes of an object that runs refer to are news for them.
//!
//! Decisions read the spec of an Agent, a provider and a work item, and nothing else of them: a status that is written, a
//! label or an annotation changes none. So what is kept of each object is what tells one spec from another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agents_core::api::{Kind, Resource};

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
    pub(super) fn changed_by<K: Kind>(&self, change: &Change<Resource<K>>) -> bool {
        let (key, meaning) = match change {
            Change::Seen(key, object) => {
                let uid = object.metadata.uid.as_str().into();
                (key, object.metadata.generation.map(|generation| Meaning::Read { uid, generation }))
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
