//! The product installed as its users install it: images, namespace, chart.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use agents_tests::agents::codex_binary;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xtask::cluster::{
    Cluster, Progress,
    image::Entry,
    images::{debian, product, product_reference},
    product::build,
};

/// Namespace of the product and of every run.
pub(crate) const NAMESPACE: &str = "agents-under-test";
/// An image with a shell and nothing else.
pub(crate) const SHELL_IMAGE: &str = "docker.io/library/busybox:test";
/// An image with Codex, git and a shell.
pub(crate) const CODEX_IMAGE: &str = "docker.io/agents-tests/codex:test";

/// Images, a namespace that enforces Pod Security "restricted", and the chart with its own values.
pub(crate) fn everything(cluster: &Cluster) -> Result<()> {
    let progress = Progress::new(|line| eprintln!("{line}"));
    cluster.import_image(&product(&product_reference(), &build(&progress)?))?;
    let codex = BTreeMap::from([("/usr/local/bin/codex".to_owned(), Entry::program(codex_binary()?))]);
    cluster.import_image(&debian(CODEX_IMAGE, codex, &progress)?)?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", NAMESPACE, enforce])?;
    let chart = xtask::workspace().join("charts/agents");
    let chart = chart.to_str().context("the workspace's path is text")?;
    cluster.helm(&["install", "agents", chart, "--namespace", NAMESPACE, "--wait", "--timeout", "2m"])?;
    Ok(())
}

/// kubectl in the namespace of the runs.
pub(crate) fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    cluster.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
}

/// Applies manifests to the namespace of the runs.
pub(crate) fn apply(cluster: &Cluster, manifests: &[Value]) -> Result<()> {
    for manifest in manifests {
        let arguments = ["--namespace", NAMESPACE, "apply", "--validate=strict", "--filename=-"];
        cluster.kubectl_with_input(&arguments, &manifest.to_string())?;
    }
    Ok(())
}

/// Creates one object in the namespace of the runs.
pub(crate) fn create(cluster: &Cluster, manifest: &Value) -> Result<()> {
    let arguments = ["--namespace", NAMESPACE, "create", "--validate=strict", "--filename=-"];
    cluster.kubectl_with_input(&arguments, &manifest.to_string()).map(drop)
}

/// A run as it is stored.
pub(crate) fn run(cluster: &Cluster, name: &str) -> Result<Value> {
    serde_json::from_str(&kubectl(cluster, &["get", "agentrun", name, "--output=json"])?)
        .context("kubectl printed no JSON")
}

/// Waits until `wanted` holds for the run, and gives it then.
pub(crate) fn until(
    cluster: &Cluster,
    name: &str,
    patience: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let start = Instant::now();
    loop {
        let seen = run(cluster, name)?;
        if wanted(&seen) {
            return Ok(seen);
        }
        if start.elapsed() > patience {
            let pods = kubectl(cluster, &["get", "pods,jobs", "--output=wide"]).unwrap_or_default();
            let logs = kubectl(cluster, &["logs", "deployment/agents", "--tail=40"]).unwrap_or_default();
            bail!("{name} did not get there in {patience:?}: {:#}\n{pods}\n{logs}", seen["status"]);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for the end of a run.
pub(crate) fn end(cluster: &Cluster, name: &str) -> Result<Value> {
    let over = |run: &Value| matches!(run["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Cancelled"));
    until(cluster, name, Duration::from_secs(120), over)
}
