//! A cluster made ready for a controller whose pods are played by hand: definitions, a node that is an object only,
//! nobody who schedules.

use anyhow::{Context as _, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use xtask::{
    cluster::{Cluster, Component},
    workspace,
};

use crate::hand_kubelet;

/// Installs the definitions, takes the scheduler away and registers the node.
///
/// # Errors
/// The cluster refused any of it.
pub fn prepare(cluster: &Cluster) -> Result<()> {
    // Only fails when another provider was installed, and there is no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let definitions = workspace().join("crds");
    let definitions = definitions.to_str().context("a path is no text")?;
    let applied = cluster.kubectl(&["apply", "--server-side", "--warnings-as-errors", "--filename", definitions])?;
    if applied.lines().count() != agents_kube::crd::all().len() {
        bail!("not every definition was applied:\n{applied}");
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", definitions])?;
    // It would call every pod unschedulable, which each run's status then had to say.
    cluster.kill9(Component::Scheduler)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { hand_kubelet::register_node(&admin(cluster).await?).await })
}

/// A client with every right.
///
/// # Errors
/// The cluster's kubeconfig cannot be used.
pub async fn admin(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Answers are what tests are about, refusals included; the client's own retry hides some for minutes.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
