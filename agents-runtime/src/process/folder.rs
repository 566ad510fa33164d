//! The folder of one submission: its files, and the only code that writes them.
//!
//! Every file appears whole: it is written beside, flushed to disk and renamed. The folder itself appears whole, with
//! claim and runner's spec in it, so a folder without a claim is not ours.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use agents_core::{
    mutant::{Mutant, is_on},
    name::{ChildName, SubmissionKey},
    plan::{RunnerSpec, digest, runner_spec::WORKSPACE},
    report::Report,
    runtime::Submission,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::identity::ProcessIdentity;

/// Largest file of ours that is read back, in bytes: a spec with all payloads at their bounds stays below.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// Beginning of the names of what is being prepared: the folder of a submission, and each file in it.
const PREPARING: &str = ".preparing-";

/// Whose folder it is: the record that makes a submission one, however often and by whomever it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claim {
    /// The submission.
    pub(super) key: SubmissionKey,
    /// Namespace of the run.
    pub(super) namespace: String,
    /// Name of the run.
    pub(super) run: String,
    /// When it was claimed.
    pub(super) submitted_at: Timestamp,
    /// The engine that claimed it.
    pub(super) claimed_by: ProcessIdentity,
}

/// That an execution began: written under the lock by the process that becomes the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    /// The process.
    pub(super) process: ProcessIdentity,
    /// When.
    pub(super) at: Timestamp,
    /// Digest of the key that the runner's report repeats. The provider, a process of the same user, may read it here
    /// and cannot make the key from it. Empty when there was no key: then no report is believed.
    #[serde(default)]
    pub(super) proof_digest: String,
}

/// That the submission is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cancelled {
    /// Since when.
    pub(super) at: Timestamp,
}

/// That the runner itself could not be started after the record of the start was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Broken {
    /// Why.
    pub(super) message: String,
}

/// What the runner left.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ReportFile {
    /// Nothing.
    Absent,
    /// Its report.
    Whole(Box<Report>),
    /// Something that is not the report of this attempt; the text says why.
    Unusable(String),
}

/// How an attempt to claim ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claiming {
    /// The submission is there, claimed now or before.
    Ours(Claim),
    /// The place is taken by something else; the text says by what.
    Taken(String),
}

/// The folder of one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn of(root: &Path, name: &ChildName) -> Self {
        Self(root.join(name.as_str()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn is_there(&self) -> bool {
        self.0.exists()
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    pub(super) fn output(&self) -> PathBuf {
        self.0.join("output.log")
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(super) fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(self.lock())
    }

    pub(super) fn claim(&self) -> io::Result<Option<Claim>> {
        self.read("claim.json")
    }

    pub(super) fn started(&self) -> io::Result<Option<Started>> {
        self.read("started.json")
    }

    pub(super) fn cancelled(&self) -> io::Result<Option<Cancelled>> {
        self.read("cancelled.json")
    }

    pub(super) fn broken(&self) -> io::Result<Option<Broken>> {
        self.read("broken.json")
    }

    /// The caller holds the lock and has seen that there is no such record.
    pub(super) fn record_start(&self, started: &Started) -> io::Result<()> {
        self.write("started.json", started)
    }

    pub(super) fn record_cancel(&self, at: Timestamp) -> io::Result<()> {
        if self.cancelled()?.is_some() {
            return Ok(());
        }
        self.write("cancelled.json", &Cancelled { at })
    }

    /// Whether the runner got the signal to end.
    pub(super) fn signalled(&self) -> io::Result<bool> {
        Ok(self.read::<Cancelled>("signalled.json")?.is_some())
    }

    pub(super) fn record_signalled(&self, at: Timestamp) -> io::Result<()> {
        self.write("signalled.json", &Cancelled { at })
    }

    pub(super) fn record_broken(&self, message: &str) -> io::Result<()> {
        let message = message.to_owned();
        self.write("broken.json", &Broken { message })
    }

    /// Removes what a launcher that died was writing. The engine that would do it otherwise may live on.
    pub(super) fn sweep(&self) {
        // What stays is in nobody's way.
        let _ = sweep_in(&self.0);
    }

    /// Whether something holds the lock: the runner, or anything it started that is left.
    pub(super) fn is_locked(&self) -> io::Result<bool> {
        let file = match OpenOptions::new().read(true).open(self.lock()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // Shared, so that two probes do not see each other; a launcher that meets a probe tries again.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// What the runner left, where the key of its report has the digest `proof`. Only of meaning once the runner has
    /// ended. The provider can write the file too: what does not repeat the key is not the runner's.
    pub(super) fn report(&self, key: &SubmissionKey, proof: &str) -> io::Result<ReportFile> {
        // The file is where the spec says; a relative rest keeps a spec from naming another folder's.
        let spec: Option<RunnerSpec> = self.read("spec.json")?;
        let Some(spec) = spec else {
            return Ok(ReportFile::Unusable("the runner's spec is gone".to_owned()));
        };
        let path = &spec.artifacts.status_path;
        let Some(rest) = path.strip_prefix(WORKSPACE).and_then(|rest| rest.strip_prefix('/')) else {
            return Ok(ReportFile::Unusable(format!("{path:?} is not below {WORKSPACE}")));
        };
        let text = match read_bounded(&self.workspace().join(rest)) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(ReportFile::Absent),
            // Also what the provider closed against its own user is no report.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied) => {
                return Ok(ReportFile::Unusable(format!("the report cannot be read: {error}")));
            }
            Err(error) => return Err(error),
        };
        Ok(match serde_json::from_slice::<Report>(&text) {
            Ok(report) if report.run_uid != key.uid || report.attempt != key.attempt => {
                ReportFile::Unusable("the report is of another attempt".to_owned())
            }
            Ok(report) if !is_proven(&report, proof) => {
                ReportFile::Unusable("the report is not the runner's: it does not repeat the runner's key".to_owned())
            }
            // The proof has done its work and goes no further.
            Ok(report) => ReportFile::Whole(Box::new(Report { proof: String::new(), ..report })),
            Err(error) => ReportFile::Unusable(format!("the report cannot be read: {error}")),
        })
    }

    /// When something was printed last, or the folder made.
    pub(super) fn last_sign(&self) -> io::Result<Timestamp> {
        let found = fs::metadata(self.output()).or_else(|_| fs::metadata(&self.0))?;
        Timestamp::try_from(found.modified()?).map_err(io::Error::other)
    }

    /// Makes the folder appear with everything in it, unless it is there already.
    pub(super) fn take(&self, submission: &Submission, spec: &RunnerSpec, now: Timestamp) -> io::Result<Claiming> {
        if let Some(found) = self.found(&submission.key)? {
            return Ok(found);
        }
        let root = self.0.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let me = ProcessIdentity::current()?;
        let claim = Claim {
            key: submission.key.clone(),
            namespace: submission.namespace.clone(),
            run: submission.owner.name.clone(),
            submitted_at: now,
            claimed_by: me.clone(),
        };
        let preparing = Self(root.join(preparing_name(&me)));
        private_folder(&preparing.0)?;
        let moved = preparing.fill(&claim, spec).and_then(|()| match fs::rename(&preparing.0, &self.0) {
            Ok(()) => sync_folder(root).map(|()| true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error),
        });
        if matches!(moved, Ok(true)) {
            return Ok(Claiming::Ours(claim));
        }
        // What is left behind when this fails too is swept by the next adapter on this root.
        let _ = fs::remove_dir_all(&preparing.0);
        moved?;
        self.found(&submission.key)?.ok_or_else(|| io::Error::other("the folder was taken and is gone again"))
    }

    fn fill(&self, claim: &Claim, spec: &RunnerSpec) -> io::Result<()> {
        private_folder(&self.workspace())?;
        private_folder(&self.home())?;
        self.write("spec.json", spec)?;
        self.open_lock()?;
        self.write("claim.json", claim)
    }

    /// What stands at this place, if anything that would be in the way.
    fn found(&self, key: &SubmissionKey) -> io::Result<Option<Claiming>> {
        let taken = |by: &str| Ok(Some(Claiming::Taken(format!("{} is {by}", self.0.display()))));
        match fs::symlink_metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(found) if !found.is_dir() => return taken("not a folder"),
            Ok(_) => {}
        }
        match self.claim() {
            Ok(Some(claim)) if claim.key == *key => Ok(Some(Claiming::Ours(claim))),
            Ok(Some(_)) => taken("the folder of another submission"),
            // An empty folder is in nobody's way, and rename replaces it.
            Ok(None) if fs::read_dir(&self.0)?.next().is_none() => Ok(None),
            Ok(None) => taken("a folder without a claim"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => taken("a folder whose claim cannot be read"),
            Err(error) => Err(error),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.0.join(name);
        let Some(text) = read_bounded(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
    }

    fn write(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let beside = self.0.join(preparing_name(&ProcessIdentity::current()?));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        // At once: the writer of values asks the system for every bracket.
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&beside, self.0.join(name))?;
        sync_folder(&self.0)
    }
}

/// Whether a report repeats the key of the digest `proof`.
fn is_proven(report: &Report, proof: &str) -> bool {
    let Report { proof: key, .. } = report;
    (!key.is_empty() && digest::sha256(key.as_bytes()) == proof) || is_on(Mutant::BelievesAnyReport)
}

/// Removes what dead processes were preparing below `root` and in every submission.
pub(super) fn sweep(root: &Path) -> io::Result<()> {
    sweep_in(root)?;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // It may be in use, gone, or not ours: what stays there is in nobody's way.
            let _ = sweep_in(&entry.path());
        }
    }
    Ok(())
}

fn sweep_in(folder: &Path) -> io::Result<()> {
    let me = ProcessIdentity::current()?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(maker) = name.to_str().and_then(|name| preparing_maker(name, &me.boot_id)) else {
            continue;
        };
        if maker.is_alive()? {
            continue;
        }
        let removed =
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        match removed {
            // Another process sweeps too.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn preparing_name(maker: &ProcessIdentity) -> String {
    format!("{PREPARING}{}-{}-{}-{}", maker.pid, maker.start_ticks, count(), maker.boot_id)
}

fn preparing_maker(name: &str, boot_id: &str) -> Option<ProcessIdentity> {
    let mut parts = name.strip_prefix(PREPARING)?.splitn(4, '-');
    let pid = parts.next()?.parse().ok()?;
    let start_ticks = parts.next()?.parse().ok()?;
    let _count = parts.next()?;
    let made_in = parts.next()?;
    Some(ProcessIdentity {
        // A maker of an earlier boot is dead, whoever has its pid now.
        pid: if made_in == boot_id { pid } else { 0 },
        start_ticks,
        boot_id: made_in.to_owned(),
    })
}

fn count() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
    )
}

fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let invalid = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {problem}", path.display()));
    // Without O_NONBLOCK a named pipe put there by a provider would hold us.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW).bits())
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => return Err(invalid("a link")),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut text = Vec::new();
    if file.take(MAX_FILE + 1).read_to_end(&mut text)? as u64 > MAX_FILE {
        return Err(invalid("too large"));
    }
    Ok(Some(text))
}
