//! The verbs over the store: what each request reads or writes, and its answer.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    answer::Refusal,
    request::{Request, Verb},
    resource::{Resource, Target},
    selector::Selector,
    store::{DeleteOptions, Deleted, Key, Moment, Part, Store},
};

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// An answer: HTTP status and body.
pub(super) type Answer = Result<(u16, Value), Refusal>;

/// Carries out `request`. `lag` is how far behind cached reads are, `stale` how far behind every read is.
pub(super) fn handle(
    store: &mut Store,
    request: &Request,
    now: Moment,
    lag: Duration,
    stale: Option<Duration>,
) -> Answer {
    let Some(target) = &request.target else {
        return other(request);
    };
    if request.body.len() > MAX_BODY {
        return Err(Refusal::body_too_large(MAX_BODY));
    }
    match request.verb {
        Verb::Get => get(store, request, target, now, lag, stale),
        Verb::List => list(store, request, target, now, lag, stale),
        Verb::Create => create(store, request, target, now),
        Verb::Update => update(store, request, target, now),
        Verb::Patch => patch(store, request, target, now),
        Verb::Delete => delete(store, request, target, now),
        Verb::DeleteCollection => delete_collection(store, request, target, now),
        Verb::Watch | Verb::Other => Err(Refusal::method_not_allowed()),
    }
}

fn other(request: &Request) -> Answer {
    match request.path.as_str() {
        "/version" => Ok((
            200,
            json!({
                "major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "", "gitTreeState": "clean",
                "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64",
            }),
        )),
        _ => Err(Refusal::no_such_path()),
    }
}

fn key(target: &Target, name: &str) -> Key {
    Key { resource: target.resource, namespace: target.namespace.clone().unwrap_or_default(), name: name.to_owned() }
}

fn named(target: &Target) -> Key {
    key(target, target.name.as_deref().unwrap_or_default())
}

fn shown(request: &Request, object: Value) -> Value {
    if request.metadata_only {
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
    } else {
        object
    }
}

/// The state a read sees: `None` for the current one.
fn past(
    store: &Store,
    request: &Request,
    now: Moment,
    lag: Duration,
    stale: Option<Duration>,
) -> Result<Option<u64>, Refusal> {
    let asked = request.param("resourceVersion");
    let version: u64 = match asked {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| Refusal::bad_request(format!("Invalid value: {text:?}: invalid resource version")))?,
    };
    if version > store.version() {
        return Err(Refusal::too_large_version(version, store.version()));
    }
    if request.param("resourceVersionMatch") == "Exact" && version > 0 {
        if version < store.compacted() {
            return Err(Refusal::expired("The provided resource version is too old."));
        }
        return Ok(Some(version));
    }
    let behind = match (stale, asked) {
        (Some(stale), _) => stale,
        (None, "0") if !lag.is_zero() => lag,
        (None, _) => return Ok(None),
    };
    Ok(Some(store.version_behind(now, behind)))
}

fn get(
    store: &Store,
    request: &Request,
    target: &Target,
    now: Moment,
    lag: Duration,
    stale: Option<Duration>,
) -> Answer {
    let key = named(target);
    let found = match past(store, request, now, lag, stale)? {
        None => store.get(&key).cloned(),
        Some(version) => store.at_version(version).remove(&key),
    };
    match found {
        Some(object) => Ok((200, shown(request, object))),
        None => Err(Refusal::not_found(target.resource, &key.name)),
    }
}

fn list(
    store: &Store,
    request: &Request,
    target: &Target,
    now: Moment,
    lag: Duration,
    stale: Option<Duration>,
) -> Answer {
    let selector = Selector::parse(target.resource, request.param("labelSelector"), request.param("fieldSelector"))?;
    let token = request.param("continue");
    let (version, after) = if token.is_empty() {
        (past(store, request, now, lag, stale)?, None)
    } else {
        let (version, after) = token
            .split_once(':')
            .and_then(|(version, after)| Some((version.parse::<u64>().ok()?, after)))
            .and_then(|(version, after)| Some((version, after.split_once('/')?)))
            .ok_or_else(|| Refusal::bad_request("continue key is not valid"))?;
        if version < store.compacted() {
            return Err(Refusal::expired(
                "The provided continue parameter is too old to display a consistent list result.",
            ));
        }
        (Some(version), Some(after))
    };
    let objects: BTreeMap<Key, Value> = match version {
        None => store.list(target.resource, None).map(|(k, v)| (k.clone(), v.clone())).collect(),
        Some(version) => store.at_version(version),
    };
    let version = version.unwrap_or_else(|| store.version());
    let mut rest = objects
        .into_iter()
        .filter(|(key, _)| key.resource == target.resource)
        .filter(|(key, _)| target.namespace.as_ref().is_none_or(|ns| *ns == key.namespace))
        .filter(|(key, _)| after.is_none_or(|(ns, name)| (key.namespace.as_str(), key.name.as_str()) > (ns, name)))
        .filter(|(_, object)| selector.matches(object));
    // The watch cache answers version-0 lists whole, whatever the limit.
    let limit = match request.param("limit").parse::<usize>() {
        Ok(limit) if limit > 0 && request.param("resourceVersion") != "0" => limit,
        _ => usize::MAX,
    };
    let page: Vec<(Key, Value)> = rest.by_ref().take(limit).collect();
    let remaining = rest.count();
    let mut meta = json!({"resourceVersion": version.to_string()});
    if let (true, Some((last, _))) = (remaining > 0, page.last()) {
        meta["continue"] = json!(format!("{version}:{}/{}", last.namespace, last.name));
        if selector.is_empty() {
            meta["remainingItemCount"] = json!(remaining);
        }
    }
    let mut items: Vec<Value> = page.into_iter().map(|(_, object)| shown(request, object)).collect();
    let (api_version, kind) = if request.metadata_only {
        ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata".to_owned())
    } else {
        (target.resource.api_version(), target.resource.kind.to_owned())
    };
    if !target.resource.custom && !request.metadata_only {
        // Items of a typed list come without type, those of a custom one with it.
        for item in &mut items {
            if let Some(root) = item.as_object_mut() {
                root.remove("apiVersion");
                root.remove("kind");
            }
        }
    }
    Ok((200, json!({"apiVersion": api_version, "kind": format!("{kind}List"), "metadata": meta, "items": items})))
}

fn body(request: &Request) -> Result<Value, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::bad_request(format!("the body of the request is not JSON: {error}")))
}

fn create(store: &mut Store, request: &Request, target: &Target, now: Moment) -> Answer {
    let Some(namespace) = &target.namespace else {
        return Err(Refusal::method_not_allowed());
    };
    let mut object = body(request)?;
    if target.resource.plural == "jobs" {
        rewrite(&mut object["spec"]["template"]["spec"], store.job_mirror);
    }
    let created = dry(store, request, |store| store.create(target.resource, namespace, object, now))?;
    Ok((201, shown(request, created)))
}

/// What an admission webhook does to the images of a pod.
fn rewrite(pod: &mut Value, mirror: &str) {
    for containers in ["initContainers", "containers"] {
        for container in pod[containers].as_array_mut().into_iter().flatten().filter(|_| !mirror.is_empty()) {
            let image = container["image"].as_str().unwrap_or_default().to_owned();
            container["image"] = json!(format!("{mirror}{image}"));
        }
    }
}

fn update(store: &mut Store, request: &Request, target: &Target, now: Moment) -> Answer {
    let key = named(target);
    let object = body(request)?;
    if store.get(&key).is_none() && target.resource.create_on_update {
        let created = dry(store, request, |store| store.create(key.resource, &key.namespace, object, now))?;
        return Ok((201, created));
    }
    let updated = dry(store, request, |store| store.update(&key, object, part(target), now))?;
    Ok((200, shown(request, updated)))
}

fn part(target: &Target) -> Part {
    match target.subresource {
        Some(_) => Part::Status,
        None => Part::Main,
    }
}

fn patch(store: &mut Store, request: &Request, target: &Target, now: Moment) -> Answer {
    let key = named(target);
    let old = store.get(&key).cloned();
    let content_type = request.content_type.as_str();
    if content_type == "application/apply-patch+yaml" {
        return apply(store, request, target, &key, old, now);
    }
    let Some(old) = old else {
        return Err(Refusal::not_found(target.resource, &key.name));
    };
    let change = body(request)?;
    let mut wanted = old.clone();
    match content_type {
        "application/merge-patch+json" => json_patch::merge(&mut wanted, &change),
        // Lists are replaced, not merged by key: enough for metadata, which is what the product patches.
        "application/strategic-merge-patch+json" if !target.resource.custom => json_patch::merge(&mut wanted, &change),
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_value(change)
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut wanted, &patch).map_err(|_| Refusal::unprocessable())?;
        }
        other => return Err(Refusal::unsupported_media_type(other)),
    }
    if wanted["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty) {
        wanted["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    }
    let stored = dry(store, request, |store| store.update(&key, wanted, part(target), now))?;
    Ok((200, shown(request, stored)))
}

/// Server-side apply without field ownership: what is given is set, nothing is removed, nobody conflicts.
fn apply(store: &mut Store, request: &Request, target: &Target, key: &Key, old: Option<Value>, now: Moment) -> Answer {
    if request.param("fieldManager").is_empty() {
        return Err(Refusal::bad_request("fieldManager is required for apply patch"));
    }
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let change: Value =
        serde_saphyr::from_str(&text).map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    let Some(old) = old else {
        if target.subresource.is_some() {
            return Err(Refusal::not_found(target.resource, &key.name));
        }
        let created = dry(store, request, |store| store.create(key.resource, &key.namespace, change, now))?;
        return Ok((201, created));
    };
    let mut wanted = old.clone();
    json_patch::merge(&mut wanted, &change);
    let stored = dry(store, request, |store| store.update(key, wanted, part(target), now))?;
    Ok((200, shown(request, stored)))
}

/// The options of a delete, of its body or of its query.
fn options(request: &Request) -> Result<DeleteOptions, Refusal> {
    let given = if request.body.iter().all(u8::is_ascii_whitespace) { Value::Null } else { body(request)? };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let from_query = |name: &str| Some(request.param(name).to_owned()).filter(|text| !text.is_empty());
    Ok(DeleteOptions {
        uid: text(&given["preconditions"]["uid"]),
        resource_version: text(&given["preconditions"]["resourceVersion"]),
        propagation: text(&given["propagationPolicy"]).or_else(|| from_query("propagationPolicy")),
        grace: given["gracePeriodSeconds"]
            .as_i64()
            .or_else(|| from_query("gracePeriodSeconds").and_then(|text| text.parse().ok())),
    })
}

fn delete(store: &mut Store, request: &Request, target: &Target, now: Moment) -> Answer {
    let key = named(target);
    if target.subresource.is_some() {
        return Err(Refusal::method_not_allowed());
    }
    let options = options(request)?;
    match dry(store, request, |store| store.delete(&key, &options, now))? {
        Deleted::Marked(object) => Ok((200, object)),
        Deleted::Gone(object) if target.resource.plural == "pods" => Ok((200, object)),
        Deleted::Gone(object) => Ok((200, success(target.resource, &key.name, &object))),
    }
}

fn success(resource: &Resource, name: &str, object: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {
            "name": name, "group": resource.group, "kind": resource.plural, "uid": object["metadata"]["uid"],
        },
    })
}

fn delete_collection(store: &mut Store, request: &Request, target: &Target, now: Moment) -> Answer {
    let selector = Selector::parse(target.resource, request.param("labelSelector"), request.param("fieldSelector"))?;
    let options = options(request)?;
    let doomed: Vec<(Key, Value)> = store
        .list(target.resource, target.namespace.as_deref())
        .filter(|(_, object)| selector.matches(object))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    for (key, _) in &doomed {
        store.delete(key, &options, now)?;
    }
    let items: Vec<Value> = doomed.into_iter().map(|(_, object)| object).collect();
    Ok((
        200,
        json!({
            "apiVersion": target.resource.api_version(), "kind": format!("{}List", target.resource.kind),
            "metadata": {"resourceVersion": store.version().to_string()}, "items": items,
        }),
    ))
}

/// Runs `write` on the store, or on a copy of it for a dry run.
fn dry<R>(
    store: &mut Store,
    request: &Request,
    write: impl FnOnce(&mut Store) -> Result<R, Refusal>,
) -> Result<R, Refusal> {
    if request.is_dry_run() { write(&mut store.clone()) } else { write(store) }
}
