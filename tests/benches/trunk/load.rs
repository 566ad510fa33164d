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
    decide::agent_run::RUN_LABEL,
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
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Requests of the kubelet under way at once, and of whoever makes runs.
const CONNECTIONS: usize = 16;

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

/// A run as it was stored.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The makers of runs and the kubelet.
pub(crate) struct Players {
    runs: Api<DynamicObject>,
    ended: mpsc::UnboundedReceiver<String>,
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

    /// Makes `count` runs and waits until each has ended.
    pub(crate) async fn play(&mut self, prefix: &str, count: u32, shape: Shape) -> Result<Vec<Made>> {
        let names = (0..count).map(|n| format!("{prefix}-{n:05}"));
        let patience = Duration::from_secs(120) + Duration::from_millis(500) * count;
        let runs = self.runs.clone();
        let create = |name: String| make(runs.clone(), name);
        let made = match shape {
            Shape::OneByOne => {
                let mut made = Vec::new();
                for name in names {
                    made.push(create(name.clone()).await?);
                    self.wait(HashSet::from([name]), patience).await?;
                }
                return Ok(made);
            }
            Shape::Rate(rate) => {
                let mut at = Instant::now();
                let due = names.enumerate().map(|(n, name)| {
                    at += pause(n, rate);
                    let (at, create) = (at, create(name));
                    async move {
                        sleep_until(at).await;
                        create.await
                    }
                });
                due.collect::<FuturesUnordered<_>>().try_collect::<Vec<_>>().await?
            }
            Shape::AtOnce => stream::iter(names.map(create)).buffer_unordered(CONNECTIONS).try_collect().await?,
        };
        self.wait(made.iter().map(|made| made.name.clone()).collect(), patience).await?;
        Ok(made)
    }

    async fn wait(&mut self, mut open: HashSet<String>, patience: Duration) -> Result<()> {
        let all = async {
            while !open.is_empty() {
                let Some(name) = self.ended.recv().await else { break };
                open.remove(&name);
            }
        };
        if timeout(patience, all).await.is_err() {
            bail!("{} runs have not ended, {:?} for one", open.len(), open.iter().next());
        }
        if !open.is_empty() {
            (&mut self.kubelet).await??;
            bail!("nobody plays the kubelet any more");
        }
        Ok(())
    }
}

/// The time before arrival `n`: exponential, and the same in every bench.
fn pause(n: usize, rate: f64) -> Duration {
    let mut hasher = DefaultHasher::new();
    n.hash(&mut hasher);
    let even = f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    Duration::from_secs_f64(-(1.0 - even * 0.9999).ln() / rate)
}

async fn make(runs: Api<DynamicObject>, name: String) -> Result<Made> {
    let run = serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "AgentRun",
        "metadata": {"name": name},
        "spec": {"agentRef": {"name": "agent"}, "implementation": {"inline": {"text": "say hello"}}},
    }))?;
    let stored = runs.create(&PostParams::default(), &run).await.context("failed to make a run")?;
    Ok(Made { name, uid: stored.metadata.uid.context("a stored run has a uid")? })
}

/// Plays each pod once, and tells which runs have ended.
async fn attend(
    client: Client,
    namespace: String,
    runs: Api<DynamicObject>,
    ended: mpsc::UnboundedSender<String>,
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
                let Some(run) = labels.and_then(|labels| labels.get(RUN_LABEL)).cloned() else { continue };
                if started.insert(run.clone()) {
                    alive.insert(run, pod.clone());
                    let (kubelet, connections) = (&kubelet, Arc::clone(&connections));
                    work.push(Box::pin(async move {
                        let _one = connections.acquire().await?;
                        kubelet.start(&pod).await
                    }));
                }
            }
            Some(seen) = runs.next() => {
                let Ok(run) = seen else { continue };
                let name = run.metadata.name.unwrap_or_default();
                match run.data["status"]["phase"].as_str().unwrap_or_default() {
                    "Running" => if let Some(pod) = alive.remove(&name) {
                        let (kubelet, connections) = (&kubelet, Arc::clone(&connections));
                        work.push(Box::pin(async move {
                            let _one = connections.acquire().await?;
                            kubelet.end(&pod, &Exit::success(&pod)).await
                        }));
                    },
                    "Succeeded" if told.insert(name.clone()) => drop(ended.send(name)),
                    "Failed" | "Cancelled" => bail!("run {name} ended otherwise: {:#}", run.data["status"]),
                    _ => {}
                }
            }
            Some(done) = work.next() => done?,
            else => bail!("both watches ended"),
        }
    }
}
