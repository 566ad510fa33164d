//! What concerns one run, one namespace or nobody's work holds no other up.

use std::time::Duration;

use agents_tests::apimodel::{Fault, Outcome, Rule, Verb, When, Words, World};
use serde_json::{Value, json};

use super::{
    play::{keep_running, keep_running_everywhere, play, play_clean},
    workload::{HAPPY, RUN, SECOND, apply_run, phase_seen},
};

const API: &str = "agents.proompteng.ai/v1alpha1";

fn throttled() -> Fault {
    Fault::Throttle(Some("60".to_owned()))
}

/// Another run of the workload's references.
fn apply_another(world: &World, name: &str) {
    let spec = json!({"agentRef": {"name": "agent"}, "implementationSpecRef": {"name": "work"}});
    let run = json!({"apiVersion": API, "kind": "AgentRun", "metadata": {"name": name}, "spec": spec});
    world.apply(&run.to_string());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_throttled_delays_no_run() {
    let clean = play_clean(&HAPPY).await;
    let played = play(&HAPPY, 1, |world| {
        let events = When::any().verb(Verb::Create).on("events");
        world.faults(|faults| faults.rule(Rule::new(events, throttled()).forever()));
        keep_running(world, "a", false)
    })
    .await;
    assert_eq!(played.faults_beside(&clean.end), Vec::<String>::new());
    assert_eq!(played.settled, clean.settled, "not a moment later");
    let told = played.log.from("a").of("events").len();
    assert!((1..=2).contains(&told), "Events themselves wait: {told}");
}

#[tokio::test(start_paused = true)]
async fn a_list_of_events_that_is_throttled_delays_no_run() {
    let world = HAPPY.world(1);
    world.outcome(RUN, Outcome::Hang);
    let lists = When::any().verb(Verb::List).on("events");
    world.faults(|faults| faults.rule(Rule::new(lists, throttled()).forever()));
    let _controller = keep_running(&world, "a", false);
    phase_seen(&world, "Running").await;
    world.configure(|settings| settings.pod_quota = Some(1));
    apply_another(&world, "held");
    let listed = |world: &World| !world.log().from("a").of("events").lists().is_empty();
    while !listed(&world) {
        tokio::time::sleep(SECOND / 10).await;
    }
    apply_run(&world, json!({"cancel": true}));
    assert!(world.until(10 * SECOND, |world| world.phase(RUN) == "Cancelled").await, "{:?}", world.phase(RUN));
    world.check();
}

/// A webhook that one tenant has answers with 429 what their runs submit.
#[tokio::test(start_paused = true)]
async fn a_tenants_webhook_that_is_busy_holds_no_other_namespace() {
    let world = HAPPY.world(1);
    let busy = When::any().verb(Verb::Create).on("jobs").within("tenant");
    world.faults(|faults| faults.rule(Rule::new(busy, Fault::Refuse(429, Words::OfAWebhook)).forever()));
    let within = |kind: &str, name: &str, spec: Value| {
        let meta = json!({"name": name, "namespace": "tenant"});
        world.apply(&json!({"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}).to_string());
    };
    within("AgentProvider", "provider", json!({"binary": "true"}));
    within("Agent", "agent", json!({"providerRef": {"name": "provider"}}));
    within("ImplementationSpec", "work", json!({"text": "do it"}));
    for n in 0..20 {
        let spec = json!({"agentRef": {"name": "agent"}, "implementationSpecRef": {"name": "work"}});
        within("AgentRun", &format!("held-{n}"), spec);
    }
    let _controller = keep_running_everywhere(&world, "a");
    assert!(world.until(15 * SECOND, |world| world.phase(RUN) == "Succeeded").await, "{:?}", world.phase(RUN));
    tokio::time::sleep(60 * SECOND).await;
    let runs = world.objects("agentruns");
    let held: Vec<_> = runs.iter().filter(|run| run["metadata"]["namespace"] == "tenant").collect();
    assert_eq!(held.len(), 20);
    for run in held {
        let blocked = &run["status"]["blockedBy"][0];
        assert_eq!(blocked["reason"], "SubmitRejected", "{:#}", run["status"]);
        assert!(blocked["message"].as_str().is_some_and(|text| text.contains("denied the request")), "{blocked}");
    }
    let creates = world.log().from("a").of("jobs").0.iter().filter(|record| record.verb == Verb::Create).count();
    assert!(creates <= 20 * 15, "they are not repeated without a wait: {creates}");
}

/// One list says of all Jobs of a namespace why they have no pods.
#[tokio::test(start_paused = true)]
async fn fifty_jobs_without_pods_share_one_list_of_events() {
    let world = HAPPY.world(1);
    world.configure(|settings| settings.pod_quota = Some(0));
    let names: Vec<String> = (0..49).map(|n| format!("held-{n}")).chain([RUN.to_owned()]).collect();
    names.iter().filter(|name| *name != RUN).for_each(|name| apply_another(&world, name));
    let _controller = keep_running(&world, "a", false);
    let is_told = |world: &World, name: &String| {
        world.object("agentruns", name).is_some_and(|run| run["status"]["reason"] == "QuotaExceeded")
    };
    assert!(world.until(120 * SECOND, |world| names.iter().all(|name| is_told(world, name))).await);
    tokio::time::sleep(200 * SECOND).await;
    let log = world.log().from("a");
    let lists = log.of("events").lists();
    assert!((2..=11).contains(&lists.len()), "no more than one list in 25 s: {}", lists.len());
    let writes = log.of("agentruns").writes().len();
    assert!(writes <= 2 * names.len(), "what was said once is not said again: {writes}");
    world.configure(|settings| settings.pod_quota = None);
    assert!(world.until_terminal(300 * SECOND).await);
    world.check();
}

/// A look is bounded, and the next one goes on where it ended.
#[tokio::test(start_paused = true)]
async fn any_number_of_other_jobs_events_does_not_hide_why_ours_has_no_pod() {
    let world = HAPPY.world(1);
    world.configure(|settings| settings.pod_quota = Some(0));
    for n in 0..2500 {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("a-{n}")}, "reason": "FailedCreate",
            "involvedObject": {"kind": "Job", "namespace": "default", "name": format!("a-{n}"), "uid": format!("u-{n}")},
            "message": "Error creating: pods \"a\" is forbidden: exceeded quota: other",
        });
        world.apply(&event.to_string());
    }
    let _controller = keep_running(&world, "a", false);
    let is_told = |world: &World| {
        world.object("agentruns", RUN).is_some_and(|run| run["status"]["blockedBy"][0]["reason"] == "QuotaExceeded")
    };
    assert!(world.until(120 * SECOND, is_told).await);
    let run = world.object("agentruns", RUN).expect("it is there");
    assert_eq!(run["status"]["blockedBy"][0]["message"], "exceeded quota: team, requested: pods=1, limited: pods=0");
    let lists: Vec<Duration> = world.log().from("a").of("events").lists().0.iter().map(|record| record.at).collect();
    let looks = lists.iter().filter(|at| lists.iter().filter(|other| *other == *at).count() > 4).count();
    assert!(lists.len() > 4 && looks == 0, "four pages at a time: {lists:?}");
    let writes = || world.log().from("a").of("agentruns").writes().len();
    let written = writes();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(writes(), written, "what was found stays while the next looks are under way");
    world.check();
}
