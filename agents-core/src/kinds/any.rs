//! A kind that the type does not say: what there is to know about it, and what can be done with its objects.
//!
//! Whoever holds objects of every kind (caches, the local engine, a folder that is judged) goes through here, so that a
//! new kind changes none of them. An object of another kind than the one that is asked says nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Value};

use super::{Visitor, visit};
use crate::{
    api::{Meta, Resource, VERSION, absent_spec},
    check::{Fault, Reference, faults},
    decide::{
        declaration::Traits,
        rules::{AnyGather, Decide, Rules, gather},
    },
    look::{AnyResource, Look, Tag},
};

/// A kind whose type is not known.
pub struct AnyKind {
    /// Its name.
    pub name: &'static str,
    /// Its plural.
    pub plural: &'static str,
    /// Its group.
    pub group: &'static str,
    /// What its status takes.
    pub traits: Traits,
    /// Selects the objects that can still change.
    pub unfinished: Option<&'static str>,
    /// Whether objects are executed on a runtime.
    pub executed: bool,
    /// Whether no two of them may be stored at once.
    pub exclusive: bool,
    gather: Option<AnyGather>,
    read: Read,
    written: fn(&AnyResource) -> Option<serde_json::Result<Value>>,
    with_status: fn(&AnyResource, &Map<String, Value>) -> Option<Arc<AnyResource>>,
    status: fn(&AnyResource) -> Option<serde_json::Result<Value>>,
    metadata: fn(&AnyResource) -> Option<&Meta>,
    faults: fn(&AnyResource) -> Vec<Fault>,
    references: fn(&AnyResource) -> Vec<Reference>,
    tags: fn(&AnyResource) -> Vec<(&'static str, String)>,
    is_over: fn(&AnyResource) -> bool,
    kept: fn(&AnyResource) -> Option<Arc<AnyResource>>,
}

type Read = fn(Meta, Option<Value>, Option<&Map<String, Value>>) -> serde_json::Result<Arc<AnyResource>>;

impl fmt::Debug for AnyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyKind").field(&self.name).finish()
    }
}

/// Every kind, by its name.
static ALL: LazyLock<BTreeMap<&'static str, AnyKind>> = LazyLock::new(|| {
    struct Collect(BTreeMap<&'static str, AnyKind>);
    impl Visitor for Collect {
        fn visit<K: Decide>(&mut self) {
            self.0.insert(K::KIND, AnyKind::of::<K>());
        }
    }
    let mut all = Collect(BTreeMap::new());
    visit(&mut all);
    all.0
});

impl AnyKind {
    /// The kind of this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        ALL.get(name)
    }

    /// Whether objects of the kind of this name are executed on a runtime.
    pub fn is_executed(name: &str) -> bool {
        Self::by_name(name).is_some_and(|kind| kind.executed)
    }

    /// Every kind, by name.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ALL.values()
    }

    fn of<K: Decide>() -> Self {
        fn typed<K: Decide>(object: &AnyResource) -> Option<&Resource<K>> {
            object.downcast_ref()
        }
        Self {
            name: K::KIND,
            plural: K::PLURAL,
            group: K::GROUP,
            traits: Traits::of::<K>(),
            unfinished: K::UNFINISHED,
            executed: K::EXECUTED,
            exclusive: K::EXCLUSIVE,
            gather: gather::<K>(),
            read: |metadata, spec, status| {
                let spec = spec.map_or_else(absent_spec::<K, _>, serde_json::from_value)?;
                let status = status.and_then(status_of::<K>);
                Ok(Arc::new(Resource::<K> { metadata, spec, status }))
            },
            written: |object| Some(serde_json::to_value(typed::<K>(object)?)),
            with_status: |object, status| {
                Some(Arc::new(Resource::<K> { status: status_of::<K>(status), ..typed::<K>(object)?.clone() }))
            },
            status: |object| Some(serde_json::to_value(typed::<K>(object)?.status.as_ref()?)),
            metadata: |object| Some(&typed::<K>(object)?.metadata),
            faults: |object| typed::<K>(object).map(|object| faults::<K>(&object.spec)).unwrap_or_default(),
            references: |object| typed::<K>(object).map(|object| K::references(&object.spec)).unwrap_or_default(),
            tags: |object| typed(object).map(K::tags).unwrap_or_default(),
            is_over: |object| typed(object).is_some_and(K::is_over),
            kept: |object| Some(Arc::new(K::kept(typed(object)?)?)),
        }
    }

    /// `group/version`.
    pub fn api_version(&self) -> String {
        format!("{}/{VERSION}", self.group)
    }

    /// Whether it has rules of its own, so that a status is more than what the objects that are there come to.
    pub fn has_rules(&self) -> bool {
        self.gather.is_some()
    }

    /// An object from its parts. A status that cannot be read is none.
    ///
    /// # Errors
    /// The spec is not of this kind.
    pub fn read(
        &self,
        metadata: Meta,
        spec: Option<Value>,
        status: Option<&Map<String, Value>>,
    ) -> serde_json::Result<Arc<AnyResource>> {
        (self.read)(metadata, spec, status)
    }

    /// Metadata, spec and status as they are written, `apiVersion` and `kind` before them.
    ///
    /// # Errors
    /// Something in it cannot be written as JSON.
    pub fn written(&self, object: &AnyResource) -> serde_json::Result<Value> {
        let mut fields = Map::from_iter([
            ("apiVersion".to_owned(), Value::String(self.api_version())),
            ("kind".to_owned(), Value::String(self.name.to_owned())),
        ]);
        if let Some(Value::Object(written)) = (self.written)(object).transpose()? {
            fields.extend(written);
        }
        Ok(Value::Object(fields))
    }

    /// The same object with another status.
    pub fn with_status(&self, object: &AnyResource, status: &Map<String, Value>) -> Option<Arc<AnyResource>> {
        (self.with_status)(object, status)
    }

    /// Its status; empty where it has none.
    ///
    /// # Errors
    /// Something in it cannot be written as JSON.
    pub fn status(&self, object: &AnyResource) -> serde_json::Result<Map<String, Value>> {
        match (self.status)(object).transpose()? {
            Some(Value::Object(status)) => Ok(status),
            Some(_) | None => Ok(Map::new()),
        }
    }

    /// Who the object is.
    pub fn metadata<'a>(&self, object: &'a AnyResource) -> Option<&'a Meta> {
        (self.metadata)(object)
    }

    /// Every fault of its spec.
    pub fn faults(&self, object: &AnyResource) -> Vec<Fault> {
        (self.faults)(object)
    }

    /// Every object without which it is not ready.
    pub fn references(&self, object: &AnyResource) -> Vec<Reference> {
        (self.references)(object)
    }

    /// What others find it by without its name ([`Decide::tags`]).
    pub fn tags(&self, object: &AnyResource) -> BTreeSet<Tag> {
        let namespace = self.metadata(object).map(|metadata| metadata.namespace.clone()).unwrap_or_default();
        let tag = |(name, value)| Tag { kind: self.name, namespace: namespace.clone(), name, value };
        (self.tags)(object).into_iter().map(tag).collect()
    }

    /// Whether no decision changes it any more ([`Decide::is_over`]).
    pub fn is_over(&self, object: &AnyResource) -> bool {
        (self.is_over)(object)
    }

    /// The copy that caches keep of a large one ([`Kind::kept`](crate::api::Kind::kept)).
    pub fn kept(&self, object: &AnyResource) -> Option<Arc<AnyResource>> {
        (self.kept)(object)
    }

    /// The kind's own rules about it, with what they look up.
    pub fn rules(&self, object: Arc<AnyResource>, look: &dyn Look) -> Option<Box<dyn Rules>> {
        self.gather?(object, look)
    }
}

/// A status as its kind reads it, of one that others have written into too without what they wrote.
pub fn status_of<K: Decide>(status: &Map<String, Value>) -> Option<K::Status> {
    let read = |fields: Map<String, Value>| serde_json::from_value(Value::Object(fields)).ok();
    read(status.clone()).or_else(|| {
        let mut fields = status.clone();
        fields.remove("conditions");
        read(fields)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{Agent, Kind as _, Signal};

    #[test]
    fn every_kind_is_known_and_takes_objects_of_its_own_alone() {
        let spec = json!({"providerRef": {"name": "p"}});
        let meta = || Meta { name: "a".to_owned(), namespace: "n".to_owned(), ..Meta::default() };
        let agent = AnyKind::by_name(Agent::KIND).unwrap();
        let status = json!({"observedGeneration": 3, "conditions": "not ours"});
        let object = agent.read(meta(), Some(spec.clone()), status.as_object()).unwrap();
        let written = agent.written(&*object).unwrap();
        assert_eq!(
            (&written["kind"], &written["spec"], &written["status"]["observedGeneration"]),
            (&json!("Agent"), &spec, &json!(3))
        );
        assert!(agent.read(meta(), None, None).is_err());
        for other in AnyKind::all().filter(|kind| kind.name != Agent::KIND) {
            assert!(other.metadata(&*object).is_none() && other.with_status(&*object, &Map::new()).is_none());
        }
        assert!(AnyKind::by_name(Signal::KIND).unwrap().has_rules() && !agent.has_rules());
    }
}
