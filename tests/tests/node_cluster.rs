//! The test cluster itself: a node runs a restricted pod, servers may be killed under it, and nothing of a cluster
//! outlives its harness, however that ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xtask::cluster::{Cluster, Component, Options};
use xtask::rings::{Ring, enabled};

const RESTRICTED_JOB: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: strict
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: strict}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hello, namespace: strict}
spec:
  backoffLimit: 0
  template:
    spec:
      serviceAccountName: worker
      restartPolicy: Never
      securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      volumes: [{name: shared, emptyDir: {}}]
      initContainers:
      - name: first
        image: docker.io/library/busybox:test
        command: [sh, -c, "echo from the init container >/shared/word"]
        volumeMounts: [{name: shared, mountPath: /shared}]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      containers:
      - name: second
        image: docker.io/library/busybox:test
        command: [sh, -c, "cat /shared/word; id -u; nc -w 5 10.96.0.1 443 </dev/null && echo reached the api server"]
        volumeMounts: [{name: shared, mountPath: /shared}]
        resources: {limits: {memory: 64Mi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;

#[test]
fn a_restricted_job_runs_and_survives_the_death_of_the_servers() -> Result<()> {
    if !enabled(Ring::Node) {
        return Ok(());
    }
    let cluster = Cluster::start(Options { node: true, ..Options::default() })?;
    cluster.kubectl_with_input(&["apply", "--filename=-"], RESTRICTED_JOB)?;
    let finished = ["wait", "--namespace=strict", "--for=condition=Complete", "--timeout=60s", "job/hello"];
    cluster.kubectl(&finished)?;
    let log = cluster.kubectl(&["logs", "--namespace=strict", "job/hello", "--container=second"])?;
    assert_eq!(log, "from the init container\n65532\nreached the api server\n");

    let audit = fs::read_to_string(cluster.audit_log()).context("cannot read the audit log")?;
    let creations = audit
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .collect::<Result<Vec<_>, _>>()
        .context("the audit log is not JSON")?
        .into_iter()
        .filter(|event| event["verb"] == "create" && event["objectRef"]["resource"] == "jobs")
        .count();
    assert_eq!(creations, 1);

    for component in [Component::Etcd, Component::ApiServer] {
        cluster.kill9(component)?;
        assert!(cluster.kubectl(&["get", "job/hello", "--namespace=strict", "--request-timeout=2s"]).is_err());
        cluster.restart(component)?;
        cluster.kubectl(&finished)?;
    }
    let dir = cluster.dir().to_owned();
    cluster.stop()?;
    assert!(!dir.exists());
    Ok(())
}

#[test]
fn nothing_outlives_a_killed_harness() -> Result<()> {
    if !enabled(Ring::Node) {
        return Ok(());
    }
    let mut harness = Command::new(env!("CARGO_BIN_EXE_cluster-harness"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the harness")?;
    let mut line = String::new();
    BufReader::new(harness.stdout.take().context("no output")?)
        .read_line(&mut line)
        .context("cannot read the folder")?;
    let dir = PathBuf::from(line.trim());
    let run = registration(&dir)?;
    let cluster = Cluster::attach(&dir)?.context("the harness has no cluster")?;
    // A process of a container is the one thing that neither carries a mark nor is anybody's child any more.
    let mark = format!("sleep-{}", run.file_name().and_then(|name| name.to_str()).context("no name")?);
    let command = format!("sleep 3600; : {mark}");
    cluster.kubectl(&["run", "sleeper", "--image=docker.io/library/busybox:test", "--", "sh", "-c", &command])?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/sleeper"])?;
    let needles = [dir.display().to_string(), run.display().to_string(), mark];
    ensure!(!living(&needles[2..]).is_empty(), "the pod's process is not to be seen");
    ensure!(mounts(&needles).is_empty(), "mounts of the node are seen outside: {:?}", mounts(&needles));

    harness.kill().context("cannot kill the harness")?;
    harness.wait().context("cannot reap the harness")?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !living(&needles).is_empty() {
        ensure!(Instant::now() < deadline, "still alive: {:#?}", living(&needles));
        std::thread::sleep(Duration::from_millis(20));
    }

    // The kernel has ended it all; the files and control groups are left to the next start.
    let groups = control_groups(&run);
    ensure!(!groups.is_empty(), "the node had no control groups");
    Cluster::start(Options::default())?.stop()?;
    ensure!(!dir.exists() && !run.exists(), "the folders stayed");
    ensure!(mounts(&needles).is_empty(), "mounts stayed: {:?}", mounts(&needles));
    ensure!(control_groups(&run).is_empty(), "control groups stayed: {:?}", control_groups(&run));
    Ok(())
}

/// The run folder that leads to this data folder.
fn registration(dir: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir("/run/agents-test").context("no cluster is registered")?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|run| fs::read_link(run.join("data")).is_ok_and(|data| data == dir))
        .context("the cluster is not registered")
}

/// Command lines of living processes that name one of these, this one apart.
fn living(needles: &[String]) -> Vec<String> {
    let own = std::process::id().to_string();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok() && name != own))
        // A process that only waits to be reaped has no command line.
        .filter_map(|entry| {
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let [command, environment] =
                ["cmdline", "environ"].map(|file| String::from_utf8_lossy(&read(file)).replace('\0', " "));
            let named = |needle: &String| command.contains(needle) || environment.contains(needle);
            needles.iter().any(named).then_some(command)
        })
        .collect()
}

fn mounts(needles: &[String]) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| needles.iter().any(|needle| line.contains(needle))).map(str::to_owned).collect()
}

/// The control groups that carry the name of this run folder, in every hierarchy.
fn control_groups(run: &Path) -> Vec<PathBuf> {
    let name = format!("agents-test-{}", run.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    let root = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path().join(&name));
    below.chain([root.join(&name)]).filter(|group| group.exists()).collect()
}
