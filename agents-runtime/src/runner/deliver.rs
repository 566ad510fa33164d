//! Writes the report: the status file and the termination message.
//!
//! Runs when every process of the provider has ended. Whatever stands at the paths is replaced and no link is
//! followed, so nothing the provider left there is ever taken for the report.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use agents_core::{plan::runner_spec::ArtifactPaths, report::Report};
use nix::fcntl::OFlag;
use thiserror::Error;

use super::{
    folder::{FileError, Missing, Obstacle, open_below, write_whole},
    roots::{NotAllowed, RootMap, beneath},
};

/// Where Kubernetes reads the termination message.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Names another file for the termination message.
pub(super) const TERMINATION_VARIABLE: &str = "AGENT_TERMINATION_PATH";

/// A report that cannot be written.
#[derive(Debug, Error)]
pub(super) enum DeliverError {
    /// It cannot be put into JSON.
    #[error("the report is not JSON")]
    Json(#[from] serde_json::Error),
    /// The status file.
    #[error("status file: {0}")]
    Status(#[from] FileError),
    /// The termination message.
    #[error("termination message `{}`: {source}", .path.display())]
    Termination {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A file of ours: a trusted folder and the way below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    root: PathBuf,
    parents: Vec<String>,
    name: String,
}

impl Target {
    /// The file of a path.
    ///
    /// # Errors
    /// The path is not below `/workspace` or `/root`: what stands at a path of ours is replaced, which must never hit
    /// a device or a file of the system.
    pub(super) fn new(path: &str, roots: &RootMap) -> Result<Self, NotAllowed> {
        let mut place = beneath(path)?;
        let name = place.components.pop().ok_or_else(|| NotAllowed::Outside(path.to_owned()))?;
        Ok(Self { root: roots.place(place.root).clone(), parents: place.components, name })
    }

    /// Its folder, created and cleared of links.
    ///
    /// # Errors
    /// The folder cannot be opened or created.
    pub(super) fn folder(&self) -> Result<std::os::fd::OwnedFd, FileError> {
        // When that fails, opening it says why.
        let _ = std::fs::create_dir_all(&self.root);
        let open = || open_below(&self.root, &self.parents, Missing::Create, Obstacle::Replace);
        open().or_else(|error| {
            if !error.is_denied() {
                return Err(error);
            }
            // A provider may close its folders against its own user, who is ours.
            let _ = std::fs::set_permissions(&self.root, std::fs::Permissions::from_mode(0o700));
            open()
        })
    }

    /// Its name in the folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its real path.
    pub(super) fn path(&self) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(&self.parents);
        path.join(&self.name)
    }
}

/// The status file of a spec, as far as its paths are any good.
pub(super) fn status_target(artifacts: &ArtifactPaths, roots: Option<&RootMap>) -> Option<Target> {
    Target::new(&artifacts.status_path, roots?).ok()
}

/// The file of the termination message: the one given, else Kubernetes' own when there is one.
pub(super) fn termination_path(given: Option<PathBuf>) -> Option<PathBuf> {
    given.or_else(|| {
        let path = Path::new(TERMINATION_LOG);
        path.is_file().then(|| path.to_owned())
    })
}

/// Writes both; the second even when the first fails.
///
/// # Errors
/// The first that could not be written.
pub(super) fn deliver(
    report: &Report,
    status: Option<&Target>,
    termination: Option<&Path>,
) -> Result<(), DeliverError> {
    let written = status.map_or(Ok(()), |target| write_status(report, target));
    if let Some(path) = termination {
        write_termination(report, path)
            .map_err(|source| DeliverError::Termination { path: path.to_owned(), source })?;
    }
    written
}

fn write_status(report: &Report, target: &Target) -> Result<(), DeliverError> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    write_whole(&target.folder()?, target.name(), &text, 0o644, Obstacle::Replace)?;
    Ok(())
}

/// In place first: in a pod the file is a mount of its own and cannot be renamed over.
fn write_termination(report: &Report, path: &Path) -> io::Result<()> {
    write_in_place(report, path).or_else(|_| {
        std::fs::remove_file(path)?;
        write_in_place(report, path)
    })
}

fn write_in_place(report: &Report, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    file.write_all(report.termination_message().as_bytes())?;
    file.sync_all()
}
