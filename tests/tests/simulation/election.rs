//! The lease saves work and is never needed: leaders go politely, die, or do not know that their time is over.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agents_kube::{Clock, Keeper, ManagerError, lease::Params};
use agents_tests::apimodel::{Fault, Log, Rule, Settled, Verb, When, World};
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    play::{End, LIMIT, keep_running, lease_options, manager, named, simulate},
    two::ends,
    workload::{ALL, HAPPY, SECOND, Workload},
};

fn apply_later(world: &World, name: &str) {
    let spec = "spec: {agentRef: {name: agent}, implementationSpecRef: {name: work}}";
    world.apply(&format!(
        "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: {name}}}\n{spec}\n"
    ));
}

/// A leader that has finished its first run, and how to stop it.
async fn leader(world: &Arc<World>) -> (CancellationToken, JoinHandle<Result<(), ManagerError>>) {
    let stop = CancellationToken::new();
    let manager = manager(world.calls("a"), "a-1", true);
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { manager.run(stop).await }
    });
    assert!(world.until_terminal(60 * SECOND).await);
    (stop, running)
}

/// When the Job of a second run is created.
fn first_create(log: &Log, client: &str) -> Option<Duration> {
    let creates = log.from(client).of("jobs").0;
    creates.into_iter().find(|record| record.verb == Verb::Create).map(|record| record.at)
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_asked_to_go_is_followed_within_a_second() {
    let world = HAPPY.world(1);
    let (stop, running) = leader(&world).await;
    let _standby = keep_running(&world, "b", true);
    tokio::time::sleep(30 * SECOND).await;
    stop.cancel();
    let asked = world.clock().boot();
    apply_later(&world, "second");
    running.await.expect("no panic").expect("it ends as asked");
    assert!(world.until_terminal(60 * SECOND).await);
    let taken = first_create(&world.log(), "b").expect("the other one leads");
    assert!(taken <= asked + SECOND, "{:?} after the signal", taken - asked);
    world.check();
}

/// A reconcile under way is finished before the lease is given away.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_asked_to_go_finishes_the_call_under_way() {
    let world = HAPPY.world(1);
    let stop = CancellationToken::new();
    world.faults(|faults| {
        faults.rule(Rule::new(When::effects().verb(Verb::Create).on("jobs"), Fault::DelayResponse(2 * SECOND)));
    });
    let manager = manager(world.calls("a"), "a-1", true);
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { manager.run(stop).await }
    });
    assert!(world.until(60 * SECOND, |world| !world.objects("jobs").is_empty()).await);
    stop.cancel();
    running.await.expect("no panic").expect("it ends as asked");
    let log = world.log();
    let release = log.of("leases").0.iter().rfind(|record| record.verb == Verb::Update).map(|record| record.at);
    let create = log.of("jobs").0.iter().find(|record| record.verb == Verb::Create).map(|record| record.at);
    assert!(release >= create.map(|at| at + 2 * SECOND), "released {release:?}, created {create:?}");
    let told = log.of("events").0.iter().any(|record| record.verb == Verb::Create);
    assert!(told, "what follows the call is done too");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_followed_when_its_lease_is_over() {
    let world = HAPPY.world(1);
    let (_stop, running) = leader(&world).await;
    let _standby = keep_running(&world, "b", true);
    tokio::time::sleep(30 * SECOND).await;
    running.abort();
    world.kill("a");
    let died = world.clock().boot();
    apply_later(&world, "second");
    assert!(world.until_terminal(60 * SECOND).await);
    let taken = first_create(&world.log(), "b").expect("the other one leads");
    assert!(taken <= died + Params::default().duration + SECOND, "{:?} after its death", taken - died);
    world.check();
}

/// A machine's clock that stands still from a moment on: a process that was stopped believes that no time has passed.
#[derive(Debug)]
struct Stuck {
    inner: agents_tests::apimodel::Clock,
    at: Mutex<Option<(Timestamp, Duration)>>,
}

impl Clock for Stuck {
    fn now(&self) -> Timestamp {
        self.at.lock().expect("no panic").map_or_else(|| self.inner.wall(), |(wall, _)| wall)
    }

    fn boot(&self) -> Duration {
        self.at.lock().expect("no panic").map_or_else(|| self.inner.boot(), |(_, boot)| boot)
    }
}

/// What keeps a leader from learning that it leads no more.
#[derive(Debug, Clone, Copy)]
enum Blindness {
    /// It hears nothing of the lease.
    LeaseSilent,
    /// It hears nothing of the lease, and for it no time passes.
    TimeStandsStill,
    /// Everything it sends arrives late.
    EverythingLate,
}

async fn zombie(workload: &Workload, blindness: Blindness) -> (Arc<World>, Vec<String>) {
    let world = workload.world(1);
    let clock = Arc::new(Stuck { inner: world.clock(), at: Mutex::default() });
    let options = lease_options();
    let old = manager(world.calls_by("old", Arc::clone(&clock) as Arc<dyn Clock>), "old-1", true);
    let old = tokio::spawn(async move {
        // Losing the lease ends it; nobody begins anew.
        let _end = old.run(CancellationToken::new()).await;
    });
    let held = |world: &World| world.object("leases", &options.name).is_some();
    assert!(world.until(60 * SECOND, held).await, "it leads");
    world.faults(|faults| {
        let lease = When::any().on("leases").from("old");
        match blindness {
            Blindness::LeaseSilent | Blindness::TimeStandsStill => {
                faults.rule(Rule::new(lease, Fault::Blackhole).forever());
            }
            Blindness::EverythingLate => {
                let everything = When::any().from("old");
                faults.rule(Rule::new(everything, Fault::Delay(Duration::from_millis(9500))).forever());
            }
        }
    });
    if matches!(blindness, Blindness::TimeStandsStill) {
        *clock.at.lock().expect("no panic") = Some((world.clock().wall(), world.clock().boot()));
    }
    let new = keep_running(&world, "new", true);
    workload.tell(&world).await;
    world.until_terminal(LIMIT).await;
    let mut faults: Vec<String> = world.violations().iter().map(ToString::to_string).collect();
    if world.settle(LIMIT).await == Settled::Not {
        faults.push("the world did not settle".to_owned());
    }
    drop(new);
    old.abort();
    (world, faults)
}

#[test]
fn a_leader_that_does_not_know_that_its_time_is_over_does_no_harm() {
    let ends = ends(ALL);
    let kinds = [Blindness::LeaseSilent, Blindness::TimeStandsStill, Blindness::EverythingLate];
    let cases: Vec<_> = ALL.iter().flat_map(|workload| kinds.map(|kind| (workload, kind))).collect();
    let overlaps = AtomicUsize::new(0);
    simulate(cases, async |(workload, blindness)| {
        let (world, mut faults) = zombie(workload, blindness).await;
        let end = End::of(&world);
        world.stop_actors();
        let log = world.log();
        let acts = |client: &str| log.from(client).writes().0.into_iter().map(|record| record.at);
        if acts("new").min().is_some_and(|began| acts("old").any(|at| at >= began)) {
            overlaps.fetch_add(1, Ordering::Relaxed);
        }
        if end.outline() != ends[workload.name].outline() || !end.live_jobs.is_empty() {
            faults.push(format!("another end:\n  {:?}\n  {end:?}", ends[workload.name]));
        }
        named(|| format!("{}, {blindness:?}", workload.name), &faults).into_iter().collect()
    });
    assert!(overlaps.into_inner() > 0, "no leader of the past wrote anything");
}

/// Whoever cannot renew stops acting before another may begin.
#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_in_time() {
    let world = HAPPY.world(1);
    let (_stop, running) = leader(&world).await;
    let _standby = keep_running(&world, "b", true);
    tokio::time::sleep(30 * SECOND).await;
    world.faults(|faults| faults.rule(Rule::new(When::any().on("leases").from("a"), Fault::Blackhole).forever()));
    let began = world.clock().boot();
    tokio::time::sleep(Params::default().duration + SECOND).await;
    assert!(running.is_finished(), "the work ends with its lease");
    assert!(matches!(running.await, Ok(Err(ManagerError::LeaseLost))));
    apply_later(&world, "second");
    assert!(world.until_terminal(60 * SECOND).await);
    assert!(world.log().from("a").since(began).of("jobs").writes().is_empty());
    world.check();
}

/// The end of one manager is not the end of the process: the others go on, and it begins anew, each time after a wait.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_away_ends_the_work_for_its_runs_alone() {
    let (mine, theirs) = (HAPPY.world(1), HAPPY.world(1));
    let keeper = |world: &Arc<World>, name: &'static str| {
        let calls = world.calls(name);
        Keeper::new(name, move |number| manager(calls.clone(), &format!("{name}-{number}"), true))
    };
    let (keepers, stop) = ([keeper(&mine, "a"), keeper(&theirs, "b")], CancellationToken::new());
    let healths = keepers.each_ref().map(Keeper::current);
    let mut process = tokio::task::JoinSet::new();
    for keeper in keepers {
        process.spawn(keeper.run(stop.clone()));
    }
    assert!(mine.until_terminal(60 * SECOND).await && theirs.until_terminal(60 * SECOND).await);
    // Whoever may write the one lease takes it away again and again.
    let began = theirs.clock().boot();
    for time in 0..10 {
        let mut lease = theirs.object("leases", "agents").expect("it is held");
        lease["spec"]["holderIdentity"] = json!("thief");
        lease["spec"]["leaseTransitions"] = json!(100 + time);
        theirs.apply(&lease.to_string());
        tokio::time::sleep(6 * SECOND).await;
        assert!(healths[0].health().is_leading(), "the other is not touched");
        assert!(!healths[1].health().is_leading(), "it does not lead without its lease");
    }
    let lists = theirs.log().from("b").since(began).of("agentruns").lists().len();
    assert_eq!(lists, 1, "it began anew, and only once: what never led has lost nothing");
    apply_later(&mine, "second");
    assert!(mine.until_terminal(10 * SECOND).await, "the runs of the other go on");
    // Left alone, it leads again.
    apply_later(&theirs, "second");
    assert!(theirs.until_terminal(120 * SECOND).await);
    assert!(healths[1].health().is_leading());
    mine.check();
    theirs.check();
    stop.cancel();
    while let Some(ended) = process.join_next().await {
        ended.expect("no panic");
    }
    assert_eq!(theirs.object("leases", "agents").expect("it is there")["spec"]["holderIdentity"], "");
}
