//! What a restart finds: each ambiguous state, and the record that decides it.

use std::{sync::Arc, time::Duration};

use agents_tests::apimodel::{Broken, CrashAt, Fault, Rule, Verb, When, World};
use kube::api::DeleteParams;
use serde_json::json;

use super::{
    play::{End, keep_running},
    workload::{
        HAPPY, RETRY, RUN, SECOND, Workload, accept, apply_references, apply_run, delete_job, job_name, named,
        phase_seen, reason_seen, refuse,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

async fn end(world: &Arc<World>) -> (String, String) {
    assert!(world.until_terminal(2 * HOUR).await, "stuck: {:?}", End::of(world));
    world.settle(2 * HOUR).await;
    let end = End::of(world);
    assert!(end.live_jobs.is_empty(), "left behind: {end:?}");
    (end.phase().to_owned(), end.reason().to_owned())
}

fn ended(phase: &str, reason: &str) -> (String, String) {
    (phase.to_owned(), reason.to_owned())
}

/// Lets a controller die at a write and stay dead.
async fn die(world: &Arc<World>, workload: &Workload, rule: Rule) {
    world.faults(|faults| faults.rule(rule));
    let controller = keep_running(world, "first", true);
    let story = tokio::spawn({
        let (world, workload) = (Arc::clone(world), *workload);
        async move { workload.tell(&world).await }
    });
    while world.faults(|faults| faults.struck()) == 0 {
        tokio::time::sleep(SECOND / 10).await;
    }
    drop(controller);
    world.kill("first");
    story.abort();
    world.faults(|faults| faults.clear());
}

fn crash(when: When, at: CrashAt) -> Rule {
    Rule::new(when, Fault::Crash(at))
}

#[tokio::test(start_paused = true)]
async fn pending_without_a_job_is_submitted_however_long_nobody_looked_within_the_jobs_time() {
    for at in [CrashAt::Before, CrashAt::Inside, CrashAt::After] {
        let world = HAPPY.world(1);
        die(&world, &HAPPY, crash(When::effects().verb(Verb::Create).on("jobs"), at)).await;
        tokio::time::sleep(20 * HOUR).await;
        let _second = keep_running(&world, "second", true);
        assert_eq!(end(&world).await, ended("Succeeded", "Completed"), "{at:?}");
        world.check();
        assert_eq!(End::of(&world).executions, [(1, 1)].into());
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_deleted_by_hand_before_its_start_was_stored_is_started_once_more() {
    let world = HAPPY.world(1);
    die(&world, &HAPPY, crash(When::effects().verb(Verb::Create).on("jobs"), CrashAt::Inside)).await;
    delete_job(&world, 1).await;
    tokio::time::sleep(10 * SECOND).await;
    let _second = keep_running(&world, "second", true);
    assert_eq!(end(&world).await, ended("Succeeded", "Completed"));
    let broken: Vec<_> = world.violations().into_iter().map(|violation| violation.broken).collect();
    assert!(matches!(broken.as_slice(), [Broken::SubmittedAgain(_)]), "the stated limit and no more: {broken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_downtime_longer_than_jobs_are_kept_counts_as_lost_and_younger_runs_start() {
    let world = HAPPY.world(1);
    die(&world, &HAPPY, crash(When::effects().verb(Verb::Create).on("jobs"), CrashAt::Inside)).await;
    tokio::time::sleep(HOUR).await;
    let spec = "spec: {agentRef: {name: agent}, implementationSpecRef: {name: work}}";
    world.apply(&format!(
        "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: younger}}\n{spec}\n"
    ));
    tokio::time::sleep(26 * HOUR).await;
    assert!(world.object("jobs", &job_name(&world, 1)).is_none(), "collected after its time");
    // One that leads and dies before it has judged takes nothing from the next one's knowledge.
    die(&world, &HAPPY, crash(When::effects(), CrashAt::Before)).await;
    tokio::time::sleep(60 * SECOND).await;
    let _third = keep_running(&world, "third", true);
    assert_eq!(end(&world).await, ended("Failed", "Lost"));
    assert_eq!(world.phase("younger"), "Succeeded");
    world.check();
    assert!(world.executions().values().all(|count| *count == 1), "{:?}", world.executions());
    assert_eq!(world.executions().len(), 2);
}

/// The same for each later attempt: the doubt is about the attempt under way, not about the run.
#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_nobody_recorded_is_lost_after_a_long_downtime_and_not_executed_again() {
    let created = || When::effects().verb(Verb::Create).on("jobs");
    // Also when one leads in between and can record nothing: what nobody judged stays in doubt.
    for led_between in [false, true] {
        let world = RETRY.world(1);
        die(&world, &RETRY, crash(created(), CrashAt::Inside).nth(2)).await;
        assert_eq!(attempts(&world), ["ProviderExited"], "attempt 2 is handed over and not recorded");
        if led_between {
            tokio::time::sleep(20 * HOUR).await;
            refuse(&world, When::any().on("agentruns").status(true), 503);
            refuse(&world, When::any().on("jobs").verb(Verb::Patch), 403);
            let between = keep_running(&world, "between", true);
            tokio::time::sleep(60 * SECOND).await;
            drop(between);
            world.kill("between");
            accept(&world);
            tokio::time::sleep(10 * HOUR).await;
        } else {
            tokio::time::sleep(27 * HOUR).await;
        }
        assert!(world.object("jobs", &job_name(&world, 2)).is_none(), "collected after its time");
        let _last = keep_running(&world, "last", true);
        assert_eq!(end(&world).await, ended("Succeeded", "Completed"), "{led_between}");
        assert_eq!(attempts(&world), ["ProviderExited", "Lost", "Completed"], "{led_between}");
        world.check();
        assert_eq!(End::of(&world).executions, [(1, 1), (2, 1), (3, 1)].into());
    }
}

/// An attempt that could not have been handed over before the last leader's end is in no doubt.
#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_was_not_due_before_a_long_downtime_is_started_after_it() {
    let world = RETRY.world(1);
    apply_run(&world, json!({"retryPolicy": {"limit": 1, "backoffSeconds": 3600}}));
    // Dies once the end of the first attempt is stored: its second status.
    die(&world, &RETRY, crash(When::effects().on("agentruns"), CrashAt::After).nth(2)).await;
    tokio::time::sleep(27 * HOUR).await;
    let _second = keep_running(&world, "second", true);
    assert_eq!(end(&world).await, ended("Succeeded", "Completed"));
    assert_eq!(attempts(&world), ["ProviderExited", "Completed"]);
    world.check();
}

/// How each recorded attempt ended.
fn attempts(world: &World) -> Vec<String> {
    let run = world.object("agentruns", RUN).expect("the run is there");
    let attempts = run["status"]["attempts"].as_array().into_iter().flatten();
    attempts.map(|attempt| attempt["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What ended before the last leader's end is collected before nobody has led for as long as that, where it could not be
/// kept either.
#[tokio::test(start_paused = true)]
async fn an_end_that_could_not_be_stored_counts_as_lost_once_its_job_is_collected() {
    let world = HAPPY.world(1);
    refuse(&world, When::any().on("agentruns").status(true), 503);
    refuse(&world, When::any().on("jobs").verb(Verb::Patch), 403);
    let first = keep_running(&world, "first", true);
    tokio::time::sleep(90 * SECOND).await;
    drop(first);
    world.kill("first");
    accept(&world);
    assert!(world.until(25 * HOUR, |world| world.objects("jobs").is_empty()).await);
    let _second = keep_running(&world, "second", true);
    assert_eq!(end(&world).await, ended("Failed", "Lost"));
    world.check();
}

/// Whatever a leader has dealt with is not in doubt for the next one.
#[tokio::test(start_paused = true)]
async fn a_run_made_under_a_recovered_leader_is_not_lost() {
    let world = HAPPY.world(1);
    die(&world, &HAPPY, crash(When::effects().verb(Verb::Create).on("jobs"), CrashAt::Inside)).await;
    tokio::time::sleep(26 * HOUR).await;
    let second = keep_running(&world, "second", true);
    assert_eq!(end(&world).await, ended("Failed", "Lost"));
    drop(second);
    world.kill("second");
    let spec = "spec: {agentRef: {name: agent}, implementationSpecRef: {name: work}}";
    world.apply(&format!(
        "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: later}}\n{spec}\n"
    ));
    tokio::time::sleep(60 * SECOND).await;
    let _third = keep_running(&world, "third", true);
    assert!(world.until(600 * SECOND, |world| world.phase("later") == "Succeeded").await);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_we_stopped_is_gone_for_the_stored_reason() {
    let cases = [("cancelled", "Cancelled", "Cancelled"), ("the image cannot be pulled", "Failed", "ImagePullFailed")];
    for (name, phase, reason) in cases {
        for at in [CrashAt::Before, CrashAt::Inside, CrashAt::After] {
            let workload = named(name);
            let world = workload.world(1);
            die(&world, workload, crash(When::effects().verb(Verb::Delete).on("jobs"), at)).await;
            if at != CrashAt::Before {
                assert!(world.until(60 * SECOND, |world| world.objects("jobs").is_empty()).await, "the job goes");
            }
            tokio::time::sleep(60 * SECOND).await;
            let _second = keep_running(&world, "second", true);
            assert_eq!(end(&world).await, ended(phase, reason), "{name} {at:?}");
            world.check();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unseen_report_is_read_once_before_anything_is_concluded() {
    let world = HAPPY.world(1);
    world.faults(|faults| faults.lag("pods", 100 * SECOND));
    let controller = keep_running(&world, "a", false);
    assert_eq!(end(&world).await, ended("Succeeded", "Completed"));
    let log = world.log();
    assert_eq!(log.of("jobs").gets().len(), 1, "one consistent read");
    drop(controller);

    // The pod went before anyone saw its end: its report is lost, and the run says so.
    let world = HAPPY.world(1);
    die(&world, &HAPPY, crash(When::effects().on("agentruns"), CrashAt::After)).await;
    let complete = |world: &World| {
        world
            .objects("jobs")
            .iter()
            .any(|job| job["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Complete"))
    };
    assert!(world.until(60 * SECOND, complete).await);
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(world.admin());
    pods.delete_collection(&DeleteParams::default().grace_period(0), &kube::api::ListParams::default())
        .await
        .expect("the pods go");
    assert!(world.until(60 * SECOND, |world| world.objects("pods").is_empty()).await);
    let _second = keep_running(&world, "second", false);
    assert_eq!(end(&world).await, ended("Failed", "ReportLost"));
    assert_eq!(world.log().from("second").of("jobs").gets().len(), 1, "one consistent read");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_next_attempt_counts_from_the_end_of_the_last() {
    for absent in [200, 2000] {
        let world = RETRY.world(1);
        apply_run(&world, json!({"retryPolicy": {"limit": 1, "backoffSeconds": 900}}));
        // Dies with the first attempt running; its end is seen by nobody.
        die(&world, &RETRY, crash(When::effects().on("agentruns"), CrashAt::After)).await;
        tokio::time::sleep(absent * SECOND).await;
        let back = world.clock().boot();
        let _second = keep_running(&world, "second", false);
        assert_eq!(end(&world).await, ended("Succeeded", "Completed"));
        let created: Vec<_> = world
            .history()
            .into_iter()
            .filter(|commit| commit.key.resource.plural == "jobs" && commit.previous.is_none())
            .map(|commit| commit.at)
            .collect();
        let [_, second] = created[..] else { panic!("two attempts: {created:?}") };
        // The first ended within 10 s of the world's beginning.
        let due = if absent < 900 { 900 * SECOND..=912 * SECOND } else { back..=back + 2 * SECOND };
        assert!(due.contains(&second), "{absent}: {second:?} not in {due:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_run_goes_on_by_itself_after_a_restart() {
    let workload = named("references come later");
    let world = workload.world(1);
    let first = keep_running(&world, "first", false);
    reason_seen(&world, "AgentNotFound").await;
    drop(first);
    world.kill("first");
    apply_references(&world, &["Agent", "AgentProvider"]);
    let _second = keep_running(&world, "second", false);
    reason_seen(&world, "ImplementationNotFound").await;
    apply_references(&world, &["ImplementationSpec"]);
    phase_seen(&world, "Succeeded").await;
    assert_eq!(world.phase(RUN), "Succeeded");
    world.check();
}
