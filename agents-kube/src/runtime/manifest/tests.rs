//! What is created for a submission, and the submissions other tests start from.

use agents_core::{
    api::runtime::RuntimeKind,
    name::SubmissionKey,
    plan::{
        CONTAINER, RUNNER_PATH, RunnerSpec,
        pod::{ContainerPlan, EnvPlan, EnvSource, MountPlan, NOBODY, PodPlan, VolumePlan, VolumeSource},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::runtime::{MAX_ANNOTATIONS, read_pod};

/// A pod with something in every field of a plan.
pub(in crate::runtime) fn pod_plan() -> PodPlan {
    let mount = |volume: &str, path: &str, sub_path: Option<&str>, read_only| MountPlan {
        volume: volume.into(),
        path: path.into(),
        sub_path: sub_path.map(Into::into),
        read_only,
    };
    let amounts =
        |cpu: &str, memory: &str| BTreeMap::from([("cpu".into(), cpu.into()), ("memory".into(), memory.into())]);
    let variable = |name: &str, source| EnvPlan { name: name.into(), source };
    let secret = |optional| EnvSource::Secret { secret: "codex-key".into(), key: "token".into(), optional };
    PodPlan {
        service_account: "agents-runner".into(),
        init_containers: vec![ContainerPlan {
            name: "install-runner".into(),
            image: "example.test/agents:1".into(),
            command: vec![RUNNER_PATH.into(), "install".into(), "/agents/bin/agent-runner".into()],
            env: vec![],
            requests: amounts("10m", "16Mi"),
            limits: amounts("1", "64Mi"),
            mounts: vec![mount("runner", "/agents/bin", None, false)],
            read_only_root: true,
        }],
        container: ContainerPlan {
            name: CONTAINER.into(),
            image: "example.test/agent:1".into(),
            command: vec![RUNNER_PATH.into()],
            env: vec![
                variable("HOME", EnvSource::Value("/home/agent".into())),
                variable("PRICE", EnvSource::Value("$5 and $(TOKEN)".into())),
                variable("TOKEN", secret(false)),
                variable("EXTRA", secret(true)),
            ],
            requests: BTreeMap::new(),
            limits: amounts("2", "1Gi"),
            mounts: vec![
                mount("workspace", "/workspace", None, false),
                mount("runner-spec", "/agents/spec", None, true),
                mount("runner", RUNNER_PATH, Some("agent-runner"), true),
            ],
            read_only_root: false,
        },
        volumes: ["workspace", "runner"]
            .map(|name| VolumePlan {
                name: name.into(),
                source: VolumeSource::Scratch { size_limit: (name == "workspace").then(|| "10Gi".into()) },
            })
            .into_iter()
            .chain([VolumePlan { name: "runner-spec".into(), source: VolumeSource::RunnerSpec }])
            .collect(),
        run_as: NOBODY,
        grace_seconds: 40,
    }
}

/// The first attempt of a run, with a payload of `bytes` bytes that do not compress.
pub(in crate::runtime) fn submission_of_size(bytes: usize) -> Submission {
    let owner = Owner { name: "nightly-review".into(), uid: "5d0c6c0e-3b0e-4f7e-9a53-7f2f8f6f1a01".into() };
    let key = SubmissionKey::of_attempt(&owner.uid, 1);
    // A linear congruential generator: digits without a pattern that zstd finds.
    let mut state = 42u64;
    let noise: Vec<u8> = (0..bytes * 3 / 4)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56).try_into().expect("eight bits remain")
        })
        .collect();
    let spec = json!({
        "provider": "shell",
        "payloads": { "promptJson": STANDARD.encode(noise) },
        "run": { "name": owner.name, "namespace": "team-a", "uid": owner.uid, "attempt": 1 },
        "limits": { "timeoutSeconds": 600, "graceSeconds": 20 },
    });
    Submission {
        name: ChildName::of(&owner.name, &key),
        key,
        runtime: RuntimeKind::Job,
        namespace: "team-a".into(),
        owner,
        spec: serde_json::from_value(spec).expect("it is a spec"),
        pod: pod_plan(),
        secret_env: vec![],
        labels: [("team".to_owned(), "a".to_owned())].into(),
    }
}

pub(in crate::runtime) fn submission() -> Submission {
    submission_of_size(8)
}

pub(in crate::runtime) fn large_submission() -> Submission {
    submission_of_size(300 * 1024)
}

fn built(submission: &Submission) -> (Option<Value>, Value) {
    let Manifests { config_map, job, marks: _ } =
        manifests(submission, JobSettings::default(), Some("key-1")).expect("it has a form");
    let json = |object: Value| object;
    (
        config_map.map(|object| json(serde_json::to_value(object).expect("it has a JSON form"))),
        json(serde_json::to_value(job).expect("it has a JSON form")),
    )
}

/// What the runner reads from its file.
fn decoded(file: &str) -> RunnerSpec {
    let text = agents_runtime::spec_file::decode(file.as_bytes()).expect("it is a spec's file");
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
fn a_job_as_it_is_created() {
    let (config_map, mut job) = built(&submission());
    assert_eq!(config_map, None);
    let annotation = &mut job["spec"]["template"]["metadata"]["annotations"][ANNOTATION_SPEC];
    assert_eq!(decoded(annotation.as_str().expect("it is text")), submission().spec);
    *annotation = json!("<encoded>");
    insta::assert_yaml_snapshot!("job", job);
}

#[test]
fn a_large_spec_travels_in_a_config_map_of_the_run() {
    let submission = large_submission();
    let (config_map, job) = built(&submission);
    let config_map = config_map.expect("it does not fit an annotation");
    assert_eq!(config_map["metadata"]["ownerReferences"], job["metadata"]["ownerReferences"]);
    assert_eq!(config_map["metadata"]["labels"], job["metadata"]["labels"]);
    let file = config_map["binaryData"][SPEC_FILE].as_str().expect("it has the file");
    let file = String::from_utf8(STANDARD.decode(file).expect("it is base64")).expect("it is text");
    assert_eq!(decoded(&file), submission.spec);
    let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().expect("it has volumes").clone();
    assert!(volumes.iter().any(|volume| volume["configMap"]["name"] == config_map["metadata"]["name"]));
    assert!(job["spec"]["template"]["metadata"]["annotations"][ANNOTATION_SPEC].is_null());
}

#[test]
fn annotations_never_pass_their_limit() {
    let mut carriers = [0, 0];
    for kib in [1, 150, 190, 196, 198, 199, 200, 201, 204, 220] {
        let (config_map, job) = built(&submission_of_size(kib * 1024));
        let annotations = job["spec"]["template"]["metadata"]["annotations"].as_object().expect("it has some").clone();
        let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
        assert!(bytes <= MAX_ANNOTATIONS, "{kib} KiB: {bytes}");
        carriers[usize::from(config_map.is_some())] += 1;
        assert_eq!(config_map.is_some(), !annotations.contains_key(ANNOTATION_SPEC), "{kib} KiB");
    }
    assert!(carriers.iter().all(|times| *times > 1), "{carriers:?}");
}

#[test]
fn a_pod_of_a_generated_job_reads_back_whichever_way_the_spec_travels() {
    for submission in [submission(), large_submission()] {
        let (_, job) = built(&submission);
        assert_eq!(read_pod(&job["spec"]["template"]).expect("nothing was added"), submission.pod);
    }
}

#[test]
fn labels_of_a_submission_never_hide_whose_it_is() {
    let mut submission = submission();
    submission.owner.name = "r".repeat(253);
    submission.labels = [LABEL_MANAGED_BY, LABEL_RUN, LABEL_RUN_UID, LABEL_ATTEMPT]
        .map(|label| (label.to_owned(), "someone-else".to_owned()))
        .into();
    let (_, job) = built(&submission);
    for metadata in [&job["metadata"], &job["spec"]["template"]["metadata"]] {
        assert_eq!(metadata["labels"][LABEL_MANAGED_BY], MANAGED_BY);
        assert_eq!(metadata["labels"][LABEL_RUN_UID], submission.owner.uid.as_str());
        assert_eq!(metadata["labels"][LABEL_ATTEMPT], "1");
        assert!(metadata["labels"][LABEL_RUN].as_str().is_some_and(|label| label.len() <= 63));
        assert_eq!(metadata["annotations"][ANNOTATION_RUN], submission.owner.name.as_str());
    }
}

#[test]
fn a_job_outlives_caches_and_ends_after_the_runner() {
    let ttl = |seconds| {
        let settings = JobSettings { ttl: Duration::from_secs(seconds) };
        let job = manifests(&submission(), settings, None).expect("it has a form").job;
        job.spec.and_then(|spec| spec.ttl_seconds_after_finished)
    };
    assert_eq!([ttl(0), ttl(900), ttl(3600)], [Some(900), Some(900), Some(3600)]);
    assert_eq!(ttl(u64::MAX), Some(i32::MAX));

    let deadline = |timeout_seconds, grace_seconds| {
        let mut submission = submission();
        submission.spec.limits = Limits { timeout_seconds, grace_seconds, log_bytes: None };
        built(&submission).1["spec"]["activeDeadlineSeconds"].as_i64()
    };
    assert_eq!(deadline(None, Some(20)), None);
    assert_eq!(deadline(Some(600), Some(20)), Some(4280));
    assert_eq!(deadline(Some(600), None), Some(4290));
    assert_eq!(deadline(Some(u64::MAX), None), Some(i64::MAX));
}
