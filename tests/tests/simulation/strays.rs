//! What lives although its run has ended: submissions that land late, ends that a user wrote, objects cut off from
//! their owners. Each is found, confirmed by one read of the run and ended, and nothing else is touched.

use std::{sync::Arc, time::Duration};

use agents_tests::apimodel::{Fault, Outcome, Record, Rule, Verb, When, World};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
};
use serde_json::{Value, json};

use agents_kube::AgentRun;

use super::{
    play::{End, LIMIT, keep_running, named, simulate},
    workload::{
        HAPPY, RETRY, RUN, SECOND, Workload, apply_run, delete_run, job_name, named as workload_named, phase_seen,
    },
};

/// How long a stray may live once it is there: the wait for ordinary races, the pod's end and some room.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a run ends without an attempt while its submission is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cancelled,
    Deleted,
    Invalid,
    /// The run's time is over while it waits for its second attempt.
    OutOfTime,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Cancelled, Self::Deleted, Self::Invalid, Self::OutOfTime];

    fn world(self) -> Arc<World> {
        match self {
            Self::Cancelled | Self::Deleted | Self::Invalid => {
                let world = HAPPY.world(1);
                world.outcome(RUN, Outcome::Hang);
                world
            }
            Self::OutOfTime => {
                let world = RETRY.world(1);
                world.outcomes(RUN, vec![Outcome::Exit { code: 1, after: 5 * SECOND }, Outcome::Hang]);
                apply_run(&world, json!({"timeoutSeconds": 30, "retryPolicy": {"limit": 1, "backoffSeconds": 22}}));
                world
            }
        }
    }

    fn attempt(self) -> usize {
        if self == Self::OutOfTime { 2 } else { 1 }
    }

    async fn come(self, world: &World) {
        match self {
            Self::Cancelled => apply_run(world, json!({"cancel": true})),
            Self::Deleted => delete_run(world, &DeleteParams::background()).await,
            Self::Invalid => {
                world.apply(
                    "{apiVersion: agents.proompteng.ai/v1alpha1, kind: AgentProvider, metadata: {name: provider}, \
                     spec: {binary: sh, argsTemplate: ['{{ inputs.never }}']}}",
                );
            }
            Self::OutOfTime => tokio::time::sleep(20 * SECOND).await,
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Cancelled => "Cancelled",
            Self::Deleted => "",
            Self::Invalid | Self::OutOfTime => "Failed",
        }
    }
}

fn creates(world: &World, client: &str) -> Vec<Record> {
    let jobs = world.log().from(client).of("jobs");
    jobs.0.into_iter().filter(|record| record.verb == Verb::Create).collect()
}

async fn created_by(world: &World, client: &str, count: usize) {
    while creates(world, client).len() < count {
        tokio::time::sleep(SECOND / 10).await;
    }
}

/// What is wrong when the run has ended as `phase` says: it changed again, or something of it lives.
async fn faults_of(world: &World, phase: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !world.until(LIMIT, |world| world.phase(RUN) == phase).await {
        faults.push(format!("the run is {:?}", End::of(world)));
    }
    // Longer than anything that is still on its way.
    tokio::time::sleep(60 * SECOND + PATIENCE).await;
    let end = End::of(world);
    if !end.live_jobs.is_empty() {
        faults.push(format!("left behind: {:?}", end.live_jobs));
    }
    let live = |pod: &&Value| matches!(pod["status"]["phase"].as_str(), Some("Running" | "Pending") | None);
    let pods = world.objects("pods");
    faults.extend(pods.iter().filter(live).map(|pod| format!("left behind: {}", pod["metadata"]["name"])));
    if world.phase(RUN) != phase {
        faults.push(format!("the run is {end:?}"));
    }
    faults.extend(world.violations().iter().map(ToString::to_string));
    faults
}

/// A controller whose create is slow, and another that ends the run meanwhile.
#[test]
fn a_job_that_arrives_after_its_runs_end_is_ended() {
    let slow = [4, 9].map(Duration::from_secs);
    let cases: Vec<_> = Ending::ALL.iter().flat_map(|ending| slow.map(|slow| (*ending, slow))).collect();
    simulate(cases, async |(ending, slow)| {
        let world = ending.world();
        world.faults(|faults| {
            let create = When::effects().verb(Verb::Create).on("jobs").from("b");
            faults.rule(Rule::new(create, Fault::Delay(slow)).nth(ending.attempt()));
        });
        let b = keep_running(&world, "b", false);
        created_by(&world, "b", ending.attempt()).await;
        let a = if ending == Ending::OutOfTime {
            // The time is over before the create lands.
            None
        } else {
            ending.come(&world).await;
            Some(keep_running(&world, "a", false))
        };
        let faults = faults_of(&world, if ending == Ending::OutOfTime { "Failed" } else { ending.end() }).await;
        drop((a, b));
        world.stop_actors();
        named(|| format!("{ending:?}, {slow:?}"), &faults).into_iter().collect()
    });
}

/// A leader that is gone has left a create on its way, which lands long after the next one has ended the run.
#[test]
fn a_job_that_a_leader_of_the_past_had_on_its_way_is_ended() {
    simulate(vec![Ending::Cancelled, Ending::Deleted, Ending::Invalid], async |ending| {
        let world = ending.world();
        world.faults(|faults| {
            let create = When::effects().verb(Verb::Create).on("jobs").from("old");
            faults.rule(Rule::new(create.clone(), Fault::CommitLate(60 * SECOND)));
            faults.rule(Rule::new(create, Fault::Blackhole).nth(2).forever());
        });
        let old = keep_running(&world, "old", true);
        created_by(&world, "old", 1).await;
        drop(old);
        world.kill("old");
        ending.come(&world).await;
        let new = keep_running(&world, "new", true);
        let mut faults = faults_of(&world, ending.end()).await;
        if world.history().iter().all(|commit| commit.key.resource.plural != "jobs") {
            faults.push("the late create never landed".to_owned());
        }
        drop(new);
        world.stop_actors();
        named(|| format!("{ending:?}"), &faults).into_iter().collect()
    });
}

/// The same while nobody is there: the next controller finds it at its start.
#[tokio::test(start_paused = true)]
async fn what_lives_of_ended_runs_is_found_at_start() {
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Hang);
    let first = keep_running(&world, "first", false);
    phase_seen(&world, "Running").await;
    drop(first);
    world.kill("first");
    forge(&world, "Cancelled").await;
    let _second = keep_running(&world, "second", true);
    assert_eq!(faults_of(&world, "Cancelled").await, Vec::<String>::new());
    assert_eq!(world.log().from("second").of("agentruns").gets().len(), 1, "one read confirms it");
}

async fn forge(world: &World, phase: &str) {
    let runs: Api<AgentRun> = Api::default_namespaced(world.admin());
    let forged = json!({"status": {"phase": phase}});
    runs.patch_status(RUN, &PatchParams::default(), &Patch::Merge(&forged)).await.expect("users may have this right");
}

/// A user with the right to write statuses ends the run and not what it executes.
#[tokio::test(start_paused = true)]
async fn a_forged_end_leaves_nothing_alive() {
    for phase in ["Succeeded", "Failed", "Cancelled"] {
        for outcome in [Outcome::Hang, Outcome::IgnoreTerm] {
            let world = HAPPY.world(1);
            world.outcome(RUN, outcome);
            let _controller = keep_running(&world, "a", false);
            phase_seen(&world, "Running").await;
            let began = world.clock().boot();
            forge(&world, phase).await;
            assert_eq!(faults_of(&world, phase).await, Vec::<String>::new(), "{phase}");
            let reads = world.log().from("a").since(began).of("agentruns").gets();
            assert_eq!(reads.len(), 1, "one read confirms it: {reads:?}");
        }
    }
}

/// An attempt that is recorded as ended has a Job again: of two attempts only the present one lives.
#[tokio::test(start_paused = true)]
async fn a_former_attempts_job_is_ended_and_the_present_one_left_alone() {
    let world = RETRY.world(1);
    world.outcomes(RUN, vec![Outcome::Hang, Outcome::Hang]);
    apply_run(&world, json!({"retryPolicy": {"limit": 1, "backoffSeconds": 5}}));
    let _controller = keep_running(&world, "a", false);
    phase_seen(&world, "Running").await;
    let jobs: Api<Job> = Api::default_namespaced(world.admin());
    let first = job_name(&world, 1);
    let mut again = jobs.get(&first).await.expect("it is there");
    jobs.delete(&first, &DeleteParams::foreground().grace_period(0)).await.expect("it can be deleted");
    assert!(world.until(60 * SECOND, |world| world.object("jobs", &job_name(world, 2)).is_some()).await);
    again.metadata.uid = None;
    again.metadata.resource_version = None;
    again.metadata.creation_timestamp = None;
    again.metadata.deletion_timestamp = None;
    again.metadata.deletion_grace_period_seconds = None;
    again.metadata.finalizers = None;
    again.status = None;
    if let Some(spec) = &mut again.spec {
        spec.selector = None;
        if let Some(labels) = spec.template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
            labels.retain(|label, _| {
                label.starts_with("agents.proompteng.ai/") || label.starts_with("app.kubernetes.io/")
            });
        }
    }
    jobs.create(&Default::default(), &again).await.expect("a create of the past");
    tokio::time::sleep(PATIENCE).await;
    assert!(world.object("jobs", &first).is_none(), "the former attempt's is ended");
    let second = world.object("jobs", &job_name(&world, 2)).expect("the present one is there");
    assert!(second["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(world.phase(RUN), "Running");
}

/// A Job deleted without its pods, as `--cascade=orphan` does, leaves a pod that no Job's end ends.
#[tokio::test(start_paused = true)]
async fn a_pod_without_its_job_is_ended_with_its_run() {
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Hang);
    let _controller = keep_running(&world, "a", false);
    phase_seen(&world, "Running").await;
    let jobs: Api<Job> = Api::default_namespaced(world.admin());
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    jobs.delete(&job_name(&world, 1), &orphan).await.expect("it is there");
    assert_eq!(faults_of(&world, "Failed").await, Vec::<String>::new());
    let pods: Api<Pod> = Api::default_namespaced(world.admin());
    assert!(pods.list(&Default::default()).await.expect("a list").items.is_empty());
}

/// What others made is none of ours, whatever it is called.
#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_left_alone() {
    let world = HAPPY.world(1);
    let _controller = keep_running(&world, "a", false);
    phase_seen(&world, "Succeeded").await;
    let uid = world.object("agentruns", RUN).expect("it is there")["metadata"]["uid"].clone();
    let owner = |group: &str| json!([{"apiVersion": format!("{group}/v1alpha1"), "kind": "AgentRun", "name": RUN, "uid": uid, "controller": true}]);
    let job = |name: &str, owners: Value, labels: Value| {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
            "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "i"}]}}},
        })
    };
    let labels = |attempt: &str| json!({"app.kubernetes.io/managed-by": "agents", "agents.proompteng.ai/run-uid": uid, "agents.proompteng.ai/attempt": attempt});
    let strangers = [
        job("no-owner", json!([]), labels("8")),
        job("of-another-group", owner("evil.example"), labels("9")),
        job("under-another-name", owner("agents.proompteng.ai"), labels("7")),
    ];
    for stranger in &strangers {
        world.apply(&stranger.to_string());
    }
    tokio::time::sleep(PATIENCE).await;
    for stranger in &strangers {
        let name = stranger["metadata"]["name"].as_str().expect("it is named");
        let there = world.object("jobs", name).expect("it is left alone");
        assert!(there["metadata"]["deletionTimestamp"].is_null(), "{name}");
    }
}

/// Runs that end as runs do cost nothing: nobody asks about them.
#[test]
fn ordinary_ends_are_not_asked_about() {
    let ordinary = ["happy", "failed for good", "deleted", "cancelled before its start", "the image cannot be pulled"];
    simulate(ordinary.map(workload_named).to_vec(), async |workload: &Workload| {
        let mut faults = Vec::new();
        let world = workload.world(1);
        let controller = keep_running(&world, "a", true);
        workload.tell(&world).await;
        world.until_terminal(LIMIT).await;
        let ended = world.clock().boot();
        tokio::time::sleep(600 * SECOND).await;
        let reads = world.log().from("a").since(ended).of("agentruns").gets();
        faults.extend(reads.0.iter().map(|record| format!("{record:?}")));
        drop(controller);
        world.stop_actors();
        named(|| workload.name.to_owned(), &faults).into_iter().collect()
    });
}
