//! A kubelet played by hand: it tells the API server of pods that nothing runs.
//!
//! For clusters with controllers and no node. A pod is bound to a node that exists as an object only ([`NODE`]) and its
//! status is patched as a kubelet would: containers that run and end, reports in termination messages, failures of every
//! kind. Deletions with a grace are finished by hand too. [`HandKubelet::attend`] does all of it by itself.

use std::{collections::BTreeSet, time::Duration};

use agents_core::{
    marks::{LABEL_ATTEMPT, LABEL_RUN_UID},
    plan::CONTAINER,
    report::{Ended, KEY_VARIABLE, Report, SCHEMA_VERSION},
};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// The node that pods are bound to.
pub const NODE: &str = "by-hand";
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long a pod may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the node, as an object only. Without it the cluster's own controllers remove pods that are bound to it.
///
/// # Errors
/// The API server refused it.
pub async fn register_node(client: &Client) -> Result<()> {
    let node = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "spec": {"unschedulable": true},
    }))?;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await.context("failed to make the node")?;
    let ready = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": Timestamp::now()},
    ]}});
    nodes
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(ready))
        .await
        .context("failed to ready the node")?;
    Ok(())
}

/// How an agent's container ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// Exit code of the container.
    pub code: i32,
    /// The kubelet's word for it, such as `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
    /// The termination message.
    pub message: Option<String>,
}

impl Exit {
    /// Exit 0 with the report of a success.
    pub fn success(pod: &Pod) -> Self {
        Self { code: 0, reason: "Completed".into(), message: Some(report(pod, Ended::Succeeded).termination_message()) }
    }

    /// The provider exited with `code`, and the report says so.
    pub fn provider_exit(pod: &Pod, code: i32) -> Self {
        let mut report = report(pod, Ended::Failed);
        report.exit_code = Some(code);
        report.reason = Some("ProviderExited".into());
        Self { code, reason: "Error".into(), message: Some(report.termination_message()) }
    }

    /// The runner was told to stop, and reports it.
    pub fn stopped(pod: &Pod) -> Self {
        let mut report = report(pod, Ended::Cancelled);
        report.exit_code = None;
        report.signal = Some(15);
        report.reason = Some("Cancelled".into());
        Self { code: 143, reason: "Error".into(), message: Some(report.termination_message()) }
    }

    /// The kernel killed the container for its memory.
    pub fn out_of_memory() -> Self {
        Self { code: 137, reason: "OOMKilled".into(), message: None }
    }
}

/// The runner's report of the attempt that `pod` belongs to.
pub fn report(pod: &Pod, status: Ended) -> Report {
    let label = |name: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    Report {
        schema_version: SCHEMA_VERSION.into(),
        status,
        provider: "by-hand".into(),
        run_uid: label(LABEL_RUN_UID).unwrap_or_default(),
        attempt: label(LABEL_ATTEMPT).and_then(|attempt| attempt.parse().ok()).unwrap_or_default(),
        proof: proof_of(pod),
        plan_digest: String::new(),
        reason: None,
        exit_code: Some(0),
        signal: None,
        started_at: None,
        finished_at: Timestamp::now(),
        error: None,
        usage: None,
        vcs: None,
        conversation: None,
        outputs: vec![],
        truncated: false,
    }
}

/// What the runner repeats of its environment.
fn proof_of(pod: &Pod) -> String {
    let agent = pod.spec.iter().flat_map(|spec| &spec.containers).find(|container| container.name == CONTAINER);
    let mut env = agent.and_then(|agent| agent.env.as_ref()).into_iter().flatten();
    env.rfind(|variable| variable.name == KEY_VARIABLE).and_then(|key| key.value.clone()).unwrap_or_default()
}

/// What [`HandKubelet::attend`] does with a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Play {
    /// Its container runs for this long and succeeds.
    Succeed(Duration),
    /// Its provider exits with this code after this long.
    Fail(i32, Duration),
    /// Its container runs until it is told to stop.
    Hang,
    /// Nothing but the end of its deletion: its container never starts.
    Leave,
}

/// Plays the kubelet for the pods of one namespace.
#[derive(Debug, Clone)]
pub struct HandKubelet {
    pods: Api<Pod>,
}

impl HandKubelet {
    /// A kubelet for the pods of `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { pods: Api::namespaced(client, namespace) }
    }

    /// The pod of an attempt, once it is there.
    ///
    /// # Errors
    /// It does not appear.
    pub async fn pod(&self, run_uid: &str, attempt: i32) -> Result<Pod> {
        let labels = format!("{LABEL_RUN_UID}={run_uid},{LABEL_ATTEMPT}={attempt}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.pods.list(&ListParams::default().labels(&labels)).await?;
            if let Some(pod) = found.items.into_iter().next() {
                return Ok(pod);
            }
            if Instant::now() > deadline {
                bail!("no pod of attempt {attempt} of {run_uid} has appeared");
            }
            sleep(LOOK).await;
        }
    }

    /// Binds the pod to the node, as the scheduler does.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn bind(&self, pod: &Pod) -> Result<()> {
        let name = pod_name(pod)?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        });
        let bound = self.pods.create_subresource::<_, Value>("binding", name, &PostParams::default(), &binding).await;
        match bound {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            bound => bound.map(drop).context("failed to bind the pod"),
        }
    }

    /// Binds the pod and starts its container, the runner installed.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn start(&self, pod: &Pod) -> Result<()> {
        self.bind(pod).await?;
        let running = json!({"running": {"startedAt": Timestamp::now()}});
        self.status(pod, with_containers(pod, "Running", &running, true)).await
    }

    /// Lets the container wait for this reason.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn hold(&self, pod: &Pod, reason: &str, message: &str) -> Result<()> {
        self.bind(pod).await?;
        let waiting = json!({"waiting": {"reason": reason, "message": message}});
        self.status(pod, with_containers(pod, "Pending", &waiting, true)).await
    }

    /// Ends the container.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn end(&self, pod: &Pod, exit: &Exit) -> Result<()> {
        let Exit { code, reason, message } = exit;
        let mut state = json!({"exitCode": code, "reason": reason, "finishedAt": Timestamp::now()});
        state["startedAt"] = json!(pod.metadata.creation_timestamp);
        if let Some(message) = message {
            state["message"] = json!(message);
        }
        let phase = if *code == 0 { "Succeeded" } else { "Failed" };
        self.status(pod, with_containers(pod, phase, &json!({"terminated": state}), false)).await
    }

    /// Evicts the pod for want of disk, as the kubelet itself does.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn evict(&self, pod: &Pod) -> Result<()> {
        let status = json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage.",
            "containerStatuses": null, "initContainerStatuses": null,
        });
        self.status(pod, status).await
    }

    /// Finishes the deletion of a pod: its container has ended.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn forget(&self, pod: &Pod) -> Result<()> {
        let gone = self.pods.delete(pod_name(pod)?, &DeleteParams::default().grace_period(0)).await;
        match gone {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            gone => gone.map(drop).context("failed to forget the pod"),
        }
    }

    async fn status(&self, pod: &Pod, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods
            .patch_status(pod_name(pod)?, &PatchParams::default(), &patch)
            .await
            .context("failed to patch the status of the pod")?;
        Ok(())
    }

    /// Attends to every pod of the namespace until the answer is dropped.
    pub fn attend(&self, play: impl Fn(&Pod) -> Play + Send + 'static) -> Attendance {
        let kubelet = self.clone();
        Attendance(tokio::spawn(async move {
            let (mut started, mut ended) = (BTreeSet::new(), BTreeSet::new());
            loop {
                // Whatever fails here, such as a server that is killed on purpose, is tried again.
                if let Ok(pods) = kubelet.pods.list(&ListParams::default()).await {
                    for pod in pods {
                        kubelet.look(&pod, &play(&pod), &mut started, &mut ended).await.ok();
                    }
                }
                sleep(LOOK).await;
            }
        }))
    }

    async fn look(
        &self,
        pod: &Pod,
        play: &Play,
        started: &mut BTreeSet<String>,
        ended: &mut BTreeSet<String>,
    ) -> Result<()> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            if started.contains(&uid) && !ended.contains(&uid) {
                self.end(pod, &Exit::stopped(pod)).await?;
                ended.insert(uid);
            }
            return self.forget(pod).await;
        }
        if *play != Play::Leave && !started.contains(&uid) {
            self.start(pod).await?;
            started.insert(uid.clone());
        }
        let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        let (after, exit) = match play {
            Play::Succeed(after) => (*after, Exit::success(pod)),
            Play::Fail(code, after) => (*after, Exit::provider_exit(pod, *code)),
            Play::Hang | Play::Leave => return Ok(()),
        };
        let over = created + jiff::SignedDuration::try_from(after)?;
        if !ended.contains(&uid) && Timestamp::now() >= over {
            self.end(pod, &exit).await?;
            ended.insert(uid);
        }
        Ok(())
    }
}

/// Pods are attended to while this lives.
#[derive(Debug)]
#[must_use = "nobody attends to the pods once this is dropped"]
pub struct Attendance(JoinHandle<()>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn pod_name(pod: &Pod) -> Result<&str> {
    pod.metadata.name.as_deref().context("the pod has no name")
}

/// A pod's status with its agent's container in `state`.
fn with_containers(pod: &Pod, phase: &str, state: &Value, ready: bool) -> Value {
    let running = ready && !state["running"].is_null();
    let status = |name: &str, image: Option<&str>, state: &Value| {
        json!({
            "name": name, "image": image.unwrap_or_default(), "imageID": "", "restartCount": 0,
            "ready": running, "started": running, "state": state,
        })
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let now = Timestamp::now();
    let done = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
    let inits: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| {
            let mut status = status(&container.name, container.image.as_deref(), &done);
            status["ready"] = json!(true);
            status
        })
        .collect();
    let containers: Vec<_> = spec
        .containers
        .iter()
        .filter(|container| container.name == CONTAINER)
        .map(|container| status(&container.name, container.image.as_deref(), state))
        .collect();
    json!({
        "phase": phase,
        "startTime": pod.metadata.creation_timestamp,
        "initContainerStatuses": inits,
        "containerStatuses": containers,
    })
}
