//! Each fixture is a Job and its pods as the API server shows them; the table says what they mean.

use std::{collections::BTreeSet, fs, path::Path};

use serde::Deserialize;

use super::*;

const RUN: &str = "5d0c6c0e-3b0e-4f7e-9a53-7f2f8f6f1a01";

#[derive(Deserialize)]
struct Fixture {
    job: JobView,
    pods: Vec<PodView>,
}

/// In one line: what, times of the day, reason in brackets with its message.
fn describe(observation: &Observation) -> String {
    let time = |time: &jiff::Timestamp| time.strftime("%T").to_string();
    let uid = |uid: &Option<String>| assert_eq!(uid.as_deref(), Some("0b8a2f7c-6a55-4a0e-8f0b-1f6c9d2e4b11"));
    match observation {
        Observation::Lost => "lost".to_owned(),
        Observation::Stopping => "stopping".to_owned(),
        Observation::Pending { submitted_at, uid: of, cause } => {
            uid(of);
            let cause = cause
                .as_ref()
                .map(|Hindrance { reason, message, since }| format!(" [{reason}] since {}: {message}", time(since)));
            format!("pending since {}{}", time(submitted_at), cause.unwrap_or_default())
        }
        Observation::Running { submitted_at, started_at, uid: of } => {
            uid(of);
            format!("running, submitted {}, started {}", time(submitted_at), time(started_at))
        }
        Observation::Finished(finish) => {
            let Finish { submitted_at, started_at, finished_at, uid: of, exit_code, cause, report } = finish.as_ref();
            uid(of);
            assert_eq!(submitted_at.as_ref().map(time).as_deref(), Some("10:00:00"));
            let line = match started_at {
                Some(started_at) => format!("finished {}..{}", time(started_at), time(finished_at)),
                None => format!("finished ..{}", time(finished_at)),
            };
            let exit_code = exit_code.map(|exit_code| format!("exit {exit_code}"));
            let report = report.as_ref().map(|report| format!("reports {:?}", report.status));
            let cause = cause.as_ref().map(|(reason, message)| format!("[{reason}] {message}"));
            let parts: Vec<String> = [Some(line), exit_code, report, cause].into_iter().flatten().collect();
            parts.join(", ")
        }
    }
}

const NOT_FOUND: &str = "rpc error: code = NotFound desc = failed to pull and unpack image";
const STAT: &str = "stat /usr/local/bin/agent-runner: no such file or directory";

#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, String)> {
    let rows: Vec<(&str, String)> = vec![
        // Not started.
        ("no-pod-yet", "pending since 10:00:00".into()),
        ("init-running", "pending since 10:00:00".into()),
        ("pod-of-another-job", "pending since 10:00:00".into()),
        ("scheduling-gated", "pending since 10:00:00".into()),
        (
            "init-image-pull-backoff",
            format!(
                "pending since 10:00:00 [ImagePullFailed] since 10:00:01: init container install-runner: {NOT_FOUND} \"example.test/agents:1\": not found"
            ),
        ),
        // The try and the wait for the next one read the same.
        (
            "image-pull-error",
            format!("pending since 10:00:00 [ImagePullFailed] since 10:00:05: {NOT_FOUND} \"example.test/agent:1\": not found"),
        ),
        (
            "image-pull-backoff",
            format!("pending since 10:00:00 [ImagePullFailed] since 10:00:05: {NOT_FOUND} \"example.test/agent:1\": not found"),
        ),
        (
            "image-name-invalid",
            "pending since 10:00:00 [ImagePullFailed] since 10:00:05: Failed to apply default image tag \"UPPER/case\": couldn't parse image name \"UPPER/case\": invalid reference format".into(),
        ),
        (
            "secret-missing",
            "pending since 10:00:00 [SecretMissing] since 10:00:05: secret \"codex-key\" not found".into(),
        ),
        (
            "secret-key-missing",
            "pending since 10:00:00 [SecretMissing] since 10:00:05: couldn't find key token in Secret team-a/codex-key".into(),
        ),
        (
            "image-runs-as-root",
            "pending since 10:00:00 [StartFailed] since 10:00:05: container has runAsNonRoot and image will run as root".into(),
        ),
        (
            "container-not-created",
            "pending since 10:00:00 [StartFailed] since 10:00:05: failed to generate container spec: failed to stat \"/var/lib/kubelet/x\": no such file or directory".into(),
        ),
        (
            "unschedulable",
            "pending since 10:00:00 [Unschedulable] since 10:00:02: 0/3 nodes are available: 3 Insufficient memory.".into(),
        ),
        // An init container may be an injected one that restarts: only the phase is believed.
        ("init-failed-phase-unknown", "pending since 10:00:00".into()),
        // Running: since the agent's own start, not the init container's.
        ("running", "running, submitted 10:00:00, started 10:00:06".into()),
        ("second-pod-lives", "running, submitted 10:00:00, started 10:00:06".into()),
        ("complete-pod-behind", "running, submitted 10:00:00, started 10:00:06".into()),
        ("deadline-while-ending", "running, submitted 10:00:00, started 10:00:06".into()),
        // Finished by the runner's own account.
        ("succeeded", "finished 10:00:06..10:03:00, exit 0, reports Succeeded".into()),
        ("ended-before-the-job-says-so", "finished 10:00:06..10:03:00, exit 0, reports Succeeded".into()),
        ("child-out-of-memory-but-succeeded", "finished 10:00:06..10:03:00, exit 0, reports Succeeded".into()),
        ("drained-after-success", "finished 10:00:06..10:03:00, exit 0, reports Succeeded".into()),
        ("exit-3", "finished 10:00:06..10:03:00, exit 3, reports Failed".into()),
        ("deleting-with-ended-pod", "finished 10:00:06..10:03:00, exit 143, reports Cancelled".into()),
        // Reports that are not this attempt's, or not whole.
        ("report-of-another-run", "finished 10:00:06..10:03:00, exit 1".into()),
        ("report-of-another-attempt", "finished 10:00:06..10:03:00, exit 1".into()),
        ("report-of-another-schema", "finished 10:00:06..10:03:00, exit 1".into()),
        ("report-cut", "finished 10:00:06..10:03:00, exit 0".into()),
        (
            "started-again",
            "finished 10:00:06..10:03:00, exit 0, [PodChanged] pod nightly-review-bcdfghjklmnp-x7k2p is not what was submitted: its container was started 2 times; what it reports is not believed".into(),
        ),
        // Ended from outside.
        (
            "out-of-memory",
            "finished 10:00:06..10:03:00, exit 137, [OutOfMemory] the container was killed for using more memory than its limit".into(),
        ),
        (
            "out-of-memory-with-report",
            "finished 10:00:06..10:03:00, exit 137, reports Failed, [OutOfMemory] the container was killed for using more memory than its limit".into(),
        ),
        (
            "evicted-by-the-kubelet",
            "finished 10:00:06..10:03:00, exit 143, reports Cancelled, [Evicted] Evicted: The node was low on resource: memory. Threshold quantity: 100Mi, available: 88Mi.".into(),
        ),
        (
            "evicted-before-start",
            "finished ..10:00:01, [Evicted] Evicted: Pod The node had condition: [DiskPressure].".into(),
        ),
        (
            "drained",
            "finished 10:00:06..10:03:00, exit 143, reports Cancelled, [Evicted] EvictionByEvictionAPI: Eviction API: evicting".into(),
        ),
        (
            "node-gone",
            "finished 10:00:06..10:20:00, [Evicted] DeletionByPodGC: PodGC: node no longer exists".into(),
        ),
        (
            "deadline-ended",
            "finished 10:00:06..10:03:00, exit 143, reports Cancelled, [DeadlineExceeded] Job was active longer than specified deadline".into(),
        ),
        (
            "deadline-before-the-job-says-so",
            "finished 10:00:06..10:03:00, exit 143, reports Cancelled, [DeadlineExceeded] Job was active longer than specified deadline".into(),
        ),
        ("deleted-before-the-deadline", "finished 10:00:06..10:03:00, exit 143, reports Cancelled".into()),
        (
            "deadline-no-pod",
            "finished ..10:03:05, [DeadlineExceeded] Job was active longer than specified deadline".into(),
        ),
        (
            "init-failed",
            "finished ..10:00:04, [StartFailed] init container install-runner exited 70 (Error): disk full".into(),
        ),
        (
            "not-startable",
            format!("finished ..10:00:07, [StartFailed] failed to create containerd task: exec: \"/usr/local/bin/agent-runner\": {STAT}"),
        ),
        (
            "container-lost",
            "finished ..10:00:05, [Lost] The container could not be located when the pod was terminated".into(),
        ),
        ("complete-pod-unseen", "finished ..10:03:02".into()),
        // Torn down, or not ours.
        ("deleting-with-live-pod", "stopping".into()),
        ("deleting-no-pod", "stopping".into()),
        ("deadline-pod-removed-first", "stopping".into()),
        ("foreign", "lost".into()),
    ];
    rows
}

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime/fixtures")
}

fn read(name: &str) -> Fixture {
    let text = fs::read_to_string(fixtures().join(name).with_extension("yaml")).expect(name);
    serde_saphyr::from_str(&text).expect(name)
}

#[test]
fn every_state_of_a_job_and_its_pods_has_its_meaning() {
    let mut wrong = vec![];
    for (name, expected) in table() {
        let Fixture { job, pods } = read(name);
        let found = describe(&observe(RUN, None, Some(&job), &pods));
        if found != expected {
            wrong.push(format!("{name}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_fixture_stands_in_the_table() {
    let on_disk: BTreeSet<String> = fs::read_dir(fixtures())
        .expect("the folder is there")
        .map(|entry| entry.expect("it is readable").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    let in_table: BTreeSet<String> = table().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(on_disk, in_table);
}

#[test]
fn no_job_and_the_job_of_another_run_are_lost() {
    assert_eq!(observe(RUN, None, None, &[]), Observation::Lost);
    let Fixture { job, pods } = read("running");
    assert_eq!(observe("another", None, Some(&job), &pods), Observation::Lost);
}

#[test]
fn another_job_of_the_name_says_nothing_once_the_uid_is_known() {
    let Fixture { job, pods } = read("running");
    let known = observe(RUN, Some(&job.uid), Some(&job), &pods);
    assert_eq!(known, observe(RUN, None, Some(&job), &pods));
    assert_eq!(observe(RUN, Some("another"), Some(&job), &pods), Observation::Lost);
}

/// Whoever can write a pod's status, or its termination message, can write every public word of a report.
#[test]
fn a_report_without_the_key_of_its_job_is_none() {
    let Fixture { job, pods } = read("succeeded");
    let reported = |key: Option<&str>, plan: Option<&str>, proof: &str, digest: &str| {
        let (mut job, mut pods) = (job.clone(), pods.clone());
        job.marks.report_key = key.map(Into::into);
        job.marks.plan = plan.map(Into::into);
        let ContainerState::Terminated(end) = &mut pods[0].agent else { panic!("it has ended") };
        let mut report: Report = serde_json::from_str(&end.message).expect("it is a report");
        report.proof = proof.into();
        report.plan_digest = digest.into();
        end.message = report.termination_message();
        match observe(RUN, None, Some(&job), &pods) {
            Observation::Finished(finish) => finish.report.is_some(),
            other => panic!("it has ended: {other:?}"),
        }
    };
    assert!(reported(Some("k"), Some("d"), "k", "d"));
    assert!(reported(Some("k"), Some("d"), "k", ""), "a runner that could verify nothing");
    assert!(reported(None, None, "", "d"), "a Job of a controller that gave no key");
    for forged in [("", "d"), ("j", "d"), ("kk", "d"), ("k", "other")] {
        assert!(!reported(Some("k"), Some("d"), forged.0, forged.1), "{forged:?}");
    }
}

#[test]
fn the_order_of_pods_does_not_matter() {
    let Fixture { job, mut pods } = read("second-pod-lives");
    let before = observe(RUN, None, Some(&job), &pods);
    pods.reverse();
    assert_eq!(observe(RUN, None, Some(&job), &pods), before);
}

#[test]
fn a_message_of_any_length_is_bounded() {
    let Fixture { job, mut pods } = read("image-pull-error");
    for pod in &mut pods {
        pod.agent = ContainerState::Waiting { reason: "ErrImagePull".into(), message: "é".repeat(100_000) };
    }
    let Observation::Pending { cause: Some(cause), .. } = observe(RUN, None, Some(&job), &pods) else {
        panic!("the image cannot be pulled");
    };
    assert!(cause.message.len() <= MAX_MESSAGE && cause.message.ends_with('…'));
}

#[test]
fn the_end_of_a_pod_is_due_once_its_deletion_was_asked_for_and_for_as_long_as_it_lives() {
    let job: JobView = serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "ns", "name": "j", "uid": "job-1", "creationTimestamp": "2026-01-05T10:00:00Z"},
    }))
    .unwrap();
    let pod = |deleted: Option<&str>, node: Option<&str>, phase: &str| -> PodView {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "namespace": "ns", "name": "p", "uid": "pod-1", "creationTimestamp": "2026-01-05T10:00:00Z",
                "deletionTimestamp": deleted, "deletionGracePeriodSeconds": 30,
                "ownerReferences": [{"kind": "Job", "name": "j", "uid": "job-1", "controller": true}],
            },
            "spec": {"nodeName": node},
            "status": {
                "phase": phase,
                "containerStatuses": [{"name": "agent", "state": {"running": {"startedAt": "2026-01-05T10:00:05Z"}}}],
            },
        }))
        .unwrap()
    };
    let (due, node) = (Some("2026-01-05T10:20:30Z"), Some("worker-3"));
    let late = Overdue { since: "2026-01-05T10:20:30Z".parse().unwrap(), node: "worker-3".to_owned() };
    assert_eq!(overdue(&job, [&pod(due, node, "Running")]), Some(late));
    for other in [pod(None, node, "Running"), pod(due, None, "Pending"), pod(due, node, "Failed")] {
        assert_eq!(overdue(&job, [&other]), None, "{other:?}");
    }
    assert_eq!(overdue(&job, []), None);
}
