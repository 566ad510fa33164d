//! How the commands that speak to a cluster find it, and how they explain what went wrong.

use std::{error::Error as _, io, path::PathBuf, process::ExitCode, time::Duration};

use agents_runtime::causes::in_one_line;
use anyhow::{Context as _, Result, anyhow};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::{exit, output};

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
            (None, None) => inferred().await?,
            (file, _) => {
                let file = match file {
                    Some(path) => Kubeconfig::read_from(&path),
                    None => Kubeconfig::read(),
                };
                let file = file.map_err(|error| unusable(&error))?;
                let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))?
            }
        };
        // A person waits: what fails is told at once, and not after minutes of silent repetition.
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(10));
        let namespace = config.default_namespace.clone();
        Ok(Connection { client: Client::try_from(config).context("cannot make a client")?, namespace })
    }
}

/// The cluster of the kubeconfig or, without one, of the pod.
pub(crate) async fn inferred() -> Result<Config> {
    Config::infer().await.map_err(|error| {
        let kubeconfig = error.source().and_then(|cause| cause.downcast_ref::<KubeconfigError>());
        match kubeconfig {
            Some(KubeconfigError::ReadConfig(problem, path)) if problem.kind() == io::ErrorKind::NotFound => {
                anyhow!("cannot find a cluster: {} is not there, nor the service account of a pod", path.display())
            }
            Some(KubeconfigError::FindPath) => {
                anyhow!("cannot find a cluster: no kubeconfig is named, nor is there the service account of a pod")
            }
            Some(other) => unusable(other),
            None => anyhow!("cannot find a cluster: {}", in_one_line(&error)),
        }
    })
}

/// What is wrong with a kubeconfig.
fn unusable(error: &KubeconfigError) -> anyhow::Error {
    let problem = match error {
        KubeconfigError::ReadConfig(problem, path) => return anyhow!("cannot read {}: {problem}", path.display()),
        KubeconfigError::CurrentContextNotSet => "it names no current context: name one with --context".to_owned(),
        KubeconfigError::LoadContext(name) => format!("it has no context {name:?}"),
        KubeconfigError::LoadClusterOfContext(name) => format!("it has no cluster {name:?}, which its context names"),
        KubeconfigError::MissingClusterUrl => "its cluster has no `server`".to_owned(),
        KubeconfigError::ParseClusterUrl(_) => "the `server` of its cluster is no address".to_owned(),
        KubeconfigError::Parse(problem) => {
            let problem = problem.to_string();
            let first = problem.lines().next().unwrap_or_default();
            format!("it is no YAML of a kubeconfig: {}", first.strip_prefix("error: ").unwrap_or(first))
        }
        other => in_one_line(other),
    };
    anyhow!("cannot use the kubeconfig: {problem}")
}

/// Runs a command's work on a small runtime.
pub(crate) fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => complain(&error.into(), None, exit::USAGE),
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
