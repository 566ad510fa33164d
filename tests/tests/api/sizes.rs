//! The largest that the definitions admit: names of 253 characters, specs that fit no annotation.

use std::{collections::BTreeSet, time::Duration};

use agents_core::plan::{RunnerSpec, pod::SPEC_FILE};
use agents_runtime::spec_file;
use agents_tests::hand_kubelet::Play;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use serde_json::json;
use xtask::cluster::Cluster;

use super::{
    kills::each_job_was_created_once,
    stage::{job_of, play, uid_of},
};

/// Names of 253 characters work, also when they are alike but for their ends.
pub(crate) fn the_longest_names_work(cluster: &Cluster) -> Result<()> {
    play(cluster, "long-names", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _controller = stage.controller().await?;
        let names = ["a", "b", "c"].map(|end| format!("{}{end}", "long.name-".repeat(25) + "xx"));
        let mut children = BTreeSet::new();
        for name in &names {
            ensure!(name.len() == 253);
            let run = stage.run(name, &json!({})).await?;
            children.insert(job_of(&run, 1));
        }
        for name in &names {
            let run = stage.run_in(name, "Succeeded").await?;
            let job = stage.find("jobs", &job_of(&run, 1)).await?.context("its Job")?;
            ensure!(job["metadata"]["ownerReferences"][0]["uid"] == uid_of(&run), "{job:#}");
            ensure!(job["metadata"]["annotations"]["agents.proompteng.ai/run"] == name.as_str(), "{job:#}");
        }
        ensure!(children.len() == 3, "{children:?}");
        each_job_was_created_once(stage, 3, 0).await
    })
}

/// A spec that fits no annotation travels in a ConfigMap that belongs to the run, at the price of one more write.
pub(crate) fn a_large_spec_travels_in_a_config_map(cluster: &Cluster) -> Result<()> {
    play(cluster, "large-spec", async |stage| {
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _controller = stage.controller().await?;
        let mark = stage.mark()?;
        let (text, description) = (noise(1, 126 * 1024), noise(2, 128 * 1024));
        let work = json!({"implementation": {"inline": {"text": text, "description": description}}});
        let run = stage.run("large", &work).await?;
        stage.run_in("large", "Succeeded").await?;
        let job = stage.find("jobs", &job_of(&run, 1)).await?.context("its Job")?;
        let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().context("volumes")?;
        let volume = volumes.iter().find(|volume| volume["name"] == "runner-spec").context("the spec's volume")?;
        let map = volume["configMap"]["name"].as_str().context("the spec is in no ConfigMap")?;
        let map = stage.find("configmaps", map).await?.context("the ConfigMap")?;
        ensure!(map["metadata"]["ownerReferences"][0]["uid"] == uid_of(&run), "{}", map["metadata"]);
        // As the kubelet lays it into the pod.
        let file: ByteString = serde_json::from_value(map["binaryData"][SPEC_FILE].clone())?;
        let spec: RunnerSpec = serde_json::from_str(&spec_file::decode(&file.0)?)?;
        let work = spec.implementation.context("the work item")?;
        ensure!(work.text == text && work.description.as_deref() == Some(&*description), "the text differs");
        ensure!(spec.run.uid == uid_of(&run) && spec.plan_digest.is_some(), "{:?}", spec.run);
        let asked = stage.controllers_asked(mark)?;
        let creates: Vec<_> =
            asked.iter().filter(|asked| asked.verb == "create").map(super::stage::Asked::what).collect();
        ensure!(creates == ["create configmaps", "create jobs"], "{asked:#?}");

        stage.delete("agentruns", "large").await?;
        stage
            .until("the ConfigMap's end", || async {
                let gone =
                    stage.find("configmaps", map["metadata"]["name"].as_str().unwrap_or_default()).await?.is_none();
                Ok(gone.then_some(()))
            })
            .await
    })
}

/// What the controller holds of runs does not grow with their payloads: lists and keeps of many of the largest runs take
/// a part of what the chart allows. 150 of them, which once took 314 MiB, take 80.
pub(crate) fn large_runs_fit_the_memory_limit_of_the_chart(cluster: &Cluster) -> Result<()> {
    /// Of the 256 MiB of the chart, what the peak may be: it is the answers to the status writes of 16 runs at once, whatever
    /// the number of runs.
    const PEAK_KIB: u64 = 84 * 1024;
    const RUNS: usize = 50;
    play(cluster, "large-runs", async |stage| {
        let payloads: serde_json::Map<_, _> = (0..9).map(|n| (format!("p{n}"), json!(noise(n, 120 * 1024)))).collect();
        for n in 0..RUNS {
            let spec = json!({"payloads": payloads, "agentRef": {"name": "absent"}});
            stage.run(&format!("large-{n}"), &spec).await?;
        }
        let controller = stage.controller().await?;
        stage.run_when("large-49", "is held", |run| super::stage::reason_of(run) == "AgentNotFound").await?;
        let peak = controller.peak_kib()?;
        println!("{RUNS} runs of 1.2 MiB: peak {peak} KiB");
        ensure!(peak < PEAK_KIB, "the controller took {peak} KiB, more than {PEAK_KIB}");
        let mark = stage.mark()?;
        stage.declarations().await?;
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let run = stage.run("large", &json!({"payloads": {"p": noise(7, 20 * 1024)}})).await?;
        stage.run_in("large", "Succeeded").await?;
        stage.find("jobs", &job_of(&run, 1)).await?.context("its Job")?;
        let asked = stage.controllers_asked(mark)?;
        let read = |name: &str| asked.iter().filter(|asked| asked.verb == "get" && asked.name == name).count();
        ensure!((1..=2).contains(&read("large")), "a large run is read to be planned: {asked:#?}");
        ensure!(read("large-1") == 0, "a run that waits is not read: {asked:#?}");
        Ok(())
    })
}

/// Text that does not become much smaller, from a linear congruence.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from((state >> 33) % 95).unwrap_or(0))
    };
    (0..bytes).map(|_| next()).collect()
}
