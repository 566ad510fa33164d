//! One attempt, step by step: spec → files and checkout → provider → outputs → report.
//!
//! Whatever happens after the signals are listened to, processes are ended and a report is written.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agents_core::{
    api::agent_run::{OutputStatus, VcsStatus},
    exec,
    hidden::visible,
    plan::{RunnerSpec, runner_spec::OUTPUTS_DIR},
    report::{Ended, Report, SCHEMA_VERSION, exit},
    status::{Reason, cut, exit::INTERNAL},
};
use jiff::Timestamp;
use nix::unistd::{AccessFlags, access};
use thiserror::Error;

use super::{
    checkout::{Checkout, CheckoutError, Git},
    deliver::{self, Target, deliver},
    folder::{FileError, Missing, Obstacle, open_below, write_whole},
    log::Log,
    prepare::{self, PrepareError, Prepared, prepare},
    program::why_not_executed,
    redact::Secrets,
    spec::{self, Sources, SpecError, Verified},
    streams::Streams,
    supervise::{Ending, Interrupt, Supervisor},
    usage::{Found, UsageReader},
};
use crate::{causes::in_one_line, pipes};

/// How long the streams may take to end after every process has ended.
const DRAIN: Duration = Duration::from_secs(5);
/// Size of the reserve: some times the largest report.
const RESERVE_BYTES: usize = 64 * 1024;
/// Longest error in a report, in bytes.
const MAX_ERROR: usize = 2048;

/// What the runner was started with.
#[derive(Debug)]
pub(super) struct Start {
    /// Where the spec may come from.
    pub sources: Sources,
    /// Where the termination message goes.
    pub termination: Option<PathBuf>,
    /// The key of the report.
    pub proof: Proof,
    /// The environment without that key.
    pub inherited: Vec<(OsString, OsString)>,
}

/// The key that a report repeats; its `Debug` shows nothing of it.
#[derive(Clone, Default)]
pub(super) struct Proof(pub String);

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(…)")
    }
}

/// Why an attempt has no provider, or none any more.
#[derive(Debug, Error)]
enum Refusal {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Checkout(CheckoutError),
    #[error("`{field}`: {source}")]
    InputFile {
        field: String,
        #[source]
        source: FileError,
    },
    #[error("the workspace is not writable: {0}")]
    Workspace(String),
    #[error("provider `{program}`: {problem}")]
    Provider { program: String, problem: String },
    #[error(
        "arguments and variables of the provider together are more than the kernel takes of a program, usually {} MiB \
         (a quarter of the limit of its stack): give large text as a file, and shorten what the image and secrets set",
        exec::MAX_TOTAL >> 20
    )]
    TooLong,
    #[error("the provider cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("the attempt was ended {1}")]
    Interrupted(Interrupt, &'static str),
    #[error("{0}")]
    Own(String),
}

impl Refusal {
    fn reason(&self) -> Reason {
        match self {
            Self::Spec(error) => error.reason(),
            Self::Prepare(error) => error.reason(),
            Self::Checkout(_) => Reason::CheckoutFailed,
            Self::InputFile { .. } => Reason::PathDenied,
            Self::Workspace(_) | Self::Start(_) => Reason::PreflightFailed,
            Self::Provider { .. } => Reason::ProviderMissing,
            Self::TooLong => Reason::ArgumentsTooLong,
            Self::Interrupted(interrupt, _) => interrupted(*interrupt),
            Self::Own(_) => Reason::RunnerFailed,
        }
    }
}

fn interrupted(interrupt: Interrupt) -> Reason {
    match interrupt {
        Interrupt::Asked => Reason::Cancelled,
        Interrupt::Deadline => Reason::DeadlineExceeded,
    }
}

/// What was learned of an attempt.
#[derive(Default)]
struct Outcome {
    started_at: Option<Timestamp>,
    ending: Option<Ending>,
    interrupt: Option<Interrupt>,
    found: Found,
    vcs: Option<VcsStatus>,
    outputs: Vec<OutputStatus>,
    /// Declared outputs that are missing.
    missing: Vec<String>,
    /// What went wrong beside the provider.
    remarks: Vec<String>,
}

/// Executes one attempt and writes its report. Returns the exit code.
pub(super) fn run(start: Start) -> i32 {
    let Start { sources, termination, proof, inherited } = start;
    let mut supervisor = match Supervisor::install() {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let start = Start { sources, termination, proof, inherited };
            return not_begun(start, format!("signals cannot be listened to: {error}"));
        }
    };
    let text = sources.read();
    // Ours until the spec is verified; as much of it as can be read.
    let salvaged = text.as_deref().map_or_else(|_| spec::salvage(""), spec::salvage);
    let providers = sources.providers.as_deref().map(Path::new);
    let verified = text.and_then(|text| Ok((spec::verify(&text, providers)?, text)));
    let (identity, digest) = match &verified {
        Ok((verified, _)) => (&verified.spec, verified.digest.clone()),
        Err(_) => (&salvaged, String::new()),
    };
    let secrets = Arc::new(prepare::secrets(&identity.secret_env, &inherited));
    let status = deliver::status_target(&identity.artifacts, prepare::roots(identity).ok().as_ref());
    let mut outcome = Outcome::default();
    let result = match &verified {
        Ok((verified, text)) => execute(verified, text, inherited, &secrets, &mut supervisor, &mut outcome),
        Err(error) => Err(Refusal::Own(error.to_string())),
    };
    let result = match (result, &verified) {
        (Err(_), Err(error)) => Err((error.reason(), in_one_line(error))),
        (Err(refusal), Ok(_)) => Err((refusal.reason(), in_one_line(&refusal))),
        (Ok(()), _) => Ok(()),
    };
    let left = supervisor.end_stragglers();
    if left > 0 {
        outcome.remarks.push(format!("{left} processes could not be ended"));
    }
    let report = report(identity, digest, result, outcome, &secrets, proof);
    conclude(&report, status.as_ref(), termination.as_deref())
}

/// Reports an attempt in which nothing could be begun. Returns the exit code.
fn not_begun(start: Start, problem: String) -> i32 {
    let Start { sources, termination, proof, inherited } = start;
    let identity = sources.read().map_or_else(|_| spec::salvage(""), |text| spec::salvage(&text));
    let secrets = prepare::secrets(&identity.secret_env, &inherited);
    let status = deliver::status_target(&identity.artifacts, prepare::roots(&identity).ok().as_ref());
    let result = Err((Reason::RunnerFailed, problem));
    let report = report(&identity, String::new(), result, Outcome::default(), &secrets, proof);
    conclude(&report, status.as_ref(), termination.as_deref())
}

/// Says and delivers the report. Returns the exit code.
fn conclude(report: &Report, status: Option<&Target>, termination: Option<&Path>) -> i32 {
    if let Some(error) = &report.error {
        say(error);
    }
    let code = exit::code(report);
    if let Err(error) = deliver(report, status, termination) {
        say(&format!("the report was not written: {}", in_one_line(&error)));
        return if code == 0 { INTERNAL } else { code };
    }
    code
}

/// A line of the runner itself, which shows what is hidden in it; that nobody reads it is no error.
pub(super) fn say(text: &str) {
    let _ = pipes::write_all(io::stderr(), format!("agent-runner: {}\n", visible(text)).as_bytes());
}

fn execute(
    verified: &Verified,
    spec_text: &str,
    inherited: Vec<(OsString, OsString)>,
    secrets: &Arc<Secrets>,
    supervisor: &mut Supervisor,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    let prepared = prepare(verified, inherited)?;
    supervisor.limit(prepared.timeout_seconds.map(Duration::from_secs), Duration::from_secs(prepared.grace_seconds));
    let log = open_workspace(&prepared, spec_text)?;
    let (checkout, start_in) = check_out(&prepared, supervisor)?;
    for remark in checkout.iter().flat_map(|checkout| &checkout.remarks) {
        // Now, for who watches, and at the end, for who reads the report.
        say(&secrets.redact(remark));
        outcome.remarks.push(remark.clone());
    }
    for (field, place, content) in &prepared.files {
        write_input(&prepared, place, content).map_err(|source| Refusal::InputFile { field: field.clone(), source })?;
    }
    if let Some(interrupt) = supervisor.look() {
        return Err(Refusal::Interrupted(interrupt, "before the provider started"));
    }
    let result = run_provider(&prepared, &start_in, log, secrets, supervisor, outcome);
    if let Some(checkout) = &checkout {
        let own = own_folder(&prepared);
        let mut git = Git { supervisor, environment: &prepared.environment, own_folder: &own };
        outcome.vcs = Some(git.inspect(checkout));
    }
    for (output, place) in &prepared.outputs {
        match super::outputs::collect(output, place, &prepared.roots) {
            Ok(found) => outcome.outputs.push(found),
            Err(error) => outcome.missing.push(in_one_line(&error)),
        }
    }
    let _ = fs::remove_file(prepared.roots.path(&prepared.reserve));
    result
}

/// The folder of our own files.
fn own_folder(prepared: &Prepared) -> PathBuf {
    let mut own = prepared.roots.path(&prepared.spec_copy);
    own.pop();
    own
}

/// Creates our own folder and files; that this works is the proof that the workspace is writable.
fn open_workspace(prepared: &Prepared, spec_text: &str) -> Result<Log, Refusal> {
    let refused = |error: FileError| Refusal::Workspace(in_one_line(&error));
    let Prepared { roots, spec_copy, reserve, outputs_folder, .. } = prepared;
    let workspace = roots.place(spec_copy.root);
    fs::create_dir_all(workspace).map_err(|error| Refusal::Workspace(format!("`{}`: {error}", workspace.display())))?;
    open_below(workspace, &outputs_folder.components, Missing::Create, Obstacle::Refuse).map_err(refused)?;
    if let Some((name, parents)) = spec_copy.components.split_last() {
        let folder = open_below(workspace, parents, Missing::Create, Obstacle::Refuse).map_err(refused)?;
        write_whole(&folder, name, spec_text.as_bytes(), 0o600, Obstacle::Replace).map_err(refused)?;
        if let Some(name) = reserve.components.last() {
            write_whole(&folder, name, &vec![0; RESERVE_BYTES], 0o600, Obstacle::Replace).map_err(refused)?;
        }
    }
    // A report of an earlier attempt in the same folder must not be taken for this one's.
    remove_old(&prepared.status);
    let folder = prepared.log.folder().map_err(refused)?;
    let log = Log::create(folder, prepared.log.name(), prepared.log_cap).map_err(refused)?;
    Ok(log.restored_in(prepared.log.clone()))
}

fn remove_old(status: &Target) {
    let _ = fs::remove_file(status.path());
}

fn check_out(prepared: &Prepared, supervisor: &mut Supervisor) -> Result<(Option<Checkout>, PathBuf), Refusal> {
    let Some((coordinates, place)) = &prepared.checkout else {
        return Ok((None, prepared.roots.place(prepared.spec_copy.root).clone()));
    };
    let own = own_folder(prepared);
    let mut git = Git { supervisor, environment: &prepared.environment, own_folder: &own };
    match git.checkout(coordinates, place) {
        Ok((checkout, start)) => Ok((Some(checkout), start)),
        Err(error) => Err(match (error, supervisor.interrupt()) {
            (_, Some(interrupt)) => Refusal::Interrupted(interrupt, "while the repository was checked out"),
            (error, None) => Refusal::Checkout(error),
        }),
    }
}

fn write_input(prepared: &Prepared, place: &super::roots::Beneath, content: &str) -> Result<(), FileError> {
    let root = prepared.roots.place(place.root);
    fs::create_dir_all(root).map_err(|source| FileError::Io { path: root.display().to_string(), source })?;
    let Some((name, parents)) = place.components.split_last() else {
        return Ok(());
    };
    let folder = open_below(root, parents, Missing::Create, Obstacle::Refuse)?;
    write_whole(&folder, name, content.as_bytes(), 0o644, Obstacle::Refuse)
}

fn run_provider(
    prepared: &Prepared,
    start_in: &Path,
    log: Log,
    secrets: &Arc<Secrets>,
    supervisor: &mut Supervisor,
    outcome: &mut Outcome,
) -> Result<(), Refusal> {
    let search = prepared.environment.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let program = find_program(&prepared.program, start_in, &search)?;
    let mut command = Command::new(&program);
    command
        .args(&prepared.args)
        .env_clear()
        .envs(&prepared.environment)
        .current_dir(start_in)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = supervisor.spawn(&mut command).map_err(|error| refused_start(&program, error))?;
    outcome.started_at = Some(Timestamp::now());
    let streams = match (child.stdout.take(), child.stderr.take()) {
        (Some(out), Some(err)) => {
            Streams::start(OwnedFd::from(out), OwnedFd::from(err), log, secrets, prepared.usage.map(UsageReader::new))
                .map_err(|error| Refusal::Own(format!("a thread cannot be started: {error}")))
        }
        _ => Err(Refusal::Own("the provider has no streams".to_owned())),
    };
    let streams = streams?;
    outcome.ending = Some(supervisor.wait(&mut child));
    // Asked to stop later than this, the provider had already ended by itself.
    outcome.interrupt = supervisor.interrupt();
    let left = supervisor.end_stragglers();
    if left > 0 {
        outcome.remarks.push(format!("{left} processes of the provider could not be ended"));
    }
    let (found, problems) = streams.finish(DRAIN);
    outcome.found = found;
    outcome.remarks.extend(problems);
    Ok(())
}

fn refused_start(program: &Path, error: io::Error) -> Refusal {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(
            nix::errno::Errno::ENOENT
            | nix::errno::Errno::EACCES
            | nix::errno::Errno::ENOEXEC
            | nix::errno::Errno::ENOTDIR
            | nix::errno::Errno::ELIBBAD,
        ) => Refusal::Provider { program: program.display().to_string(), problem: why_not_executed(program, &error) },
        Some(nix::errno::Errno::E2BIG) => Refusal::TooLong,
        _ => Refusal::Start(error),
    }
}

/// Looks a program up as a shell would, but in the provider's own search path and from its own folder.
fn find_program(program: &str, start_in: &Path, search: &OsStr) -> Result<PathBuf, Refusal> {
    let refused = |problem: &str| Refusal::Provider { program: program.to_owned(), problem: problem.to_owned() };
    if program.contains('\0') {
        return Err(refused("its name contains a NUL"));
    }
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![start_in.join(program)]
    } else {
        let folders = search.as_bytes().split(|byte| *byte == b':').filter(|folder| !folder.is_empty());
        folders.map(|folder| start_in.join(OsStr::from_bytes(folder)).join(program)).collect()
    };
    let mut problem = "does not exist";
    for candidate in candidates {
        let Ok(found) = fs::metadata(&candidate) else { continue };
        if found.is_file() && access(&candidate, AccessFlags::X_OK).is_ok() {
            return Ok(candidate);
        }
        problem = if found.is_file() { "is not executable" } else { "is not a file" };
    }
    Err(refused(problem))
}

fn report(
    identity: &RunnerSpec,
    digest: String,
    result: Result<(), (Reason, String)>,
    outcome: Outcome,
    secrets: &Secrets,
    proof: Proof,
) -> Report {
    let Outcome { started_at, ending, interrupt, found, vcs, outputs, missing, remarks } = outcome;
    let (mut reason, mut problem) = match (result, interrupt, ending) {
        (Err((reason, problem)), _, _) => (Some(reason), Some(problem)),
        (Ok(()), Some(Interrupt::Asked), _) => (Some(Reason::Cancelled), Some("asked to stop".to_owned())),
        (Ok(()), Some(Interrupt::Deadline), _) => {
            let seconds = identity.limits.timeout_seconds.unwrap_or_default();
            (Some(Reason::DeadlineExceeded), Some(format!("not done after {seconds} s")))
        }
        (Ok(()), None, Some(Ending::Exited(0))) => (None, None),
        (Ok(()), None, Some(Ending::Exited(code))) => {
            (Some(Reason::ProviderExited), Some(format!("the provider exited with code {code}")))
        }
        (Ok(()), None, Some(Ending::Signaled(signal))) => {
            (Some(Reason::ProviderSignaled), Some(format!("the provider was ended by signal {signal}")))
        }
        (Ok(()), None, Some(Ending::Unknown) | None) => {
            (Some(Reason::RunnerFailed), Some("how the provider ended is not known".to_owned()))
        }
    };
    if reason.is_none() && !missing.is_empty() {
        reason = Some(Reason::OutputMissing);
        problem = Some(format!("{} (relative paths lie in {OUTPUTS_DIR})", missing.join("; ")));
    }
    let mut lines: Vec<String> = problem.into_iter().collect();
    lines.extend(remarks);
    let error = (!lines.is_empty()).then(|| cut(&one_line(&secrets.redact(&lines.join("; "))), MAX_ERROR));
    let (exit_code, signal) = match ending {
        Some(Ending::Exited(code)) => (Some(code), None),
        Some(Ending::Signaled(signal)) => (None, Some(signal)),
        Some(Ending::Unknown) | None => (None, None),
    };
    Report {
        schema_version: SCHEMA_VERSION.to_owned(),
        status: match reason {
            None => Ended::Succeeded,
            Some(Reason::Cancelled) => Ended::Cancelled,
            Some(_) => Ended::Failed,
        },
        provider: identity.provider.clone(),
        run_uid: identity.run.uid.clone(),
        attempt: identity.run.attempt,
        proof: proof.0,
        plan_digest: digest,
        reason: reason.map(|reason| reason.as_str().to_owned()),
        exit_code,
        signal,
        started_at,
        finished_at: Timestamp::now(),
        error,
        usage: found.usage,
        vcs,
        conversation: found.conversation.map(|id| secrets.redact(&id)),
        outputs,
        truncated: false,
    }
}

/// Control characters would let an error forge lines of a log.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
