//! What a cache keeps of an object of any kind of the product, and what there is to know about each kind.
//!
//! One type serves every kind, so that the watch and everything around it is compiled once. What differs is in the
//! [`Row`] of the kind: how an object is decoded, and what of it is kept. Of a kind that is acted on the whole object is
//! kept, since decisions read it; of any other the spec is checked while it is decoded, and its findings alone are kept.
//! A spec that does not fit its kind is a fault of the object and not of the cache: the API server may hold what an older
//! definition admitted.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use agents_core::{
    api::{Kind, Meta, Resource, absent_spec},
    check::{Check, Fault, Reference, faults},
    decide::{
        declaration::{Declaration, Referent},
        rules::{Decide, Rules},
        unreadable::Unreadable,
    },
    id::{Id, Key},
    kinds::{self, AnyKind, Visitor, status_of},
    look::{AnyResource, Found, Look, Tag},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    client::{Target, decode_text},
    object::Object,
    watch::{Identity, Projection},
};

/// A kind as caches know it.
#[derive(Debug)]
pub(super) struct Row {
    /// What there is to know about it.
    pub(super) any: &'static AnyKind,
    /// `group/version`.
    pub(super) api_version: String,
    /// Where its objects are.
    pub(super) target: Target,
    decode: fn(Option<&RawValue>, Option<&RawValue>, Meta) -> Body,
}

/// Every kind, by its name.
pub(super) static ROWS: LazyLock<BTreeMap<&'static str, Row>> = LazyLock::new(|| {
    struct Collect(BTreeMap<&'static str, Row>);
    impl Visitor for Collect {
        fn visit<K: Decide>(&mut self) {
            let decode = match (K::EXECUTED, K::ACTED_ON) {
                (true, _) => whole::<K>,
                (false, true) => judged_and_kept::<K>,
                (false, false) => judged::<K>,
            };
            let (api_version, target) = (Object::<K>::api_version(), Target::of::<Object<K>>());
            self.0.extend(AnyKind::by_name(K::KIND).map(|any| (any.name, Row { any, api_version, target, decode })));
        }
    }
    let mut rows = Collect(BTreeMap::new());
    kinds::visit(&mut rows);
    rows.0
});

/// An object of any kind, as a cache keeps it.
#[derive(Debug)]
pub(crate) struct Cached {
    row: &'static Row,
    head: Head,
    body: Body,
}

/// Who an object is.
#[derive(Debug, Clone)]
struct Head {
    name: Box<str>,
    namespace: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    generation: Option<i64>,
    is_being_deleted: bool,
}

/// What is kept of an object.
#[derive(Debug)]
enum Body {
    /// Of a kind that is executed: all of it.
    Whole(Arc<AnyResource>),
    /// The same, where it cannot be read as its kind.
    Unreadable { why: Box<str>, status: Option<Box<RawValue>> },
    /// Of any other kind.
    Judged(Box<Judged>),
}

/// What was found of an object that is decided by what it declares.
#[derive(Debug, Clone)]
struct Judged {
    faults: Box<[Fault]>,
    references: Box<[Reference]>,
    /// Its status as it is stored.
    status: Option<Box<RawValue>>,
    /// The object, of a kind that is acted on; its status only for the kind's own rules, as far as it can be read.
    object: Option<Arc<AnyResource>>,
}

/// An object as the API server writes it; of custom resources the items of a list name their kind too.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    metadata: Meta,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

/// Only from text in memory, which is borrowed: an event is read often, and what is kept of it is made from its parts.
impl<'de> Deserialize<'de> for Cached {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { kind, metadata, spec, status } = Written::deserialize(deserializer)?;
        let row = ROWS.get(&*kind).ok_or_else(|| D::Error::custom(format_args!("no such kind: {kind:?}")))?;
        let Meta { name, namespace, uid, resource_version, generation, deletion_timestamp, .. } = &metadata;
        let head = Head {
            name: name.as_str().into(),
            namespace: namespace.as_str().into(),
            uid: uid.as_str().into(),
            resource_version: resource_version.as_deref().unwrap_or_default().into(),
            generation: *generation,
            is_being_deleted: deletion_timestamp.is_some(),
        };
        Ok(Self { row, head, body: (row.decode)(spec, status, metadata) })
    }
}

/// All of an object. The usual one is read at once; only for one that cannot be read the place is looked for.
fn whole<K: Kind>(spec: Option<&RawValue>, status: Option<&RawValue>, metadata: Meta) -> Body {
    let read = || {
        let spec = at::<K::Spec>("spec", spec).unwrap_or_else(|| absent::<K>())?;
        let status = at::<Option<K::Status>>("status", status).transpose()?.flatten();
        Ok(Resource::<K> { metadata, spec, status })
    };
    match read() {
        Ok(object) => Body::Whole(Arc::new(object)),
        Err(Fault { field, problem }) => {
            Body::Unreadable { why: format!("{field}: {problem}").into(), status: status.map(ToOwned::to_owned) }
        }
    }
}

fn judged<K: Kind + Check>(spec: Option<&RawValue>, status: Option<&RawValue>, _: Meta) -> Body {
    let (judged, _) = judge::<K>(spec, status);
    Body::Judged(Box::new(judged))
}

fn judged_and_kept<K: Decide>(spec: Option<&RawValue>, status: Option<&RawValue>, metadata: Meta) -> Body {
    let (judged, spec) = judge::<K>(spec, status);
    let read =
        |status: &RawValue| serde_json::from_str(status.get()).ok().or_else(|| status_of::<K>(&fields(Some(status))));
    let status = K::GATHER.and(status).and_then(read);
    let object = spec.map(|spec| Arc::new(Resource::<K> { metadata, spec, status }) as _);
    Body::Judged(Box::new(Judged { object, ..judged }))
}

fn judge<K: Kind + Check>(spec: Option<&RawValue>, status: Option<&RawValue>) -> (Judged, Option<K::Spec>) {
    let status = status.map(ToOwned::to_owned);
    let read = at::<K::Spec>("spec", spec).unwrap_or_else(|| absent::<K>());
    let (faults, references, spec) = match read {
        Ok(spec) => (faults::<K>(&spec), K::references(&spec), Some(spec)),
        Err(fault) => (vec![fault], vec![], None),
    };
    (Judged { faults: faults.into(), references: references.into(), status, object: None }, spec)
}

/// What an object without `spec` says.
fn absent<K: Kind>() -> Result<K::Spec, Fault> {
    absent_spec::<K, serde_json::Error>()
        .map_err(|error| Fault { field: "spec".to_owned(), problem: decode_text(&error) })
}

/// The value of a field, or where in it something does not fit.
fn at<T: DeserializeOwned>(field: &str, text: Option<&RawValue>) -> Option<Result<T, Fault>> {
    let text = text?.get();
    Some(serde_json::from_str(text).or_else(|_| {
        let mut json = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { field.to_owned() } else { format!("{field}.{path}") };
            let text = decode_text(error.inner());
            // A place in our copy of the object helps nobody.
            let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem).to_owned();
            Fault { field, problem }
        })
    }))
}

/// A status as JSON; what is no object says nothing.
fn fields(status: Option<&RawValue>) -> Map<String, Value> {
    status.and_then(|status| serde_json::from_str(status.get()).ok()).unwrap_or_default()
}

impl Cached {
    /// Which object.
    pub(super) fn id(&self) -> Id {
        Id::new(self.row.any.name, Key::new(&*self.head.namespace, &*self.head.name))
    }

    pub(super) fn uid(&self) -> &str {
        &self.head.uid
    }

    pub(super) fn resource_version(&self) -> &str {
        &self.head.resource_version
    }

    pub(super) fn generation(&self) -> Option<i64> {
        self.head.generation
    }

    /// What a decision about another object finds.
    pub(super) fn found(&self) -> Found<AnyResource> {
        match &self.body {
            Body::Whole(object) => Found::Object(Arc::clone(object)),
            Body::Unreadable { why, status: _ } => Found::Unreadable(why.to_string()),
            Body::Judged(judged) => match (&judged.object, judged.faults.first()) {
                (Some(object), _) => Found::Object(Arc::clone(object)),
                (None, Some(Fault { field, problem })) => Found::Unreadable(format!("{field}: {problem}")),
                (None, None) => Found::Unreadable("nothing is kept of its kind".to_owned()),
            },
        }
    }

    /// The object as its kind.
    pub(super) fn object<K: Kind>(&self) -> Option<Arc<Resource<K>>> {
        Arc::clone(self.kept_object()?).downcast().ok()
    }

    /// Whether a part of it is left out.
    pub(super) fn is_in_part(&self) -> bool {
        self.left_out_bytes() > 0
    }

    fn left_out_bytes(&self) -> usize {
        let metadata = self.kept_object().and_then(|object| self.row.any.metadata(&**object));
        metadata.and_then(|metadata| metadata.left_out.as_ref()).map_or(0, |left_out| left_out.bytes)
    }

    /// The object, where it is kept.
    pub(super) fn kept_object(&self) -> Option<&Arc<AnyResource>> {
        match &self.body {
            Body::Whole(object) => Some(object),
            Body::Judged(judged) => judged.object.as_ref(),
            Body::Unreadable { .. } => None,
        }
    }

    /// Why it cannot be read as its kind, where that keeps it from being decided at all.
    pub(super) fn why_unreadable(&self) -> Option<&str> {
        match &self.body {
            Body::Unreadable { why, status: _ } => Some(why),
            Body::Whole(_) | Body::Judged(_) => None,
        }
    }

    /// The same with what a decision about that depends on.
    pub(super) fn unreadable(&self) -> Option<Unreadable> {
        let why = self.why_unreadable()?.to_owned();
        Some(Unreadable { generation: self.head.generation, status: fields(self.stored_status()), why })
    }

    /// Its status as it is stored, where that is not part of the object.
    fn stored_status(&self) -> Option<&RawValue> {
        match &self.body {
            Body::Judged(judged) => judged.status.as_deref(),
            Body::Unreadable { why: _, status } => status.as_deref(),
            Body::Whole(_) => None,
        }
    }

    /// What a reference to it finds.
    pub(super) fn referent(&self) -> Referent {
        match &self.body {
            Body::Judged(judged) if judged.faults.is_empty() => Referent::Right,
            Body::Whole(_) => Referent::Right,
            Body::Judged(_) | Body::Unreadable { .. } => Referent::Faulty,
        }
    }

    /// What it refers to.
    pub(super) fn references(&self) -> &[Reference] {
        match &self.body {
            Body::Judged(judged) => &judged.references,
            Body::Whole(_) | Body::Unreadable { .. } => &[],
        }
    }

    /// What it is found by without its name.
    pub(super) fn tags(&self) -> BTreeSet<Tag> {
        self.kept_object().map(|object| self.row.any.tags(&**object)).unwrap_or_default()
    }

    /// The kind's own rules about it, with what they look up.
    pub(super) fn rules(&self, look: &dyn Look) -> Option<Box<dyn Rules>> {
        self.row.any.rules(Arc::clone(self.kept_object()?), look)
    }

    /// What its status depends on, what it looks up apart; `None` of a kind that is executed.
    pub(super) fn declaration(&self) -> Option<Declaration> {
        let Body::Judged(judged) = &self.body else { return None };
        Some(Declaration {
            generation: self.head.generation,
            deleting: self.head.is_being_deleted,
            over: judged.object.as_ref().is_some_and(|object| self.row.any.is_over(&**object)),
            status: fields(self.stored_status()),
            faults: judged.faults.to_vec(),
            needs: vec![],
            traits: self.row.any.traits,
        })
    }
}

impl Projection for Cached {
    fn identity(&self) -> Identity<'_> {
        let Head { name, namespace, uid, resource_version, generation: _, is_being_deleted: _ } = &self.head;
        Identity { namespace, name, uid, resource_version }
    }

    fn kept(&self) -> Option<Self> {
        let copy = |object: &Arc<AnyResource>| self.row.any.kept(&**object);
        let body = match &self.body {
            Body::Whole(object) => Body::Whole(copy(object)?),
            Body::Judged(judged) => {
                let object = copy(judged.object.as_ref()?)?;
                Body::Judged(Box::new(Judged { object: Some(object), ..Judged::clone(judged) }))
            }
            Body::Unreadable { .. } => return None,
        };
        Some(Self { row: self.row, head: self.head.clone(), body })
    }

    fn weight(&self, received: usize) -> usize {
        let kept = match self.kept_object() {
            Some(_) => received.saturating_sub(self.left_out_bytes()),
            None => self.stored_status().map_or(0, |status| status.get().len()),
        };
        size_of::<Self>() + kept
    }
}

#[cfg(test)]
mod tests {
    use agents_core::api::{Agent, AgentRun};
    use serde_json::json;

    use super::*;

    fn cached(object: &Value) -> Cached {
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn object(kind: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": kind,
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3},
            "spec": spec, "status": {"observedGeneration": 2},
        })
    }

    #[test]
    fn findings_are_kept_and_the_spec_only_of_a_kind_that_is_acted_on() {
        let tool = json!({"description": ["secret"]});
        let seen = cached(&object("Tool", &tool));
        assert_eq!(seen.identity(), Identity { namespace: "ns", name: "a", uid: "u", resource_version: "7" });
        assert_eq!(seen.referent(), Referent::Faulty);
        assert!(!format!("{seen:?}").contains("secret"));
        let agent = json!({"providerRef": {"name": "p"}, "env": [{"name": "A=B", "value": "secret"}]});
        let seen = cached(&object("Agent", &agent));
        assert_eq!(seen.references()[0].name, "p");
        assert_eq!(seen.object::<Agent>().unwrap().spec.provider_ref.name, "p");
        let declaration = seen.declaration().unwrap();
        assert_eq!((declaration.generation, declaration.status["observedGeneration"].as_i64()), (Some(3), Some(2)));
        assert_eq!(declaration.faults[0].field, "spec.env[0].name");
    }

    #[test]
    fn a_spec_that_does_not_fit_is_a_fault_with_its_field_and_without_its_value() {
        let said = |spec: Value| {
            let faults = cached(&object("Agent", &spec)).declaration().unwrap().faults;
            faults.iter().map(|Fault { field, problem }| format!("{field}: {problem}")).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            said(json!({"providerRef": {"name": "p"}, "env": [{"name": "A", "value": 5}]})),
            "spec.env[0].value: invalid type: integer `5`, expected a string"
        );
        assert_eq!(said(json!({"providerRef": {}})), "spec.providerRef: missing field `name`");
        assert_eq!(said(Value::Null), "spec: missing field `spec`");
    }

    #[test]
    fn a_run_that_cannot_be_read_says_where_and_keeps_its_status() {
        let mut run = object("AgentRun", &json!({"agentRef": {"name": "w"}, "timeoutSeconds": "long"}));
        let seen = cached(&run);
        let Unreadable { generation, status, why } = seen.unreadable().unwrap();
        assert!(why.starts_with("spec.timeoutSeconds: invalid type: string"), "{seen:?}");
        assert_eq!((generation, status["observedGeneration"].as_i64()), (Some(3), Some(2)));
        assert!(seen.object::<AgentRun>().is_none() && seen.declaration().is_none());
        run["spec"]["timeoutSeconds"] = json!(5);
        run["status"] = json!({"attempts": 5});
        assert!(cached(&run).unreadable().unwrap().why.starts_with("status.attempts: invalid type: integer"));
    }
}
