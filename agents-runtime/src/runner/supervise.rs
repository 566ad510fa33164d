//! Waits for a child while listening to signals, the deadline and orphans.
//!
//! No async runtime: its reaper would compete with ours for the orphans a first process inherits, and one thread that
//! polls three descriptors is all that is needed. Signals are caught by handlers that write into a socket; a blocked
//! mask would be inherited by the provider, handlers are not.

use std::{
    fmt,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

use agents_core::mutant::{Mutant, is_on};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal, killpg},
    unistd::Pid,
};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGXFSZ},
    flag,
    low_level::pipe,
};

use super::processes::{Force, Stragglers, reap_orphans};
use crate::shortage;

/// How long processes that outlive a provider which ended by itself may take after TERM.
const STRAGGLER_GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to vanish before it is given up.
const VANISH: Duration = Duration::from_secs(10);
/// How long processes, memory and the like may lack when a child is to start.
const SHORTAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to start it.
const SHORTAGE_LOOK: Duration = Duration::from_millis(100);
/// Between two looks at processes that are not our children and so send us no signal.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What ends an attempt, whatever whoever started the runner ignores.
const MUST_BE_HEARD: [i32; 2] = [SIGTERM, SIGUSR1];

/// Why a child was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// The runner got a signal.
    Asked,
    /// Time ran out.
    Deadline,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// It was killed and is still there, or the system does not tell.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unknown => f.write_str("did not end, or the system does not tell how"),
        }
    }
}

/// Hears signals as bytes.
#[derive(Debug)]
struct Ear {
    read: UnixStream,
    /// Without it, where no signal is listened to, the other end would be at its end and a wait for it no wait.
    _write: UnixStream,
}

/// Listens for one attempt.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// TERM and INT: the second one ends the grace.
    stop: Ear,
    /// HUP, QUIT and USR1: told again, they ask for nothing more.
    hangup: Ear,
    children: Ear,
    deadline: Option<Instant>,
    grace: Duration,
    interrupt: Option<Interrupt>,
    stops: usize,
    /// The process group that was asked to end, and when its grace began.
    asked: Option<(Pid, Instant)>,
}

impl Supervisor {
    /// Starts to listen; from here on the runner is not ended by a signal it can catch.
    ///
    /// What was ignored when the runner started, such as HUP by `nohup`, is not listened to, but for TERM and USR1: those must
    /// be heard. A handler stands there all the same, because the provider would inherit that it is ignored.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub(super) fn install() -> io::Result<Self> {
        // Whoever started us may have blocked signals, and nobody would ever hear of them.
        SigSet::empty().thread_set_mask()?;
        let ignored = ignored();
        let heard = |signals: &[i32]| -> Vec<i32> {
            let is_heard = |signal: &i32| MUST_BE_HEARD.contains(signal) || ignored & (1 << (signal - 1)) == 0;
            signals.iter().copied().filter(is_heard).collect()
        };
        for signal in [SIGINT, SIGHUP, SIGQUIT].into_iter().filter(|signal| heard(&[*signal]).is_empty()) {
            flag::register(signal, Arc::default())?;
        }
        // A file as large as a limit allows is an error of a write, and no reason to die.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self {
            stop: listen(&heard(&[SIGTERM, SIGINT]))?,
            hangup: listen(&heard(&[SIGHUP, SIGQUIT, SIGUSR1]))?,
            children: listen(&[SIGCHLD])?,
            deadline: None,
            grace: Duration::ZERO,
            interrupt: None,
            stops: 0,
            asked: None,
        })
    }

    /// Sets the bounds, counted from now on the clock that never jumps. A time nobody lives to see is none.
    pub(super) fn limit(&mut self, timeout: Option<Duration>, grace: Duration) {
        self.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.grace = grace;
    }

    /// Why the attempt is to end, if it is.
    pub(super) fn interrupt(&self) -> Option<Interrupt> {
        self.interrupt
    }

    /// Looks for signals and the deadline without waiting.
    pub(super) fn look(&mut self) -> Option<Interrupt> {
        self.wait_for(Duration::ZERO);
        self.interrupt
    }

    /// Starts a child. What the system lacks for the moment is waited for, unless the attempt is to end.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn spawn(&mut self, command: &mut Command) -> io::Result<Child> {
        let until = Instant::now() + SHORTAGE_PATIENCE;
        loop {
            match command.spawn() {
                Err(error) if shortage::of(&error).is_some() && self.interrupt.is_none() && Instant::now() < until => {
                    self.wait_for(SHORTAGE_LOOK);
                }
                started => return started,
            }
        }
    }

    /// Waits for the end of a child that leads its own process group. When the attempt is to end, the group gets TERM,
    /// then after the grace KILL; a second TERM or INT ends the grace.
    pub(super) fn wait(&mut self, child: &mut Child) -> Ending {
        self.wait_until(child, None)
    }

    /// Waits for the end of a child of ours that works for the report, at most for `patience`; then it is killed. That
    /// the attempt is to end is no reason to end it.
    pub(super) fn wait_at_most(&mut self, child: &mut Child, patience: Duration) -> Ending {
        self.wait_until(child, Some(patience))
    }

    fn wait_until(&mut self, child: &mut Child, patience: Option<Duration>) -> Ending {
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let group = Pid::from_raw(pid);
        let patience_ends = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut asked_at: Option<Instant> = None;
        let mut killed_at: Option<Instant> = None;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => Ending::Exited(code),
                        (None, Some(signal)) => Ending::Signaled(signal),
                        (None, None) => Ending::Unknown,
                    };
                }
                Ok(None) => {}
                Err(_) => return Ending::Unknown,
            }
            let now = Instant::now();
            let is_over = match patience_ends {
                Some(end) => now >= end,
                None => self.interrupt.is_some(),
            };
            if asked_at.is_none() && is_over {
                // The group exists as long as its leader is not reaped, which only we do.
                let _ = killpg(group, Signal::SIGTERM);
                let _ = killpg(group, Signal::SIGCONT);
                asked_at = Some(now);
                if patience.is_none() {
                    self.asked = Some((group, now));
                }
            }
            let grace = if patience.is_some() { Duration::ZERO } else { self.grace };
            let grace_ends = asked_at.and_then(|at| at.checked_add(grace));
            if killed_at.is_none() && (self.stops > 1 || grace_ends.is_some_and(|end| now >= end)) {
                let _ = killpg(group, Signal::SIGKILL);
                killed_at = Some(now);
            }
            let vanish_ends = killed_at.map(|at| at + VANISH);
            if vanish_ends.is_some_and(|end| now >= end) {
                return Ending::Unknown;
            }
            let next = match (asked_at, killed_at) {
                (_, Some(_)) => vanish_ends,
                (Some(_), None) => grace_ends,
                (None, None) => patience_ends,
            };
            let longest = Duration::from_secs(3600);
            self.wait_for(next.map_or(longest, |next| next.saturating_duration_since(now)));
            reap_orphans(pid);
        }
    }

    /// Ends everything the attempt left behind: TERM, a grace, KILL. Returns how many processes remain.
    ///
    /// Once the attempt is to end, its grace is for every process and not for the first alone: the group that was asked
    /// keeps what is left of it and is not asked again. What is left after an end of its own gets a short time.
    pub(super) fn end_stragglers(&mut self) -> usize {
        let begin = Instant::now();
        let mut stragglers = Stragglers::new(self.asked.map(|(group, _)| group));
        let short = begin + self.grace.min(STRAGGLER_GRACE);
        // Asked to end just when it had ended by itself, it leaves processes that nobody has asked yet.
        let grace_began = self.asked.map_or(begin, |(_, at)| at);
        let grace_ends = match self.interrupt {
            Some(_) if !is_on(Mutant::CutsTheGrace) => grace_began.checked_add(self.grace),
            Some(_) | None => Some(short),
        };
        loop {
            let now = Instant::now();
            let is_over = grace_ends.is_some_and(|end| now >= end);
            let force = Force {
                asked_before: self.stops > 1 || is_over,
                // Those outside the group have only just been asked.
                others: self.stops > 1 || (is_over && now >= short),
            };
            let left = stragglers.end(force);
            let given_up = grace_ends.is_some_and(|end| now >= end.max(short) + VANISH);
            if left == 0 || given_up {
                return left;
            }
            self.wait_for(LOOK_AGAIN);
        }
    }

    /// Waits for a signal, the deadline, or `longest`.
    fn wait_for(&mut self, longest: Duration) {
        let until_deadline = match (self.deadline, self.interrupt) {
            (Some(deadline), None) => deadline.saturating_duration_since(Instant::now()),
            _ => longest,
        };
        // Rounded up, else the last millisecond would be spent spinning.
        let wait = longest.min(until_deadline);
        let millis = i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let mut fds =
            [&self.stop, &self.hangup, &self.children].map(|ear| PollFd::new(ear.read.as_fd(), PollFlags::POLLIN));
        // Interrupted or refused: the loops around look again.
        let _ = poll(&mut fds, PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX));
        let stops = drain(&self.stop);
        let hangups = drain(&self.hangup);
        drain(&self.children);
        self.stops += stops;
        if stops + hangups > 0 {
            // What comes first names the reason.
            self.interrupt.get_or_insert(Interrupt::Asked);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.interrupt.get_or_insert(Interrupt::Deadline);
        }
    }
}

/// The signals that are ignored, one bit each; none where the process table does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn listen(signals: &[i32]) -> io::Result<Ear> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    write.set_nonblocking(true)?;
    for signal in signals {
        pipe::register(*signal, write.try_clone()?)?;
    }
    Ok(Ear { read, _write: write })
}

fn drain(ear: &Ear) -> usize {
    let mut stream = &ear.read;
    let mut total = 0;
    let mut bytes = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        total += length;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where HUP and QUIT are ignored, as below `nohup` in the background, nobody writes.
    #[test]
    fn a_wait_for_no_signal_is_a_wait() {
        let ear = listen(&[]).unwrap();
        let mut fds = [PollFd::new(ear.read.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0));
        assert_eq!(drain(&ear), 0);
    }
}
