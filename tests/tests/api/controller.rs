//! Controllers of a case: in its namespace, with its rights, their logs where its failure finds them.

use std::sync::atomic::Ordering;

pub(crate) use agents_tests::controller::Controller;
use agents_tests::controller::{Launch, grant};
use anyhow::Result;

use super::stage::{CONTROLLER, Stage, agents};

/// How a controller is started.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    /// Its service account.
    pub(crate) account: &'a str,
    /// More of its arguments.
    pub(crate) arguments: &'a [&'a str],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { account: CONTROLLER, arguments: &[] }
    }
}

impl Stage<'_> {
    /// Starts a controller and waits until its caches are complete.
    pub(crate) async fn controller(&self) -> Result<Controller> {
        self.controller_with(Options::default()).await
    }

    /// The same with other options.
    pub(crate) async fn controller_with(&self, options: Options<'_>) -> Result<Controller> {
        let controller = self.launch(options)?;
        self.until("a ready controller", || async { Ok(controller.is_ready().then_some(())) }).await?;
        Ok(controller)
    }

    /// Starts a controller and waits for nothing.
    pub(crate) fn launch(&self, options: Options<'_>) -> Result<Controller> {
        let Options { account, arguments } = options;
        let kubeconfig = tokio::task::block_in_place(|| grant(self.cluster, &self.namespace, account))?;
        let n = self.controllers.fetch_add(1, Ordering::Relaxed);
        Controller::launch(Launch {
            program: agents()?,
            kubeconfig: &kubeconfig,
            namespace: &self.namespace,
            filter: "info,agents_kube=debug,agents_runtime=debug",
            log: &self.log_of(n),
            arguments,
        })
    }
}
