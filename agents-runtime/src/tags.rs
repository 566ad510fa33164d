//! Which objects carry a tag: the index behind look-ups without a name.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::{
    id::{Id, Key},
    look::Tag,
};

/// Tags of objects as they were seen last.
#[derive(Debug, Default)]
pub struct Tags(Mutex<Both>);

/// The same from both ends.
#[derive(Debug, Default)]
struct Both {
    of: HashMap<Id, BTreeSet<Tag>>,
    carriers: HashMap<Tag, BTreeSet<Key>>,
}

impl Tags {
    /// From now on `id` carries these. Answers with those that it carries or has carried until now: whoever looked one of
    /// them up is concerned.
    pub fn set(&self, id: &Id, tags: BTreeSet<Tag>) -> BTreeSet<Tag> {
        let mut both = self.both();
        if tags.is_empty() && !both.of.contains_key(id) {
            return tags;
        }
        let former = both.of.remove(id).unwrap_or_default();
        for gone in former.difference(&tags) {
            if let Some(carriers) = both.carriers.get_mut(gone) {
                carriers.remove(&id.key);
                if carriers.is_empty() {
                    both.carriers.remove(gone);
                }
            }
        }
        for new in tags.difference(&former) {
            both.carriers.entry(new.clone()).or_default().insert(id.key.clone());
        }
        let all = former.union(&tags).cloned().collect();
        if !tags.is_empty() {
            both.of.insert(id.clone(), tags);
        }
        all
    }

    /// Those that carry it.
    pub fn carriers(&self, tag: &Tag) -> Vec<Key> {
        self.both().carriers.get(tag).into_iter().flatten().cloned().collect()
    }

    /// A panic while the lock was held leaves at most one object out, which its next change puts back.
    fn both(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_while_it_is_carried_and_once_more_when_it_is_dropped() {
        let tags = Tags::default();
        let id = Id::new("SignalDelivery", Key::new("ns", "d"));
        let tag = |value: &str| Tag { kind: "SignalDelivery", namespace: "ns".into(), name: "of", value: value.into() };
        assert_eq!(tags.set(&id, BTreeSet::from([tag("a"), tag("b")])), BTreeSet::from([tag("a"), tag("b")]));
        assert_eq!(tags.set(&id, BTreeSet::from([tag("b"), tag("c")])), BTreeSet::from([tag("a"), tag("b"), tag("c")]));
        assert_eq!((tags.carriers(&tag("a")), tags.carriers(&tag("c"))), (vec![], vec![id.key.clone()]));
        assert_eq!(tags.set(&id, BTreeSet::new()), BTreeSet::from([tag("b"), tag("c")]));
        assert_eq!(tags.set(&id, BTreeSet::new()), BTreeSet::new());
        assert!(tags.both().of.is_empty() && tags.both().carriers.is_empty());
    }
}
