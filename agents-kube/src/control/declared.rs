//! What is kept of a declaration: who it is, what is wrong with it, what it refers to, and its status as it stands.
//!
//! The spec is checked while it is decoded and is not kept. One that does not fit its kind is a fault of the
//! declaration, not of the cache: the API server may hold what an older definition admitted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use agents_core::{
    api::{Kind, absent_spec},
    check::{Check, Fault, Reference, faults},
    decide::declaration::{Declaration, Traits},
    kinds::{self, Visitor},
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    client::decode_text,
    watch::{Identity, Key, Projection},
};

/// An object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its kind.
    pub kind: &'static str,
    /// Where it is.
    pub key: Key,
}

/// A declaration of any kind, checked by the rules of the kind that it names.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Declared {
    metadata: Metadata,
    faults: Box<[Fault]>,
    references: Box<[Reference]>,
    status: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Box<str>,
    #[serde(default)]
    namespace: Box<str>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    resource_version: Box<str>,
    generation: Option<i64>,
    deletion_timestamp: Option<Box<str>>,
}

/// An object as the API server writes it; of custom resources the items of a list name their kind too.
#[derive(Deserialize)]
struct Written {
    kind: Box<str>,
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

impl TryFrom<Written> for Declared {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { kind, metadata, spec, status } = written;
        let judge = JUDGES.get(&*kind).ok_or_else(|| format!("no such kind: {kind:?}"))?;
        let (faults, references) = judge(spec.as_deref());
        Ok(Self { metadata, faults: faults.into(), references: references.into(), status })
    }
}

/// What is found in a spec.
type Judge = fn(Option<&RawValue>) -> (Vec<Fault>, Vec<Reference>);

/// The only code here that exists once for each kind: everything around it would be compiled as often.
static JUDGES: LazyLock<BTreeMap<&'static str, Judge>> = LazyLock::new(|| {
    struct Collect(BTreeMap<&'static str, Judge>);
    impl Visitor for Collect {
        fn visit<K: Kind + Check>(&mut self) {
            self.0.insert(K::KIND, judge::<K>);
        }
    }
    let mut judges = Collect(BTreeMap::new());
    kinds::visit(&mut judges);
    judges.0
});

fn judge<K: Kind + Check>(spec: Option<&RawValue>) -> (Vec<Fault>, Vec<Reference>) {
    match decode::<K>(spec) {
        Ok(spec) => (faults::<K>(&spec), K::references(&spec)),
        Err(fault) => (vec![fault], vec![]),
    }
}

/// The spec as its kind, or where it does not fit.
fn decode<K: Kind>(spec: Option<&RawValue>) -> Result<K::Spec, Fault> {
    let Some(spec) = spec else {
        let fault = |error: serde_json::Error| Fault { field: "spec".to_owned(), problem: decode_text(&error) };
        return absent_spec::<K, _>().map_err(fault);
    };
    let mut json = serde_json::Deserializer::from_str(spec.get());
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
        let text = decode_text(error.inner());
        // A place in our copy of the object helps nobody.
        let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem).to_owned();
        Fault { field, problem }
    })
}

impl Declared {
    pub(super) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    pub(super) fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// Whether its spec has no fault.
    pub(super) fn is_right(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn references(&self) -> &[Reference] {
        &self.references
    }

    /// The objects it refers to.
    pub(super) fn needed(&self) -> Vec<Id> {
        let id = |reference: &Reference| Id {
            kind: reference.kind,
            key: Key::new(&*self.metadata.namespace, reference.name.as_str()),
        };
        self.references.iter().map(id).collect()
    }

    /// Its status as it is stored.
    pub(super) fn status(&self) -> Map<String, Value> {
        self.status.as_deref().and_then(|status| serde_json::from_str(status.get()).ok()).unwrap_or_default()
    }

    /// What its status depends on, its references apart.
    pub(super) fn declaration(&self, traits: Traits) -> Declaration {
        Declaration {
            generation: self.metadata.generation,
            deleting: self.metadata.deletion_timestamp.is_some(),
            status: self.status(),
            faults: self.faults.to_vec(),
            needs: vec![],
            traits,
        }
    }
}

impl Projection for Declared {
    fn identity(&self) -> Identity<'_> {
        let Metadata { name, namespace, uid, resource_version, generation: _, deletion_timestamp: _ } = &self.metadata;
        Identity { namespace, name, uid, resource_version }
    }
}

/// Which declarations refer to an object.
#[derive(Debug, Default)]
pub(super) struct Dependents(Mutex<Links>);

#[derive(Debug, Default)]
struct Links {
    needs: HashMap<Id, Vec<Id>>,
    dependents: HashMap<Id, BTreeSet<Id>>,
}

impl Dependents {
    /// From now on `id` refers to these and no others.
    pub(super) fn needs(&self, id: &Id, needed: Vec<Id>) {
        let mut links = self.links();
        for former in links.needs.remove(id).unwrap_or_default() {
            if let Some(dependents) = links.dependents.get_mut(&former) {
                dependents.remove(id);
                if dependents.is_empty() {
                    links.dependents.remove(&former);
                }
            }
        }
        for needed in &needed {
            links.dependents.entry(needed.clone()).or_default().insert(id.clone());
        }
        if !needed.is_empty() {
            links.needs.insert(id.clone(), needed);
        }
    }

    /// Those that refer to this object.
    pub(super) fn of(&self, id: &Id) -> Vec<Id> {
        self.links().dependents.get(id).into_iter().flatten().cloned().collect()
    }

    /// Those that refer to an object of this kind.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<Id> {
        let links = self.links();
        let of_kind = links.dependents.iter().filter(|(needed, _)| needed.kind == kind);
        let mut found: Vec<Id> = of_kind.flat_map(|(_, dependents)| dependents).cloned().collect();
        found.sort();
        found
    }

    /// A panic while the lock was held leaves at most one link out, which its next change puts back.
    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use agents_core::api::Agent;
    use serde_json::json;

    use super::*;

    fn declared(object: &Value) -> Declared {
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn agent(spec: &Value) -> Value {
        json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "Agent",
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3},
            "spec": spec, "status": {"observedGeneration": 2},
        })
    }

    #[test]
    fn findings_are_kept_and_the_spec_is_not() {
        let seen =
            declared(&agent(&json!({"providerRef": {"name": "p"}, "env": [{"name": "A=B", "value": "secret"}]})));
        assert_eq!(seen.identity(), Identity { namespace: "ns", name: "a", uid: "u", resource_version: "7" });
        assert!(!seen.is_right());
        assert_eq!(seen.needed(), [Id { kind: "AgentProvider", key: Key::new("ns", "p") }]);
        assert!(!format!("{seen:?}").contains("secret"));
        let declaration = seen.declaration(Traits::of::<Agent>());
        assert_eq!((declaration.generation, declaration.status["observedGeneration"].as_i64()), (Some(3), Some(2)));
        assert_eq!(declaration.faults[0].field, "spec.env[0].name");
    }

    #[test]
    fn a_spec_that_does_not_fit_is_a_fault_with_its_field_and_without_its_value() {
        let said = |spec: Value| {
            let faults = declared(&agent(&spec)).faults;
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
    fn a_link_lasts_as_long_as_the_reference() {
        let dependents = Dependents::default();
        let id = |kind, name: &str| Id { kind, key: Key::new("ns", name) };
        dependents.needs(&id("Agent", "a"), vec![id("AgentProvider", "p")]);
        dependents.needs(&id("Agent", "b"), vec![id("AgentProvider", "p")]);
        assert_eq!(dependents.of(&id("AgentProvider", "p")), [id("Agent", "a"), id("Agent", "b")]);
        dependents.needs(&id("Agent", "a"), vec![id("AgentProvider", "q")]);
        assert_eq!(dependents.of(&id("AgentProvider", "p")), [id("Agent", "b")]);
        assert_eq!(dependents.of_kind("AgentProvider"), [id("Agent", "a"), id("Agent", "b")]);
        dependents.needs(&id("Agent", "b"), vec![]);
        assert_eq!(dependents.of(&id("AgentProvider", "p")), []);
    }
}
