//! A controller is replaced while an attempt is handed over and not yet recorded: the next one finds the Job by its name
//! alone, and would make another one of the same plan itself.

use std::sync::Arc;

use agents_tests::apimodel::{Outcome, Verb, When, World};
use kube::api::DeleteParams;
use serde_json::json;

use super::{
    play::{End, keep_version_running, named, simulate},
    workload::{HAPPY, RUN, SECOND, apply_run, delete_run, phase_seen, reason_seen},
};

/// A world whose controller of version 1 has died right after it made a Job.
async fn handed_over(lease: bool, mirror: &'static str) -> Arc<World> {
    let world = HAPPY.world(1);
    world.rewrite_jobs(mirror);
    let first = keep_version_running(&world, "a", lease, 1);
    assert!(world.until(60 * SECOND, |world| !world.objects("jobs").is_empty()).await);
    drop(first);
    world.kill("a");
    assert!(world.object("agentruns", RUN).expect("it is there")["status"]["attempts"].is_null(), "it is not recorded");
    world
}

#[test]
fn an_attempt_handed_over_by_another_version_or_rewritten_on_the_way_is_followed_and_not_repeated() {
    let cases = vec![
        ("the same", true, "", 1),
        ("another version", true, "", 2),
        ("rewritten by admission", true, "mirror.example/", 1),
        ("both", true, "mirror.example/", 2),
        ("rewritten, without a lease", false, "mirror.example/", 1),
    ];
    simulate(cases, async |(what, lease, mirror, version)| {
        let world = handed_over(lease, mirror).await;
        let _next = keep_version_running(&world, "b", lease, version);
        phase_seen(&world, "Succeeded").await;
        let mut faults = Vec::new();
        let status = world.object("agentruns", RUN).expect("it is there")["status"].clone();
        if status["phase"] != "Succeeded" || status["attempts"].as_array().map(Vec::len) != Some(1) {
            faults.push(format!("it is {status}"));
        }
        let end = End::of(&world);
        if end.executions.values().copied().collect::<Vec<_>>() != [1] {
            faults.push(format!("it ran {:?}", end.executions));
        }
        let conflicts = world.objects("events").iter().filter(|event| event["reason"] == "Conflict").count();
        if conflicts > 0 {
            faults.push("a conflict was told".to_owned());
        }
        world.stop_actors();
        named(|| what.to_owned(), &faults).into_iter().collect()
    });
}

/// A webhook that is away, or does not answer what is only tried: nothing is started, ended or given up beside a Job that
/// may be the attempt.
#[test]
fn a_job_that_may_be_the_attempt_is_waited_for() {
    let wishes = vec![json!({}), json!({"suspend": true}), json!({"cancel": true})];
    simulate(wishes, async |wish| {
        let world = handed_over(true, "mirror.example/").await;
        let tried = When::effects().verb(Verb::Create).on("jobs").from("b");
        world.configure(|settings| settings.denied.push((tried, 403)));
        apply_run(&world, wish.clone());
        let _next = keep_version_running(&world, "b", true, 2);
        let mut faults = Vec::new();
        reason_seen(&world, "Conflict").await;
        tokio::time::sleep(120 * SECOND).await;
        let status = world.object("agentruns", RUN).expect("it is there")["status"].clone();
        if status["phase"] != "Pending" || status["reason"] != "Conflict" {
            faults.push(format!("in doubt it is {status}"));
        }
        let asked = world.log().from("b").of("jobs").writes().len();
        if asked > 8 {
            faults.push(format!("it was asked {asked} times in two minutes"));
        }
        world.configure(|settings| settings.denied.clear());
        phase_seen(&world, "Succeeded").await;
        let status = world.object("agentruns", RUN).expect("it is there")["status"].clone();
        let jobs = world.objects("jobs").len();
        if status["phase"] != "Succeeded" || status["attempts"].as_array().map(Vec::len) != Some(1) || jobs != 1 {
            faults.push(format!("{jobs} jobs, and it is {status}"));
        }
        world.stop_actors();
        named(|| wish.to_string(), &faults).into_iter().collect()
    });
}

/// What admission has rewritten is as much ours as what it has not.
#[tokio::test(start_paused = true)]
async fn a_rewritten_job_that_no_run_wants_any_more_is_ended() {
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Hang);
    world.rewrite_jobs("mirror.example/");
    let first = keep_version_running(&world, "a", true, 1);
    phase_seen(&world, "Running").await;
    drop(first);
    world.kill("a");
    world.configure(|settings| settings.garbage = false);
    delete_run(&world, &DeleteParams::default()).await;
    let _next = keep_version_running(&world, "b", true, 2);
    let ends = |world: &World| world.objects("jobs").iter().all(|job| !job["metadata"]["deletionTimestamp"].is_null());
    assert!(world.until(600 * SECOND, ends).await, "it lives");
}
