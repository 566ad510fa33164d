//! Values held against a definition's schema: whether two mean the same, and values made from it.

pub mod instances;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Where `written` and `read` differ in meaning, under `schema`; `None` when nothing was lost.
///
/// An integer and its text are one where the schema takes both, an empty list or map is an absent one, two spellings of a
/// moment are one, and what was not written is its default.
pub fn difference(schema: &Value, written: &Value, read: &Value) -> Option<String> {
    differ(schema, "", Some(written), Some(read))
}

fn differ(schema: &Value, at: &str, written: Option<&Value>, read: Option<&Value>) -> Option<String> {
    let there = |value: Option<&Value>| match value {
        Some(Value::Null) | None => false,
        // A struct that says nothing is there all the same, but for a whole spec; a list or map without members is not.
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(members)) => !members.is_empty() || (schema["properties"].is_object() && !at.is_empty()),
        Some(_) => true,
    };
    let read = read.filter(|value| !value.is_null());
    let default = || schema.get("default").filter(|_| read.is_some());
    let written = written.filter(|value| !value.is_null()).or_else(default);
    let (written, read) = match (written, read) {
        (Some(written), Some(read)) => (written, read),
        (written, read) if there(written) == there(read) => return None,
        (written, read) => return Some(format!("{at}: {} became {}", shown(written), shown(read))),
    };
    match (written, read) {
        (Value::Object(one), Value::Object(two)) => {
            let names = one.keys().chain(two.keys().filter(|name| !one.contains_key(*name)));
            names
                .filter_map(|name| differ(member(schema, name), &format!("{at}.{name}"), one.get(name), two.get(name)))
                .next()
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            let pairs = one.iter().zip(two).enumerate();
            pairs.filter_map(|(n, (a, b))| differ(&schema["items"], &format!("{at}[{n}]"), Some(a), Some(b))).next()
        }
        (one, two) if same(schema, one, two) => None,
        (one, two) => Some(format!("{at}: {} became {}", shown(Some(one)), shown(Some(two)))),
    }
}

fn member<'s>(schema: &'s Value, name: &str) -> &'s Value {
    schema["properties"].get(name).unwrap_or(&schema["additionalProperties"])
}

fn same(schema: &Value, one: &Value, two: &Value) -> bool {
    if one == two {
        return true;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return text(one).is_some_and(|one| text(two) == Some(one));
    }
    if schema["format"] == "date-time" {
        let moment = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
        return moment(one).is_some_and(|one| moment(two) == Some(one));
    }
    one.as_f64().is_some_and(|one| two.as_f64() == Some(one))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    if text.chars().count() > 200 { format!("{} bytes", text.len()) } else { text }
}

/// Calls `visit` with the path and the schema of every field below `schema`.
pub fn fields(schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        let none = Map::new();
        for (name, field) in schema["properties"].as_object().unwrap_or(&none) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            visit(&path, field);
            walk(&path, field, visit);
        }
        walk_inner(path, schema, visit);
    }
    fn walk_inner(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[key].is_object() {
                walk(&format!("{path}{suffix}"), &schema[key], visit);
            }
        }
    }
    walk("", schema, visit);
}
