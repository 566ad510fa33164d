//! Who makes runs, and who plays their pods: started when they appear, ended when the run says Running.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use agents_core::{
    api::{GROUP, VERSION},
    marks::LABEL_RUN,
};
use agents_tests::hand_kubelet::{Exit, HandKubelet};
use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::scene::AGENT;

/// Requests of the kubelet under way at once, and of whoever makes runs.
pub(crate) const CONNECTIONS: usize = 16;

/// How long so many may take to end.
pub(crate) fn patience(count: u32) -> Duration {
    Duration::from_secs(120) + Duration::from_millis(500) * count
}

/// How runs arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// Each when the one before it has ended.
    OneByOne,
    /// At random moments, so many a second on average, whatever has ended.
    Rate(f64),
    /// As fast as the API server takes them.
    AtOnce,
}

/// A run that is to be made.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// After the beginning.
    pub(crate) at: Duration,
    pub(crate) spec: Value,
    pub(crate) end: End,
}

/// How a run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    /// Without an attempt, for what its templates cost.
    TemplateLimit,
}

impl End {
    fn is(self, status: &Value) -> bool {
        let (phase, reason) = (&status["phase"], &status["reason"]);
        match self {
            Self::Succeeded => phase == "Succeeded",
            Self::TemplateLimit => phase == "Failed" && reason == "TemplateLimit",
        }
    }
}

/// A run as it was stored.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The makers of runs and the kubelet.
pub(crate) struct Players {
    runs: Api<DynamicObject>,
    ended: mpsc::UnboundedReceiver<(String, Value)>,
    kubelet: JoinHandle<Result<()>>,
}

impl Players {
    pub(crate) fn enter(client: Client, namespace: &str) -> Result<Self> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, "AgentRun"));
        let runs = Api::namespaced_with(client.clone(), namespace, &resource);
        let (sender, ended) = mpsc::unbounded_channel();
        let kubelet = tokio::spawn(attend(client, namespace.to_owned(), runs.clone(), sender));
        Ok(Self { runs, ended, kubelet })
    }

    pub(crate) fn leave(self) {
        self.kubelet.abort();
    }

    /// Makes `count` ordinary runs and waits until each has succeeded.
    pub(crate) async fn play(&mut self, prefix: &str, count: u32, shape: Shape) -> Result<Vec<Made>> {
        if let Shape::Rate(rate) = shape {
            return self.arrive(ordinary(prefix, count, rate)).await;
        }
        let names = (0..count).map(|n| format!("{prefix}-{n:05}"));
        let runs = self.runs.clone();
        let create = |name: String| make(runs.clone(), name, ordinary_spec());
        if shape == Shape::OneByOne {
            let mut made = Vec::new();
            for name in names {
                made.push(create(name.clone()).await?);
                self.wait(HashMap::from([(name, End::Succeeded)])).await?;
            }
            return Ok(made);
        }
        let made: Vec<_> = stream::iter(names.map(create)).buffer_unordered(CONNECTIONS).try_collect().await?;
        self.wait(made.iter().map(|made| (made.name.clone(), End::Succeeded)).collect()).await?;
        Ok(made)
    }

    /// Makes each run at its time, whatever has ended, and waits until each has ended as it is to.
    pub(crate) async fn arrive(&mut self, wanted: Vec<Wanted>) -> Result<Vec<Made>> {
        let ends = wanted.iter().map(|run| (run.name.clone(), run.end)).collect();
        let began = Instant::now();
        let due = wanted.into_iter().map(|Wanted { name, at, spec, end: _ }| {
            let create = make(self.runs.clone(), name, spec);
            async move {
                sleep_until(began + at).await;
                create.await
            }
        });
        let made = due.collect::<FuturesUnordered<_>>().try_collect().await?;
        self.wait(ends).await?;
        Ok(made)
    }

    async fn wait(&mut self, mut open: HashMap<String, End>) -> Result<()> {
        let patience = patience(u32::try_from(open.len())?);
        let all = async {
            while !open.is_empty() {
                let Some((name, status)) = self.ended.recv().await else { break };
                if let Some(end) = open.remove(&name)
                    && !end.is(&status)
                {
                    bail!("run {name} ended otherwise than with {end:?}: {status:#}");
                }
            }
            Ok(())
        };
        match timeout(patience, all).await {
            Ok(waited) => waited?,
            Err(_) => bail!("{} runs have not ended, {:?} for one", open.len(), open.keys().next()),
        }
        if !open.is_empty() {
            (&mut self.kubelet).await??;
            bail!("nobody plays the kubelet any more");
        }
        Ok(())
    }
}

/// Ordinary runs at random moments, so many a second on average; the same moments each time.
pub(crate) fn ordinary(prefix: &str, count: u32, rate: f64) -> Vec<Wanted> {
    let mut at = Duration::ZERO;
    let run = |n: u32| {
        at += pause(n, rate);
        Wanted { name: format!("{prefix}-{n:05}"), at, spec: ordinary_spec(), end: End::Succeeded }
    };
    (0..count).map(run).collect()
}

fn ordinary_spec() -> Value {
    json!({"agentRef": {"name": AGENT}, "implementation": {"inline": {"text": "say hello"}}})
}

/// The time before arrival `n`: exponential.
fn pause(n: u32, rate: f64) -> Duration {
    let mut hasher = DefaultHasher::new();
    u64::from(n).hash(&mut hasher);
    let even = f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    Duration::from_secs_f64(-(1.0 - even * 0.9999).ln() / rate)
}

async fn make(runs: Api<DynamicObject>, name: String, spec: Value) -> Result<Made> {
    let run = serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "AgentRun", "metadata": {"name": name}, "spec": spec,
    }))?;
    let stored = runs.create(&PostParams::default(), &run).await.context("failed to make a run")?;
    Ok(Made { name, uid: stored.metadata.uid.context("a stored run has a uid")? })
}

/// Plays each pod once, and tells with which status runs have ended.
async fn attend(
    client: Client,
    namespace: String,
    runs: Api<DynamicObject>,
    ended: mpsc::UnboundedSender<(String, Value)>,
) -> Result<()> {
    let kubelet = HandKubelet::new(client.clone(), &namespace);
    let pods = Api::<Pod>::namespaced(client, &namespace);
    let mut pods = pin!(watcher(pods, watcher::Config::default()).default_backoff().applied_objects());
    let mut runs = pin!(watcher(runs, watcher::Config::default()).default_backoff().applied_objects());
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut alive: HashMap<String, Pod> = HashMap::new();
    let (mut started, mut told) = (HashSet::new(), HashSet::new());
    let mut work: FuturesUnordered<BoxFuture<'_, Result<()>>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(seen) = pods.next() => {
                // A watch that broke is taken up again.
                let Ok(pod) = seen else { continue };
                let labels = pod.metadata.labels.as_ref();
                let Some(run) = labels.and_then(|labels| labels.get(LABEL_RUN)).cloned() else { continue };
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                // Others may have played it before.
                let is_over = matches!(phase, Some("Succeeded" | "Failed"));
                if !is_over && started.insert(run.clone()) {
                    alive.insert(run, pod.clone());
                    let (kubelet, connections) = (&kubelet, Arc::clone(&connections));
                    work.push(Box::pin(async move {
                        let _one = connections.acquire().await?;
                        kubelet.start(&pod).await
                    }));
                }
            }
            Some(seen) = runs.next() => {
                let Ok(mut run) = seen else { continue };
                let name = run.metadata.name.unwrap_or_default();
                let status = run.data["status"].take();
                match status["phase"].as_str().unwrap_or_default() {
                    "Running" => if let Some(pod) = alive.remove(&name) {
                        let (kubelet, connections) = (&kubelet, Arc::clone(&connections));
                        work.push(Box::pin(async move {
                            let _one = connections.acquire().await?;
                            kubelet.end(&pod, &Exit::success(&pod)).await
                        }));
                    },
                    "Succeeded" | "Failed" | "Cancelled" if told.insert(name.clone()) => drop(ended.send((name, status))),
                    _ => {}
                }
            }
            Some(done) = work.next() => done?,
            else => bail!("both watches ended"),
        }
    }
}
