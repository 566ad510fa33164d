//! Two controllers and one lease: one acts, and the other takes over.

use std::time::{Duration, Instant};

use agents_tests::hand_kubelet::Play;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use xtask::cluster::Cluster;

use super::{
    controller::{Controller, Options},
    kills::each_job_was_created_once,
    stage::{CONTROLLER, Stage, play},
};

/// The lease's duration, as the controller has it.
const LEASE: Duration = Duration::from_secs(15);

/// One of two controllers acts. It is followed at once when it is asked to stop, and after the lease's duration when it
/// is killed; the times are printed.
pub(crate) fn one_acts_and_the_other_takes_over(cluster: &Cluster) -> Result<()> {
    play(cluster, "lease", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let accounts = ["first", "second", "third"].map(|word| format!("{CONTROLLER}-{word}"));
        let first = start(stage, &accounts[0]).await?;
        leads(stage, &first).await?;
        let second = start(stage, &accounts[1]).await?;
        let mark = stage.mark()?;
        for n in 0..3 {
            stage.run(&format!("one-{n}"), &json!({})).await?;
        }
        for n in 0..3 {
            stage.run_in(&format!("one-{n}"), "Succeeded").await?;
        }
        let asked = stage.controllers_asked(mark)?;
        ensure!(asked.iter().all(|asked| asked.who.ends_with(&accounts[0])), "the other one acted: {asked:#?}");
        ensure!(!second.leads(), "two lead");

        let asked = Instant::now();
        let stopped = first.terminate()?;
        leads(stage, &second).await?;
        let after = asked.elapsed();
        stage.run("after-term", &json!({})).await?;
        stage.run_in("after-term", "Succeeded").await?;
        println!("SIGTERM: ended after {stopped:?}, followed after {after:?}");
        // A lease that is not given away is respected for its whole duration.
        ensure!(after < LEASE / 2, "{after:?}");

        let third = start(stage, &accounts[2]).await?;
        second.kill()?;
        let killed = Instant::now();
        // Nobody leads now; the run waits.
        stage.run("after-kill", &json!({})).await?;
        leads(stage, &third).await?;
        let after = killed.elapsed();
        println!("SIGKILL: followed after {after:?}");
        ensure!(after < LEASE * 2, "{after:?}");
        stage.run_in("after-kill", "Succeeded").await?;
        each_job_was_created_once(stage, 5, 1).await
    })
}

async fn start(stage: &Stage<'_>, account: &str) -> Result<Controller> {
    let options = Options { account, arguments: &["--lease-name=agents"] };
    stage.controller_with(options).await.with_context(|| format!("as {account}"))
}

async fn leads(stage: &Stage<'_>, controller: &Controller) -> Result<()> {
    stage.until("a leader", || async { Ok(controller.leads().then_some(())) }).await
}
