//! Checks a document against the schema of its kind, as the API server would, and with a hint. Pure.
//!
//! The schema is the one the CRDs are generated from, so a manifest that passes here passes there. Only the words that
//! our schemas use are known; a test goes through all of them.

use serde_json::{Map, Value};

use super::tree::{Node, Tree};

/// Words of our schemas that say nothing about values, or are checked by core on bytes.
#[cfg(test)]
const SILENT: &[&str] = &["$schema", "title", "description", "format", "$defs", "default"];

/// Deepest value.
const MAX_DEPTH: usize = 64;

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Path from the object's root.
    pub(super) field: String,
    pub(super) line: u64,
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

/// Checks `node`, which stands at `field`, against `schema`.
pub(super) fn check(node: &Node, schema: &Value, field: &str) -> Vec<Fault> {
    let mut checker = Checker { root: schema, faults: Vec::new() };
    checker.value(node, schema, field, 0);
    checker.faults
}

struct Checker<'a> {
    root: &'a Value,
    faults: Vec<Fault>,
}

impl<'a> Checker<'a> {
    fn fault(&mut self, node: &Node, field: &str, problem: impl Into<String>, hint: Option<String>) {
        self.faults.push(Fault { field: field.to_owned(), line: node.line, problem: problem.into(), hint });
    }

    fn value(&mut self, node: &Node, schema: &'a Value, field: &str, depth: usize) {
        let schema = self.followed(schema);
        if depth > MAX_DEPTH {
            self.fault(node, field, "nested too deeply", None);
            return;
        }
        if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            self.text_or_integer(node, schema, field);
            return;
        }
        let Some(schema) = self.not_null(node, schema) else {
            return;
        };
        if let Some(words) = words(schema) {
            self.word(node, &words, field);
            return;
        }
        let accepted = types(schema);
        if !accepted.is_empty() && !accepted.iter().any(|kind| is(&node.value, kind)) {
            if node.value == Tree::Null && accepted.contains(&"null") {
                return;
            }
            let wanted = accepted.iter().find(|kind| **kind != "null").map_or("nothing", |kind| article(kind));
            let problem = format!("is {}; {wanted} is wanted", node.value.describe());
            self.fault(node, field, problem, quoting(&node.value, &accepted));
            return;
        }
        match &node.value {
            Tree::Map(members) => self.map(node, members, schema, field, depth),
            Tree::List(items) => self.list(node, items, schema, field, depth),
            Tree::Text(text) => self.length(node, text, schema, field),
            Tree::Integer(number) => self.range(node, *number, schema, field),
            Tree::Null | Tree::Bool(_) | Tree::Float(_) => {}
        }
    }

    /// The schema that a reference names.
    fn followed(&self, schema: &'a Value) -> &'a Value {
        schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| path.strip_prefix('#'))
            .and_then(|path| self.root.pointer(path))
            .unwrap_or(schema)
    }

    /// The schema for a value that is there, of a schema that also allows none; `None` when none is given and allowed.
    fn not_null(&self, node: &Node, schema: &'a Value) -> Option<&'a Value> {
        let Some(choices) = schema.get("anyOf").and_then(Value::as_array) else {
            return Some(schema);
        };
        let is_null = |choice: &Value| choice.get("type") == Some(&Value::from("null"));
        if node.value == Tree::Null && choices.iter().any(is_null) {
            return None;
        }
        choices.iter().find(|choice| !is_null(choice)).map(|choice| self.followed(choice))
    }

    fn map(&mut self, node: &Node, members: &[(String, Node)], schema: &'a Value, field: &str, depth: usize) {
        let empty = Map::new();
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let most = schema.get("maxProperties").and_then(Value::as_u64);
        if most.is_some_and(|most| members.len() as u64 > most) {
            let problem = format!("has {} entries; at most {}", members.len(), most.unwrap_or(0));
            self.fault(node, field, problem, None);
        }
        for (name, member) in members {
            let path = join(field, name);
            match known.and_then(|known| known.get(name)).or(others) {
                Some(schema) => self.value(member, schema, &path, depth + 1),
                // A map without a word about its members takes anything.
                None if known.is_none() => {}
                None => {
                    let names = known.unwrap_or(&empty).keys().map(String::as_str);
                    self.fault(member, &path, "is not a known field", Some(nearest(name, names)));
                }
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = name.as_str()
                && !members.iter().any(|(key, _)| key == name)
            {
                self.fault(node, &join(field, name), "is missing", None);
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &'a Value, field: &str, depth: usize) {
        let most = schema.get("maxItems").and_then(Value::as_u64);
        if most.is_some_and(|most| items.len() as u64 > most) {
            let problem = format!("has {} items; at most {}", items.len(), most.unwrap_or(0));
            self.fault(node, field, problem, None);
        }
        if let Some(schema) = schema.get("items") {
            for (n, item) in items.iter().enumerate() {
                self.value(item, schema, &format!("{field}[{n}]"), depth + 1);
            }
        }
    }

    fn length(&mut self, node: &Node, text: &str, schema: &Value, field: &str) {
        let bound = |word| schema.get(word).and_then(Value::as_u64);
        let characters = text.chars().count() as u64;
        if let Some(most) = bound("maxLength")
            && characters > most
        {
            self.fault(node, field, format!("has {characters} characters; at most {most}"), None);
        }
        if let Some(least) = bound("minLength")
            && characters < least
        {
            self.fault(node, field, format!("has {characters} characters; at least {least}"), None);
        }
    }

    fn range(&mut self, node: &Node, number: i64, schema: &Value, field: &str) {
        let bound = |word| schema.get(word).and_then(Value::as_i64);
        let (least, most) = (bound("minimum"), bound("maximum"));
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let problem = match (least, most) {
                (Some(least), Some(most)) => format!("is {number}; between {least} and {most} is wanted"),
                (Some(least), None) => format!("is {number}; at least {least} is wanted"),
                (None, Some(most)) => format!("is {number}; at most {most} is wanted"),
                (None, None) => return,
            };
            self.fault(node, field, problem, None);
        }
    }

    fn text_or_integer(&mut self, node: &Node, schema: &Value, field: &str) {
        match &node.value {
            Tree::Text(text) => self.length(node, text, schema, field),
            Tree::Integer(_) => {}
            other => {
                let problem = format!("is {}; a text or an integer is wanted", other.describe());
                self.fault(node, field, problem, quoting(other, &["string"]));
            }
        }
    }

    fn word(&mut self, node: &Node, words: &[&str], field: &str) {
        if node.text().is_some_and(|text| words.contains(&text)) {
            return;
        }
        let problem = format!("is {}; one of {} is wanted", node.value.describe(), words.join(", "));
        let hint = node.text().and_then(|text| closest(text, words.iter().copied()));
        self.fault(node, field, problem, hint.map(|word| format!("did you mean {word}?")));
    }
}

/// The words of an enumeration.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let choices = schema.get("oneOf")?.as_array()?;
    choices.iter().map(|choice| choice.get("const").and_then(Value::as_str)).collect()
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    }
}

fn is(value: &Tree, kind: &str) -> bool {
    match value {
        Tree::Null => kind == "null",
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

fn quoting(value: &Tree, accepted: &[&str]) -> Option<String> {
    let quotable = matches!(value, Tree::Bool(_) | Tree::Integer(_) | Tree::Float(_));
    (quotable && accepted.contains(&"string")).then(|| "quote it".to_owned())
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
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match closest(name, known.clone()) {
        Some(close) => format!("did you mean {close}?"),
        None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The known word that a slip of the keyboard turns into `name`, if there is one.
fn closest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let name = name.to_lowercase();
    known
        .map(|word| (strsim::damerau_levenshtein(&name, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use agents_core::api::{AgentProviderSpec, AgentRunSpec, AgentSpec, ImplementationSpecSpec};
    use schemars::schema_for;

    use super::*;

    fn faults(schema: &schemars::Schema, yaml: &str) -> Vec<String> {
        let node: Node = serde_saphyr::from_str(yaml).unwrap();
        check(&node, schema.as_value(), "spec")
            .into_iter()
            .map(|fault| {
                let hint = fault.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                format!("{}: {} {}{hint}", fault.line, fault.field, fault.problem)
            })
            .collect()
    }

    #[test]
    fn every_fault_names_field_line_and_cure() {
        let run = schema_for!(AgentRunSpec);
        let cases = [
            ("agentRef:\n  name: a\n", vec![]),
            ("agentRef:\n  name: a\nparameters: {n: 1, t: x}\ntimeoutSeconds: null\n", vec![]),
            ("agentRef: a\n", vec!["1: spec.agentRef is the text \"a\"; a map is wanted"]),
            (
                "agentref:\n  name: a\n",
                vec!["2: spec.agentref is not a known field (did you mean agentRef?)", "1: spec.agentRef is missing"],
            ),
            (
                "agentRef: {name: a}\ntimeoutSeconds: soon\n",
                vec!["2: spec.timeoutSeconds is the text \"soon\"; an integer is wanted"],
            ),
            (
                "agentRef: {name: a}\ntimeoutSeconds: 0\n",
                vec!["2: spec.timeoutSeconds is 0; between 1 and 31536000 is wanted"],
            ),
            ("agentRef: {name: 7}\n", vec!["1: spec.agentRef.name is the integer 7; a text is wanted (quote it)"]),
            ("agentRef: {name: ''}\n", vec!["1: spec.agentRef.name has 0 characters; at least 1"]),
            (
                "agentRef: {name: a}\nparameters:\n  v: 1.10\n",
                vec!["3: spec.parameters.v is the number 1.1; a text or an integer is wanted (quote it)"],
            ),
            (
                "agentRef: {name: a}\nruntime: {type: jobb}\n",
                vec!["2: spec.runtime.type is the text \"jobb\"; one of job, process is wanted (did you mean job?)"],
            ),
            (
                "agentRef: {name: a}\noutputs:\n- name: a\n- nam: b\n",
                vec![
                    "4: spec.outputs[1].nam is not a known field (did you mean name?)",
                    "4: spec.outputs[1].name is missing",
                ],
            ),
            ("agentRef: {name: a}\noutputs: {}\n", vec!["2: spec.outputs is a map; a list is wanted"]),
        ];
        for (yaml, wanted) in cases {
            assert_eq!(faults(&run, yaml), wanted, "{yaml}");
        }
    }

    /// A word the checker does not know would pass silently.
    #[test]
    fn the_checker_knows_every_word_of_our_schemas() {
        const KNOWN: &[&str] = &[
            "$ref",
            "anyOf",
            "type",
            "properties",
            "additionalProperties",
            "required",
            "maxProperties",
            "maxItems",
            "items",
            "maxLength",
            "minLength",
            "minimum",
            "maximum",
            "x-kubernetes-int-or-string",
            "oneOf",
            "const",
            "enum",
            "inner",
        ];
        fn visit(schema: &Value, unknown: &mut Vec<String>) {
            let Some(members) = schema.as_object() else { return };
            for (word, value) in members {
                match word.as_str() {
                    "properties" | "$defs" => value.as_object().unwrap().values().for_each(|v| visit(v, unknown)),
                    "items" | "additionalProperties" => visit(value, unknown),
                    "anyOf" | "oneOf" => value.as_array().unwrap().iter().for_each(|v| visit(v, unknown)),
                    word if KNOWN.contains(&word) || SILENT.contains(&word) => {}
                    word => unknown.push(word.to_owned()),
                }
            }
        }
        let mut unknown = Vec::new();
        for schema in [
            schema_for!(AgentRunSpec),
            schema_for!(AgentSpec),
            schema_for!(AgentProviderSpec),
            schema_for!(ImplementationSpecSpec),
        ] {
            visit(schema.as_value(), &mut unknown);
        }
        assert_eq!(unknown, Vec::<String>::new());
    }
}
