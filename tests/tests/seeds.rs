//! The manifests of the first design run together as they stand, on a node of their own: their agent asks for all of two
//! cores.

#[path = "node/install.rs"]
#[expect(dead_code, reason = "shared with the node ring, which uses all of it")]
mod install;

use std::{collections::BTreeMap, fs, process::ExitCode};

use agents_tests::ring::{self, Case};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::{
    cluster::{
        Cluster, Progress,
        image::Entry,
        images::{debian, product, product_reference},
        product::build,
    },
    rings::Ring,
    workspace,
};

use self::install::{NAMESPACE, apply, end, kubectl};

/// An image with a stand-in at the path that the provider names.
const IMAGE: &str = "docker.io/agents-tests/stand-in:test";
/// Prints what it was given; the design's agent would work with it.
const STAND_IN: &str = "#!/bin/sh\necho \"arguments: $*\"\necho \"stage: [$WORKFLOW_STAGE]\"\necho \"prompt: [$(cat /workspace/agent/prompt.json)]\"\n";

const CASES: &[Case] = &[("the_first_primitive_runs_as_it_stands", the_first_primitive_runs)];

fn main() -> ExitCode {
    ring::run(Ring::Node, 1, prepare, CASES)
}

fn prepare(cluster: &Cluster) -> Result<()> {
    let progress = Progress::new(|line| eprintln!("{line}"));
    cluster.import_image(&product(&product_reference(), &build(&progress)?))?;
    let program = Entry::Bytes { mode: 0o755, content: STAND_IN.into() };
    cluster.import_image(&debian(IMAGE, BTreeMap::from([("/usr/local/bin/codex".to_owned(), program)]), &progress)?)?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    let chart = workspace().join("charts/agents");
    let chart = chart.to_str().context("the workspace's path is text")?;
    let image = format!("runs.image={IMAGE}");
    // The controller would take a part of the two cores.
    let set = ["--set", "resources.requests.cpu=0", "--set", &image];
    let install = ["install", "agents", chart, "--namespace", NAMESPACE, "--wait", "--timeout", "2m"];
    cluster.helm(&[&install[..], &set].concat()).map(drop)
}

fn the_first_primitive_runs(cluster: &Cluster) -> Result<()> {
    let manifests = fs::read_to_string(workspace().join("tests/fixtures/seeds/primitive.yaml"))?;
    let manifests: Vec<Value> = serde_saphyr::from_multiple(&manifests)?;
    apply(cluster, &manifests)?;
    let waiting = install::until(cluster, RUN, std::time::Duration::from_secs(30), |run| {
        run["status"]["blockedBy"][0]["reason"] == "ImplementationNotFound"
    })?;
    ensure!(waiting["status"]["phase"] == "Pending", "{waiting:#}");
    // The design names a work item and does not show it.
    apply(
        cluster,
        &[json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "ImplementationSpec",
            "metadata": {"name": "codex-impl-sample"}, "spec": {"text": "Close issue 1966."},
        })],
    )?;
    let ended = end(cluster, RUN)?;
    ensure!(ended["status"]["phase"] == "Succeeded", "{:#}", ended["status"]);
    let conditions = ended["status"]["conditions"].as_array().context("conditions")?;
    let warned = conditions.iter().find(|condition| condition["type"] == "Warning").context("a warning")?;
    ensure!(warned["reason"] == "NotUsed", "its artifacts are not stored, and nobody says so: {warned}");
    let job = ended["status"]["runtimeRef"]["name"].as_str().context("a run names its Job")?;
    let said = kubectl(cluster, &["logs", &format!("job/{job}")])?;
    for line in
        ["arguments: exec --repo proompteng/lab --base main --head codex/issue-1966-demo", "stage: []", "prompt: []"]
    {
        ensure!(said.lines().any(|found| found == line), "{line:?} is not among\n{said}");
    }
    Ok(())
}

/// The run of the design.
const RUN: &str = "codex-implementation-20260105-001";
