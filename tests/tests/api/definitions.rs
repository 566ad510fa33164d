//! The definitions on a real API server: what kubectl shows of them, what they admit, what may be changed.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::{cluster::Cluster, workspace};

use super::stage::{Stage, agent, play, provider, run};

/// kubectl finds every kind by its names, explains every field and lists all kinds by their category.
pub(crate) fn kubectl_knows_the_kinds(cluster: &Cluster) -> Result<()> {
    play(cluster, "kinds", async |stage| {
        stage.happy_run("hello").await?;
        for (plural, short) in
            [("agents", "ag"), ("agentproviders", "ap"), ("agentruns", "ar"), ("implementationspecs", "impl")]
        {
            let by_short = stage.kubectl(&["get", short, "--output=name"])?;
            ensure!(by_short == stage.kubectl(&["get", plural, "--output=name"])?, "{short}: {by_short}");
            let explained = stage.kubectl(&["explain", plural, "--recursive"])?;
            ensure!(explained.contains("spec") && explained.contains("DESCRIPTION"), "{explained}");
        }
        let explained = stage.kubectl(&["explain", "agentruns.spec.retryPolicy.backoffSeconds"])?;
        ensure!(explained.contains("Wait before the second attempt"), "{explained}");
        let all = stage.kubectl(&["get", "agents-all", "--output=name"])?;
        for name in [
            "agent.agents.proompteng.ai/agent",
            "agentprovider.agents.proompteng.ai/shell",
            "agentrun.agents.proompteng.ai/hello",
        ] {
            ensure!(all.lines().any(|line| line == name), "{name} is not among\n{all}");
        }
        // A category of the same name as a kind would delete all kinds with it.
        stage.kubectl(&["delete", "agents", "--all"])?;
        ensure!(stage.find("agentruns", "hello").await?.is_some(), "only agents were meant");
        Ok(())
    })
}

/// Every example is admitted as it stands.
pub(crate) fn examples_are_admitted(cluster: &Cluster) -> Result<()> {
    play(cluster, "examples", async |stage| {
        let mut folders = 0;
        for folder in std::fs::read_dir(workspace().join("examples")).context("there are no examples")? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            let folder = folder.to_str().context("a path is no text")?.to_owned();
            stage.kubectl(&[
                "create",
                "--dry-run=server",
                "--validate=strict",
                "--warnings-as-errors",
                "--recursive",
                "--filename",
                &folder,
            ])?;
            folders += 1;
        }
        ensure!(folders > 1, "{folders} examples");
        Ok(())
    })
}

/// Fields of a run's spec that may change at any time.
const FREE: [&str; 3] = ["suspend", "cancel", "ttlSecondsAfterFinished"];

/// Each field of a run's spec with two values.
fn values() -> Value {
    json!({
        "agentRef": [{"name": "agent"}, {"name": "other"}],
        "implementationSpecRef": [{"name": "a"}, {"name": "b"}],
        "implementationRef": [{"name": "a"}, {"name": "b"}],
        "implementation": [{"inline": {"text": "a"}}, {"inline": {"text": "b"}}],
        "parameters": [{"a": "1"}, {"a": "2"}],
        "payloads": [{"a": "1"}, {"b": "1", "a": null}],
        "execution": [{"coordinates": {"git": {"url": "https://a.invalid/a"}}}, {"coordinates": {"git": {"url": "https://a.invalid/b"}}}],
        "workload": [{"image": "a"}, {"image": "b"}],
        "runtime": [{"type": "job"}, {"type": "process"}],
        "outputs": [[{"name": "a"}], [{"name": "b"}]],
        "retryPolicy": [{"limit": 1}, {"limit": 2}],
        "timeoutSeconds": [60, 61],
        "goal": [{"objective": "a"}, {"objective": "b"}],
        "idempotencyKey": ["a", "b"],
        "deliveryId": ["a", "b"],
        "systemPromptRef": [{"kind": "Secret", "name": "a", "key": "a"}, {"kind": "ConfigMap", "name": "a", "key": "a"}],
        "secrets": [["a"], ["b"]],
        "memoryRef": [{"name": "a"}, {"name": "b"}],
        "budgetRef": [{"name": "a"}, {"name": "b"}],
        "approvalPolicyRef": [{"name": "a"}, {"name": "b"}],
        "workspaceRef": [{"name": "a"}, {"name": "b"}],
        "vcsRef": [{"name": "a"}, {"name": "b"}],
        "vcsPolicy": [{"mode": "read-only"}, {"mode": "none"}],
        "runtimeOverrides": [{"argo": {"namespace": "a"}}, {"argo": {"namespace": "b"}}],
        "provider": [{"codex": {"model": "a"}}, {"codex": {"model": "b"}}],
        "workflow": [{"steps": [{"name": "a"}]}, {"steps": [{"name": "b"}]}],
        "priority": [1, 2],
    })
}

/// Once a run was judged its spec stays as it is, but for `suspend` and `cancel`; cancelling is for ever.
pub(crate) fn a_judged_run_is_immutable(cluster: &Cluster) -> Result<()> {
    play(cluster, "immutable", async |stage| {
        let values = values();
        let fields = values.as_object().context("a table")?;
        let definition = cluster.kubectl(&["get", "crd", "agentruns.agents.proompteng.ai", "--output=json"])?;
        let definition: Value = serde_json::from_str(&definition)?;
        let known = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let known: BTreeSet<&str> = known.as_object().context("a schema")?.keys().map(String::as_str).collect();
        // It excludes systemPromptRef, which is tried.
        let tried: BTreeSet<&str> = fields.keys().map(String::as_str).chain(FREE).chain(["systemPrompt"]).collect();
        ensure!(known == tried, "the table and the schema differ: {:?}", known.symmetric_difference(&tried));

        let full: serde_json::Map<_, _> = fields.iter().map(|(field, two)| (field.clone(), two[0].clone())).collect();
        stage.create("agentruns", &json!({"metadata": {"name": "full"}, "spec": full})).await?;
        stage.run("bare", &json!({"implementation": null, "implementationSpecRef": {"name": "a"}})).await?;
        // Nobody has judged it yet: its phase is the definition's default.
        let unjudged = stage.find("agentruns", "full").await?.context("the run")?;
        ensure!(unjudged["status"] == json!({"phase": "Pending"}), "{:#}", unjudged["status"]);
        for (field, two) in fields {
            stage.patch("agentruns", "full", &json!({"spec": {field: two[1]}})).await?;
            stage.patch("agentruns", "full", &json!({"spec": {field: two[0]}})).await?;
        }
        for phase in ["Template", "Pending"] {
            for name in ["full", "bare"] {
                phase_by_hand(stage, name, phase).await?;
            }
            for (field, two) in fields {
                let changed = stage.patch("agentruns", "full", &json!({"spec": {field: two[1]}})).await;
                if phase == "Template" {
                    changed?;
                    stage.patch("agentruns", "full", &json!({"spec": {field: two[0]}})).await?;
                    continue;
                }
                let immutable = "is immutable once the run was judged";
                refused(changed, immutable).with_context(|| format!("{field} was changed"))?;
                if field != "agentRef" {
                    let removed = stage.patch("agentruns", "full", &json!({"spec": {field: null}})).await;
                    refused(removed, immutable).with_context(|| format!("{field} was removed"))?;
                }
                if !matches!(field.as_str(), "agentRef" | "implementationSpecRef") {
                    let added = stage.patch("agentruns", "bare", &json!({"spec": {field: two[0]}})).await;
                    refused(added, immutable).with_context(|| format!("{field} was added"))?;
                }
            }
        }
        for (field, value) in [
            ("suspend", json!(true)),
            ("suspend", json!(false)),
            ("suspend", Value::Null),
            ("ttlSecondsAfterFinished", json!(60)),
            ("ttlSecondsAfterFinished", Value::Null),
            ("cancel", json!(false)),
            ("cancel", json!(true)),
        ] {
            stage.patch("agentruns", "full", &json!({"spec": {field: value}})).await?;
        }
        for value in [json!(false), Value::Null] {
            let taken_back = stage.patch("agentruns", "full", &json!({"spec": {"cancel": value}})).await;
            refused(taken_back, "cancel cannot be taken back")?;
        }
        Ok(())
    })
}

/// What is misspelt or too large is refused by name; numbers and text are both values.
pub(crate) fn bad_input_is_refused_by_name(cluster: &Cluster) -> Result<()> {
    play(cluster, "bounds", async |stage| {
        let long = |length: usize| "x".repeat(length);
        let many = |count: usize| -> Value {
            (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()
        };
        let runs: [(&str, Value); 18] = [
            ("spec.agentRef.name", json!({"agentRef": {"name": ""}})),
            ("spec.agentRef.name", json!({"agentRef": {"name": long(254)}})),
            ("spec.agentRef", json!({"agentRef": null})),
            ("spec.implementation.inline.text", json!({"implementation": {"inline": {"text": long(131_073)}}})),
            ("spec.implementation.inline.text", json!({"implementation": {"inline": {"text": 5}}})),
            (
                "spec.implementation.inline.summary",
                json!({"implementation": {"inline": {"text": "a", "summary": long(257)}}}),
            ),
            ("spec.parameters", json!({"parameters": many(101)})),
            ("spec.parameters.a", json!({"parameters": {"a": long(2049)}})),
            ("spec.parameters.a", json!({"parameters": {"a": 1.5}})),
            ("spec.parameters.a", json!({"parameters": {"a": true}})),
            ("spec.payloads.a", json!({"payloads": {"a": long(131_073)}})),
            ("spec.outputs[0].name", json!({"outputs": [{"name": long(64)}]})),
            ("spec.outputs", json!({"outputs": vec![json!({"name": "a"}); 51]})),
            ("spec.retryPolicy.limit", json!({"retryPolicy": {"limit": 101}})),
            ("spec.retryPolicy.backoffSeconds", json!({"retryPolicy": {"backoffSeconds": -1}})),
            ("spec.timeoutSeconds", json!({"timeoutSeconds": 0})),
            ("spec.runtime.type", json!({"runtime": {"type": "Tele Port"}})),
            ("spec.execution.coordinates.git.url", json!({"execution": {"coordinates": {"git": {"url": ""}}}})),
        ];
        for (field, spec) in &runs {
            refused(stage.run("bad", spec).await, field)?;
        }
        let mut misfit = provider("bad");
        misfit["spec"]["argsTemplate"] = json!(vec!["a"; 257]);
        refused(stage.create("agentproviders", &misfit).await, "spec.argsTemplate")?;
        let mut misfit = agent("bad", "shell");
        misfit["spec"]["env"] = json!([{"name": "A", "value": long(32_769)}]);
        refused(stage.create("agents", &misfit).await, "spec.env[0].value")?;

        stage.run("numbers", &json!({"parameters": {"issue": 1966, "text": "1966", "negative": -1}})).await?;
        let mut unknown = run("unknown", &json!({"retries": 3}));
        let stored = stage.create("agentruns", &unknown).await?;
        ensure!(stored["spec"]["retries"].is_null(), "{stored:#}");
        unknown["apiVersion"] = json!("agents.proompteng.ai/v1alpha1");
        unknown["kind"] = json!("AgentRun");
        unknown["metadata"] = json!({"name": "strict", "namespace": stage.namespace});
        let strict = cluster.kubectl_with_input(&["create", "--validate=strict", "--filename=-"], &unknown.to_string());
        let error = format!("{:#}", strict.err().context("the unknown field was admitted")?);
        ensure!(error.contains("unknown field \"spec.retries\""), "{error}");
        Ok(())
    })
}

async fn phase_by_hand(stage: &Stage<'_>, name: &str, phase: &str) -> Result<()> {
    use kube::api::{Patch, PatchParams};
    let change = Patch::Merge(json!({"status": {"phase": phase, "observedGeneration": 1}}));
    stage.api("agentruns").patch_status(name, &PatchParams::default(), &change).await?;
    Ok(())
}

/// That the API server refused it as invalid, for this reason.
fn refused(answer: Result<Value>, why: &str) -> Result<()> {
    let Err(error) = answer else { bail!("it was admitted; it should be refused for {why}") };
    let invalid = error.downcast_ref::<kube::Error>();
    ensure!(matches!(invalid, Some(kube::Error::Api(status)) if status.code == 422), "{error:#}");
    ensure!(format!("{error:#}").contains(why), "{why:?} is not in: {error:#}");
    Ok(())
}
