//! A pod reads back as its plan, and nothing can be added to it, taken from it or changed in it unseen.

use std::collections::BTreeMap;

use agents_core::{
    name::{ChildName, SubmissionKey},
    plan::pod::PodPlan,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::runtime::{manifest::tests::pod_plan, pod::pod_template, spec::SpecCarrier};

fn template(plan: &PodPlan, carrier: &SpecCarrier) -> Value {
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let annotations = BTreeMap::from([(ANNOTATION_RUN.to_owned(), "r".to_owned())]);
    serde_json::to_value(pod_template(plan, carrier, labels, annotations)).expect("a pod has a JSON form")
}

fn carriers() -> [SpecCarrier; 2] {
    let name = ChildName::of("run", &SubmissionKey::of_attempt("u", 1));
    [SpecCarrier::Annotation, SpecCarrier::ConfigMap(name.beside("spec"))]
}

/// Fields of Kubernetes that grant or change something, with a value that does.
fn fields() -> Vec<(&'static str, Value)> {
    vec![
        ("hostNetwork", json!(true)),
        ("hostPID", json!(true)),
        ("hostIPC", json!(true)),
        ("hostUsers", json!(true)),
        ("hostAliases", json!([{ "ip": "127.0.0.1" }])),
        ("shareProcessNamespace", json!(true)),
        ("ephemeralContainers", json!([{ "name": "debug" }])),
        ("nodeName", json!("control-plane")),
        ("nodeSelector", json!({ "a": "b" })),
        ("tolerations", json!([{ "operator": "Exists" }])),
        ("affinity", json!({})),
        ("priorityClassName", json!("system-node-critical")),
        ("runtimeClassName", json!("host")),
        ("schedulerName", json!("mine")),
        ("serviceAccount", json!("admin")),
        ("imagePullSecrets", json!([{ "name": "s" }])),
        ("activeDeadlineSeconds", json!(1)),
        ("dnsPolicy", json!("None")),
        ("resourceClaims", json!([])),
        ("os", json!({ "name": "windows" })),
        ("overhead", json!({})),
        ("privileged", json!(true)),
        ("procMount", json!("Unmasked")),
        ("add", json!(["SYS_ADMIN"])),
        ("runAsUser", json!(0)),
        ("runAsNonRoot", json!(false)),
        ("seccompProfile", json!({ "type": "Unconfined" })),
        ("localhostProfile", json!("x")),
        ("appArmorProfile", json!({ "type": "Unconfined" })),
        ("seLinuxOptions", json!({ "level": "s0" })),
        ("windowsOptions", json!({ "hostProcess": true })),
        ("sysctls", json!([{ "name": "kernel.msgmax", "value": "1" }])),
        ("supplementalGroups", json!([0])),
        ("fsGroupChangePolicy", json!("Always")),
        ("args", json!(["-c"])),
        ("envFrom", json!([{ "secretRef": { "name": "s" } }])),
        ("ports", json!([{ "hostPort": 80 }])),
        ("lifecycle", json!({})),
        ("livenessProbe", json!({})),
        ("volumeDevices", json!([])),
        ("workingDir", json!("/")),
        ("stdin", json!(true)),
        ("tty", json!(true)),
        ("terminationMessagePath", json!("/workspace/x")),
        ("claims", json!([{ "name": "gpu" }])),
        ("hostPath", json!({ "path": "/" })),
        ("secret", json!({ "secretName": "s" })),
        ("projected", json!({ "sources": [] })),
        ("persistentVolumeClaim", json!({ "claimName": "c" })),
        ("csi", json!({ "driver": "d" })),
        ("emptyDir", json!({})),
        ("medium", json!("Memory")),
        ("sizeLimit", json!("1Pi")),
        ("mountPropagation", json!("Bidirectional")),
        ("subPath", json!("../..")),
        ("subPathExpr", json!("$(HOME)")),
        ("readOnly", json!(true)),
        ("optional", json!(true)),
        ("mode", json!(511)),
        ("value", json!("x")),
        ("valueFrom", json!({ "fieldRef": { "fieldPath": "spec.nodeName" } })),
        ("fieldRef", json!({ "fieldPath": "status.hostIP" })),
        ("configMapKeyRef", json!({ "name": "c", "key": "k" })),
        ("resourceFieldRef", json!({ "resource": "limits.cpu" })),
        ("finalizers", json!(["a.test/b"])),
        ("generateName", json!("x")),
        ("container.apparmor.security.beta.kubernetes.io/agent", json!("unconfined")),
        ("aFieldOfALaterKubernetes", json!(true)),
    ]
}

/// Every pointer into `value`, the root's included.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(field, &format!("{at}/{key}"), all);
            }
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                pointers(entry, &format!("{at}/{index}"), all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a plan leaves to the adapter: labels, the run's name, and which ConfigMap carries the spec.
fn is_left_to_the_adapter(pointer: &str) -> bool {
    pointer.starts_with("/metadata/") || pointer.ends_with("/configMap/name")
}

#[test]
fn no_field_can_be_added_to_a_pod_unseen() {
    let plan = pod_plan();
    let mut tried = 0;
    for carrier in carriers() {
        let whole = template(&plan, &carrier);
        let mut all = vec![];
        pointers(&whole, "", &mut all);
        for pointer in all.iter().filter(|pointer| *pointer != "/metadata/labels") {
            for (field, value) in fields() {
                let mut pod = whole.clone();
                let Some(Value::Object(object)) = pod.pointer_mut(pointer) else {
                    continue;
                };
                if object.contains_key(field) {
                    continue;
                }
                object.insert(field.to_owned(), value);
                tried += 1;
                if let Ok(read) = read_pod(&pod) {
                    assert_ne!(read, plan, "{field} added at {pointer}");
                    let rebuilt = template(&read, &carrier);
                    assert!(
                        rebuilt.pointer(pointer).is_some_and(|object| object.get(field).is_some()),
                        "{field} at {pointer}"
                    );
                }
            }
        }
    }
    assert!(tried > 3000, "only {tried} were tried");
}

#[test]
fn nothing_of_a_pod_can_be_changed_or_taken_away_unseen() {
    let plan = pod_plan();
    for carrier in carriers() {
        let whole = template(&plan, &carrier);
        let mut all = vec![];
        pointers(&whole, "", &mut all);
        for pointer in all.iter().filter(|pointer| !is_left_to_the_adapter(pointer)) {
            let mut changed = whole.clone();
            let place = changed.pointer_mut(pointer).expect("it is there");
            *place = match place.take() {
                Value::Bool(value) => json!(!value),
                Value::Number(value) => json!(value.as_i64().map(|value| value + 1)),
                Value::String(value) => json!(value + "x"),
                Value::Array(mut entries) => {
                    entries.extend(entries.first().cloned());
                    json!(entries)
                }
                other => {
                    *place = other;
                    continue;
                }
            };
            let seen = read_pod(&changed).map_or(true, |read| read != plan);
            // A capability dropped twice is dropped.
            assert!(seen || pointer.ends_with("/drop"), "changed {pointer}");
        }
        for pointer in all.iter().filter(|pointer| !is_left_to_the_adapter(pointer)) {
            let Some((parent, key)) = pointer.rsplit_once('/') else {
                continue;
            };
            let mut cut = whole.clone();
            match cut.pointer_mut(parent) {
                Some(Value::Object(object)) => drop(object.remove(key)),
                Some(Value::Array(entries)) => drop(entries.remove(key.parse().expect("it is an index"))),
                _ => continue,
            }
            assert!(read_pod(&cut).map_or(true, |read| read != plan), "removed {pointer}");
        }
    }
}

#[test]
fn a_refusal_names_the_field() {
    let mut pod = template(&pod_plan(), &SpecCarrier::Annotation);
    pod["spec"]["automountServiceAccountToken"] = json!(true);
    let error = read_pod(&pod).expect_err("no plan asks for a token");
    assert_eq!(error.to_string(), "spec.automountServiceAccountToken of a pod is true, not false");
}

fn word() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

fn amounts() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(word(), "[0-9]{1,4}(m|Mi)?", 0..3)
}

fn container() -> impl Strategy<Value = ContainerPlan> {
    let source = prop_oneof![
        "[$()a-zA-Z\\PC]{0,12}".prop_map(EnvSource::Value),
        (word(), word(), any::<bool>()).prop_map(|(secret, key, optional)| EnvSource::Secret { secret, key, optional }),
    ];
    let env = prop::collection::vec((word(), source).prop_map(|(name, source)| EnvPlan { name, source }), 0..4);
    let mount = (word(), word(), prop::option::of(word()), any::<bool>())
        .prop_map(|(volume, path, sub_path, read_only)| MountPlan { volume, path, sub_path, read_only });
    let command = prop::collection::vec("[$()a-z ]{0,12}", 1..4);
    let mounts = prop::collection::vec(mount, 0..4);
    (word(), word(), command, env, amounts(), amounts(), mounts, any::<bool>()).prop_map(
        |(name, image, command, env, requests, limits, mounts, read_only_root)| ContainerPlan {
            name,
            image,
            command,
            env,
            requests,
            limits,
            mounts,
            read_only_root,
        },
    )
}

fn plan() -> impl Strategy<Value = PodPlan> {
    let size = prop::option::of("[1-9][0-9]{0,3}(Mi|Gi|)");
    let source =
        prop_oneof![size.prop_map(|size_limit| VolumeSource::Scratch { size_limit }), Just(VolumeSource::RunnerSpec)];
    let volume = (word(), source).prop_map(|(name, source)| VolumePlan { name, source });
    (
        word(),
        prop::collection::vec(container(), 0..3),
        container(),
        prop::collection::vec(volume, 0..4),
        (1..i64::MAX, 1..i64::MAX, 1..i64::MAX),
        0..i64::MAX,
    )
        .prop_map(
            |(service_account, init_containers, container, volumes, (user, group, fs_group), grace_seconds)| PodPlan {
                service_account,
                init_containers,
                container,
                volumes,
                run_as: RunAs { user, group, fs_group },
                grace_seconds,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_pod_reads_back_as_the_plan_it_came_from(plan in plan()) {
        for carrier in carriers() {
            prop_assert_eq!(&read_pod(&template(&plan, &carrier)).expect("nothing was added"), &plan);
        }
    }
}
