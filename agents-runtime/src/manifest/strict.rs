//! Holds a document against the schema of its kind, as the API server would, and gives a hint. Pure.
//!
//! The schema is the structural one of the definition, so what passes here passes there. Only the words in [`WORDS`] are
//! known.

use regex::Regex;
use serde_json::{Map, Value};

use super::{
    Rule,
    tree::{Member, Node, Place, Tree},
};

/// Words of a schema that are understood here, or say nothing about a single object as it is created.
pub const WORDS: &[&str] = &[
    "additionalProperties",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    // Carried out by whoever knows CEL.
    "x-kubernetes-validations",
    "x-kubernetes-map-type",
];

/// Deepest value.
const MAX_DEPTH: usize = 64;

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path from the object's root.
    pub field: String,
    /// Where it stands.
    pub place: Place,
    /// What kind of fault it is.
    pub rule: Rule,
    /// What is wrong.
    pub problem: String,
    /// What might help.
    pub hint: Option<String>,
}

/// Holds `node`, which stands at `field`, against `schema`.
pub fn check(node: &Node, schema: &Value, field: &str) -> Vec<Fault> {
    let mut checker = Checker { faults: Vec::new() };
    checker.value(node, node.place, schema, field, 0);
    checker.faults
}

/// Takes away members without a value, as the API server does where the schema says what a member is.
pub fn prune_nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, member| !member.is_null() || member_schema(schema, name).is_none());
            for (name, member) in members {
                if let Some(schema) = member_schema(schema, name) {
                    prune_nulls(member, schema);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune_nulls(item, &schema["items"])),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn member_schema<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(name));
    named.or_else(|| schema.get("additionalProperties").filter(|others| others.is_object()))
}

fn says(schema: &Value, word: &str) -> bool {
    schema.get(word) == Some(&Value::Bool(true))
}

struct Checker {
    faults: Vec<Fault>,
}

impl Checker {
    fn fault(&mut self, place: Place, field: &str, rule: Rule, problem: impl Into<String>, hint: Option<String>) {
        self.faults.push(Fault { field: field.to_owned(), place, rule, problem: problem.into(), hint });
    }

    fn value(&mut self, node: &Node, named: Place, schema: &Value, field: &str, depth: usize) {
        if depth > MAX_DEPTH {
            self.fault(named, field, Rule::Bounds, "nested too deeply", None);
            return;
        }
        if says(schema, "x-kubernetes-int-or-string") {
            self.text_or_integer(node, schema, field);
            return;
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            self.word(node, &words, field);
            return;
        }
        if let Some(kind) = schema.get("type").and_then(Value::as_str)
            && !is(&node.value, kind)
        {
            let problem = format!("is {}; {} is wanted", node.value.describe(), article(kind));
            self.fault(node.place, field, Rule::Type, problem, quoting(&node.value, kind));
            return;
        }
        match &node.value {
            Tree::Map(members) => self.map(named, members, schema, field, depth),
            Tree::List(items) => self.list(named, items, schema, field, depth),
            Tree::Text(text) => self.text(node, text, schema, field),
            Tree::Integer(number) => self.range(node, *number, schema, field),
            Tree::Null | Tree::Bool(_) | Tree::Float(_) => {}
        }
    }

    fn map(&mut self, place: Place, members: &[Member], schema: &Value, field: &str, depth: usize) {
        let known = schema.get("properties").and_then(Value::as_object);
        let free = says(schema, "x-kubernetes-preserve-unknown-fields") || known.is_none();
        self.amount(place, members.len(), schema, field, ("minProperties", "maxProperties"), "entries");
        let there = |name: &str| members.iter().find(|member| member.name == name && member.node.value != Tree::Null);
        for Member { name, place, node } in members {
            let path = join(field, name);
            match member_schema(schema, name) {
                // One without a value is not there at all.
                Some(_) if node.value == Tree::Null => {}
                Some(schema) => self.value(node, *place, schema, &path, depth + 1),
                None if free => {}
                None => {
                    let names = known.into_iter().flat_map(Map::keys).map(String::as_str);
                    let hint = Some(nearest(name, names));
                    self.fault(*place, &path, Rule::UnknownField, "is not a known field", hint);
                }
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if there(name).is_none() {
                self.fault(place, &join(field, name), Rule::Required, "is missing", None);
            }
        }
    }

    fn list(&mut self, place: Place, items: &[Node], schema: &Value, field: &str, depth: usize) {
        self.amount(place, items.len(), schema, field, ("minItems", "maxItems"), "items");
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
        let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
        let mut seen: Vec<Vec<&Tree>> = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let at = format!("{field}[{n}]");
            if let Some(schema) = schema.get("items") {
                self.value(item, item.place, schema, &at, depth + 1);
            }
            let own: Vec<&Tree> = match kind {
                Some("map") => keys.iter().filter_map(|key| item.get(key)).map(|node| &node.value).collect(),
                Some("set") => vec![&item.value],
                _ => continue,
            };
            if seen.contains(&own) {
                self.fault(item.place, &at, Rule::Value, "is given twice", None);
            }
            seen.push(own);
        }
    }

    fn amount(&mut self, place: Place, has: usize, schema: &Value, field: &str, words: (&str, &str), what: &str) {
        let bound = |word| schema.get(word).and_then(Value::as_u64);
        let has = has as u64;
        if let Some(most) = bound(words.1).filter(|most| has > *most) {
            self.fault(place, field, Rule::Bounds, format!("has {has} {what}; at most {most}"), None);
        }
        if let Some(least) = bound(words.0).filter(|least| has < *least) {
            self.fault(place, field, Rule::Bounds, format!("has {has} {what}; at least {least}"), None);
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, field: &str) {
        self.amount(node.place, text.chars().count(), schema, field, ("minLength", "maxLength"), "characters");
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            // A pattern that only the API server understands is left to it.
            if Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text)) {
                let problem = format!("is {}; it does not match {pattern}", node.value.describe());
                self.fault(node.place, field, Rule::Value, problem, None);
            }
        }
        if schema.get("format").and_then(Value::as_str) == Some("date-time") && text.parse::<jiff::Timestamp>().is_err()
        {
            let problem = format!("is {}; a moment is wanted", node.value.describe());
            self.fault(node.place, field, Rule::Value, problem, Some("such as 2026-01-31T08:00:00Z".to_owned()));
        }
    }

    fn range(&mut self, node: &Node, number: i64, schema: &Value, field: &str) {
        let bound = |word| schema.get(word).and_then(Value::as_i64);
        let short = schema.get("format").and_then(Value::as_str) == Some("int32");
        let least = bound("minimum").or(short.then_some(i64::from(i32::MIN)));
        let most = bound("maximum").or(short.then_some(i64::from(i32::MAX)));
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let problem = match (least, most) {
                (Some(least), Some(most)) => format!("is {number}; between {least} and {most} is wanted"),
                (Some(least), None) => format!("is {number}; at least {least} is wanted"),
                (None, Some(most)) => format!("is {number}; at most {most} is wanted"),
                (None, None) => return,
            };
            self.fault(node.place, field, Rule::Bounds, problem, None);
        }
    }

    fn text_or_integer(&mut self, node: &Node, schema: &Value, field: &str) {
        match &node.value {
            Tree::Text(text) => self.text(node, text, schema, field),
            Tree::Integer(_) => {}
            other => {
                let problem = format!("is {}; a text or an integer is wanted", other.describe());
                self.fault(node.place, field, Rule::Type, problem, quoting(other, "string"));
            }
        }
    }

    fn word(&mut self, node: &Node, words: &[&str], field: &str) {
        if node.text().is_some_and(|text| words.contains(&text)) {
            return;
        }
        let problem = format!("is {}; one of {} is wanted", node.value.describe(), words.join(", "));
        let hint = node.text().and_then(|text| closest(text, words.iter().copied()));
        self.fault(node.place, field, Rule::Value, problem, hint.map(|word| format!("did you mean {word}?")));
    }
}

fn is(value: &Tree, kind: &str) -> bool {
    match value {
        Tree::Null => false,
        Tree::Bool(_) => kind == "boolean",
        Tree::Integer(_) => matches!(kind, "integer" | "number"),
        Tree::Float(_) => kind == "number",
        Tree::Text(_) => kind == "string",
        Tree::List(_) => kind == "array",
        Tree::Map(_) => kind == "object",
    }
}

fn article(kind: &str) -> &'static str {
    match kind {
        "boolean" => "true or false",
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a text",
        "array" => "a list",
        "object" => "a map",
        _ => "another value",
    }
}

fn quoting(value: &Tree, wanted: &str) -> Option<String> {
    let quotable = matches!(value, Tree::Bool(_) | Tree::Integer(_) | Tree::Float(_));
    (quotable && wanted == "string").then(|| "quote it".to_owned())
}

fn join(field: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match (field.is_empty(), name.chars().all(plain) && !name.is_empty()) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{field}.{name}"),
        (_, false) => format!("{field}[{name:?}]"),
    }
}

/// A hint about an unknown name: the closest known one, or all of them.
pub fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match closest(name, known.clone()) {
        Some(close) => format!("did you mean {close}?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The known word that a slip of the keyboard turns into `name`, if there is one.
pub fn closest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    known
        .map(|word| (strsim::damerau_levenshtein(&name, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}
