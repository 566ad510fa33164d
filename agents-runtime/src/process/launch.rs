//! The launcher: the short life between the engine's `spawn` and the runner's `exec`. It is a process of its own
//! because only what happens in the process that becomes the runner can be made exclusive without trusting the engine.
//!
//! In order: close our memory to other processes of the user, because it holds the key of the report, leave the engine's session, take the submission's lock, make sure that nothing began and nothing was
//! cancelled, record who we are, and become the runner. The lock stays with the runner and with everything it starts.
//! The pipe on standard output tells the engine how far it came; an engine that died meanwhile changes nothing.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agents_core::{plan::digest, report::KEY_VARIABLE};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::prctl::set_dumpable,
    unistd::setsid,
};

use super::{
    folder::{Folder, Started},
    identity::ProcessIdentity,
};
use crate::shortage;

/// Exit code of arguments that make no sense.
const EXIT_USAGE: i32 = 64;
/// Exit code of a launch that failed.
const EXIT_INTERNAL: i32 = 70;
/// The other holder of the lock is a launcher that records itself within milliseconds, or a probe.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long memory and the like may lack when the runner is to start.
const SHORTAGE_PATIENCE: Duration = Duration::from_secs(20);

/// First word of what the launcher tells the engine: it becomes the runner.
pub(super) const BEGUN: &str = "begun";
/// Another launcher became the runner before.
pub(super) const FOUND: &str = "found";
/// It was cancelled before it began.
pub(super) const CANCELLED: &str = "cancelled";
/// It could not be launched; the rest of the line says why.
pub(super) const FAILED: &str = "failed";

/// Runs the launcher with the arguments `FOLDER RUNNER [ARGUMENT…]`, which [`super::ProcessAdapter`] appends to its
/// launcher command. Returns only when this process does not become the runner; the result is its exit code.
///
/// A program that embeds the process adapter calls it from its own `main` before it starts a thread.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    // The runner says when this fails: it does the same again, since becoming it undoes this.
    let _ = set_dumpable(false);
    let mut args = args.into_iter();
    let (Some(folder), Some(runner)) = (args.next(), args.next()) else {
        tell(FAILED, "the launcher needs a folder and a runner");
        return EXIT_USAGE;
    };
    let folder = Folder::at(PathBuf::from(folder));
    let runner = PathBuf::from(runner);
    match launch(&folder, &runner, args) {
        Ok(word) => {
            tell(word, "");
            0
        }
        Err(error) => {
            tell(FAILED, &format!("{}: {error}", runner.display()));
            EXIT_INTERNAL
        }
    }
}

/// Becomes the runner, or says why there is nothing to become.
fn launch(folder: &Folder, runner: &Path, args: impl Iterator<Item = OsString>) -> io::Result<&'static str> {
    match setsid() {
        // A leader already: a caller gave us a group of our own.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(lock) = lock(folder)? else {
        return Ok(FOUND);
    };
    if folder.started()?.is_some() {
        return Ok(FOUND);
    }
    if folder.cancelled()?.is_some() {
        return Ok(CANCELLED);
    }
    folder.sweep();
    let output = OpenOptions::new().append(true).create(true).mode(0o600).open(folder.output())?;
    let mut command = Command::new(runner);
    command.args(args).arg(folder.spec()).stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    // The last thing that may fail before the record: after it there is no second launch.
    fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let proof_digest = std::env::var(KEY_VARIABLE).map(|key| digest::sha256(key.as_bytes())).unwrap_or_default();
    folder.record_start(&Started { process: ProcessIdentity::current()?, at: Timestamp::now(), proof_digest })?;
    // A cancel that found no record before leaves it to us; one that comes later finds the record and signals us.
    if folder.cancelled()?.is_some() {
        return Ok(CANCELLED);
    }
    tell(BEGUN, "");
    let error = become_runner(&mut command);
    folder.record_broken(&format!("cannot start {}: {error}", runner.display()))?;
    Err(error)
}

/// Returns only when this process cannot become the runner. What is lacking for the moment is waited for.
fn become_runner(command: &mut Command) -> io::Error {
    let until = Instant::now() + SHORTAGE_PATIENCE;
    loop {
        let error = command.exec();
        if shortage::of(&error).is_none() || Instant::now() >= until {
            return error;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The lock, or `None` when another launcher's runner has it.
fn lock(folder: &Folder) -> io::Result<Option<File>> {
    let file = folder.open_lock()?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if folder.started()?.is_some() => return Ok(None),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn tell(word: &str, rest: &str) {
    let line = format!("{word} {}\n", rest.replace('\n', " "));
    // The engine may be gone; nothing depends on its hearing this.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
}
