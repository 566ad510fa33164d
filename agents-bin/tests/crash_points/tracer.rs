//! Lives of `agents run` under ptrace: counted, and ended at the entry of the n-th call that changes something outside the
//! process. The product knows nothing of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{calls, common::HANG};

/// Which process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prey {
    /// `agents run` itself.
    Engine,
    /// Any process between the engine's `spawn` and the runner's `exec`; the engine lives on.
    Launcher,
    /// The engine, when a launcher of it is at such a call. The launcher is held after the call: it goes on when others
    /// have taken up its work.
    EngineOfLauncher,
}

/// What is done to a life.
#[derive(Debug, Clone)]
pub struct Hunt {
    pub prey: Prey,
    /// The call whose entry is the end, from 1 on; `None` only counts.
    pub at: Option<usize>,
    /// TERM is sent to the engine once this file is there, and what comes before does not count.
    pub term_after: Option<PathBuf>,
}

/// How a life went.
#[derive(Debug)]
pub struct Life {
    /// The prey's calls that counted, the one it died at included.
    pub calls: Vec<String>,
    /// Of an engine that ended by itself.
    pub code: Option<i32>,
    /// A launcher that was held and is stopped still.
    pub held: Option<Pid>,
}

/// Lives `command` with its output in `out` and `err`, to the end of everything that is traced.
pub fn live(command: &Command, out: &Path, err: &Path, hunt: &Hunt) -> Life {
    let engine = stopped(command, out, err);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if let Err(error) = ptrace::seize(engine, options) {
        let _ = kill(engine, Signal::SIGKILL);
        let _ = waitpid(engine, None);
        panic!("ptrace is not permitted here, and without it no crash point can be tried: {error}");
    }
    kill(engine, Signal::SIGCONT).unwrap();
    let (ended, end) = channel::<()>();
    let watch = thread::spawn(move || {
        let hangs = end.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout);
        if hangs {
            let _ = kill(engine, Signal::SIGKILL);
        }
        hangs
    });
    let mut trace = Trace {
        engine,
        hunt,
        owners: BTreeMap::new(),
        programs: BTreeMap::new(),
        dead: BTreeSet::new(),
        termed: false,
        life: Life { calls: Vec::new(), code: None, held: None },
    };
    trace.follow();
    drop(ended);
    assert!(!watch.join().unwrap(), "the engine hangs; {hunt:?}");
    trace.life
}

/// A process that becomes `command` when it is continued: so no call of it is missed.
fn stopped(command: &Command, out: &Path, err: &Path) -> Pid {
    let mut stopping = Command::new("sh");
    stopping.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => stopping.env(name, value),
            None => stopping.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        stopping.current_dir(folder);
    }
    stopping.stdin(Stdio::null()).stdout(File::create(out).unwrap()).stderr(File::create(err).unwrap());
    // Waited for by its number alone: the tracer gets its end.
    let pid = Pid::from_raw(i32::try_from(stopping.spawn().unwrap().id()).unwrap());
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    pid
}

struct Trace<'a> {
    engine: Pid,
    hunt: &'a Hunt,
    /// The process of each thread.
    owners: BTreeMap<Pid, Pid>,
    /// How many programs a process has become: of the engine 1 is `agents`; of its children 1 is the launcher and 2 the
    /// runner.
    programs: BTreeMap<Pid, u32>,
    dead: BTreeSet<Pid>,
    termed: bool,
    life: Life,
}

impl Trace<'_> {
    fn follow(&mut self) {
        // Of this thread alone: other tests have children too.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) => {
                    if pid == self.engine {
                        self.life.code = Some(code);
                    }
                    self.forget(pid);
                }
                Ok(WaitStatus::Signaled(pid, ..)) => self.forget(pid),
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    self.term_when_due();
                    self.call(pid);
                    self.resume(pid, None);
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => self.event(pid, event),
                Ok(WaitStatus::Stopped(pid, signal)) => self.resume(pid, Some(signal)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return,
                Err(error) => panic!("cannot wait for what is traced: {error}"),
            }
        }
    }

    fn event(&mut self, pid: Pid, event: libc::c_int) {
        let owner = self.owner(pid);
        if event == libc::PTRACE_EVENT_EXEC {
            *self.programs.entry(owner).or_default() += 1;
        }
        let is_runner = owner != self.engine && self.programs.get(&owner) == Some(&2);
        let is_of_no_interest = owner != self.engine && self.hunt.prey == Prey::Engine;
        if is_runner || is_of_no_interest {
            self.forget(pid);
            let _ = ptrace::detach(pid, None);
        } else {
            self.resume(pid, None);
        }
    }

    /// Goes on: to the next call where calls count.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let owner = self.owner(pid);
        let is_waiting_for_term = self.hunt.term_after.is_some() && !self.termed;
        let stops_at_calls = self.is_prey(owner) || owner == self.engine && is_waiting_for_term;
        // Whoever was killed meanwhile is reported by its end.
        let _ = if stops_at_calls { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    }

    fn is_prey(&self, owner: Pid) -> bool {
        match self.hunt.prey {
            Prey::Engine => owner == self.engine && self.programs.contains_key(&owner),
            Prey::Launcher | Prey::EngineOfLauncher => owner != self.engine,
        }
    }

    fn call(&mut self, pid: Pid) {
        let owner = self.owner(pid);
        let counts = self.hunt.term_after.is_none() || self.termed;
        if !counts || !self.is_prey(owner) || self.dead.contains(&owner) {
            return;
        }
        let Some(call) = calls::entered(pid, owner) else { return };
        self.life.calls.push(call);
        if self.hunt.at == Some(self.life.calls.len()) {
            let victim = if self.hunt.prey == Prey::EngineOfLauncher { self.engine } else { owner };
            kill(victim, Signal::SIGKILL).unwrap();
            self.dead.insert(victim);
            if victim != owner {
                kill(owner, Signal::SIGSTOP).unwrap();
                ptrace::detach(pid, None).unwrap();
                self.life.held = Some(owner);
            }
        }
    }

    fn term_when_due(&mut self) {
        if !self.termed && self.hunt.term_after.as_ref().is_some_and(|file| file.exists()) {
            kill(self.engine, Signal::SIGTERM).unwrap();
            self.termed = true;
        }
    }

    fn owner(&mut self, pid: Pid) -> Pid {
        *self.owners.entry(pid).or_insert_with(|| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let owner =
                status.lines().find_map(|line| line.strip_prefix("Tgid:")).and_then(|id| id.trim().parse().ok());
            owner.map_or(pid, Pid::from_raw)
        })
    }

    /// Numbers are used again.
    fn forget(&mut self, pid: Pid) {
        self.owners.remove(&pid);
        if pid != self.engine {
            self.programs.remove(&pid);
        }
    }
}
