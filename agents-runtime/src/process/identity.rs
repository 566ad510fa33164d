//! Which process it is: a pid alone is not an identity, because pids are used again.
//!
//! May read `/proc` and send signals; touches no file of a submission. A signal is sent only after the identity was
//! verified.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, process, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// A process, told apart from every other that ever had or will have its pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot it belongs to.
    pub boot_id: String,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// Whether it has ended and only waits for its parent.
    ended: bool,
    session: i32,
    start_ticks: u64,
}

impl ProcessIdentity {
    /// This process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn current() -> io::Result<Self> {
        let pid = i32::try_from(process::id()).map_err(io::Error::other)?;
        let stat = stat(pid)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id()? })
    }

    /// Whether this very process still runs.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn is_alive(&self) -> io::Result<bool> {
        if boot_id()? != self.boot_id {
            return Ok(false);
        }
        Ok(stat(self.pid)?.is_some_and(|stat| !stat.ended && stat.start_ticks == self.start_ticks))
    }

    /// Sends `signal` to this very process; whether it was there.
    ///
    /// # Errors
    /// The signal may not be sent.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        if !self.is_alive()? {
            return Ok(false);
        }
        send(self.pid, signal)
    }
}

/// How the processes of one submission are recognised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks<'a> {
    /// Its first process: the leader of its session.
    pub(super) leader: &'a ProcessIdentity,
    /// The file that its processes inherited open.
    pub(super) lock: &'a Path,
    /// Variables that its processes inherited.
    pub(super) variables: &'a [(&'static str, String)],
}

/// Kills every process that certainly belongs to a submission; how many there were.
///
/// Certain is: it holds the submission's lock file open, or it is in the session of the first process while that still
/// lives, or it carries every one of the submission's variables. A process that left all three behind is no longer
/// recognisable, and the runner, which adopts such processes, ends them before it reports.
///
/// # Errors
/// `/proc` cannot be listed.
pub(super) fn kill_all(marks: Marks<'_>) -> io::Result<usize> {
    if boot_id()? != marks.leader.boot_id {
        return Ok(0);
    }
    let lock = fs::metadata(marks.lock).ok().map(|found| (found.dev(), found.ino()));
    let mut killed = 0;
    // Until a pass finds nothing: a process may fork between being listed and being killed.
    for _ in 0..16 {
        let session = marks.leader.is_alive()?;
        let mut found = 0;
        for pid in pids()? {
            let Ok(Some(stat)) = stat(pid) else { continue };
            if stat.ended || stat.start_ticks < marks.leader.start_ticks || pid == own_pid() {
                continue;
            }
            let ours = (session && stat.session == marks.leader.pid)
                || lock.is_some_and(|lock| holds(pid, lock))
                || carries(pid, marks.variables);
            if ours && send(pid, Signal::SIGKILL).unwrap_or(false) {
                found += 1;
            }
        }
        if found == 0 {
            break;
        }
        killed += found;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(killed)
}

fn own_pid() -> i32 {
    i32::try_from(process::id()).unwrap_or(0)
}

fn send(pid: i32, signal: Signal) -> io::Result<bool> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

fn pids() -> io::Result<Vec<i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn stat(pid: i32) -> io::Result<Option<Stat>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The name of the program may contain spaces and brackets, so the fields are counted from its last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    let start_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { ended: matches!(state, "Z" | "X" | "x"), session, start_ticks })
}

fn holds(pid: i32, (dev, ino): (u64, u64)) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok()).any(|open| open.dev() == dev && open.ino() == ino)
}

fn carries(pid: i32, variables: &[(&'static str, String)]) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    !variables.is_empty()
        && variables.iter().all(|(name, value)| {
            environ.split(|byte| *byte == 0).any(|entry| {
                entry.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) == Some(value.as_bytes())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 6 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 999 1";
        assert_eq!(parse_stat(text), Some(Stat { ended: false, session: 6, start_ticks: 12345 }));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let me = ProcessIdentity::current().unwrap();
        assert!(me.is_alive().unwrap());
        let earlier = ProcessIdentity { start_ticks: me.start_ticks - 1, ..me.clone() };
        assert!(!earlier.is_alive().unwrap());
        let other_boot = ProcessIdentity { boot_id: "another".into(), ..me };
        assert!(!other_boot.is_alive().unwrap());
    }

    #[test]
    fn an_ended_child_nobody_has_waited_for_is_not_alive() {
        let mut child = process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ended = (0..2000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            stat(pid).unwrap().is_some_and(|stat| stat.ended)
        });
        child.wait().unwrap();
        assert!(ended);
    }
}
