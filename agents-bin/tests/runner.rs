//! The runner as its callers meet it: the real binary, real processes, real files.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agents_core::{
    plan::digest,
    report::{Ended, Report},
};
use agents_runtime::spec_file::encode;
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

    #[expect(clippy::needless_pass_by_value, reason = "reads well with `json!` in place")]
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
        Self { folder, spec, env: Vec::new() }
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

    fn command(&self, program: &str) -> Command {
        let mut command = common::listening(program);
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
        self.command(RUNNER).arg(path).spawn().unwrap()
    }

    /// Started by another program, which becomes the runner.
    fn start_by(&self, program: &[&str]) -> Child {
        let path = self.folder.path().join("spec.json");
        fs::write(&path, self.spec.to_string()).unwrap();
        self.command(program[0]).args(&program[1..]).arg(RUNNER).arg(path).spawn().unwrap()
    }

    /// As in a container: the runner is the first process. None where no process namespace can be made.
    fn start_as_first_process(&self) -> Option<Child> {
        let namespace = ["--pid", "--fork", "--mount-proc"];
        if common::lacks_root(common::can_unshare(&namespace), "a process namespace of our own") {
            return None;
        }
        let path = self.folder.path().join("spec.json");
        fs::write(&path, self.spec.to_string()).unwrap();
        Some(self.command("unshare").args(namespace).arg(RUNNER).arg(path).spawn().unwrap())
    }

    /// Not as root, to whom nothing is closed.
    fn start_as_nobody(&self) -> Child {
        let runner = self.folder.path().join("agent-runner");
        fs::copy(RUNNER, &runner).unwrap();
        let spec = self.folder.path().join("spec.json");
        fs::write(&spec, self.spec.to_string()).unwrap();
        let mut command = self.command(runner.to_str().unwrap());
        if nix::unistd::getuid().is_root() {
            for path in [self.folder.path(), &self.workspace("")] {
                chown(path, Some(65534), Some(65534)).unwrap();
            }
            command.uid(65534).gid(65534);
        }
        command.arg(spec).spawn().unwrap()
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
        self.report.as_ref().unwrap_or_else(|| panic!("no report; the runner said: {}", self.err))
    }

    #[track_caller]
    fn failed(&self, code: i32, reason: &str) -> &Report {
        let report = self.report();
        assert_eq!((self.code, report.reason.as_deref()), (code, Some(reason)), "{report:?}");
        assert_ne!(report.status, Ended::Succeeded);
        let message = self.message.as_ref().expect("a termination message");
        assert_eq!((message.reason.as_deref(), message.run_uid.as_str()), (Some(reason), report.run_uid.as_str()));
        report
    }

    #[track_caller]
    fn succeeded(&self) -> &Report {
        let report = self.report();
        assert_eq!((self.code, report.status), (0, Ended::Succeeded), "{report:?} {}", self.err);
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
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
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
    assert_eq!((output.path.as_str(), output.size_bytes), ("/workspace/.agent/outputs/report.md", 7));
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
    let file = path(&second, encode(second.spec.to_string().as_bytes()).unwrap());
    let text = third.spec.to_string();
    for (run, with_argument, with_file, dash) in [
        (&first, true, true, false),
        (&second, false, true, false),
        (&second, false, true, true),
        (&third, false, false, false),
    ] {
        let mut command = run.command(RUNNER);
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
        (Run::shell(started).with(|s| s["inputs"] = json!({"issue": 5})), "RunnerSpecInvalid", "`inputs.issue`"),
        (Run::shell(started).with(|s| s["limits"] = json!("x")), "RunnerSpecInvalid", "`limits`"),
        (Run::shell(started).with(|s| s["providerSpec"] = Value::Null), "RunnerSpecInvalid", "`providerSpec`"),
        (Run::shell(started).with(|s| s["planDigest"] = json!("sha256:0")), "DigestMismatch", "`planDigest`"),
        (Run::shell(started).with(|s| s["schemaVersion"] = json!("v9")), "RunnerSpecInvalid", "`schemaVersion`"),
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
        (
            Run::shell(started).with(|s| s["providerSpec"]["argsTemplate"] = json!(vec!["x".repeat(100_000); 16])),
            "RunnerSpecInvalid",
            "`argsTemplate`: arguments, variables and parameters together",
        ),
        (
            Run::shell(started).with(|s| s["git"] = json!({"url": "https://hunter2@localhost/x"})),
            "RunnerSpecInvalid",
            "`git.url`: names a user, a token or a password",
        ),
    ];
    for (run, reason, text) in cases {
        let ran = run.run();
        let report = ran.failed(64, reason);
        let error = report.error.as_deref().unwrap();
        assert!(error.contains(text), "{error}");
        assert_eq!((report.run_uid.as_str(), report.attempt, report.started_at), ("uid-1", 2, None));
        assert!(!run.workspace("started").exists());
    }
}

/// What the plan takes leaves room for what it cannot know; a shell or a Secret that needs more than the room is the
/// kernel's to refuse, for every attempt.
#[test]
fn more_than_the_kernel_takes_is_said_and_not_worth_another_attempt() {
    let mut run = Run::shell("").with(|s| {
        let mut args = vec!["-c".to_owned(), "touch started".to_owned()];
        args.extend(vec!["x".repeat(100_000); 14]);
        s["providerSpec"]["argsTemplate"] = json!(args);
    });
    for n in 0..17 {
        run = run.env(&format!("LARGE_{n}"), &"y".repeat(100_000));
    }
    let ran = run.run();
    let report = ran.failed(64, "ArgumentsTooLong");
    let error = report.error.as_deref().unwrap();
    assert!(error.contains("more than the kernel takes") && error.contains("2 MiB"), "{error}");
    assert!(!report.known_reason().unwrap().is_retryable());
    assert!(!run.workspace("started").exists());
    run.env.truncate(4);
    run.run().succeeded();
    assert!(run.workspace("started").exists());
}

#[test]
fn what_is_not_a_spec_exits_64_with_a_termination_message() {
    for text in ["", "not json", "{\"provider\":", "[]", "{}", "aGVsbG8="] {
        let run = Run::shell("");
        let path = run.folder.path().join("bad");
        fs::write(&path, text).unwrap();
        let ran = run.finish(run.command(RUNNER).arg(&path).spawn().unwrap());
        assert_eq!(ran.code, 64, "{text}");
        let message = ran.message.unwrap();
        assert_eq!(message.reason.as_deref(), Some("RunnerSpecInvalid"));
        assert!(message.error.unwrap().contains("runner spec"));
    }
    let run = Run::shell("");
    let missing = run.finish(run.command(RUNNER).arg("/nonexistent/spec").spawn().unwrap());
    assert_eq!(missing.code, 64);
    assert_eq!(run.finish(run.command(RUNNER).spawn().unwrap()).code, 64);
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
    assert!(error.contains("/nonexistent/agent") && error.contains("does not exist"), "{error}");
    Run::new(json!({"binary": "no-such-agent"})).run().failed(69, "ProviderMissing");
    Run::new(json!({"binary": "/etc"})).run().failed(69, "ProviderMissing");
    let run = Run::new(json!({"binary": "/workspace/agent"}));
    fs::write(run.workspace("agent"), "neither script nor program").unwrap();
    let error = run.run().failed(69, "ProviderMissing").error.clone().unwrap();
    assert!(error.contains("is not executable"), "{error}");
    fs::set_permissions(run.workspace("agent"), fs::Permissions::from_mode(0o755)).unwrap();
    let error = run.run().failed(69, "ProviderMissing").error.clone().unwrap();
    assert!(error.contains("neither a program of this machine"), "{error}");
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

#[test]
fn a_provider_that_ignores_the_deadline_is_killed() {
    let run = Run::shell("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done")
        .with(|s| s["limits"] = json!({"timeoutSeconds": 1, "graceSeconds": 1}));
    let ran = run.run();
    let report = ran.failed(124, "DeadlineExceeded");
    assert_eq!(report.signal, Some(9));
    assert!(!is_alive(&run.read("pid")));
}

#[test]
fn a_provider_that_prints_without_end_is_ended_and_the_log_keeps_its_bound() {
    let run = Run::shell("yes without end")
        .with(|s| s["limits"] = json!({"timeoutSeconds": 1, "graceSeconds": 5, "logBytes": 65_536}));
    run.run().failed(124, "DeadlineExceeded");
    let log = run.read(".agent/log.txt");
    assert!(log.len() <= 65_536 && log.contains("without end\n"), "{} bytes", log.len());
}

#[test]
fn a_deadline_leaves_time_to_end_in_peace() {
    let run = Run::shell("trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done")
        .with(|s| s["limits"] = json!({"timeoutSeconds": 1, "graceSeconds": 30}));
    let ran = run.run();
    assert_eq!(ran.failed(124, "DeadlineExceeded").exit_code, Some(0));
    assert_eq!(ran.out, "bye\n");
}

#[test]
fn every_stop_signal_cancels() {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
    for stop in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1] {
        let run = Run::shell("trap 'exit 5' TERM; touch ready; while :; do sleep 0.05; done");
        // Whatever those who run the tests ignore or block: also what is blocked is heard.
        let child =
            run.start_by(&["env", "--default-signal=TERM,INT,HUP,QUIT,USR1", "--block-signal=TERM,INT,HUP,QUIT,USR1"]);
        until("the provider's start", || run.workspace("ready").exists());
        signal(&child, stop);
        let ran = run.finish(child);
        let report = ran.failed(143, "Cancelled");
        assert_eq!((report.status, report.exit_code), (Ended::Cancelled, Some(5)));
    }
}

#[test]
fn what_was_ignored_from_the_start_stays_ignored_and_the_provider_does_not_inherit_it() {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let run = Run::shell("grep SigIgn /proc/$$/status > ignored; touch ready; while :; do sleep 0.02; done");
    let child = run.start_by(&["env", "--ignore-signal=HUP,INT,QUIT,TERM"]);
    until("the provider's start", || run.workspace("ready").exists());
    for ignored in [SIGHUP, SIGINT, SIGQUIT] {
        signal(&child, ignored);
    }
    // The one that ends it comes last; had one of the others been heard, this were the second and nothing had a grace.
    signal(&child, SIGTERM);
    let ran = run.finish(child);
    assert_eq!(ran.failed(143, "Cancelled").signal, Some(15));
    let ignored = run.read("ignored");
    let mask = u64::from_str_radix(ignored.split_whitespace().nth(1).unwrap(), 16).unwrap();
    for reset in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        assert_eq!(mask & (1 << (reset as i32 - 1)), 0, "{reset}: {ignored}");
    }
}

#[test]
fn a_limit_of_the_size_of_files_costs_output_and_never_the_report() {
    let run = Run::shell(
        "n=0; while [ $n -lt 3000 ]; do echo \"line $n of one hundred bytes or so \
        ............................................................\"; n=$((n+1)); done; echo the end",
    );
    let child = run.start_by(&["sh", "-c", "ulimit -f 200; exec \"$@\"", "sh"]);
    let ran = run.finish(child);
    ran.succeeded();
    assert!(run.log().ends_with("the end\n") && run.log().len() <= 200 * 1024, "{} bytes", run.log().len());
}

#[test]
fn a_runner_that_cannot_begin_reports_it() {
    let run = Run::shell("exit 0").env("AGENT_REPORT_KEY", "key-5417");
    let ran = run.finish(run.start_by(&["sh", "-c", "ulimit -n 10; exec \"$@\"", "sh"]));
    let report = ran.failed(70, "RunnerFailed");
    assert_eq!((report.proof.as_str(), report.attempt), ("key-5417", 2));
    assert!(report.error.as_ref().is_some_and(|error| error.contains("Too many open files")), "{report:?}");
}

#[test]
fn a_provider_that_removes_or_closes_its_folders_is_reported() {
    for (script, log) in [
        ("cd /; rm -rf \"$AGENT_OUTPUTS_DIR\"", "said\n"),
        ("cd /; rm -rf \"${AGENT_OUTPUTS_DIR%/outputs}\"", "said\n"),
        ("cd /; rm -rf \"${AGENT_OUTPUTS_DIR%/.agent/outputs}\"", "said\n"),
        ("mv \"${AGENT_OUTPUTS_DIR%/outputs}\" moved", "said\n"),
        ("chmod 0 \"${AGENT_OUTPUTS_DIR%/outputs}\"", "said\n"),
        ("chmod 0 \"${AGENT_OUTPUTS_DIR%/.agent/outputs}\"", "said\n"),
        ("chmod 500 \"${AGENT_OUTPUTS_DIR%/outputs}\"; chmod 500 .", "said\n"),
    ] {
        let run = Run::shell(&format!("echo said; {script}; exit 3"));
        let ran = run.finish(run.start_as_nobody());
        let report = ran.failed(3, "ProviderExited");
        assert_eq!(report.error.as_deref(), Some("the provider exited with code 3"), "{script}");
        assert_eq!(run.log(), log, "{script}");
    }
}

#[test]
fn what_keeps_a_program_from_being_executed_is_said() {
    for (content, said) in [
        ("#!/no/such/interpreter -x\n", "its interpreter `/no/such/interpreter` does not exist"),
        ("#!/bin/sh\r\necho\r\n", "ends with a carriage return"),
        ("#!/etc/passwd\n", "its interpreter `/etc/passwd` is not executable"),
        ("echo no first line\n", "neither a program of this machine nor a script"),
        ("\x7fELF nonsense", "another kind of processor"),
    ] {
        let run = Run::new(json!({"binary": "/workspace/tool"}));
        fs::write(run.workspace("tool"), content).unwrap();
        fs::set_permissions(run.workspace("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let ran = run.run();
        let error = ran.failed(69, "ProviderMissing").error.clone().unwrap();
        assert!(error.contains(said) && error.contains("/workspace/tool"), "{error}");
        assert!(!error.contains("No such file"), "{error}");
    }
}

#[test]
fn a_second_signal_ends_the_grace() {
    let run = Run::shell("trap 'touch termed' TERM; touch ready; while :; do sleep 0.05; done")
        .with(|s| s["limits"] = json!({"graceSeconds": 3600}));
    let child = run.start();
    until("the provider's start", || run.workspace("ready").exists());
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    until("the first signal", || run.workspace("termed").exists());
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    let ran = run.finish(child);
    let report = ran.failed(143, "Cancelled");
    assert_eq!((report.status, report.signal), (Ended::Cancelled, Some(9)));
}

/// An engine that dies between the signal and its record is followed by one that sends it again.
#[test]
fn what_an_engine_repeats_ends_no_grace() {
    let run = Run::shell("trap 'touch termed' TERM; touch ready; while [ ! -e go ]; do sleep 0.02; done; exit 6")
        .with(|s| s["limits"] = json!({"graceSeconds": 3600}));
    let child = run.start();
    until("the provider's start", || run.workspace("ready").exists());
    for _ in 0..3 {
        signal(&child, nix::sys::signal::Signal::SIGUSR1);
        until("the first signal", || run.workspace("termed").exists());
    }
    fs::write(run.workspace("go"), "").unwrap();
    let report = run.finish(child).failed(143, "Cancelled").clone();
    assert_eq!((report.status, report.exit_code, report.signal), (Ended::Cancelled, Some(6), None));
}

/// A provider whose first process ends at once when it is told to, and whose child saves its work for longer than what
/// is left behind by an ordinary end may take. Every TERM the child gets is a line of `terms`.
const SAVES: &str = "sh -c 'trap \"echo t >> terms\" TERM; touch ready; while [ ! -e terms ]; do sleep 0.02; done
    n=0; while [ $n -lt 130 ]; do sleep 0.02; n=$((n+1)); done; touch saved'; true";

fn has_saved(run: &Run) {
    assert!(run.workspace("saved").exists(), "what is left of the grace was not given");
    assert_eq!(run.read("terms"), "t\n", "one signal, and no more");
}

#[test]
fn the_rest_of_the_grace_belongs_to_the_whole_group_when_it_is_asked_to_stop() {
    let run = Run::shell(SAVES).with(|s| s["limits"] = json!({"graceSeconds": 30}));
    let child = run.start();
    until("the child's start", || run.workspace("ready").exists());
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    let report = run.finish(child).failed(143, "Cancelled").clone();
    assert_eq!(report.signal, Some(15));
    has_saved(&run);
}

#[test]
fn the_rest_of_the_grace_belongs_to_the_whole_group_at_a_deadline() {
    let run = Run::shell(SAVES).with(|s| s["limits"] = json!({"timeoutSeconds": 1, "graceSeconds": 30}));
    run.run().failed(124, "DeadlineExceeded");
    has_saved(&run);
}

#[test]
fn the_rest_of_the_grace_belongs_to_the_whole_group_in_a_container() {
    let run = Run::shell(SAVES).with(|s| s["limits"] = json!({"timeoutSeconds": 1, "graceSeconds": 30}));
    let Some(child) = run.start_as_first_process() else { return };
    run.finish(child).failed(124, "DeadlineExceeded");
    has_saved(&run);
}

#[test]
fn the_grace_ends_for_the_whole_group() {
    for stubborn in [
        "sh -c 'trap \"\" TERM; echo $$ > pid; touch ready; while :; do sleep 0.02; done'; true",
        "setsid sh -c 'trap \"\" TERM; echo $$ > pid; touch ready; while :; do sleep 0.02; done'; true",
    ] {
        let run = Run::shell(stubborn).with(|s| s["limits"] = json!({"graceSeconds": 1}));
        let child = run.start();
        until("the child's start", || run.workspace("ready").exists());
        let begin = Instant::now();
        signal(&child, nix::sys::signal::Signal::SIGTERM);
        run.finish(child).failed(143, "Cancelled");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(!is_alive(&run.read("pid")));
    }
}

#[test]
fn a_second_signal_ends_the_grace_of_the_whole_group() {
    let run = Run::shell("sh -c 'trap \"touch termed\" TERM; touch ready; while :; do sleep 0.02; done'; true")
        .with(|s| s["limits"] = json!({"graceSeconds": 3600}));
    let child = run.start();
    until("the child's start", || run.workspace("ready").exists());
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    until("the first signal", || run.workspace("termed").exists());
    signal(&child, nix::sys::signal::Signal::SIGTERM);
    run.finish(child).failed(143, "Cancelled");
}

#[test]
fn nothing_the_provider_started_outlives_the_report() {
    // A child in the group, a daemon in a session of its own that ignores TERM, and one that holds the streams open.
    let run = Run::shell(
        "sleep 1000 & echo $! >> pids
         setsid sh -c 'trap \"\" TERM; echo $$ >> pids; touch deaf; while :; do sleep 0.05; done' >/dev/null 2>&1 &
         setsid sh -c 'echo $$ >> pids; (sleep 1000 & echo $! >> pids); exec sleep 1000' &
         while [ ! -e deaf ] || [ $(wc -l < pids) -lt 4 ]; do sleep 0.01; done",
    );
    let ran = run.run();
    ran.succeeded();
    let pids = run.read("pids");
    assert_eq!(pids.lines().count(), 4);
    for pid in pids.lines() {
        assert!(!is_alive(pid), "{pid} of {pids}");
    }
}

#[test]
fn as_the_first_process_it_reaps_orphans_and_ends_everything() {
    let run = Run::shell(
        "for n in 1 2 3; do (setsid sh -c 'echo x >> born; sleep 0.05; echo x >> gone' &) ; done
         while [ ! -e gone ] || [ $(wc -l < gone) -lt 3 ]; do sleep 0.01; done
         while grep -q '^State:.Z' /proc/[0-9]*/status; do sleep 0.01; done; touch reaped
         echo $PPID > parent; (setsid sh -c 'trap \"\" TERM; touch deaf; while :; do sleep 0.05; done' &)
         while [ ! -e deaf ]; do sleep 0.01; done; exit 3",
    )
    .with(|s| s["limits"] = json!({"timeoutSeconds": 30, "graceSeconds": 1}));
    let Some(child) = run.start_as_first_process() else { return };
    let ran = run.finish(child);
    ran.failed(3, "ProviderExited");
    assert_eq!(run.read("parent"), "1\n");
    assert!(run.workspace("reaped").exists());
}

#[test]
fn memory_stays_flat_whatever_is_printed() {
    const MIB: u64 = 1024 * 1024;
    for (mib, script) in [
        (1024, "head -c $BYTES /dev/zero | tr '\\0' 'x'"),
        (64, "yes 'a line of some length, as agents print them' | head -c $BYTES"),
        (64, "head -c $BYTES /dev/zero >&2"),
    ] {
        let run = Run::shell(&format!("BYTES={}; {script}; grep VmHWM /proc/$PPID/status > peak; exit 0", mib * MIB))
            .with(|s| s["limits"] = json!({"logBytes": MIB}))
            .with(|s| s["secretEnv"] = json!(["TOKEN"]))
            .env("TOKEN", "s3cret-token");
        let path = run.folder.path().join("spec.json");
        fs::write(&path, run.spec.to_string()).unwrap();
        let sink = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/null").unwrap());
        let begin = Instant::now();
        let ran = run.finish(run.command(RUNNER).arg(&path).stdout(sink()).stderr(sink()).spawn().unwrap());
        let peak = run.read("peak");
        println!("{mib} MiB in {:?}: {}", begin.elapsed(), peak.trim());
        ran.succeeded();
        let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 32 * 1024, "{peak}");
        let log = fs::metadata(run.workspace(".agent/log.txt")).unwrap().len();
        assert!((MIB / 4..=MIB).contains(&log), "{log}");
        assert!(!run.workspace(".agent/log.txt.1").exists());
    }
}

#[test]
fn a_listener_that_goes_away_does_not_end_the_provider() {
    let run = Run::shell("yes | head -c 1000000; echo end; touch done");
    let mut child = run.start();
    drop(child.stdout.take());
    let ran = run.finish(child);
    ran.succeeded();
    assert!(run.workspace("done").exists());
    assert!(run.log().ends_with("end\n"));
}

#[test]
fn secrets_are_in_no_output() {
    let secret = "s3cret-token-value";
    let run = Run::shell(
        "printf 's3cret-'; sleep 0.6; printf 'token-value tail\\n'; echo \"err $TOKEN\" >&2
         head -c 65530 /dev/zero | tr '\\0' x; echo \"$TOKEN\"; echo \"$OTHER\"; exit 4",
    )
    .with(|s| s["secretEnv"] = json!(["TOKEN", "ABSENT"]))
    .env("TOKEN", secret)
    .env("OTHER", "no secret");
    let ran = run.run();
    ran.failed(4, "ProviderExited");
    for text in [&ran.out, &ran.err, &run.log(), &run.read(".agent/status.json")] {
        assert!(!text.contains(secret) && !text.contains("token-value"), "{text}");
    }
    assert!(ran.out.starts_with("*** tail\n") && ran.out.ends_with("x***\nno secret\n"));
    let refused = Run::new(json!({"binary": format!("/bin/{secret}")}))
        .with(|s| s["secretEnv"] = json!(["TOKEN"]))
        .env("TOKEN", secret)
        .run();
    assert!(!refused.failed(69, "ProviderMissing").error.as_deref().unwrap().contains(secret));
    assert!(!refused.err.contains(secret));
}

#[test]
fn no_line_of_a_secret_is_in_any_output_however_tools_print_it() {
    let lines: Vec<String> = (1..6).map(|n| format!("QUJDREVGR0hJSktMTU5P{n}FFSU1RVVldY+V/Wo0123456789")).collect();
    let key = format!("-----BEGIN KEY-----\n{}\n-----END KEY-----\n", lines.join("\n"));
    let run = Run::shell(
        "printf '%s' \"$KEY\" | sed 's/^/    /'; printf '%s' \"$KEY\" | sed 's/$/ \\r/'; printf '%s' \"$KEY\" | sed -n 3p
         echo base64; printf '%s' \"$KEY\" | base64; for before in a ab abc; do printf '%s%s' $before \"$KEY\" | base64; done
         printf 'user:%s' \"$KEY\" | base64 -w0; echo; printf '%s' \"$KEY\" | sed -n 4p | base64 | tr '+/' '-_'
         echo hex; printf '%s' \"$KEY\" | od -An -v -tx1 | tr -d ' '
         echo url; printf '%s' \"$KEY\" | sed 's/+/%2B/g; s,/,%2F,g'; echo end",
    )
    .with(|s| s["secretEnv"] = json!(["KEY"]))
    .env("KEY", &key);
    let ran = run.run();
    ran.succeeded();
    for text in [&ran.out, &run.log()] {
        for line in text.lines() {
            let said = line.trim_start_matches("***").trim_end_matches(['*', '=']).trim();
            assert!(said.len() <= 16, "{line}\n{text}");
        }
        assert!(text.contains("***\nbase64\n") && text.ends_with("end\n"), "{text}");
    }
}

#[test]
fn the_environment_has_its_layers_and_our_variables() {
    let run = Run::new(json!({
        "binary": "env",
        "envTemplate": {
            "LAYER": "provider", "TOKEN": "provider", "WORKFLOW_STAGE": "mine-{{ inputs.stage }}", "WORKFLOW_STEP": "",
            "WHERE": "/workspace/x", "TEXT": "{{ implementation.text }}",
        },
    }))
    .with(|s| {
        s["env"] = json!([{"name": "LAYER", "value": "agent"}, {"name": "AGENTS", "value": "agent"}]);
        s["secretEnv"] = json!(["TOKEN"]);
        s["inputs"] = json!({"stage": "plan", "issue-number": "7", "path": "/workspace/in"});
        s["implementation"] = json!({"text": "do {{ secrets }} $HOME"});
        s["implementationName"] = json!("impl-1");
        s["observability"] = json!({"natsUrl": "nats://ours"});
    });
    let run = run
        .env("TOKEN", "tok")
        .env("LAYER", "image")
        .env("IMAGE", "image")
        .env("NATS_URL", "nats://image")
        .env("NATS_USER", "image")
        .env("AGENT_RUN_UID", "forged");
    let ran = run.run();
    ran.succeeded();
    let seen: BTreeMap<&str, &str> = ran.out.lines().filter_map(|line| line.split_once('=')).collect();
    let workspace = run.workspace("");
    let below = |path: &str| workspace.join(path).display().to_string();
    for (name, value) in [
        ("IMAGE", "image"),
        ("LAYER", "provider"),
        ("AGENTS", "agent"),
        // Its value is a secret of the runner, so it is not shown.
        ("TOKEN", "tok"),
        ("TEXT", "do {{ secrets }} $HOME"),
        ("WHERE", &below("x")),
        ("NATS_URL", "nats://ours"),
        ("NATS_USER", "image"),
        ("AGENT_RUN_NAME", "run-1"),
        ("AGENT_RUN_UID", "uid-1"),
        ("AGENT_RUN_NAMESPACE", "ns"),
        ("AGENT_NAME", "agent-1"),
        ("AGENT_PROVIDER", "test"),
        ("AGENT_ATTEMPT", "2"),
        ("AGENT_IMPLEMENTATION", "impl-1"),
        ("AGENT_INPUT_ISSUE_NUMBER", "7"),
        ("AGENT_INPUT_PATH", &below("in")),
        ("AGENT_RUNNER_SPEC_PATH", &below(".agent/runner-spec.json")),
        ("AGENT_STATUS_PATH", &below(".agent/status.json")),
        ("AGENT_LOG_PATH", &below(".agent/log.txt")),
        ("AGENT_OUTPUTS_DIR", &below(".agent/outputs")),
        ("WORKFLOW_NAME", "run-1"),
        ("WORKFLOW_UID", "uid-1"),
        ("WORKFLOW_NAMESPACE", "ns"),
        ("WORKFLOW_STEP", "main"),
        ("WORKFLOW_STAGE", "mine-plan"),
        ("WORKFLOW_ITERATION", "1"),
    ] {
        assert_eq!(seen.get(name), Some(&value), "{name}");
    }
    let copy: Value = serde_json::from_str(&run.read(".agent/runner-spec.json")).unwrap();
    assert_eq!(copy, run.spec);
}

#[test]
fn input_files_and_arguments_are_mapped_and_written() {
    let run = Run::new(json!({
        "binary": "/bin/sh",
        "argsTemplate": ["-c", "cat \"$1\" \"$2\"", "sh", "/workspace/a/b/prompt.md", "/root/.agent.toml"],
        "inputFiles": [
            {"path": "/workspace/a/b/prompt.md", "content": "{{ inputs.text }}\n"},
            {"path": "/root/.agent.toml", "content": "x = 1\n"},
        ],
    }))
    .with(|s| s["inputs"] = json!({"text": "{{ '; rm -rf / #"}));
    let ran = run.run();
    ran.succeeded();
    assert_eq!(ran.out, "{{ '; rm -rf / #\nx = 1\n");
}

#[test]
fn input_files_stay_below_their_folders_and_collide_with_nothing() {
    let provider = |paths: &[&str]| {
        let files: Vec<Value> = paths.iter().map(|path| json!({"path": path, "content": "bad"})).collect();
        Run::new(json!({"binary": "/bin/true", "inputFiles": files}))
    };
    for paths in [
        vec!["/etc/passwd"],
        vec!["../../etc/passwd"],
        vec!["/workspace/../x"],
        vec!["/proc/self/environ"],
        vec!["/workspace/a", "/workspace//a"],
        vec!["/workspace/a", "/workspace/a/b"],
        vec!["/workspace/.agent/status.json"],
        vec!["/workspace/.agent/log.txt"],
        vec!["/workspace/.agent/log.txt.1"],
        vec!["/workspace/.agent/runner-spec.json/x"],
        vec!["/workspace/.agent"],
        vec!["/workspace/.agent/outputs"],
        vec!["/workspace/.agent/.reserve"],
        vec!["/workspace/.agent/gitconfig"],
        vec!["/workspace/repository"],
    ] {
        let error = provider(&paths).run().failed(69, "PathDenied").error.clone().unwrap();
        assert!(error.contains(&format!("inputFiles[{}].path", paths.len() - 1)), "{error}");
        // Before anything is put anywhere.
        assert!(!error.contains("is not a regular file"), "{error}");
    }
    let filled = provider(&["/workspace/.agent/outputs/a"]);
    filled.run().succeeded();
    assert_eq!(filled.read(".agent/outputs/a"), "bad");
}

#[test]
fn outputs_share_no_place_and_are_none_of_the_runners_files() {
    let run = |outputs: Value| Run::shell("exit 0").with(|spec| spec["outputs"] = outputs).run();
    for own in ["status.json", "runner-spec.json", ".reserve"] {
        let ran = run(json!([{"name": "a", "path": format!("/workspace/.agent/{own}")}]));
        let error = ran.failed(69, "PathDenied").error.clone().unwrap();
        assert!(error.contains("`outputs[0].path`") && error.contains("collides"), "{error}");
    }
    let ran = run(json!([{"name": "a"}, {"name": "b", "path": "a/b"}]));
    let error = ran.failed(64, "RunnerSpecInvalid").error.clone().unwrap();
    assert!(error.contains("`outputs[1].path`: is the place of `outputs[0]`"), "{error}");
}

#[test]
fn parameters_of_one_variable_are_refused_with_both_names() {
    let ran = Run::shell("exit 0").with(|spec| spec["inputs"] = json!({"a-b": "1", "a_b": "2"})).run();
    let error = ran.failed(64, "RunnerSpecInvalid").error.clone().unwrap();
    assert!(error.contains("\"a_b\" and \"a-b\" are both the variable AGENT_INPUT_A_B"), "{error}");
}

#[test]
fn links_in_the_workspace_are_not_followed() {
    let run = |path: &str| Run::new(json!({"binary": "/bin/true", "inputFiles": [{"path": path, "content": "bad"}]}));
    let victim = tempfile::tempdir().unwrap();
    let file = victim.path().join("file");
    fs::write(&file, "untouched").unwrap();
    let parent = run("/workspace/link/file");
    symlink(victim.path(), parent.workspace("link")).unwrap();
    let last = run("/workspace/file");
    symlink(&file, last.workspace("file")).unwrap();
    let folder = run("/workspace/file");
    fs::create_dir(folder.workspace("file")).unwrap();
    for run in [parent, last, folder] {
        let error = run.run().failed(69, "PathDenied").error.clone().unwrap();
        assert!(error.contains("inputFiles[0].path"), "{error}");
    }
    // A hard link is replaced, not written through.
    let hard = run("/workspace/file");
    if fs::hard_link(&file, hard.workspace("file")).is_ok() {
        hard.run().succeeded();
        assert_eq!(hard.read("file"), "bad");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "untouched");
    // Our own folder as a link to somewhere else is not ours.
    let own = Run::shell("exit 0");
    symlink(victim.path(), own.workspace(".agent")).unwrap();
    own.run();
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 1);
}

#[test]
fn a_report_of_the_provider_is_never_taken_for_ours() {
    let victim = tempfile::tempdir().unwrap();
    let forged = r#"{"status":"succeeded","provider":"forged"}"#;
    let target = victim.path().join("target");
    for forge in [
        format!("echo '{forged}' > $AGENT_STATUS_PATH"),
        format!("ln -s {} $AGENT_STATUS_PATH", target.display()),
        "mkdir -p $AGENT_STATUS_PATH/x".to_owned(),
        "mkfifo $AGENT_STATUS_PATH".to_owned(),
        format!(
            "rm -rf $(dirname $AGENT_STATUS_PATH); ln -s {} $(dirname $AGENT_STATUS_PATH)",
            victim.path().display()
        ),
        format!(
            "(setsid sh -c 'while :; do echo \"$1\" > $AGENT_STATUS_PATH; done' sh '{forged}' 2>/dev/null &) ; sleep 0.1"
        ),
    ] {
        let ran = Run::shell(&format!("{forge}; exit 3")).run();
        let report = ran.failed(3, "ProviderExited");
        assert_eq!(report.provider, "test", "{forge}");
    }
    assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
}

#[test]
fn the_key_of_a_report_is_repeated_and_reaches_no_child() {
    const KEY: &str = "key-5417-of-the-report";
    let run = Run::shell("env > seen; cat /proc/self/environ >> seen").env("AGENT_REPORT_KEY", KEY);
    let ran = run.run();
    assert_eq!(ran.succeeded().proof, KEY);
    assert_eq!(ran.message.as_ref().unwrap().proof, KEY);
    for text in [&ran.out, &ran.err, &run.log(), &run.read("seen"), &run.read(".agent/runner-spec.json")] {
        assert!(!text.contains(KEY) && !text.contains("AGENT_REPORT_KEY"), "{text}");
    }
    // Without a key nothing is proven, and one that is none is not repeated.
    assert_eq!(Run::shell("true").run().succeeded().proof, "");
    let ran = Run::shell("true").env("AGENT_REPORT_KEY", "a b").run();
    assert_eq!(ran.succeeded().proof, "");
    assert!(ran.err.contains("AGENT_REPORT_KEY"), "{}", ran.err);
    // Also when there is no spec, and never to git.
    let ran = Run::shell("true").env("AGENT_REPORT_KEY", KEY).with(|spec| spec["provider"] = json!(5)).run();
    assert_eq!(ran.failed(64, "RunnerSpecInvalid").proof, KEY);
    let tools = tempfile::tempdir().unwrap();
    let seen = tools.path().join("seen");
    fs::write(tools.path().join("git"), format!("#!/bin/sh\nenv > {}\nexit 1\n", seen.display())).unwrap();
    fs::set_permissions(tools.path().join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let run = Run::shell("true").env("AGENT_REPORT_KEY", KEY).env("PATH", &path);
    run.with(|spec| spec["git"] = json!({"url": "https://example.com/a"})).run().failed(69, "CheckoutFailed");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("GIT_TERMINAL_PROMPT") && !seen.contains("AGENT_REPORT_KEY"), "{seen}");
}

#[test]
fn a_provider_of_the_runners_user_reads_neither_its_environment_nor_its_memory() {
    let run = Run::shell(
        "for file in environ mem maps auxv; do cat /proc/$PPID/$file > taken.$file && test -s taken.$file && exit 9; done
         ls /proc/$PPID/fd && exit 9; test -r /proc/$$/environ || exit 8; id -u > user; exit 0",
    )
    .env("AGENT_REPORT_KEY", "key-5417-of-the-report");
    let ran = run.finish(run.start_as_nobody());
    assert_eq!(ran.succeeded().proof, "key-5417-of-the-report");
    assert_ne!(run.read("user"), "0\n");
}

#[test]
fn a_termination_message_left_by_the_provider_is_replaced() {
    let run = Run::shell("exit 3");
    let (message, victim) = (run.folder.path().join("message"), run.folder.path().join("victim"));
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, &message).unwrap();
    run.run().failed(3, "ProviderExited");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn a_workspace_that_cannot_be_written_is_said() {
    let run = Run::shell("exit 0").with(|s| s["roots"]["workspace"] = json!("/proc/nowhere"));
    let ran = run.finish(run.start());
    assert_eq!(ran.code, 69);
    let message = ran.message.unwrap();
    assert_eq!(message.reason.as_deref(), Some("PreflightFailed"));
}

#[test]
fn usage_and_conversation_are_read_from_the_output() {
    let lines = concat!(
        r#"{"type":"thread.started","thread_id":"t-1"}"#,
        "\n",
        r#"{"type":"turn.completed","usage":{"input_tokens":10,"cached_input_tokens":4,"output_tokens":2}}"#,
        "\n",
        r#"{"type":"turn.completed","usage":{"input_tokens":15,"cached_input_tokens":4,"output_tokens":3}}"#
    );
    let run = Run::new(json!({
        "binary": "/bin/sh", "argsTemplate": ["-c", "printf '%s' \"$1\"", "sh", "{{ inputs.lines }}"],
        "usage": {"parser": "codex-json"},
    }))
    .with(|s| s["inputs"] = json!({"lines": lines}));
    let ran = run.run();
    let report = ran.succeeded();
    let usage = report.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.cached_tokens, usage.output_tokens), (Some(15), Some(4), Some(3)));
    assert_eq!(report.conversation.as_deref(), Some("t-1"));
}

#[test]
fn it_installs_a_copy_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("bin/agent-runner");
    for _ in 0..2 {
        let (code, _, err) = wait(Command::new(RUNNER).arg("install").arg(&target).spawn().unwrap());
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o755);
    let version = Command::new(&target).arg("--version").output().unwrap();
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("agent-runner "));
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    let (code, _, _) = wait(Command::new(RUNNER).args(["install", "/proc/nowhere/x"]).spawn().unwrap());
    assert_eq!(code, 70);
    let (code, _, _) = wait(Command::new(RUNNER).args(["--nonsense"]).stderr(Stdio::null()).spawn().unwrap());
    assert_eq!(code, 64);
}

#[test]
fn a_full_disk_costs_output_and_never_the_report() {
    if common::lacks_root(common::can_unshare(&["--mount"]), "a mount namespace of our own") {
        return;
    }
    let run = Run::shell(
        "yes 'to fill the disk' | head -c 8000000; echo end
         head -c 8000000 /dev/zero > filler; ls -l filler > /dev/null; exit 3",
    );
    let path = run.folder.path().join("spec.json");
    fs::write(&path, run.spec.to_string()).unwrap();
    let kept = run.folder.path().join("kept");
    // The mount ends with the namespace; what it held is copied before.
    let script = format!(
        "mount -t tmpfs -o size=2m none {workspace} && {RUNNER} {spec}; code=$?; cp -r {workspace}/.agent {kept}; exit $code",
        workspace = run.workspace("").display(),
        spec = path.display(),
        kept = kept.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env_remove("AGENT_RUNNER_ACTIVE").stdin(Stdio::null());
    let (code, _, err) = wait(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(code, 3, "{err}");
    let report: Report = serde_json::from_slice(&fs::read(kept.join("status.json")).unwrap()).unwrap();
    assert_eq!(report.reason.as_deref(), Some("ProviderExited"));
    let log = fs::read_to_string(kept.join("log.txt")).unwrap();
    assert!(log.len() <= 2 * 1024 * 1024 && log.contains("end\n"), "{}", log.len());
    let error = report.error.unwrap_or_default();
    assert!(error.contains("bytes of the output are not in the log: No space left"), "{error}");
}
