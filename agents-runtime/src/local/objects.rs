//! Every object that the local engine holds, of any kind, with whom a change of it concerns. In memory; what must outlast
//! the engine is written by whoever changes it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agents_core::{
    api::{AgentRun, Kind as _, Resource},
    decide::{
        declaration::{Declaration, Referent},
        rules::Rules,
    },
    id::{Id, Key},
    kinds::AnyKind,
    look::{AnyResource, Found, Look, Tag},
    resolve::References,
};
use serde_json::{Map, Value};

use crate::{
    links::{Links, Topic},
    tags::Tags,
};

/// An object and how often it was stored.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: &'static AnyKind,
    pub(super) resource: Arc<AnyResource>,
    version: u64,
}

#[derive(Debug, Default)]
pub(super) struct Objects {
    of: Mutex<BTreeMap<Id, Object>>,
    /// Objects with the number of the last change that concerned them and that no decision has seen to yet.
    open: Mutex<BTreeMap<Id, u64>>,
    links: Links,
    tags: Tags,
}

/// An object that is not executed, with all that its decision depends on.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) id: Id,
    pub(super) declaration: Declaration,
    pub(super) rules: Option<Box<dyn Rules>>,
    /// What was decided upon.
    pub(super) before: Object,
    /// The objects that were found by each tag, in the state they were found in.
    carriers: Vec<(Tag, Carriers)>,
    /// See [`Objects::open`].
    asked: Option<u64>,
}

type Carriers = Vec<(Key, u64)>;

impl Objects {
    /// Takes an object in.
    pub(super) fn insert(&self, id: &Id, resource: Arc<AnyResource>) {
        let Some(kind) = AnyKind::by_name(id.kind) else { return };
        if !kind.executed {
            self.ask(id);
        }
        self.put(&mut self.of(), id, Object { kind, resource, version: 0 });
    }

    /// Everybody whom the change concerns is open from now on.
    fn put(&self, of: &mut BTreeMap<Id, Object>, id: &Id, object: Object) -> BTreeSet<Id> {
        let tags = object.kind.tags(&*object.resource);
        let topics = self.tags.set(id, tags).into_iter().map(Topic::Tag);
        let topics = topics.chain([Topic::Object(id.clone())]);
        of.insert(id.clone(), object);
        let is_over = |object: &Object| object.kind.is_over(&*object.resource);
        let is_news = |other: &Id| other != id && !of.get(other).is_some_and(is_over);
        let concerned: BTreeSet<Id> = topics.flat_map(|topic| self.links.of(&topic)).filter(is_news).collect();
        for other in concerned.iter().filter(|other| !AnyKind::is_executed(other.kind)) {
            self.ask(other);
        }
        concerned
    }

    fn ask(&self, id: &Id) {
        *self.open().entry(id.clone()).or_default() += 1;
    }

    /// Objects that are not executed and were not decided, and stored, since the last change that concerns them.
    pub(super) fn undecided(&self) -> Vec<Id> {
        self.open().keys().cloned().collect()
    }

    /// No decision is wanted before the next change.
    pub(super) fn decided(&self, declared: &Declared) {
        let mut open = self.open();
        if open.get(&declared.id).copied() == declared.asked {
            open.remove(&declared.id);
        }
    }

    /// Objects that are not executed.
    pub(super) fn declared(&self) -> Vec<Id> {
        self.of().keys().filter(|id| !AnyKind::is_executed(id.kind)).cloned().collect()
    }

    /// A run.
    pub(super) fn run(&self, name: &Key) -> Option<Arc<Resource<AgentRun>>> {
        let object = self.of().get(&run_id(name))?.resource.clone();
        object.downcast().ok()
    }

    /// Replaces a run by what `change` makes of it, if anything; answers with whom that concerns.
    pub(super) fn change_run<E>(
        &self,
        name: &Key,
        change: impl FnOnce(&Resource<AgentRun>) -> Result<Option<Resource<AgentRun>>, E>,
    ) -> Result<BTreeSet<Id>, E> {
        let (id, mut of) = (run_id(name), self.of());
        let Some(object) = of.get(&id).cloned() else { return Ok(BTreeSet::new()) };
        let Some(run) = object.resource.downcast_ref() else { return Ok(BTreeSet::new()) };
        let Some(changed) = change(run)? else { return Ok(BTreeSet::new()) };
        let (resource, version) = (Arc::new(changed), object.version + 1);
        Ok(self.put(&mut of, &id, Object { resource, version, ..object }))
    }

    /// What a run refers to; noted where a decision rests on it, and not where somebody only looks again and again.
    pub(super) fn references(&self, run: &Resource<AgentRun>, noted: bool) -> References {
        let id = run_id(&Key::new(&run.metadata.namespace, &run.metadata.name));
        let looked = Looked::new(self, noted.then_some(&id));
        let references = References::of(run, &looked);
        if noted {
            self.links.set(&id, looked.asked.take());
        }
        references
    }

    /// What a decision about an object that is not executed depends on.
    pub(super) fn gather(&self, id: &Id) -> serde_json::Result<Option<Declared>> {
        let asked = self.open().get(id).copied();
        let Some(before) = self.of().get(id).cloned() else { return Ok(None) };
        let Object { kind, resource, version: _ } = &before;
        let over = kind.is_over(&**resource);
        let mut declaration = Declaration {
            generation: kind.metadata(&**resource).and_then(|metadata| metadata.generation),
            deleting: false,
            over,
            status: kind.status(&**resource)?,
            faults: kind.faults(&**resource),
            needs: vec![],
            traits: kind.traits,
        };
        let looked = Looked::new(self, Some(id));
        let mut rules = None;
        if !over {
            let references = kind.references(&**resource);
            if declaration.refer(&id.key.namespace, &references, |id| Some(looked.referent(id))) {
                rules = kind.rules(Arc::clone(resource), &looked);
            }
        }
        self.links.set(id, looked.asked.take());
        let carriers = looked.carriers.take();
        Ok(Some(Declared { id: id.clone(), declaration, rules, before, carriers, asked }))
    }

    /// The object with another status; `None` when something that was decided upon has changed since. Of a kind that is
    /// exclusive nobody else may store before this one is put.
    pub(super) fn with_status(&self, declared: &Declared, status: &Map<String, Value>) -> Option<Object> {
        let Declared { id, declaration: _, rules: _, before, carriers, asked: _ } = declared;
        let of = self.of();
        let is_same = of.get(id).is_some_and(|now| now.version == before.version);
        let are_same = || carriers.iter().all(|(tag, found)| self.carriers(&of, tag) == *found);
        if !is_same || before.kind.exclusive && !are_same() {
            return None;
        }
        let resource = before.kind.with_status(&*before.resource, status)?;
        Some(Object { resource, version: before.version + 1, ..before.clone() })
    }

    /// Takes in what became of an object; answers with whom that concerns.
    pub(super) fn stored(&self, declared: &Declared, object: Object) -> BTreeSet<Id> {
        let concerned = self.put(&mut self.of(), &declared.id, object);
        self.decided(declared);
        concerned
    }

    fn carriers(&self, of: &BTreeMap<Id, Object>, tag: &Tag) -> Carriers {
        let found = |key: Key| {
            let version = of.get(&Id::new(tag.kind, key.clone()))?.version;
            Some((key, version))
        };
        self.tags.carriers(tag).into_iter().filter_map(found).collect()
    }

    fn of(&self) -> MutexGuard<'_, BTreeMap<Id, Object>> {
        // Nothing is left half done under this lock.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Id, u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn run_id(name: &Key) -> Id {
    Id::new(AgentRun::KIND, name.clone())
}

/// Look-ups of one decision. Each is noted before it is made.
struct Looked<'a> {
    objects: &'a Objects,
    /// Who is to be told of changes.
    waiting: Option<&'a Id>,
    asked: RefCell<Vec<Topic>>,
    carriers: RefCell<Vec<(Tag, Carriers)>>,
}

impl<'a> Looked<'a> {
    fn new(objects: &'a Objects, waiting: Option<&'a Id>) -> Self {
        Self { objects, waiting, asked: RefCell::default(), carriers: RefCell::default() }
    }

    fn note(&self, topic: Topic) {
        if let Some(waiting) = self.waiting {
            self.objects.links.add(waiting, &topic);
            self.asked.borrow_mut().push(topic);
        }
    }

    /// What a reference to this object finds.
    fn referent(&self, id: &Id) -> Referent {
        self.note(Topic::Object(id.clone()));
        let Some(Object { kind, resource, version: _ }) = self.objects.of().get(id).cloned() else {
            return Referent::Absent;
        };
        if kind.executed || kind.faults(&*resource).is_empty() { Referent::Right } else { Referent::Faulty }
    }
}

impl Look for Looked<'_> {
    fn look(&self, id: &Id) -> Found<AnyResource> {
        self.note(Topic::Object(id.clone()));
        self.objects.of().get(id).map_or(Found::Absent, |object| Found::Object(Arc::clone(&object.resource)))
    }

    fn tagged(&self, tag: &Tag) -> Vec<Arc<AnyResource>> {
        self.note(Topic::Tag(tag.clone()));
        let of = self.objects.of();
        let carriers = self.objects.carriers(&of, tag);
        let found = |(key, _): &(Key, u64)| Some(Arc::clone(&of.get(&Id::new(tag.kind, key.clone()))?.resource));
        let found = carriers.iter().filter_map(found).collect();
        self.carriers.borrow_mut().push((tag.clone(), carriers));
        found
    }
}
