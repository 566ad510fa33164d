//! A run whose templates cost more than may be is judged, and nobody else waits for it.

use std::sync::Arc;

use agents_tests::apimodel::{Outcome, World};
use serde_json::json;

use super::{
    play::keep_whole_running,
    workload::{RUN, SECOND, apply_references, apply_run, phase_seen},
};

/// Work in a loop over a long payload: minutes of a processor, were it done.
const DEAR: &str = "{% for a in payloads.t %}{% if (payloads.t | tojson) == a %}{% endif %}{% endfor %}";

fn apply(world: &World, kind: &str, name: &str, spec: &serde_json::Value) {
    let api = "agents.proompteng.ai/v1alpha1";
    world.apply(&json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string());
}

fn status(world: &World, name: &str) -> serde_json::Value {
    world.object("agentruns", name).map(|run| run["status"].clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_costs_too_much_is_judged_and_the_others_go_on() {
    let world = Arc::new(World::new(1));
    world.run_actors();
    apply_references(&world, &["Agent", "AgentProvider", "ImplementationSpec"]);
    let provider = json!({"binary": "sh", "argsTemplate": ["-c", "true", DEAR, DEAR, DEAR]});
    apply(&world, "AgentProvider", "dear", &provider);
    apply(&world, "Agent", "dear", &json!({"providerRef": {"name": "dear"}}));
    // The dear ones are there first, and met again by each controller that starts.
    let run = json!({
        "agentRef": {"name": "dear"}, "implementationSpecRef": {"name": "work"}, "payloads": {"t": "<".repeat(127 * 1024)},
    });
    for n in 0..5 {
        apply(&world, "AgentRun", &format!("dear-{n}"), &run);
    }
    world.outcomes(RUN, vec![Outcome::Exit { code: 0, after: SECOND }]);
    apply_run(&world, json!({}));
    let _controller = keep_whole_running(&world, "a", true);
    phase_seen(&world, "Succeeded").await;
    for n in 0..5 {
        let name = format!("dear-{n}");
        world.until(60 * SECOND, |world| status(world, &name)["phase"] == "Failed").await;
        let status = status(&world, &name);
        assert_eq!(status["reason"], "TemplateLimit", "{status:#}");
        let message = status["message"].as_str().expect("a message");
        assert!(
            message.contains("AgentProvider/dear: argsTemplate[2]") && message.contains("costs too much"),
            "{message}"
        );
    }
    let jobs = world.log().from("a").writes().0.iter().filter(|record| record.resource == "jobs").count();
    assert_eq!(jobs, 1, "only of the run that is right");
}
