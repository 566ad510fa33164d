//! The same pod however the API server and others spell it, and another one as soon as something else runs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::runtime::{
    JobSettings, JobView, Manifests,
    manifest::tests::{large_submission, submission},
    manifests,
};

fn job() -> Value {
    let Manifests { job, .. } = manifests(&submission(), JobSettings::default(), Some("key-1")).expect("it has a form");
    let mut job = serde_json::to_value(job).expect("it has a JSON form");
    job["metadata"]["uid"] = json!("job-1");
    job["metadata"]["creationTimestamp"] = json!("2026-01-05T10:00:00Z");
    job
}

fn spec(job: &mut Value) -> &mut Value {
    &mut job["spec"]["template"]["spec"]
}

fn container<'a>(job: &'a mut Value, list: &str) -> &'a mut Value {
    &mut spec(job)[list][0]
}

fn view(job: &Value) -> JobView {
    serde_json::from_value(job.clone()).expect("it is a Job")
}

/// What the API server and the plug-ins of a cluster may make of it.
fn stored(mut job: Value) -> Value {
    for list in ["containers", "initContainers"] {
        container(&mut job, list)["terminationMessagePath"] = json!("/dev/termination-log");
        container(&mut job, list)["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}});
        container(&mut job, list)["imagePullPolicy"] = json!("Always");
    }
    let pod = spec(&mut job);
    pod["dnsPolicy"] = json!("ClusterFirst");
    pod["schedulerName"] = json!("default-scheduler");
    pod["serviceAccount"] = pod["serviceAccountName"].clone();
    pod["nodeSelector"] = json!({"pool": "runs"});
    pod["tolerations"] = json!([{"operator": "Exists"}]);
    let add = |list: &mut Value, item: Value| list.as_array_mut().expect("it has some").push(item);
    add(&mut pod["containers"], json!({"name": "proxy", "image": "mesh:1", "env": [{"name": "A", "value": "b"}]}));
    add(&mut pod["initContainers"], json!({"name": "proxy-init", "image": "mesh:1", "restartPolicy": "Always"}));
    add(&mut pod["volumes"], json!({"name": "proxy-token", "secret": {"secretName": "mesh"}}));
    for volume in pod["volumes"].as_array_mut().expect("it has some") {
        if volume["emptyDir"].is_object() {
            volume["emptyDir"]["sizeLimit"] = json!("1Gi");
        }
    }
    job["spec"]["template"]["metadata"]["annotations"]["mesh"] = json!("injected");
    job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = json!("job-1");
    job["status"] = json!({"active": 1});
    job
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |item| {
        prop_oneof![
            proptest::collection::vec(item.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec(("\\PC{0,3}", item), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn of_members_of_one_name_the_last_one_counts() {
    let text = r#"{"b":1,"a":2,"b":{"x":3},"a":4}"#;
    assert_eq!(serde_json::to_string(&read(text)).expect("it is JSON"), r#"{"a":4,"b":{"x":3}}"#);
}

#[test]
fn what_the_api_server_stores_is_what_was_sent() {
    let view = view(&stored(job()));
    let wanted = manifests(&submission(), JobSettings::default(), None).expect("it has a form").marks;
    assert_eq!(view.marks.pod, wanted.pod, "another key is no other pod");
    assert!(view.marks.agree());
    assert_eq!(view.marks.report_key.as_deref(), Some("key-1"));
    assert_eq!(Fingerprint::parse(&wanted.pod.to_string()), Some(wanted.pod));
}

#[test]
fn two_carriers_of_a_spec_are_two_pods_and_two_attempts_are_one() {
    let marks = |submission: &_| manifests(submission, JobSettings::default(), None).expect("it has a form").marks;
    assert_ne!(marks(&submission()).pod, marks(&large_submission()).pod);
    let mut second = submission();
    second.key.attempt = 2;
    second.spec.limits.timeout_seconds = Some(7);
    assert_eq!(marks(&submission()).pod, marks(&second).pod);
}

#[test]
fn whatever_else_would_run_is_seen() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 22] = [
        ("image", |job| container(job, "containers")["image"] = json!("evil")),
        ("image of the installer", |job| container(job, "initContainers")["image"] = json!("evil")),
        ("command", |job| container(job, "containers")["command"][0] = json!("/bin/sh")),
        ("an empty word", |job| container(job, "containers")["command"] = json!(["/usr/local/bin/agent-runner", ""])),
        ("args", |job| container(job, "containers")["args"] = json!(["-c", "evil"])),
        ("value", |job| container(job, "containers")["env"][0]["value"] = json!("/evil")),
        ("variable", |job| container(job, "containers")["env"][1]["name"] = json!("LD_PRELOAD")),
        ("secret", |job| container(job, "containers")["env"][2]["valueFrom"]["secretKeyRef"]["name"] = json!("evil")),
        ("variables from elsewhere", |job| {
            container(job, "containers")["envFrom"] = json!([{"secretRef": {"name": "evil"}}]);
        }),
        ("mount", |job| container(job, "containers")["volumeMounts"][0]["mountPath"] = json!("/evil")),
        ("another mount", |job| {
            let mounts = container(job, "containers")["volumeMounts"].as_array_mut().expect("it has some");
            mounts.push(json!({"name": "evil", "mountPath": "/usr/local/bin"}));
        }),
        ("volume", |job| spec(job)["volumes"][0] = json!({"name": "workspace", "hostPath": {"path": "/"}})),
        ("privileges", |job| container(job, "containers")["securityContext"]["privileged"] = json!(true)),
        ("user", |job| spec(job)["securityContext"]["runAsUser"] = json!(0)),
        ("account", |job| spec(job)["serviceAccountName"] = json!("evil")),
        ("token", |job| spec(job)["automountServiceAccountToken"] = json!(true)),
        ("namespace of processes", |job| spec(job)["shareProcessNamespace"] = json!(true)),
        ("network", |job| spec(job)["hostNetwork"] = json!(true)),
        ("hook", |job| {
            container(job, "containers")["lifecycle"] = json!({"postStart": {"exec": {"command": ["evil"]}}});
        }),
        ("message", |job| container(job, "containers")["terminationMessagePath"] = json!("/workspace/evil")),
        ("name", |job| container(job, "containers")["name"] = json!("other")),
        ("no installer", |job| spec(job)["initContainers"] = json!([])),
    ];
    let ours = view(&job()).marks.pod;
    for (what, change) in changes {
        let mut other = stored(job());
        change(&mut other);
        let view = view(&other);
        assert_ne!(view.marks.pod, ours, "{what}");
        assert!(!view.marks.agree(), "{what}: the annotation was copied");
    }
}

proptest! {
    #[test]
    fn what_is_hashed_says_what_was_read_in_the_order_of_names(value in any_json()) {
        let text = value.to_string();
        let written = serde_json::to_string(&read(&text)).expect("it is JSON");
        prop_assert_eq!(&serde_json::from_str::<Value>(&written).expect("it is JSON"), &value);
        prop_assert_eq!(digest::sha256(written.as_bytes()), digest::of_json(&value));
    }

    #[test]
    fn any_json_in_the_place_of_a_pod_has_a_fingerprint(text in "[\\[\\]{}\",:a-z0-9]{0,60}") {
        let _any = (Fingerprint::of(&text), report_key(&read(&text)));
        prop_assert!(Fingerprint::parse(&text).is_none());
    }
}
