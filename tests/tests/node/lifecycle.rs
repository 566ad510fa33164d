//! A release from its installation to its end, with runs in flight: upgraded from the chart before, tested, uninstalled.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use xtask::{cluster::Cluster, workspace};

use super::install::{NAMESPACE, SHELL_IMAGE, kubectl};

/// Namespace of the release.
const HOME: &str = "agents-upgraded";
/// Namespace whose runs it looks after only when upgraded.
const SECOND: &str = "agents-upgraded-too";
/// A script that goes on until [`tell`], however busy the machine is.
const UNTIL_TOLD: &str = "until [ -e /workspace/told ]; do sleep 0.2; done";

/// `helm test` executes a run in a namespace that enforces Pod Security "restricted", and leaves only its log.
pub(crate) fn helm_test_executes_a_run(cluster: &Cluster) -> Result<()> {
    let said = cluster.helm(&["test", "agents", "--namespace", NAMESPACE, "--timeout", "2m"])?;
    ensure!(said.contains("Succeeded"), "{said}");
    let log = kubectl(cluster, &["logs", "agents-test"])?;
    ensure!(log.lines().last().is_some_and(|line| line.contains("agentrun/agents-test: Succeeded")), "{log}");
    let left = kubectl(cluster, &["get", "agents,agentproviders,agentruns", "--output=name"])?;
    ensure!(!left.contains("agents-test"), "{left}");
    Ok(())
}

/// The chart of the commit before is upgraded to the present one under a run, and uninstalled under another.
pub(crate) fn runs_outlive_an_upgrade_and_an_uninstall(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let former = former_chart(folder.path());
    let former = former.to_str().context("a path is no text")?;
    let present = workspace().join("charts/agents");
    let present = present.to_str().context("a path is no text")?;
    for namespace in [HOME, SECOND] {
        cluster.kubectl(&["create", "namespace", namespace])?;
        cluster.kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"])?;
    }
    let release = ["agents", "--namespace", HOME];
    let patience = ["--wait", "--timeout", "5m"];
    cluster.helm(&[&["install"], &release[..], &[former], &patience[..]].concat())?;

    start(cluster, HOME, "upgraded", UNTIL_TOLD)?;
    phase(cluster, HOME, "upgraded", "Running")?;
    // More namespaces, so that the pods are replaced even where nothing of the chart has changed.
    let wider = format!("namespaces={{{HOME},{SECOND}}}");
    cluster.helm(&[&["upgrade"], &release[..], &[present, "--set", &wider], &patience[..]].concat())?;
    start(cluster, SECOND, "second", "echo hello")?;
    start(cluster, HOME, "left", UNTIL_TOLD)?;
    tell(cluster, "upgraded")?;
    phase(cluster, HOME, "upgraded", "Succeeded")?;
    let pods = pods(cluster, "upgraded")?;
    ensure!(pods.lines().count() == 1, "it was started once: {pods}");
    phase(cluster, SECOND, "second", "Succeeded")?;
    phase(cluster, HOME, "left", "Running")?;
    let definitions = || cluster.kubectl(&["get", "crds", "--output=name"]);
    let before = definitions()?;
    cluster.helm(&[&["uninstall"], &release[..], &patience[..]].concat())?;
    ensure!(definitions()? == before, "the definitions stay");
    let runs = cluster.kubectl(&["get", "agentruns", "--namespace", HOME, "--output=name"])?;
    ensure!(runs.lines().count() == 2, "the runs stay: {runs}");
    tell(cluster, "left")?;
    let selector = "--selector=agents.proompteng.ai/run=left";
    let complete = ["wait", "job", selector, "--namespace", HOME, "--for=condition=Complete", "--timeout=180s"];
    cluster.kubectl(&complete).context("a run under way goes on")?;
    for namespace in [HOME, SECOND] {
        cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"])?;
    }
    Ok(())
}

/// A provider, an Agent and a run of a shell script, all of one name.
fn start(cluster: &Cluster, namespace: &str, name: &str, script: &str) -> Result<()> {
    let object = |kind: &str, spec: serde_json::Value| {
        json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        })
    };
    let shell = json!({"binary": "/bin/sh", "argsTemplate": ["-c", script], "workload": {"image": SHELL_IMAGE}});
    let run = json!({"agentRef": {"name": name}, "implementation": {"inline": {"text": "what the script says"}}});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        object("AgentProvider", shell),
        object("Agent", json!({"providerRef": {"name": name}})),
        object("AgentRun", run),
    ]});
    cluster.kubectl_with_input(&["apply", "--validate=strict", "--filename=-"], &objects.to_string()).map(drop)
}

/// Ends the script of a run that is under way.
fn tell(cluster: &Cluster, run: &str) -> Result<()> {
    let pod = pods(cluster, run)?;
    cluster.kubectl(&["exec", "--namespace", HOME, pod.trim(), "--", "touch", "/workspace/told"]).map(drop)
}

fn pods(cluster: &Cluster, run: &str) -> Result<String> {
    let selector = format!("--selector=agents.proompteng.ai/run={run}");
    cluster.kubectl(&["get", "pods", "--namespace", HOME, &selector, "--output=name"])
}

/// Waits until a run is in a phase; fails at once when it ended in another.
fn phase(cluster: &Cluster, namespace: &str, name: &str, wanted: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let get = ["get", "agentrun", name, "--namespace", namespace, "--output=jsonpath={.status.phase}"];
        let seen = cluster.kubectl(&get)?;
        if seen == wanted {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(180) || matches!(seen.as_str(), "Succeeded" | "Failed" | "Cancelled") {
            let shown = cluster.kubectl(&["describe", "agentrun", name, "--namespace", namespace]).unwrap_or_default();
            let logs = ["logs", "deployment/agents", "--tail=40", "--namespace", HOME];
            bail!("{name} is {seen:?} and not {wanted}:\n{shown}\n{}", cluster.kubectl(&logs).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The chart as it was before the last commit that changed it, or before what is not committed yet. In a copy of the
/// repository without that history it is the present one.
fn former_chart(folder: &Path) -> PathBuf {
    let root = workspace();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&root).args(arguments).stderr(Stdio::null());
        command.output().ok().filter(|output| output.status.success())
    };
    let found = || {
        let last = git(&["log", "-1", "--format=%H", "--", "charts/agents"])?;
        let last = String::from_utf8(last.stdout).ok()?.trim().to_owned();
        let changed = git(&["diff", "--quiet", &last, "--", "charts/agents"]).is_none();
        let before = if changed { last } else { format!("{last}^") };
        git(&["cat-file", "-e", &format!("{before}:charts/agents/Chart.yaml")])?;
        let archive = folder.join("chart.tar");
        let output = format!("--output={}", archive.to_str()?);
        git(&["archive", "--format=tar", &output, &before, "charts/agents"])?;
        let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder).status().ok()?;
        unpacked.success().then(|| folder.join("charts/agents"))
    };
    found().unwrap_or_else(|| root.join("charts/agents"))
}
