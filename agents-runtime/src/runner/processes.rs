//! Which processes descend from the runner, and how they are ended.
//!
//! A process group is not enough: a daemon leaves it by `setsid`. As the first process of a container the runner is
//! everybody's ancestor and one signal reaches all. Elsewhere it becomes the reaper of its orphans, so that whatever
//! the provider started stays below it in the process table, and that is walked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};

/// One line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Whether it has ended and only waits to be reaped.
    pub ended: bool,
}

/// Reads one `/proc/PID/stat`; the name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<Process> {
    let (pid, rest) = text.split_once(' ')?;
    let mut fields = rest.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        ended: matches!(state, "Z" | "X" | "x"),
    })
}

/// Everything below `root` in the table, `root` itself left out.
fn descendants(root: i32, table: &[Process]) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if seen.insert(child.pid) {
                found.push(*child);
                open.push(child.pid);
            }
        }
    }
    found
}

/// The process table; empty when `/proc` is not that of our own process namespace.
fn table() -> Vec<Process> {
    let own = fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_stat(&text));
    if own.is_none_or(|own| own.pid != getpid().as_raw()) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        // A process that ends while we read is not there any more.
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|text| parse_stat(&text))
        .collect()
}

/// Reaps orphans that came to us, but not `spared`, whose end somebody else waits for.
pub(super) fn reap_orphans(spared: i32) {
    let me = getpid().as_raw();
    for process in table() {
        if process.ended && process.parent == me && process.pid != spared {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Reaps every child that has ended. Only for a time when nobody waits for a child.
fn reap_all() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Who is killed instead of asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Force {
    /// The members of the group that was asked before.
    pub asked_before: bool,
    /// Everybody else.
    pub others: bool,
}

/// What is left to be ended.
#[derive(Debug)]
pub(super) struct Stragglers {
    /// A group whose members were asked before: no one of them is asked twice. What joined it later was started by one
    /// that knows that it is to end.
    asked_before: Option<i32>,
    asked: BTreeSet<i32>,
}

impl Stragglers {
    /// Of an attempt of which the group `asked_before` was asked to end already.
    pub(super) fn new(asked_before: Option<Pid>) -> Self {
        Self { asked_before: asked_before.map(Pid::as_raw), asked: BTreeSet::new() }
    }

    /// Reaps what has ended and asks the rest to end: each once politely, or by force. Returns how many are left.
    pub(super) fn end(&mut self, force: Force) -> usize {
        reap_all();
        let me = getpid().as_raw();
        let table = table();
        if me != 1 {
            let alive: Vec<Process> = descendants(me, &table).into_iter().filter(|process| !process.ended).collect();
            self.end_each(&alive, force);
            return alive.len();
        }
        let everything = Pid::from_raw(-1);
        if kill(everything, None) == Err(Errno::ESRCH) {
            return 0;
        }
        let alive: Vec<Process> = table.into_iter().filter(|process| process.pid != me && !process.ended).collect();
        if force.asked_before && force.others {
            let _ = kill(everything, Signal::SIGKILL);
        } else if !alive.is_empty() {
            self.end_each(&alive, force);
        } else if self.asked_before.is_none() && self.asked.insert(-1) {
            // Without a process table nobody can be left out.
            let _ = kill(everything, Signal::SIGTERM);
        }
        alive.len().max(1)
    }

    fn end_each(&mut self, alive: &[Process], force: Force) {
        for Process { pid, parent: _, group, ended: _ } in alive {
            let was_asked = self.asked_before == Some(*group);
            let by_force = if was_asked { force.asked_before } else { force.others };
            let process = Pid::from_raw(*pid);
            if by_force {
                let _ = kill(process, Signal::SIGKILL);
            } else if !was_asked && self.asked.insert(*pid) {
                let _ = kill(process, Signal::SIGTERM);
                // One that is stopped hears nothing else before it goes on.
                let _ = kill(process, Signal::SIGCONT);
            }
        }
    }
}

/// Ends everything at once, when nothing else can be relied on any more.
pub(super) fn end_by_force() {
    let mut stragglers = Stragglers::new(None);
    for _ in 0..1000 {
        if stragglers.end(Force { asked_before: true, others: true }) == 0 {
            return;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let read = parse_stat("17 (a) R 1 (x) S 5 17 17 0 -1").unwrap();
        assert_eq!((read.pid, read.parent, read.group, read.ended), (17, 5, 17, false));
        assert!(parse_stat("9 (dead) Z 5 9 0").unwrap().ended);
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn all_generations_are_found_and_a_circle_ends() {
        let process = |pid, parent| Process { pid, parent, group: pid, ended: false };
        let table = [process(1, 0), process(5, 1), process(6, 5), process(7, 6), process(8, 1), process(9, 9)];
        let mut found: Vec<i32> = descendants(5, &table).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [6, 7]);
        assert!(descendants(9, &table).is_empty());
    }
}
