//! Status fields that the installed definition drops, because it is older than this program.
//!
//! The API server takes such a status, stores it without those fields and says nothing; a status that differs from the
//! stored one by nothing else would be written again at every look. What the API server kept of one write says what it
//! keeps of all of a kind; a field that is kept after all is forgotten here with the next write that shows it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use serde_json::{Value, json};

/// Fields of one kind's status that are not stored.
#[derive(Debug)]
pub(super) struct Pruned {
    kind: &'static str,
    /// Their paths, with `[]` for each item of a list.
    dropped: Mutex<BTreeSet<String>>,
}

impl Pruned {
    /// Nothing is known yet.
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, dropped: Mutex::default() }
    }

    /// A write of the status `sent` was answered with `stored`. Tells each field that is dropped once.
    pub(super) fn learn<S: Serialize + PartialEq>(&self, sent: &S, stored: Option<&S>) {
        if stored == Some(sent) && self.dropped().is_empty() {
            return;
        }
        let (sent, stored) = (value(sent), stored.map_or(Value::Null, value));
        let mut missing = BTreeSet::new();
        compare(&sent, &stored, "status", &mut missing);
        let mut dropped = self.dropped();
        let new: Vec<&str> = missing.difference(&dropped).map(String::as_str).collect();
        if !new.is_empty() {
            tracing::warn!(
                kind = self.kind,
                fields = new.join(", "),
                "the installed definition is older than this program and drops these fields: run `agents crds apply`"
            );
        }
        // What was sent and came back is kept.
        dropped.retain(|path| missing.contains(path) || !has(&sent, path));
        dropped.extend(missing);
    }

    /// Whether writing `wanted` over `stored` would change nothing, for all that is known.
    pub(super) fn is_the_same(&self, wanted: &impl Serialize, stored: Option<&impl Serialize>) -> bool {
        let dropped = self.dropped();
        if dropped.is_empty() {
            return false;
        }
        let mut wanted = value(wanted);
        remove(&mut wanted, "status", &dropped);
        let mut stored = stored.map_or_else(|| json!({}), value);
        remove(&mut stored, "status", &dropped);
        wanted == stored
    }

    /// A panic while the lock was held leaves at most one field out, which the next write finds again.
    fn dropped(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn value<S: Serialize>(status: &S) -> Value {
    // A status has no keys but strings.
    serde_json::to_value(status).unwrap_or_default()
}

/// Names what `sent` has and `stored` has not. A list of another length was written by someone else: nothing is learned
/// from it.
fn compare(sent: &Value, stored: &Value, path: &str, missing: &mut BTreeSet<String>) {
    match (sent, stored) {
        (Value::Object(sent), Value::Object(stored)) => {
            for (key, value) in sent {
                let path = format!("{path}.{key}");
                match stored.get(key) {
                    Some(stored) => compare(value, stored, &path, missing),
                    None if value.is_null() => {}
                    None => {
                        missing.insert(path);
                    }
                }
            }
        }
        (Value::Array(sent), Value::Array(stored)) if sent.len() == stored.len() => {
            let path = format!("{path}[]");
            sent.iter().zip(stored).for_each(|(sent, stored)| compare(sent, stored, &path, missing));
        }
        _ => {}
    }
}

/// Whether a status has a field of this path.
fn has(value: &Value, path: &str) -> bool {
    let mut found = BTreeSet::new();
    paths(value, "status", &mut found);
    found.contains(path)
}

fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let path = format!("{path}.{key}");
            paths(value, &path, found);
            found.insert(path);
        }),
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

fn remove(value: &mut Value, path: &str, dropped: &BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !dropped.contains(&format!("{path}.{key}")));
            for (key, value) in fields {
                remove(value, &format!("{path}.{key}"), dropped);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove(item, &format!("{path}[]"), dropped)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_differs_by_dropped_fields_alone_is_the_same() {
        let pruned = Pruned::new("AgentRun");
        let sent = json!({"phase": "Running", "cause": "x", "attempts": [{"attempt": 1, "since": "a"}]});
        let stored = json!({"phase": "Running", "attempts": [{"attempt": 1}], "defaulted": true});
        assert!(!pruned.is_the_same(&sent, Some(&stored)), "nothing is known");
        pruned.learn(&sent, Some(&stored));
        let stored = json!({"phase": "Running", "attempts": [{"attempt": 1}]});
        let later = json!({"phase": "Running", "cause": "y", "attempts": [{"attempt": 1, "since": "b"}]});
        assert!(pruned.is_the_same(&later, Some(&stored)), "whatever the dropped fields would say");
        let other = json!({"phase": "Succeeded", "cause": "y", "attempts": [{"attempt": 1, "since": "b"}]});
        assert!(!pruned.is_the_same(&other, Some(&stored)));
        assert!(!pruned.is_the_same(&other, None::<&Value>));
    }

    #[test]
    fn a_field_that_is_kept_after_all_counts_again() {
        let pruned = Pruned::new("AgentRun");
        let (short, long) = (json!({"phase": "Running"}), json!({"phase": "Running", "cause": "x"}));
        pruned.learn(&long, Some(&short));
        assert!(pruned.is_the_same(&long, Some(&short)));
        pruned.learn(&short, Some(&short));
        assert!(pruned.is_the_same(&long, Some(&short)), "a write without the field says nothing about it");
        pruned.learn(&long, Some(&long));
        assert!(!pruned.is_the_same(&long, Some(&short)));
    }

    #[test]
    fn what_another_wrote_is_no_dropped_field() {
        let pruned = Pruned::new("AgentRun");
        pruned.learn(&json!({"attempts": [{"a": 1}, {"a": 2}]}), Some(&json!({"attempts": [{"b": 1}]})));
        assert!(!pruned.is_the_same(&json!({"attempts": [{"a": 1}]}), Some(&json!({"attempts": [{}]}))));
    }
}
