//! Namespaces with what runs refer to, controllers that look after them, and the quiet between two measurements.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use agents_tests::{
    api_server,
    audit::{self, Asked},
    controller::{ACCOUNT, Controller, Launch, grant, lend},
};
use anyhow::{Result, bail};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::sleep;
use xtask::cluster::Cluster;

use crate::{
    Figure, Gate, Target, Unit,
    load::Made,
    phase::{Phase, is_bookkeeping, whole},
    process,
};

/// How long nobody may ask for anything before a measurement.
const QUIET: Duration = Duration::from_secs(2);
/// How long it may take until nobody asks.
const PATIENCE: Duration = Duration::from_secs(120);
/// Name of the Agent that says what it is told to.
pub(crate) const AGENT: &str = "agent";

pub(crate) struct Scene<'a> {
    cluster: &'a Cluster,
    program: &'a Path,
    pub(crate) client: Client,
    /// The first is the one that is measured, and the controller's own.
    namespaces: &'static [&'static str],
    /// The controller's name in the audit log.
    ours: String,
}

impl<'a> Scene<'a> {
    pub(crate) async fn open(
        cluster: &'a Cluster,
        program: &'a Path,
        namespaces: &'static [&'static str],
    ) -> Result<Self> {
        let api_version = "agents.proompteng.ai/v1alpha1";
        let of_namespace = |namespace: &str| {
            let named = |name: &str| json!({"name": name, "namespace": namespace});
            [
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("agents-run")}),
                json!({"apiVersion": api_version, "kind": "AgentProvider", "metadata": named("shell"), "spec": {
                    "binary": "/bin/sh", "argsTemplate": ["-c", "echo {{ implementation.text }}"],
                }}),
                json!({"apiVersion": api_version, "kind": "Agent", "metadata": named(AGENT), "spec": {
                    "providerRef": {"name": "shell"},
                }}),
            ]
        };
        let scene = Self {
            cluster,
            program,
            client: api_server::admin(cluster).await?,
            namespaces,
            ours: format!("system:serviceaccount:{}:{ACCOUNT}", namespaces[0]),
        };
        scene.create(namespaces.iter().flat_map(|namespace| of_namespace(namespace)).collect())?;
        Ok(scene)
    }

    /// That which is measured.
    pub(crate) fn namespace(&self) -> &'static str {
        self.namespaces[0]
    }

    pub(crate) fn create(&self, objects: Vec<Value>) -> Result<()> {
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.kubectl_with_input(&["create", "--filename=-"], &objects.to_string())?;
        Ok(())
    }

    /// What was asked of the API server since `mark` where it is measured.
    fn asked_since(&self, mark: u64) -> Result<Vec<Asked>> {
        audit::asked_since(self.cluster, mark, self.namespaces[0])
    }

    /// Starts a controller as the chart does, and answers how long it took until its caches were complete and it led.
    pub(crate) async fn controller(&self, name: &str) -> Result<(Controller, Duration)> {
        self.controller_of(self.program, name).await
    }

    /// The same of another program.
    pub(crate) async fn controller_of(&self, program: &Path, name: &str) -> Result<(Controller, Duration)> {
        let kubeconfig = grant(self.cluster, self.namespaces[0], ACCOUNT)?;
        for namespace in &self.namespaces[1..] {
            lend(self.cluster, self.namespaces[0], namespace, ACCOUNT)?;
        }
        let began = Instant::now();
        let controller = Controller::launch(Launch {
            program,
            kubeconfig: &kubeconfig,
            namespace: &self.namespaces.join(","),
            filter: "info",
            log: &self.cluster.dir().join(format!("controller-{name}.log")),
            arguments: &["--lease-name=agents", "--log-format=json"],
        })?;
        while !(controller.is_ready() && controller.leads()) {
            if began.elapsed() > PATIENCE {
                bail!("the controller is not ready: {:?}", controller.readiness());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok((controller, began.elapsed()))
    }

    /// Waits until nobody asks for anything but leases.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let mark = audit::mark(self.cluster)?;
            sleep(QUIET).await;
            let mut asked = Vec::new();
            for namespace in self.namespaces {
                asked.extend(audit::asked_since(self.cluster, mark, namespace)?);
            }
            let Some(last) = asked.iter().rfind(|asked| asked.resource != "leases") else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                bail!("somebody goes on asking: {last:?}");
            }
        }
    }

    /// Plays `load`, which tells the runs that it made where it is measured, and waits until everything about them has come
    /// to its end.
    pub(crate) async fn phase(
        &self,
        controller: &Controller,
        load: impl Future<Output = Result<Vec<Made>>>,
    ) -> Result<Phase> {
        let (mark, before) = (audit::mark(self.cluster)?, process::cpu(controller)?);
        let made = load.await?;
        self.quiet().await?;
        let cpu = process::cpu(controller)?.saturating_sub(before);
        Phase::of(&made, cpu, self.asked_since(mark)?, &self.ours)
    }

    /// What a controller with nothing to do costs.
    pub(crate) async fn rest(&self, controller: &Controller, time: Duration) -> Result<Vec<Figure>> {
        let (mark, before, began) = (audit::mark(self.cluster)?, process::cpu(controller)?, Instant::now());
        sleep(time).await;
        let spent = process::cpu(controller)?.saturating_sub(before).as_secs_f64() * 1000.0;
        let seconds = began.elapsed().as_secs_f64();
        let asked = self.asked_since(mark)?;
        let ours = || asked.iter().filter(|asked| asked.who == self.ours);
        let per_second = |count: usize| whole(count) / seconds;
        let (leases, other): (Vec<_>, Vec<_>) = ours().partition(|asked| is_bookkeeping(asked));
        Ok(vec![
            Figure::new("requests", "requests, the lease apart", per_second(other.len()), Unit::PerSecond)
                .target(Target::Exactly(0.0), Gate::Yes),
            Figure::new("leases", "requests for the lease", per_second(leases.len()), Unit::PerSecond),
            Figure::new("cpu", "CPU", spent / seconds, Unit::MillisecondsPerSecond),
        ])
    }
}
