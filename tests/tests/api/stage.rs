//! Where a case plays: a namespace of its own, objects in it, what became of them, and what the audit log says.

use std::{
    future::Future,
    path::PathBuf,
    sync::{OnceLock, atomic::AtomicU32},
    time::Duration,
};

use agents_core::name::{ChildName, SubmissionKey};
use agents_tests::{
    api_server::{self, admin},
    audit,
    hand_kubelet::HandKubelet,
    product,
};
pub(crate) use agents_tests::{audit::Asked, controller::ACCOUNT as CONTROLLER};
use anyhow::{Context as _, Result, bail};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{GroupVersionKind, TypeMeta},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use xtask::cluster::Cluster;

/// How long anything may take that a case waits for.
const DEADLINE: Duration = Duration::from_secs(45);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(15);

static AGENTS: OnceLock<PathBuf> = OnceLock::new();

/// The program under test.
pub(crate) fn agents() -> Result<&'static PathBuf> {
    AGENTS.get().context("the program has not been built")
}

/// Builds the controller and makes a cluster ready for it.
pub(crate) fn prepare(cluster: &Cluster) -> Result<()> {
    if AGENTS.get().is_none() {
        AGENTS.set(product::agents()?).ok();
    }
    api_server::prepare(cluster)
}

/// A namespace and everything a case does in it.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) controllers: AtomicU32,
}

/// Plays `case` in a namespace called `name`; a failure brings the ends of the controllers' logs along.
pub(crate) fn play(cluster: &Cluster, name: &str, case: impl AsyncFnOnce(&Stage<'_>) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let stage = Stage {
            cluster,
            namespace: name.to_owned(),
            client: admin(cluster).await?,
            controllers: AtomicU32::new(0),
        };
        stage.open().await?;
        match case(&stage).await {
            Ok(()) => {
                let namespaces = stage.api("namespaces");
                namespaces.delete(name, &DeleteParams::background()).await.context("failed to close the stage")?;
                Ok(())
            }
            Err(error) => Err(error.context(stage.logs())),
        }
    })
}

impl<'a> Stage<'a> {
    /// Another namespace beside this one, closed by the case itself.
    pub(crate) async fn beside(&self, name: &str) -> Result<Stage<'a>> {
        let client = self.client.clone();
        let stage = Stage { cluster: self.cluster, namespace: name.to_owned(), client, controllers: AtomicU32::new(0) };
        stage.open().await?;
        Ok(stage)
    }
}

impl Stage<'_> {
    async fn open(&self) -> Result<()> {
        self.create("namespaces", &json!({"metadata": {"name": self.namespace}})).await?;
        // Pods of runs run under it.
        self.create("serviceaccounts", &json!({"metadata": {"name": "agents-run"}})).await?;
        Ok(())
    }

    fn logs(&self) -> String {
        let mut logs = String::from("the controllers said:");
        for n in 0..self.controllers.load(std::sync::atomic::Ordering::Relaxed) {
            let text = std::fs::read_to_string(self.log_of(n)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.len().saturating_sub(40);
            logs += &format!("\n--- controller {n}\n{}", lines[last..].join("\n"));
        }
        logs
    }

    pub(crate) fn log_of(&self, controller: u32) -> PathBuf {
        self.cluster.dir().join(format!("controller-{}-{controller}.log", self.namespace))
    }

    /// The objects of a kind, in the case's namespace where the kind has one.
    pub(crate) fn api(&self, plural: &str) -> Api<DynamicObject> {
        let (group, version, kind) = kind_of(plural);
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        if plural == "namespaces" {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        }
    }

    /// Creates an object of this kind; apiVersion and kind are filled in.
    pub(crate) async fn create(&self, plural: &str, object: &Value) -> Result<Value> {
        let (group, version, kind) = kind_of(plural);
        let api_version = [group, version].join("/").trim_start_matches('/').to_owned();
        let mut object: DynamicObject = serde_json::from_value(object.clone()).context("the case's object")?;
        object.types.get_or_insert(TypeMeta { api_version, kind: kind.to_owned() });
        let created = self.api(plural).create(&PostParams::default(), &object).await;
        Ok(serde_json::to_value(created.with_context(|| format!("failed to create one of {plural}"))?)?)
    }

    /// Merges `change` into an object.
    pub(crate) async fn patch(&self, plural: &str, name: &str, change: &Value) -> Result<Value> {
        let patched = self.api(plural).patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        Ok(serde_json::to_value(patched.with_context(|| format!("failed to patch {plural}/{name}"))?)?)
    }

    /// Deletes an object, its dependents in the background.
    pub(crate) async fn delete(&self, plural: &str, name: &str) -> Result<()> {
        let deleted = self.api(plural).delete(name, &DeleteParams::background()).await;
        deleted.map(drop).with_context(|| format!("failed to delete {plural}/{name}"))
    }

    /// An object, if it is there.
    pub(crate) async fn find(&self, plural: &str, name: &str) -> Result<Option<Value>> {
        Ok(self.api(plural).get_opt(name).await?.map(serde_json::to_value).transpose()?)
    }

    /// All objects of a kind.
    pub(crate) async fn all(&self, plural: &str) -> Result<Vec<Value>> {
        let list = self.api(plural).list(&ListParams::default()).await?;
        Ok(list.items.into_iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
    }

    /// Looks until `look` finds something.
    pub(crate) async fn until<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let last = match look().await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if Instant::now() > deadline {
                let error = last.unwrap_or_else(|| anyhow::anyhow!("it was looked for until the end"));
                return Err(error.context(format!("{what}: not within {DEADLINE:?}")));
            }
            sleep(LOOK).await;
        }
    }

    /// The run `name` once `holds` is true of it.
    pub(crate) async fn run_when(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let last = std::sync::Mutex::new(Value::Null);
        let what = format!("run {name}: {what}");
        let found = self.until(&what, || async {
            let run = self.find("agentruns", name).await?;
            if let Some(run) = &run {
                *last.lock().expect("no other thread") = run["status"].clone();
            }
            Ok(run.filter(&holds))
        });
        found.await.with_context(|| format!("its last status: {:#}", last.lock().expect("no other thread")))
    }

    /// The run `name` once it is in `phase`; fails at once when it has ended in another one.
    pub(crate) async fn run_in(&self, name: &str, phase: &str) -> Result<Value> {
        let over = |run: &Value| matches!(phase_of(run), "Succeeded" | "Failed" | "Cancelled");
        let run = self.run_when(name, phase, |run| phase_of(run) == phase || over(run)).await?;
        if phase_of(&run) != phase {
            bail!("run {name} should be {phase}, but: {:#}", run["status"]);
        }
        Ok(run)
    }

    /// The provider, agent and run that most cases use; answers with the run.
    pub(crate) async fn happy_run(&self, name: &str) -> Result<Value> {
        self.declarations().await?;
        self.run(name, &json!({})).await
    }

    /// An Agent called `agent` with its provider, unless they are there.
    pub(crate) async fn declarations(&self) -> Result<()> {
        if self.find("agents", "agent").await?.is_none() {
            self.create("agentproviders", &provider("shell")).await?;
            self.create("agents", &agent("agent", "shell")).await?;
        }
        Ok(())
    }

    /// A run of the Agent `agent` with more in its spec.
    pub(crate) async fn run(&self, name: &str, spec: &Value) -> Result<Value> {
        self.create("agentruns", &run(name, spec)).await
    }

    pub(crate) fn kubelet(&self) -> HandKubelet {
        HandKubelet::new(self.client.clone(), &self.namespace)
    }

    /// kubectl in the case's namespace, without blocking who plays the kubelet.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = format!("--namespace={}", self.namespace);
        let all: Vec<&str> = [namespace.as_str()].into_iter().chain(arguments.iter().copied()).collect();
        tokio::task::block_in_place(|| self.cluster.kubectl(&all))
    }

    /// The end of the audit log as it is now.
    pub(crate) fn mark(&self) -> Result<u64> {
        audit::mark(self.cluster)
    }

    /// What was asked of the API server in this namespace since `mark`, watches apart.
    pub(crate) fn asked_since(&self, mark: u64) -> Result<Vec<Asked>> {
        audit::asked_since(self.cluster, mark, &self.namespace)
    }

    /// What the controllers asked since `mark`, Events and leases apart.
    pub(crate) fn controllers_asked(&self, mark: u64) -> Result<Vec<Asked>> {
        let ours = format!("system:serviceaccount:{}:{CONTROLLER}", self.namespace);
        let mut asked = self.asked_since(mark)?;
        asked.retain(|asked| asked.who.starts_with(&ours) && asked.resource != "events" && asked.resource != "leases");
        Ok(asked)
    }
}

fn kind_of(plural: &str) -> (&'static str, &'static str, &'static str) {
    match plural {
        "agents" => ("agents.proompteng.ai", "v1alpha1", "Agent"),
        "agentproviders" => ("agents.proompteng.ai", "v1alpha1", "AgentProvider"),
        "agentruns" => ("agents.proompteng.ai", "v1alpha1", "AgentRun"),
        "implementationspecs" => ("agents.proompteng.ai", "v1alpha1", "ImplementationSpec"),
        "schedules" => ("schedules.proompteng.ai", "v1alpha1", "Schedule"),
        "signals" => ("signals.proompteng.ai", "v1alpha1", "Signal"),
        "signaldeliveries" => ("signals.proompteng.ai", "v1alpha1", "SignalDelivery"),
        "cronjobs" => ("batch", "v1", "CronJob"),
        "jobs" => ("batch", "v1", "Job"),
        "leases" => ("coordination.k8s.io", "v1", "Lease"),
        "roles" => ("rbac.authorization.k8s.io", "v1", "Role"),
        "rolebindings" => ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
        "configmaps" => ("", "v1", "ConfigMap"),
        "namespaces" => ("", "v1", "Namespace"),
        "pods" => ("", "v1", "Pod"),
        "serviceaccounts" => ("", "v1", "ServiceAccount"),
        other => unreachable!("no case uses {other}"),
    }
}

/// Verb and resource of each.
pub(crate) fn what(asked: &[Asked]) -> Vec<String> {
    asked.iter().map(Asked::what).collect()
}

/// The phase of a run; empty before it has one.
pub(crate) fn phase_of(run: &Value) -> &str {
    run["status"]["phase"].as_str().unwrap_or_default()
}

/// The reason of a run's phase.
pub(crate) fn reason_of(run: &Value) -> &str {
    run["status"]["reason"].as_str().unwrap_or_default()
}

pub(crate) fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// The truth of a run's condition.
pub(crate) fn condition<'a>(run: &'a Value, kind: &str) -> &'a str {
    let mut conditions = run["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == kind)
        .and_then(|found| found["status"].as_str())
        .unwrap_or("absent")
}

/// The name of the Job of an attempt of `run`.
pub(crate) fn job_of(run: &Value, attempt: i32) -> String {
    let name = run["metadata"]["name"].as_str().unwrap_or_default();
    ChildName::of(name, &SubmissionKey::of_attempt(uid_of(run), attempt)).to_string()
}

pub(crate) fn provider(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"binary": "/bin/sh", "argsTemplate": ["-c", "echo {{ implementation.text }}"]},
    })
}

pub(crate) fn agent(name: &str, provider: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"providerRef": {"name": provider}}})
}

pub(crate) fn run(name: &str, spec: &Value) -> Value {
    let mut run = json!({
        "metadata": {"name": name},
        "spec": {"agentRef": {"name": "agent"}, "implementation": {"inline": {"text": "say hello"}}},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        run["spec"][field] = value.clone();
    }
    run
}
