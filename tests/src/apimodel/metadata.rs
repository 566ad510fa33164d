//! Rules of `apiVersion`, `kind` and `metadata` that hold for every resource.

use serde_json::{Map, Value};

use super::{answer::Refusal, resource::Resource};

/// Largest sum of annotation keys and values, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub(super) fn root_mut(object: &mut Value) -> Result<&mut Map<String, Value>, Refusal> {
    object
        .as_object_mut()
        .ok_or_else(|| Refusal::bad_request("the object provided is unrecognized (must be of type Object)"))
}

pub(super) fn of_mut(object: &mut Value) -> Result<&mut Map<String, Value>, Refusal> {
    root_mut(object)?
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(|| Refusal::bad_request("metadata is not an object"))
}

pub(super) fn check_type(resource: &Resource, object: &mut Value) -> Result<(), Refusal> {
    let root = root_mut(object)?;
    if !resource.custom {
        // The decoder of a built-in resource takes the type from the path; that of a custom one does not.
        root.entry("kind").or_insert_with(|| resource.kind.into());
        root.entry("apiVersion").or_insert_with(|| resource.api_version().into());
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind.is_empty() {
        return Err(Refusal::bad_request("Object 'Kind' is missing in the body of the request"));
    }
    if api_version.is_empty() {
        return Err(Refusal::bad_request("Object 'apiVersion' is missing in the body of the request"));
    }
    if api_version != resource.api_version() || kind != resource.kind {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({api_version}, Kind={kind}) does not match the expected API version ({}, Kind={})",
            resource.api_version(),
            resource.kind
        )));
    }
    Ok(())
}

pub(super) fn check(resource: &Resource, name: &str, meta: &Map<String, Value>) -> Result<(), Refusal> {
    let longest = if resource.plural == "jobs" { 63 } else { 253 };
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if name.len() > longest || !name.split('.').all(label) {
        return Err(Refusal::invalid(
            resource,
            name,
            &format!(
                "metadata.name: Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
            ),
        ));
    }
    if let Some(labels) = meta.get("labels").and_then(Value::as_object) {
        for value in labels.values() {
            let text = value.as_str().ok_or_else(|| Refusal::bad_request("metadata.labels: values are strings"))?;
            let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            let edges = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
            if text.len() > 63 || !inner || !edges(text.bytes().next()) || !edges(text.bytes().next_back()) {
                return Err(Refusal::invalid(
                    resource,
                    name,
                    &format!(
                        "metadata.labels: Invalid value: {text:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
                    ),
                ));
            }
        }
    }
    if let Some(annotations) = meta.get("annotations").and_then(Value::as_object) {
        let mut size = 0;
        for (key, value) in annotations {
            let text =
                value.as_str().ok_or_else(|| Refusal::bad_request("metadata.annotations: values are strings"))?;
            size += key.len() + text.len();
        }
        if size > MAX_ANNOTATIONS {
            return Err(Refusal::invalid(
                resource,
                name,
                &format!("metadata.annotations: Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
            ));
        }
    }
    if let Some(owners) = meta.get("ownerReferences").and_then(Value::as_array) {
        for owner in owners {
            for field in ["apiVersion", "kind", "name", "uid"] {
                if owner[field].as_str().is_none_or(str::is_empty) {
                    return Err(Refusal::invalid(
                        resource,
                        name,
                        &format!("metadata.ownerReferences.{field}: Invalid value: \"\": must not be empty"),
                    ));
                }
            }
        }
        if owners.iter().filter(|owner| owner["controller"] == true).count() > 1 {
            return Err(Refusal::invalid(
                resource,
                name,
                "metadata.ownerReferences: Invalid value: Only one reference can have Controller set to true",
            ));
        }
    }
    Ok(())
}
