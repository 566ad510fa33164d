//! Nodes that say nothing more: what they were given may run for ever, so nothing follows it, and its run says so.

use std::{sync::Arc, time::Duration};

use agents_tests::apimodel::{Outcome, Supervised, World};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    play::keep_running,
    workload::{HAPPY, RUN, SECOND, apply_run, reason_seen},
};

const HOUR: Duration = Duration::from_secs(3600);

fn status(world: &World) -> Value {
    world.object("agentruns", RUN).expect("it is there")["status"].clone()
}

/// A run with retries whose first attempt is on a node that falls silent.
async fn silent(spec: Value) -> (Arc<World>, Supervised) {
    let world = HAPPY.world(1);
    let silent = Outcome::NodeSilent { evicted_after: Duration::from_secs(20) };
    world.outcomes(RUN, vec![silent, Outcome::default()]);
    apply_run(&world, spec);
    let controller = keep_running(&world, "a", false);
    reason_seen(&world, "NodeUnreachable").await;
    tokio::time::sleep(SECOND).await;
    (world, controller)
}

fn retried() -> Value {
    json!({"retryPolicy": {"limit": 2, "backoffSeconds": 5}})
}

/// The node's object goes: what collects pods says that they have failed and removes them.
async fn node_is_given_up(world: &World) {
    let pods: Api<Pod> = Api::default_namespaced(world.admin());
    for pod in pods.list(&Default::default()).await.expect("a list").items {
        let name = pod.metadata.name.expect("it is named");
        let why = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
        });
        let failed = json!({"status": {"phase": "Failed", "conditions": [why]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&failed)).await.expect("it is there");
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await.expect("it is there");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_on_a_silent_node_says_so_and_nothing_follows_it_before_the_node_is_given_up() {
    let (world, _controller) = silent(retried()).await;
    let said = status(&world);
    assert_eq!(said["phase"], "Running");
    let blocked = &said["blockedBy"][0];
    assert_eq!((&blocked["reason"], &blocked["object"]), (&json!("NodeUnreachable"), &json!("Node/node-1")));
    for (field, word) in [("message", "node-1"), ("message", "may still run"), ("unblockedBy", "spec.cancel")] {
        assert!(blocked[field].as_str().is_some_and(|text| text.contains(word)), "{blocked}");
    }
    let began = world.clock().boot();
    tokio::time::sleep(10 * HOUR).await;
    assert_eq!(status(&world), said, "it is said once");
    let log = world.log().from("a").since(began);
    assert_eq!((log.writes().len(), log.gets().len()), (0, 0), "and costs nothing");
    assert_eq!(world.executions().values().sum::<u32>(), 1, "nothing follows");

    node_is_given_up(&world).await;
    assert!(world.until(HOUR, |world| world.phase(RUN) == "Succeeded").await, "{:#}", status(&world));
    let said = status(&world);
    let ends: Vec<_> = said["attempts"].as_array().into_iter().flatten().map(|attempt| &attempt["reason"]).collect();
    assert_eq!(ends, ["Evicted", "Completed"]);
    world.check();
}

/// Whoever does not want another attempt need not wait for the node.
#[tokio::test(start_paused = true)]
async fn a_run_on_a_silent_node_can_be_cancelled() {
    let (world, _controller) = silent(retried()).await;
    tokio::time::sleep(HOUR).await;
    apply_run(&world, json!({"retryPolicy": {"limit": 2, "backoffSeconds": 5}, "cancel": true}));
    tokio::time::sleep(180 * SECOND).await;
    let said = status(&world);
    let blocked = &said["blockedBy"][0];
    assert_eq!((&said["phase"], &blocked["reason"]), (&json!("Running"), &json!("NodeUnreachable")), "{said:#}");
    assert!(blocked["unblockedBy"].as_str().is_some_and(|text| text.contains("the run ends")), "{blocked}");
    assert!(world.until(300 * SECOND, |world| world.phase(RUN) == "Cancelled").await, "{:#}", status(&world));
    let message = status(&world)["message"].clone();
    assert!(
        message.as_str().is_some_and(|text| text.contains("node-1") && text.contains("may still run")),
        "{message}"
    );
    let pods = world.objects("pods");
    assert_eq!(pods.len(), 1, "the pod is there until its node, or who gives the node up, says that it has ended");
    let ended = world.clock().boot();
    tokio::time::sleep(10 * HOUR).await;
    let log = world.log().from("a").since(ended);
    let asked = log.writes().len() + log.gets().len();
    assert!(asked <= 10 * 12 * 5, "it is tried again every five minutes: {asked}");
    assert_eq!(world.executions().values().sum::<u32>(), 1);
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_run_on_a_silent_node_ends_with_its_time() {
    let (world, _controller) = silent(json!({"timeoutSeconds": 600, "retryPolicy": {"limit": 2}})).await;
    assert!(world.until(HOUR, |world| world.phase(RUN) == "Failed").await, "{:#}", status(&world));
    let said = status(&world);
    assert_eq!(said["reason"], "DeadlineExceeded");
    assert!(said["message"].as_str().is_some_and(|text| text.contains("node-1")), "{said:#}");
    assert_eq!(world.executions().values().sum::<u32>(), 1);
    world.check();
}
