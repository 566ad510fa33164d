//! What a run must cost: the Job alone, and the Job of an operator that does no more than any operator must, once a Job of
//! one bare container and once one like ours.
//!
//! The operator keeps a small object of its own beside each Job, watches what the product watches, and writes that
//! object's status twice: when the pod runs and when the Job is complete. Pods are played as those of the product are, and
//! an operator's pod, like a run's, ends once its status says that it runs.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::{
    marks::{LABEL_MANAGED_BY, MANAGED_BY},
    plan::CONTAINER,
};
use agents_tests::hand_kubelet::{Exit, HandKubelet};
use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::FuturesUnordered};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    core::GroupVersionKind,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use crate::load::{CONNECTIONS, patience};

const GROUP: &str = "floor.proompteng.ai";
const KIND: &str = "Work";
/// Name of the definition of the operator's object.
pub(crate) const DEFINITION: &str = "works.floor.proompteng.ai";
const LABEL: &str = "floor.proompteng.ai/turn";

/// What is made.
#[derive(Debug, Clone)]
pub(crate) struct Floor {
    /// Whether there is a small object beside each Job, and somebody who writes its status twice.
    pub(crate) operator: bool,
    /// The Job, without its name, owner and label.
    pub(crate) job: Value,
}

/// A Job of one container with nothing but a command.
pub(crate) fn bare_job() -> Value {
    json!({
        "metadata": {},
        "spec": {"backoffLimit": 0, "template": {"metadata": {}, "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": CONTAINER, "image": "work", "command": ["/bin/sh", "-c", "echo say hello"]}],
        }}},
    })
}

/// A Job as large as one of ours, which no controller of ours takes for its own.
pub(crate) async fn job_like_ours(client: &Client, namespace: &str) -> Result<Value> {
    let ours = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}")).limit(1);
    let jobs = Api::<Job>::namespaced(client.clone(), namespace).list(&ours).await?;
    let mut job = serde_json::to_value(jobs.items.first().context("there is no Job of ours")?)?;
    let mut spec = job["spec"].take();
    for field in ["selector", "manualSelector", "ttlSecondsAfterFinished"] {
        spec.as_object_mut().context("a Job has a spec")?.remove(field);
    }
    let renamed = |metadata: &Value| {
        let of = |field: &str| -> Value {
            let given = metadata[field].as_object().into_iter().flatten();
            let kept = given.filter(|(key, _)| !key.contains("job-name") && !key.contains("controller-uid"));
            kept.map(|(key, value)| (key.replace(agents_core::api::GROUP, GROUP), value.clone())).collect()
        };
        let mut labels = of("labels");
        labels[LABEL_MANAGED_BY] = json!("floor");
        json!({"annotations": of("annotations"), "labels": labels})
    };
    let (metadata, of_pod) = (renamed(&job["metadata"]), renamed(&spec["template"]["metadata"]));
    spec["template"]["metadata"] = of_pod;
    Ok(json!({"metadata": metadata, "spec": spec}))
}

/// The definition of the operator's object.
pub(crate) fn definition() -> Value {
    let text = json!({"type": "string"});
    let of = |names: &[&str]| {
        let properties: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), text.clone())).collect();
        json!({"type": "object", "properties": properties})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": DEFINITION},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "names": {"kind": KIND, "plural": "works"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": of(&["agent", "text"]),
                    "status": of(&["phase", "reason", "message", "job", "startedAt", "finishedAt"]),
                }}},
            }],
        },
    })
}

/// Makes so many at once, and waits until each has ended.
pub(crate) async fn play(client: &Client, namespace: &str, floor: &Floor, turn: &str, count: u32) -> Result<()> {
    let works = works(client, namespace);
    let jobs = Api::<Job>::namespaced(client.clone(), namespace);
    let names = (0..count).map(|n| format!("{turn}-{n:05}"));
    let make = async {
        stream::iter(names.map(|name| {
            let (works, jobs) = (works.clone(), jobs.clone());
            async move {
                let new = PostParams::default();
                if floor.operator {
                    works.create(&new, &work(&name, turn)?).await?;
                } else {
                    jobs.create(&new, &job(&floor.job, &name, turn, None)?).await?;
                }
                anyhow::Ok(())
            }
        }))
        .buffer_unordered(CONNECTIONS)
        .try_collect::<()>()
        .await
    };
    let attended = async {
        let all = timeout(patience(count), attend(client, namespace, floor, turn, count)).await;
        all.with_context(|| format!("not all of {count} have ended"))?
    };
    tokio::try_join!(make, attended).map(|((), ())| ())
}

fn works(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", KIND));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn work(name: &str, turn: &str) -> Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": KIND, "metadata": {"name": name, "labels": {LABEL: turn}},
        "spec": {"agent": "agent", "text": "say hello"},
    }))?)
}

fn job(of: &Value, name: &str, turn: &str, owner: Option<&DynamicObject>) -> Result<Job> {
    let mut job = of.clone();
    job["metadata"]["name"] = json!(name);
    job["metadata"]["labels"][LABEL] = json!(turn);
    job["spec"]["template"]["metadata"]["labels"][LABEL] = json!(turn);
    if let Some(owner) = owner {
        job["metadata"]["ownerReferences"] = json!([{
            "apiVersion": format!("{GROUP}/v1"), "kind": KIND, "name": owner.name_any(), "uid": owner.uid(),
            "controller": true,
        }]);
    }
    Ok(serde_json::from_value(job)?)
}

/// Who plays the operator, where there is one, and the kubelet.
struct Players {
    floor: Floor,
    turn: String,
    works: Api<DynamicObject>,
    jobs: Api<Job>,
    kubelet: HandKubelet,
    /// The operator's objects as they were stored last.
    stored: Mutex<HashMap<String, DynamicObject>>,
    connections: Semaphore,
}

/// What is to be done about one of so many.
enum Step {
    Submit(DynamicObject),
    Start(Pod),
    Running(Pod),
    Complete(String),
}

impl Players {
    /// Answers whether this was the last step.
    async fn take(&self, step: Step) -> Result<bool> {
        let _one = self.connections.acquire().await?;
        match step {
            Step::Submit(object) => {
                let name = object.name_any();
                let job = job(&self.floor.job, &name, &self.turn, Some(&object))?;
                self.stored().insert(name, object);
                self.jobs.create(&PostParams::default(), &job).await?;
            }
            Step::Start(pod) => self.kubelet.start(&pod).await?,
            Step::Running(pod) => {
                self.tell(pod.labels().get("job-name").context("a pod of no Job")?, "Running").await?;
                self.kubelet.end(&pod, &Exit::success(&pod)).await?;
            }
            Step::Complete(job) => {
                self.tell(&job, "Succeeded").await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn tell(&self, name: &str, phase: &str) -> Result<()> {
        if !self.floor.operator {
            return Ok(());
        }
        let mut object = self.stored().remove(name).context("an object that nobody has seen")?;
        let now = Timestamp::now();
        let status = &mut object.data["status"];
        status["phase"] = json!(phase);
        status["reason"] = json!(phase);
        status["message"] = json!("the work is followed");
        status["job"] = json!(name);
        status[if phase == "Running" { "startedAt" } else { "finishedAt" }] = json!(now);
        let object = self.works.replace_status(name, &PostParams::default(), &object).await?;
        self.stored().insert(name.to_owned(), object);
        Ok(())
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<String, DynamicObject>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn attend(client: &Client, namespace: &str, floor: &Floor, turn: &str, count: u32) -> Result<()> {
    let selected = watcher::Config::default().labels(&format!("{LABEL}={turn}"));
    let players = &Players {
        floor: floor.clone(),
        turn: turn.to_owned(),
        works: works(client, namespace),
        jobs: Api::namespaced(client.clone(), namespace),
        kubelet: HandKubelet::new(client.clone(), namespace),
        stored: Mutex::default(),
        connections: Semaphore::new(CONNECTIONS),
    };
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let mut pods = pin!(watcher(pods, selected.clone()).default_backoff().applied_objects());
    let mut jobs = pin!(watcher(players.jobs.clone(), selected.clone()).default_backoff().applied_objects());
    let mut works = if floor.operator {
        watcher(players.works.clone(), selected).default_backoff().applied_objects().boxed()
    } else {
        stream::pending().boxed()
    };
    let mut done = HashSet::new();
    let mut steps = FuturesUnordered::new();
    let mut ended = 0;
    while ended < count {
        // A watch that broke is taken up again: that is asked for by the next look.
        let (what, name, step) = tokio::select! {
            Some(seen) = pods.next() => {
                let Ok(pod) = seen else { continue };
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                match phase {
                    Some("Running") => ("running", pod.name_any(), Step::Running(pod)),
                    _ => ("start", pod.name_any(), Step::Start(pod)),
                }
            }
            Some(seen) = jobs.next() => {
                let Ok(job) = seen else { continue };
                let is_complete = job.status.as_ref().is_some_and(|status| status.completion_time.is_some());
                if !is_complete {
                    continue;
                }
                ("complete", job.name_any(), Step::Complete(job.name_any()))
            }
            Some(seen) = works.next() => {
                let Ok(object) = seen else { continue };
                ("submit", object.name_any(), Step::Submit(object))
            }
            Some(last) = steps.next() => {
                let last: Result<bool> = last;
                ended += u32::from(last?);
                continue;
            }
            else => bail!("the watches ended"),
        };
        if done.insert((what, name)) {
            steps.push(players.take(step));
        }
    }
    Ok(())
}
