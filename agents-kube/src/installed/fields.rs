//! Which fields a schema knows, what another one lacks of them, and what an object would lose by it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The fields of a structural schema, as a definition and an OpenAPI document both write it; all else is left out, for
/// such documents are large.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Shape {
    #[serde(rename = "type")]
    kind: Option<String>,
    properties: BTreeMap<String, Shape>,
    items: Option<Box<Shape>>,
    additional_properties: Option<Additional>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserves: bool,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Additional {
    Any(bool),
    Of(Box<Shape>),
}

/// What becomes of a field under a schema.
#[derive(Debug, Clone, Copy)]
enum Kept<'a> {
    /// It is dropped.
    Not,
    /// It is kept, whatever it is.
    Any,
    /// It is kept as far as this knows it.
    As(&'a Shape),
}

/// Of an object's root, what the API server keeps by itself.
const OWN: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Shape {
    /// An object of these properties and no others.
    pub fn of(properties: BTreeMap<String, Shape>) -> Self {
        Self { properties, ..Self::default() }
    }

    /// What becomes of a field of this name.
    fn kept(&self, name: &str) -> Kept<'_> {
        self.properties.get(name).map_or_else(|| self.other(), Kept::As)
    }

    /// What becomes of a field of any name that `properties` has not.
    fn other(&self) -> Kept<'_> {
        match &self.additional_properties {
            Some(Additional::Of(shape)) => Kept::As(shape),
            Some(Additional::Any(true)) => Kept::Any,
            Some(Additional::Any(false)) | None if self.preserves => Kept::Any,
            Some(Additional::Any(false)) | None => Kept::Not,
        }
    }

    /// The paths, from the object's root, of the fields of `self` that `other` does not know: `spec.steps[].name`, with
    /// `*` for any name.
    pub fn beyond(&self, other: &Shape) -> Vec<String> {
        let mut found = Vec::new();
        for (name, shape) in &self.properties {
            if !OWN.contains(&name.as_str()) {
                shape.collect(other.kept(name), name, &mut found);
            }
        }
        found
    }

    fn collect(&self, other: Kept<'_>, path: &str, found: &mut Vec<String>) {
        let other = match other {
            Kept::Not => return found.push(path.to_owned()),
            Kept::Any => return,
            Kept::As(other) => other,
        };
        let retyped = match (self.kind.as_deref(), other.kind.as_deref()) {
            (Some(mine), Some(theirs)) => mine != theirs && (mine, theirs) != ("integer", "number"),
            (None, Some(_)) => self.preserves || self.int_or_string,
            (_, None) => false,
        };
        if retyped {
            return found.push(path.to_owned());
        }
        for (name, shape) in &self.properties {
            shape.collect(other.kept(name), &format!("{path}.{name}"), found);
        }
        // Names that only the other side has are kept as it says, even where this side leaves them free.
        let named = || other.properties.iter().filter(|(name, _)| !self.properties.contains_key(*name));
        match (self.other(), other.other()) {
            (Kept::Any | Kept::As(_), Kept::Not) => found.push(format!("{path}.*")),
            (Kept::Any, inner) => {
                let rest = if let Kept::As(shape) = inner { Some(shape) } else { None };
                if named().map(|(_, shape)| shape).chain(rest).any(Shape::narrows) {
                    found.push(format!("{path}.*"));
                }
            }
            (Kept::As(shape), inner) => {
                shape.collect(inner, &format!("{path}.*"), found);
                for (name, theirs) in named() {
                    shape.collect(Kept::As(theirs), &format!("{path}.{name}"), found);
                }
            }
            (Kept::Not, _) => {}
        }
        if let (Some(items), Some(inner)) = (&self.items, &other.items) {
            items.collect(Kept::As(inner), &format!("{path}[]"), found);
        }
    }

    /// Whether there is a value of which it drops something, or which it does not admit.
    fn narrows(&self) -> bool {
        let Self { kind, properties, items, additional_properties, preserves, int_or_string } = self;
        let shapes = properties.values().chain(items.as_deref());
        let rest = match additional_properties {
            Some(Additional::Of(shape)) => shape.narrows(),
            Some(Additional::Any(true)) => false,
            Some(Additional::Any(false)) | None => !preserves,
        };
        kind.is_some() || *int_or_string || rest || shapes.into_iter().any(Self::narrows)
    }

    /// The paths of what a stored object would lose, or could not keep, under this schema.
    pub fn lost(&self, object: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in object.as_object().into_iter().flatten() {
            if !OWN.contains(&name.as_str()) {
                self.prune(name, value, name, &mut found);
            }
        }
        found
    }

    fn prune(&self, name: &str, value: &Value, path: &str, found: &mut Vec<String>) {
        match self.kept(name) {
            Kept::Not => found.push(path.to_owned()),
            Kept::Any => {}
            Kept::As(shape) => shape.look(value, path, found),
        }
    }

    fn look(&self, value: &Value, path: &str, found: &mut Vec<String>) {
        if self.kind.as_deref().is_some_and(|kind| !fits(kind, value)) {
            return found.push(path.to_owned());
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.prune(name, value, &format!("{path}.{name}"), found);
                }
            }
            Value::Array(items) => {
                for (n, (value, shape)) in items.iter().zip(self.items.iter().cycle()).enumerate() {
                    shape.look(value, &format!("{path}[{n}]"), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn fits(kind: &str, value: &Value) -> bool {
    match value {
        // Dropped by the API server before it is stored.
        Value::Null => true,
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => kind == "number" || kind == "integer" && number.is_i64(),
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(spec: &Value) -> Shape {
        let schema = json!({ "type": "object", "properties": { "metadata": { "$ref": "#/meta" }, "spec": spec } });
        serde_json::from_value(schema).unwrap()
    }

    fn full() -> Shape {
        shape(&json!({ "type": "object", "description": "kept out", "properties": {
            "name": { "type": "string" },
            "count": { "type": "integer" },
            "size": { "x-kubernetes-int-or-string": true },
            "steps": { "type": "array", "items": { "type": "object", "properties": { "run": { "type": "string" } } } },
            "env": { "type": "object", "additionalProperties": { "type": "object", "properties": { "a": { "type": "string" } } } },
            "config": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        } }))
    }

    #[test]
    fn nothing_lies_beyond_itself() {
        assert_eq!(full().beyond(&full()), Vec::<String>::new());
    }

    #[test]
    fn each_place_where_a_field_can_be_missing_is_named() {
        let old = shape(&json!({ "type": "object", "properties": {
            "count": { "type": "string" },
            "size": { "x-kubernetes-int-or-string": true },
            "steps": { "type": "array", "items": { "type": "object" } },
            "env": { "type": "object", "additionalProperties": { "type": "object" } },
            "config": { "type": "object" },
        } }));
        assert_eq!(
            full().beyond(&old),
            ["spec.config.*", "spec.count", "spec.env.*.a", "spec.name", "spec.steps[].run"]
        );
        let free = shape(&json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }));
        assert_eq!(full().beyond(&free), Vec::<String>::new());
        assert_eq!(free.beyond(&full()), ["spec.*"]);
    }

    #[test]
    fn what_was_free_is_lost_where_it_is_typed() {
        let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let any = json!({ "x-kubernetes-preserve-unknown-fields": true });
        let with = |key: &str, value: Value| {
            let mut schema = free.clone();
            schema[key] = value;
            schema
        };
        let own = with("properties", json!({ "a": { "type": "string" } }));
        let open = with("properties", json!({ "a": any }));
        let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        let anything = json!({ "type": "object", "additionalProperties": true });
        let beyond = |old: &Value, new: &Value| shape(old).beyond(&shape(new));
        for same in [&free, &any, &own, &open, &texts, &anything] {
            assert_eq!(beyond(same, same), Vec::<String>::new(), "{same}");
        }
        for (old, new) in [(&free, &open), (&open, &free), (&own, &free), (&free, &anything), (&free, &any)] {
            assert_eq!(beyond(old, new), Vec::<String>::new(), "{old} {new}");
        }
        for (old, new) in [(&free, &own), (&free, &texts), (&anything, &own), (&anything, &texts)] {
            assert_eq!(beyond(old, new), ["spec.*"], "{old} {new}");
        }
        assert_eq!(beyond(&open, &own), ["spec.a"]);
        assert_eq!(beyond(&any, &free), ["spec"]);
    }

    #[test]
    fn a_value_of_either_type_is_lost_under_one_of_them() {
        let both = json!({ "x-kubernetes-int-or-string": true });
        let (integer, number) = (json!({ "type": "integer" }), json!({ "type": "number" }));
        assert_eq!(shape(&both).beyond(&shape(&integer)), ["spec"]);
        assert_eq!(shape(&integer).beyond(&shape(&both)), Vec::<String>::new());
        assert_eq!(shape(&integer).beyond(&shape(&number)), Vec::<String>::new());
        assert_eq!(shape(&number).beyond(&shape(&integer)), ["spec"]);
    }

    #[test]
    fn a_name_that_the_other_side_types_is_compared_with_what_any_name_had() {
        let map = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        let mut new = map.clone();
        new["properties"] = json!({ "a": { "type": "integer" }, "b": { "type": "string" } });
        assert_eq!(shape(&map).beyond(&shape(&new)), ["spec.a"]);
    }

    #[test]
    fn only_what_an_object_uses_is_lost() {
        let object = json!({
            "apiVersion": "v", "kind": "K", "metadata": { "name": "n", "labels": { "a": "b" } },
            "spec": {
                "name": "n", "count": 3, "size": "3", "old": true,
                "steps": [{ "run": "a" }, { "run": "b", "old": null }],
                "env": { "x": { "a": "b", "old": [] } },
                "config": { "anything": [1] },
            },
        });
        assert_eq!(full().lost(&object), ["spec.env.x.old", "spec.old", "spec.steps[1].old"]);
        let retyped = json!({ "spec": { "count": "3", "name": 1, "steps": {} }, "status": {} });
        assert_eq!(full().lost(&retyped), ["spec.count", "spec.name", "spec.steps", "status"]);
    }
}
