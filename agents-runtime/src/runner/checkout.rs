//! Checks out the repository by the git command line and says afterwards what became of it.
//!
//! No value of a user is ever an option: addresses, refs and folders were checked before, and stand behind `--` or
//! inside a full ref name. Credentials come from the environment (helpers, agents, askpass programs), never from the
//! address. Hooks, submodules and background maintenance are off, and no redirect is followed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use agents_core::{
    api::agent_run::VcsStatus,
    git::{ALLOWED_PROTOCOLS, Coordinates},
    status::cut,
};
use thiserror::Error;

use super::{
    env::OF_ANOTHER_REPOSITORY,
    folder::{FileError, Missing, Obstacle, open_below, open_regular, open_trusted, write_whole},
    remote::{is_incomplete, is_redirect, list, redirect_target, speaks_git, unborn_head, wants_credentials},
    supervise::{Ending, Supervisor},
};
use crate::lines::first_whole;

/// What is kept of each of git's streams, in bytes.
const KEPT: usize = 64 * 1024;
/// What is read of a trace, in bytes.
const TRACE: u64 = 256 * 1024;
/// How long git may take to say what became of the repository.
const INSPECTION: Duration = Duration::from_secs(30);

/// A repository that cannot be checked out.
#[derive(Debug, Error)]
pub(super) enum CheckoutError {
    /// There is no git.
    #[error("the program `git` is not in the provider's PATH; a run with a repository needs an image that has it")]
    NoGit,
    /// git cannot be started.
    #[error("git cannot be started: {0}")]
    Start(#[source] io::Error),
    /// git failed; with what it wrote last.
    #[error("git {command}: {problem}")]
    Git {
        /// Its command.
        command: String,
        /// What it wrote last.
        problem: String,
    },
    /// The server sends elsewhere.
    #[error("the server answers with a redirect {}, and redirects are not followed: \
             when that is the repository's new address, name it in `git.url`",
            .0.as_ref().map_or_else(|| "that names no address".to_owned(), |target| format!("to `{target}`")))]
    Redirect(Option<String>),
    /// What answers over HTTP is no git server: a page of a proxy or of a login, or nothing at all.
    #[error("what answers at `git.url` is no git repository: it is a web page or an empty answer")]
    NotGit,
    /// The server wants to know who asks, and nothing here says it.
    #[error(
        "git {command}: {problem}; the repository wants credentials: put a token into a Secret, name it in the \
             provider's `secretEnv`, and set up a git credential helper that answers with it"
    )]
    NoCredentials {
        /// Its command.
        command: String,
        /// What it wrote last.
        problem: String,
    },
    /// The remote names objects that it does not have.
    #[error(
        "the repository lacks objects of its own commits: it is damaged, or a partial clone, which cannot be cloned; name \
             the one it was cloned from, or complete it with `git fetch --refetch --no-filter` (git {command}: {problem})"
    )]
    Incomplete {
        /// Its command.
        command: String,
        /// What it wrote last.
        problem: String,
    },
    /// Without a ref there is nothing to check out, though the repository is not empty.
    #[error("the repository's HEAD names {}, which is not there; name in `git.ref` what to check out: it has {}",
            .head.as_ref().map_or_else(|| "a branch".to_owned(), |head| format!("`{head}`")), .has)]
    NoHead {
        /// What HEAD names, where the server says it.
        head: Option<String>,
        /// What is there instead.
        has: String,
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
    /// What is not as the provider may expect.
    pub remarks: Vec<String>,
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
        let done = self.run("clone", clone.arg("--").arg(url).arg(place), None);
        done.map_err(|error| self.explained(error, &config, url))?;
        let mut cloned = Cloned { git: self, config: &config, url, place };
        match reference.as_deref() {
            None | Some("HEAD") => cloned.check_out_default()?,
            Some(reference) => {
                let done = cloned.check_out(reference);
                done.map_err(|error| self.explained(error, &config, url))?;
            }
        }
        let mut cloned = Cloned { git: self, config: &config, url, place };
        let remarks = cloned.remarks();
        let base = cloned.commit("HEAD");
        // Its content is the environment's; the provider has no use for it.
        let _ = std::fs::remove_file(&config);
        open_below(place, folder, Missing::Fail, Obstacle::Refuse).map_err(CheckoutError::Folder)?;
        let mut start = place.to_owned();
        start.extend(folder);
        let checkout = Checkout { place: place.to_owned(), public_url: public_url.clone(), base, remarks };
        Ok((checkout, start))
    }

    /// What became of the repository. Nothing that the provider configured is executed: only commands that read
    /// objects and refs run, without the user's configuration and without any transport.
    pub(super) fn inspect(&mut self, checkout: &Checkout) -> VcsStatus {
        let Checkout { place, public_url, base, remarks: _ } = checkout;
        let mut ask = |args: &[&str]| {
            let mut git_dir = OsString::from("--git-dir=");
            git_dir.push(place.join(".git"));
            let mut command = bare_git(self.environment);
            command
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
        // Its short form is not the branch's name where a tag has the same.
        let branch = ask(&["symbolic-ref", "--quiet", "HEAD"])
            .and_then(|name| name.strip_prefix("refs/heads/").map(|name| cut(name, 256)));
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
        let mut command = bare_git(self.environment);
        command
            .env("GIT_CONFIG_GLOBAL", config)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", ALLOWED_PROTOCOLS)
            .env("LC_ALL", "C");
        for setting in [
            "core.hooksPath=/dev/null",
            "protocol.ext.allow=never",
            // Else the check of the address would be worth what the server behind it makes of it.
            "http.followRedirects=false",
            "submodule.recurse=false",
            "advice.detachedHead=false",
            "gc.auto=0",
            "maintenance.auto=false",
        ] {
            command.args(["-c", setting]);
        }
        command
    }

    /// The error of a command that spoke to the remote, said in words that help where git's do not.
    fn explained(&mut self, error: CheckoutError, config: &Path, url: &str) -> CheckoutError {
        match error {
            CheckoutError::Git { problem, .. } if is_redirect(&problem) => {
                let trace = self.traced("GIT_TRACE_CURL", config, url);
                CheckoutError::Redirect(redirect_target(&trace))
            }
            CheckoutError::Git { command, problem } if wants_credentials(&problem) => {
                CheckoutError::NoCredentials { command, problem }
            }
            CheckoutError::Git { command, problem } if is_incomplete(&problem) => {
                CheckoutError::Incomplete { command, problem }
            }
            other => other,
        }
    }

    /// What git writes into a trace when it asks the remote for its HEAD. Only for what looks wrong: it asks once more.
    fn traced(&mut self, trace: &str, config: &Path, url: &str) -> String {
        let file = self.own_folder.join("trace");
        // What git appends to is ours alone.
        let _ = std::fs::remove_file(&file);
        let mut command = self.command(config);
        command.env(trace, &file).env("GIT_TRACE_CURL_NO_DATA", "1").args(["ls-remote", "--quiet", "--", url, "HEAD"]);
        let _ = self.run("ls-remote", &mut command, None);
        let mut text = Vec::new();
        // It may be cut inside a character, and all that is looked for stands near its beginning.
        let _ = std::fs::File::open(&file).and_then(|file| file.take(TRACE).read_to_end(&mut text));
        let _ = std::fs::remove_file(&file);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn run(&mut self, name: &str, command: &mut Command, patience: Option<Duration>) -> Result<String, CheckoutError> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.supervisor.spawn(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CheckoutError::NoGit,
            _ => CheckoutError::Start(error),
        })?;
        let readers = (child.stdout.take().map(keep_tail).transpose())
            .and_then(|out| Ok((out, child.stderr.take().map(keep_tail).transpose()?)));
        let (out, err) = match readers {
            Ok(readers) => readers,
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(CheckoutError::Start(error));
            }
        };
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
            problem: verdict(&err).unwrap_or_else(|| ending.to_string()),
        })
    }
}

/// git in the provider's environment, without what would turn it to another repository or make it say more than it is
/// asked for, whichever layer of the environment that is from.
fn bare_git(environment: &BTreeMap<OsString, OsString>) -> Command {
    let misleads = |name: &OsStr| {
        OF_ANOTHER_REPOSITORY.iter().any(|other| OsStr::new(other) == name)
            || name.as_bytes().starts_with(b"GIT_TRACE")
            || name.as_bytes().ends_with(b"_PATHSPECS")
    };
    let mut command = Command::new("git");
    command.env_clear().envs(environment.iter().filter(|(name, _)| !misleads(name)));
    command
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
    url: &'a str,
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
        if self.commit("HEAD").is_none() {
            self.uninterrupted()?;
            let refs = self.refs()?;
            // A repository without a commit is a fine place to start; one whose commits are elsewhere is not.
            return if refs.is_empty() { self.proven() } else { Err(self.no_head(&refs)) };
        }
        self.call(&["checkout", "--quiet", "--force", "HEAD", "--"]).map(drop)
    }

    /// The names of all branches and tags, a line each.
    fn refs(&mut self) -> Result<String, CheckoutError> {
        self.call(&["for-each-ref", "--format=%(refname)", "refs/remotes/origin", "refs/tags"])
    }

    /// Whether what has no refs is a repository: git takes any answer over HTTP that has no whole line for an empty one,
    /// as it would be on a server of mere files.
    fn proven(&mut self) -> Result<(), CheckoutError> {
        let is_http = ["http://", "https://"].iter().any(|scheme| self.url.starts_with(scheme));
        if !is_http || speaks_git(&self.git.traced("GIT_TRACE_CURL", self.config, self.url)) {
            return Ok(());
        }
        self.uninterrupted()?;
        Err(CheckoutError::NotGit)
    }

    fn no_head(&mut self, refs: &str) -> CheckoutError {
        let below = |prefix: &str| -> Vec<String> {
            refs.lines().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect()
        };
        let (branches, tags) = (below("refs/remotes/origin/"), below("refs/tags/"));
        let has = match (branches.as_slice(), tags.as_slice()) {
            ([], tags) => format!("no branch, but the tags {}", list(tags)),
            (branches, _) => format!("the branches {}", list(branches)),
        };
        let trace = self.git.traced("GIT_TRACE_PACKET", self.config, self.url);
        CheckoutError::NoHead { head: unborn_head(&trace), has }
    }

    /// What a provider that works on the files should know, because git does not say it.
    fn remarks(&mut self) -> Vec<String> {
        let mut remarks = Vec::new();
        let managed = self.call(&["ls-files", "-z", "--", ":(attr:filter=lfs)"]).unwrap_or_default();
        let pointers: Vec<String> =
            managed.split('\0').filter(|path| is_pointer(self.place, path)).map(str::to_owned).collect();
        if !pointers.is_empty() {
            remarks.push(format!(
                "files of git-lfs were checked out as pointers, without their content: {}; the image needs `git-lfs`, \
                 set up by `git lfs install`",
                list(&pointers)
            ));
        }
        if self.place.join(".git/shallow").exists() {
            remarks.push("the repository is a shallow clone itself: its older commits are missing".to_owned());
        }
        let modules = self.call(&["ls-files", "-z", "--", ":(top).gitmodules"]).unwrap_or_default();
        if !modules.is_empty() {
            remarks.push("the repository has submodules, which are not fetched: their folders are empty".to_owned());
        }
        remarks
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
        if self.refs()?.is_empty() {
            self.proven()?;
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

/// Whether a file of the checkout is what git-lfs leaves in place of content.
fn is_pointer(place: &Path, path: &str) -> bool {
    const BEGIN: &[u8] = b"version https://git-lfs.github.com/spec/";
    let components: Vec<String> = path.split('/').map(str::to_owned).collect();
    let mut found = Vec::new();
    let read = open_regular(place, &components).map(|file| file.take(BEGIN.len() as u64).read_to_end(&mut found));
    read.is_ok() && found == BEGIN
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Reads to the end and keeps the last [`KEPT`] bytes.
fn keep_tail(mut stream: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<String>> {
    let (send, receive) = mpsc::channel();
    thread::Builder::new().stack_size(128 * 1024).spawn(move || {
        let mut kept = Vec::new();
        let mut chunk = [0; 8192];
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..length]);
            if kept.len() > 2 * KEPT {
                kept.drain(..kept.len() - KEPT);
            }
        }
        let from = kept.len().saturating_sub(KEPT);
        let from = from + first_whole(&kept[from..]);
        // The receiver may have lost its patience.
        let _ = send.send(String::from_utf8_lossy(&kept[from..]).into_owned());
    })?;
    Ok(receive)
}
