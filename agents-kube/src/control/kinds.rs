//! One cache for each kind, and whom a change of an object concerns.
//!
//! The caches that runs are decided from are there from the start, in a standby replica too. Those of all other kinds
//! live while this replica leads, and a kind that is not installed, or may not be read, is awaited in silence and holds up
//! nothing else.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agents_core::{
    api::{AgentRun, Kind, Resource},
    decide::{
        Confirm,
        agent_run::open_attempt,
        declaration::{Declaration, Referent},
        rules::Rules,
    },
    id::{Id, Key},
    look::{AnyResource, Found, Look, Tag},
    resolve::References,
};
use agents_runtime::{
    driver::Failure,
    links::{Links, Topic},
    tags::Tags,
};
use tokio::{sync, task::JoinSet};

use super::{
    cached::{Cached, ROWS, Row},
    meanings::Meanings,
    pruned::Pruned,
    world::of_api,
};
use crate::{
    client::{Calls, OrAbsent, Scope},
    watch::{Change, Settings, Slot, Watch},
};

/// Whose objects are looked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Those of one namespace.
    One(String),
    /// Those of all namespaces.
    All,
}

impl Namespaces {
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::One(namespace) => Scope { namespace: Some(namespace.clone()), ..Scope::default() },
            Self::All => Scope::default(),
        }
    }
}

/// The cache of one kind and what is known of what it holds.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) row: &'static Row,
    pub(super) watch: Arc<Watch<Cached>>,
    /// What the installed definition does not store of a status.
    pub(super) pruned: Pruned,
    told: Meanings,
    /// Whether runs are decided from it.
    of_runs: bool,
    /// Held while an object is stored that no other one may be stored beside.
    pub(super) alone: sync::Mutex<()>,
}

impl Kept {
    fn new(row: &'static Row, calls: &Calls, namespaces: &Namespaces, settings: Settings) -> Self {
        let of_runs = row.any.name == AgentRun::KIND || References::KINDS.contains(&row.any.name);
        let settings = Settings { may_be_absent: !of_runs, ..settings };
        let scope = Scope { fields: row.any.unfinished.map(str::to_owned), ..namespaces.scope() };
        Self {
            row,
            watch: Arc::new(Watch::new(row.target.clone(), calls.clone(), scope, settings)),
            pruned: Pruned::new(row.any.name),
            told: Meanings::default(),
            of_runs,
            alone: sync::Mutex::default(),
        }
    }

    /// The object and whether that is proven to be young enough for an irreversible decision. It is read consistently when
    /// it is in doubt, and when `confirm` wants it and the cache's age is not proven or a part of it is left out.
    pub(super) async fn read(
        &self,
        calls: &Calls,
        key: &Key,
        confirm: &Confirm,
    ) -> Result<Option<(Arc<Cached>, bool)>, Failure> {
        let fresh = self.watch.is_fresh();
        let cached = self.watch.get(key);
        let in_part = cached.as_ref().and_then(Slot::object).is_some_and(|object| object.is_in_part());
        if self.watch.is_doubtful(key) || (confirm.object && !fresh) || (confirm.whole && in_part) {
            let began = calls.clock().boot();
            let step = "read the object";
            let read = calls.get::<Cached>(&self.row.target, step, &key.namespace, &key.name).await;
            let read = read.or_absent().map_err(of_api)?;
            return Ok(self.watch.read_back(key, read, began).map(|object| (object, true)));
        }
        match cached {
            Some(Slot::Read(object)) => Ok(Some((object, fresh))),
            // The next change of one that has not even a name may be readable; the watch has told why it is not.
            None | Some(Slot::Unreadable(_)) => Ok(None),
        }
    }

    fn found(&self, key: &Key) -> Found<AnyResource> {
        match self.watch.get(key) {
            None => Found::Absent,
            Some(Slot::Read(object)) => object.found(),
            Some(Slot::Unreadable(why)) => Found::Unreadable(why.to_string()),
        }
    }

    /// What a reference to this object finds; `None` while the kind is not listed.
    fn referent(&self, key: &Key) -> Option<Referent> {
        if !self.watch.is_synced() {
            return None;
        }
        Some(match self.watch.get(key) {
            None => Referent::Absent,
            Some(Slot::Read(object)) => object.referent(),
            Some(Slot::Unreadable(_)) => Referent::Faulty,
        })
    }
}

/// What a cache tells.
#[derive(Debug)]
pub(super) struct News<'a> {
    /// The object that has changed; none when a kind is listed.
    pub(super) change: Option<(Id, &'a Change<Cached>)>,
    /// Which others it concerns.
    pub(super) concerned: Vec<Id>,
}

/// Everything of ours that is watched.
#[derive(Debug)]
pub(crate) struct Kinds {
    of: BTreeMap<&'static str, Kept>,
    /// Runs that are not finished.
    pub runs: Arc<Watch<Cached>>,
    links: Links,
    tags: Tags,
}

impl Kinds {
    /// Caches that hold nothing until they are started.
    pub(crate) fn new(calls: &Calls, namespaces: &Namespaces, settings: Settings) -> Self {
        let kept = |row| Kept::new(row, calls, namespaces, settings);
        let of: BTreeMap<_, _> = ROWS.iter().map(|(kind, row)| (*kind, kept(row))).collect();
        let runs = Arc::clone(&of[AgentRun::KIND].watch);
        Self { of, runs, links: Links::default(), tags: Tags::default() }
    }

    pub(super) fn get(&self, kind: &str) -> Option<&Kept> {
        self.of.get(kind)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Kept> {
        self.of.values()
    }

    /// The caches that runs are decided from, or all others.
    pub(super) fn which(&self, of_runs: bool) -> impl Iterator<Item = &Kept> {
        self.of.values().filter(move |kept| kept.of_runs == of_runs)
    }

    /// Keeps caches up to date by tasks in `tasks`, and tells each change and whom it concerns besides the object itself.
    pub(super) fn start(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        of_runs: bool,
        told: &(impl Fn(News<'_>) + Clone + Send + Sync + 'static),
    ) {
        for kept in self.which(of_runs) {
            let (kinds, kind, watch, told) =
                (Arc::clone(self), kept.row.any.name, Arc::clone(&kept.watch), told.clone());
            tasks.spawn(async move {
                let listed = async {
                    watch.synced().await;
                    // What refers to objects of this kind could not be judged before they were listed.
                    let concerned = kinds.links.of_kind(kind);
                    told(News { change: None, concerned });
                };
                let each = |change: Change<Cached>| {
                    let id = Id::new(kind, change.key().clone());
                    let concerned = kinds.concerned(&id, &change);
                    told(News { change: Some((id, &change)), concerned });
                };
                tokio::join!(Arc::clone(&watch).run(each), listed);
            });
        }
    }

    /// Takes a change in: who depends on the object, as far as they can tell its states apart.
    fn concerned(&self, id: &Id, change: &Change<Cached>) -> Vec<Id> {
        let Some(kept) = self.of.get(id.kind) else { return vec![] };
        let tags = match change {
            Change::Seen(_, object) => object.tags(),
            Change::Unreadable(..) | Change::Left(..) => BTreeSet::new(),
        };
        let tags = self.tags.set(id, tags).into_iter().flat_map(|tag| self.links.of(&Topic::Tag(tag)));
        let mut concerned: BTreeSet<Id> = tags.collect();
        // Many runs may wait for one Agent, and each decision costs; of other kinds any change is news.
        if kept.row.any.executed || !kept.of_runs || kept.told.changed_by(change) {
            concerned.extend(self.links.of(&Topic::Object(id.clone())));
        }
        concerned.into_iter().collect()
    }

    /// The objects that a run refers to. Once it has an attempt under way, none of them is waited for.
    pub(super) fn references(&self, run: &Resource<AgentRun>) -> References {
        let id = Id::new(AgentRun::KIND, Key::new(&run.metadata.namespace, &run.metadata.name));
        let waits = run.status.as_ref().and_then(open_attempt).is_none();
        let looked = Looked::new(self, waits.then_some(&id));
        let references = References::of(run, &looked);
        self.links.set(&id, looked.asked.take());
        references
    }

    /// Whether its tags have the same carriers, in the same states, as when it was decided.
    pub(super) fn is_as_decided(&self, declared: &Declared) -> bool {
        let again = self.declared(&declared.object);
        let is_sure = declared.carriers.iter().all(|(_, state)| state.is_some());
        is_sure && again.is_some_and(|again| again.carriers == declared.carriers)
    }

    /// Nothing depends on it any more.
    pub(super) fn forget(&self, id: &Id) {
        self.links.set(id, []);
    }

    /// An object with all that is left out of it.
    pub(super) async fn whole<K: Kind>(&self, calls: &Calls, key: &Key) -> Result<Found<Resource<K>>, Failure> {
        let Some(kept) = self.of.get(K::KIND) else { return Ok(Found::Absent) };
        let read = kept.read(calls, key, &Confirm::whole()).await?;
        Ok(read.map_or(Found::Absent, |(object, _)| object.found().into_kind()))
    }

    /// Reads what is held in part.
    pub(super) async fn read_whole(&self, calls: &Calls, references: &mut References) -> Result<(), Failure> {
        async fn read<K: Kind>(kinds: &Kinds, calls: &Calls, found: &mut Found<Resource<K>>) -> Result<(), Failure> {
            if let Some(object) = found.object().filter(|object| object.metadata.left_out.is_some()) {
                let key = Key::new(&object.metadata.namespace, &object.metadata.name);
                *found = kinds.whole(calls, &key).await?;
            }
            Ok(())
        }
        let References { agent, provider, implementation } = references;
        read(self, calls, agent).await?;
        read(self, calls, provider).await?;
        read(self, calls, implementation).await
    }

    /// Every run that can be read.
    pub(crate) fn readable_runs(&self) -> Vec<Arc<Resource<AgentRun>>> {
        self.runs.objects().iter().filter_map(|object| object.object()).collect()
    }

    /// What the status of an object depends on that is not executed, and the rules of its kind once everything that it
    /// refers to is there; `None` while a kind that is looked for is not listed.
    pub(super) fn declared(&self, object: &Arc<Cached>) -> Option<Declared> {
        let mut declaration = object.declaration()?;
        let id = object.id();
        if declaration.over || declaration.deleting {
            self.forget(&id);
            return Some(Declared { object: Arc::clone(object), declaration, rules: None, carriers: vec![] });
        }
        let looked = Looked::new(self, Some(&id));
        let is_right = declaration.refer(&id.key.namespace, object.references(), |id| looked.referent(id));
        let rules = if is_right { object.rules(&looked) } else { None };
        self.links.set(&id, looked.asked.take());
        // It is asked for again once the other kind is listed.
        let carriers = looked.carriers.take();
        let object = Arc::clone(object);
        looked.complete.get().then_some(Declared { object, declaration, rules, carriers })
    }
}

/// An object that is not executed, with all that its decision depends on.
#[derive(Debug)]
pub(super) struct Declared {
    object: Arc<Cached>,
    pub(super) declaration: Declaration,
    pub(super) rules: Option<Box<dyn Rules>>,
    carriers: Vec<Carrier>,
}

/// An object that was found by a tag, in the state it was found in; no state where that is in doubt.
type Carrier = (Id, Option<String>);

/// Look-ups of one decision. Each is noted before it is made.
struct Looked<'a> {
    kinds: &'a Kinds,
    /// Who is to be told of changes.
    waiting: Option<&'a Id>,
    asked: RefCell<Vec<Topic>>,
    /// What was found by tags.
    carriers: RefCell<Vec<Carrier>>,
    /// Whether every kind that was looked for is listed.
    complete: Cell<bool>,
}

impl<'a> Looked<'a> {
    fn new(kinds: &'a Kinds, waiting: Option<&'a Id>) -> Self {
        let (asked, carriers) = (RefCell::default(), RefCell::default());
        Self { kinds, waiting, asked, carriers, complete: Cell::new(true) }
    }

    /// Notes the look-up; the cache of the kind, if it is listed.
    fn note(&self, kind: &str, topic: Topic) -> Option<&'a Kept> {
        if let Some(waiting) = self.waiting {
            self.kinds.links.add(waiting, &topic);
            self.asked.borrow_mut().push(topic);
        }
        let kept = self.kinds.of.get(kind);
        if kept.is_some_and(|kept| !kept.watch.is_synced()) {
            self.complete.set(false);
        }
        kept
    }

    /// What a reference to this object finds; `None` while its kind is not listed.
    fn referent(&self, id: &Id) -> Option<Referent> {
        let kept = self.note(id.kind, Topic::Object(id.clone()))?;
        kept.referent(&id.key)
    }
}

impl Look for Looked<'_> {
    fn look(&self, id: &Id) -> Found<AnyResource> {
        let kept = self.note(id.kind, Topic::Object(id.clone()));
        kept.map_or(Found::Absent, |kept| kept.found(&id.key))
    }

    fn tagged(&self, tag: &Tag) -> Vec<Arc<AnyResource>> {
        let Some(kept) = self.note(tag.kind, Topic::Tag(tag.clone())) else { return vec![] };
        let carriers = self.kinds.tags.carriers(tag);
        let found = |key: &Key| {
            let slot = kept.watch.get(key)?;
            let object = slot.object()?;
            let state = (!kept.watch.is_doubtful(key)).then(|| object.resource_version().to_owned());
            self.carriers.borrow_mut().push((object.id(), state));
            object.kept_object().cloned()
        };
        carriers.iter().filter_map(found).collect()
    }
}
