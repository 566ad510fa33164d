//! The custom resources as kube knows them: one generic type over [`Kind`], so that `Api<AgentRun>` works as every kube
//! user expects while the domain stays free of Kubernetes crates.

use std::{borrow::Cow, fmt, marker::PhantomData};

use agents_core::api::{self, Kind, Meta, Resource};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Time};
use kube::core::ObjectMeta;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny},
    ser::SerializeStruct,
};

/// An Agent as stored by the API server.
pub type Agent = Object<api::Agent>;
/// An AgentProvider as stored by the API server.
pub type AgentProvider = Object<api::AgentProvider>;
/// An AgentRun as stored by the API server.
pub type AgentRun = Object<api::AgentRun>;
/// An ImplementationSpec as stored by the API server.
pub type ImplementationSpec = Object<api::ImplementationSpec>;

/// A custom resource with its full metadata.
///
/// It writes `apiVersion` and `kind`, without which the API server refuses a create, and refuses to decode an object
/// that names another kind. Absent ones are accepted: the items of some lists carry none.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<K: Kind> {
    /// Metadata as the API server keeps it.
    pub metadata: ObjectMeta,
    /// What users write.
    pub spec: K::Spec,
    /// What the controller writes; `None` until the first status write.
    pub status: Option<K::Status>,
}

impl<K: Kind> Object<K> {
    /// A new object without a namespace, which the API it is sent through decides.
    pub fn new(name: impl Into<String>, spec: K::Spec) -> Self {
        Self { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, spec, status: None }
    }

    /// Moves the object to a namespace.
    #[must_use]
    pub fn within(mut self, namespace: impl Into<String>) -> Self {
        self.metadata.namespace = Some(namespace.into());
        self
    }

    /// `group/version` of the kind.
    pub fn api_version() -> String {
        format!("{}/{}", K::GROUP, K::VERSION)
    }
}

impl<K: Kind> kube::Resource for Object<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }
    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }
    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K: Kind> Serialize for Object<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { metadata, spec, status } = self;
        let mut out = serializer.serialize_struct("Object", 4 + usize::from(status.is_some()))?;
        out.serialize_field("apiVersion", &Self::api_version())?;
        out.serialize_field("kind", K::KIND)?;
        out.serialize_field("metadata", metadata)?;
        out.serialize_field("spec", spec)?;
        match status {
            Some(status) => out.serialize_field("status", status)?,
            None => out.skip_field("status")?,
        }
        out.end()
    }
}

impl<'de, K: Kind> Deserialize<'de> for Object<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<K>(PhantomData<K>);

impl<'de, K: Kind> de::Visitor<'de> for ObjectVisitor<K> {
    type Value = Object<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of kind {}", K::KIND)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object<K>, A::Error> {
        let (mut metadata, mut spec, mut status) = (None, None, None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "apiVersion" => same(&Object::<K>::api_version(), &map.next_value::<String>()?)?,
                "kind" => same(K::KIND, &map.next_value::<String>()?)?,
                "metadata" => metadata = Some(map.next_value()?),
                "spec" => spec = Some(map.next_value()?),
                "status" => status = map.next_value::<Option<K::Status>>()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Object {
            metadata: metadata.unwrap_or_default(),
            spec: spec.map_or_else(api::absent_spec::<K, _>, Ok)?,
            status,
        })
    }
}

fn same<E: de::Error>(expected: &str, found: &str) -> Result<(), E> {
    if expected == found { Ok(()) } else { Err(E::invalid_value(de::Unexpected::Str(found), &expected)) }
}

/// The projection that decisions read.
impl<K: Kind> From<&Object<K>> for Resource<K> {
    fn from(object: &Object<K>) -> Self {
        object.clone().into()
    }
}

impl<K: Kind> From<Object<K>> for Resource<K> {
    fn from(object: Object<K>) -> Self {
        let Object { metadata, spec, status } = object;
        Self { metadata: meta(metadata), spec, status }
    }
}

/// An object to be created or replaced: owner references, finalizers and managed fields are not part of the projection,
/// so a replace made from it must go to the status subresource, which ignores metadata.
impl<K: Kind> From<Resource<K>> for Object<K> {
    fn from(resource: Resource<K>) -> Self {
        let Resource { metadata, spec, status } = resource;
        let Meta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            creation_timestamp,
            deletion_timestamp,
            labels,
            annotations,
            left_out: _,
        } = metadata;
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            metadata: ObjectMeta {
                name: given(name),
                namespace: given(namespace),
                uid: given(uid),
                resource_version,
                generation,
                creation_timestamp: creation_timestamp.map(Time),
                deletion_timestamp: deletion_timestamp.map(Time),
                labels: (!labels.is_empty()).then_some(labels),
                annotations: (!annotations.is_empty()).then_some(annotations),
                ..ObjectMeta::default()
            },
            spec,
            status,
        }
    }
}

/// The part of the metadata that decisions read.
pub(crate) fn meta(metadata: ObjectMeta) -> Meta {
    Meta {
        name: metadata.name.unwrap_or_default(),
        namespace: metadata.namespace.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version,
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp.map(|time| time.0),
        deletion_timestamp: metadata.deletion_timestamp.map(|time| time.0),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        left_out: None,
    }
}

#[cfg(test)]
mod tests {
    use agents_core::api;
    use kube::{Resource as _, ResourceExt};
    use serde_json::json;

    use super::*;

    fn stored() -> serde_json::Value {
        json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {
                "name": "r", "namespace": "ns", "uid": "u1", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-11-21T12:00:00Z",
                "managedFields": [{"manager": "kubectl"}],
                "finalizers": ["example.org/keep"],
                "labels": {"a": "b"}
            },
            "spec": {"agentRef": {"name": "a"}},
            "status": {"phase": "Running"}
        })
    }

    #[test]
    fn an_object_written_back_is_the_object_that_was_read() {
        let object: AgentRun = serde_json::from_value(stored()).unwrap();
        assert_eq!(serde_json::to_value(&object).unwrap(), stored());
    }

    #[test]
    fn a_new_object_names_its_kind_and_has_no_status() {
        let spec = serde_json::from_value(json!({"agentRef": {"name": "a"}})).unwrap();
        let object = AgentRun::new("r", spec).within("ns");
        assert_eq!(
            serde_json::to_value(&object).unwrap(),
            json!({
                "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun",
                "metadata": {"name": "r", "namespace": "ns"},
                "spec": {"agentRef": {"name": "a"}}
            })
        );
    }

    #[test]
    fn another_kind_is_not_decoded() {
        let mut wrong = stored();
        wrong["kind"] = json!("Agent");
        let error = serde_json::from_value::<AgentRun>(wrong).unwrap_err().to_string();
        assert!(error.contains("AgentRun") && error.contains("\"Agent\""), "{error}");
    }

    #[test]
    fn a_list_item_without_type_is_decoded() {
        let mut item = stored();
        item.as_object_mut().unwrap().remove("kind");
        item.as_object_mut().unwrap().remove("apiVersion");
        assert_eq!(serde_json::from_value::<AgentRun>(item).unwrap().name_any(), "r");
    }

    #[test]
    fn the_projection_keeps_what_decisions_read() {
        let object: AgentRun = serde_json::from_value(stored()).unwrap();
        let resource: Resource<api::AgentRun> = (&object).into();
        assert_eq!(
            resource,
            serde_json::from_value(stored()).unwrap(),
            "decoding the bytes and converting the object agree"
        );
        let back: AgentRun = resource.into();
        assert_eq!(back.metadata.resource_version, object.metadata.resource_version);
        assert_eq!(back.metadata.finalizers, None);
    }

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(AgentRun::url_path(&(), Some("ns")), "/apis/agents.proompteng.ai/v1alpha1/namespaces/ns/agentruns");
    }
}
