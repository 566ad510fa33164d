//! What is declared says whether it is right: by field, set and cleared, with one write for each change.

use agents_kube::crd;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::stage::{Stage, agent, condition, play, provider};

impl Stage<'_> {
    /// Waits until the only controller of the case has listed every kind and judged what [`Stage::declarations`] makes.
    pub(crate) async fn judged(&self) -> Result<()> {
        let kinds = crd::all();
        let plurals: Vec<&str> = kinds.iter().filter_map(|kind| kind["spec"]["names"]["plural"].as_str()).collect();
        self.until("every kind is listed", || async {
            let asked = self.asked_since(0)?;
            let listed = |plural: &&str| asked.iter().any(|asked| asked.verb == "list" && asked.resource == *plural);
            Ok(plurals.iter().all(listed).then_some(()))
        })
        .await?;
        self.says("agentproviders", "shell", "Ready", "True").await?;
        self.says("agents", "agent", "Ready", "True").await?;
        Ok(())
    }

    /// The object once its condition, of its present spec, has this truth; answers with reason and message.
    async fn says(&self, plural: &str, name: &str, kind: &str, truth: &str) -> Result<[String; 2]> {
        let what = format!("{plural}/{name}: {kind}={truth}");
        let found = self.until(&what, || async {
            let object = self.find(plural, name).await?.context("it is not there")?;
            let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            anyhow::ensure!(current && condition(&object, kind) == truth, "{:#}", object["status"]);
            Ok(Some(object))
        });
        let object = found.await?;
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let entry = conditions.into_iter().find(|entry| entry["type"] == kind).context("no such condition")?;
        Ok(["reason", "message"].map(|field| entry[field].as_str().unwrap_or_default().to_owned()))
    }

    /// How often the status of an object was written.
    fn verdicts(&self, plural: &str, name: &str) -> Result<usize> {
        let status = format!("{plural}/status");
        Ok(self.asked_since(0)?.iter().filter(|asked| asked.resource == status && asked.name == name).count())
    }
}

/// Deliveries of a Signal as senders and `kubectl` see them.
pub(crate) fn a_delivery_is_judged_once(cluster: &Cluster) -> Result<()> {
    play(cluster, "signals", async |stage| {
        let _controller = stage.controller().await?;
        let schema = json!({"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}});
        stage.create("signals", &json!({"metadata": {"name": "deploy"}, "spec": {"payloadSchema": schema}})).await?;
        stage.says("signals", "deploy", "Ready", "True").await?;
        let delivery = |name: &str, id: &str, payload: Value| {
            let spec = json!({"signalRef": {"name": "deploy"}, "deliveryId": id, "payload": payload});
            json!({"metadata": {"name": name}, "spec": spec})
        };
        let large = "x".repeat(50_000);
        stage.create("signaldeliveries", &delivery("first", "1", json!({"version": large}))).await?;
        let [reason, _] = stage.says("signaldeliveries", "first", "Ready", "True").await?;
        ensure!(reason == "AsExpected", "{reason}");
        stage.create("signaldeliveries", &delivery("again", "1", json!({"version": large}))).await?;
        let [reason, _] = stage.says("signaldeliveries", "again", "Ready", "True").await?;
        ensure!(reason == "Duplicate", "{reason}");
        stage.create("signaldeliveries", &delivery("other", "1", json!({"version": "1.4.0"}))).await?;
        let [reason, message] = stage.says("signaldeliveries", "other", "Ready", "False").await?;
        ensure!(
            reason == "Conflict" && message.starts_with("spec.deliveryId: SignalDelivery/first"),
            "{reason}: {message}"
        );
        stage.create("signaldeliveries", &delivery("wrong", "2", json!({"version": 5}))).await?;
        let [reason, message] = stage.says("signaldeliveries", "wrong", "Ready", "False").await?;
        ensure!(reason == "PayloadRejected" && message.starts_with("spec.payload.version: "), "{reason}: {message}");
        let shown = stage.kubectl(&["get", "signaldeliveries", "--no-headers"])?;
        let columns = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>().join(" ");
        let shown: Vec<String> = shown.lines().map(columns).collect();
        ensure!(shown == ["again Duplicate", "first Delivered", "other Invalid", "wrong Invalid"], "{shown:#?}");
        stage.kubectl(&["wait", "--for=jsonpath={.status.lastDeliveryAt}", "--timeout=30s", "signal/deploy"])?;
        Ok(())
    })
}

/// Faults are named by field and cleared when mended, references looked up again when they change, nothing written twice.
pub(crate) fn a_declaration_says_what_is_wrong_with_it(cluster: &Cluster) -> Result<()> {
    play(cluster, "declared", async |stage| {
        let _controller = stage.controller().await?;
        stage.create("agents", &agent("agent", "shell")).await?;
        let [reason, message] = stage.says("agents", "agent", "Ready", "False").await?;
        ensure!(reason == "ProviderNotFound" && message.contains("AgentProvider/shell"), "{reason}: {message}");

        let mut broken = provider("shell");
        broken["spec"]["argsTemplate"] = json!(["-c", "echo {{ implementation.text"]);
        stage.create("agentproviders", &broken).await?;
        let [reason, message] = stage.says("agentproviders", "shell", "InvalidSpec", "True").await?;
        ensure!(reason == "InvalidSpec" && message.starts_with("spec.argsTemplate[1]: line 1"), "{reason}: {message}");
        stage.says("agentproviders", "shell", "Stalled", "True").await?;
        let wait = ["wait", "--for=condition=Ready=False", "--timeout=30s", "agentprovider/shell"];
        stage.kubectl(&wait)?;
        stage
            .until("the Agent's new reason", || async {
                let [reason, _] = stage.says("agents", "agent", "Ready", "False").await?;
                Ok((reason == "ReferenceUnreadable").then_some(()))
            })
            .await?;
        stage.patch("agentproviders", "shell", &json!({"spec": provider("shell")["spec"]})).await?;
        for object in ["agentprovider/shell", "agent/agent"] {
            stage.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", object])?;
        }
        let [reason, message] = stage.says("agentproviders", "shell", "InvalidSpec", "False").await?;
        ensure!(reason == "AsExpected" && message.is_empty(), "{reason}: {message}");

        let work = |text: &str| json!({"metadata": {"name": "work"}, "spec": {"text": text}});
        stage.create("implementationspecs", &work(" \n")).await?;
        let [_, message] = stage.says("implementationspecs", "work", "InvalidSpec", "True").await?;
        ensure!(message.contains("spec.text: "), "{message}");
        stage.patch("implementationspecs", "work", &json!({"spec": {"text": "hello"}})).await?;
        stage.says("implementationspecs", "work", "Ready", "True").await?;

        for (plural, name, writes) in
            [("agents", "agent", 3), ("agentproviders", "shell", 2), ("implementationspecs", "work", 2)]
        {
            let written = stage.verdicts(plural, name)?;
            ensure!(written == writes, "{written} writes of {plural}/{name} instead of {writes}");
            let object: Value = stage.find(plural, name).await?.context("it is gone")?;
            ensure!(condition(&object, "Accepted") == "True" && condition(&object, "Stalled") == "False", "{object:#}");
        }
        Ok(())
    })
}
