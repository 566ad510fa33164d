//! Checks out the repository by the git command line and says afterwards what became of it.
//!
//! No value of a user is ever an option: addresses, refs and folders were checked before, and stand behind `--` or
//! inside a full ref name. Credentials come from the environment (helpers, agents, askpass programs), never from the
//! address. Hooks, submodules and background maintenance are off.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use agents_core::{api::agent_run::VcsStatus, status::cut};
use thiserror::Error;

use super::{
    coordinates::{ALLOWED_PROTOCOLS, Coordinates},
    folder::{FileError, Missing, Obstacle, open_below, open_trusted, write_whole},
    supervise::{Ending, Supervisor},
};

/// What is kept of each of git's streams, in bytes.
const KEPT: usize = 64 * 1024;
/// How long git may take to say what became of the repository.
const INSPECTION: Duration = Duration::from_secs(30);

/// A repository that cannot be checked out.
#[derive(Debug, Error)]
pub(super) enum CheckoutError {
    /// git cannot be started.
    #[error("git cannot be started: {0}")]
    NoGit(#[source] io::Error),
    /// git failed; with what it wrote last.
    #[error("git {command}: {problem}")]
    Git {
        /// Its command.
        command: String,
        /// What it wrote last.
        problem: String,
    },
    /// The ref is nowhere to be found.
    #[error("the repository has no branch, tag or commit `{0}`")]
    NoReference(String),
    /// The folder of the checkout holds something.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The folder in which the provider is to start is not there.
    #[error("`git.path`: {0}")]
    Folder(#[source] FileError),
    /// A file of ours cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The attempt was asked to end.
    #[error("the checkout was interrupted")]
    Interrupted,
}

/// A repository that was checked out.
#[derive(Debug)]
pub(super) struct Checkout {
    place: PathBuf,
    public_url: String,
    /// None when the repository is empty.
    base: Option<String>,
}

/// Runs git for one attempt.
pub(super) struct Git<'a> {
    /// Listens while git runs.
    pub supervisor: &'a mut Supervisor,
    /// Environment of the provider.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// Folder of ours, for git's configuration.
    pub own_folder: &'a Path,
}

impl Git<'_> {
    /// Clones into `place` and checks out what the coordinates say. Returns also the folder for the provider.
    ///
    /// # Errors
    /// The repository cannot be reached, lacks the ref or the folder, or the attempt was asked to end.
    pub(super) fn checkout(
        &mut self,
        coordinates: &Coordinates,
        place: &Path,
    ) -> Result<(Checkout, PathBuf), CheckoutError> {
        let Coordinates { url, public_url, reference, folder } = coordinates;
        match std::fs::symlink_metadata(place) {
            Ok(found) if found.is_dir() && is_empty(place) => {}
            Ok(_) => return Err(CheckoutError::NotEmpty(place.to_owned())),
            Err(_) => {}
        }
        let config = self.write_config()?;
        let mut clone = self.command(&config);
        clone.args(["clone", "--quiet", "--no-checkout", "--no-recurse-submodules", "--template=", "--origin=origin"]);
        self.run("clone", clone.arg("--").arg(url).arg(place), None)?;
        let mut cloned = Cloned { git: self, config: &config, place };
        match reference {
            None => cloned.check_out_default()?,
            Some(reference) => cloned.check_out(reference)?,
        }
        let base = cloned.commit("HEAD");
        // Its content is the environment's; the provider has no use for it.
        let _ = std::fs::remove_file(&config);
        open_below(place, folder, Missing::Fail, Obstacle::Refuse).map_err(CheckoutError::Folder)?;
        let mut start = place.to_owned();
        start.extend(folder);
        let checkout = Checkout { place: place.to_owned(), public_url: public_url.clone(), base };
        Ok((checkout, start))
    }

    /// What became of the repository. Nothing that the provider configured is executed: only commands that read
    /// objects and refs run, without the user's configuration and without any transport.
    pub(super) fn inspect(&mut self, checkout: &Checkout) -> VcsStatus {
        let Checkout { place, public_url, base } = checkout;
        let mut ask = |args: &[&str]| {
            let mut git_dir = OsString::from("--git-dir=");
            git_dir.push(place.join(".git"));
            let mut command = Command::new("git");
            command
                .env_clear()
                .envs(self.environment)
                .envs([
                    ("GIT_CONFIG_GLOBAL", "/dev/null"),
                    ("GIT_CONFIG_NOSYSTEM", "1"),
                    ("GIT_ALLOW_PROTOCOL", "none"),
                    ("GIT_NO_LAZY_FETCH", "1"),
                    ("GIT_NO_REPLACE_OBJECTS", "1"),
                    ("GIT_OPTIONAL_LOCKS", "0"),
                    ("GIT_TERMINAL_PROMPT", "0"),
                ])
                .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
                .arg(git_dir)
                .args(args);
            let said = self.run(args[0], &mut command, Some(INSPECTION)).ok()?;
            let said = said.trim();
            (!said.is_empty()).then(|| said.to_owned())
        };
        let is_object = |text: &String| text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let head = ask(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).filter(is_object);
        let branch = ask(&["symbolic-ref", "--quiet", "--short", "HEAD"]).map(|name| cut(&name, 256));
        let commits = head.as_ref().and_then(|head| {
            let range = base.as_ref().map_or_else(|| head.clone(), |base| format!("{base}..{head}"));
            ask(&["rev-list", "--count", &range, "--"])?.parse().ok()
        });
        VcsStatus {
            repository: Some(public_url.clone()),
            branch,
            base_commit: base.clone(),
            head_commit: head,
            commits,
            ..VcsStatus::default()
        }
    }

    /// The user's configuration with ours around it. A file, because the part of git that serves a local repository
    /// ignores settings on the command line and would refuse a repository of another user.
    fn write_config(&self) -> Result<PathBuf, CheckoutError> {
        let value = |name: &str| {
            self.environment
                .get(&OsString::from(name))
                .and_then(|value| value.to_str())
                .filter(|value| !value.is_empty())
        };
        let mut included: Vec<String> = Vec::new();
        if let Some(global) = value("GIT_CONFIG_GLOBAL") {
            included.push(global.to_owned());
        } else if let Some(home) = value("HOME") {
            included.push(match value("XDG_CONFIG_HOME") {
                Some(folder) => format!("{folder}/git/config"),
                None => format!("{home}/.config/git/config"),
            });
            included.push(format!("{home}/.gitconfig"));
        }
        // What comes later wins: the user may choose another ssh, nobody may let programs be a transport.
        let mut text = String::from("[core]\n\tsshCommand = ssh -oBatchMode=yes\n");
        for path in included {
            let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str("[include]\n\tpath = \"");
            text.push_str(&quoted);
            text.push_str("\"\n");
        }
        text.push_str("[safe]\n\tdirectory = *\n[protocol \"ext\"]\n\tallow = never\n");
        write_whole(&open_trusted(self.own_folder)?, "gitconfig", text.as_bytes(), 0o600, Obstacle::Replace)?;
        Ok(self.own_folder.join("gitconfig"))
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .envs(self.environment)
            .env("GIT_CONFIG_GLOBAL", config)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", ALLOWED_PROTOCOLS)
            .env("LC_ALL", "C");
        for setting in [
            "core.hooksPath=/dev/null",
            "protocol.ext.allow=never",
            "submodule.recurse=false",
            "advice.detachedHead=false",
            "gc.auto=0",
            "maintenance.auto=false",
        ] {
            command.args(["-c", setting]);
        }
        command
    }

    fn run(&mut self, name: &str, command: &mut Command, patience: Option<Duration>) -> Result<String, CheckoutError> {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(CheckoutError::NoGit)?;
        let out = child.stdout.take().map(keep_tail);
        let err = child.stderr.take().map(keep_tail);
        let ending = match patience {
            Some(patience) => self.supervisor.wait_at_most(&mut child, patience),
            None => self.supervisor.wait(&mut child),
        };
        if patience.is_none() && self.supervisor.interrupt().is_some() {
            return Err(CheckoutError::Interrupted);
        }
        // A helper that stays may hold the streams open; what it would still say is of no interest.
        let said = |stream: Option<mpsc::Receiver<String>>| {
            stream.and_then(|stream| stream.recv_timeout(Duration::from_secs(2)).ok()).unwrap_or_default()
        };
        let (out, err) = (said(out), said(err));
        if ending == Ending::Exited(0) {
            return Ok(out);
        }
        Err(CheckoutError::Git {
            command: name.to_owned(),
            problem: verdict(&err).unwrap_or_else(|| format!("{ending:?}")),
        })
    }
}

/// The last lines up to git's verdict: what a helper said comes before it, advice after it.
fn verdict(err: &str) -> Option<String> {
    let lines: Vec<&str> = err.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_verdict = |line: &&str| line.starts_with("fatal:") || line.starts_with("error:");
    let end = lines.iter().rposition(is_verdict).map_or(lines.len(), |at| at + 1);
    let said = lines[end.saturating_sub(3)..end].join("; ");
    (!said.is_empty()).then(|| cut(&said, 512))
}

/// A clone in which things are checked out.
struct Cloned<'a, 'b> {
    git: &'a mut Git<'b>,
    config: &'a Path,
    place: &'a Path,
}

impl Cloned<'_, '_> {
    fn call(&mut self, args: &[&str]) -> Result<String, CheckoutError> {
        let mut command = self.git.command(self.config);
        command.arg("-C").arg(self.place).args(args);
        self.git.run(args[0], &mut command, None).map(|said| said.trim().to_owned())
    }

    fn commit(&mut self, expression: &str) -> Option<String> {
        self.call(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{expression}^{{commit}}")])
            .ok()
            .filter(|commit| !commit.is_empty())
    }

    fn detach(&mut self, commit: &str) -> Result<(), CheckoutError> {
        self.call(&["checkout", "--quiet", "--force", "--detach", commit, "--"]).map(drop)
    }

    fn check_out_default(&mut self) -> Result<(), CheckoutError> {
        // A repository without a commit is a fine place to start.
        if self.commit("HEAD").is_none() {
            return self.uninterrupted();
        }
        self.call(&["checkout", "--quiet", "--force", "HEAD", "--"]).map(drop)
    }

    fn check_out(&mut self, reference: &str) -> Result<(), CheckoutError> {
        let branch = match reference.strip_prefix("refs/") {
            Some(rest) => rest.strip_prefix("heads/"),
            None => Some(reference),
        };
        if let Some(branch) = branch {
            let remote = format!("refs/remotes/origin/{branch}");
            if self.commit(&remote).is_some() {
                return self
                    .call(&["checkout", "--quiet", "--force", "--track", "-B", branch, &remote, "--"])
                    .map(drop);
            }
        }
        let tag = reference.strip_prefix("refs/tags/").unwrap_or(reference);
        if let Some(commit) = self.commit(&format!("refs/tags/{tag}")) {
            return self.detach(&commit);
        }
        let is_hex = reference.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex
            && (7..=64).contains(&reference.len())
            && let Some(commit) = self.commit(reference)
        {
            return self.detach(&commit);
        }
        self.uninterrupted()?;
        // A commit no branch reaches, or a ref that clones leave out, such as those of pull requests.
        let is_whole_commit = is_hex && matches!(reference.len(), 40 | 64);
        if is_whole_commit || reference.starts_with("refs/") {
            self.call(&["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--", "origin", reference])?;
            return self.detach("FETCH_HEAD");
        }
        Err(CheckoutError::NoReference(reference.to_owned()))
    }

    fn uninterrupted(&mut self) -> Result<(), CheckoutError> {
        match self.git.supervisor.look() {
            Some(_) => Err(CheckoutError::Interrupted),
            None => Ok(()),
        }
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Reads to the end and keeps the last [`KEPT`] bytes.
fn keep_tail(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut chunk = [0; 8192];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..length]);
            if kept.len() > 2 * KEPT {
                kept.drain(..kept.len() - KEPT);
            }
        }
        let from = kept.len().saturating_sub(KEPT);
        // The receiver may have lost its patience.
        let _ = send.send(String::from_utf8_lossy(&kept[from..]).into_owned());
    });
    receive
}
