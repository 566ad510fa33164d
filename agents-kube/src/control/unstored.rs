//! What the controller remembers of runs whose status does not say everything: attempts it handed over or saw that are
//! not recorded, and statuses that could not be stored.
//!
//! One entry per such run and none for any other, so its size is that of the work under way.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::{decide::agent_run::Unstored, name::SubmissionKey};
use agents_runtime::adapter::Class;

use crate::{client::ApiError, watch::Key};

/// What is remembered of all runs.
#[derive(Debug, Default)]
pub(crate) struct Unrecorded(Mutex<BTreeMap<Key, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    /// What was handed over or seen, with the digest of its plan where this replica handed it over.
    handed_over: BTreeMap<SubmissionKey, Option<String>>,
    unstored: Option<Unstored>,
}

impl Unrecorded {
    /// The submission was seen, and its status does not record it.
    pub(super) fn seen(&self, key: &Key, of: SubmissionKey) {
        self.entries().entry(key.clone()).or_default().handed_over.entry(of).or_default();
    }

    /// The submission was handed over with a plan of this digest.
    pub(super) fn handed_over(&self, key: &Key, of: SubmissionKey, plan_digest: Option<String>) {
        self.entries().entry(key.clone()).or_default().handed_over.insert(of, plan_digest);
    }

    /// Of all other submissions of the run, or of another run of its name, nothing is left to be recorded.
    pub(super) fn keep_only(&self, key: &Key, of: &SubmissionKey) {
        self.change(key, |entry| entry.handed_over.retain(|known, _| known == of));
    }

    /// Of the run nothing is left to be recorded.
    pub(super) fn settled(&self, key: &Key) {
        self.change(key, |entry| entry.handed_over.clear());
    }

    /// A status was stored.
    pub(super) fn stored(&self, key: &Key) {
        self.change(key, |entry| entry.unstored = None);
    }

    /// The status could not be stored, although the run had not changed.
    pub(super) fn unstored(&self, key: &Key, error: &ApiError) {
        let refused = matches!(error.class, Class::WaitForChange | Class::Terminal);
        let mut entries = self.entries();
        let last = &mut entries.entry(key.clone()).or_default().unstored;
        let times = last.as_ref().map_or(0, |last| last.times).saturating_add(1);
        *last = Some(Unstored { times, refused, message: error.message.clone() });
    }

    /// The run is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.entries().remove(key);
    }

    /// Whether the submission was handed over or seen, and the digest of its plan.
    pub(super) fn handed_over_of(&self, key: &Key, of: &SubmissionKey) -> (bool, Option<String>) {
        match self.entries().get(key).and_then(|entry| entry.handed_over.get(of)) {
            Some(plan_digest) => (true, plan_digest.clone()),
            None => (false, None),
        }
    }

    /// Why the status of the run could not be stored the last time.
    pub(super) fn unstored_of(&self, key: &Key) -> Option<Unstored> {
        self.entries().get(key).and_then(|entry| entry.unstored.clone())
    }

    /// How many runs have a status that lastingly cannot be stored, and one of them with the reason.
    pub(crate) fn lasting(&self) -> Option<(usize, String)> {
        let entries = self.entries();
        let mut lasting = entries
            .iter()
            .filter_map(|(key, entry)| Some((key, entry.unstored.as_ref().filter(|unstored| unstored.lasts())?)));
        let (key, first) = lasting.next()?;
        Some((lasting.count() + 1, format!("{key}: {}", first.message)))
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(key) {
            change(entry);
            if entry.handed_over.is_empty() && entry.unstored.is_none() {
                entries.remove(key);
            }
        }
    }

    /// Nothing is left half done under this lock.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
