//! Runs of a shell provider in real pods: how they end, and what users read.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::install::{SHELL_IMAGE, apply, create, end, kubectl, run, until};

/// A provider, an agent and a run of a shell script, all of one name.
fn shell(name: &str, script: &str, run: &Value) -> Vec<Value> {
    let object = |kind: &str, spec: Value| json!({"apiVersion": "agents.proompteng.ai/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let mut spec = json!({"agentRef": {"name": name}, "implementation": {"inline": {"text": script}}});
    for (field, value) in run.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let provider = json!({
        "binary": "/bin/sh",
        "argsTemplate": ["-c", "{{ implementation.text }}"],
        "workload": {"image": SHELL_IMAGE},
    });
    vec![
        object("AgentProvider", provider),
        object("Agent", json!({"providerRef": {"name": name}})),
        object("AgentRun", spec),
    ]
}

fn reason(run: &Value) -> &str {
    run["status"]["reason"].as_str().unwrap_or_default()
}

pub(crate) fn a_run_is_readable_by_kubectl(cluster: &Cluster) -> Result<()> {
    let script = "echo hello from the agent; id -u; echo done > \"$AGENT_OUTPUTS_DIR/note\"";
    apply(cluster, &shell("readable", script, &json!({"outputs": [{"name": "note"}]})))?;
    kubectl(cluster, &["wait", "--for=condition=Succeeded", "--timeout=60s", "agentrun/readable"])?;
    let table = kubectl(cluster, &["get", "agentruns", "readable"])?;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(words[0] == ["NAME", "PHASE", "REASON", "AGENT", "ATTEMPT", "STARTED", "FINISHED", "AGE"], "{table}");
    ensure!(words[1][..5] == ["readable", "Succeeded", "Completed", "readable", "1"], "{table}");
    let described = kubectl(cluster, &["describe", "agentrun", "readable"])?;
    ensure!(described.contains("Completed") && described.contains("the provider exited 0"), "{described}");
    for event in ["Submitted", "Completed"] {
        ensure!(described.contains(event), "no {event} event: {described}");
    }
    let stored = run(cluster, "readable")?;
    let job = stored["status"]["runtimeRef"]["name"].as_str().context("a run names its Job")?.to_owned();
    let logs = kubectl(cluster, &["logs", &format!("job/{job}")])?;
    ensure!(logs.contains("hello from the agent") && logs.contains("65532"), "{logs}");
    ensure!(stored["status"]["outputs"][0]["name"] == "note", "{stored:#}");
    let conditions = stored["status"]["conditions"].as_array().context("conditions")?;
    let in_progress = conditions.iter().find(|condition| condition["type"] == "InProgress");
    ensure!(in_progress.is_some_and(|condition| condition["status"] == "False"), "{conditions:#?}");
    Ok(())
}

pub(crate) fn each_ending_has_its_own_reason(cluster: &Cluster) -> Result<()> {
    let memory = json!({"workload": {"resources": {"memory": "32Mi"}}});
    // What a child leaves behind must not keep the pod alive.
    let table = [
        ("exits-three", "exit 3", json!({}), "ProviderExited", Some(3)),
        ("killed", "kill -SEGV $$", json!({}), "ProviderSignaled", None),
        ("hangs", "sleep 600", json!({"timeoutSeconds": 3}), "DeadlineExceeded", None),
        ("stays", "(setsid sleep 600 &) ; exit 4", json!({}), "ProviderExited", Some(4)),
        ("no-output", "true", json!({"outputs": [{"name": "report"}]}), "OutputMissing", Some(0)),
        ("greedy", "dd if=/dev/zero of=/dev/null bs=256M count=1", memory, "OutOfMemory", None),
    ];
    for (name, script, spec, ..) in &table {
        apply(cluster, &shell(name, script, spec))?;
    }
    let mut missing = shell("missing", "true", &json!({}));
    missing[0]["spec"]["binary"] = "/nowhere/agent".into();
    apply(cluster, &missing)?;
    for (name, _, _, expected, code) in &table {
        let ended = end(cluster, name)?;
        ensure!(reason(&ended) == *expected, "{name}: {:#}", ended["status"]);
        if let Some(code) = code {
            ensure!(ended["status"]["attempts"][0]["exitCode"] == *code, "{name}: {:#}", ended["status"]);
        }
    }
    let signal = run(cluster, "killed")?["status"]["attempts"][0]["signal"].clone();
    ensure!(signal == 11, "signal {signal}");
    let ended = end(cluster, "missing")?;
    ensure!(reason(&ended) == "ProviderMissing", "{:#}", ended["status"]);
    let failed = kubectl(cluster, &["wait", "--for=condition=Failed", "--timeout=5s", "agentrun/missing"])?;
    ensure!(failed.contains("condition met"), "{failed}");
    Ok(())
}

pub(crate) fn a_cancelled_run_leaves_nothing_behind(cluster: &Cluster) -> Result<()> {
    apply(cluster, &shell("cancelled", "trap 'echo asked to stop; exit 0' TERM; sleep 600 & wait", &json!({})))?;
    until(cluster, "cancelled", Duration::from_secs(60), |run| run["status"]["phase"] == "Running")?;
    kubectl(cluster, &["patch", "agentrun", "cancelled", "--type=merge", "--patch", r#"{"spec":{"cancel":true}}"#])?;
    let ended = end(cluster, "cancelled")?;
    ensure!(ended["status"]["phase"] == "Cancelled" && reason(&ended) == "Cancelled", "{:#}", ended["status"]);
    let selector = "agents.proompteng.ai/run=cancelled";
    for _ in 0..100 {
        if kubectl(cluster, &["get", "jobs,pods", "--selector", selector, "--output=name"])?.is_empty() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    anyhow::bail!("{}", kubectl(cluster, &["get", "jobs,pods", "--selector", selector])?)
}

pub(crate) fn a_killed_controller_starts_nothing_twice(cluster: &Cluster) -> Result<()> {
    apply(cluster, &shell("survives", "echo begun; sleep 8; echo over", &json!({})))?;
    for _ in 0..3 {
        kubectl(
            cluster,
            &["delete", "pod", "--selector=app.kubernetes.io/name=agents", "--force", "--grace-period=0"],
        )?;
        thread::sleep(Duration::from_secs(1));
    }
    let ended = end(cluster, "survives")?;
    ensure!(ended["status"]["phase"] == "Succeeded", "{:#}", ended["status"]);
    let pods = kubectl(cluster, &["get", "pods", "--selector=agents.proompteng.ai/run=survives", "--output=name"])?;
    ensure!(pods.lines().count() == 1, "{pods}");
    Ok(())
}

pub(crate) fn a_large_spec_arrives(cluster: &Cluster) -> Result<()> {
    // Digits of a linear congruence do not compress to less than half: far beyond what annotations may hold.
    let mut state = 1_u64;
    let noise: String = (0..120_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + u8::try_from((state >> 33) % 75).unwrap_or(0))
        })
        .collect();
    let payloads = json!({"payloads": {"one": noise, "two": noise.chars().rev().collect::<String>(), "three": noise.to_lowercase()}});
    let mut manifests = shell("large", "test \"$(wc -c < /workspace/one)\" = 120000", &payloads);
    manifests[0]["spec"]["inputFiles"] = json!([{"path": "/workspace/one", "content": "{{ payloads.one }}"}]);
    // Not applied: kubectl would keep a copy in an annotation, which is too small for it.
    for manifest in &manifests {
        create(cluster, manifest)?;
    }
    let ended = end(cluster, "large")?;
    ensure!(ended["status"]["phase"] == "Succeeded", "{:#}", ended["status"]);
    let maps = kubectl(cluster, &["get", "configmaps", "--output=name"])?;
    ensure!(maps.contains("configmap/large-"), "no ConfigMap carried it: {maps}");
    Ok(())
}
