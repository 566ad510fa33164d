//! The published codex against the scripted model: what it does, prints and costs when the model answers, and when it
//! fails in each of the ways that a script can say.
//!
//! Each test that records compares with `tests/transcripts/codex/NAME.jsonl`, from which the usage parser is tested;
//! `RECORD_TRANSCRIPTS=1` writes those files anew.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use agents_tests::agents::codex_binary;
use agents_tests::model::{ModelServer, Outcome, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Far above what any of these runs needs; reached only by one that hangs.
const PATIENCE: Duration = Duration::from_secs(90);
const PROMPT: &str = "Add the review note.";

/// A git work tree and a home for one codex. Not under the system's temporary folder, where codex refuses to put its
/// helpers.
struct Lab {
    folder: TempDir,
    binary: PathBuf,
}

/// What one codex left.
struct Run {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Lab {
    fn new() -> Self {
        let binary = codex_binary().unwrap();
        let folder = tempfile::Builder::new().prefix("codex-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["home", "codex", "repo"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let lab = Self { folder, binary };
        lab.git(&["init", "--quiet", "--initial-branch=main"]);
        let author = ["-c", "user.name=Author", "-c", "user.email=author@example.invalid"];
        lab.git(&[&author[..], &["commit", "--quiet", "--allow-empty", "--message=Begin"]].concat());
        lab
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new("git").args(arguments).current_dir(self.repo()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn log(&self) -> Vec<String> {
        self.git(&["log", "--format=%an: %s"]).lines().map(str::to_owned).collect()
    }

    /// Starts codex as a pod would: an environment of its own, everything else from the configuration file.
    fn spawn(&self, url: &str, model: &str, arguments: &[&str]) -> Child {
        let config = format!(
            "model = {model:?}\n\
             model_provider = \"scripted\"\n\
             check_for_update_on_startup = false\n\
             [model_providers.scripted]\n\
             name = \"scripted\"\n\
             base_url = {url:?}\n\
             wire_api = \"responses\"\n\
             env_key = \"OPENAI_API_KEY\"\n\
             request_max_retries = 1\n\
             stream_max_retries = 1\n\
             stream_idle_timeout_ms = 4000\n\
             [shell_environment_policy]\n\
             exclude = [\"OPENAI_API_KEY\"]\n\
             [analytics]\n\
             enabled = false\n\
             [features]\n\
             plugins = false\n\
             unbounded_connection_retries = false\n"
        );
        std::fs::write(self.folder.path().join("codex/config.toml"), config).unwrap();
        Command::new(&self.binary)
            .arg("exec")
            .args(arguments)
            .args(["--json", "--dangerously-bypass-approvals-and-sandbox", PROMPT])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path().join("home"))
            .env("CODEX_HOME", self.folder.path().join("codex"))
            .env("OPENAI_API_KEY", "sk-canary")
            .current_dir(self.repo())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn run(&self, url: &str, model: &str, arguments: &[&str]) -> Run {
        let child = self.spawn(url, model, arguments);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("codex ends").unwrap();
        Run {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Compares what codex printed with the recorded transcript, or records it. What differs from run to run is
    /// replaced: paths, the port, the thread's id, the person's shell.
    fn transcript(&self, name: &str, server: &ModelServer, run: &Run) {
        let mut commands = run.events("item.started").into_iter().map(|event| event["item"]["command"].clone());
        let shell = commands.find_map(|line| Some(line.as_str()?.split_once(" -lc ")?.0.to_owned()));
        let actual = run
            .stdout
            .replace(&format!("{} -lc ", shell.as_deref().unwrap_or("/bin/sh")), "/bin/sh -lc ")
            .replace(&self.repo().display().to_string(), "/workspace/repo")
            .replace(&self.folder.path().display().to_string(), "/workspace")
            .replace(&server.address().to_string(), "model.example.invalid")
            .replace(&run.thread(), "01900000-0000-7000-8000-000000000000");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("transcripts/codex/{name}.jsonl"));
        if std::env::var_os("RECORD_TRANSCRIPTS").is_some() {
            std::fs::write(&path, &actual).unwrap();
        }
        let recorded = std::fs::read_to_string(&path).unwrap();
        assert_eq!(actual, recorded, "codex prints other lines than {}", path.display());
    }
}

impl Run {
    fn events(&self, kind: &str) -> Vec<Value> {
        let events = self.stdout.lines().map(|line| serde_json::from_str(line).expect(line));
        events.filter(|event: &Value| event["type"] == kind).collect()
    }

    /// The thread's id: what `resume` needs.
    fn thread(&self) -> String {
        self.events("thread.started")[0]["thread_id"].as_str().unwrap().to_owned()
    }

    /// The message of the failed turn; asserts that this is how codex ended.
    fn failure(&self) -> String {
        assert_eq!(self.status.code(), Some(1), "{}{}", self.stdout, self.stderr);
        assert!(self.events("turn.completed").is_empty(), "{}", self.stdout);
        let [failed] = &self.events("turn.failed")[..] else { panic!("one turn fails: {}", self.stdout) };
        failed["error"]["message"].as_str().unwrap().to_owned()
    }

    /// The usage of the completed turn; asserts that codex ended well.
    fn usage(&self) -> Value {
        assert_eq!(self.status.code(), Some(0), "{}{}", self.stdout, self.stderr);
        assert!(self.events("turn.failed").is_empty(), "{}", self.stdout);
        let [completed] = &self.events("turn.completed")[..] else { panic!("one turn ends: {}", self.stdout) };
        completed["usage"].clone()
    }
}

fn usage(input: u64, cached: u64, output: u64, reasoning: u64) -> Value {
    json!({
        "input_tokens": input,
        "cached_input_tokens": cached,
        "cache_write_input_tokens": 0,
        "output_tokens": output,
        "reasoning_output_tokens": reasoning,
    })
}

async fn serve(script: &str) -> ModelServer {
    ModelServer::start(Script::ready(script).unwrap()).await.unwrap()
}

fn outcomes(server: &ModelServer) -> Vec<Outcome> {
    server.requests().into_iter().map(|request| request.outcome).collect()
}

#[tokio::test]
async fn codex_edits_and_commits() {
    let (lab, server) = (Lab::new(), serve("edit-and-commit").await);
    let run = lab.run(&server.url(), "edit-and-commit", &[]).await;

    // The sums of the three answers: codex counts a turn over all its requests, cached input included.
    assert_eq!(run.usage(), usage(3900, 2500, 120, 24));
    assert_eq!(lab.log(), ["Scripted Agent: Add the review note", "Author: Begin"]);
    assert_eq!(lab.git(&["show", "HEAD:NOTES.md"]), "Reviewed by the agent.\n");
    assert_eq!(lab.git(&["status", "--short"]), "");
    lab.transcript("success", &server, &run);

    let requests = server.requests();
    assert_eq!(outcomes(&server), [Outcome::Turn, Outcome::Turn, Outcome::Turn]);
    assert!(requests.iter().all(|request| request.bearer && request.prompt.as_deref() == Some(PROMPT)));
    assert!(requests[1].outputs[0].output.contains("?? NOTES.md"), "{:?}", requests[1]);

    let resumed = lab.run(&server.url(), "edit-and-commit", &["resume", &run.thread()]).await;
    assert_eq!(resumed.thread(), run.thread());
    let said = &resumed.events("item.completed").pop().unwrap()["item"];
    assert_eq!(said["text"], "The note is committed; nothing is left to do.");
    // Over the whole thread, the former run included: what this run cost is the difference.
    assert_eq!(resumed.usage(), usage(5400, 3900, 130, 24));
    lab.transcript("resumed", &server, &resumed);
}

#[tokio::test]
async fn agents_in_parallel_do_not_disturb_each_other() {
    let server = serve("edit-and-commit").await;
    let labs: Vec<Lab> = (0..3).map(|_| Lab::new()).collect();
    let url = server.url_of("edit-and-commit");
    let runs = futures::future::join_all(labs.iter().map(|lab| lab.run(&url, "any-model", &[]))).await;
    for (lab, run) in labs.iter().zip(runs) {
        assert_eq!(run.usage(), usage(3900, 2500, 120, 24));
        assert_eq!(lab.log().len(), 2);
    }
    assert_eq!(outcomes(&server), vec![Outcome::Turn; 9]);
}

#[tokio::test]
async fn a_rejected_key_fails_the_turn() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "rejected-key", &[]).await;
    assert!(run.failure().contains("401 Unauthorized"), "{}", run.stdout);
    assert!(outcomes(&server).iter().all(|outcome| *outcome == Outcome::Unauthorized));
    lab.transcript("rejected-key", &server, &run);
}

#[tokio::test]
async fn an_exhausted_quota_fails_the_turn_at_once() {
    let server = serve("faults").await;
    for model in ["quota", "quota-in-stream"] {
        let lab = Lab::new();
        let run = lab.run(&server.url(), model, &[]).await;
        assert_eq!(run.failure(), "Quota exceeded. Check your plan and billing details.");
        if model == "quota" {
            lab.transcript("quota", &server, &run);
        }
    }
    assert_eq!(outcomes(&server), [Outcome::Fault("status"), Outcome::Fault("failed")], "nothing is asked twice");
}

#[tokio::test]
async fn a_rate_limit_is_retried_and_then_fails_the_turn() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "rate-limited", &[]).await;
    assert!(run.failure().contains("429 Too Many Requests"), "{}", run.stdout);
    assert!(server.requests().len() > 1);
    lab.transcript("rate-limited", &server, &run);
}

#[tokio::test]
async fn a_rate_limit_that_passes_leaves_a_success() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "rate-limited-once", &[]).await;
    assert_eq!(run.usage(), usage(900, 0, 9, 0));
    assert_eq!(outcomes(&server), [Outcome::Fault("status"), Outcome::Turn]);
    lab.transcript("rate-limited-once", &server, &run);
}

#[tokio::test]
async fn a_server_error_fails_the_turn() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "server-error", &[]).await;
    assert!(!run.failure().is_empty());
    assert!(outcomes(&server).iter().all(|outcome| *outcome == Outcome::Fault("status")));
    lab.transcript("server-error", &server, &run);
}

#[tokio::test]
async fn a_cut_stream_fails_the_turn_and_hides_its_usage() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "cut", &[]).await;
    assert!(run.failure().contains("stream disconnected before completion"), "{}", run.stdout);
    // The first answer was complete and did its work, but a failed turn prints no usage.
    assert_eq!(std::fs::read_to_string(lab.repo().join("half.txt")).unwrap(), "half\n");
    assert!(!run.stdout.contains("input_tokens"), "{}", run.stdout);
    let cut = Outcome::Fault("cut");
    assert_eq!(outcomes(&server), [Outcome::Turn, cut.clone(), cut]);
    lab.transcript("cut", &server, &run);
}

#[tokio::test]
async fn a_stream_cut_once_is_asked_for_again() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "cut-once", &[]).await;
    assert_eq!(run.usage(), usage(700, 0, 9, 0));
    assert_eq!(outcomes(&server), [Outcome::Fault("cut"), Outcome::Turn]);
    assert!(!run.events("error").is_empty(), "a success may hold error lines: {}", run.stdout);
}

#[tokio::test]
async fn a_slow_stream_is_waited_for_and_a_silent_one_is_not() {
    let server = serve("faults").await;
    let slow = Lab::new().run(&server.url(), "slow", &[]).await;
    assert_eq!(slow.usage(), usage(500, 0, 5, 0));
    let silent = Lab::new().run(&server.url(), "silent", &[]).await;
    assert!(silent.failure().contains("idle timeout"), "{}", silent.stdout);
}

#[tokio::test]
async fn no_endpoint_at_all_fails_the_turn() {
    let address = serve("faults").await.address();
    let run = Lab::new().run(&format!("http://{address}/v1"), "any", &[]).await;
    assert!(run.failure().contains("Connection failed"), "{}", run.stdout);
}

#[tokio::test]
async fn terminated_in_an_endless_stream_it_dies_of_the_signal() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let (status, stdout) = terminate_after(lab.spawn(&server.url(), "endless", &[]), "turn.started").await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32));
    assert!(!stdout.contains("turn.completed") && !stdout.contains("turn.failed"), "{stdout}");
}

#[tokio::test]
async fn terminated_while_a_tool_runs_it_dies_of_the_signal() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let (status, stdout) = terminate_after(lab.spawn(&server.url(), "hangs", &[]), "item.started").await;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGTERM as i32));
    assert!(!stdout.contains("turn.completed") && !stdout.contains("turn.failed"), "{stdout}");
}

#[tokio::test]
async fn a_child_in_a_session_of_its_own_outlives_it() {
    let (lab, server) = (Lab::new(), serve("faults").await);
    let run = lab.run(&server.url(), "straggler", &[]).await;
    assert_eq!(run.usage(), usage(810, 400, 8, 0));
    let items = run.events("item.completed");
    let command = items.iter().find(|event| event["item"]["type"] == "command_execution").unwrap();
    let pid: i32 = command["item"]["aggregated_output"].as_str().unwrap().trim().parse().unwrap();
    // Fails when there is no such process.
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("codex left its child alive");
}

/// Reads codex's output up to an event of this kind, sends SIGTERM and returns how it ended and all it printed.
async fn terminate_after(mut child: Child, kind: &str) -> (ExitStatus, String) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let ended = async {
        let mut text = String::new();
        while !text.contains(&format!("\"type\":\"{kind}\"")) {
            assert_ne!(stdout.read_line(&mut text).await.unwrap(), 0, "codex ended early: {text}");
        }
        let pid = child.id().expect("codex runs").try_into().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        let status = child.wait().await.unwrap();
        stdout.read_to_string(&mut text).await.unwrap();
        (status, text)
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("codex ends")
}
