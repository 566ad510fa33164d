//! Reads and writes files below a folder without following a link.
//!
//! Every path is walked component by component with folder descriptors and `O_NOFOLLOW`, so a link that is put in
//! place while we walk changes nothing. `openat2` would say the same in one call, but the parents must be created one
//! by one anyway, and some sandboxes answer `openat2` with a permission error. A `..` never reaches this room.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat},
    unistd::{UnlinkatFlags, fsync, unlinkat},
};
use thiserror::Error;

/// A file that cannot be written or read.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// A link, a file or another thing stands where a folder is needed.
    #[error("`{0}` is not a folder, or is a link")]
    NotAFolder(String),
    /// Something that is not a regular file stands at the path.
    #[error("`{0}` is not a regular file")]
    NotAFile(String),
    /// The system refused.
    #[error("`{path}`: {source}")]
    Io {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FileError {
    /// Whether there is nothing at the path.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether permission is missing.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// What to do with a thing that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Leave it and fail.
    Refuse,
    /// Take it away: the path is ours.
    Replace,
}

/// What to do when a folder is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Create it.
    Create,
    /// Fail.
    Fail,
}

fn io_error(path: &str) -> impl FnOnce(Errno) -> FileError {
    let path = path.to_owned();
    move |errno| FileError::Io { path, source: errno.into() }
}

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a folder that is trusted: links in its own path are followed.
///
/// # Errors
/// It is not there, not a folder, or cannot be read.
pub(super) fn open_trusted(path: &Path) -> Result<OwnedFd, FileError> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(io_error(&path.display().to_string()))
}

/// Opens the folder `components` below `root`.
///
/// # Errors
/// A component is missing or no folder, and was not to be created or replaced.
pub(super) fn open_below(
    root: &Path,
    components: &[String],
    missing: Missing,
    obstacle: Obstacle,
) -> Result<OwnedFd, FileError> {
    let mut folder = open_trusted(root)?;
    let mut so_far = root.display().to_string();
    for component in components {
        so_far = format!("{so_far}/{component}");
        let name = component.as_str();
        folder = match openat(&folder, name, FOLDER, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) if missing == Missing::Create => create_folder(&folder, name, &so_far)?,
            Err(Errno::ELOOP | Errno::ENOTDIR) if obstacle == Obstacle::Replace => {
                unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir).map_err(io_error(&so_far))?;
                create_folder(&folder, name, &so_far)?
            }
            Err(Errno::EACCES) if obstacle == Obstacle::Replace => reopen(&folder, name, &so_far)?,
            Err(Errno::ELOOP | Errno::ENOTDIR) => return Err(FileError::NotAFolder(so_far)),
            Err(errno) => return Err(io_error(&so_far)(errno)),
        };
    }
    if obstacle == Obstacle::Replace
        && let Ok(found) = fstat(&folder)
        && found.st_mode & OWNERS.bits() != OWNERS.bits()
    {
        // When that fails, writing says why.
        let _ = fchmod(&folder, Mode::from_bits_truncate(found.st_mode) | OWNERS);
    }
    Ok(folder)
}

/// What the owner of a folder needs to use it.
const OWNERS: Mode = Mode::S_IRWXU;

/// Opens a folder of ours that was closed against its owner.
fn reopen(parent: &OwnedFd, name: &str, path: &str) -> Result<OwnedFd, FileError> {
    if kind(parent, name) == Ok(Some(SFlag::S_IFDIR)) {
        let _ = fchmodat(parent, name, OWNERS, FchmodatFlags::FollowSymlink);
    }
    openat(parent, name, FOLDER, Mode::empty()).map_err(io_error(path))
}

fn create_folder(parent: &OwnedFd, name: &str, path: &str) -> Result<OwnedFd, FileError> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(io_error(path)(errno)),
    }
    openat(parent, name, FOLDER, Mode::empty()).map_err(io_error(path))
}

/// Kind of the thing called `name`; none when there is nothing.
fn kind(folder: &OwnedFd, name: &str) -> Result<Option<SFlag>, Errno> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Writes a whole file by a temporary one and a rename, so that neither a link nor a half-written file is ever seen;
/// it is on the disk when this returns.
///
/// # Errors
/// Something else than a regular file stands there and is not to be replaced, or the system refused.
pub(super) fn write_whole(
    folder: &OwnedFd,
    name: &str,
    content: &[u8],
    mode: u32,
    obstacle: Obstacle,
) -> Result<(), FileError> {
    let standing = kind(folder, name).map_err(io_error(name))?;
    match (standing, obstacle) {
        (None | Some(SFlag::S_IFREG), _) => {}
        (Some(_), Obstacle::Refuse) => return Err(FileError::NotAFile(name.to_owned())),
        // A rename replaces everything but a folder.
        (Some(SFlag::S_IFDIR), Obstacle::Replace) => {
            let aside = format!(".{name}.replaced.{}", std::process::id());
            renameat(folder, name, folder, aside.as_str()).map_err(io_error(name))?;
        }
        (Some(_), Obstacle::Replace) => {}
    }
    let temporary = format!(".{name}.{}", std::process::id());
    let mut file = create_new(folder, &temporary, mode)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(|source| FileError::Io { path: name.to_owned(), source })
        .and_then(|()| renameat(folder, temporary.as_str(), folder, name).map_err(io_error(name)));
    if written.is_err() {
        // It is ours and useless; a failure to remove it changes nothing.
        let _ = unlinkat(folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    written?;
    fsync(folder).map_err(io_error(name))
}

/// Creates a file of ours, open for reading and writing; a thing of that name is taken away first.
///
/// # Errors
/// A folder has the name, or the system refused.
pub(super) fn create_new(folder: &OwnedFd, name: &str, mode: u32) -> Result<File, FileError> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(io_error(name)(errno)),
    }
    let mode = Mode::from_bits_truncate(mode);
    let file = openat(folder, name, flags, mode).map_err(io_error(name))?;
    fchmod(&file, mode).map_err(io_error(name))?;
    Ok(File::from(file))
}

/// Opens a regular file for reading; never waits for the other end of a FIFO.
///
/// # Errors
/// There is nothing, or something that is not a regular file; or a parent is a link.
pub(super) fn open_regular(root: &Path, components: &[String]) -> Result<File, FileError> {
    let Some((name, parents)) = components.split_last() else {
        return Err(FileError::NotAFile(root.display().to_string()));
    };
    let folder = open_below(root, parents, Missing::Fail, Obstacle::Refuse)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match openat(&folder, name.as_str(), flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ELOOP | Errno::ENXIO) => return Err(FileError::NotAFile(name.clone())),
        Err(errno) => return Err(io_error(name)(errno)),
    };
    let stat = fstat(file.as_fd()).map_err(io_error(name))?;
    if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() {
        Ok(File::from(file))
    } else {
        Err(FileError::NotAFile(name.clone()))
    }
}

/// Whether `name` in the folder is the file behind `file`.
pub(super) fn is_same(folder: &OwnedFd, name: &str, file: &File) -> bool {
    match (fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW), fstat(file)) {
        (Ok(named), Ok(open)) => named.st_dev == open.st_dev && named.st_ino == open.st_ino,
        _ => false,
    }
}
