//! `agents run` in a folder of its own, and what tests need that not every machine has.

// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// Names, with commas between, what no test may do without: `root` stands for being root and for namespaces of one's own.
const REQUIRE: &str = "AGENTS_TEST_REQUIRE";

/// Whether a test must end here, because this machine lacks what it needs from root. Says so; and where root is required,
/// it is a failure.
#[must_use]
pub fn lacks_root(has: bool, what: &str) -> bool {
    if has {
        return false;
    }
    let required = std::env::var(REQUIRE).unwrap_or_default();
    assert!(!required.split(',').any(|word| word.trim() == "root"), "required by {REQUIRE} and not here: {what}");
    eprintln!("skipped: {what}");
    true
}

/// Whether `unshare` can make these namespaces.
pub fn can_unshare(arguments: &[&str]) -> bool {
    Command::new("unshare").args(arguments).arg("true").output().is_ok_and(|output| output.status.success())
}

/// How long anything here may take before a test counts as hung.
pub const HANG: Duration = Duration::from_secs(60);

pub const AGENT: &str = "apiVersion: agents.proompteng.ai/v1alpha1
kind: Agent
metadata: {name: agent}
spec: {providerRef: {name: shell}}
";

/// A program that begins with no signal ignored, whatever the tests were started by: what is ignored stays ignored in our
/// programs, and a test that sends such a signal would wait for ever.
pub fn listening(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,HUP,QUIT,TERM", program]);
    command
}

/// A folder with manifests, and one for what runs leave.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.manifests()).unwrap();
        place.write("agent.yaml", AGENT);
        place
    }

    /// With a provider `sh -c script` and a run of each name.
    pub fn shell(script: &str, runs: &[&str]) -> Self {
        let place = Self::new();
        place.write("provider.yaml", &provider("sh", &["-c", script]));
        for (n, name) in runs.iter().enumerate() {
            place.write(&format!("run-{n}.yaml"), &run(name, ""));
        }
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn manifests(&self) -> PathBuf {
        self.path().join("manifests")
    }

    pub fn out(&self) -> PathBuf {
        self.path().join("out")
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.manifests().join(name), text).unwrap();
    }

    /// `agents run` on the manifests.
    pub fn command(&self) -> Command {
        self.run_by(Command::new(env!("CARGO_BIN_EXE_agents")))
    }

    /// The same, whose signals are not ignored.
    pub fn listening(&self) -> Command {
        self.run_by(listening(env!("CARGO_BIN_EXE_agents")))
    }

    fn run_by(&self, mut command: Command) -> Command {
        command.args(["run", "-f"]).arg(self.manifests()).arg("--out").arg(self.out());
        command.current_dir(self.path()).stdin(Stdio::null()).env("PLACE", self.path());
        command
    }

    pub fn run(&self) -> Ran {
        Ran::of(self.command().output().unwrap())
    }

    pub fn json(&self) -> (Ran, Vec<Value>) {
        let ran = Ran::of(self.command().args(["-o", "json"]).output().unwrap());
        let list: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        (ran, list["items"].as_array().unwrap().clone())
    }

    pub fn lines_of(&self, file: &str) -> usize {
        fs::read_to_string(self.path().join(file)).map_or(0, |text| text.lines().count())
    }

    pub fn wait_for(&self, file: &str) {
        until(file, || self.path().join(file).exists());
    }

    /// Processes of this place, zombies excluded.
    pub fn processes(&self) -> Vec<String> {
        let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        self.pids().iter().map(command).collect()
    }

    fn pids(&self) -> Vec<i32> {
        let place = self.path().display().to_string();
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environ).contains(&place)
            })
            .collect()
    }
}

impl Drop for Place {
    /// A test that failed leaves nothing behind either.
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        Self { code: status.code(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
    }
}

pub fn provider(binary: &str, args: &[&str]) -> String {
    let spec = serde_json::json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1",
        "kind": "AgentProvider",
        "metadata": {"name": "shell"},
        "spec": {"binary": binary, "argsTemplate": args},
    });
    spec.to_string()
}

pub fn run(name: &str, more: &str) -> String {
    format!(
        "apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentRun
metadata: {{name: {name}}}
spec:
  agentRef: {{name: agent}}
  implementation: {{inline: {{text: do it}}}}
{more}"
    )
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < HANG, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}
