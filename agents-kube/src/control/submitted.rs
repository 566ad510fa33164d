//! Which objects are the attempts that no status has recorded yet: what this process itself knows of them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::runtime::RuntimeRef;

use crate::{runtime::Fingerprint, watch::Key};

/// Uids of the objects that this process has submitted attempts as, or has found to be what it would have submitted,
/// until a status has recorded them; and what it has found to be none.
#[derive(Debug, Default)]
pub struct Submitted {
    known: Mutex<HashMap<Key, (RuntimeRef, String)>>,
    strangers: Mutex<HashMap<Key, Stranger>>,
}

/// A Job in the place of an attempt's that is not the attempt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stranger {
    /// Its uid.
    pub(super) uid: String,
    /// What it executes.
    pub(super) pod: Fingerprint,
    /// Digest of the attempt's plan.
    pub(super) plan: Option<String>,
}

impl Submitted {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, (RuntimeRef, String)>> {
        // A panic while the lock was held leaves at most one entry out, which is found again.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, HashMap<Key, Stranger>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was found to be none of ours.
    pub(super) fn is_stranger(&self, key: &Key, stranger: &Stranger) -> bool {
        self.strangers().get(key) == Some(stranger)
    }

    pub(super) fn remember_stranger(&self, key: &Key, stranger: Stranger) {
        self.strangers().insert(key.clone(), stranger);
    }

    /// The object that the attempt by this name is.
    pub(super) fn uid_of(&self, key: &Key, reference: &RuntimeRef) -> Option<String> {
        let all = self.all();
        let (known, uid) = all.get(key)?;
        (RuntimeRef { uid: None, ..reference.clone() } == *known).then(|| uid.clone())
    }

    pub(super) fn remember(&self, key: &Key, reference: &RuntimeRef, uid: Option<&str>) {
        if let Some(uid) = uid {
            self.all().insert(key.clone(), (RuntimeRef { uid: None, ..reference.clone() }, uid.to_owned()));
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.all().remove(key);
        self.strangers().remove(key);
    }
}
