//! Schemas and rules of every kind, for whoever reads manifests without a server.

use std::{cell::OnceCell, collections::BTreeMap};

use agents_core::{
    api::{Kind, VERSION},
    check::{Check, Fault, faults},
    kinds::{self, Visitor},
};
use agents_runtime::manifest::{self, Broken};
use kube::core::cel::{CompiledSchema, ErrorKind, RootContext, Validator, compile_schema};
use serde_json::Value;

use crate::{crd, object::Object};

/// What is known of one kind without its type.
struct Definition {
    api_version: String,
    plural: &'static str,
    schema: fn() -> Value,
    check: fn(&Value) -> Vec<Fault>,
    made: OnceCell<Made>,
}

/// What is made only of kinds that occur: it takes a while.
struct Made {
    schema: Value,
    rules: CompiledSchema,
}

/// Every kind's schema, rules and check, by kind.
pub struct Definitions {
    kinds: BTreeMap<&'static str, Definition>,
    validator: Validator,
}

impl Default for Definitions {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Definitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl Visitor for Definitions {
    fn visit<K: Kind + Check>(&mut self) {
        let definition = Definition {
            api_version: Object::<K>::api_version(),
            plural: K::PLURAL,
            schema: || crd::crd::<K>()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take(),
            check: |object| match serde_json::from_value::<Object<K>>(object.clone()) {
                Ok(object) => faults::<K>(&object.spec),
                Err(error) => vec![Fault { field: "spec".to_owned(), problem: format!("cannot be read: {error}") }],
            },
            made: OnceCell::new(),
        };
        self.kinds.insert(K::KIND, definition);
    }
}

impl Definitions {
    /// Every kind of the product.
    pub fn new() -> Self {
        let mut definitions = Self { kinds: BTreeMap::new(), validator: Validator::new() };
        kinds::visit(&mut definitions);
        definitions
    }

    /// The kinds, with the group and version of each.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.kinds.iter().map(|(kind, definition)| (*kind, definition.api_version.as_str()))
    }

    /// The plural of a kind.
    pub fn plural(&self, kind: &str) -> Option<&'static str> {
        self.kinds.get(kind).map(|definition| definition.plural)
    }

    /// What core's check finds in an object whose schema is kept.
    pub fn check(&self, kind: &str, object: &Value) -> Vec<Fault> {
        self.kinds.get(kind).map(|definition| (definition.check)(object)).unwrap_or_default()
    }

    fn made(&self, api_version: &str, kind: &str) -> Option<&Made> {
        let definition = self.kinds.get(kind).filter(|definition| definition.api_version == api_version)?;
        Some(definition.made.get_or_init(|| {
            let schema = (definition.schema)();
            let rules = compile_schema(&schema);
            Made { schema, rules }
        }))
    }
}

impl manifest::Definitions for Definitions {
    fn schema(&self, api_version: &str, kind: &str) -> Option<&Value> {
        self.made(api_version, kind).map(|made| &made.schema)
    }

    fn broken(&self, api_version: &str, kind: &str, object: &Value) -> Vec<Broken> {
        let Some(made) = self.made(api_version, kind) else { return vec![] };
        let group = api_version.split('/').next().unwrap_or_default().to_owned();
        let context = RootContext { api_version: VERSION.to_owned(), api_group: group, kind: kind.to_owned() };
        let broken = self.validator.validate_compiled_with_context(&made.rules, object, None, Some(&context));
        let broken = broken.err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
        broken
            .into_iter()
            // A rule that cannot be judged here is judged by the API server.
            .filter(|one| matches!(one.kind, ErrorKind::ValidationFailure | ErrorKind::EvaluationError))
            .map(|one| Broken { field: one.field_path.trim_start_matches('.').to_owned(), message: one.message })
            .collect()
    }
}
