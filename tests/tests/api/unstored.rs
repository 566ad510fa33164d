//! Statuses that the API server does not take, for a right that is missing or for want of room.

use std::time::Duration;

use agents_core::marks::ANNOTATION_KEPT;
use agents_tests::hand_kubelet::Play;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::{
    kills::each_job_was_created_once,
    stage::{CONTROLLER, job_of, phase_of, play, reason_of},
};

/// Without the right to store a status, the Job is kept as the record, people are told, and a new controller without
/// memory starts nothing twice; with the right again the status says what became of the run, and the Job goes in time.
pub(crate) fn a_status_that_is_refused_is_told_and_its_job_kept(cluster: &Cluster) -> Result<()> {
    play(cluster, "refused-status", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let first = stage.controller().await?;
        let role = stage.find("roles", CONTROLLER).await?.context("the controller's Role")?;
        let mut without = role["rules"].clone();
        for rule in without.as_array_mut().into_iter().flatten() {
            if let Some(resources) = rule["resources"].as_array_mut() {
                resources.retain(|resource| resource != "agentruns/status");
            }
        }
        stage.patch("roles", CONTROLLER, &json!({"rules": without})).await?;
        let may = ["auth", "can-i", "update", "agentruns.agents.proompteng.ai", "--subresource=status"];
        let subject = format!("--as=system:serviceaccount:{}:{CONTROLLER}", stage.namespace);
        let may: Vec<&str> = may.into_iter().chain([subject.as_str()]).collect();
        stage.until("the loss of the right", || async { Ok(stage.kubectl(&may).is_err().then_some(())) }).await?;

        let run = stage.run("untold", &json!({})).await?;
        let name = job_of(&run, 1);
        let kept = |job: &Value| {
            job["metadata"]["annotations"][ANNOTATION_KEPT].is_string()
                && job["spec"]["ttlSecondsAfterFinished"].is_null()
        };
        let find = async || Ok(stage.find("jobs", &name).await?.filter(|job| kept(job)));
        stage.until("the kept Job", find).await?;
        stage
            .until("the word of it", || async {
                let page = first.readiness().unwrap_or_default();
                let told = stage.kubectl(&["describe", "agentrun", "untold"])?;
                let said = page.contains(" 200 ") && page.contains("1 statuses cannot be stored, such as");
                Ok((said && page.contains("untold") && told.contains("StatusRefused")).then_some(()))
            })
            .await?;
        first.kill()?;
        let second = stage.controller().await?;
        stage
            .until("the same from another controller", || async {
                let run = stage.find("agentruns", "untold").await?.context("the run")?;
                ensure!(run["status"] == json!({"phase": "Pending"}), "{:#}", run["status"]);
                Ok(second.readiness().unwrap_or_default().contains("cannot be stored").then_some(()))
            })
            .await?;
        stage.patch("roles", CONTROLLER, &json!({"rules": role["rules"]})).await?;
        stage.run_in("untold", "Succeeded").await?;
        stage
            .until("the Job's time", || async {
                let job = stage.find("jobs", &name).await?.context("its Job")?;
                let annotated = job["metadata"]["annotations"][ANNOTATION_KEPT].is_string();
                Ok((!annotated && job["spec"]["ttlSecondsAfterFinished"] == 86_400).then_some(()))
            })
            .await?;
        each_job_was_created_once(stage, 1, 1).await
    })
}

/// A run that leaves no room for its status is told so before anything starts; etcd would take no status of it.
pub(crate) fn a_run_without_room_for_its_status_is_an_invalid_spec(cluster: &Cluster) -> Result<()> {
    play(cluster, "no-room", async |stage| {
        stage.declarations().await?;
        let _controller = stage.controller().await?;
        let payloads: serde_json::Map<_, _> =
            (0..15).map(|n| (format!("p{n:02}"), json!("x".repeat(100_000)))).collect();
        stage.run("large", &json!({"payloads": payloads})).await?;
        let run = stage.run_in("large", "Failed").await?;
        let message = run["status"]["message"].as_str().unwrap_or_default();
        ensure!(phase_of(&run) == "Failed" && reason_of(&run) == "InvalidSpec", "{:#}", run["status"]);
        ensure!(message.contains("1441792") && message.contains("1572864"), "{message}");
        each_job_was_created_once(stage, 0, 0).await
    })
}
