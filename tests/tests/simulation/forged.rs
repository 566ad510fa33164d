//! Jobs that others made under a run's name: everything a run's Job says of itself can be read and copied, and none of it
//! is believed of a Job that executes something else.

use std::sync::Arc;

use agents_core::{
    plan::{CONTAINER, INSTALL_CONTAINER},
    report::{Ended, KEY_VARIABLE, Report, SCHEMA_VERSION},
};
use agents_kube::runtime::Fingerprint;
use agents_tests::apimodel::{Outcome, World};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    play::{keep_running, named, simulate},
    workload::{HAPPY, RETRY, RUN, SECOND, apply_run, delete_job, job_name, phase_seen, reason_seen},
};

const KEY: &str = "a-key-of-the-forger";

/// The Job that a controller makes for an attempt of the run: one seed is one world, so it is the same one here.
async fn original() -> Value {
    let world = HAPPY.world(1);
    let _controller = keep_running(&world, "a", false);
    assert!(world.until(60 * SECOND, |world| !world.objects("jobs").is_empty()).await);
    let mut job = world.object("jobs", &job_name(&world, 1)).expect("it is there");
    world.stop_actors();
    let meta = job["metadata"].as_object_mut().expect("it is an object");
    meta.retain(|field, _| matches!(field.as_str(), "name" | "labels" | "annotations" | "ownerReferences"));
    job["spec"].as_object_mut().expect("it is an object").remove("selector");
    let labels = job["spec"]["template"]["metadata"]["labels"].as_object_mut().expect("it is an object");
    labels.retain(|label, _| label.starts_with("agents.proompteng.ai/") || label.starts_with("app.kubernetes.io/"));
    job.as_object_mut().expect("it is an object").remove("status");
    job
}

fn agent(job: &mut Value) -> &mut Value {
    let containers = job["spec"]["template"]["spec"]["containers"].as_array_mut().expect("it has some");
    containers.iter_mut().find(|container| container["name"] == CONTAINER).expect("it has the agent's")
}

/// With a key that the forger knows.
fn rekeyed(mut job: Value) -> Value {
    let env = agent(&mut job)["env"].as_array_mut().expect("it has some");
    env.retain(|variable| variable["name"] != KEY_VARIABLE);
    env.push(json!({"name": KEY_VARIABLE, "value": KEY}));
    job
}

type Change = fn(&mut Value);

const FORGERIES: [(&str, Change); 6] = [
    ("a kind of that name in another group", |job| {
        job["metadata"]["ownerReferences"][0]["apiVersion"] = json!("evil.example/v1");
        agent(job)["image"] = json!("evil");
    }),
    ("another image", |job| agent(job)["image"] = json!("evil")),
    ("another image and its own fingerprint", |job| {
        agent(job)["image"] = json!("evil");
        let own = Fingerprint::of(&job["spec"]["template"]["spec"].to_string()).to_string();
        job["metadata"]["annotations"]["agents.proompteng.ai/pod-fingerprint"] = json!(own);
    }),
    ("another command", |job| agent(job)["command"] = json!(["sh", "-c", "evil"])),
    ("another account", |job| job["spec"]["template"]["spec"]["serviceAccountName"] = json!("evil")),
    ("another plan", |job| {
        job["metadata"]["annotations"]["agents.proompteng.ai/plan-digest"] = json!("sha256:other");
    }),
];

/// The report that a forger wants to be believed.
fn forged_report(world: &World, attempt: i32) -> Outcome {
    let run = world.object("agentruns", RUN).expect("it is there");
    let report = Report {
        schema_version: SCHEMA_VERSION.into(),
        status: Ended::Succeeded,
        provider: "evil".into(),
        run_uid: run["metadata"]["uid"].as_str().expect("a uid").into(),
        attempt,
        proof: KEY.into(),
        plan_digest: String::new(),
        reason: None,
        exit_code: Some(0),
        signal: None,
        started_at: None,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
        error: None,
        usage: None,
        vcs: None,
        conversation: None,
        outputs: vec![],
        truncated: false,
    };
    Outcome::Message { text: report.termination_message(), after: 5 * SECOND }
}

async fn create(world: &World, job: &Value) -> String {
    let job: Job = serde_json::from_value(job.clone()).expect("it is a Job");
    let jobs: Api<Job> = Api::default_namespaced(world.admin());
    let created = jobs.create(&PostParams::default(), &job).await.expect("whoever may create Jobs may create this one");
    created.metadata.uid.expect("it has one")
}

/// What is wrong beside a run that is blocked by somebody else's Job.
fn faults_of_conflict(world: &World, uid: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let run = world.object("agentruns", RUN).expect("it is there");
    let status = &run["status"];
    let said = [&status["phase"], &status["reason"], &status["blockedBy"][0]["reason"]];
    if said != [&json!("Pending"), &json!("Conflict"), &json!("Conflict")] {
        faults.push(format!("it says {said:?}"));
    }
    let message = status["message"].as_str().unwrap_or_default();
    if !message.contains(&job_name(world, 1)) {
        faults.push(format!("it names no Job: {message}"));
    }
    faults.extend(faults_of_stranger(world, uid, 1));
    faults
}

/// What is wrong when a Job that is not ours was touched.
fn faults_of_stranger(world: &World, uid: &str, attempt: i32) -> Vec<String> {
    let job = world.object("jobs", &job_name(world, attempt)).unwrap_or_default();
    let untouched = job["metadata"]["uid"] == uid && job["metadata"]["deletionTimestamp"].is_null();
    if untouched { vec![] } else { vec![format!("the stranger's job was touched: {}", job["metadata"])] }
}

#[test]
fn a_forged_job_is_neither_adopted_nor_believed_nor_touched() {
    // Before anybody looks, beside a controller that holds the run back, and under two controllers.
    let controllers: [&[&'static str]; 2] = [&["a"], &["a", "b"]];
    let cases: Vec<_> = FORGERIES.iter().flat_map(|forgery| controllers.map(|names| (*forgery, names))).collect();
    simulate(cases, async |((what, forge), names)| {
        let mut job = rekeyed(original().await);
        forge(&mut job);
        let world = HAPPY.world(1);
        world.outcome(RUN, forged_report(&world, 1));
        let uid = create(&world, &job).await;
        let controllers: Vec<_> = names.iter().map(|name| keep_running(&world, name, false)).collect();
        reason_seen(&world, "Conflict").await;
        tokio::time::sleep(120 * SECOND).await;
        let mut faults = faults_of_conflict(&world, &uid);
        // Its own name is free again, and the run goes on by itself.
        world.outcome(RUN, Outcome::default());
        delete_job(&world, 1).await;
        phase_seen(&world, "Succeeded").await;
        if world.phase(RUN) != "Succeeded" {
            faults.push(format!("it does not go on: {}", world.object("agentruns", RUN).unwrap_or_default()["status"]));
        }
        drop(controllers);
        world.stop_actors();
        named(|| format!("{what}, {names:?}"), &faults).into_iter().collect()
    });
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_forged_job_blocks_can_be_cancelled_and_the_job_stays() {
    let mut job = rekeyed(original().await);
    agent(&mut job)["image"] = json!("evil");
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Hang);
    let uid = create(&world, &job).await;
    let _controller = keep_running(&world, "a", false);
    reason_seen(&world, "Conflict").await;
    apply_run(&world, json!({"cancel": true}));
    phase_seen(&world, "Cancelled").await;
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(world.phase(RUN), "Cancelled");
    assert_eq!(faults_of_stranger(&world, &uid, 1), Vec::<String>::new());
}

/// The names of attempts to come are known as soon as the run is.
#[tokio::test(start_paused = true)]
async fn a_job_forged_for_the_next_attempt_is_a_conflict_when_its_turn_comes() {
    let mut job = rekeyed(original().await);
    agent(&mut job)["image"] = json!("evil");
    let world = RETRY.world(1);
    let first = Outcome::Exit { code: 1, after: 5 * SECOND };
    world.outcomes(RUN, vec![first, forged_report(&world, 2)]);
    job["metadata"]["name"] = json!(job_name(&world, 2));
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        job.pointer_mut(labels).expect("it has some")["agents.proompteng.ai/attempt"] = json!("2");
    }
    let uid = create(&world, &job).await;
    let _controller = keep_running(&world, "a", false);
    reason_seen(&world, "Conflict").await;
    tokio::time::sleep(120 * SECOND).await;
    assert_eq!(world.object("agentruns", RUN).expect("it is there")["status"]["reason"], "Conflict");
    assert_eq!(faults_of_stranger(&world, &uid, 2), Vec::<String>::new());
}

/// Of an attempt that is recorded only the recorded Job counts, whatever stands in its place.
#[tokio::test(start_paused = true)]
async fn a_job_in_the_place_of_a_recorded_one_is_not_believed() {
    let mut job = rekeyed(original().await);
    agent(&mut job)["image"] = json!("evil");
    let world: Arc<World> = HAPPY.world(1);
    world.outcome(RUN, Outcome::Hang);
    let controller = keep_running(&world, "a", false);
    phase_seen(&world, "Running").await;
    drop(controller);
    world.kill("a");
    let jobs: Api<Job> = Api::default_namespaced(world.admin());
    let name = job_name(&world, 1);
    jobs.delete(&name, &DeleteParams::foreground().grace_period(0)).await.expect("it is there");
    assert!(world.until(60 * SECOND, |world| world.object("jobs", &name).is_none()).await);
    world.outcome(RUN, forged_report(&world, 1));
    let uid = create(&world, &job).await;
    let _next = keep_running(&world, "b", false);
    reason_seen(&world, "Lost").await;
    tokio::time::sleep(120 * SECOND).await;
    let run = world.object("agentruns", RUN).expect("it is there");
    assert_eq!((&run["status"]["phase"], &run["status"]["reason"]), (&json!("Failed"), &json!("Lost")));
    assert_eq!(faults_of_stranger(&world, &uid, 1), Vec::<String>::new());
}

/// A pod that was created as it should be executes something else when its image is changed before it starts; while it
/// runs the kubelet starts the other image in its place.
#[test]
fn a_pod_whose_image_is_changed_is_not_believed_and_not_repeated() {
    let images = [("the agent's", "containers", CONTAINER), ("the runner's", "initContainers", INSTALL_CONTAINER)];
    let cases: Vec<_> = images.iter().flat_map(|image| ["Pending", "Running"].map(|phase| (*image, phase))).collect();
    simulate(cases, async |((which, field, container), phase)| {
        let world = RETRY.world(1);
        world.outcomes(RUN, vec![Outcome::Message { text: String::new(), after: 60 * SECOND }, Outcome::default()]);
        let _controller = keep_running(&world, "a", false);
        let pod_in = |world: &World| {
            let pods = world.objects("pods");
            pods.into_iter().find(|pod| pod["status"]["phase"].as_str().unwrap_or("Pending") == phase)
        };
        assert!(world.until(60 * SECOND, |world| pod_in(world).is_some()).await);
        // A controller sees every pod before anybody else can act on it, but not at the same moment.
        tokio::time::sleep(SECOND / 10).await;
        let pod = pod_in(&world).expect("it is there");
        let pods: Api<Pod> = Api::default_namespaced(world.admin());
        let mut changed = pod["spec"][field].clone();
        for each in changed.as_array_mut().expect("it has some") {
            if each["name"] == container {
                each["image"] = json!("evil");
            }
        }
        let patch = Patch::Merge(json!({"spec": {field: changed}}));
        let name = pod["metadata"]["name"].as_str().expect("it has one");
        pods.patch(name, &PatchParams::default(), &patch).await.expect("an image can be changed");
        phase_seen(&world, "Failed").await;
        let run = world.object("agentruns", RUN).expect("it is there");
        let mut faults = Vec::new();
        if run["status"]["phase"] != "Failed" || run["status"]["reason"] != "PodChanged" {
            faults.push(format!("{}", run["status"]));
        }
        let message = run["status"]["message"].as_str().unwrap_or_default();
        if !message.contains("evil") {
            faults.push(format!("it does not name the image: {message}"));
        }
        tokio::time::sleep(300 * SECOND).await;
        let jobs = world.objects("jobs").len();
        if jobs > 1 {
            faults.push("it was tried again".to_owned());
        }
        world.stop_actors();
        named(|| format!("{which}, {phase}"), &faults).into_iter().collect()
    });
}

/// Clusters rewrite the images of pods as they are created, to a mirror of theirs: nobody has changed such a pod.
#[tokio::test(start_paused = true)]
async fn a_pod_that_was_created_with_another_image_is_believed() {
    let world = HAPPY.world(1);
    world.configure(|settings| settings.mirror = "mirror.example/");
    let _controller = keep_running(&world, "a", false);
    phase_seen(&world, "Succeeded").await;
    let pod = world.objects("pods").pop().expect("it is there");
    assert!(pod["spec"]["containers"].to_string().contains("mirror.example/"), "{pod}");
}
