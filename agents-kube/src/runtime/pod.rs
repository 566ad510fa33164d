//! A [`PodPlan`] as a Kubernetes pod template, one to one.
//!
//! Nothing here grants access: what the plan does not name is either left out or set to its most restricted value, and
//! every plan type is destructured without `..`, so that a new field of a plan must be handled here.

use std::collections::BTreeMap;

use agents_core::{
    marks::ANNOTATION_SPEC,
    plan::pod::{ContainerPlan, EnvPlan, EnvSource, MountPlan, PodPlan, RunAs, SPEC_FILE, VolumePlan, VolumeSource},
};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
        EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath, ObjectFieldSelector, PodSecurityContext, PodSpec,
        PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::spec::SpecCarrier;

/// Mode of the runner's spec: readable by whoever the pod runs as.
pub(super) const SPEC_MODE: i32 = 0o444;

/// The pod template of `plan`, with the runner's spec read from `carrier`.
pub fn pod_template(
    plan: &PodPlan,
    carrier: &SpecCarrier,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
) -> PodTemplateSpec {
    let PodPlan {
        service_account,
        init_containers,
        container,
        volumes,
        run_as: RunAs { user, group, fs_group },
        grace_seconds,
    } = plan;
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            containers: vec![build_container(container)],
            enable_service_links: Some(false),
            init_containers: non_empty(init_containers.iter().map(build_container).collect()),
            restart_policy: Some("Never".to_owned()),
            security_context: Some(PodSecurityContext {
                fs_group: Some(*fs_group),
                run_as_group: Some(*group),
                run_as_non_root: Some(true),
                run_as_user: Some(*user),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            service_account_name: Some(service_account.clone()),
            termination_grace_period_seconds: Some(*grace_seconds),
            volumes: non_empty(volumes.iter().map(|volume| build_volume(volume, carrier)).collect()),
            ..PodSpec::default()
        }),
    }
}

fn build_container(plan: &ContainerPlan) -> Container {
    let ContainerPlan { name, image, command, env, requests, limits, mounts, read_only_root } = plan;
    let resources = ResourceRequirements {
        requests: quantities(requests),
        limits: quantities(limits),
        ..ResourceRequirements::default()
    };
    Container {
        command: Some(command.iter().map(|word| literal(word)).collect()),
        env: non_empty(env.iter().map(build_env).collect()),
        image: Some(image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        name: name.clone(),
        resources: Some(resources).filter(|resources| *resources != ResourceRequirements::default()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(*read_only_root),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: non_empty(mounts.iter().map(build_mount).collect()),
        ..Container::default()
    }
}

fn build_env(plan: &EnvPlan) -> EnvVar {
    let EnvPlan { name, source } = plan;
    let (value, value_from) = match source {
        EnvSource::Value(value) => (Some(literal(value)), None),
        EnvSource::Secret { secret, key, optional } => {
            let selector =
                SecretKeySelector { key: key.clone(), name: secret.clone(), optional: optional.then_some(true) };
            let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
            (None, Some(source))
        }
    };
    EnvVar { name: name.clone(), value, value_from }
}

fn build_mount(plan: &MountPlan) -> VolumeMount {
    let MountPlan { volume, path, sub_path, read_only } = plan;
    VolumeMount {
        mount_path: path.clone(),
        name: volume.clone(),
        read_only: read_only.then_some(true),
        sub_path: sub_path.clone(),
        ..VolumeMount::default()
    }
}

fn build_volume(plan: &VolumePlan, carrier: &SpecCarrier) -> Volume {
    let VolumePlan { name, source } = plan;
    let empty = Volume { name: name.clone(), ..Volume::default() };
    match (source, carrier) {
        (VolumeSource::Scratch { size_limit }, _) => Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: size_limit.clone().map(Quantity),
                ..EmptyDirVolumeSource::default()
            }),
            ..empty
        },
        (VolumeSource::RunnerSpec, SpecCarrier::Annotation) => Volume {
            downward_api: Some(DownwardAPIVolumeSource {
                default_mode: Some(SPEC_MODE),
                items: Some(vec![DownwardAPIVolumeFile {
                    field_ref: Some(ObjectFieldSelector {
                        api_version: Some("v1".to_owned()),
                        field_path: spec_field_path(),
                    }),
                    path: SPEC_FILE.to_owned(),
                    ..DownwardAPIVolumeFile::default()
                }]),
            }),
            ..empty
        },
        (VolumeSource::RunnerSpec, SpecCarrier::ConfigMap(config_map)) => Volume {
            config_map: Some(ConfigMapVolumeSource {
                default_mode: Some(SPEC_MODE),
                items: Some(vec![KeyToPath { key: SPEC_FILE.to_owned(), mode: None, path: SPEC_FILE.to_owned() }]),
                name: config_map.as_str().to_owned(),
                optional: None,
            }),
            ..empty
        },
    }
}

/// Where the downward API finds the encoded spec.
pub(super) fn spec_field_path() -> String {
    format!("metadata.annotations['{ANNOTATION_SPEC}']")
}

/// `text` so that the kubelet takes it literally: unescaped, `$(NAME)` would be replaced by the value of a variable,
/// which may be a secret.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn quantities(amounts: &BTreeMap<String, String>) -> Option<BTreeMap<String, Quantity>> {
    let amounts: BTreeMap<_, _> =
        amounts.iter().map(|(resource, amount)| (resource.clone(), Quantity(amount.clone()))).collect();
    Some(amounts).filter(|amounts| !amounts.is_empty())
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}
