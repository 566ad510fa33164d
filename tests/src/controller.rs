//! The controller as its real program with nothing but the generated rights, so that a kill is a kill.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
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
use xtask::cluster::Cluster;

/// The controller's service account; also its name in the audit log.
pub const ACCOUNT: &str = "agents-controller";

/// How long rights may take to reach the authorizer.
const PATIENCE: Duration = Duration::from_secs(45);

/// A running controller; killed when dropped.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    health: String,
}

/// How a controller is started.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The program `agents`.
    pub program: &'a Path,
    /// Of an account that was given the rights by [`grant`].
    pub kubeconfig: &'a Path,
    /// Whose runs it looks after.
    pub namespace: &'a str,
    /// What is logged, as `RUST_LOG`.
    pub filter: &'a str,
    /// Where the log goes.
    pub log: &'a Path,
    /// More of its arguments.
    pub arguments: &'a [&'a str],
}

/// Gives the service account `account` of a namespace, made here, the generated rights, and answers with a kubeconfig of
/// nothing but its token. Once it has them, nothing is done.
///
/// # Errors
/// The API server refused it, or the rights do not reach its authorizer.
pub fn grant(cluster: &Cluster, namespace: &str, account: &str) -> Result<PathBuf> {
    let path = cluster.dir().join(format!("{namespace}-{account}.kubeconfig"));
    if path.exists() {
        return Ok(path);
    }
    let rules: Vec<Value> = [&*RUNS, &*LEASE]
        .into_iter()
        .flatten()
        .map(|rule| {
            let Rule { group, resources, verbs, reason: _ } = rule;
            json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
        })
        .collect();
    let metadata = json!({"name": account, "namespace": namespace});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    ]});
    cluster.kubectl_with_input(&["create", "--filename=-"], &objects.to_string())?;
    let within = format!("--namespace={namespace}");
    let token = cluster.kubectl(&["create", "token", account, &within])?;
    let mut kubeconfig = serde_json::to_value(Kubeconfig::read_from(cluster.kubeconfig())?)?;
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    // Where the controller's leases lie, as those of a pod lie in its own namespace.
    kubeconfig["contexts"][0]["context"]["namespace"] = json!(namespace);
    await_rights(cluster, namespace, namespace, account)?;
    std::fs::write(&path, kubeconfig.to_string()).context("failed to write the controller's kubeconfig")?;
    Ok(path)
}

/// Gives the account `account` of the namespace `home` the rights in `namespace` that [`grant`] gives one of its own, which
/// is made with them.
///
/// # Errors
/// The API server refused it, or the rights do not reach its authorizer.
pub fn lend(cluster: &Cluster, home: &str, namespace: &str, account: &str) -> Result<()> {
    grant(cluster, namespace, account)?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": format!("{account}-of-{home}"), "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home}],
    });
    // A controller that is started again has them.
    cluster.kubectl_with_input(&["apply", "--filename=-"], &binding.to_string())?;
    await_rights(cluster, home, namespace, account)
}

/// The rights reach the authorizer by a watch of its own.
fn await_rights(cluster: &Cluster, home: &str, namespace: &str, account: &str) -> Result<()> {
    let within = format!("--namespace={namespace}");
    let subject = format!("--as=system:serviceaccount:{home}:{account}");
    let began = Instant::now();
    loop {
        match cluster.kubectl(&["auth", "can-i", "list", "agentruns.agents.proompteng.ai", &within, &subject]) {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error.context("the rights of the controller")),
            Err(_) => std::thread::sleep(Duration::from_millis(15)),
        }
    }
}

impl Controller {
    /// The most memory that the program has held so far, in KiB.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak.context("the kernel says no peak")
    }

    /// Starts a controller and waits for nothing. It dies with the thread that calls this.
    ///
    /// # Errors
    /// It could not be started.
    pub fn launch(launch: Launch<'_>) -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let Launch { program, kubeconfig, namespace, filter, log, arguments } = launch;
        let log = File::create(log).context("failed to make the controller's log")?;
        // An address of its own for each: no free port has to be found, and none can be taken in between.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let health = format!("127.{b}.{c}.{}:{}", NEXT.fetch_add(1, Ordering::Relaxed), 18_081 + u16::from(a));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(["controller", "--runner-image=runner.invalid/agents:1", "--grace-seconds=1"])
            .args([format!("--namespace={namespace}"), format!("--health-address={health}")])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", filter)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("failed to start the controller")?;
        Ok(Self { child, health })
    }

    /// The id of its process.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    /// The answer of its readiness page, once it listens.
    pub fn readiness(&self) -> Option<String> {
        self.page("/readyz")
    }

    /// Whether its health page answers that it lives, within two seconds.
    pub fn is_healthy(&self) -> bool {
        self.page("/healthz").is_some_and(|page| page.contains(" 200 "))
    }

    fn page(&self, path: &str) -> Option<String> {
        let address = self.health.parse().ok()?;
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// Whether its caches are complete.
    pub fn is_ready(&self) -> bool {
        self.readiness().is_some_and(|page| page.contains(" 200 "))
    }

    /// Whether it is the one that decides.
    pub fn leads(&self) -> bool {
        self.readiness().is_some_and(|page| page.contains("leading"))
    }

    /// Kills it, without a last word.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("failed to kill the controller")?;
        self.child.wait().context("failed to reap the controller")?;
        Ok(())
    }

    /// Asks it to stop, and answers how long that took.
    pub fn terminate(mut self) -> Result<Duration> {
        let asked = Instant::now();
        kill(self.pid()?, Signal::SIGTERM)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the controller ended with {status}");
        Ok(asked.elapsed())
    }

    /// Whether it still runs.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
