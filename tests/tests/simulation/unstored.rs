//! Statuses that are refused for longer than Jobs are kept: whatever refuses them, and however often the controller is
//! started anew, no attempt is executed twice.

use std::{sync::Arc, time::Duration};

use agents_tests::apimodel::{Supervised, Verb, When, World};
use serde_json::{Value, json};

use super::{
    play::{End, keep_running_briefly as keep_running, named, simulate},
    workload::{BARE, HAPPY, RETRY, RUN, SECOND, accept, apply_references, apply_run, job_finished, refuse},
};

const HOUR: Duration = Duration::from_secs(3600);
/// Twice as long as a finished Job is kept here.
const LONG: Duration = Duration::from_secs(2 * 900);

/// A right that was removed, a policy, a definition of another version, a store that is full.
const REFUSALS: [u16; 6] = [400, 403, 413, 422, 500, 503];

fn statuses() -> When {
    When::any().on("agentruns").status(true)
}

fn job_changes() -> When {
    When::any().on("jobs").verb(Verb::Patch)
}

/// How the controller lives while statuses are refused.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    /// One process, all the time.
    One,
    /// A new process every few minutes.
    Restarted,
    /// Nobody for longer than Jobs are kept, after one that saw the refusal.
    Away,
}

/// Plays a time in which no status is stored, and in which Jobs would be collected.
async fn refused(world: &Arc<World>, life: Life, lease: bool) -> Option<Supervised> {
    let controller = || keep_running(world, "a", lease);
    let ended = |world: &World| !world.objects("jobs").is_empty() && world.objects("jobs").iter().all(job_finished);
    match life {
        Life::One => {
            let controller = controller();
            tokio::time::sleep(LONG).await;
            Some(controller)
        }
        Life::Restarted => {
            let controller = controller();
            for _ in 0..8 {
                tokio::time::sleep(LONG / 8).await;
                world.kill("a");
            }
            Some(controller)
        }
        Life::Away => {
            let controller = controller();
            world.until(HOUR, ended).await;
            tokio::time::sleep(60 * SECOND).await;
            drop(controller);
            world.kill("a");
            tokio::time::sleep(LONG).await;
            None
        }
    }
}

async fn end(world: &Arc<World>, controller: Option<Supervised>, lease: bool) -> (End, Vec<String>) {
    let _controller = controller.unwrap_or_else(|| keep_running(world, "a", lease));
    let mut faults = vec![];
    if !world.until_terminal(2 * HOUR).await {
        faults.push("stuck".to_owned());
    }
    world.settle(HOUR).await;
    faults.extend(world.violations().iter().map(ToString::to_string));
    let end = End::of(world);
    if end.executions.values().any(|count| *count != 1) {
        faults.push(format!("executions: {:?}", end.executions));
    }
    (end, faults)
}

/// What executed the attempt is kept as its record, and let go once the status says what became of it.
#[test]
fn an_attempt_whose_status_is_refused_is_kept_and_told_when_it_can_be() {
    let mut cases = vec![];
    for code in REFUSALS {
        for life in [Life::One, Life::Restarted, Life::Away] {
            cases.push((code, life, HAPPY, false));
            if matches!(code, 403 | 500) {
                cases.push((code, life, RETRY, true));
            }
        }
    }
    simulate(cases, async |(code, life, workload, lease)| {
        let world = workload.world(1);
        refuse(&world, statuses(), code);
        let controller = refused(&world, life, lease).await;
        let jobs = world.objects("jobs");
        let kept = |job: &Value| job["metadata"]["annotations"]["agents.proompteng.ai/kept"].is_string();
        let mut faults = vec![];
        if jobs.len() != 1 || !jobs.iter().all(kept) {
            faults.push(format!("not kept: {jobs:#?}"));
        }
        accept(&world);
        let (end, found) = end(&world, controller, lease).await;
        faults.extend(found);
        if (end.phase(), end.reason()) != ("Succeeded", "Completed") {
            faults.push(format!("{end:#?}"));
        }
        // One that is told goes after its time again.
        tokio::time::sleep(LONG).await;
        if !world.objects("jobs").is_empty() {
            faults.push("its Job stays".to_owned());
        }
        world.stop_actors();
        named(|| format!("{code} {life:?} {} {lease}", workload.name), &faults).into_iter().collect()
    });
}

/// The Job cannot be let go when the status is stored at last: it is later, by the same process and by the next one.
#[test]
fn a_record_that_could_not_be_let_go_at_once_is_later() {
    let mut cases = vec![];
    for workload in [HAPPY, RETRY] {
        cases.extend([false, true].map(|restarted| (workload, restarted)));
    }
    simulate(cases, async |(workload, restarted)| {
        let world = workload.world(1);
        refuse(&world, statuses(), 403);
        let controller = keep_running(&world, "a", false);
        world.until(HOUR, is_kept).await;
        accept(&world);
        refuse(&world, job_changes(), 503);
        let mut faults = vec![];
        if !world.until_terminal(2 * HOUR).await || !is_kept(&world) {
            faults.push(format!("another story: {:#?}", End::of(&world)));
        }
        tokio::time::sleep(600 * SECOND).await;
        if restarted {
            world.kill("a");
        }
        accept(&world);
        let accepted = world.clock().boot();
        tokio::time::sleep(LONG).await;
        faults.extend(world.objects("jobs").iter().map(|job| format!("its Job stays: {}", job["metadata"])));
        faults.extend(world.violations().iter().map(ToString::to_string));
        let reads = world.log().from("a").since(accepted).of("agentruns").gets().len();
        if reads > 1 {
            faults.push(format!("{reads} reads confirm it"));
        }
        drop(controller);
        world.stop_actors();
        named(|| format!("{} restarted: {restarted}", workload.name), &faults).into_iter().collect()
    });
}

/// One that is let go at once costs no read of its run.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_let_go_at_once_is_not_asked_about() {
    let world = HAPPY.world(1);
    refuse(&world, statuses(), 403);
    let _controller = keep_running(&world, "a", false);
    assert!(world.until(HOUR, is_kept).await);
    accept(&world);
    assert!(world.until_terminal(HOUR).await);
    let ended = world.clock().boot();
    tokio::time::sleep(600 * SECOND).await;
    assert!(!is_kept(&world));
    let reads = world.log().from("a").since(ended).of("agentruns").gets();
    assert!(reads.is_empty(), "{reads:?}");
}

fn is_kept(world: &World) -> bool {
    let kept = |job: &Value| job["metadata"]["annotations"]["agents.proompteng.ai/kept"].is_string();
    world.objects("jobs").iter().any(|job| job_finished(job) && kept(job))
}

/// Where the Job cannot be kept either, the process that handed the attempt over knows that it did, and the lease knows
/// how long nobody did.
#[test]
fn an_attempt_that_cannot_be_kept_is_lost_and_not_executed_again() {
    let cases: Vec<_> = REFUSALS.into_iter().flat_map(|code| [(code, Life::One), (code, Life::Away)]).collect();
    simulate(cases, async |(code, life)| {
        let world = HAPPY.world(1);
        refuse(&world, statuses(), code);
        refuse(&world, job_changes(), 403);
        let controller = refused(&world, life, true).await;
        let mut faults = vec![];
        if !world.objects("jobs").is_empty() {
            faults.push("its Job is there: nothing is tried".to_owned());
        }
        accept(&world);
        let (end, found) = end(&world, controller, true).await;
        faults.extend(found);
        if (end.phase(), end.reason()) != ("Failed", "Lost") {
            faults.push(format!("{end:#?}"));
        }
        world.stop_actors();
        named(|| format!("{code} {life:?}"), &faults).into_iter().collect()
    });
}

/// A run that waits while its status is refused is not started by what it waits for, before a status was stored.
#[test]
fn nothing_is_started_after_a_status_that_could_not_be_stored() {
    simulate(REFUSALS.to_vec(), async |code| {
        let world = BARE.world(1);
        refuse(&world, statuses(), code);
        let _controller = keep_running(&world, "a", true);
        tokio::time::sleep(60 * SECOND).await;
        apply_references(&world, &["Agent", "AgentProvider", "ImplementationSpec"]);
        tokio::time::sleep(600 * SECOND).await;
        let mut faults = vec![];
        if !world.objects("jobs").is_empty() {
            faults.push("started without a record".to_owned());
        }
        accept(&world);
        let (end, found) = end(&world, None, true).await;
        faults.extend(found);
        if (end.phase(), end.reason()) != ("Succeeded", "Completed") {
            faults.push(format!("{end:#?}"));
        }
        world.stop_actors();
        named(|| code.to_string(), &faults).into_iter().collect()
    });
}

/// People are told once, by an Event, whatever the number of tries.
#[tokio::test(start_paused = true)]
async fn a_status_that_is_refused_is_told_once() {
    for code in REFUSALS {
        let world = HAPPY.world(1);
        refuse(&world, statuses(), code);
        let _controller = keep_running(&world, "a", false);
        tokio::time::sleep(600 * SECOND).await;
        let history = world.history();
        let of_events = history.iter().filter(|commit| commit.key.resource.plural == "events");
        let told = of_events.filter(|commit| commit.object["reason"] == "StatusRefused").count();
        assert_eq!(told, 1, "{code}");
    }
}

/// A run whose object leaves no room for a status: from the last size that is refused for its size alone up to the
/// largest that can be stored at all, nothing is ever started.
#[test]
fn a_run_without_room_for_its_status_is_never_started() {
    let limit = 1536 * 1024;
    let sizes = [limit - 127 * 1024, limit - 64 * 1024, limit - 1024, limit - 100];
    simulate(sizes.to_vec(), async |size| {
        let world = HAPPY.world(1);
        grow(&world, size);
        let _controller = keep_running(&world, "a", true);
        let ended = world.until_terminal(120 * SECOND).await;
        let mut faults: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
        if !world.objects("jobs").is_empty() || !world.executions().is_empty() {
            faults.push("it was started".to_owned());
        }
        let run = world.object("agentruns", RUN).unwrap_or_default();
        let message = run["status"]["message"].as_str().unwrap_or_default();
        if size < limit - 8192 && !(ended && message.contains("1441792") && message.contains("1572864")) {
            faults.push(format!("{:#}", run["status"]));
        }
        world.stop_actors();
        named(|| size.to_string(), &faults).into_iter().collect()
    });
}

#[tokio::test(start_paused = true)]
async fn the_largest_run_that_is_started_has_room_for_its_status() {
    let world = RETRY.world(1);
    grow(&world, 1536 * 1024 - 128 * 1024 - 2048);
    let controller = keep_running(&world, "a", true);
    let (end, faults) = end(&world, Some(controller), true).await;
    assert_eq!((end.phase(), faults), ("Succeeded", vec![]));
}

/// Makes the run take `size` bytes where it is stored, before a controller sees it.
fn grow(world: &World, size: usize) {
    let with = |bytes: usize| {
        apply_run(world, json!({"payloads": payloads(bytes), "retryPolicy": {"limit": 2, "backoffSeconds": 20}}));
        world.object("agentruns", RUN).map_or(0, |run| run.to_string().len())
    };
    let around = with(size / 2) - size / 2;
    assert_eq!(with(size - around), size);
}

/// Payloads of together so many bytes, spread so that none is longer than it may be.
fn payloads(bytes: usize) -> Value {
    let most = 96 * 1024;
    let count = 16;
    let parts = (0..count).map(|n| {
        let left = bytes.saturating_sub(n * most).min(most);
        (format!("p{n:02}"), json!("x".repeat(left)))
    });
    Value::Object(parts.collect())
}
