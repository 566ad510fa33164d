//! The stored objects and every version they ever had. Writes go through here only, with the checks that the real
//! registry makes whatever the resource: names, preconditions, versions, generation, finalizers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{answer::Refusal, builtin, metadata, resource::Resource};

/// The version of the empty world: a real cluster has a history before the first object of ours.
const FIRST_VERSION: u64 = 1000;
/// Largest request that etcd takes, in bytes; an object is stored as JSON with a little around it.
const MAX_REQUEST: usize = 1536 * 1024;

/// Identity of an object in the store. Ordered as lists are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its resource.
    pub resource: &'static Resource,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Stored first.
    Added,
    /// Stored again.
    Modified,
    /// Gone.
    Deleted,
}

/// One committed write.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Version after it.
    pub version: u64,
    /// Time since the world began.
    pub at: Duration,
    /// Which object.
    pub key: Key,
    /// What happened.
    pub change: Change,
    /// The object after it; of a deletion, its last state under the deletion's version.
    pub object: Value,
    /// The object before it.
    pub previous: Option<Value>,
}

/// The time of a write, on the server.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since the world began.
    pub boot: Duration,
    /// Wall clock.
    pub wall: Timestamp,
}

/// What a delete asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteOptions {
    /// Required uid.
    pub uid: Option<String>,
    /// Required version.
    pub resource_version: Option<String>,
    /// `Foreground`, `Background` or `Orphan`.
    pub propagation: Option<String>,
    /// Seconds of grace, for pods.
    pub grace: Option<i64>,
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but status, where status is a subresource.
    Main,
    /// Status.
    Status,
    /// Everything: the control plane's own writes.
    Whole,
}

/// What became of an object that was to be deleted.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// Gone; its last state.
    Gone(Value),
    /// Kept until its finalizers or its grace are over.
    Marked(Value),
}

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Commit>,
    version: u64,
    compacted: u64,
    random: u64,
    /// Objects that everybody reads with defaults that etcd does not hold yet: the next write stores them, even one that
    /// changes nothing else.
    short_of_defaults: BTreeSet<Key>,
    /// Fields of a run's status that the definition does not know and drops.
    pub(super) dropped: Vec<&'static str>,
    /// What an admission webhook puts before the images of Jobs as they are created.
    pub(super) job_mirror: &'static str,
}

impl Store {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            history: Vec::new(),
            version: FIRST_VERSION,
            compacted: 0,
            short_of_defaults: BTreeSet::new(),
            random: seed ^ 0x9e37_79b9_7f4a_7c15,
            dropped: Vec::new(),
            job_mirror: "",
        }
    }

    /// The current version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Versions up to here can no longer be watched or paged from.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn compact(&mut self) {
        // A version of its own, so that every version seen so far is too old.
        self.version += 1;
        self.compacted = self.version;
    }

    /// Every write so far.
    pub fn history(&self) -> &[Commit] {
        &self.history
    }

    /// The object, as it is now.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// All objects of a resource, of one namespace or of all, in list order.
    pub fn list(&self, resource: &'static Resource, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects
            .iter()
            .filter(move |(key, _)| key.resource == resource && namespace.is_none_or(|ns| key.namespace == ns))
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects.iter()
    }

    /// The objects as they were at `version`.
    pub fn at_version(&self, version: u64) -> BTreeMap<Key, Value> {
        let mut objects = BTreeMap::new();
        for commit in self.history.iter().take_while(|commit| commit.version <= version) {
            match commit.change {
                Change::Added | Change::Modified => objects.insert(commit.key.clone(), commit.object.clone()),
                Change::Deleted => objects.remove(&commit.key),
            };
        }
        objects
    }

    /// The version of a cache that is `lag` behind `now`.
    pub fn version_behind(&self, now: Moment, lag: Duration) -> u64 {
        now.boot.checked_sub(lag).map_or(FIRST_VERSION, |at| self.version_at(at, None))
    }

    /// The newest version of what was committed until `at`, of one resource or of all.
    pub fn version_at(&self, at: Duration, resource: Option<&'static Resource>) -> u64 {
        self.history
            .iter()
            .rev()
            .find(|commit| commit.at <= at && resource.is_none_or(|r| commit.key.resource == r))
            .map_or(FIRST_VERSION, |commit| commit.version)
    }

    pub(super) fn create(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        mut object: Value,
        now: Moment,
    ) -> Result<Value, Refusal> {
        metadata::check_type(resource, &mut object)?;
        strip_nulls(&mut object);
        let meta = metadata::of_mut(&mut object)?;
        match meta.get("namespace").and_then(Value::as_str) {
            Some(given) if !given.is_empty() && given != namespace => {
                return Err(Refusal::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            Some(_) | None => {}
        }
        if meta.get("resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty() && v != "0") {
            return Err(Refusal::unmapped("resourceVersion should not be set on objects to be created"));
        }
        let name = match (meta.get("name").and_then(Value::as_str), meta.get("generateName").and_then(Value::as_str)) {
            (Some(name), _) if !name.is_empty() => name.to_owned(),
            (_, Some(prefix)) if !prefix.is_empty() => {
                format!("{}{}", prefix.chars().take(58).collect::<String>(), self.suffix())
            }
            _ => {
                return Err(Refusal::invalid(
                    resource,
                    "",
                    "metadata.name: Required value: name or generateName is required",
                ));
            }
        };
        let uid = self.uid();
        for dropped in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields", "selfLink"] {
            meta.remove(dropped);
        }
        meta.insert("name".into(), json!(name));
        meta.insert("namespace".into(), json!(namespace));
        meta.insert("uid".into(), json!(uid));
        meta.insert("creationTimestamp".into(), json!(seconds(now.wall)));
        if resource.generation {
            meta.insert("generation".into(), json!(1));
        }
        metadata::check(resource, &name, meta)?;
        if resource.status {
            metadata::root_mut(&mut object)?.remove("status");
        }
        builtin::prepare_create(resource, &name, &uid, &mut object)?;
        builtin::default_status(resource, &mut object);
        let key = Key { resource, namespace: namespace.to_owned(), name };
        if self.objects.contains_key(&key) {
            return Err(Refusal::already_exists(resource, &key.name));
        }
        check_size(&object)?;
        let defaulted = resource.phase.is_some().then(|| key.clone());
        let created = self.commit(key, Change::Added, object, now);
        self.short_of_defaults.extend(defaulted);
        Ok(created)
    }

    /// Stores `wanted` in place of the object. An absent version means "whatever is there", where the resource allows.
    pub(super) fn update(&mut self, key: &Key, mut wanted: Value, part: Part, now: Moment) -> Result<Value, Refusal> {
        let Key { resource, name, .. } = key;
        metadata::check_type(resource, &mut wanted)?;
        strip_nulls(&mut wanted);
        let meta = metadata::of_mut(&mut wanted)?;
        match meta.get("name").and_then(Value::as_str) {
            Some(given) if given == name => {}
            given => {
                return Err(Refusal::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    given.unwrap_or_default()
                )));
            }
        }
        let Some(old) = self.objects.get(key).cloned() else {
            return Err(Refusal::not_found(resource, name));
        };
        if let Some(given) = meta.get("uid").and_then(Value::as_str).filter(|uid| old["metadata"]["uid"] != **uid) {
            return Err(uid_conflict(resource, name, given, &old));
        }
        match meta.get("resourceVersion").and_then(Value::as_str) {
            Some(given) if !given.is_empty() && given != "0" => {
                if old["metadata"]["resourceVersion"] != *given {
                    return Err(Refusal::modified(resource, name));
                }
            }
            _ if part == Part::Whole || resource.unconditional => {}
            _ => {
                return Err(Refusal::invalid(
                    resource,
                    name,
                    "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
                ));
            }
        }
        let mut object = merge_parts(key, &old, wanted, part)?;
        if let ("agentruns", Some(status)) = (resource.plural, object.get_mut("status").and_then(Value::as_object_mut))
        {
            status.retain(|field, _| !self.dropped.contains(&field.as_str()));
        }
        let meta = &object["metadata"];
        let emptied = meta["deletionTimestamp"].is_string()
            && meta["deletionGracePeriodSeconds"] == 0
            && meta["finalizers"].as_array().is_none_or(Vec::is_empty);
        if emptied {
            return Ok(self.commit(key.clone(), Change::Deleted, old, now));
        }
        if object == old && !self.short_of_defaults.contains(key) {
            return Ok(old);
        }
        check_size(&object)?;
        Ok(self.commit(key.clone(), Change::Modified, object, now))
    }

    pub(super) fn delete(&mut self, key: &Key, options: &DeleteOptions, now: Moment) -> Result<Deleted, Refusal> {
        let Key { resource, name, .. } = key;
        let Some(old) = self.objects.get(key).cloned() else {
            return Err(Refusal::not_found(resource, name));
        };
        let DeleteOptions { uid, resource_version, propagation, grace } = options;
        if let Some(uid) = uid.as_deref().filter(|uid| old["metadata"]["uid"] != **uid) {
            return Err(uid_conflict(resource, name, uid, &old));
        }
        if let Some(version) = resource_version.as_deref().filter(|v| old["metadata"]["resourceVersion"] != **v) {
            return Err(Refusal::conflict(
                resource,
                name,
                &format!(
                    "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                    old["metadata"]["resourceVersion"].as_str().unwrap_or_default()
                ),
            ));
        }
        let mut object = old.clone();
        let mut finalizers: Vec<String> = strings(&old["metadata"]["finalizers"]);
        let first = old["metadata"]["deletionTimestamp"].is_null();
        // For a Job the registry's default is Orphan, for compatibility with its first clients.
        let fallback = if resource.plural == "jobs" { "Orphan" } else { "Background" };
        let policy = propagation.as_deref().unwrap_or(if first { fallback } else { "" });
        let wanted = match policy {
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            "Background" | "" => None,
            other => {
                return Err(Refusal::invalid(
                    resource,
                    name,
                    &format!("propagationPolicy: Unsupported value: {other:?}"),
                ));
            }
        };
        if !policy.is_empty() {
            finalizers.retain(|f| f != "foregroundDeletion" && f != "orphan");
            finalizers.extend(wanted.map(str::to_owned));
        }
        let left = builtin::grace_of(resource, &old, *grace);
        let meta = metadata::of_mut(&mut object)?;
        if finalizers.is_empty() {
            meta.remove("finalizers");
            if left == 0 {
                return Ok(Deleted::Gone(self.commit(key.clone(), Change::Deleted, old, now)));
            }
        } else {
            meta.insert("finalizers".into(), json!(finalizers));
        }
        let shorter = old["metadata"]["deletionGracePeriodSeconds"].as_i64().is_none_or(|had| left < had);
        if first || shorter {
            let end = now.wall + jiff::SignedDuration::from_secs(left);
            meta.insert("deletionTimestamp".into(), json!(seconds(end)));
            meta.insert("deletionGracePeriodSeconds".into(), json!(left));
        }
        if let (true, Some(generation)) = (first, meta.get("generation").and_then(Value::as_i64)) {
            meta.insert("generation".into(), json!(generation + 1));
        }
        if object == old {
            return Ok(Deleted::Marked(old));
        }
        Ok(Deleted::Marked(self.commit(key.clone(), Change::Modified, object, now)))
    }

    fn commit(&mut self, key: Key, change: Change, mut object: Value, now: Moment) -> Value {
        self.version += 1;
        self.short_of_defaults.remove(&key);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let previous = match change {
            Change::Added | Change::Modified => self.objects.insert(key.clone(), object.clone()),
            Change::Deleted => self.objects.remove(&key),
        };
        self.history.push(Commit {
            version: self.version,
            at: now.boot,
            key,
            change,
            object: object.clone(),
            previous,
        });
        object
    }

    fn next_random(&mut self) -> u64 {
        // SplitMix64: one seed gives one world.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uid(&mut self) -> String {
        let (high, low) = (self.next_random(), self.next_random());
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            low >> 52,
            low & 0xffff_ffff_ffff
        )
    }

    fn suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut rest = self.next_random();
        (0..5)
            .map(|_| {
                let at = usize::try_from(rest % 27).unwrap_or(0);
                rest /= 27;
                char::from(ALPHABET[at])
            })
            .collect()
    }
}

/// What of `wanted` is stored over `old`, given the part that may change.
fn merge_parts(key: &Key, old: &Value, mut wanted: Value, part: Part) -> Result<Value, Refusal> {
    let Key { resource, name, .. } = key;
    let old_meta = &old["metadata"];
    let kept = [
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ];
    let meta = metadata::of_mut(&mut wanted)?;
    meta.remove("managedFields");
    for field in kept {
        match old_meta.get(field) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    for list in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty =
            |value: &Value| value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        if meta.get(list).is_some_and(empty) {
            meta.remove(list);
        }
    }
    metadata::check(resource, name, meta)?;
    let had = strings(&old_meta["finalizers"]);
    let has = strings(&wanted["metadata"]["finalizers"]);
    if old_meta["deletionTimestamp"].is_string() && has.iter().any(|f| !had.contains(f)) {
        return Err(Refusal::invalid(
            resource,
            name,
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted",
        ));
    }
    match part {
        Part::Whole => {}
        Part::Main if resource.status => restore(&mut wanted, old, "status"),
        Part::Main => {}
        Part::Status if resource.custom => {
            let status = wanted.get("status").cloned();
            wanted = old.clone();
            match (status, wanted.as_object_mut()) {
                (Some(status), Some(root)) => root.insert("status".into(), status),
                (None, Some(root)) => root.remove("status"),
                (_, None) => None,
            };
        }
        Part::Status => restore(&mut wanted, old, "spec"),
    }
    builtin::default_status(resource, &mut wanted);
    builtin::check_update(resource, name, old, &mut wanted)?;
    if let Some(generation) = old_meta["generation"].as_i64().filter(|_| content(old) != content(&wanted)) {
        wanted["metadata"]["generation"] = json!(generation + 1);
    }
    Ok(wanted)
}

fn restore(wanted: &mut Value, old: &Value, field: &str) {
    if let Some(root) = wanted.as_object_mut() {
        match old.get(field) {
            Some(value) => root.insert(field.into(), value.clone()),
            None => root.remove(field),
        };
    }
}

/// What etcd says of an object that is too large; the API server passes it on without a reason of its own.
fn check_size(object: &Value) -> Result<(), Refusal> {
    // Short of its metadata, which the real one stores more of.
    if object.to_string().len() > MAX_REQUEST {
        return Err(Refusal::unmapped("etcdserver: request is too large"));
    }
    Ok(())
}

/// What generation counts: everything but metadata and status.
fn content(object: &Value) -> Vec<(&String, &Value)> {
    object
        .as_object()
        .map(|root| root.iter().filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status")).collect())
        .unwrap_or_default()
}

fn uid_conflict(resource: &Resource, name: &str, given: &str, old: &Value) -> Refusal {
    let has = old["metadata"]["uid"].as_str().unwrap_or_default();
    Refusal::conflict(
        resource,
        name,
        &format!("Precondition failed: UID in precondition: {given}, UID in object meta: {has}"),
    )
}

pub(super) fn strings(list: &Value) -> Vec<String> {
    list.as_array().map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
}

/// A time as the API server stores it: whole seconds.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
