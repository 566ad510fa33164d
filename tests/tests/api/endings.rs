//! Every way a run ends that is not success: each has its reason, and nothing of it stays.

use std::time::Duration;

use agents_core::{api::agent_run::Stopping, marks::LABEL_ATTEMPT, report::Ended};
use agents_tests::hand_kubelet::{Exit, Play, report};
use anyhow::{Context as _, Result, ensure};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::{
    controller::Options,
    kills::each_job_was_created_once,
    stage::{Stage, condition, job_of, phase_of, play, reason_of, uid_of},
};

/// A cancelled run ends its pod, then says so; one that had not started never does.
pub(crate) fn a_cancelled_run_ends_its_pod(cluster: &Cluster) -> Result<()> {
    play(cluster, "cancelled", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Hang);
        let _controller = stage.controller().await?;
        stage.run("running", &json!({})).await?;
        stage.run_in("running", "Running").await?;
        stage.patch("agentruns", "running", &json!({"spec": {"cancel": true}})).await?;
        let run = stage.run_in("running", "Cancelled").await?;
        let stopping: Stopping = serde_json::from_value(run["status"]["attempts"][0]["stopping"].clone())?;
        ensure!(stopping.reason == "Cancelled" && condition(&run, "Cancelled") == "True", "{run:#}");
        stage.kubectl(&["wait", "--for=condition=Cancelled", "--timeout=30s", "agentrun/running"])?;
        nothing_stays(stage).await?;
        stage.run("suspended", &json!({"suspend": true})).await?;
        stage.run_when("suspended", "held", |run| reason_of(run) == "Suspended").await?;
        stage.patch("agentruns", "suspended", &json!({"spec": {"cancel": true}})).await?;
        stage.run_in("suspended", "Cancelled").await?;
        each_job_was_created_once(stage, 1, 0).await
    })
}

/// A terminal phase that somebody wrote is believed, and what the run executes is ended.
pub(crate) fn a_forged_end_ends_the_job(cluster: &Cluster) -> Result<()> {
    play(cluster, "forged-end", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Hang);
        let _controller = stage.controller().await?;
        stage.run("running", &json!({})).await?;
        stage.run_in("running", "Running").await?;
        let forged = "{\"status\":{\"phase\":\"Cancelled\"}}";
        stage.kubectl(&["patch", "agentrun", "running", "--subresource=status", "--type=merge", "-p", forged])?;
        stage.until("the end of the Job", || async { Ok(stage.all("jobs").await?.is_empty().then_some(())) }).await?;
        nothing_stays(stage).await?;
        let run = stage.run_in("running", "Cancelled").await?;
        ensure!(phase_of(&run) == "Cancelled", "{run:#}");
        each_job_was_created_once(stage, 1, 0).await
    })
}

/// A run deleted in mid-run takes its Job and its pod along, whatever the order.
pub(crate) fn a_deleted_run_takes_everything_along(cluster: &Cluster) -> Result<()> {
    play(cluster, "deleted", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Hang);
        let _controller = stage.controller().await?;
        for (name, how) in [("background", DeleteParams::background()), ("foreground", DeleteParams::foreground())] {
            stage.run(name, &json!({})).await?;
            stage.run_in(name, "Running").await?;
            stage.api("agentruns").delete(name, &how).await?;
            stage
                .until("the end of the run", || async {
                    Ok(stage.find("agentruns", name).await?.is_none().then_some(()))
                })
                .await?;
            nothing_stays(stage).await?;
        }
        each_job_was_created_once(stage, 2, 0).await
    })
}

/// What the kubelet says of an attempt becomes its reason.
pub(crate) fn each_end_has_its_reason(cluster: &Cluster) -> Result<()> {
    play(cluster, "endings", async |stage| {
        stage.declarations().await?;
        let kubelet = stage.kubelet();
        let _controller = stage.controller().await?;
        for (name, reason) in [
            ("out-of-memory", "OutOfMemory"),
            ("evicted", "Evicted"),
            ("no-report", "ReportLost"),
            ("exit", "ProviderExited"),
            ("late", "DeadlineExceeded"),
            ("output", "OutputMissing"),
        ] {
            let spec = json!({"outputs": if name == "output" { json!([{"name": "report"}]) } else { json!([]) }});
            let run = stage.run(name, &spec).await?;
            let pod = kubelet.pod(uid_of(&run), 1).await?;
            kubelet.start(&pod).await?;
            stage.run_in(name, "Running").await?;
            match name {
                "out-of-memory" => kubelet.end(&pod, &Exit::out_of_memory()).await?,
                "evicted" => kubelet.evict(&pod).await?,
                "no-report" => kubelet.end(&pod, &Exit { message: None, ..Exit::success(&pod) }).await?,
                "exit" => kubelet.end(&pod, &Exit::provider_exit(&pod, 3)).await?,
                "late" => {
                    let mut report = report(&pod, Ended::Failed);
                    report.reason = Some("DeadlineExceeded".to_owned());
                    let message = Some(report.termination_message());
                    kubelet.end(&pod, &Exit { code: 1, reason: "Error".to_owned(), message }).await?;
                }
                _ => kubelet.end(&pod, &Exit::success(&pod)).await?,
            }
            let run = stage.run_in(name, "Failed").await?;
            ensure!(reason_of(&run) == reason, "{name}: {run:#}");
            ensure!(condition(&run, "Failed") == "True" && condition(&run, "Stalled") == "True", "{run:#}");
        }
        Ok(())
    })
}

/// An image that cannot be pulled is shown while it is tried, and fails the attempt when it lasts.
pub(crate) fn an_image_that_cannot_be_pulled_is_shown(cluster: &Cluster) -> Result<()> {
    play(cluster, "image", async |stage| {
        stage.declarations().await?;
        let kubelet = stage.kubelet();
        let options = Options { arguments: &["--start-limit-seconds=4"], ..Options::default() };
        let _controller = stage.controller_with(options).await?;
        let run = stage.run("typo", &json!({})).await?;
        let pod = kubelet.pod(uid_of(&run), 1).await?;
        let why = "Back-off pulling image \"typo.invalid/a\": ErrImagePull: no such host";
        kubelet.hold(&pod, "ImagePullBackOff", why).await?;
        let run = stage.run_when("typo", "the hint", |run| reason_of(run) == "ImagePullFailed").await?;
        ensure!(phase_of(&run) == "Pending" && condition(&run, "Blocked") == "True", "{run:#}");
        let blocked = &run["status"]["blockedBy"][0];
        ensure!(blocked["message"].as_str().is_some_and(|text| text.contains("no such host")), "{run:#}");
        ensure!(blocked["unblockedBy"].as_str().is_some_and(|text| !text.is_empty()), "{run:#}");
        let _attendance = kubelet.attend(|_| Play::Leave);
        let run = stage.run_in("typo", "Failed").await?;
        ensure!(reason_of(&run) == "ImagePullFailed", "{run:#}");
        nothing_stays(stage).await
    })
}

/// The Job's own deadline is later than the runner's, and ends the run when the runner does not.
pub(crate) fn a_deadline_is_kept_from_outside(cluster: &Cluster) -> Result<()> {
    play(cluster, "deadline", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Hang);
        let _controller = stage.controller().await?;
        let run = stage.run("slow", &json!({"timeoutSeconds": 1})).await?;
        stage.run_in("slow", "Running").await?;
        let name = job_of(&run, 1);
        let job = stage.find("jobs", &name).await?.context("its Job")?;
        // Not before the run's second, the grace's and the minute in which a runner reports.
        ensure!(job["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 62), "{job:#}");
        // Nobody waits for that here.
        stage.patch("jobs", &name, &json!({"spec": {"activeDeadlineSeconds": 1}})).await?;
        let run = stage.run_in("slow", "Failed").await?;
        ensure!(reason_of(&run) == "DeadlineExceeded", "{run:#}");
        each_job_was_created_once(stage, 1, 0).await
    })
}

/// A Job deleted behind the controller's back is a lost attempt, and a retry is a new one.
pub(crate) fn a_job_deleted_behind_us_is_lost(cluster: &Cluster) -> Result<()> {
    play(cluster, "lost", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|pod| {
            let attempt = pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ATTEMPT));
            if attempt.is_some_and(|attempt| attempt == "1") { Play::Hang } else { Play::Succeed(Duration::ZERO) }
        });
        let _controller = stage.controller().await?;
        let once = stage.run("once", &json!({})).await?;
        let again = stage.run("again", &json!({"retryPolicy": {"limit": 1, "backoffSeconds": 0}})).await?;
        for run in [&once, &again] {
            let name = run["metadata"]["name"].as_str().unwrap_or_default();
            stage.run_in(name, "Running").await?;
            stage.delete("jobs", &job_of(run, 1)).await?;
        }
        let run = stage.run_in("once", "Failed").await?;
        ensure!(reason_of(&run) == "Lost", "{run:#}");
        let run = stage.run_in("again", "Succeeded").await?;
        ensure!(run["status"]["attempts"][0]["reason"] == "Lost", "{run:#}");
        each_job_was_created_once(stage, 3, 0).await
    })
}

/// Failed attempts are repeated after growing waits, as often as asked for.
pub(crate) fn retries_wait_and_end(cluster: &Cluster) -> Result<()> {
    play(cluster, "retries", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Fail(7, Duration::ZERO));
        let _controller = stage.controller().await?;
        stage.run("stubborn", &json!({"retryPolicy": {"limit": 2, "backoffSeconds": 1}})).await?;
        let run = stage.run_in("stubborn", "Failed").await?;
        let attempts = run["status"]["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 3 && attempts.iter().all(|attempt| attempt["exitCode"] == 7), "{run:#}");
        let at = |attempt: &Value, field: &str| -> Result<jiff::Timestamp> {
            Ok(attempt[field].as_str().context("a time")?.parse()?)
        };
        for (pair, wait) in attempts.windows(2).zip([1, 2]) {
            let waited = at(&pair[1], "submittedAt")?.duration_since(at(&pair[0], "finishedAt")?);
            ensure!(waited.as_secs() >= wait, "waited {waited} instead of {wait} s: {run:#}");
        }
        ensure!(run["status"]["message"].as_str().is_some_and(|text| text.contains("3 of 3")), "{run:#}");
        each_job_was_created_once(stage, 3, 0).await
    })
}

/// That no Job and no pod is left in the end.
async fn nothing_stays(stage: &Stage<'_>) -> Result<()> {
    stage
        .until("nothing left", || async {
            let left = [stage.all("jobs").await?, stage.all("pods").await?].concat();
            Ok(left.is_empty().then_some(()))
        })
        .await
}
