//! Signals and their deliveries: judged once, one of each id, whatever disturbs it.

use std::{collections::BTreeMap, sync::Arc};

use agents_core::api::{Signal, SignalDelivery};
use agents_tests::apimodel::{Fault, Rule, When, World};
use serde_json::{Value, json};

use super::{
    fault::Disturbance,
    play::{keep_whole_running, named, simulate},
    workload::SECOND,
};

const API: &str = "signals.proompteng.ai/v1alpha1";

fn signal(world: &World, name: &str, spec: &Value) {
    world.apply(&json!({"apiVersion": API, "kind": "Signal", "metadata": {"name": name}, "spec": spec}).to_string());
}

/// A delivery of the Signal `deploy`.
fn deliver(world: &World, name: &str, id: Option<&str>, payload: &Value) {
    let mut spec = json!({"signalRef": {"name": "deploy"}, "payload": payload});
    if let Some(id) = id {
        spec["deliveryId"] = json!(id);
    }
    let delivery = json!({"apiVersion": API, "kind": "SignalDelivery", "metadata": {"name": name}, "spec": spec});
    world.apply(&delivery.to_string());
}

/// Phase, reason and readiness of a delivery.
fn said(world: &World, name: &str) -> [String; 3] {
    let status = world.object("signaldeliveries", name).map(|object| object["status"].clone()).unwrap_or_default();
    let ready = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let ready = ready.map(|ready| ready["status"].clone()).unwrap_or_default();
    [&status["phase"], &status["reason"], &ready].map(|value| value.as_str().unwrap_or("-").to_owned())
}

fn message(world: &World, name: &str) -> String {
    world.object("signaldeliveries", name).expect("a delivery")["status"]["message"].as_str().unwrap_or("-").to_owned()
}

async fn becomes(world: &World, name: &str, wanted: [&str; 3]) {
    assert!(world.until(60 * SECOND, |world| said(world, name) == wanted).await, "{name}: {:?}", said(world, name));
}

const DELIVERED: [&str; 3] = ["Delivered", "-", "True"];

fn last(world: &World) -> Value {
    world.object("signals", "deploy").expect("a Signal")["status"]["lastDeliveryAt"].clone()
}

fn writes(world: &World) -> usize {
    world.log().verdicts().len()
}

#[tokio::test(start_paused = true)]
async fn a_delivery_waits_for_its_signal_and_is_judged_once() {
    let world = Arc::new(World::new(1));
    let _controller = keep_whole_running(&world, "a", false);
    deliver(&world, "first", Some("id-1"), &json!({"version": "1.4.0"}));
    becomes(&world, "first", ["Pending", "SignalNotFound", "False"]).await;
    assert_eq!(message(&world, "first"), "spec.signalRef: Signal/deploy does not exist in this namespace");
    signal(
        &world,
        "deploy",
        &json!({"payloadSchema": {"required": ["version"], "properties": {"version": {"pattern": "("}}}}),
    );
    becomes(&world, "first", ["Pending", "ReferenceUnreadable", "False"]).await;
    let schema = json!({"required": ["version"], "properties": {"version": {"type": "string", "pattern": "^\\d"}}});
    signal(&world, "deploy", &json!({"payloadSchema": schema}));
    becomes(&world, "first", DELIVERED).await;
    let delivered = world.object("signaldeliveries", "first").expect("it")["status"]["deliveredAt"].clone();
    assert!(world.until(60 * SECOND, |world| last(world) == delivered).await, "{delivered} {}", last(&world));
    // What was sent was sent: neither another schema nor the end of its Signal changes it.
    world.settle(3600 * SECOND).await;
    let before = writes(&world);
    signal(&world, "deploy", &json!({"payloadSchema": {"required": ["other"]}}));
    world.settle(3600 * SECOND).await;
    assert_eq!(writes(&world), before + 1, "of the Signal alone");
    let signals: kube::Api<agents_kube::Object<Signal>> = kube::Api::default_namespaced(world.admin());
    signals.delete("deploy", &kube::api::DeleteParams::default()).await.expect("the Signal is there");
    world.settle(3600 * SECOND).await;
    assert_eq!((writes(&world), said(&world, "first")), (before + 1, DELIVERED.map(str::to_owned)));
    world.check();
}

#[tokio::test(start_paused = true)]
async fn of_one_id_one_is_delivered_and_another_payload_is_a_conflict() {
    let world = Arc::new(World::new(1));
    let _controller = keep_whole_running(&world, "a", false);
    signal(&world, "deploy", &json!({}));
    deliver(&world, "first", Some("id-1"), &json!({"a": 1, "b": [2]}));
    becomes(&world, "first", DELIVERED).await;
    deliver(&world, "again", Some("id-1"), &json!({"b": [2], "a": 1}));
    deliver(&world, "other", Some("id-1"), &json!({"a": 2}));
    deliver(&world, "second", Some("id-2"), &json!({"a": 1}));
    deliver(&world, "unnamed", None, &json!({"a": 1}));
    becomes(&world, "again", ["Duplicate", "Duplicate", "True"]).await;
    becomes(&world, "other", ["Invalid", "Conflict", "False"]).await;
    becomes(&world, "second", DELIVERED).await;
    becomes(&world, "unnamed", DELIVERED).await;
    assert_eq!(
        message(&world, "other"),
        "spec.deliveryId: SignalDelivery/first was delivered with this id and says something else"
    );
    assert!(world.object("signaldeliveries", "again").expect("it")["status"].get("deliveredAt").is_none());
    // One that could not be told from the first is still what it was once the first is gone.
    let deliveries: kube::Api<agents_kube::Object<SignalDelivery>> = kube::Api::default_namespaced(world.admin());
    deliveries.delete("first", &kube::api::DeleteParams::default()).await.expect("the delivery is there");
    world.settle(3600 * SECOND).await;
    assert_eq!(said(&world, "again")[0], "Duplicate");
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_held_against_the_schema_also_where_it_is_large_or_left_to_the_signal() {
    let world = Arc::new(World::new(1));
    let _controller = keep_whole_running(&world, "a", false);
    let schema =
        json!({"required": ["text"], "properties": {"text": {"maxLength": 30_000}}, "additionalProperties": false});
    signal(&world, "deploy", &json!({"payloadSchema": schema, "payload": {"text": "usual"}}));
    deliver(&world, "large", Some("l"), &json!({"text": "x".repeat(30_000)}));
    deliver(&world, "larger", Some("m"), &json!({"text": "secret".repeat(6_000)}));
    deliver(&world, "wrong", Some("w"), &json!({"text": "x", "more": "secret"}));
    let usual = json!({"apiVersion": API, "kind": "SignalDelivery", "metadata": {"name": "usual"}, "spec": {"signalRef": {"name": "deploy"}}});
    world.apply(&usual.to_string());
    let decision = json!({"verdict": "approve", "planDigest": format!("sha256:{}", "0".repeat(64)), "decidedBy": "x"});
    let decided = json!({"apiVersion": API, "kind": "SignalDelivery", "metadata": {"name": "decided"},
        "spec": {"decision": decision, "runRef": {"kind": "AgentRun", "name": "r"}}});
    world.apply(&decided.to_string());
    becomes(&world, "large", DELIVERED).await;
    becomes(&world, "usual", DELIVERED).await;
    becomes(&world, "decided", ["Pending", "NotActedOn", "Unknown"]).await;
    let rejected = ["Invalid", "PayloadRejected", "False"];
    becomes(&world, "larger", rejected).await;
    becomes(&world, "wrong", rejected).await;
    let by = "(spec.payloadSchema of Signal/deploy)";
    let long = format!("spec.payload.text: the value is longer than 30000 characters {by}");
    assert_eq!(message(&world, "larger"), long);
    let more = format!("spec.payload: Additional properties are not allowed ('more' was unexpected) {by}");
    assert_eq!(message(&world, "wrong"), more);
    // The same large text again is known for the same by what is kept of it.
    deliver(&world, "again", Some("l"), &json!({"text": "x".repeat(30_000)}));
    deliver(&world, "other", Some("l"), &json!({"text": "y".repeat(30_000)}));
    becomes(&world, "again", ["Duplicate", "Duplicate", "True"]).await;
    becomes(&world, "other", ["Invalid", "Conflict", "False"]).await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn the_last_delivery_is_told_once_a_minute_and_in_the_end() {
    let world = Arc::new(World::new(1));
    let _controller = keep_whole_running(&world, "a", false);
    signal(&world, "deploy", &json!({}));
    for n in 0..100 {
        deliver(&world, &format!("d{n}"), Some(&format!("id-{n}")), &json!({"n": n}));
        tokio::time::sleep(SECOND).await;
    }
    world.settle(3600 * SECOND).await;
    let deliveries = world.objects("signaldeliveries");
    let latest = deliveries.iter().filter_map(|delivery| delivery["status"]["deliveredAt"].as_str()).max();
    assert_eq!(last(&world).as_str(), latest);
    // Ready, and the first, after one minute, and the last.
    let told = writes(&world) - 100;
    assert!((3..=4).contains(&told), "{told} writes of the Signal");
}

/// Two of one id and one that is refused, as they come to a controller that is disturbed. Without times.
async fn story(world: &Arc<World>, names: &[&'static str], lease: bool) -> BTreeMap<String, [String; 3]> {
    let _controllers: Vec<_> = names.iter().map(|name| keep_whole_running(world, name, lease)).collect();
    signal(world, "deploy", &json!({"payloadSchema": {"required": ["v"]}}));
    tokio::time::sleep(20 * SECOND).await;
    for (name, payload) in [("first", json!({"v": 1})), ("same", json!({"v": 1})), ("other", json!({"v": 2}))] {
        deliver(world, name, Some("id"), &payload);
        tokio::time::sleep(SECOND).await;
    }
    deliver(world, "wrong", Some("no"), &json!({}));
    world.settle(3600 * SECOND).await;
    ["first", "same", "other", "wrong"].map(|name| (name.to_owned(), said(world, name))).into()
}

#[test]
fn whatever_becomes_of_a_write_each_id_is_delivered_once() {
    let ends = [DELIVERED, ["Duplicate", "Duplicate", "True"], ["Invalid", "Conflict", "False"]];
    let ends = [ends[0], ends[1], ends[2], ["Invalid", "PayloadRejected", "False"]].map(|end| end.map(str::to_owned));
    let wanted: BTreeMap<_, _> = ["first", "same", "other", "wrong"].map(str::to_owned).into_iter().zip(ends).collect();
    simulate([Disturbance::none()].into_iter().chain(Disturbance::all(6)).collect(), async |disturbance| {
        let world = Arc::new(World::new(1));
        disturbance.begin(&world);
        let end = story(&world, disturbance.controllers, disturbance.lease).await;
        disturbance.named(&disturbance.found(&world, &end, &wanted))
    });
}

/// Senders repeat themselves within a second, while what was decided about the first is still on its way.
#[test]
fn of_one_second_too_one_is_delivered() {
    let cases: Vec<(u64, u64)> = (0..12).flat_map(|seed| [0, 5, 40, 400].map(|pause| (seed, pause))).collect();
    simulate(cases, async |(seed, pause)| {
        let world = Arc::new(World::new(seed));
        let _controller = keep_whole_running(&world, "a", false);
        signal(&world, "deploy", &json!({}));
        tokio::time::sleep(20 * SECOND).await;
        let late = When::verdicts().on("signaldeliveries");
        world.faults(|faults| {
            faults.rule(Rule::new(late, Fault::CommitLate(std::time::Duration::from_millis(700))).nth(1))
        });
        for n in 0..4 {
            deliver(&world, &format!("d{n}"), Some("id"), &json!({"n": n % 2}));
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        }
        world.settle(3600 * SECOND).await;
        let mut phases: Vec<String> = (0..4).map(|n| said(&world, &format!("d{n}"))[0].clone()).collect();
        phases.sort();
        let found = if phases == ["Delivered", "Duplicate", "Invalid", "Invalid"] {
            vec![]
        } else {
            vec![format!("{phases:?}")]
        };
        named(|| format!("seed {seed}, {pause} ms"), &found).into_iter().collect()
    });
}
