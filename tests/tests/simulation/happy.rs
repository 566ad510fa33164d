//! What an undisturbed run costs.

use std::collections::BTreeSet;

use agents_tests::apimodel::{Broken, Log, RESOURCES};
use serde_json::json;

use super::{
    play::{Overhearing, keep_running, keep_whole_running, named, play, simulate},
    workload::{ALL, CANARY, HAPPY, RUN, SECOND, phase_seen},
};

/// `verb resource` of each write, in order.
fn writes(log: &Log) -> Vec<String> {
    log.writes()
        .0
        .iter()
        .map(|record| format!("{:?} {}{}", record.verb, record.resource, if record.status { "/status" } else { "" }))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_happy_run_takes_three_writes_and_no_read() {
    let played = play(&HAPPY, 1, |world| keep_whole_running(world, "a", false)).await;
    let log = played.log.from("a");
    assert_eq!(writes(&log), ["Create jobs", "Update agentruns/status", "Update agentruns/status"]);
    assert_eq!((played.end.phase(), played.end.reason()), ("Succeeded", "Completed"));
    assert!(log.gets().is_empty(), "{:?}", log.gets());
    let mut listed: Vec<_> = log.lists().0.iter().map(|record| record.resource).collect();
    listed.sort_unstable();
    let for_runs = ["agentproviders", "agentruns", "agents", "implementationspecs", "jobs", "pods"];
    let declared = RESOURCES.iter().filter(|resource| resource.is_declaration()).map(|resource| resource.plural);
    let watched: BTreeSet<_> = for_runs.into_iter().chain(declared).collect();
    assert_eq!(listed, Vec::from_iter(watched), "each kind once, and nothing for the run");
}

/// A definition that is older than the controller drops fields in silence: what could not be stored is not stored again
/// at every look.
#[tokio::test(start_paused = true)]
async fn a_field_that_the_definition_drops_costs_no_further_writes() {
    for dropped in ["conditions", "planDigest", "specHash"] {
        let world = HAPPY.world(1);
        world.older_definition(&[dropped]);
        let _controller = keep_running(&world, "a", false);
        phase_seen(&world, "Running").await;
        for label in 0..20 {
            tokio::time::sleep(SECOND / 10).await;
            let label = format!("l{label}");
            let mut run = world.object("agentruns", RUN).expect("the run is there");
            run["metadata"]["labels"][label] = json!("x");
            world.apply(&run.to_string());
        }
        assert!(world.until_terminal(60 * SECOND).await, "{dropped}");
        let log = world.log().from("a");
        let wanted = ["Create jobs", "Update agentruns/status", "Update agentruns/status"];
        assert_eq!(writes(&log), wanted, "{dropped}");
    }
}

/// What every other simulation relies on: a secret of its workload that anything says is seen.
#[tokio::test(start_paused = true)]
async fn a_secret_that_is_told_is_seen_in_any_workload() {
    for workload in ALL {
        let world = workload.world(1);
        world.check();
        let note = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "told"}, "data": {"k": format!("it is {CANARY}.")},
        });
        world.apply(&note.to_string());
        let broken: Vec<_> = world.violations().into_iter().map(|violation| violation.broken).collect();
        assert_eq!(broken, [Broken::CanaryStored("configmaps/told".to_owned())], "{}", workload.name);
    }
}

#[test]
fn a_secret_that_is_logged_is_overheard() {
    let logs = Overhearing::default();
    let _guard = logs.begin();
    tracing::info!(value = "harmless", "a line");
    assert!(!logs.was_told());
    tracing::warn!(value = CANARY, "a line");
    assert!(logs.was_told());
}

/// After a rest nothing proves that the cache is young, and one consistent read of the run does.
#[tokio::test(start_paused = true)]
async fn a_later_run_costs_no_list_and_after_a_rest_one_read() {
    for (rest, gets) in [(60, 0), (600, 1)] {
        let world = HAPPY.world(1);
        let _controller = keep_running(&world, "a", true);
        phase_seen(&world, "Succeeded").await;
        tokio::time::sleep(rest * SECOND).await;
        let began = world.clock().boot();
        let spec = "spec: {agentRef: {name: agent}, implementationSpecRef: {name: work}}";
        world.apply(&format!(
            "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: second}}\n{spec}\n"
        ));
        assert!(world.until_terminal(60 * SECOND).await);
        let log = world.log().from("a").since(began);
        assert_eq!(writes(&log), ["Create jobs", "Update agentruns/status", "Update agentruns/status"]);
        assert_eq!((log.gets().len(), log.lists().len()), (gets, 0), "{:#?}", log.gets());
    }
}

#[test]
fn a_settled_world_is_left_alone() {
    simulate(ALL.to_vec(), async |workload| {
        let played = play(&workload, 1, |world| keep_running(world, "a", true)).await;
        let mut faults = played.faults();
        let world = played.world;
        world.run_actors();
        let controller = keep_running(&world, "a", true);
        tokio::time::sleep(60 * SECOND).await;
        let settled = world.clock().boot();
        tokio::time::sleep(3600 * SECOND).await;
        let log = world.log().from("a").since(settled);
        let written = log.0.iter().filter(|record| record.verb.mutates() && record.resource != "leases");
        faults.extend(written.map(|record| format!("{record:?}")));
        drop(controller);
        world.stop_actors();
        named(|| workload.name.to_owned(), &faults).into_iter().collect()
    });
}
