//! Owner garbage collection: orphaned dependents go, foreground deletion waits for blocking dependents, orphaning
//! cuts the references.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::store::{DeleteOptions, Key, Moment, Part, Store, strings};

/// One pass over everything; says whether anything was written.
pub(super) fn collect(store: &mut Store, now: Moment) -> bool {
    let before = store.version();
    let objects: BTreeMap<Key, Value> = store.all().map(|(key, object)| (key.clone(), object.clone())).collect();
    let by_uid: BTreeMap<&str, (&Key, &Value)> =
        objects.iter().filter_map(|(key, object)| Some((object["metadata"]["uid"].as_str()?, (key, object)))).collect();
    for (key, object) in &objects {
        let owners = object["metadata"]["ownerReferences"].as_array();
        let Some(owners) = owners.filter(|owners| !owners.is_empty()) else {
            continue;
        };
        let mut solid = false;
        let mut kept = Vec::new();
        for reference in owners {
            let owner = by_uid
                .get(reference["uid"].as_str().unwrap_or_default())
                .filter(|(owner, _)| owner.namespace == key.namespace);
            let orphaned = owner.is_some_and(|(_, owner)| is_deleting_with(owner, "orphan"));
            if !orphaned {
                kept.push(reference.clone());
            }
            solid |= owner.is_some_and(|(_, owner)| !is_deleting_with(owner, "foregroundDeletion"));
        }
        if kept.len() < owners.len() {
            let mut object = object.clone();
            object["metadata"]["ownerReferences"] = json!(kept);
            let _stored = store.update(key, object, Part::Whole, now);
        } else if !solid && object["metadata"]["deletionTimestamp"].is_null() {
            let blocks = objects.values().any(|other| depends_on(other, object, true));
            let policy = if blocks { "Foreground" } else { "Background" };
            let _deleted = store.delete(
                key,
                &DeleteOptions {
                    uid: object["metadata"]["uid"].as_str().map(str::to_owned),
                    propagation: Some(policy.to_owned()),
                    ..DeleteOptions::default()
                },
                now,
            );
        }
    }
    for (key, object) in &objects {
        release(store, key, object, now);
    }
    store.version() != before
}

/// Takes the collector's finalizers off an owner whose dependents are dealt with.
fn release(store: &mut Store, key: &Key, object: &Value, now: Moment) {
    let blocking = if is_deleting_with(object, "foregroundDeletion") {
        true
    } else if is_deleting_with(object, "orphan") {
        false
    } else {
        return;
    };
    if store.all().any(|(_, other)| depends_on(other, object, blocking)) {
        return;
    }
    let Some(mut current) = store.get(key).cloned() else {
        return;
    };
    let mut finalizers = strings(&current["metadata"]["finalizers"]);
    finalizers.retain(|finalizer| finalizer != "foregroundDeletion" && finalizer != "orphan");
    current["metadata"]["finalizers"] = json!(finalizers);
    let _stored = store.update(key, current, Part::Whole, now);
}

fn is_deleting_with(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
        && strings(&object["metadata"]["finalizers"]).iter().any(|f| f == finalizer)
}

fn depends_on(object: &Value, owner: &Value, blocking: bool) -> bool {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|reference| {
        reference["uid"] == owner["metadata"]["uid"] && (!blocking || reference["blockOwnerDeletion"] == true)
    })
}
