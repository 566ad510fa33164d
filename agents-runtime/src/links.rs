//! Which objects depend on an object: the one answer to whom a change concerns.
//!
//! An object depends on what its decision looked up. A link stands from before the
//! look-up, so that a change that comes between the two is not lost.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::{id::Id, look::Tag};

/// What a decision can depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// An object, there or not.
    Object(Id),
    /// Which objects carry a tag, and what is in them.
    Tag(Tag),
}

impl Topic {
    /// Of which kind the objects are.
    fn kind(&self) -> &'static str {
        match self {
            Self::Object(id) => id.kind,
            Self::Tag(tag) => tag.kind,
        }
    }
}

/// Links from objects to those that depend on them.
#[derive(Debug, Default)]
pub struct Links(Mutex<Both>);

/// The same links from both ends.
#[derive(Debug, Default)]
struct Both {
    needs: HashMap<Id, BTreeSet<Topic>>,
    dependents: HashMap<Topic, BTreeSet<Id>>,
}

impl Both {
    fn cut(&mut self, id: &Id, former: &Topic) {
        if let Some(dependents) = self.dependents.get_mut(former) {
            dependents.remove(id);
            if dependents.is_empty() {
                self.dependents.remove(former);
            }
        }
    }
}

impl Links {
    /// From now on `id` depends on `needed` too.
    pub fn add(&self, id: &Id, needed: &Topic) {
        let mut links = self.links();
        if links.needs.get(id).is_some_and(|needs| needs.contains(needed)) {
            return;
        }
        links.needs.entry(id.clone()).or_default().insert(needed.clone());
        links.dependents.entry(needed.clone()).or_default().insert(id.clone());
    }

    /// From now on `id` depends on these and no others.
    pub fn set(&self, id: &Id, needed: impl IntoIterator<Item = Topic>) {
        let needed: BTreeSet<Topic> = needed.into_iter().collect();
        let mut links = self.links();
        let former = links.needs.remove(id).unwrap_or_default();
        if former == needed {
            if !former.is_empty() {
                links.needs.insert(id.clone(), former);
            }
            return;
        }
        for former in former.difference(&needed) {
            links.cut(id, former);
        }
        for needed in &needed {
            links.dependents.entry(needed.clone()).or_default().insert(id.clone());
        }
        if !needed.is_empty() {
            links.needs.insert(id.clone(), needed);
        }
    }

    /// Those that depend on this.
    pub fn of(&self, topic: &Topic) -> Vec<Id> {
        self.links().dependents.get(topic).into_iter().flatten().cloned().collect()
    }

    /// Those that depend on an object of this kind.
    pub fn of_kind(&self, kind: &str) -> Vec<Id> {
        let links = self.links();
        let of_kind = links.dependents.iter().filter(|(needed, _)| needed.kind() == kind);
        let mut found: Vec<Id> = of_kind.flat_map(|(_, dependents)| dependents).cloned().collect();
        found.sort();
        found
    }

    /// A panic while the lock was held leaves at most one link out, which its next change puts back.
    fn links(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use agents_core::id::Key;

    use super::*;

    #[test]
    fn a_link_lasts_as_long_as_the_reference() {
        let links = Links::default();
        let id = |kind, name: &str| Id::new(kind, Key::new("ns", name));
        let topic = |kind, name: &str| Topic::Object(id(kind, name));
        links.set(&id("Agent", "a"), [topic("AgentProvider", "p")]);
        links.add(&id("Agent", "b"), &topic("AgentProvider", "p"));
        assert_eq!(links.of(&topic("AgentProvider", "p")), [id("Agent", "a"), id("Agent", "b")]);
        links.set(&id("Agent", "a"), [topic("AgentProvider", "q")]);
        assert_eq!(links.of(&topic("AgentProvider", "p")), [id("Agent", "b")]);
        assert_eq!(links.of_kind("AgentProvider"), [id("Agent", "a"), id("Agent", "b")]);
        links.set(&id("Agent", "b"), []);
        assert_eq!(links.of(&topic("AgentProvider", "p")), []);
        links.set(&id("Agent", "a"), []);
        assert!(links.links().needs.is_empty() && links.links().dependents.is_empty());
    }
}
