//! The process adapter: one local process per attempt, under a runner of its own, in a folder of its own.
//!
//! The runner belongs to no engine: it leads its own session, prints into a file and reports into a file. An engine
//! that is killed changes nothing for it, and the next engine finds it by the submission's name.
//!
//! | in the folder | runner | lock | means | `submit` | `status` |
//! |---|---|---|---|---|---|
//! | no folder | – | – | never submitted | claims, launches | Lost |
//! | no claim, or another's | – | – | not ours | Conflict | Lost |
//! | claim | – | free | the engine died before it launched, or the launcher before it recorded itself | launches | Lost |
//! | claim | – | held | a launcher is at work | waits for it | Pending |
//! | claim, cancel | – | free | cancelled before it started | nothing | Finished, `Cancelled` |
//! | start | lives | held | running | nothing | Running |
//! | start, cancel | lives | held | to be ended, and the runner does not know it yet | nothing | Running |
//! | start, cancel, signal | lives | held | ending | nothing | Stopping |
//! | start, report | gone | free | ended | nothing | Finished, with the report |
//! | start, report without the runner's key | gone | free | something else wrote it | nothing | Finished, `ReportLost` |
//! | start, any report | gone | held | something that the runner started is left | nothing | kills the rest; Stopping |
//! | start | gone | free | the runner was killed | nothing | Finished, `Lost` |
//! | start, broken | gone | free | the runner's program could not be executed | nothing | Finished, `StartFailed` |
//!
//! Why each step survives a crash in its middle:
//! - *claim*: the folder is prepared elsewhere and appears by one `rename`, whole or not at all.
//! - *launch*: any number of launchers may be started. The lock admits one at a time, and only one that finds no record
//!   of a start may write it; the record is on disk before the runner is executed. So there is at most one execution,
//!   and without the record there was none.
//! - *cancel*: the wish is on disk before anything is signalled. The launcher looks for it after it has recorded
//!   itself, the canceller looks for the record after it has written the wish: one of them sees the other. What lives and
//!   has no record of a signal is not called ending, so whoever wants its end cancels again.
//!
//! A report is the runner's when it repeats a key that only the runner was given, in its environment: a provider is a
//! process of the same user and may write the file, and may kill its runner. The launcher records the key's digest with
//! the start, where the next engine finds it. The engine that launched goes by its own memory, because the provider may
//! write that record too.
//!
//! Needs `/proc`: processes are identified by pid, start time and boot.

mod folder;
mod identity;
pub mod launch;
mod secrets;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use agents_core::{
    api::runtime::RuntimeKind,
    plan::{RunnerSpec, digest, runner_spec::Roots},
    report::KEY_VARIABLE,
    runtime::{Observation, RuntimeRef, Submission},
};
use async_trait::async_trait;
use jiff::Timestamp;
use nix::{errno::Errno, sys::signal::Signal};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
    task::spawn_blocking,
};

use self::{
    folder::{Claim, Claiming, Folder, ReportFile, Started},
    state::{Facts, State},
};
pub use self::{
    identity::ProcessIdentity,
    secrets::{NoSecrets, SecretSource, SecretValue},
};
use crate::{
    adapter::{AdapterError, Capabilities, Class, Grace, RuntimeAdapter},
    lines::cut_at,
    shortage,
};

/// How long a launcher may take to record itself.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(15);
/// What the runner gets on top of the grace it gives the provider, before it is killed itself.
const RUNNER_GRACE: Duration = Duration::from_secs(5);
/// Between two looks at a runner that was asked to end.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// Most bytes read of the line a launcher says.
const MAX_LINE: u64 = 4096;
/// Most bytes of it that are passed on.
const MAX_TOLD: usize = 4000;

/// A program with its first arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Arguments before those we append.
    pub args: Vec<OsString>,
}

/// What the adapter is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that holds one folder per submission; created when absent.
    pub root: PathBuf,
    /// A program that calls [`launch::main`] with the arguments we append.
    pub launcher: CommandLine,
    /// The runner; the path of its spec is appended.
    pub runner: CommandLine,
    /// Values of secret variables.
    pub secrets: Arc<dyn SecretSource>,
}

/// Runs attempts as local processes. Two adapters share nothing but the folder.
#[derive(Debug, Clone)]
pub struct ProcessAdapter {
    /// Digests of the keys of reports, of submissions launched here whose end was not seen yet.
    proofs: Arc<Mutex<BTreeMap<PathBuf, String>>>,
    /// Folders of submissions that were cancelled here and are ended by force in the end.
    told: Arc<Mutex<BTreeSet<PathBuf>>>,
    root: PathBuf,
    launcher: CommandLine,
    runner: CommandLine,
    secrets: Arc<dyn SecretSource>,
}

/// Where the parts of a submission lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// What the runner and the provider printed.
    pub output: PathBuf,
    /// What `/workspace` stands for.
    pub workspace: PathBuf,
    /// What `/root` stands for; also the provider's `HOME`.
    pub home: PathBuf,
}

impl ProcessAdapter {
    /// An adapter on `options.root`.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn new(options: Options) -> io::Result<Self> {
        let Options { root, launcher, runner, secrets } = options;
        DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        let root = fs::canonicalize(root)?;
        folder::sweep(&root)?;
        shortage::most_files();
        Ok(Self { proofs: Arc::default(), told: Arc::default(), root, launcher, runner, secrets })
    }

    /// Where the parts of a submission lie, whether or not it was submitted.
    pub fn places(&self, reference: &RuntimeRef) -> Places {
        let folder = Folder::of(&self.root, &reference.name);
        Places { output: folder.output(), workspace: folder.workspace(), home: folder.home() }
    }

    fn folder(&self, reference: &RuntimeRef) -> Folder {
        Folder::of(&self.root, &reference.name)
    }

    fn secrets_of(&self, submission: &Submission) -> Result<Vec<(String, SecretValue)>, AdapterError> {
        let mut values = Vec::new();
        for wanted in &submission.secret_env {
            match self.secrets.value(&submission.namespace, wanted) {
                Some(value) => values.push((wanted.name.clone(), value)),
                None if wanted.optional == Some(true) => {}
                None => {
                    return Err(AdapterError::secret_missing(format!(
                        "the secret variable {} has no value: {}",
                        wanted.name,
                        self.secrets.why_none(&submission.namespace, wanted)
                    )));
                }
            }
        }
        Ok(values)
    }

    /// What is known of a submission, see [`facts`].
    fn look(&self, folder: &Folder, claim: Claim) -> io::Result<State> {
        let known = || self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = known().get(folder.path()).cloned();
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).contains(folder.path());
        let state = facts(folder, claim, proof.as_deref(), told)?.state();
        if matches!(state, State::Ended(_)) {
            known().remove(folder.path());
        }
        Ok(state)
    }

    async fn launch(&self, folder: &Folder, secrets: &[(String, SecretValue)]) -> Result<(), AdapterError> {
        let mut command = Command::new(&self.launcher.program);
        command
            .args(&self.launcher.args)
            .arg(folder.path())
            .arg(&self.runner.program)
            .args(&self.runner.args)
            .current_dir(folder.workspace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // An engine started by an agent must not pass that agent's identity on.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AGENT_") || name.starts_with("WORKFLOW_")) {
                command.env_remove(name);
            }
        }
        command.env("HOME", folder.home());
        let key = report_key().map_err(|error| internal("no key can be made for the report", error))?;
        command.env(KEY_VARIABLE, &key);
        for (name, value) in secrets {
            command.env(name, value.reveal());
        }
        let mut child = command.spawn().map_err(|error| not_spawned(&self.launcher.program, error))?;
        let mut line = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let mut reader = BufReader::new(stdout.take(MAX_LINE));
            let read = tokio::time::timeout(LAUNCH_PATIENCE, reader.read_until(b'\n', &mut line)).await;
            match read {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(internal("cannot read from the launcher", error)),
                Err(_) => return Err(AdapterError::unavailable("the launcher says nothing")),
            }
        }
        let line = String::from_utf8_lossy(&line[..cut_at(&line, MAX_TOLD)]);
        // The child is not waited for: it becomes the runner, and tokio reaps what was dropped.
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        match word {
            launch::BEGUN => {
                let mut known = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(folder.path().to_owned(), digest::sha256(key.as_bytes()));
                Ok(())
            }
            launch::FOUND | launch::CANCELLED => Ok(()),
            launch::FAILED => Err(AdapterError::unavailable(format!("the runner was not started: {rest}"))),
            _ => Err(AdapterError::unavailable("the launcher ended before it started the runner")),
        }
    }
}

#[async_trait]
impl RuntimeAdapter for ProcessAdapter {
    fn runtime(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            pushes: false,
            poll_interval: Duration::from_millis(100),
            garbage_collected: false,
            has_pod: false,
        }
    }

    async fn submit(&self, submission: &Submission) -> Result<RuntimeRef, AdapterError> {
        let reference = RuntimeRef {
            runtime: RuntimeKind::Process,
            namespace: submission.namespace.clone(),
            name: submission.name.clone(),
            owner_uid: submission.key.uid.clone(),
            uid: None,
        };
        let folder = self.folder(&reference);
        let spec = placed(&submission.spec, &folder)?;
        let secrets = self.secrets_of(submission);
        // Nothing is claimed for what cannot start; what has started needs its secrets no more.
        let secrets = match secrets {
            Err(missing) if !folder.is_there() => return Err(missing),
            other => other,
        };
        let (claimed, state) = blocking({
            let (adapter, folder, submission) = (self.clone(), folder.clone(), submission.clone());
            move || {
                let claimed = folder.take(&submission, &spec, Timestamp::now())?;
                let state = match &claimed {
                    Claiming::Ours(claim) => Some(adapter.look(&folder, claim.clone())?),
                    Claiming::Taken(_) => None,
                };
                Ok((claimed, state))
            }
        })
        .await?;
        if let Claiming::Taken(by) = claimed {
            return Err(AdapterError::conflict(by));
        }
        match state {
            // A launcher at work may be about to die: a second one waits for the lock and does what is left to do.
            Some(State::Claimed | State::Launching) => self.launch(&folder, &secrets?).await?,
            Some(State::Running(_) | State::Stopping | State::Leftovers(_) | State::Ended(_)) | None => {}
        }
        Ok(reference)
    }

    async fn status(&self, reference: &RuntimeRef) -> Result<Observation, AdapterError> {
        let folder = self.folder(reference);
        let (adapter, owner) = (self.clone(), reference.owner_uid.clone());
        blocking(move || {
            let Some(claim) = readable(folder.claim())?.filter(|claim| claim.key.uid == owner) else {
                return Ok(Observation::Lost);
            };
            let state = adapter.look(&folder, claim.clone())?;
            if let State::Leftovers(started) = &state {
                kill_all(&folder, &claim, started)?;
            }
            Ok(state.observation(&claim))
        })
        .await
    }

    async fn cancel(&self, reference: &RuntimeRef, grace: Grace) -> Result<(), AdapterError> {
        let folder = self.folder(reference);
        let owner = reference.owner_uid.clone();
        let left = blocking({
            let (adapter, folder, told) = (self.clone(), folder.clone(), Arc::clone(&self.told));
            move || {
                let Some(claim) = readable(folder.claim())?.filter(|claim| claim.key.uid == owner) else {
                    return Ok(None);
                };
                match adapter.look(&folder, claim.clone())? {
                    State::Ended(_) => return Ok(None),
                    State::Claimed | State::Launching | State::Running(_) | State::Stopping | State::Leftovers(_) => {}
                }
                let recorded = folder.record_cancel(Timestamp::now());
                // Without a record the launcher, if there is one, finds the wish.
                let Some(started) = folder.started()? else {
                    return recorded.map(|()| None);
                };
                if grace.0.is_zero() {
                    kill_all(&folder, &claim, &started)?;
                    return recorded.map(|()| None);
                }
                // Once is enough. An engine that dies before it has recorded that is followed by one that does it again, so the
                // signal is one that ends no grace the second time.
                if told.lock().unwrap_or_else(PoisonError::into_inner).contains(folder.path()) {
                    return Ok(None);
                }
                if !folder.signalled()? {
                    if !started.process.signal(Signal::SIGUSR1)? {
                        kill_all(&folder, &claim, &started)?;
                        return recorded.map(|()| None);
                    }
                    // A full disk is no reason for what was cancelled to go on; only another engine would not know.
                    if let Err(error) = recorded.and_then(|()| folder.record_signalled(Timestamp::now())) {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot record that it was cancelled");
                    }
                }
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.path().to_owned());
                Ok(Some((claim, started)))
            }
        })
        .await?;
        if let Some((claim, started)) = left {
            tokio::spawn(end_by_force(folder, claim, started, grace.0 + RUNNER_GRACE));
        }
        Ok(())
    }
}

/// Should this engine die while it waits, the next one cancels again, since the run's status says that it must.
async fn end_by_force(folder: Folder, claim: Claim, started: Started, after: Duration) {
    let until = Instant::now() + after;
    while Instant::now() < until {
        match started.process.is_alive() {
            Ok(true) => tokio::time::sleep(CANCEL_POLL).await,
            Ok(false) => break,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot see whether the runner lives");
                tokio::time::sleep(CANCEL_POLL).await;
            }
        }
    }
    let killed = blocking(move || kill_all(&folder, &claim, &started)).await;
    if let Err(error) = killed {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot end what is left of a submission");
    }
}

fn kill_all(folder: &Folder, claim: &Claim, started: &Started) -> io::Result<usize> {
    identity::kill_all(identity::Marks {
        leader: &started.process,
        lock: &folder.lock(),
        variables: &[("AGENT_RUN_UID", claim.key.uid.clone()), ("AGENT_ATTEMPT", claim.key.attempt.to_string())],
    })
}

/// A key that nobody guesses.
fn report_key() -> io::Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(digest::hexadecimal(&bytes))
}

/// Reads what is known, in the order that makes it consistent: once the runner is seen gone, its report is final.
/// `proof` is the digest of the report's key where this engine knows it; else the record of the start has it. `told` is
/// whether this engine sent the signal to end; else there is a record of it.
fn facts(folder: &Folder, claim: Claim, proof: Option<&str>, told: bool) -> io::Result<Facts> {
    let cancelled = folder.cancelled()?;
    // The lock comes before the record: a launcher that let go of it has recorded itself or never will.
    let mut locked = folder.is_locked()?;
    let started = folder.started()?;
    let signalled = told || cancelled.is_some() && folder.signalled()?;
    let runner_alive = match &started {
        Some(started) => started.process.is_alive()?,
        None => false,
    };
    let (broken, report) = match &started {
        Some(started) if !runner_alive => {
            locked = folder.is_locked()?;
            let proof = proof.unwrap_or(&started.proof_digest);
            (folder.broken()?, folder.report(&claim.key, proof)?)
        }
        Some(_) | None => (None, ReportFile::Absent),
    };
    let last_sign = folder.last_sign()?;
    Ok(Facts { claim, cancelled, signalled, started, runner_alive, locked, broken, report, last_sign })
}

/// The spec as this runner gets it: the well-known folders are folders of the submission.
fn placed(spec: &RunnerSpec, folder: &Folder) -> Result<RunnerSpec, AdapterError> {
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| AdapterError::rejected(format!("{} is not UTF-8: choose another folder", path.display())))
    };
    let mut spec = spec.clone();
    spec.roots = Some(Roots { workspace: text(&folder.workspace())?, home: text(&folder.home())? });
    Ok(spec)
}

/// A claim that cannot be read is not ours.
fn readable(claim: io::Result<Option<Claim>>) -> io::Result<Option<Claim>> {
    match claim {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        other => other,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, AdapterError> {
    match spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(internal("cannot use the submission's folder", error)),
        Err(error) => {
            Err(AdapterError::unavailable("the work on the submission's folder ended abnormally").because(error))
        }
    }
}

/// A launcher that did not start. Only what is wrong with the program itself is for good.
fn not_spawned(program: &Path, error: io::Error) -> AdapterError {
    let what = format!("cannot start {}", program.display());
    let is_for_good = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::ArgumentListTooLong
            | io::ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(Errno::ENOEXEC as i32);
    if is_for_good {
        return AdapterError::rejected(format!("{what}: {error}")).because(error);
    }
    internal(&what, error)
}

fn internal(what: &str, error: io::Error) -> AdapterError {
    if let Some(lack) = shortage::of(&error) {
        return AdapterError::unavailable(format!("{what}: {lack}")).because(error);
    }
    let mut failed = AdapterError::unavailable(format!("{what}: {error}"));
    let waits = matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
    );
    if waits {
        // Repeating does not help before somebody makes room or gives permission.
        failed = failed.with_class(Class::WaitForChange);
    }
    failed.because(error)
}
