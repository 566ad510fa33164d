//! A namespace with what runs refer to, controllers in it, and the quiet between two measurements.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agents_tests::{
    api_server, audit,
    controller::{ACCOUNT, Controller, Launch, grant},
};
use anyhow::{Result, bail};
use kube::Client;
use serde_json::json;
use tokio::time::sleep;
use xtask::cluster::Cluster;

use crate::{
    figures::{Figure, Unit},
    load::{Players, Shape},
    phase::{Phase, is_bookkeeping, whole},
    process,
};

const NAMESPACE: &str = "bench";
/// How long nobody may ask for anything before a measurement.
const QUIET: Duration = Duration::from_secs(2);
/// How long it may take until nobody asks.
const PATIENCE: Duration = Duration::from_secs(120);
/// The controller's name in the audit log.
const OURS: &str = "system:serviceaccount:bench:agents-controller";

pub(crate) struct Scene<'a> {
    cluster: &'a Cluster,
    program: &'a Path,
    pub(crate) client: Client,
}

impl<'a> Scene<'a> {
    pub(crate) async fn open(cluster: &'a Cluster, program: &'a Path) -> Result<Self> {
        let api_version = "agents.proompteng.ai/v1alpha1";
        let named = |name: &str| json!({"name": name, "namespace": NAMESPACE});
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named("agents-run")},
            {"apiVersion": api_version, "kind": "AgentProvider", "metadata": named("shell"), "spec": {
                "binary": "/bin/sh", "argsTemplate": ["-c", "echo {{ implementation.text }}"],
            }},
            {"apiVersion": api_version, "kind": "Agent", "metadata": named("agent"), "spec": {
                "providerRef": {"name": "shell"},
            }},
        ]});
        cluster.kubectl_with_input(&["create", "--filename=-"], &objects.to_string())?;
        Ok(Self { cluster, program, client: api_server::admin(cluster).await? })
    }

    pub(crate) fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    /// Starts a controller as the chart does, and answers how long it took until its caches were complete and it led.
    pub(crate) async fn controller(&self, name: &str) -> Result<(Controller, Duration)> {
        let kubeconfig = grant(self.cluster, NAMESPACE, ACCOUNT)?;
        let began = Instant::now();
        let controller = Controller::launch(Launch {
            program: self.program,
            kubeconfig: &kubeconfig,
            namespace: NAMESPACE,
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
            let asked = audit::asked_since(self.cluster, mark, NAMESPACE)?;
            let Some(last) = asked.iter().rfind(|asked| asked.resource != "leases") else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                bail!("somebody goes on asking: {last:?}");
            }
        }
    }

    /// Plays runs, and waits until everything about them has come to its end.
    pub(crate) async fn phase(
        &self,
        controller: &Controller,
        players: &mut Players,
        prefix: &str,
        count: u32,
        shape: Shape,
    ) -> Result<Phase> {
        let (mark, before) = (audit::mark(self.cluster)?, process::cpu(controller)?);
        let made = players.play(prefix, count, shape).await?;
        self.quiet().await?;
        let cpu = process::cpu(controller)?.saturating_sub(before);
        Ok(Phase { made, cpu, asked: audit::asked_since(self.cluster, mark, NAMESPACE)?, ours: OURS })
    }

    /// What a controller with nothing to do costs.
    pub(crate) async fn rest(&self, controller: &Controller, time: Duration) -> Result<Vec<Figure>> {
        let (mark, before, began) = (audit::mark(self.cluster)?, process::cpu(controller)?, Instant::now());
        sleep(time).await;
        let spent = process::cpu(controller)?.saturating_sub(before).as_secs_f64() * 1000.0;
        let seconds = began.elapsed().as_secs_f64();
        let asked = audit::asked_since(self.cluster, mark, NAMESPACE)?;
        let ours = || asked.iter().filter(|asked| asked.who == OURS);
        let per_second = |count: usize| whole(count) / seconds;
        let (leases, other): (Vec<_>, Vec<_>) = ours().partition(|asked| is_bookkeeping(asked));
        Ok(vec![
            Figure::new("requests", "requests, the lease apart", per_second(other.len()), Unit::PerSecond)
                .target(crate::Target::Exactly(0.0), crate::Gate::Yes),
            Figure::new("leases", "requests for the lease", per_second(leases.len()), Unit::PerSecond),
            Figure::new("cpu", "CPU", spent / seconds, Unit::MillisecondsPerSecond),
        ])
    }
}
