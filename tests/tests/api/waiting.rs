//! Runs that cannot start: what they say, what kubectl makes of it, and how they go on by themselves.

use agents_core::marks::ANNOTATION_POD;
use agents_kube::runtime::Fingerprint;
use agents_tests::hand_kubelet::Play;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use xtask::cluster::Cluster;

use super::{
    controller::Options,
    kills::each_job_was_created_once,
    stage::{agent, condition, job_of, phase_of, play, provider, reason_of, uid_of},
};

/// A run whose Agent, provider and work item are missing names each, and goes on when they are there.
pub(crate) fn what_is_missing_is_named_and_awaited(cluster: &Cluster) -> Result<()> {
    play(cluster, "missing", async |stage| {
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _controller = stage.controller().await?;
        let work = json!({"implementation": null, "implementationSpecRef": {"name": "work"}});
        stage.run("patient", &work).await?;
        stage.kubectl(&["wait", "--for=condition=Blocked", "--timeout=30s", "agentrun/patient"])?;
        let run = stage.run_when("patient", "waiting", |run| blocked_by(run).len() == 2).await?;
        ensure!(
            blocked_by(&run)
                == [
                    ["AgentNotFound", "Agent/agent", "create Agent/agent"],
                    ["ImplementationNotFound", "ImplementationSpec/work", "create ImplementationSpec/work"],
                ],
            "{run:#}"
        );
        ensure!(phase_of(&run) == "Pending" && reason_of(&run) == "AgentNotFound", "{run:#}");
        ensure!(condition(&run, "Blocked") == "True" && condition(&run, "InProgress") == "False", "{run:#}");

        stage.create("implementationspecs", &json!({"metadata": {"name": "work"}, "spec": {"text": "hello"}})).await?;
        let waits_for = |reason: &'static str| {
            move |run: &Value| blocked_by(run).iter().map(|entry| entry[0].as_str()).collect::<Vec<_>>() == [reason]
        };
        stage.run_when("patient", "waiting for the Agent", waits_for("AgentNotFound")).await?;
        stage.create("agents", &agent("agent", "shell")).await?;
        let run = stage.run_when("patient", "waiting for the provider", waits_for("ProviderNotFound")).await?;
        let table = stage.kubectl(&["get", "agentruns"])?;
        let header: Vec<_> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(header == ["NAME", "PHASE", "REASON", "AGENT", "ATTEMPT", "STARTED", "FINISHED", "AGE"], "{table}");
        let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        ensure!(row[..4] == ["patient", "Pending", "ProviderNotFound", "agent"], "{table}");
        ensure!(stage.all("jobs").await?.is_empty(), "nothing was started");
        ensure!(run["status"]["blockedBy"][0]["since"].is_string(), "{run:#}");

        stage.create("agentproviders", &provider("shell")).await?;
        stage.kubectl(&["wait", "--for=condition=Succeeded", "--timeout=30s", "agentrun/patient"])?;
        let run = stage.run_in("patient", "Succeeded").await?;
        ensure!(blocked_by(&run).is_empty() && condition(&run, "Blocked") == "False", "{run:#}");
        let told = stage.kubectl(&["describe", "agentrun", "patient"])?;
        for line in ["Phase:", "Succeeded", "Conditions:", "Events:"] {
            ensure!(told.contains(line), "{line:?} is missing:\n{told}");
        }
        // Events are sent beside the work.
        stage
            .until("the story in Events", || async {
                let told = stage.kubectl(&["describe", "agentrun", "patient"])?;
                Ok(["Submitted", "Completed"].iter().all(|reason| told.contains(reason)).then_some(()))
            })
            .await?;
        each_job_was_created_once(stage, 1, 0).await
    })
}

/// A template that names what is not there fails the run before anything starts, and says where.
pub(crate) fn an_undefined_name_is_an_invalid_spec(cluster: &Cluster) -> Result<()> {
    play(cluster, "invalid-spec", async |stage| {
        let mut misspelt = provider("shell");
        misspelt["spec"]["argsTemplate"] = json!(["-c", "echo\n  {{ inputs.colour }}"]);
        stage.create("agentproviders", &misspelt).await?;
        stage.create("agents", &agent("agent", "shell")).await?;
        let _controller = stage.controller().await?;
        stage.run("misspelt", &json!({})).await?;
        for kind in ["Failed", "InvalidSpec"] {
            let wait = format!("--for=condition={kind}");
            stage.kubectl(&["wait", &wait, "--timeout=30s", "agentrun/misspelt"])?;
        }
        let run = stage.run_in("misspelt", "Failed").await?;
        ensure!(reason_of(&run) == "InvalidSpec" && condition(&run, "Accepted") == "False", "{run:#}");
        let message = run["status"]["message"].as_str().unwrap_or_default();
        for part in ["argsTemplate[1]", "line 2", "column", "inputs.colour"] {
            ensure!(message.contains(part), "{part:?} is not in {message:?}");
        }
        let row = stage.kubectl(&["get", "agentruns", "--no-headers"])?;
        ensure!(row.contains("Failed") && row.contains("InvalidSpec"), "{row}");
        each_job_was_created_once(stage, 0, 0).await
    })
}

/// A run that names an account which nobody listed waits, and goes on under a controller that lists it. Its pod has a
/// bound for everything that nobody spoke of, as the API server has it.
pub(crate) fn only_listed_accounts_run_and_every_pod_is_bounded(cluster: &Cluster) -> Result<()> {
    play(cluster, "accounts", async |stage| {
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        stage.create("agentproviders", &provider("shell")).await?;
        stage.create("agents", &agent("agent", "shell")).await?;
        stage.create("serviceaccounts", &json!({"metadata": {"name": "builder"}})).await?;
        let first = stage.controller().await?;
        stage.run("bold", &json!({"runtime": {"job": {"serviceAccount": "builder"}}})).await?;
        let run = stage.run_when("bold", "waiting", |run| !blocked_by(run).is_empty()).await?;
        ensure!(phase_of(&run) == "Pending" && reason_of(&run) == "ServiceAccountNotAllowed", "{run:#}");
        let message = run["status"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("spec.runtime.job.serviceAccount") && message.contains("\"builder\""), "{run:#}");
        ensure!(stage.all("jobs").await?.is_empty(), "nothing was started");
        drop(first);

        let listed =
            [format!("--allowed-service-accounts={}/builder", stage.namespace), "--run-limits=memory=1Gi".to_owned()];
        let arguments: Vec<&str> = listed.iter().map(String::as_str).collect();
        let _controller = stage.controller_with(Options { arguments: &arguments, ..Options::default() }).await?;
        let run = stage.run_in("bold", "Succeeded").await?;
        ensure!(blocked_by(&run).is_empty(), "{run:#}");
        let jobs = stage.all("jobs").await?;
        let [job] = &jobs[..] else { bail!("{} Jobs", jobs.len()) };
        let pod = &job["spec"]["template"]["spec"];
        ensure!(pod["serviceAccountName"] == "builder" && pod["automountServiceAccountToken"] == false, "{pod:#}");
        ensure!(
            pod["containers"][0]["resources"]
                == json!({
                    "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "1Gi"},
                    "limits": {"memory": "1Gi"},
                }),
            "{pod:#}"
        );
        ensure!(pod["initContainers"][0]["resources"]["limits"]["ephemeral-storage"] == "256Mi", "{pod:#}");
        let mut folders = pod["volumes"].as_array().into_iter().flatten().map(|volume| &volume["emptyDir"]);
        ensure!(folders.all(|folder| folder.is_null() || folder["sizeLimit"].is_string()), "{pod:#}");
        each_job_was_created_once(stage, 1, 0).await
    })
}

/// Somebody else's Job of our name is left alone, and the run goes on when it is gone.
pub(crate) fn a_foreign_job_is_a_conflict(cluster: &Cluster) -> Result<()> {
    play(cluster, "foreign", async |stage| {
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _controller = stage.controller().await?;
        let run = stage.run("late", &json!({})).await?;
        // The run waits for its Agent, so the name is free.
        stage.run_when("late", "waiting", |run| reason_of(run) == "AgentNotFound").await?;
        let name = job_of(&run, 1);
        let theirs = stage
            .create(
                "jobs",
                &json!({
                    "metadata": {"name": name, "annotations": {"owner": "somebody"}},
                    "spec": {"suspend": true, "template": {"spec": {
                        "restartPolicy": "Never", "containers": [{"name": "theirs", "image": "theirs.invalid/a"}],
                    }}},
                }),
            )
            .await?;
        stage.declarations().await?;
        let run = stage.run_when("late", "the conflict", |run| reason_of(run) == "Conflict").await?;
        let [blocked] = &blocked_by(&run)[..] else { anyhow::bail!("one blocker expected: {run:#}") };
        ensure!(blocked[0] == "Conflict", "{run:#}");
        let message = run["status"]["blockedBy"][0]["message"].as_str().unwrap_or_default();
        ensure!(message.contains(&name) && message.contains("has no owner"), "{message}");
        ensure!(condition(&run, "Blocked") == "True" && phase_of(&run) == "Pending", "{run:#}");
        let now = stage.find("jobs", &name).await?.context("theirs is gone")?;
        for part in ["/metadata/uid", "/metadata/labels", "/metadata/annotations", "/metadata/ownerReferences", "/spec"]
        {
            ensure!(now.pointer(part) == theirs.pointer(part), "{part} of theirs was touched: {now:#}");
        }
        stage.delete("jobs", &name).await?;
        let removed = Instant::now();
        let run = stage.run_in("late", "Succeeded").await?;
        println!("a run goes on {:?} after the foreign Job is gone", removed.elapsed());
        ensure!(blocked_by(&run).is_empty(), "{run:#}");
        let ours = stage.find("jobs", &name).await?.context("no Job of ours")?;
        ensure!(ours["metadata"]["ownerReferences"][0]["uid"] == uid_of(&run), "{ours:#}");
        Ok(())
    })
}

/// A Job that says in every way that it is the run's, and executes something else.
pub(crate) fn a_forged_job_is_a_conflict_and_not_believed(cluster: &Cluster) -> Result<()> {
    play(cluster, "forged", async |stage| {
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        let _controller = stage.controller().await?;
        let twin = stage.run("twin", &json!({})).await?;
        let run = stage.run("late", &json!({})).await?;
        stage.run_when("late", "waiting", |run| reason_of(run) == "AgentNotFound").await?;
        stage.declarations().await?;
        stage.run_in("twin", "Succeeded").await?;
        stage.run_in("late", "Succeeded").await?;
        // What the API server has stored of ours is still what we sent: its defaults change no fingerprint.
        let ours = stage.find("jobs", &job_of(&twin, 1)).await?.context("no Job of ours")?;
        let stored = Fingerprint::of(&ours["spec"]["template"]["spec"].to_string()).to_string();
        ensure!(ours["metadata"]["annotations"][ANNOTATION_POD] == stored, "{ours:#}");

        let run_uid = uid_of(&run).to_owned();
        let held = stage.run("held", &json!({"suspend": true})).await?;
        stage.run_when("held", "waiting", |run| reason_of(run) == "Suspended").await?;
        let (name, uid) = (job_of(&held, 1), uid_of(&held).to_owned());
        let mut forged = ours.clone();
        let text = serde_json::to_string(&json!({
            "labels": forged["metadata"]["labels"], "annotations": forged["metadata"]["annotations"],
            "ownerReferences": forged["metadata"]["ownerReferences"],
        }))?;
        let text = text.replace(uid_of(&twin), &uid).replace("\"twin\"", "\"held\"");
        ensure!(!text.contains(&run_uid), "{text}");
        forged["metadata"] = serde_json::from_str(&text)?;
        forged["metadata"]["name"] = json!(name);
        let mut pod = forged["spec"]["template"]["spec"].clone();
        pod["containers"][0]["image"] = json!("evil.invalid/image");
        let labels = forged["metadata"]["labels"].clone();
        forged["spec"] = json!({"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}});
        forged.as_object_mut().context("it is an object")?.remove("status");
        let theirs = stage.create("jobs", &forged).await?;
        stage.kubectl(&["patch", "agentrun", "held", "--type=merge", "-p", "{\"spec\":{\"suspend\":false}}"])?;
        let run = stage.run_when("held", "the conflict", |run| reason_of(run) == "Conflict").await?;
        ensure!(phase_of(&run) == "Pending", "{run:#}");
        let now = stage.find("jobs", &name).await?.context("theirs is gone")?;
        ensure!(now["metadata"]["uid"] == theirs["metadata"]["uid"], "theirs was replaced: {now:#}");
        ensure!(now["metadata"]["deletionTimestamp"].is_null(), "theirs is being deleted: {now:#}");
        stage.delete("jobs", &name).await?;
        stage.run_in("held", "Succeeded").await?;
        Ok(())
    })
}

/// The real Job controller says in an Event alone that a quota leaves no room.
pub(crate) fn a_job_blocked_by_a_quota_says_so(cluster: &Cluster) -> Result<()> {
    play(cluster, "quota", async |stage| {
        let _attendance = stage.kubelet().attend(|_| Play::Succeed(Duration::ZERO));
        stage.kubectl(&["create", "quota", "no-pods", "--hard=pods=0"])?;
        // The API server counts by a status that a controller writes.
        stage
            .until("the quota to count", || async {
                let quota = stage.kubectl(&["get", "quota", "no-pods", "-o", "jsonpath={.status.hard.pods}"])?;
                Ok((quota == "0").then_some(()))
            })
            .await?;
        let _controller = stage.controller().await?;
        stage.declarations().await?;
        stage.run("held", &json!({})).await?;
        let run = stage.run_when("held", "the quota", |run| reason_of(run) == "QuotaExceeded").await?;
        let message = run["status"]["blockedBy"][0]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("no-pods") && message.contains("pods=1"), "{message}");
        stage.kubectl(&["delete", "quota", "no-pods"])?;
        stage.run_in("held", "Succeeded").await?;
        Ok(())
    })
}

/// Reason, object and cure of each entry.
fn blocked_by(run: &Value) -> Vec<[String; 3]> {
    let entries = run["status"]["blockedBy"].as_array().into_iter().flatten();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    entries.map(|entry| ["reason", "object", "unblockedBy"].map(|field| word(entry, field))).collect()
}
