//! Runs that nothing can be done about: one that cannot be read, and one whose pod a quota holds back. Both say so.

use agents_kube::{AgentRun, client::Target};
use agents_tests::apimodel::{Log, NAMESPACE, Outcome, Verb, World};
use serde_json::{Value, json};

use super::{
    play::{keep_running, named, play, simulate},
    workload::{ALL, HAPPY, RUN, SECOND, apply_run, phase_seen, reason_seen},
};

fn condition(world: &World, kind: &str) -> Value {
    let run = world.object("agentruns", RUN).expect("it is there");
    let conditions = run["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

fn status_writes(log: &Log) -> usize {
    log.of("agentruns").writes().len()
}

/// As it is stored after a definition that allowed more, or by a controller that knows more.
fn break_spec(world: &World) {
    apply_run(world, json!({"timeoutSeconds": "soon"}));
}

async fn unreadable_seen(world: &World) {
    assert!(world.until(600 * SECOND, |world| condition(world, "Accepted")["reason"] == "Unreadable").await);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_says_so_once_and_goes_on_when_it_is_mended() {
    for lease in [false, true] {
        let world = HAPPY.world(1);
        break_spec(&world);
        let _controller = keep_running(&world, "a", lease);
        unreadable_seen(&world).await;
        tokio::time::sleep(600 * SECOND).await;
        let said = ["Ready", "Accepted", "Stalled"].map(|kind| condition(&world, kind)["status"].clone());
        assert_eq!(said, ["False", "False", "True"]);
        let message = condition(&world, "Accepted")["message"].clone();
        assert!(message.as_str().is_some_and(|text| text.contains("spec.timeoutSeconds")), "{message}");
        assert!(!message.to_string().contains("soon"), "a value is nobody's to tell: {message}");
        let run = world.object("agentruns", RUN).expect("it is there");
        assert_eq!(run["status"]["phase"], "Pending", "only conditions are written, beside the default");
        let told: Vec<_> =
            world.history().into_iter().filter(|commit| commit.object["reason"] == "Unreadable").collect();
        assert_eq!(told.len(), 1, "{told:?}");
        let log = world.log().from("a");
        assert_eq!(status_writes(&log), 1, "once per cause");
        assert!(log.of("agentruns").gets().len() <= 3, "{:?}", log.of("agentruns").gets());
        assert!(world.objects("jobs").is_empty());

        apply_run(&world, json!({}));
        phase_seen(&world, "Succeeded").await;
        assert_eq!(world.phase(RUN), "Succeeded");
        assert_eq!(condition(&world, "Accepted")["status"], "True");
        world.check();
    }
}

/// Its attempt goes on, and so does its status, but for the conditions.
#[tokio::test(start_paused = true)]
async fn a_run_under_way_that_cannot_be_read_any_more_keeps_what_its_status_says() {
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Succeed { after: 300 * SECOND });
    let controller = keep_running(&world, "a", false);
    phase_seen(&world, "Running").await;
    let before = world.object("agentruns", RUN).expect("it is there")["status"].clone();
    break_spec(&world);
    unreadable_seen(&world).await;
    let after = world.object("agentruns", RUN).expect("it is there")["status"].clone();
    for field in ["phase", "attempts", "runtimeRef", "startedAt", "planDigest"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // Another controller says nothing more.
    drop(controller);
    world.kill("a");
    let _next = keep_running(&world, "b", true);
    tokio::time::sleep(120 * SECOND).await;
    assert_eq!(status_writes(&world.log().from("b")), 0);
    apply_run(&world, json!({}));
    phase_seen(&world, "Succeeded").await;
    assert_eq!(world.phase(RUN), "Succeeded");
    world.check();
}

/// What is said takes the place of what cannot be read; the answer to that write says nothing of the definition.
#[tokio::test(start_paused = true)]
async fn a_run_whose_conditions_alone_cannot_be_read_goes_on_once_that_is_said() {
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Succeed { after: 300 * SECOND });
    let _controller = keep_running(&world, "a", false);
    phase_seen(&world, "Running").await;
    let mut run = world.object("agentruns", RUN).expect("it is there");
    run["status"]["conditions"] = json!([{"type": "Ready", "status": 5}]);
    let (target, calls) = (Target::of::<AgentRun>(), world.calls("someone"));
    calls.replace_status::<Value>(&target, "break the status", NAMESPACE, RUN, &run).await.expect("it is taken");
    let mended = |world: &World| condition(world, "Accepted")["status"] == "True";
    assert!(world.until(60 * SECOND, mended).await, "{:#}", condition(&world, "Accepted"));
    assert_eq!(world.phase(RUN), "Running", "long before anything else of its status changes");
    phase_seen(&world, "Succeeded").await;
    assert_eq!(world.phase(RUN), "Succeeded");
    let told = world.history().into_iter().filter(|commit| commit.object["reason"] == "Unreadable").count();
    assert_eq!(told, 1);
    assert_eq!(condition(&world, "Stalled")["status"], "False");
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_leaves_no_room_is_named_and_the_run_goes_on_once_there_is() {
    let world = HAPPY.world(1);
    world.configure(|settings| settings.pod_quota = Some(0));
    let _controller = keep_running(&world, "a", false);
    reason_seen(&world, "QuotaExceeded").await;
    tokio::time::sleep(600 * SECOND).await;
    let run = world.object("agentruns", RUN).expect("it is there");
    let blocked = &run["status"]["blockedBy"][0];
    assert_eq!(run["status"]["phase"], "Pending");
    assert_eq!(
        (&blocked["reason"], run["status"]["blockedBy"].as_array().map(Vec::len)),
        (&json!("QuotaExceeded"), Some(1))
    );
    assert_eq!(blocked["message"], "exceeded quota: team, requested: pods=1, limited: pods=0");
    assert!(blocked["unblockedBy"].as_str().is_some_and(|text| text.contains("quota")), "{blocked}");
    let log = world.log().from("a");
    assert!(status_writes(&log) <= 2, "what differs at each try is not written: {:?}", log.writes());
    let lists = log.of("events").lists().len();
    assert!((2..=25).contains(&lists), "no more than one list in 25 s: {lists}");

    world.configure(|settings| settings.pod_quota = None);
    phase_seen(&world, "Succeeded").await;
    assert_eq!(world.phase(RUN), "Succeeded");
    world.check();
}

/// Events are read for Jobs without a pod alone.
#[test]
fn whoever_has_a_pod_costs_no_list_of_events() {
    simulate(ALL.to_vec(), async |workload| {
        let played = play(&workload, 1, |world| keep_running(world, "a", false)).await;
        let mut faults = played.faults();
        let lists = played.log.from("a").of("events").lists();
        faults.extend(lists.0.iter().filter(|record| record.verb == Verb::List).map(|record| format!("{record:?}")));
        named(|| workload.name.to_owned(), &faults).into_iter().collect()
    });
}
