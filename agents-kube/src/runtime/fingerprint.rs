//! What a pod template executes, as a hash: equal for the template we make and for the one that the API server stores.
//!
//! It covers our containers, what they mount, and the identity and namespaces of the pod. It leaves out what others may
//! fill in without changing what runs: defaults, resources, scheduling, containers beside ours, and the key of the
//! report, which is another one in each submission.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasher, RandomState},
};

use agents_core::{
    plan::{CONTAINER, INSTALL_CONTAINER, digest},
    report::KEY_VARIABLE,
};
use serde_json::{Map, Value, json};

/// Fields of a pod's spec that decide what its containers are and may do.
const POD: &[&str] = &[
    "automountServiceAccountToken",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "restartPolicy",
    "securityContext",
    "serviceAccountName",
    "shareProcessNamespace",
];
/// Fields of a container that decide what runs in it and what is reported of it. Those that we never set stand here
/// because others could set them.
const OF_CONTAINER: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "lifecycle",
    "livenessProbe",
    "name",
    "readinessProbe",
    "restartPolicy",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
/// What the API server stores where nothing is said.
const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

/// The hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a pod's spec, as JSON.
    pub fn of(spec: Value) -> Self {
        let text = digest::of_json(&projection(spec));
        // A digest of ours reads back; one that did not would only ever differ.
        Self::parse(&text).unwrap_or(Self([0; 32]))
    }

    /// As [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.is_ascii())?;
        let mut bytes = [0; 32];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", digest::hexadecimal(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is read of a Job's pod template.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Its fingerprint.
    pub(super) pod: Fingerprint,
    /// The key that the report of its runner repeats.
    pub(super) report_key: Option<Box<str>>,
}

/// Templates that are remembered at most: those of Jobs under way, each some 200 bytes.
const REMEMBERED: usize = 512;

/// Templates by two hashes of their text, whose keys nobody knows.
#[derive(Default)]
struct Remembered {
    keys: (RandomState, RandomState),
    templates: HashMap<(u64, u64), Template>,
}

thread_local! {
    /// A Job has several states and one template, and to read that costs more than all the rest of a state.
    static SEEN: RefCell<Remembered> = RefCell::default();
}

impl Template {
    /// Of the JSON of a pod's spec.
    pub(super) fn read(spec: &str) -> Self {
        SEEN.with_borrow_mut(|Remembered { keys, templates }| {
            let key = (keys.0.hash_one(spec), keys.1.hash_one(spec));
            if let Some(known) = templates.get(&key) {
                return known.clone();
            }
            // What was decoded as JSON is JSON.
            let spec: Value = serde_json::from_str(spec).unwrap_or_default();
            let report_key = report_key(&spec);
            let template = Self { pod: Fingerprint::of(spec), report_key };
            if templates.len() >= REMEMBERED {
                templates.clear();
            }
            templates.insert(key, template.clone());
            template
        })
    }
}

/// The key of the report in a pod's spec.
fn report_key(spec: &Value) -> Option<Box<str>> {
    let agent = list(&spec["containers"]).find(|container| container["name"] == CONTAINER)?;
    // Of a variable that is given twice the last one counts.
    let key = list(&agent["env"]).filter(|variable| variable["name"] == KEY_VARIABLE).last()?;
    key["value"].as_str().map(Into::into)
}

/// Takes apart what it is given: every state of every Job is looked at, and most of it is large.
fn projection(mut spec: Value) -> Value {
    let mut of = |field: &str, name: &str| -> Vec<Value> {
        let ours = taken_list(&mut spec, field).into_iter().filter(|container| container["name"] == name);
        ours.map(container).collect()
    };
    let (containers, before) = (of("containers", CONTAINER), of("initContainers", INSTALL_CONTAINER));
    let mounted: BTreeSet<&str> = containers
        .iter()
        .chain(&before)
        .flat_map(|container| list(&container["volumeMounts"]))
        .filter_map(|mount| mount["name"].as_str())
        .collect();
    let volumes: Vec<Value> = taken_list(&mut spec, "volumes")
        .into_iter()
        .filter(|volume| volume["name"].as_str().is_some_and(|name| mounted.contains(name)))
        .filter_map(|mut volume| {
            // A bound of its size, which others may set or spell otherwise.
            if let Some(folder) = volume.get_mut("emptyDir").and_then(Value::as_object_mut) {
                folder.remove("sizeLimit");
            }
            said(volume)
        })
        .collect();
    json!({"pod": picked(spec, POD), "containers": containers, "before": before, "volumes": volumes})
}

fn container(container: Value) -> Value {
    let mut picked = picked(container, OF_CONTAINER);
    picked.entry("terminationMessagePath").or_insert_with(|| json!(DEFAULT_MESSAGE_PATH));
    if let Some(Value::Array(variables)) = picked.get_mut("env") {
        variables.retain(|variable| variable["name"] != KEY_VARIABLE);
        if variables.is_empty() {
            picked.remove("env");
        }
    }
    Value::Object(picked)
}

fn picked(mut object: Value, fields: &[&str]) -> Map<String, Value> {
    fields.iter().filter_map(|field| Some(((*field).to_owned(), said(taken(&mut object, field)?)?))).collect()
}

fn taken(object: &mut Value, field: &str) -> Option<Value> {
    object.get_mut(field).map(Value::take)
}

fn taken_list(object: &mut Value, field: &str) -> Vec<Value> {
    match taken(object, field) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// The value without what the API server leaves out: nothing, and texts, lists and objects with nothing in them.
fn said(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(ref text) => (!text.is_empty()).then_some(value),
        Value::Array(items) => {
            // An empty word of a command is a word.
            let items: Vec<_> = items
                .into_iter()
                .map(|item| if item.is_string() { item } else { said(item).unwrap_or(Value::Null) })
                .collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(members) => {
            let members: Map<_, _> =
                members.into_iter().filter_map(|(name, value)| Some((name, said(value)?))).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        Value::Bool(_) | Value::Number(_) => Some(value),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
