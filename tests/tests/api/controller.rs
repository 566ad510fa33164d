//! The controller as its real program with nothing but the generated rights, so that a kill is a kill.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use agents_kube::rbac::{LEASE, RUNS, Rule};
use anyhow::{Context as _, Result};
use kube::config::Kubeconfig;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::stage::{CONTROLLER, Stage, agents};

/// A running controller; killed when dropped.
pub(crate) struct Controller {
    child: Child,
    health: String,
}

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
        let controller = self.launch(options).await?;
        self.until("a ready controller", || async {
            Ok(controller.readiness().filter(|page| page.contains(" 200 ")).map(drop))
        })
        .await?;
        Ok(controller)
    }

    /// Starts a controller and waits for nothing.
    pub(crate) async fn launch(&self, options: Options<'_>) -> Result<Controller> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let Options { account, arguments } = options;
        let kubeconfig = self.grant(account).await?;
        let n = self.controllers.fetch_add(1, Ordering::Relaxed);
        let log = std::fs::File::create(self.log_of(n)).context("failed to make the controller's log")?;
        // An address of its own for each: no free port has to be found, and none can be taken in between.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let health = format!("127.{b}.{c}.{}:{}", NEXT.fetch_add(1, Ordering::Relaxed), 18_081 + u16::from(a));
        // Dies with the thread that plays the case.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(agents()?)
            .args(["controller", "--runner-image=runner.invalid/agents:1", "--grace-seconds=1"])
            .args([format!("--namespace={}", self.namespace), format!("--health-address={health}")])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info,agents_kube=debug,agents_runtime=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("failed to start the controller")?;
        Ok(Controller { child, health })
    }

    /// Gives `account` the generated rights, and answers with a kubeconfig of nothing but its token.
    async fn grant(&self, account: &str) -> Result<std::path::PathBuf> {
        let path = self.cluster.dir().join(format!("{}-{account}.kubeconfig", self.namespace));
        if path.exists() {
            return Ok(path);
        }
        let rules = |rules: &[Rule]| -> Vec<Value> {
            let rules = rules.iter();
            rules
                .map(|rule| {
                    let Rule { group, resources, verbs, reason: _ } = rule;
                    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
                })
                .collect()
        };
        self.create("serviceaccounts", &json!({"metadata": {"name": account}})).await?;
        let all = [rules(RUNS), rules(LEASE)].concat();
        self.create("roles", &json!({"metadata": {"name": account}, "rules": all})).await?;
        self.create(
            "rolebindings",
            &json!({
                "metadata": {"name": account},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}],
            }),
        )
        .await?;
        let token = self.kubectl(&["create", "token", account])?;
        let mut kubeconfig = serde_json::to_value(Kubeconfig::read_from(self.cluster.kubeconfig())?)?;
        kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
        // The rights reach the authorizer by a watch of its own.
        let subject = format!("--as=system:serviceaccount:{}:{account}", self.namespace);
        self.until("the rights of the controller", || async {
            Ok(self.kubectl(&["auth", "can-i", "list", "agentruns.agents.proompteng.ai", &subject]).ok())
        })
        .await?;
        std::fs::write(&path, kubeconfig.to_string()).context("failed to write the controller's kubeconfig")?;
        Ok(path)
    }
}

impl Controller {
    /// The answer of its readiness page, once it listens.
    pub(crate) fn readiness(&self) -> Option<String> {
        let address = self.health.parse().ok()?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    pub(crate) fn leads(&self) -> bool {
        self.readiness().is_some_and(|page| page.contains("leading"))
    }

    /// Kills it, without a last word.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context("failed to kill the controller")?;
        self.child.wait().context("failed to reap the controller")?;
        Ok(())
    }

    /// Asks it to stop, and answers how long that took.
    pub(crate) fn terminate(mut self) -> Result<Duration> {
        let asked = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let status = tokio::task::block_in_place(|| self.child.wait())?;
        anyhow::ensure!(status.success(), "the controller ended with {status}");
        Ok(asked.elapsed())
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
