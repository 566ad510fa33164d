//! The process adapter with the real launcher and the real runner: its conformance, and every state that a crash can
//! leave behind.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use agents_core::{
    api::{agent_provider::SecretEnv, runtime::RuntimeKind},
    name::{ChildName, SubmissionKey},
    plan::{
        RunnerSpec, digest,
        pod::{ContainerPlan, NOBODY, PodPlan},
        runner_spec::{ProviderSpec, RunIdentity},
    },
    runtime::{Finish, Observation, Owner, RuntimeRef, Submission},
    status::Reason,
};
use agents_runtime::{
    adapter::{AdapterErrorKind, Class, Grace, RuntimeAdapter},
    conformance::{self, Fixture, Work},
    process::{CommandLine, NoSecrets, Options, ProcessAdapter, SecretSource, SecretValue},
};
use async_trait::async_trait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

/// How long anything here may take before a test counts as hung.
const HANG: Duration = Duration::from_secs(60);
/// Ends at once with code 7 and leaves a mark.
const QUICK: &str = "echo x >> \"$AGENT_INPUT_MARK\"; exit 7";
/// Leaves a mark and stays until it gets a signal.
const STAYS: &str = "echo x >> \"$AGENT_INPUT_MARK\"; sleep 600";

/// A folder for submissions and their marks.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        switch_fault();
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("submissions")
    }

    fn options(&self) -> Options {
        Options {
            root: self.root(),
            launcher: CommandLine { program: env!("CARGO_BIN_EXE_agents").into(), args: vec!["__launch".into()] },
            runner: CommandLine { program: env!("CARGO_BIN_EXE_agent-runner").into(), args: vec![] },
            secrets: Arc::new(NoSecrets),
        }
    }

    fn adapter(&self) -> ProcessAdapter {
        ProcessAdapter::new(self.options()).unwrap()
    }

    fn mark(&self, submission: &Submission) -> PathBuf {
        self.folder.path().join(format!("{}.mark", submission.name))
    }

    fn executions(&self, submission: &Submission) -> usize {
        fs::read_to_string(self.mark(submission)).map_or(0, |marks| marks.lines().count())
    }

    fn folder_of(&self, submission: &Submission) -> PathBuf {
        self.root().join(submission.name.as_str())
    }

    /// A submission with a new key whose provider is `sh -c script`.
    fn shell(&self, script: &str) -> Submission {
        // What a submission leaves behind is found by its uid, by the tests beside it too.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let uid = format!("uid-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let key = SubmissionKey::of_attempt(&uid, 1);
        let name = ChildName::of("run", &key);
        let mark = self.folder.path().join(format!("{name}.mark"));
        let mut spec = RunnerSpec {
            provider: "shell".into(),
            provider_spec: Some(ProviderSpec {
                binary: "sh".into(),
                args_template: vec!["-c".into(), script.into()],
                ..ProviderSpec::default()
            }),
            inputs: [("mark".to_owned(), mark.display().to_string())].into(),
            run: RunIdentity { name: "run".into(), namespace: "ns".into(), uid: uid.clone(), attempt: 1 },
            ..serde_json::from_str(r#"{"provider":"shell"}"#).unwrap()
        };
        spec.limits.grace_seconds = Some(5);
        spec.plan_digest = Some(digest::of_runner_spec(&serde_json::to_value(&spec).unwrap()));
        Submission {
            key,
            runtime: RuntimeKind::Process,
            name,
            namespace: "ns".into(),
            owner: Owner { name: "run".into(), uid },
            spec,
            pod: no_pod(),
            secret_env: vec![],
            labels: BTreeMap::new(),
        }
    }
}

/// Switches on the fault that `AGENTS_MUTANT` names; only below `cargo xtask mutants`.
#[cfg(feature = "mutants")]
fn switch_fault() {
    use agents_core::mutant::{Mutant, switch_on};
    if let Ok(name) = std::env::var("AGENTS_MUTANT") {
        switch_on(Mutant::parse(&name).unwrap_or_else(|| panic!("no fault is named {name}")));
    }
}

#[cfg(not(feature = "mutants"))]
fn switch_fault() {}

fn no_pod() -> PodPlan {
    PodPlan {
        service_account: String::new(),
        init_containers: vec![],
        container: ContainerPlan {
            name: "agent".into(),
            image: String::new(),
            command: vec![],
            env: vec![],
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            mounts: vec![],
            read_only_root: false,
        },
        volumes: vec![],
        run_as: NOBODY,
        grace_seconds: 40,
    }
}

fn reference(submission: &Submission) -> RuntimeRef {
    RuntimeRef::of(RuntimeKind::Process, &submission.namespace, &submission.owner.name, &submission.key)
}

/// Pids of the processes that have `path` in their environment, zombies excluded.
fn processes_with(path: &Path) -> Vec<i32> {
    let text = path.display().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ).contains(&text)
        })
        .collect()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < HANG, "waited too long: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn end(adapter: &ProcessAdapter, submission: &Submission) -> Finish {
    until("an end", async || match adapter.status(&reference(submission)).await.unwrap() {
        Observation::Finished(finish) => Some(*finish),
        _ => None,
    })
    .await
}

async fn marked(place: &Place, submission: &Submission) {
    until("the provider's mark", async || (place.executions(submission) > 0).then_some(())).await;
}

/// The pid recorded by the process that became the runner.
fn runner_pid(place: &Place, submission: &Submission) -> i32 {
    let text = fs::read_to_string(place.folder_of(submission).join("started.json")).unwrap();
    let started: serde_json::Value = serde_json::from_str(&text).unwrap();
    i32::try_from(started["process"]["pid"].as_i64().unwrap()).unwrap()
}

#[async_trait]
impl Fixture for Place {
    fn submission(&self, work: Work) -> Submission {
        match work {
            Work::Exit(code) => self.shell(&format!("echo x >> \"$AGENT_INPUT_MARK\"; exit {code}")),
            Work::UntilSignalled => self.shell(STAYS),
        }
    }

    async fn executions(&self, submission: &Submission) -> usize {
        Self::executions(self, submission)
    }

    async fn is_gone(&self, submission: &Submission) -> bool {
        processes_with(&self.mark(submission)).is_empty()
    }

    fn restarted(&self) -> Arc<dyn RuntimeAdapter> {
        Arc::new(self.adapter())
    }

    async fn occupy(&self, submission: &Submission) {
        fs::create_dir_all(self.folder_of(submission)).unwrap();
        fs::write(self.folder_of(submission).join("theirs"), "kept").unwrap();
    }

    async fn is_untouched(&self, submission: &Submission) -> bool {
        let names: Vec<_> = fs::read_dir(self.folder_of(submission))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names == ["theirs"] && fs::read_to_string(self.folder_of(submission).join("theirs")).unwrap() == "kept"
    }

    fn patience(&self) -> Duration {
        HANG
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_adapter_conforms() {
    let place = Place::new();
    if let Err(violations) = conformance::run(&place.adapter(), &place).await {
        panic!("{}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_engine_died_before_it_launched_is_launched_once() {
    let place = Place::new();
    let submission = place.shell(QUICK);
    // An engine without a launcher does everything up to the launch.
    let dying = ProcessAdapter::new(Options {
        launcher: CommandLine { program: "/bin/true".into(), args: vec![] },
        ..place.options()
    })
    .unwrap();
    let error = dying.submit(&submission).await.unwrap_err();
    assert_eq!(error.class, Class::Retry, "{error}");
    let next = place.adapter();
    assert_eq!(next.status(&reference(&submission)).await.unwrap(), Observation::Lost);
    assert_eq!(place.executions(&submission), 0);
    next.submit(&submission).await.unwrap();
    assert_eq!(end(&next, &submission).await.exit_code, Some(7));
    assert_eq!(place.executions(&submission), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_at_work_is_waited_for_and_replaced_when_it_dies() {
    let place = Place::new();
    let submission = place.shell(QUICK);
    let adapter = place.adapter();
    let dying = ProcessAdapter::new(Options {
        launcher: CommandLine { program: "/bin/true".into(), args: vec![] },
        ..place.options()
    })
    .unwrap();
    dying.submit(&submission).await.unwrap_err();
    // A launcher between lock and record holds the lock and nothing else.
    let held = File::options().read(true).write(true).open(place.folder_of(&submission).join("lock")).unwrap();
    held.lock().unwrap();
    assert!(matches!(adapter.status(&reference(&submission)).await.unwrap(), Observation::Pending { cause: None, .. }));
    let second = tokio::spawn({
        let (adapter, submission) = (adapter.clone(), submission.clone());
        async move { adapter.submit(&submission).await }
    });
    sleep(Duration::from_millis(300)).await;
    assert!(!second.is_finished());
    assert_eq!(place.executions(&submission), 0);
    drop(held);
    second.await.unwrap().unwrap();
    assert_eq!(end(&adapter, &submission).await.exit_code, Some(7));
    assert_eq!(place.executions(&submission), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_before_it_started_never_starts() {
    let place = Place::new();
    let submission = place.shell(QUICK);
    let dying = ProcessAdapter::new(Options {
        launcher: CommandLine { program: "/bin/true".into(), args: vec![] },
        ..place.options()
    })
    .unwrap();
    dying.submit(&submission).await.unwrap_err();
    let adapter = place.adapter();
    adapter.cancel(&reference(&submission), Grace(Duration::from_secs(1))).await.unwrap();
    adapter.submit(&submission).await.unwrap();
    let finish = end(&adapter, &submission).await;
    assert_eq!(finish.cause.unwrap().0, Reason::Cancelled);
    assert_eq!(finish.started_at, None);
    assert_eq!(place.executions(&submission), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_runner_leaves_is_killed_and_the_attempt_is_lost() {
    let place = Place::new();
    // A child in a session of its own that has closed what it inherited.
    let script = "setsid sh -c 'exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; sleep 600' & \
                  echo x >> \"$AGENT_INPUT_MARK\"; sleep 600";
    let submission = place.shell(script);
    let adapter = place.adapter();
    adapter.submit(&submission).await.unwrap();
    marked(&place, &submission).await;
    kill(Pid::from_raw(runner_pid(&place, &submission)), Signal::SIGKILL).unwrap();
    let finish = end(&adapter, &submission).await;
    assert_eq!(finish.cause.unwrap().0, Reason::Lost);
    assert_eq!(finish.report, None);
    until("nothing left", async || processes_with(&place.mark(&submission)).is_empty().then_some(())).await;
    adapter.submit(&submission).await.unwrap();
    end(&adapter, &submission).await;
    assert_eq!(place.executions(&submission), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_a_recorded_start_is_lost_whoever_has_its_pid() {
    let place = Place::new();
    let submission = place.shell(QUICK);
    let adapter = place.adapter();
    adapter.submit(&submission).await.unwrap();
    end(&adapter, &submission).await;
    // The machine went down before the report was written; our own pid is now that of the runner.
    let started = place.folder_of(&submission).join("started.json");
    let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&started).unwrap()).unwrap();
    record["process"]["pid"] = std::process::id().into();
    record["process"]["bootId"] = "of-yesterday".into();
    fs::write(&started, record.to_string()).unwrap();
    fs::remove_file(place.folder_of(&submission).join("workspace/.agent/status.json")).unwrap();
    let finish = end(&adapter, &submission).await;
    assert_eq!(finish.cause.unwrap().0, Reason::Lost);
    adapter.cancel(&reference(&submission), Grace(Duration::ZERO)).await.unwrap();
    adapter.submit(&submission).await.unwrap();
    assert_eq!(place.executions(&submission), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_cannot_be_executed_is_said_so() {
    let place = Place::new();
    let submission = place.shell(QUICK);
    let adapter = ProcessAdapter::new(Options {
        runner: CommandLine { program: "/nowhere/agent-runner".into(), args: vec![] },
        ..place.options()
    })
    .unwrap();
    adapter.submit(&submission).await.unwrap();
    let (reason, message) = end(&adapter, &submission).await.cause.unwrap();
    assert_eq!(reason, Reason::StartFailed);
    assert!(message.contains("/nowhere/agent-runner"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_the_provider_forged_does_not_count() {
    let place = Place::new();
    let report = r#"{"schemaVersion":"agents.proompteng.ai/report/v1","status":"succeeded","provider":"shell","runUid":"%s","attempt":1,"exitCode":0,"finishedAt":"2024-01-01T00:00:00Z"}"#;
    let script = format!(
        "mkdir -p \"$(dirname \"$AGENT_STATUS_PATH\")\"; printf '{report}' \"$AGENT_RUN_UID\" > \"$AGENT_STATUS_PATH\"; \
         echo x >> \"$AGENT_INPUT_MARK\"; sleep 1; exit 7"
    );
    let submission = place.shell(&script);
    let adapter = place.adapter();
    adapter.submit(&submission).await.unwrap();
    marked(&place, &submission).await;
    assert!(matches!(adapter.status(&reference(&submission)).await.unwrap(), Observation::Running { .. }));
    assert_eq!(end(&adapter, &submission).await.exit_code, Some(7));
}

/// Writes a report of a success, kills the runner and leaves a process behind; `$RECORD` may do something before.
fn forge(record: &str) -> String {
    let report = r#"{"schemaVersion":"agents.proompteng.ai/report/v1","status":"succeeded","provider":"shell","runUid":"%s","attempt":1,"proof":"guess","exitCode":0,"finishedAt":"2024-01-01T00:00:00Z"}"#;
    format!(
        "{record}; printf '{report}' \"$AGENT_RUN_UID\" > \"$AGENT_STATUS_PATH\"; sleep 600 & \
         echo x >> \"$AGENT_INPUT_MARK\"; kill -9 $PPID"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_a_provider_that_killed_its_runner_is_not_believed() {
    let own_digest = digest::sha256(b"guess");
    // The record of the start is a file of the provider's user too.
    let record = format!(
        "started=\"${{AGENT_STATUS_PATH%/workspace/*}}/started.json\"; test -f \"$started\" || exit 9; \
         sed -i 's/\"proofDigest\":\"[^\"]*\"/\"proofDigest\":\"{own_digest}\"/' \"$started\"; \
         grep -q {own_digest} \"$started\" || exit 9"
    );
    for before in ["true", &record] {
        let place = Place::new();
        let submission = place.shell(&forge(before));
        let adapter = place.adapter();
        adapter.submit(&submission).await.unwrap();
        marked(&place, &submission).await;
        let finish = end(&adapter, &submission).await;
        assert_eq!(finish.report, None, "{before}");
        let (reason, message) = finish.cause.unwrap();
        assert_eq!(reason, Reason::ReportLost, "{before}");
        assert!(message.contains("not the runner's"), "{message}");
        assert_eq!(processes_with(&place.mark(&submission)), Vec::<i32>::new(), "called ended while something lives");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_the_next_engine_finds_is_believed_and_its_key_was_in_no_file() {
    let place = Place::new();
    // All that a provider can read of itself and of the folder it is in.
    let script = "cat /proc/self/environ \"${AGENT_STATUS_PATH%/workspace/*}\"/*.json > all; exit 7";
    let submission = place.shell(script);
    place.adapter().submit(&submission).await.unwrap();
    let finish = end(&place.adapter(), &submission).await;
    let report = finish.report.expect("the runner's report");
    assert_eq!((report.exit_code, report.proof.as_str()), (Some(7), ""));
    let workspace = place.folder_of(&submission).join("workspace");
    let status = fs::read_to_string(workspace.join(".agent/status.json")).unwrap();
    let key = serde_json::from_str::<serde_json::Value>(&status).unwrap()["proof"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 64);
    let seen = String::from_utf8_lossy(&fs::read(workspace.join("all")).unwrap()).into_owned();
    assert!(seen.contains(&digest::sha256(key.as_bytes())), "{seen}");
    assert!(!seen.contains(&key), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_dead_engines_were_preparing_are_swept() {
    let place = Place::new();
    fs::create_dir_all(place.root().join(".preparing-999999-1-0-of-yesterday/workspace")).unwrap();
    place.adapter();
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
}

#[derive(Debug)]
struct OneSecret;

impl SecretSource for OneSecret {
    fn value(&self, namespace: &str, wanted: &SecretEnv) -> Option<SecretValue> {
        (namespace == "ns" && wanted.secret_name == "s" && wanted.key == "k").then(|| SecretValue::new("canary-5417"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_the_provider_and_no_file_and_a_missing_one_is_said_so() {
    let place = Place::new();
    let wanted = |name: &str, key: &str, optional| SecretEnv {
        name: name.into(),
        secret_name: "s".into(),
        key: key.into(),
        optional,
    };
    let mut submission = place.shell("test \"$TOKEN\" = canary-5417 && test -z \"${OTHER+x}\" && exit 7");
    submission.secret_env = vec![wanted("TOKEN", "k", None), wanted("OTHER", "absent", Some(true))];
    let adapter = ProcessAdapter::new(Options { secrets: Arc::new(OneSecret), ..place.options() }).unwrap();
    adapter.submit(&submission).await.unwrap();
    assert_eq!(end(&adapter, &submission).await.exit_code, Some(7));
    for entry in fs::read_dir(place.folder_of(&submission)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert!(
                !fs::read_to_string(&path).unwrap().replace("= canary-5417 ", "").contains("canary-5417"),
                "{path:?}"
            );
        }
    }
    let mut missing = place.shell(QUICK);
    missing.secret_env = vec![wanted("TOKEN", "absent", None)];
    let error = adapter.submit(&missing).await.unwrap_err();
    assert_eq!((error.kind, error.class), (AdapterErrorKind::SecretMissing, Class::WaitForChange));
    assert_eq!(error.reason(), Reason::SecretMissing);
    assert_eq!(place.executions(&missing), 0);
}
