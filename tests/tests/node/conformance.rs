//! The conformance suite of runtime adapters on the Job adapter, with real pods.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agents_core::{
    api::{Agent, AgentProvider, AgentRun, Resource, runtime::RuntimeKind},
    decide::{
        Effect,
        agent_run::{RunSnapshot, Settings, decide},
    },
    look::Found,
    plan::{Bounds, Defaults},
    policy::Rules,
    resolve::References,
    runtime::{Observation, Submission},
};
use agents_kube::{
    Calls, TimerClock,
    client::{Scope, Target},
    runtime::{CachedJobs, JobAdapter},
    watch,
};
use agents_runtime::{
    adapter::RuntimeAdapter,
    conformance::{self, Fixture, Work},
};
use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use axum::{Router, extract::Path, routing::get};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use xtask::cluster::{Cluster, images::product_reference};

use super::install::{NAMESPACE, SHELL_IMAGE, create, kubectl, run};

/// The shared cluster, runs that exist only to own Jobs, and a listener that providers tell of their start.
struct Jobs<'a> {
    cluster: &'a Cluster,
    calls: Calls,
    listener: SocketAddr,
    marks: Arc<Mutex<HashMap<String, usize>>>,
    next: AtomicUsize,
}

impl Jobs<'_> {
    fn adapter(&self) -> JobAdapter {
        let watches = watch::Settings::seeded(0);
        let jobs = Arc::new(watch::Watch::new(Target::of::<Job>(), self.calls.clone(), Scope::default(), watches));
        let pods = Arc::new(watch::Watch::new(Target::of::<Pod>(), self.calls.clone(), Scope::default(), watches));
        JobAdapter::new(Arc::new(CachedJobs::new(self.calls.clone(), jobs, pods)))
    }

    fn try_submission(&self, work: Work) -> Result<Submission> {
        let name = format!("conforms-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let tell = format!("busybox wget -q -O /dev/null http://{}/{name}", self.listener);
        let script = match work {
            Work::Exit(code) => format!("{tell}; exit {code}"),
            Work::UntilSignalled => format!("trap 'exit 143' TERM; {tell}; sleep 600 & wait"),
        };
        // A template is never executed by the controller of the cluster, and owns what it is told to.
        let owner = json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1",
            "kind": "AgentRun",
            "metadata": {"name": name, "annotations": {"agents.proompteng.ai/template": "true"}},
            "spec": {"agentRef": {"name": "none"}, "implementation": {"inline": {"text": script}}},
        });
        create(self.cluster, &owner)?;
        let mut stored = run(self.cluster, &name)?;
        stored["metadata"]["annotations"] = json!({});
        stored.as_object_mut().context("a run is an object")?.remove("status");
        let run: Resource<AgentRun> = serde_json::from_value(stored)?;
        let object = |spec: Value| json!({"metadata": {"name": "shell", "namespace": NAMESPACE}, "spec": spec});
        let agent: Resource<Agent> = serde_json::from_value(object(json!({"providerRef": {"name": "shell"}})))?;
        let provider: Resource<AgentProvider> = serde_json::from_value(object(json!({
            "binary": "/bin/sh",
            "argsTemplate": ["-c", "{{ implementation.text }}"],
            "workload": {"image": SHELL_IMAGE},
        })))?;
        let references = References {
            agent: Found::Object(Arc::new(agent)),
            provider: Found::Object(Arc::new(provider)),
            implementation: Found::Absent,
        };
        let snapshot = RunSnapshot::certain(Arc::new(run), references, Observation::Lost);
        let settings = Settings {
            defaults: Defaults {
                image: SHELL_IMAGE.to_owned(),
                runner_image: product_reference(),
                service_account: "agents-run".to_owned(),
                grace_seconds: 5,
                bounds: Bounds::default(),
            },
            default_runtime: RuntimeKind::Job,
            only_runtime: None,
            runtimes: [RuntimeKind::Job].into(),
            start_limit_seconds: 600,
            max_object_bytes: None,
            policy: Rules::default(),
        };
        let plan = decide(&snapshot, &settings, &[], Timestamp::now());
        match plan.before.into_iter().next() {
            Some(Effect::Submit(submission)) => Ok(*submission),
            other => bail!("nothing is submitted: {other:?} {:?}", plan.status),
        }
    }
}

#[async_trait]
impl Fixture for Jobs<'_> {
    fn submission(&self, work: Work) -> Submission {
        self.try_submission(work).expect("the cluster takes a run")
    }

    async fn executions(&self, submission: &Submission) -> usize {
        self.marks.lock().unwrap().get(&submission.owner.name).copied().unwrap_or(0)
    }

    async fn is_gone(&self, submission: &Submission) -> bool {
        let selector = format!("agents.proompteng.ai/run-uid={}", submission.key.uid);
        let pods = kubectl(
            self.cluster,
            &["get", "pods", "--selector", &selector, "--output=jsonpath={.items[*].status.phase}"],
        );
        pods.is_ok_and(|phases| phases.split_whitespace().all(|phase| phase == "Succeeded" || phase == "Failed"))
    }

    fn restarted(&self) -> Arc<dyn RuntimeAdapter> {
        Arc::new(self.adapter())
    }

    async fn occupy(&self, submission: &Submission) {
        let theirs = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": submission.name.as_str(), "labels": {"theirs": "kept"}},
            "spec": {"suspend": true, "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "theirs", "image": SHELL_IMAGE, "command": ["true"]}],
            }}},
        });
        create(self.cluster, &theirs).expect("the cluster takes a Job");
    }

    async fn is_untouched(&self, submission: &Submission) -> bool {
        let output = "--output=jsonpath={.metadata.labels.theirs} {.metadata.generation} {.metadata.deletionTimestamp}";
        let seen = kubectl(self.cluster, &["get", "job", submission.name.as_str(), output]);
        seen.is_ok_and(|seen| seen.trim() == "kept 1")
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

pub(crate) fn the_job_adapter_conforms(cluster: &Cluster) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let marks: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let counted = Arc::clone(&marks);
        let count = move |Path(name): Path<String>| async move {
            *counted.lock().unwrap().entry(name).or_default() += 1;
            "ok"
        };
        let address = cluster.machine_address().context("a cluster with a node has an address that pods reach")?;
        let listener = TcpListener::bind((address, 0)).await?;
        let at = listener.local_addr()?;
        let server =
            tokio::spawn(async move { axum::serve(listener, Router::new().route("/{name}", get(count))).await });
        // Only fails when another provider was installed, and there is no other.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
        let clock = Arc::new(TimerClock::starting_at(Timestamp::now()));
        let calls = Calls::connect(config, clock, "conformance")?;
        let jobs = Jobs { cluster, calls, listener: at, marks, next: AtomicUsize::new(0) };
        let result = conformance::run(&jobs.adapter(), &jobs).await;
        server.abort();
        result.map_err(|violations| {
            let text: Vec<_> = violations.iter().map(ToString::to_string).collect();
            anyhow::anyhow!(text.join("\n"))
        })
    })
}
