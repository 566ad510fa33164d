//! Controllers that die without a last word, and controllers that know nothing of each other: one Job per attempt.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use agents_tests::hand_kubelet::{Exit, Play};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use xtask::cluster::Cluster;

use super::stage::{Stage, job_of, play, uid_of};

/// Killed at each stage of a run and started again, the controller finds everything it needs.
pub(crate) fn a_kill_at_each_stage_changes_nothing(cluster: &Cluster) -> Result<()> {
    play(cluster, "kills", async |stage| {
        stage.declarations().await?;
        let kubelet = stage.kubelet();

        let controller = stage.controller().await?;
        let run = stage.run("job-appears", &json!({})).await?;
        let job = job_of(&run, 1);
        stage.until("the Job", || stage.find("jobs", &job)).await?;
        controller.kill()?;
        let controller = stage.controller().await?;
        let pod = kubelet.pod(uid_of(&run), 1).await?;
        controller.kill()?;
        // Running while nobody looks.
        kubelet.start(&pod).await?;
        let controller = stage.controller().await?;
        stage.run_in("job-appears", "Running").await?;
        controller.kill()?;
        // Ended while nobody looks.
        kubelet.end(&pod, &Exit::success(&pod)).await?;
        let controller = stage.controller().await?;
        stage.run_in("job-appears", "Succeeded").await?;

        let run = stage.run("end-is-stored", &json!({})).await?;
        let pod = kubelet.pod(uid_of(&run), 1).await?;
        kubelet.start(&pod).await?;
        stage.run_in("end-is-stored", "Running").await?;
        kubelet.end(&pod, &Exit::provider_exit(&pod, 3)).await?;
        // Before it can have stored anything, or right after.
        controller.kill()?;
        let controller = stage.controller().await?;
        let failed = stage.run_in("end-is-stored", "Failed").await?;
        ensure!(failed["status"]["reason"] == "ProviderExited", "{failed:#}");
        ensure!(failed["status"]["attempts"][0]["exitCode"] == 3, "{failed:#}");

        let retry = json!({"retryPolicy": {"limit": 1, "backoffSeconds": 3}});
        let run = stage.run("backoff", &retry).await?;
        let pod = kubelet.pod(uid_of(&run), 1).await?;
        kubelet.start(&pod).await?;
        kubelet.end(&pod, &Exit::provider_exit(&pod, 1)).await?;
        let backoff = |run: &serde_json::Value| run["status"]["blockedBy"][0]["reason"] == "Backoff";
        stage.run_when("backoff", "waiting for its second attempt", backoff).await?;
        controller.kill()?;
        let controller = stage.controller().await?;
        let pod = kubelet.pod(uid_of(&run), 2).await?;
        kubelet.start(&pod).await?;
        stage
            .run_when("backoff", "its second attempt", |run| run["status"]["attempts"][1]["startedAt"].is_string())
            .await?;
        controller.kill()?;
        kubelet.end(&pod, &Exit::success(&pod)).await?;
        let _controller = stage.controller().await?;
        let done = stage.run_in("backoff", "Succeeded").await?;
        ensure!(done["status"]["attempt"] == 2, "{done:#}");
        each_job_was_created_once(stage, 4, 6).await
    })
}

/// Killed at moments that a seed chooses, in the course of ten runs that overlap.
pub(crate) fn kills_at_any_moment_start_nothing_twice(cluster: &Cluster) -> Result<()> {
    play(cluster, "random-kills", async |stage| {
        stage.declarations().await?;
        let work = Duration::from_millis(700);
        let _attendance = stage.kubelet().attend(move |_| Play::Succeed(work));
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        for n in 0..10 {
            // A linear congruence is random enough to choose a moment.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let delay = Duration::from_millis((seed >> 33) % 900);
            let controller = stage.launch(Default::default())?;
            let run = format!("run-{n}");
            stage.run(&run, &json!({})).await?;
            tokio::time::sleep(delay).await;
            controller.kill().with_context(|| format!("after {delay:?}"))?;
        }
        let _controller = stage.controller().await?;
        for n in 0..10 {
            stage.run_in(&format!("run-{n}"), "Succeeded").await?;
        }
        each_job_was_created_once(stage, 10, 10).await
    })
}

/// Two controllers without an election give the result of one.
pub(crate) fn two_controllers_without_a_lease_are_one(cluster: &Cluster) -> Result<()> {
    play(cluster, "two-blind", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|pod| {
            let first = pod.metadata.labels.as_ref().and_then(|labels| labels.get("agents.proompteng.ai/attempt"));
            let fails = first.is_some_and(|attempt| attempt == "1");
            let work = Duration::from_millis(200);
            if fails { Play::Fail(1, work) } else { Play::Succeed(work) }
        });
        let _one = stage.controller().await?;
        let _two = stage.controller().await?;
        for n in 0..6 {
            let retry = json!({"retryPolicy": {"limit": 1, "backoffSeconds": 0}});
            stage.run(&format!("run-{n}"), &retry).await?;
        }
        for n in 0..6 {
            let run = stage.run_in(&format!("run-{n}"), "Succeeded").await?;
            ensure!(run["status"]["attempts"].as_array().is_some_and(|all| all.len() == 2), "{run:#}");
        }
        each_job_was_created_once(stage, 12, 0).await
    })
}

/// The database and the API server are killed in mid-run and come back: the run ends as it would have.
pub(crate) fn the_death_of_the_api_server_is_survived(_: &Cluster) -> Result<()> {
    use xtask::cluster::{Component, Options};
    // A cluster of its own: the others' cases need theirs alive.
    let cluster = Cluster::start(Options::default())?;
    super::stage::prepare(&cluster)?;
    play(&cluster, "server-dies", async |stage| {
        stage.declarations().await?;
        let mut controller = stage.controller().await?;
        let kubelet = stage.kubelet();
        for component in [Component::ApiServer, Component::Etcd] {
            let name = format!("with-{component:?}").to_lowercase();
            let run = stage.run(&name, &json!({})).await?;
            let pod = kubelet.pod(uid_of(&run), 1).await?;
            tokio::task::block_in_place(|| cluster.restart(component))?;
            // Asked while the controller may still wait before it calls again.
            stage.until("a started pod", || async { kubelet.start(&pod).await.map(Some) }).await?;
            stage.run_in(&name, "Running").await?;
            tokio::task::block_in_place(|| cluster.kill9(component))?;
            tokio::task::block_in_place(|| cluster.restart(component))?;
            let back = Instant::now();
            stage.until("an ended pod", || async { kubelet.end(&pod, &Exit::success(&pod)).await.map(Some) }).await?;
            stage.run_in(&name, "Succeeded").await?;
            println!("a run ends {:?} after {component:?} is back", back.elapsed());
        }
        ensure!(controller.lives()?, "the controller went on");
        each_job_was_created_once(stage, 2, 2).await
    })?;
    cluster.stop()
}

/// That exactly `jobs` Jobs were ever created in the namespace, each once, as the audit log has it. A create is not audited
/// as one when its sender was killed before the answer came, which can be so of as many as there were `kills`.
pub(crate) async fn each_job_was_created_once(stage: &Stage<'_>, jobs: usize, kills: usize) -> Result<()> {
    let mut created: BTreeMap<String, usize> = BTreeMap::new();
    for asked in stage.asked_since(0)? {
        if asked.verb == "create" && asked.resource == "jobs" && asked.code == 201 {
            *created.entry(asked.name).or_default() += 1;
        }
    }
    let audited = created.len();
    for job in stage.all("jobs").await? {
        created.entry(job["metadata"]["name"].as_str().unwrap_or_default().to_owned()).or_insert(1);
    }
    let unaudited = created.len() - audited;
    ensure!(unaudited <= kills, "{unaudited} Jobs were created and not audited: {created:#?}");
    ensure!(created.values().all(|times| *times == 1) && created.len() == jobs, "{jobs} Jobs expected: {created:#?}");
    Ok(())
}
