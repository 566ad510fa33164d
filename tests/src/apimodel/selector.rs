//! Label and field selectors: what lists and watches are cut by.

use serde_json::Value;

use super::{answer::Refusal, resource::Resource};

#[derive(Debug, Clone, PartialEq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// Both selectors of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Term>,
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// Reads the two query parameters.
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = split_outside_parentheses(labels)
            .into_iter()
            .map(|term| parse_label_term(&term))
            .collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|term| !term.trim().is_empty())
            .map(|term| parse_field_term(resource, term.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        self.labels.iter().all(|term| match term {
            Term::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Term::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Term::Exists(key) => label(key).is_some(),
            Term::Absent(key) => label(key).is_none(),
        }) && self.fields.iter().all(|(path, value, equal)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            let found = object.pointer(&pointer).and_then(Value::as_str).unwrap_or("");
            (found == value) == *equal
        })
    }
}

fn parse_field_term(resource: &Resource, term: &str) -> Result<(String, String, bool), Refusal> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==") {
        (path, value, true)
    } else if let Some((path, value)) = term.split_once('=') {
        (path, value, true)
    } else {
        return Err(Refusal::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")));
    };
    let selectable = matches!(
        (resource.plural, path),
        (_, "metadata.name" | "metadata.namespace")
            | ("agentruns" | "pods", "status.phase")
            | ("pods", "spec.nodeName" | "spec.restartPolicy")
            | ("events", "involvedObject.kind" | "involvedObject.name" | "involvedObject.uid" | "reason")
    );
    if selectable {
        Ok((path.to_owned(), value.to_owned(), equal))
    } else {
        Err(Refusal::bad_request(format!("field label not supported: {path}")))
    }
}

fn parse_label_term(term: &str) -> Result<Term, Refusal> {
    let values = |list: &str| {
        list.trim()
            .trim_start_matches('(')
            .trim_end_matches(')')
            .split(',')
            .map(|v| v.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let term = term.trim();
    Ok(if let Some((key, value)) = term.split_once("!=") {
        Term::NotIn(key.trim().into(), vec![value.trim().into()])
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        Term::In(key.trim().into(), vec![value.trim().into()])
    } else if let Some((key, list)) = term.split_once(" notin ") {
        Term::NotIn(key.trim().into(), values(list))
    } else if let Some((key, list)) = term.split_once(" in ") {
        Term::In(key.trim().into(), values(list))
    } else if let Some(key) = term.strip_prefix('!') {
        Term::Absent(key.trim().into())
    } else if term.contains(' ') || term.is_empty() {
        return Err(Refusal::bad_request(format!("unable to parse requirement: {term}")));
    } else {
        Term::Exists(term.into())
    })
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let (mut terms, mut depth) = (vec![String::new()], 0);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match (c, depth, terms.last_mut()) {
            (',', 0, _) => terms.push(String::new()),
            (_, _, Some(last)) => last.push(c),
            (_, _, None) => {}
        }
    }
    terms.retain(|term| !term.trim().is_empty());
    terms
}
