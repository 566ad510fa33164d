//! Who is asked when an object that runs refer to changes: those that refer to it, when it means something else now.

use std::{sync::Arc, time::Duration};

use agents_tests::apimodel::{Supervised, World};
use serde_json::{Value, json};

use super::{
    play::keep_running,
    workload::{HAPPY, RUN, SECOND, reason_seen},
};

const API: &str = "agents.proompteng.ai/v1alpha1";

type Make<'a> = &'a dyn Fn(&World);

fn apply(world: &World, kind: &str, name: &str, spec: &Value) {
    world.apply(&json!({"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string());
}

/// A run that is read whole whenever it is decided: it is large, and waits for what the controller cannot do.
async fn waiting() -> (Arc<World>, Supervised) {
    let world = HAPPY.world(1);
    apply(
        &world,
        "AgentRun",
        RUN,
        &json!({
            "agentRef": {"name": "agent"}, "implementationSpecRef": {"name": "work"}, "memoryRef": {"name": "memory"},
            "payloads": {"p": "x".repeat(64 * 1024)},
        }),
    );
    let controller = keep_running(&world, "a", false);
    reason_seen(&world, "NotSupported").await;
    // The age of the cache is proven meanwhile, and whatever follows the first status is over.
    tokio::time::sleep(60 * SECOND).await;
    (world, controller)
}

/// How often the run was read while `change` was made and for a minute after it.
async fn reads(world: &Arc<World>, change: impl FnOnce(&World)) -> usize {
    let began = world.clock().boot();
    change(world);
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.log().from("a").since(began).of("agentruns").gets().len()
}

/// Changes an object and leaves its spec.
fn touch(world: &World, plural: &str, name: &str, nth: usize) {
    let mut object = world.object(plural, name).expect("it is there");
    object["metadata"]["annotations"]["example.org/touched"] = json!(nth.to_string());
    object["metadata"]["labels"]["example.org/touched"] = json!(nth.to_string());
    object["status"]["observedGeneration"] = json!(nth);
    world.apply(&object.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_run_is_not_decided_again_when_what_it_does_not_refer_to_changes() {
    let (world, _controller) = waiting().await;
    let read = reads(&world, |world| {
        for n in 0..30 {
            apply(world, "AgentProvider", &format!("other-{n}"), &json!({"binary": "true"}));
            apply(world, "Agent", &format!("other-{n}"), &json!({"providerRef": {"name": format!("other-{n}")}}));
            apply(world, "ImplementationSpec", &format!("other-{n}"), &json!({"text": "do it"}));
        }
    });
    assert_eq!(read.await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_not_decided_again_when_what_it_refers_to_means_the_same() {
    let (world, _controller) = waiting().await;
    for n in 1..10 {
        let read = reads(&world, |world| {
            for (plural, name) in [("agents", "agent"), ("agentproviders", "provider"), ("implementationspecs", "work")]
            {
                touch(world, plural, name, n);
            }
        });
        assert_eq!(read.await, 0, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_decided_again_whenever_what_it_refers_to_means_something_else() {
    let (world, _controller) = waiting().await;
    let provider = |n: usize| json!({"binary": "sh", "argsTemplate": ["-c", format!("true {n}")]});
    let changes: [(&str, Make<'_>); 7] = [
        ("the Agent", &|world| apply(world, "Agent", "agent", &json!({"providerRef": {"name": "second"}}))),
        ("a provider that appears", &|world| apply(world, "AgentProvider", "second", &provider(1))),
        ("its spec", &|world| apply(world, "AgentProvider", "second", &provider(2))),
        ("the work item", &|world| apply(world, "ImplementationSpec", "work", &json!({"text": "do that"}))),
        ("a work item that cannot be read", &|world| {
            apply(world, "ImplementationSpec", "work", &json!({"text": ["do", "that"]}));
        }),
        ("one that can", &|world| apply(world, "ImplementationSpec", "work", &json!({"text": "do it"}))),
        ("the Agent once more", &|world| apply(world, "Agent", "agent", &json!({"providerRef": {"name": "provider"}}))),
    ];
    for (what, change) in changes {
        let before = world.object("agentruns", RUN).expect("it is there")["status"].clone();
        let read = reads(&world, |world| change(world)).await;
        let after = world.object("agentruns", RUN).expect("it is there")["status"].clone();
        // What is missing or cannot be read is known without the whole run; a status that is written is news too.
        let says = before["blockedBy"] != after["blockedBy"];
        let decided = if says { read <= 2 } else { read == 1 };
        assert!(decided, "{what}: {read} reads, {:#}", after["blockedBy"]);
    }
}
