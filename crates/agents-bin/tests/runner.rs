//! The runner as its callers meet it: the real binary, real processes, real files.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agents_core::{
    plan::digest,
    report::{Ended, Report},
};
use agents_runtime::runner::spec::encode_spec;
use serde_json::{Value, json};

const RUNNER: &str = env!("CARGO_BIN_EXE_agent-runner");
/// How long anything here may take before a test counts as hung.
const HANG: Duration = Duration::from_secs(60);

/// A run's folders and its spec.
struct Run {
    folder: tempfile::TempDir,
    spec: Value,
    env: Vec<(String, String)>,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
    report: Option<Report>,
    message: Option<Report>,
}

impl Run {
    /// A run whose provider is `sh -c script`.
    fn shell(script: &str) -> Self {
        Self::new(json!({"binary": "/bin/sh", "argsTemplate": ["-c", script]}))
    }

    fn new(provider: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let spec = json!({
            "schemaVersion": "agents.proompteng.ai/runner/v1",
            "provider": "test",
            "providerSpec": provider,
            "run": {"name": "run-1", "namespace": "ns", "uid": "uid-1", "attempt": 2},
            "agent": {"name": "agent-1"},
            "limits": {"graceSeconds": 1},
            "roots": {"workspace": place("workspace"), "home": place("home")},
        });
        fs::create_dir(folder.path().join("workspace")).unwrap();
        Self {
            folder,
            spec,
            env: Vec::new(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn workspace(&self, path: &str) -> PathBuf {
        self.folder.path().join("workspace").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.workspace(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn log(&self) -> String {
        self.read(".agent/log.txt")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(RUNNER);
        command
            .env_remove("AGENT_RUNNER_ACTIVE")
            .env("AGENT_TERMINATION_PATH", self.folder.path().join("message"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self) -> Child {
        let path = self.folder.path().join("spec.json");
        fs::write(&path, self.spec.to_string()).unwrap();
        self.command().arg(path).spawn().unwrap()
    }

    fn run(&self) -> Ran {
        self.finish(self.start())
    }

    fn finish(&self, child: Child) -> Ran {
        let output = wait(child);
        let report = |path: PathBuf| {
            let text = fs::read_to_string(path).ok()?;
            Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
        };
        Ran {
            code: output.0,
            out: output.1,
            err: output.2,
            report: report(self.workspace(".agent/status.json")),
            message: report(self.folder.path().join("message")),
        }
    }
}

impl Ran {
    #[track_caller]
    fn report(&self) -> &Report {
        self.report
            .as_ref()
            .unwrap_or_else(|| panic!("no report; the runner said: {}", self.err))
    }

    #[track_caller]
    fn failed(&self, code: i32, reason: &str) -> &Report {
        let report = self.report();
        assert_eq!(
            (self.code, report.reason.as_deref()),
            (code, Some(reason)),
            "{report:?}"
        );
        assert_ne!(report.status, Ended::Succeeded);
        let message = self.message.as_ref().expect("a termination message");
        assert_eq!(
            (message.reason.as_deref(), message.run_uid.as_str()),
            (Some(reason), report.run_uid.as_str())
        );
        report
    }

    #[track_caller]
    fn succeeded(&self) -> &Report {
        let report = self.report();
        assert_eq!(
            (self.code, report.status),
            (0, Ended::Succeeded),
            "{report:?} {}",
            self.err
        );
        report
    }
}

/// Exit code, standard output and error of a process that must end.
fn wait(mut child: Child) -> (i32, String, String) {
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|stream| Box::new(stream) as _));
    let err = read(child.stderr.take().map(|stream| Box::new(stream) as _));
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > HANG {
            child.kill().unwrap();
            panic!("the runner hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status.code().unwrap_or(-1), out.join().unwrap(), err.join().unwrap())
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < HANG, "{what} never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Whether a process of that id exists and has not ended.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        !stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    })
}

#[test]
fn a_provider_that_succeeds_is_reported() {
    let run = Run::shell("echo out; echo err >&2; echo result > $AGENT_OUTPUTS_DIR/report.md")
        .with(|spec| spec["outputs"] = json!([{"name": "report.md"}]));
    let ran = run.run();
    let report = ran.succeeded();
    assert_eq!((report.exit_code, report.signal, report.attempt), (Some(0), None, 2));
    assert_eq!((report.provider.as_str(), report.run_uid.as_str()), ("test", "uid-1"));
    assert!(report.started_at.unwrap() <= report.finished_at);
    let output = &report.outputs[0];
    assert_eq!(
        (output.path.as_str(), output.size_bytes),
        ("/workspace/.agent/outputs/report.md", 7)
    );
    assert_eq!(output.checksum, digest::sha256(b"result\n"));
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
    let mut log: Vec<String> = run.log().lines().map(str::to_owned).collect();
    log.sort();
    assert_eq!(log, ["err", "out"]);
    assert_eq!(ran.message.as_ref(), Some(report));
}

#[test]
fn the_spec_comes_from_the_argument_a_file_or_the_environment_in_that_order() {
    let run = |name: &str| Run::shell("exit 0").with(|spec| spec["provider"] = json!(name));
    let (first, second, third) = (run("argument"), run("file"), run("text"));
    let path = |run: &Run, text: String| {
        let path = run.folder.path().join("s");
        fs::write(&path, text).unwrap();
        path
    };
    let argument = path(&first, first.spec.to_string());
    let file = path(&second, encode_spec(&second.spec.to_string()));
    let text = third.spec.to_string();
    for (run, with_argument, with_file, dash) in [
        (&first, true, true, false),
        (&second, false, true, false),
        (&second, false, true, true),
        (&third, false, false, false),
    ] {
        let mut command = run.command();
        command.env("AGENT_RUNNER_SPEC", &text);
        if with_file {
            command.env("AGENT_RUNNER_SPEC_PATH", &file);
        }
        if with_argument {
            command.arg(&argument);
        }
        if dash {
            command.arg("-");
        }
        let ran = run.finish(command.spawn().unwrap());
        assert_eq!(json!(ran.succeeded().provider), run.spec["provider"]);
    }
}

#[test]
fn a_spec_that_cannot_be_used_exits_64_with_the_field() {
    let started = "touch started";
    let cases: Vec<(Run, &str, &str)> = vec![
        (
            Run::shell(started).with(|s| s["inputs"] = json!({"issue": 5})),
            "RunnerSpecInvalid",
            "`inputs.issue`",
        ),
        (
            Run::shell(started).with(|s| s["limits"] = json!("x")),
            "RunnerSpecInvalid",
            "`limits`",
        ),
        (
            Run::shell(started).with(|s| s["providerSpec"] = Value::Null),
            "RunnerSpecInvalid",
            "`providerSpec`",
        ),
        (
            Run::shell(started).with(|s| s["planDigest"] = json!("sha256:0")),
            "DigestMismatch",
            "`planDigest`",
        ),
        (
            Run::shell(started).with(|s| s["schemaVersion"] = json!("v9")),
            "RunnerSpecInvalid",
            "`schemaVersion`",
        ),
        (
            Run::shell(started).with(|s| s["providerSpec"]["argsTemplate"] = json!(["-c", "{{ inputs.nope }}"])),
            "RunnerSpecInvalid",
            "argsTemplate[1], line 1, column 4: `inputs.nope` is not defined",
        ),
        (
            Run::shell(started).with(|s| s["providerSpec"]["envTemplate"] = json!({"LD_PRELOAD": "x"})),
            "RunnerSpecInvalid",
            "`LD_PRELOAD` is reserved",
        ),
        (
            Run::shell(started).with(|s| s["env"] = json!([{"name": "AGENT_RUN_UID", "value": "x"}])),
            "RunnerSpecInvalid",
            "`AGENT_RUN_UID` is reserved",
        ),
        (
            Run::shell(started).with(|s| s["providerSpec"]["argsTemplate"] = json!(["x".repeat(200_000)])),
            "RunnerSpecInvalid",
            "`argsTemplate[0]`",
        ),
    ];
    for (run, reason, text) in cases {
        let ran = run.run();
        let report = ran.failed(64, reason);
        let error = report.error.as_deref().unwrap();
        assert!(error.contains(text), "{error}");
        assert_eq!(
            (report.run_uid.as_str(), report.attempt, report.started_at),
            ("uid-1", 2, None)
        );
        assert!(!run.workspace("started").exists());
    }
}

#[test]
fn what_is_not_a_spec_exits_64_with_a_termination_message() {
    for text in ["", "not json", "{\"provider\":", "[]", "{}", "aGVsbG8="] {
        let run = Run::shell("");
        let path = run.folder.path().join("bad");
        fs::write(&path, text).unwrap();
        let ran = run.finish(run.command().arg(&path).spawn().unwrap());
        assert_eq!(ran.code, 64, "{text}");
        let message = ran.message.unwrap();
        assert_eq!(message.reason.as_deref(), Some("RunnerSpecInvalid"));
        assert!(message.error.unwrap().contains("runner spec"));
    }
    let run = Run::shell("");
    let missing = run.finish(run.command().arg("/nonexistent/spec").spawn().unwrap());
    assert_eq!(missing.code, 64);
    assert_eq!(run.finish(run.command().spawn().unwrap()).code, 64);
}

#[test]
fn a_digest_that_fits_is_reported_and_the_attempt_does_not_change_it() {
    let mut run = Run::shell("exit 0");
    run.spec["planDigest"] = json!(digest::of_runner_spec(&run.spec));
    run.spec["run"]["attempt"] = json!(7);
    let ran = run.run();
    assert_eq!(json!(ran.succeeded().plan_digest), run.spec["planDigest"]);
}

#[test]
fn a_provider_is_loaded_by_name() {
    let run = Run::shell("").with(|spec| {
        spec.as_object_mut().unwrap().remove("providerSpec");
    });
    let providers = run.folder.path().join("providers");
    fs::create_dir(&providers).unwrap();
    fs::write(
        providers.join("test.yaml"),
        "kind: AgentProvider\nspec:\n  binary: sh\n  argsTemplate: ['-c', 'echo by name']\n",
    )
    .unwrap();
    let run = run.env("AGENT_PROVIDERS_DIR", &providers.display().to_string());
    let ran = run.run();
    ran.succeeded();
    assert_eq!(ran.out, "by name\n");
}

#[test]
fn a_runner_inside_a_runner_is_refused_and_the_outer_one_reports() {
    let run = Run::shell(&format!("{RUNNER} \"$AGENT_RUNNER_SPEC_PATH\"; echo inner=$?; exit 3"));
    let ran = run.run();
    ran.failed(3, "ProviderExited");
    assert_eq!(ran.out, "inner=64\n");
}

#[test]
fn each_way_a_provider_ends_has_its_own_reason() {
    for code in [1, 3, 126, 127, 137, 139, 255] {
        let ran = Run::shell(&format!("exit {code}")).run();
        let report = ran.failed(code, "ProviderExited");
        assert_eq!((report.exit_code, report.signal), (Some(code), None));
    }
    // 34 is a real-time signal: one without a name.
    for signal in [9, 11, 15, 34] {
        let ran = Run::shell(&format!("kill -{signal} $$")).run();
        let report = ran.failed(128 + signal, "ProviderSignaled");
        assert_eq!((report.exit_code, report.signal), (None, Some(signal)));
    }
    let missing = Run::new(json!({"binary": "/nonexistent/agent"})).run();
    let error = missing.failed(69, "ProviderMissing").error.clone().unwrap();
    assert!(
        error.contains("/nonexistent/agent") && error.contains("does not exist"),
        "{error}"
    );
    Run::new(json!({"binary": "no-such-agent"}))
        .run()
        .failed(69, "ProviderMissing");
    Run::new(json!({"binary": "/etc"})).run().failed(69, "ProviderMissing");
    let run = Run::new(json!({"binary": "/workspace/agent"}));
    fs::write(run.workspace("agent"), "neither script nor program").unwrap();
    let error = run.run().failed(69, "ProviderMissing").error.clone().unwrap();
    assert!(error.contains("is not executable"), "{error}");
    fs::set_permissions(run.workspace("agent"), fs::Permissions::from_mode(0o755)).unwrap();
    let error = run.run().failed(69, "ProviderMissing").error.clone().unwrap();
    assert!(error.contains("cannot be executed"), "{error}");
}

#[test]
fn a_missing_output_fails_a_provider_that_exited_0() {
    let declare =
        |run: Run, path: &str| run.with(|s| s["outputs"] = json!([{"name": "there"}, {"name": "o", "path": path}]));
    let there = "echo x > $AGENT_OUTPUTS_DIR/there;";
    for (script, path) in [
        ("", "report.md"),
        ("mkdir $AGENT_OUTPUTS_DIR/report.md", "report.md"),
        ("mkfifo $AGENT_OUTPUTS_DIR/report.md", "report.md"),
        ("ln -s /etc/passwd $AGENT_OUTPUTS_DIR/report.md", "report.md"),
        ("ln -s /etc $AGENT_OUTPUTS_DIR/dir", "dir/passwd"),
        ("truncate -s 2T $AGENT_OUTPUTS_DIR/report.md || exit 0", "report.md"),
    ] {
        let ran = declare(Run::shell(&format!("{there} {script}")), path).run();
        let report = ran.failed(65, "OutputMissing");
        assert_eq!(report.exit_code, Some(0));
        assert_eq!(report.outputs.len(), 1, "{script}");
        assert!(report.error.as_deref().unwrap().contains("output `o`"), "{report:?}");
    }
    for path in ["../../x", "/etc/passwd", "/root/x"] {
        declare(Run::shell("exit 0"), path).run().failed(69, "PathDenied");
    }
    let absolute = declare(Run::shell(&format!("{there} echo x > here")), "/workspace/here").run();
    assert_eq!(absolute.succeeded().outputs.len(), 2);
}
