//! Every kind but AgentRun: its spec checked, its references looked up, its status stored.
//!
//! One loop serves all kinds of the list. Each has a cache of its own that keeps no spec: the check runs while an
//! object is decoded, and its findings are what is kept. The caches live while this replica leads. A kind that is not
//! installed, or may not be read, is awaited in silence and holds up nothing else.

use std::{collections::BTreeMap, sync::Arc};

use agents_core::{
    api::{AgentRun, Kind},
    check::{Check, Reference},
    decide::{
        Confirm, Effect, Plan, Refusal,
        declaration::{Declaration, Need, Referent, Traits, decide},
    },
    kinds::{self, Visitor},
};
use agents_runtime::driver::{self, Driver, Failure, Requests, World};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    agent_run::{may_act, of_api},
    caches::Namespaces,
    declared::{Declared, Dependents, Id},
    pruned::Pruned,
    status_write,
};
use crate::{
    client::{Calls, OrAbsent, Target},
    lease::Tenure,
    manager::ManagerError,
    object::Object,
    watch::{Change, Identity, Key, Settings, Slot, Watch},
};

/// Declarations looked at at once: a check is quick, and runs come first.
const CONCURRENCY: usize = 4;

/// An object and what its status depends on.
#[derive(Debug)]
pub struct Snapshot {
    id: Id,
    uid: String,
    resource_version: String,
    declaration: Declaration,
}

/// Declarations as the Kubernetes API knows them.
#[derive(Debug)]
pub struct DeclarationWorld {
    calls: Calls,
    tenure: Option<Tenure>,
    kinds: BTreeMap<&'static str, Kept>,
}

/// The cache of one kind and what is done with it.
#[derive(Debug)]
struct Kept {
    kind: &'static str,
    api_version: String,
    target: Target,
    traits: Traits,
    watch: Arc<Watch<Declared>>,
    pruned: Pruned,
}

impl Kept {
    fn of<K: Kind>(calls: &Calls, namespaces: &Namespaces, settings: Settings) -> Self {
        let target = Target::of::<Object<K>>();
        let watch = Arc::new(Watch::new(target.clone(), calls.clone(), namespaces.scope(), settings));
        let pruned = Pruned::new(K::KIND);
        Self {
            kind: K::KIND,
            api_version: Object::<K>::api_version(),
            target,
            traits: Traits::of::<K>(),
            watch,
            pruned,
        }
    }

    /// Keeps the cache up to date and tells `asks` of each change, for ever.
    fn start(&self, tasks: &mut JoinSet<()>, asks: &Arc<Asks>) {
        let (kind, watch, asks) = (self.kind, Arc::clone(&self.watch), Arc::clone(asks));
        tasks.spawn(async move {
            let listed = async {
                watch.synced().await;
                asks.listed(kind);
            };
            let told = |change: Change<Declared>| {
                if let Change::Unreadable(key, why) = &change {
                    tracing::warn!(kind, object = %key, why = &**why, "the object cannot be read");
                }
                let id = Id { kind, key: change.key().clone() };
                let needs = match &change {
                    Change::Seen(_, declared) => declared.needed(),
                    Change::Unreadable(..) | Change::Left(..) => Vec::new(),
                };
                asks.changed(id, needs);
            };
            tokio::join!(Arc::clone(&watch).run(told), listed);
        });
    }

    /// The object, with references that are not looked up yet.
    async fn read(&self, calls: &Calls, key: &Key) -> Result<Option<(Snapshot, Vec<Reference>)>, Failure> {
        let declared = if self.watch.is_doubtful(key) {
            let began = calls.clock().boot();
            let step = "read the declaration";
            let read = calls.get::<Declared>(&self.target, step, &key.namespace, &key.name).await;
            self.watch.read_back(key, read.or_absent().map_err(of_api)?, began)
        } else {
            match self.watch.get(key) {
                Some(Slot::Read(declared)) => Some(declared),
                None | Some(Slot::Unreadable(_)) => None,
            }
        };
        Ok(declared.map(|declared| {
            let snapshot = Snapshot {
                id: Id { kind: self.kind, key: key.clone() },
                uid: declared.uid().to_owned(),
                resource_version: declared.resource_version().to_owned(),
                declaration: declared.declaration(self.traits),
            };
            (snapshot, declared.references().to_vec())
        }))
    }

    /// What a reference to this object finds; `None` while the kind is not listed.
    fn referent(&self, key: &Key) -> Option<Referent> {
        if !self.watch.is_synced() {
            return None;
        }
        Some(match self.watch.get(key) {
            None => Referent::Absent,
            Some(Slot::Read(declared)) if declared.is_right() => Referent::Right,
            Some(Slot::Read(_) | Slot::Unreadable(_)) => Referent::Faulty,
        })
    }

    /// Replaces the whole status, if the object is still the one of the snapshot.
    async fn store(&self, calls: &Calls, snapshot: &Snapshot, status: &Map<String, Value>) -> Result<(), Failure> {
        let Snapshot { id: Id { kind, key }, uid, resource_version, declaration } = snapshot;
        if self.pruned.is_the_same(status, Some(&declaration.status)) {
            return Ok(());
        }
        let began = calls.clock().boot();
        let of = Identity { namespace: &key.namespace, name: &key.name, uid, resource_version };
        let body = status_write::body(&self.api_version, kind, of, status);
        let step = "store the status";
        let stored = calls.replace_status::<Declared>(&self.target, step, &key.namespace, &key.name, &body).await;
        match stored {
            Ok(declared) => {
                self.pruned.learn(status, Some(&declared.status()));
                self.watch.wrote(declared, Some(resource_version), began);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                if error.leaves_doubt() {
                    self.watch.doubt(key.clone());
                }
                Err(of_api(error))
            }
        }
    }
}

/// Asks for declarations: the one that has changed, and those that refer to it.
#[derive(Debug)]
struct Asks {
    requests: Requests<Id>,
    dependents: Dependents,
}

impl Asks {
    fn changed(&self, id: Id, needs: Vec<Id>) {
        self.dependents.needs(&id, needs);
        for dependent in self.dependents.of(&id) {
            self.requests.ask(dependent);
        }
        self.requests.ask(id);
    }

    /// What refers to objects of this kind could not be judged before they were listed.
    fn listed(&self, kind: &'static str) {
        for dependent in self.dependents.of_kind(kind) {
            self.requests.ask(dependent);
        }
    }
}

impl DeclarationWorld {
    /// Every kind of the list but AgentRun. Nothing is watched until [`DeclarationWorld::run`].
    pub fn new(calls: &Calls, namespaces: &Namespaces, settings: Settings, tenure: Option<Tenure>) -> Self {
        struct Collect<'a> {
            calls: &'a Calls,
            namespaces: &'a Namespaces,
            settings: Settings,
            kinds: BTreeMap<&'static str, Kept>,
        }
        impl Visitor for Collect<'_> {
            fn visit<K: Kind + Check>(&mut self) {
                if K::KIND == AgentRun::KIND {
                    return;
                }
                self.kinds.insert(K::KIND, Kept::of::<K>(self.calls, self.namespaces, self.settings));
            }
        }
        let settings = Settings { may_be_absent: true, ..settings };
        let mut collect = Collect { calls, namespaces, settings, kinds: BTreeMap::new() };
        kinds::visit(&mut collect);
        Self { calls: calls.clone(), tenure, kinds: collect.kinds }
    }

    /// Keeps every declaration's status true until `shutdown`, then finishes what is under way.
    ///
    /// # Errors
    /// A watch ended, which it never should.
    pub async fn run(self: Arc<Self>, seed: u64, shutdown: CancellationToken) -> Result<(), ManagerError> {
        let options = driver::Options { concurrency: CONCURRENCY, seed, ..driver::Options::default() };
        let driver = Driver::new(Arc::clone(&self), options);
        let asks = Arc::new(Asks { requests: driver.requests(), dependents: Dependents::default() });
        let mut tasks = JoinSet::new();
        for kind in self.kinds.values() {
            kind.start(&mut tasks, &asks);
        }
        tokio::select! {
            biased;
            () = driver.run(shutdown) => Ok(()),
            Some(_) = tasks.join_next() => Err(ManagerError::WatchEnded),
        }
    }
}

#[async_trait]
impl World for DeclarationWorld {
    type Key = Id;
    type Snapshot = Snapshot;
    type Status = Map<String, Value>;

    async fn gather(&self, id: &Id, _: Confirm) -> Result<Option<Snapshot>, Failure> {
        let Some(kind) = self.kinds.get(id.kind) else { return Ok(None) };
        let Some((mut snapshot, references)) = kind.read(&self.calls, &id.key).await? else { return Ok(None) };
        // What is wrong with the spec itself is said whatever it refers to.
        let references = if snapshot.declaration.faults.is_empty() { references } else { vec![] };
        for reference in references {
            let key = Key::new(&id.key.namespace, &reference.name);
            // It is asked for again once the other kind is listed.
            let Some(found) = self.kinds.get(reference.kind).and_then(|kind| kind.referent(&key)) else {
                return Ok(None);
            };
            snapshot.declaration.needs.push(Need { reference, found });
        }
        Ok(Some(snapshot))
    }

    fn decide(&self, snapshot: &Snapshot, _: Option<&Refusal>, now: Timestamp) -> Plan<Map<String, Value>> {
        decide(&snapshot.declaration, now)
    }

    /// A declaration's Plan has no effects.
    async fn perform(&self, _: &Snapshot, _: &Effect) -> Result<(), Failure> {
        Ok(())
    }

    async fn store(&self, snapshot: &Snapshot, status: &Map<String, Value>) -> Result<(), Failure> {
        may_act(self.tenure.as_ref())?;
        let Some(kind) = self.kinds.get(snapshot.id.kind) else { return Ok(()) };
        kind.store(&self.calls, snapshot, status).await
    }

    fn now(&self) -> Timestamp {
        self.calls.clock().now()
    }
}
