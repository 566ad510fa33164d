//! Processes of a cluster: who they are, how they start, how they are sure to end.
//!
//! A process is known by its pid *and* the tick it started at, so that a pid the kernel has given to somebody else is
//! never signalled. Every process carries the cluster's folder in its environment ([`MARKER`]); that finds what a crash
//! left before its pid was written down, and children which a program detached from itself.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Environment variable that every process of a cluster carries; its value is the cluster's folder.
pub(super) const MARKER: &str = "AGENTS_XTASK_CLUSTER";

/// The folders of the machine's programs; those of network programs are not on everybody's PATH.
pub(super) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes Go programs collect garbage a quarter as often: a test cluster has more memory than time.
pub(super) const COLLECT_SELDOM: (&str, &str) = ("GOGC", "400");

/// One process, for ever: the pid, when it started, and the boot both belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub(super) started: u64,
    pub(super) boot: String,
}

impl Identity {
    /// The process that has this pid now, unless it is none or has already ended and only waits to be reaped.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        if stat.ended {
            return None;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, started: stat.started, boot: boot.trim().to_owned() })
    }

    /// This process.
    pub(super) fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id()).context("the own pid is out of range")?;
        Self::of(pid).context("cannot read the own entry below /proc")
    }

    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Kills exactly this process; `false` if it is already gone, also when its pid belongs to another one by now.
    pub(super) fn kill(&self) -> Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            bail!("{} is not a pid", self.pid);
        };
        // The descriptor pins the process first, and only then is its identity compared: nothing can slip in between.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("cannot open process {}", self.pid)),
        };
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(handle, Signal::KILL) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot kill process {}", self.pid)),
        }
    }

    /// Waits until the process has ended.
    pub(super) fn wait_gone(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > deadline {
                bail!("process {} is still there {} s after SIGKILL", self.pid, limit.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// What is needed of `/proc/<pid>/stat`.
struct Stat {
    parent: i32,
    started: u64,
    ended: bool,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in brackets and may itself hold brackets and spaces.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let state = fields.first()?;
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            ended: matches!(*state, "Z" | "X" | "x"),
        })
    }
}

fn pids() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The first living child of a process.
pub(super) fn child_of(parent: i32) -> Option<Identity> {
    pids().into_iter().filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.parent == parent)).find_map(Identity::of)
}

/// Every living process that carries the marker of this folder.
pub(super) fn marked(folder: &Path) -> Vec<Identity> {
    let wanted = format!("{MARKER}={}", folder.display());
    pids()
        .into_iter()
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
        })
        .filter_map(Identity::of)
        .collect()
}

/// Whether a cluster's processes end with the process that started them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// They are killed by the kernel when the starting process ends, however it ends.
    Harness,
    /// They stay until `cargo xtask cluster down`.
    Person,
}

/// What to start: program, arguments, more environment.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) program: std::path::PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

impl Launch {
    pub(super) fn new(program: impl Into<std::path::PathBuf>, arguments: Vec<String>) -> Self {
        Self { program: program.into(), arguments, environment: Vec::new() }
    }
}

type Request = (Command, mpsc::SyncSender<std::io::Result<Child>>);

/// The thread that starts every process of one cluster.
///
/// The kernel sends the parent-death signal when the *thread* that started a child ends, so that thread must live as
/// long as the cluster, whichever test thread asked for the child.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
    lifetime: Lifetime,
}

impl Spawner {
    pub(super) fn new(lifetime: Lifetime) -> Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("cluster-spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // A caller that no longer waits has no use for the child, and dropping it would lose it.
                    if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                        child.kill().ok();
                        child.wait().ok();
                    }
                }
            })
            .context("cannot start the thread that starts the cluster's processes")?;
        Ok(Self { requests, lifetime })
    }

    /// Starts a program in its own session, its output appended to `log`.
    pub(super) fn spawn(&self, folder: &Path, log: &Path, launch: &Launch) -> Result<Child> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut command = Command::new("setsid");
        if self.lifetime == Lifetime::Harness {
            command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
        }
        command
            .arg(&launch.program)
            .args(&launch.arguments)
            // A proxy of the person's would be used between the cluster's own programs, and their secrets are no
            // business of theirs.
            .env_clear()
            .env("PATH", SYSTEM_PATH)
            .env("HOME", folder)
            .env(COLLECT_SELDOM.0, COLLECT_SELDOM.1)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .env(MARKER, folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share the log")?)
            .stderr(output);
        let (answer, child) = mpsc::sync_channel(1);
        self.requests.send((command, answer)).map_err(|_| anyhow!("the spawner thread has ended"))?;
        child.recv().context("the spawner thread has ended")?.with_context(|| {
            format!("cannot start {} through setsid and setpriv of util-linux", launch.program.display())
        })
    }
}

/// Runs a short command to its end and returns what it wrote to standard output.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    finish(command, &output)
}

/// The same with `input` on its standard input.
pub(super) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let mut stdin = child.stdin.take().context("the command has no standard input")?;
    let text = input.to_owned();
    // Written beside the reading, so that neither side waits for the other with a full pipe. A command that ends
    // without reading all of it tells more by its exit than by the broken pipe.
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()).ok());
    let output = child.wait_with_output().context("cannot wait for the command")?;
    writer.join().ok();
    finish(command, &output)
}

fn finish(command: &Command, output: &std::process::Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    bail!(
        "{} {} ended with {}: {}{}",
        command.get_program().display(),
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim(),
        if text.trim().is_empty() { String::new() } else { format!("\n{}", text.trim()) },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Child {
        Command::new("sleep").arg("600").env(MARKER, folder).spawn().unwrap()
    }

    fn pid(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn a_recycled_pid_is_never_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = sleeper(folder.path());
        let now = Identity::of(pid(&child)).unwrap();
        let before = Identity { started: now.started - 1, ..now.clone() };
        let last_boot = Identity { boot: "another".to_owned(), ..now.clone() };

        assert!(!before.kill().unwrap());
        assert!(!last_boot.kill().unwrap());
        assert!(child.try_wait().unwrap().is_none(), "the stranger was killed");

        assert!(now.kill().unwrap());
        now.wait_gone(Duration::from_secs(5)).unwrap();
        child.wait().unwrap();
        assert!(!now.kill().unwrap());
    }

    #[test]
    fn processes_are_found_by_their_folder_alone() {
        let ours = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let mut child = sleeper(ours.path());
        let expected = Identity::of(pid(&child)).unwrap();
        // Between fork and exec the child still shows our environment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while marked(ours.path()).is_empty() && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(marked(ours.path()), vec![expected.clone()]);
        assert_eq!(marked(other.path()), vec![]);
        expected.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(marked(ours.path()), vec![]);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "12 (a) b) S 7 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.started, stat.ended), (7, 4711, false));
    }

    #[test]
    fn children_end_when_the_spawner_does() {
        let folder = tempfile::tempdir().unwrap();
        let spawner = Spawner::new(Lifetime::Harness).unwrap();
        let launch = Launch::new("sleep", vec!["600".to_owned()]);
        let mut child = spawner.spawn(folder.path(), &folder.path().join("log"), &launch).unwrap();
        // setpriv arms the signal before it becomes the program.
        let deadline = Instant::now() + Duration::from_secs(5);
        let name = format!("/proc/{}/comm", child.id());
        while std::fs::read_to_string(&name).unwrap().trim() != "sleep" && Instant::now() < deadline {
            thread::yield_now();
        }
        drop(spawner);
        let status = child.wait().unwrap();
        assert!(!status.success());
    }
}
