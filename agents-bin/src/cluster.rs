//! How the commands that speak to a cluster find it, and how they explain what went wrong.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::output;

/// The answer is no: something differs, is refused, or did not happen.
pub(crate) const EXIT_NO: u8 = 1;
/// The question could not be asked: arguments, kubeconfig, cluster, rights.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Which cluster is meant.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Kubeconfig; without it, KUBECONFIG, ~/.kube/config, or the pod's service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it, the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A cluster, and the namespace that is meant when none is named.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl ClusterArgs {
    /// Reads the kubeconfig; whether the cluster answers is seen at the first question.
    pub(crate) async fn connect(self) -> Result<Connection> {
        // Only fails when another provider was installed, and there is no other.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Self { kubeconfig, context } = self;
        let mut config = match (kubeconfig, &context) {
            (None, None) => Config::infer().await.context("cannot find a cluster")?,
            (file, _) => {
                let file = match file {
                    Some(path) => {
                        Kubeconfig::read_from(&path).with_context(|| format!("cannot use {}", path.display()))?
                    }
                    None => Kubeconfig::read().context("cannot find a kubeconfig")?,
                };
                let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(file, &options).await.context("cannot use the kubeconfig")?
            }
        };
        // A person waits: what fails is told at once, and not after minutes of silent repetition.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        let namespace = config.default_namespace.clone();
        Ok(Connection { client: Client::try_from(config).context("cannot make a client")?, namespace })
    }
}

/// Runs a command's work on a small runtime.
pub(crate) fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => complain(&error.into(), None, EXIT_USAGE),
    }
}

/// Prints an error, its causes and what helps.
pub(crate) fn complain(error: &anyhow::Error, hint: Option<&str>, code: u8) -> ExitCode {
    output::explain(error, hint);
    ExitCode::from(code)
}

/// What helps when no cluster is found.
pub(crate) const NO_CLUSTER: &str =
    "name one with --kubeconfig or KUBECONFIG; `kubectl config get-contexts` lists contexts";
