//! The happy path: what is written and read for it, and what people see of it.

use std::time::Duration;

use agents_tests::hand_kubelet::{Exit, Play};
use anyhow::{Result, ensure};
use serde_json::json;
use xtask::cluster::Cluster;

use super::{
    controller::Options,
    stage::{CONTROLLER, condition, play, uid_of, what},
};

/// A run from its creation to its end costs three writes and no read.
pub(crate) fn a_run_costs_three_writes_and_no_read(cluster: &Cluster) -> Result<()> {
    play(cluster, "happy", async |stage| {
        stage.declarations().await?;
        let _controller = stage.controller().await?;
        stage.judged().await?;
        let kubelet = stage.kubelet();
        let mark = stage.mark()?;
        let run = stage.happy_run("hello").await?;
        let pod = kubelet.pod(uid_of(&run), 1).await?;
        kubelet.start(&pod).await?;
        let running = stage.run_in("hello", "Running").await?;
        ensure!(condition(&running, "InProgress") == "True", "{running:#}");
        kubelet.end(&pod, &Exit::success(&pod)).await?;
        let done = stage.run_in("hello", "Succeeded").await?;
        ensure!(condition(&done, "Succeeded") == "True" && condition(&done, "Ready") == "True", "{done:#}");
        // The Job ends a while after its container; that must not cost anything either.
        stage
            .until("the end of the Job", || async {
                let jobs = stage.all("jobs").await?;
                Ok(jobs.into_iter().find(|job| job["status"]["succeeded"] == 1))
            })
            .await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = stage.controllers_asked(mark)?;
        ensure!(what(&asked) == ["create jobs", "update agentruns/status", "update agentruns/status"], "{asked:#?}");
        Ok(())
    })
}

/// Nothing that a controller does in a run's life is beyond the generated rights, the lease and Events included.
pub(crate) fn the_generated_rights_suffice(cluster: &Cluster) -> Result<()> {
    play(cluster, "rights", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|pod| {
            let hangs = pod.metadata.name.as_ref().is_some_and(|name| name.starts_with("hangs"));
            if hangs { Play::Hang } else { Play::Succeed(Duration::ZERO) }
        });
        let options = Options { arguments: &["--lease-name=agents"], ..Options::default() };
        let controller = stage.controller_with(options).await?;
        stage.run("succeeds", &json!({})).await?;
        stage.run("hangs", &json!({})).await?;
        stage.run_in("succeeds", "Succeeded").await?;
        stage.run_in("hangs", "Running").await?;
        stage.patch("agentruns", "hangs", &json!({"spec": {"cancel": true}})).await?;
        stage.run_in("hangs", "Cancelled").await?;
        controller.terminate()?;
        let asked = stage.asked_since(0)?;
        let ours: Vec<_> = asked.iter().filter(|asked| asked.who.ends_with(CONTROLLER)).collect();
        for wanted in ["create jobs", "delete jobs", "update agentruns/status", "create events", "update leases"] {
            ensure!(ours.iter().any(|asked| asked.what() == wanted), "no {wanted} in {ours:#?}");
        }
        let refused: Vec<_> = ours.iter().filter(|asked| asked.code == 403).collect();
        ensure!(refused.is_empty(), "{refused:#?}");
        Ok(())
    })
}

/// A controller that had nothing to do for a while starts the next run with at most one read.
pub(crate) fn an_idle_controller_starts_at_once(cluster: &Cluster) -> Result<()> {
    play(cluster, "idle", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _controller = stage.controller().await?;
        stage.run("first", &json!({})).await?;
        stage.run_in("first", "Succeeded").await?;
        stage.judged().await?;
        // An API server refuses some watches of definitions that are new to it, and those are listed again.
        let settled = async || {
            let mark = stage.mark()?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(stage.controllers_asked(mark)?.is_empty().then_some(()))
        };
        stage.until("the watches are settled", settled).await?;
        let quiet = stage.mark()?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let asked = stage.controllers_asked(quiet)?;
        ensure!(asked.is_empty(), "an idle controller asked: {asked:#?}");
        let mark = stage.mark()?;
        stage.run("second", &json!({})).await?;
        stage.run_in("second", "Succeeded").await?;
        let asked = stage.controllers_asked(mark)?;
        let reads = asked.iter().filter(|asked| !asked.is_write()).count();
        println!("a run after 20 s of nothing: {} writes, {reads} reads", asked.len() - reads);
        // A run that ends before it was seen to start needs one write less.
        ensure!(reads <= 1 && asked.len() - reads <= 3, "{asked:#?}");
        Ok(())
    })
}
