//! Real agent work in pods: the published Codex CLI against the scripted model, and the quickstart.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use agents_tests::{
    model::{ModelServer, Script},
    product::{example, of_kind},
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use xtask::cluster::Cluster;

use super::install::{CODEX_IMAGE, apply, end, kubectl};

/// Serves a git repository to pods until dropped.
struct GitServer {
    daemon: Child,
    /// Served, and removed with the server.
    _folder: tempfile::TempDir,
    url: String,
}

impl GitServer {
    fn start(address: IpAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let work = folder.path().join("work");
        fs::create_dir(&work)?;
        fs::write(work.join("README.md"), "# A repository\n\nTODO: say more.\n")?;
        let git = |arguments: &[&str], at: &Path| -> Result<()> {
            let who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
            let status = Command::new("git").args(who).args(arguments).current_dir(at).status()?;
            ensure!(status.success(), "git {arguments:?}");
            Ok(())
        };
        git(&["init", "--quiet", "--initial-branch=main"], &work)?;
        git(&["add", "--all"], &work)?;
        git(&["commit", "--quiet", "--message=Begin"], &work)?;
        git(&["clone", "--quiet", "--bare", "work", "repository.git"], folder.path())?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let daemon = Command::new("git")
            .arg("daemon")
            .args(["--export-all", "--reuseaddr"])
            .arg(format!("--base-path={}", folder.path().display()))
            .arg(format!("--listen={address}"))
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { daemon, _folder: folder, url: format!("git://{address}:{port}/repository.git") };
        for _ in 0..100 {
            if TcpStream::connect((address, port)).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("git daemon does not listen on {address}:{port}")
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        // git starts the daemon proper as a child of its own.
        let children = format!("/proc/{0}/task/{0}/children", self.daemon.id());
        for child in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            if let Ok(pid) = child.parse() {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

fn address(cluster: &Cluster) -> Result<IpAddr> {
    Ok(cluster.machine_address().context("a cluster with a node has an address that pods reach")?.into())
}

pub(crate) fn codex_commits_in_a_pod(cluster: &Cluster) -> Result<()> {
    let address = address(cluster)?;
    let repository = GitServer::start(address)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let model =
        runtime.block_on(ModelServer::listen(SocketAddr::new(address, 0), Script::ready("edit-and-commit")?))?;
    kubectl(cluster, &["create", "secret", "generic", "codex", "--from-literal=api-key=sk-test-not-a-key"])?;
    let mut manifests = example("codex")?;
    of_kind(&mut manifests, "AgentProvider")?["spec"]["workload"] = json!({"image": CODEX_IMAGE});
    let run = of_kind(&mut manifests, "AgentRun")?;
    run["spec"]["execution"]["coordinates"]["git"]["url"] = repository.url.clone().into();
    run["spec"]["parameters"] =
        json!({"modelUrl": format!("{}/v1", model.url().trim_end_matches("/v1")), "model": "edit-and-commit"});
    let name = run["metadata"]["name"].as_str().context("the run has a name")?.to_owned();
    apply(cluster, &manifests)?;
    let ended = end(cluster, &name)?;
    let status = &ended["status"];
    ensure!(status["phase"] == "Succeeded", "{status:#}");
    ensure!(status["usage"]["inputTokens"] == 3900 && status["usage"]["outputTokens"] == 120, "{status:#}");
    ensure!(status["usage"]["cachedTokens"] == 2500, "{status:#}");
    ensure!(status["vcs"]["commits"] == 1, "{status:#}");
    let (base, head) = (&status["vcs"]["baseCommit"], &status["vcs"]["headCommit"]);
    ensure!(base != head && head.as_str().is_some_and(|commit| commit.len() == 40), "{status:#}");
    ensure!(status["runner"]["conversation"].as_str().is_some_and(|id| !id.is_empty()), "{status:#}");
    let job = status["runtimeRef"]["name"].as_str().context("a run names its Job")?;
    let logs = kubectl(cluster, &["logs", &format!("job/{job}")])?;
    ensure!(logs.contains("turn.completed"), "{logs}");
    ensure!(!logs.contains("sk-test-not-a-key"), "the key is in the logs");
    ensure!(!ended.to_string().contains("sk-test-not-a-key"), "the key is in the object");
    Ok(())
}

pub(crate) fn the_quickstart_runs_in_a_pod(cluster: &Cluster) -> Result<()> {
    let repository = GitServer::start(address(cluster)?)?;
    let mut manifests = example("quickstart")?;
    let run = of_kind(&mut manifests, "AgentRun")?;
    // Any image with git and a shell.
    run["spec"]["workload"] = json!({"image": CODEX_IMAGE});
    run["spec"]["execution"]["coordinates"]["git"]["url"] = repository.url.clone().into();
    let name = run["metadata"]["name"].as_str().context("the run has a name")?.to_owned();
    apply(cluster, &manifests)?;
    let ended = end(cluster, &name)?;
    ensure!(ended["status"]["phase"] == "Succeeded", "{:#}", ended["status"]);
    ensure!(
        ended["status"]["outputs"][0]["sizeBytes"].as_i64().is_some_and(|size| size > 200),
        "{:#}",
        ended["status"]
    );
    Ok(())
}
