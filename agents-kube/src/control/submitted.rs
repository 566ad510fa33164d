//! Which objects are the attempts that no status has recorded yet: what this process itself knows of them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::runtime::RuntimeRef;

use crate::watch::Key;

/// Uids of the objects that this process has submitted attempts as, or has found to be what it would have submitted,
/// until a status has recorded them.
#[derive(Debug, Default)]
pub(crate) struct Submitted(Mutex<HashMap<Key, (RuntimeRef, String)>>);

impl Submitted {
    fn all(&self) -> MutexGuard<'_, HashMap<Key, (RuntimeRef, String)>> {
        // A panic while the lock was held leaves at most one entry out, which is found again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    }
}
