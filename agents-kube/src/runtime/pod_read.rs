//! A pod template read back as the [`PodPlan`] it came from, or the first thing in it that no plan names.
//!
//! Written against the JSON, not against `pod`: every object is an allow-list of its own, so that a field of a newer
//! Kubernetes and a mistake in `pod` are both found.

use std::collections::{BTreeMap, BTreeSet};

use agents_core::{
    marks::{ANNOTATION_RUN, ANNOTATION_SPEC},
    plan::pod::{ContainerPlan, EnvPlan, EnvSource, MountPlan, PodPlan, RunAs, SPEC_FILE, VolumePlan, VolumeSource},
    report::KEY_VARIABLE,
};
use serde::Deserialize;
use serde_json::Value;

use super::pod::{SPEC_MODE, spec_field_path};

/// Something in a pod that no plan names.
#[derive(Debug, thiserror::Error)]
pub enum NotPlanned {
    /// A field outside the allow-list, or one of another shape.
    #[error("not a pod of a plan")]
    Shape(#[source] serde_json::Error),
    /// A field of the allow-list with a value that no plan asks for.
    #[error("{field} of a pod is {found}, not {wanted}")]
    Value {
        /// Path from the template's root; list entries by name.
        field: String,
        /// What stands there.
        found: String,
        /// What a plan asks for.
        wanted: String,
    },
}

/// Reads the pod template `template` back.
///
/// # Errors
/// The first field that no plan names, or that has a value no plan asks for.
pub fn read_pod(template: &Value) -> Result<PodPlan, NotPlanned> {
    let Template { metadata, spec } = Template::deserialize(template).map_err(NotPlanned::Shape)?;
    let Metadata { labels: _, annotations } = metadata;
    // Other annotations can lift restrictions: older kubelets and container runtimes read some of them.
    for key in annotations.keys() {
        let known = key == ANNOTATION_SPEC || key == ANNOTATION_RUN;
        if !known {
            return Err(unwanted("metadata.annotations", key, "an annotation of ours"));
        }
    }
    let Spec {
        automount_service_account_token,
        containers,
        enable_service_links,
        init_containers,
        restart_policy,
        security_context,
        service_account_name,
        termination_grace_period_seconds,
        volumes,
    } = spec;
    expect("spec.automountServiceAccountToken", &automount_service_account_token, &false)?;
    expect("spec.enableServiceLinks", &enable_service_links, &false)?;
    expect("spec.restartPolicy", &restart_policy.as_str(), &"Never")?;
    let [container] = containers
        .try_into()
        .map_err(|all: Vec<Container>| unwanted("spec.containers", &all.len().to_string(), "one container"))?;
    Ok(PodPlan {
        service_account: service_account_name,
        init_containers: init_containers.into_iter().map(read_container).collect::<Result<_, _>>()?,
        container: read_container(container)?,
        volumes: volumes.into_iter().map(read_volume).collect::<Result<_, _>>()?,
        run_as: read_identity(&security_context)?,
        grace_seconds: termination_grace_period_seconds,
    })
}

fn read_identity(context: &PodSecurity) -> Result<RunAs, NotPlanned> {
    let PodSecurity { fs_group, run_as_group, run_as_non_root, run_as_user, seccomp_profile: Seccomp { r#type } } =
        context;
    expect("spec.securityContext.runAsNonRoot", run_as_non_root, &true)?;
    expect("spec.securityContext.seccompProfile.type", &r#type.as_str(), &"RuntimeDefault")?;
    Ok(RunAs { user: *run_as_user, group: *run_as_group, fs_group: *fs_group })
}

fn read_container(container: Container) -> Result<ContainerPlan, NotPlanned> {
    let Container {
        command,
        env,
        image,
        image_pull_policy,
        name,
        resources: Resources { requests, limits },
        security_context,
        termination_message_policy,
        volume_mounts,
    } = container;
    let at = |field: &str| format!("container {name}: {field}");
    let ContainerSecurity {
        allow_privilege_escalation,
        capabilities: Capabilities { drop },
        read_only_root_filesystem,
    } = security_context;
    expect(&at("securityContext.allowPrivilegeEscalation"), &allow_privilege_escalation, &false)?;
    expect(&at("securityContext.capabilities.drop"), &Vec::from_iter(drop).join(",").as_str(), &"ALL")?;
    expect(&at("imagePullPolicy"), &image_pull_policy.as_str(), &"IfNotPresent")?;
    expect(&at("terminationMessagePolicy"), &termination_message_policy.as_str(), &"File")?;
    if command.is_empty() {
        return Err(unwanted(&at("command"), "empty", "a program, since the image's own is never used"));
    }
    let command = command.iter().map(|word| literal(&at("command"), word)).collect::<Result<_, _>>()?;
    // The key of the report is the adapter's own: it grants nothing.
    let env = env.into_iter().filter(|variable| variable.name != KEY_VARIABLE);
    let env = env.map(|variable| read_env(&at("env"), variable)).collect::<Result<_, _>>()?;
    let mounts = volume_mounts
        .into_iter()
        .map(|mount| {
            let Mount { path, name, read_only, sub_path } = mount;
            MountPlan { volume: name, path, sub_path, read_only }
        })
        .collect();
    Ok(ContainerPlan { image, command, env, requests, limits, mounts, read_only_root: read_only_root_filesystem, name })
}

fn read_env(at: &str, variable: Env) -> Result<EnvPlan, NotPlanned> {
    let Env { name, value, value_from } = variable;
    let source = match (value, value_from) {
        (Some(_), Some(_)) => return Err(unwanted(at, &name, "a value or a source, not both")),
        (value, None) => EnvSource::Value(literal(at, &value.unwrap_or_default())?),
        (None, Some(EnvFrom { secret_key_ref })) => {
            let SecretKey { key, name, optional } = secret_key_ref;
            EnvSource::Secret { secret: name, key, optional }
        }
    };
    Ok(EnvPlan { name, source })
}

fn read_volume(volume: Volume) -> Result<VolumePlan, NotPlanned> {
    let Volume { name, empty_dir, downward_api, config_map } = volume;
    let at = format!("volume {name}");
    let source = match (empty_dir, downward_api, config_map) {
        (Some(EmptyDir { size_limit }), None, None) => VolumeSource::Scratch { size_limit },
        (None, Some(DownwardApi { default_mode, items }), None) => {
            let [DownwardFile { field_ref: FieldRef { api_version, field_path }, path }] = items;
            expect(&format!("{at}: defaultMode"), &default_mode, &SPEC_MODE)?;
            expect(&format!("{at}: apiVersion"), &api_version.as_str(), &"v1")?;
            expect(&format!("{at}: fieldPath"), &field_path, &spec_field_path())?;
            expect(&format!("{at}: path"), &path.as_str(), &SPEC_FILE)?;
            VolumeSource::RunnerSpec
        }
        (None, None, Some(ConfigMapFiles { default_mode, items, name: _ })) => {
            let [KeyFile { key, path }] = items;
            expect(&format!("{at}: defaultMode"), &default_mode, &SPEC_MODE)?;
            expect(&format!("{at}: key"), &key.as_str(), &SPEC_FILE)?;
            expect(&format!("{at}: path"), &path.as_str(), &SPEC_FILE)?;
            VolumeSource::RunnerSpec
        }
        _ => return Err(unwanted(&at, "no or several sources", "exactly one source")),
    };
    Ok(VolumePlan { name, source })
}

/// The text the kubelet makes of `text`; one that it would expand is refused.
fn literal(at: &str, text: &str) -> Result<String, NotPlanned> {
    let plain = text.replace("$$", "");
    if plain.contains('$') {
        return Err(unwanted(at, "text with a variable", "literal text"));
    }
    Ok(text.replace("$$", "$"))
}

fn expect<T: PartialEq + std::fmt::Debug>(field: &str, found: &T, wanted: &T) -> Result<(), NotPlanned> {
    if found == wanted {
        return Ok(());
    }
    Err(unwanted(field, &format!("{found:?}"), &format!("{wanted:?}")))
}

fn unwanted(field: &str, found: &str, wanted: &str) -> NotPlanned {
    NotPlanned::Value { field: field.to_owned(), found: found.to_owned(), wanted: wanted.to_owned() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "labels", default)]
    #[expect(dead_code, reason = "policy judges labels where they are asked for; here they only must have the shape")]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    automount_service_account_token: bool,
    containers: Vec<Container>,
    enable_service_links: bool,
    #[serde(default)]
    init_containers: Vec<Container>,
    restart_policy: String,
    security_context: PodSecurity,
    service_account_name: String,
    termination_grace_period_seconds: i64,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PodSecurity {
    fs_group: i64,
    run_as_group: i64,
    run_as_non_root: bool,
    run_as_user: i64,
    seccomp_profile: Seccomp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seccomp {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: Vec<Env>,
    image: String,
    image_pull_policy: String,
    name: String,
    #[serde(default)]
    resources: Resources,
    security_context: ContainerSecurity,
    termination_message_policy: String,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Resources {
    requests: BTreeMap<String, String>,
    limits: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ContainerSecurity {
    allow_privilege_escalation: bool,
    capabilities: Capabilities,
    read_only_root_filesystem: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    drop: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Env {
    name: String,
    value: Option<String>,
    value_from: Option<EnvFrom>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvFrom {
    secret_key_ref: SecretKey,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretKey {
    key: String,
    name: String,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Mount {
    #[serde(rename = "mountPath")]
    path: String,
    name: String,
    #[serde(default)]
    read_only: bool,
    sub_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Volume {
    name: String,
    empty_dir: Option<EmptyDir>,
    #[serde(rename = "downwardAPI")]
    downward_api: Option<DownwardApi>,
    config_map: Option<ConfigMapFiles>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EmptyDir {
    size_limit: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DownwardApi {
    default_mode: i32,
    items: [DownwardFile; 1],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DownwardFile {
    field_ref: FieldRef,
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FieldRef {
    api_version: String,
    field_path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ConfigMapFiles {
    default_mode: i32,
    items: [KeyFile; 1],
    #[expect(dead_code, reason = "which ConfigMap carries the spec is the adapter's choice")]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    key: String,
    path: String,
}

#[cfg(test)]
mod tests;
