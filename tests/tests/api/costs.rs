//! Templates that cost as much as they can, in one namespace of two under one controller.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use agents_tests::{controller::lend, hand_kubelet::Play};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::{
    controller::Options,
    stage::{CONTROLLER, Stage, agent, condition, play, reason_of},
};

/// Runs of the neighbour, before and meanwhile.
const RUNS: usize = 30;
/// Dear runs, as many refused as admitted.
const DEAR: usize = 20;

/// A provider whose one argument does `work` so many times, for a run with a payload that counts them.
fn repeating(name: &str, work: &str) -> Value {
    let source = format!("{{% for i in payloads.n %}}{work}{{% endfor %}}done");
    json!({"metadata": {"name": name}, "spec": {"binary": "/bin/sh", "argsTemplate": ["-c", "true", source]}})
}

/// From the creation of each run to its end, the longest last.
async fn ordinary(stage: &Stage<'_>, name: &str) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for n in 0..RUNS {
        let name = format!("{name}-{n}");
        let began = Instant::now();
        stage.run(&name, &json!({})).await?;
        stage.run_in(&name, "Succeeded").await?;
        took.push(began.elapsed());
    }
    took.sort();
    Ok(took)
}

/// One namespace holds runs whose templates cost as much as is admitted, and more: those end with `TemplateLimit`, the
/// health page answers, and the runs of the other namespace go on.
pub(crate) fn dear_templates_hold_nobody_up(cluster: &Cluster) -> Result<()> {
    play(cluster, "dear", async |stage| {
        let neighbour = stage.beside("dear-neighbour").await?;
        tokio::task::block_in_place(|| lend(cluster, &stage.namespace, &neighbour.namespace, CONTROLLER))?;
        neighbour.declarations().await?;
        for (name, work) in
            [("refused", "{% if (payloads.t | tojson) == i %}{% endif %}"), ("admitted", "{% set a = i ~ i ~ i %}")]
        {
            stage.create("agentproviders", &repeating(name, work)).await?;
            stage.create("agents", &agent(name, name)).await?;
        }
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _neighbours = neighbour.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let arguments = ["--namespace=dear-neighbour"];
        let controller = stage.controller_with(Options { arguments: &arguments, ..Options::default() }).await?;
        let undisturbed = ordinary(&neighbour, "before").await?;

        let over = AtomicBool::new(false);
        let watched = async {
            let mut silent = 0;
            while !over.load(Ordering::Relaxed) {
                silent += usize::from(!tokio::task::block_in_place(|| controller.is_healthy()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            silent
        };
        let disturbed = async {
            for n in 0..DEAR / 2 {
                for (name, times) in [("refused", 100_000), ("admitted", 20_000)] {
                    let payloads = json!({"t": "<".repeat(20 * 1024), "n": "i".repeat(times)});
                    stage
                        .run(&format!("{name}-{n}"), &json!({"agentRef": {"name": name}, "payloads": payloads}))
                        .await?;
                }
            }
            let took = ordinary(&neighbour, "meanwhile").await;
            for n in 0..DEAR / 2 {
                let run = stage.run_in(&format!("refused-{n}"), "Failed").await?;
                let message = run["status"]["message"].as_str().unwrap_or_default();
                ensure!(reason_of(&run) == "TemplateLimit" && condition(&run, "InvalidSpec") == "True", "{run:#}");
                ensure!(message.contains("AgentProvider/refused: argsTemplate[2]"), "{message}");
                stage.run_in(&format!("admitted-{n}"), "Succeeded").await?;
            }
            took
        };
        let (disturbed, silent) = tokio::join!(
            async {
                let result = disturbed.await;
                over.store(true, Ordering::Relaxed);
                result
            },
            watched
        );
        let disturbed = disturbed?;
        let figures = |took: &[Duration]| format!("p50 {:?}, slowest {:?}", took[took.len() / 2], took[took.len() - 1]);
        println!("undisturbed: {}; beside dear runs: {}", figures(&undisturbed), figures(&disturbed));
        ensure!(silent == 0, "the health page was silent {silent} times");
        // A machine may be slow, and one run meets whatever else it does; but nobody waits for what another namespace
        // renders. What that adds in milliseconds is measured by `cargo xtask bench neighbours`.
        let slowed = |n: usize, slack: u64| disturbed[n] > undisturbed[n] * 2 + Duration::from_secs(slack);
        ensure!(!slowed(RUNS / 2, 1) && !slowed(RUNS - 1, 5), "{undisturbed:?}; beside dear runs: {disturbed:?}");
        neighbour.api("namespaces").delete(&neighbour.namespace, &kube::api::DeleteParams::background()).await?;
        Ok(())
    })
}
