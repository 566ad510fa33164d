//! Defaults and validation of the built-in resources, as far as the product's own objects meet them: Jobs and Pods.

use serde_json::{Value, json};

use super::{answer::Refusal, resource::Resource};

/// Labels that tie a pod to its Job, new spelling and old.
pub(super) const JOB_UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const JOB_NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// Held on a Job's pods until their end was counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Fields of a Job's spec that never change.
const IMMUTABLE: [&str; 5] = ["template", "selector", "completionMode", "podFailurePolicy", "managedBy"];

pub(super) fn prepare_create(resource: &Resource, name: &str, uid: &str, object: &mut Value) -> Result<(), Refusal> {
    match (resource.group, resource.plural) {
        ("batch", "jobs") => prepare_job(resource, name, uid, object),
        ("", "pods") => {
            check_containers(resource, name, "spec", &object["spec"])?;
            default_field(&mut object["spec"], "restartPolicy", json!("Always"));
            default_field(&mut object["spec"], "terminationGracePeriodSeconds", json!(30));
            object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
            Ok(())
        }
        ("", "secrets") => {
            default_field(object, "type", json!("Opaque"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn prepare_job(resource: &Resource, name: &str, uid: &str, object: &mut Value) -> Result<(), Refusal> {
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return Err(Refusal::invalid(resource, name, "spec.template: Required value"));
    }
    let pod = &spec["template"]["spec"];
    check_containers(resource, name, "spec.template.spec", pod)?;
    match pod["restartPolicy"].as_str() {
        Some("Never" | "OnFailure") => {}
        given => {
            return Err(Refusal::invalid(
                resource,
                name,
                &format!(
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\", got {:?}",
                    given.unwrap_or("Always")
                ),
            ));
        }
    }
    if spec["selector"].is_object() && spec["manualSelector"] != true {
        return Err(Refusal::invalid(resource, name, "spec.selector: Invalid value: `selector` not auto-generated"));
    }
    for (field, value) in [
        ("parallelism", json!(1)),
        ("completions", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        default_field(spec, field, value);
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("manualSelector");
    }
    default_field(&mut spec["template"]["spec"], "terminationGracePeriodSeconds", json!(30));
    spec["selector"] = json!({"matchLabels": {JOB_UID_LABELS[0]: uid}});
    for key in JOB_UID_LABELS {
        spec["template"]["metadata"]["labels"][key] = json!(uid);
    }
    for key in JOB_NAME_LABELS {
        spec["template"]["metadata"]["labels"][key] = json!(name);
    }
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if object["metadata"]["labels"].is_null() {
        // As the registry does: a Job without labels takes those of its template.
        object["metadata"]["labels"] = labels;
    }
    object["status"] = json!({});
    Ok(())
}

fn check_containers(resource: &Resource, name: &str, path: &str, pod: &Value) -> Result<(), Refusal> {
    let containers = pod["containers"].as_array().filter(|list| !list.is_empty());
    let Some(containers) = containers else {
        return Err(Refusal::invalid(resource, name, &format!("{path}.containers: Required value")));
    };
    let inits = pod["initContainers"].as_array().into_iter().flatten();
    let mut names = std::collections::BTreeSet::new();
    for container in containers.iter().chain(inits) {
        for field in ["name", "image"] {
            if container[field].as_str().is_none_or(str::is_empty) {
                return Err(Refusal::invalid(resource, name, &format!("{path}.containers[].{field}: Required value")));
            }
        }
        if !names.insert(container["name"].as_str()) {
            return Err(Refusal::invalid(
                resource,
                name,
                &format!("{path}.containers[].name: Duplicate value: {}", container["name"]),
            ));
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let known = pod["volumes"].as_array().into_iter().flatten().any(|v| v["name"] == mount["name"]);
            if !known {
                return Err(Refusal::invalid(
                    resource,
                    name,
                    &format!("{path}.containers[].volumeMounts[].name: Not found: {}", mount["name"]),
                ));
            }
        }
    }
    Ok(())
}

/// Checks what a write may not change, and refills what a Job's template gets by default.
pub(super) fn check_update(resource: &Resource, name: &str, old: &Value, wanted: &mut Value) -> Result<(), Refusal> {
    match (resource.group, resource.plural) {
        ("batch", "jobs") => {
            // A suspended Job that never started may still be given another template.
            let open = old["spec"]["suspend"] == true && old["status"]["startTime"].is_null();
            for field in IMMUTABLE.into_iter().filter(|field| !(open && *field == "template")) {
                if old["spec"][field] != wanted["spec"][field] {
                    return Err(Refusal::invalid(
                        resource,
                        name,
                        &format!("spec.{field}: Invalid value: field is immutable"),
                    ));
                }
            }
            Ok(())
        }
        ("", "secrets" | "configmaps") if old["immutable"] == true => {
            if ["data", "binaryData", "stringData"].iter().any(|field| old[*field] != wanted[*field]) {
                return Err(Refusal::invalid(
                    resource,
                    name,
                    "data: Forbidden: field is immutable when `immutable` is set",
                ));
            }
            Ok(())
        }
        ("", "pods") if but_images(old) != but_images(wanted) => Err(Refusal::invalid(
            resource,
            name,
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
        )),
        _ => Ok(()),
    }
}

/// The containers of a pod, without what an update may change of them.
fn but_images(pod: &Value) -> [Value; 2] {
    ["initContainers", "containers"].map(|list| {
        let mut containers = pod["spec"][list].clone();
        for container in containers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            container.remove("image");
        }
        containers
    })
}

/// Seconds of grace that a delete leaves: only a started pod has any.
pub(super) fn grace_of(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    if resource.plural != "pods" {
        return 0;
    }
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || object["spec"]["nodeName"].is_null() {
        return 0;
    }
    let whole = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let wanted = asked.unwrap_or(whole).max(0);
    // A grace once given is only ever shortened.
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().map_or(wanted, |had| wanted.min(had))
}

/// What the definition fills in where an object's status says nothing. The real server does it whenever it reads the
/// object from etcd; nobody sees one without.
pub(super) fn default_status(resource: &Resource, object: &mut Value) {
    if let Some(phase) = resource.phase {
        default_field(object, "status", json!({}));
        default_field(&mut object["status"], "phase", json!(phase));
    }
}

fn default_field(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}
