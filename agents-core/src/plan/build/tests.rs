//! What the digest covers and what it leaves out; what a pod never carries.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{Agent, AgentProvider, AgentRun, Kind, Resource},
    look::Found,
    plan::pod::VolumeSource,
    quantity::Quantity,
    resolve::{References, resolve},
};

fn object<K: Kind>(spec: &Value) -> Resource<K> {
    serde_json::from_value(json!({"metadata": {"name": "n", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
}

fn resolved(provider: &Value, agent: &Value, run: &Value) -> Resolved {
    let references = References {
        agent: Found::Object(Arc::new(object::<Agent>(agent))),
        provider: Found::Object(Arc::new(object::<AgentProvider>(provider))),
        implementation: Found::Absent,
    };
    resolve(&object::<AgentRun>(run), &references).unwrap()
}

fn manifests() -> (Value, Value, Value) {
    (
        json!({
            "binary": "sh", "argsTemplate": ["{{ inputs.a }}"], "envTemplate": {"E": "e"},
            "inputFiles": [{"path": "/workspace/f", "content": "c"}],
            "secretEnv": [{"name": "KEY", "secretName": "s", "key": "k"}],
            "workload": {"image": "i", "resources": {"memory": "1Gi"}},
        }),
        json!({"providerRef": {"name": "n"}, "env": [{"name": "V", "value": "v"}]}),
        json!({
            "agentRef": {"name": "n"}, "implementation": {"inline": {"text": "t"}}, "parameters": {"a": "1"},
            "payloads": {"p": "x"}, "outputs": [{"name": "o"}],
            "execution": {"coordinates": {"git": {"url": "https://example.com/r.git", "ref": "main"}}},
            "runtime": {"job": {"serviceAccount": "sa"}},
        }),
    )
}

fn defaults() -> impl Strategy<Value = Defaults> {
    let bounds = prop_oneof![
        Just(Bounds::default()),
        Just(Bounds::none()),
        "[1-9]Gi".prop_map(|size| Bounds { volume_size: size.parse().ok(), ..Bounds::default() })
    ];
    ("[a-z]{1,9}", "[a-z]{1,9}", "[a-z]{1,9}", 1u64..3600, bounds).prop_map(
        |(image, runner_image, service_account, grace_seconds, bounds)| Defaults {
            image,
            runner_image,
            service_account,
            grace_seconds,
            bounds,
        },
    )
}

proptest! {
    #[test]
    fn a_new_default_does_not_change_the_digest_and_the_runner_computes_the_same(a in defaults(), b in defaults()) {
        let (provider, agent, run) = manifests();
        let resolved = resolved(&provider, &agent, &run);
        let (first, second) = (plan(&resolved, &a).unwrap(), plan(&resolved, &b).unwrap());
        prop_assert_eq!(&first.digest, &second.digest);
        for planned in [first, second] {
            let mut spec = planned.spec;
            spec.run.attempt = 7;
            spec.limits.timeout_seconds = Some(5);
            prop_assert_eq!(digest::of_runner_spec(&json(&spec)), planned.digest);
        }
    }

    #[test]
    fn no_pod_has_root_or_a_volume_that_reaches_outside(a in defaults()) {
        let (provider, agent, run) = manifests();
        let pod = plan(&resolved(&provider, &agent, &run), &a).unwrap().pod;
        prop_assert!(pod.run_as.user > 0 && pod.run_as.group > 0 && pod.run_as.fs_group > 0);
        for volume in &pod.volumes {
            match volume.source {
                VolumeSource::Scratch { .. } | VolumeSource::RunnerSpec => {}
            }
        }
        for container in pod.init_containers.iter().chain([&pod.container]) {
            prop_assert!(!container.command.is_empty(), "an image's own entrypoint is never used");
            prop_assert!(container.mounts.iter().all(|mount| pod.volumes.iter().any(|volume| volume.name == mount.volume)));
        }
    }
}

/// Requests, limits and the sizes of all folders but the runner's.
fn bounded(resources: &Value, bounds: &Bounds) -> (Value, Value, Vec<Option<String>>) {
    let (mut provider, agent, mut run) = manifests();
    provider["workload"]["resources"] = json!({});
    provider["inputFiles"][0]["path"] = json!("/root/f");
    run["workload"] = json!({ "resources": resources });
    let defaults = Defaults { bounds: bounds.clone(), ..Defaults::unsaid() };
    let pod = plan(&resolved(&provider, &agent, &run), &defaults).unwrap().pod;
    let sizes = pod.volumes.iter().filter(|volume| volume.name != "runner").filter_map(|volume| match &volume.source {
        VolumeSource::Scratch { size_limit } => Some(size_limit.clone()),
        VolumeSource::RunnerSpec => None,
    });
    let sizes: Vec<_> = sizes.collect();
    assert_eq!(sizes.len(), 4, "{:?}", pod.volumes);
    (json!(pod.container.requests), json!(pod.container.limits), sizes)
}

#[test]
fn what_nobody_says_has_a_bound_and_what_is_said_wins() {
    let own = Bounds::default();
    let all = |size: &str| vec![Some(size.to_owned()); 4];
    let unsaid = bounded(&json!({}), &own);
    assert_eq!(unsaid.0, json!({"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "1Gi"}));
    assert_eq!(unsaid.1, json!({"cpu": "4", "memory": "8Gi", "ephemeral-storage": "20Gi"}));
    assert_eq!(unsaid.2, all("10Gi"));
    let said = bounded(&json!({"memory": "64Gi", "limits": {"cpu": "50m", "nvidia.com/gpu": 1}}), &own);
    assert_eq!(said.0, json!({"memory": "64Gi", "ephemeral-storage": "1Gi"}));
    assert_eq!(said.1, json!({"memory": "64Gi", "cpu": "50m", "nvidia.com/gpu": "1", "ephemeral-storage": "20Gi"}));
    let asked = bounded(&json!({"requests": {"cpu": 16, "memory": "1Gi"}}), &own);
    assert_eq!(asked.1, json!({"cpu": "16", "memory": "8Gi", "ephemeral-storage": "20Gi"}));
    // Who says how much of the disk a run may have says it of its folders.
    assert_eq!(bounded(&json!({"ephemeral": "200Gi"}), &own).2, all("200Gi"));
    assert_eq!(bounded(&json!({"limits": {"ephemeral-storage": "1Gi"}}), &own).2, all("1Gi"));
    assert_eq!(bounded(&json!({"requests": {"ephemeral-storage": "30Gi"}}), &own).2, all("30Gi"));
    assert_eq!(bounded(&json!({"ephemeral": "1Gi"}), &Bounds::none()).2, vec![None; 4]);
    assert_eq!(bounded(&json!({}), &Bounds::none()), (json!({}), json!({}), vec![None; 4]));
}

#[test]
fn every_folder_and_every_container_of_a_pod_has_a_bound() {
    let (provider, agent, run) = manifests();
    let defaults = Defaults { bounds: Bounds::default(), ..Defaults::unsaid() };
    let pod = plan(&resolved(&provider, &agent, &run), &defaults).unwrap().pod;
    for container in pod.init_containers.iter().chain([&pod.container]) {
        for name in ["cpu", "memory", "ephemeral-storage"] {
            let amount =
                |amounts: &BTreeMap<String, String>| amounts.get(name).map(|text| text.parse::<Quantity>().unwrap());
            let (least, most) = (amount(&container.requests), amount(&container.limits));
            assert!(least.is_some() && least <= most, "{} {name}: {least:?} {most:?}", container.name);
        }
    }
    for volume in &pod.volumes {
        assert_ne!(volume.source, VolumeSource::Scratch { size_limit: None }, "{}", volume.name);
    }
}

#[test]
fn everything_that_is_executed_changes_the_digest() {
    let defaults = Defaults::unsaid();
    let (provider, agent, run) = manifests();
    let digest =
        |provider: &Value, agent: &Value, run: &Value| plan(&resolved(provider, agent, run), &defaults).unwrap().digest;
    let original = digest(&provider, &agent, &run);
    let changes = [
        (0, "/binary", json!("bash")),
        (0, "/argsTemplate/0", json!("{{ inputs.a }} ")),
        (0, "/envTemplate/E", json!("f")),
        (0, "/inputFiles/0/path", json!("/workspace/g")),
        (0, "/inputFiles/0/content", json!("d")),
        (0, "/secretEnv/0/name", json!("OTHER")),
        (0, "/secretEnv/0/secretName", json!("other")),
        (0, "/secretEnv/0/key", json!("other")),
        (0, "/workload/image", json!("j")),
        (0, "/workload/resources/memory", json!("2Gi")),
        (1, "/env/0/value", json!("w")),
        (2, "/implementation/inline/text", json!("u")),
        (2, "/parameters/a", json!("2")),
        (2, "/payloads/p", json!("y")),
        (2, "/outputs/0/name", json!("q")),
        (2, "/execution/coordinates/git/ref", json!("next")),
        (2, "/runtime/job/serviceAccount", json!("sb")),
    ];
    for (which, path, value) in changes {
        let mut manifests = [provider.clone(), agent.clone(), run.clone()];
        *manifests[which].pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        let [provider, agent, run] = &manifests;
        assert_ne!(digest(provider, agent, run), original, "{path}");
    }
}
