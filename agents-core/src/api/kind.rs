//! What a kind is: the facts from which its CRD, its printer columns and its API path are generated, and the
//! projection of an object that the domain works on.

use std::{collections::BTreeMap, fmt::Debug};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, value::MapDeserializer},
};

use crate::kept::LeftOut;

/// API group of the core kinds.
pub const GROUP: &str = "agents.proompteng.ai";
/// Version of every kind that names no other.
pub const VERSION: &str = "v1alpha1";
/// Category of every kind. It differs from every plural, singular and short name, because kubectl expands
/// categories first and `kubectl delete agents --all` must never mean all kinds.
pub const CATEGORY: &str = "agents-all";

/// A printer column of `kubectl get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// JSONPath from the object's root, such as `.status.phase`.
    pub path: &'static str,
    /// OpenAPI type: `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// Shown only with `-o wide`.
    pub wide: bool,
}

/// A CEL rule on the object's root, checked by the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Path from the object's root of the field that the refusal names, such as `.spec.cron`.
    pub field: &'static str,
    /// The CEL expression; `oldSelf` makes it a transition rule.
    pub expression: &'static str,
    /// What the user reads when it fails.
    pub message: &'static str,
}

/// Fields of a spec that may not change any more once the object was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// Members of the spec.
    pub fields: &'static [&'static str],
    /// CEL over `oldSelf`, the object as it was: whether it was not judged yet, or is of those that stay free.
    pub unless: &'static str,
    /// What the user reads behind the names of what was changed.
    pub message: &'static str,
}

/// What a status says, besides its conditions, of an object that is decided by what it declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Says {
    /// Nothing.
    Conditions,
    /// A reason and a message. So it is too where the phase belongs to whoever acts on the object, because it freezes the
    /// spec: a fault must stay mendable.
    Reason,
    /// A phase, `Invalid`, `Pending` or `Ready`, with a reason and a message.
    Phase,
}

/// A custom resource kind. Implemented by marker types; `agents_kube::Object<K>` and the CRD generator read it.
pub trait Kind: Debug + Clone + Copy + Default + PartialEq + Send + Sync + 'static {
    /// API group.
    const GROUP: &'static str = GROUP;
    /// Version that the types of this kind are of.
    const VERSION: &'static str = VERSION;
    /// Kind, in CamelCase.
    const KIND: &'static str;
    /// Lower-case plural.
    const PLURAL: &'static str;
    /// Lower-case singular.
    const SINGULAR: &'static str;
    /// Names accepted by kubectl besides plural and singular.
    const SHORT_NAMES: &'static [&'static str];
    /// One sentence for `kubectl explain`.
    const DESCRIPTION: &'static str;
    /// Printer columns, Age excluded: it is added to every kind.
    const COLUMNS: &'static [Column];
    /// CEL rules on the root.
    const RULES: &'static [Rule] = &[];
    /// What of the spec may not change any more, and since when.
    const FROZEN: Option<Frozen> = None;
    /// Whether an object without `spec` is one whose spec has no fields; only where every field is optional.
    const SPEC_OPTIONAL: bool = false;
    /// A manifest that shows what the kind is for, as a user would write it.
    const EXAMPLE: &'static str;
    /// Fields usable in field selectors.
    const SELECTABLE: &'static [&'static str] = &[];
    /// Field selector of the objects that can still change; `None` where that is every object. Others need no watching.
    const UNFINISHED: Option<&'static str> = None;
    /// Phase that an object has before any controller stored its status: a default of the definition, which costs no write.
    const FIRST_PHASE: Option<&'static str> = None;
    /// What the status says besides its conditions.
    const SAYS: Says = Says::Phase;
    /// Whether this version does what an object of the kind asks for, rather than only checking and storing it.
    const ACTED_ON: bool = false;
    /// The copy of a large object that caches keep in its place; `None` of one that is kept whole.
    fn kept(object: &Resource<Self>) -> Option<Resource<Self>> {
        let _ = object;
        None
    }
    /// What users write.
    type Spec: Serialize + DeserializeOwned + JsonSchema + Debug + Clone + PartialEq + Send + Sync + 'static;
    /// What the controller writes.
    type Status: Serialize + DeserializeOwned + JsonSchema + Debug + Clone + Default + PartialEq + Send + Sync + 'static;
}

/// The part of an object's metadata that decisions read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Object name.
    pub name: String,
    /// Namespace; every kind is namespaced.
    #[serde(default)]
    pub namespace: String,
    /// Unique id given by the API server, or by the local engine.
    #[serde(default)]
    pub uid: String,
    /// Opaque version of the object; carried by conditional writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Counts changes of spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the object was stored first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// When deletion was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What a cache has left out of the spec, when it keeps only a part.
    #[serde(skip)]
    pub left_out: Option<Box<LeftOut>>,
}

/// An object of kind `K` as decisions see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(bound = "", try_from = "Written<K>")]
pub struct Resource<K: Kind> {
    /// Projected metadata.
    pub metadata: Meta,
    /// What the user wrote.
    pub spec: K::Spec,
    /// What was stored last; empty on a new object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<K::Status>,
}

/// An object as it is written: one without `spec` is still an object of some kinds.
#[derive(Deserialize)]
#[serde(bound = "")]
struct Written<K: Kind> {
    metadata: Meta,
    spec: Option<K::Spec>,
    status: Option<K::Status>,
}

impl<K: Kind> TryFrom<Written<K>> for Resource<K> {
    type Error = serde::de::value::Error;

    fn try_from(written: Written<K>) -> Result<Self, Self::Error> {
        let Written { metadata, spec, status } = written;
        Ok(Self { metadata, spec: spec.map_or_else(absent_spec::<K, _>, Ok)?, status })
    }
}

/// What an object without `spec` says.
///
/// # Errors
/// The kind needs one.
pub fn absent_spec<K: Kind, E: serde::de::Error>() -> Result<K::Spec, E> {
    if !K::SPEC_OPTIONAL {
        return Err(E::missing_field("spec"));
    }
    K::Spec::deserialize(MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
}
