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

use self::json::{Json, Members};

mod json;

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
    /// Of the JSON of a pod's spec.
    pub fn of(spec: &str) -> Self {
        Self::of_json(read(spec))
    }

    fn of_json(spec: Json<'_>) -> Self {
        // Writing to memory cannot fail, and neither can JSON.
        Self(digest::sha256_bytes(&serde_json::to_vec(&projection(spec)).unwrap_or_default()))
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
            let spec = read(spec);
            let report_key = report_key(&spec);
            let template = Self { pod: Fingerprint::of_json(spec), report_key };
            if templates.len() >= REMEMBERED {
                templates.clear();
            }
            templates.insert(key, template.clone());
            template
        })
    }
}

/// What was decoded as JSON, or made of plain data, is JSON.
fn read(spec: &str) -> Json<'_> {
    serde_json::from_str(spec).unwrap_or_default()
}

/// The key of the report in a pod's spec.
fn report_key(spec: &Json<'_>) -> Option<Box<str>> {
    let agent = spec.list("containers").iter().find(|container| is_named(container, CONTAINER))?;
    // Of a variable that is given twice the last one counts.
    let key = agent.list("env").iter().rfind(|variable| is_named(variable, KEY_VARIABLE))?;
    key.get("value")?.as_str().map(Into::into)
}

fn is_named(object: &Json<'_>, name: &str) -> bool {
    object.get("name").and_then(Json::as_str) == Some(name)
}

/// Takes apart what it is given: most of it is thrown away.
fn projection(mut spec: Json<'_>) -> Json<'_> {
    let mut of = |field: &str, name: &str| -> Vec<Json<'_>> {
        let ours = taken_list(&mut spec, field).into_iter().filter(|container| is_named(container, name));
        ours.map(container).collect()
    };
    let (containers, before) = (of("containers", CONTAINER), of("initContainers", INSTALL_CONTAINER));
    let mut volumes = taken_list(&mut spec, "volumes");
    let mounted: BTreeSet<&str> = containers
        .iter()
        .chain(&before)
        .flat_map(|container| container.list("volumeMounts"))
        .filter_map(|mount| mount.get("name")?.as_str())
        .collect();
    volumes.retain(|volume| volume.get("name").and_then(Json::as_str).is_some_and(|name| mounted.contains(name)));
    let volumes = volumes.into_iter().filter_map(|mut volume| {
        // A bound of its size, which others may set or spell otherwise.
        if let Json::Object(members) = &mut volume
            && let Some(Json::Object(folder)) = members.get_mut("emptyDir")
        {
            folder.remove("sizeLimit");
        }
        said(volume)
    });
    let parts = [
        ("volumes", Json::List(volumes.collect())),
        ("pod", Json::Object(picked(spec, POD))),
        ("containers", Json::List(containers)),
        ("before", Json::List(before)),
    ];
    Json::Object(Members::new(parts.into_iter().map(|(name, value)| (name.into(), value)).collect()))
}

fn container(container: Json<'_>) -> Json<'_> {
    let mut picked = picked(container, OF_CONTAINER);
    picked.insert_missing("terminationMessagePath", Json::Text(DEFAULT_MESSAGE_PATH.into()));
    if let Some(Json::List(variables)) = picked.get_mut("env") {
        variables.retain(|variable| !is_named(variable, KEY_VARIABLE));
        if variables.is_empty() {
            picked.remove("env");
        }
    }
    Json::Object(picked)
}

fn picked<'a>(object: Json<'a>, fields: &[&str]) -> Members<'a> {
    let Json::Object(members) = object else { return Members::default() };
    members.filter_map(|name, value| fields.contains(&name).then(|| said(value)).flatten())
}

fn taken_list<'a>(object: &mut Json<'a>, field: &str) -> Vec<Json<'a>> {
    match object.take(field) {
        Some(Json::List(items)) => items,
        _ => Vec::new(),
    }
}

/// The value without what the API server leaves out: nothing, and texts, lists and objects with nothing in them.
fn said(value: Json<'_>) -> Option<Json<'_>> {
    match value {
        Json::Null => None,
        Json::Text(ref text) => (!text.is_empty()).then_some(value),
        Json::List(items) => {
            // An empty word of a command is a word.
            let items: Vec<_> = items
                .into_iter()
                .map(|item| if item.as_str().is_some() { item } else { said(item).unwrap_or_default() })
                .collect();
            (!items.is_empty()).then_some(Json::List(items))
        }
        Json::Object(members) => {
            let members = members.filter_map(|_, value| said(value));
            (!members.is_empty()).then_some(Json::Object(members))
        }
        Json::Bool(_) | Json::Number(_) => Some(value),
    }
}

#[cfg(test)]
mod tests;
