//! What test programs say: heard line by line, counted, and timed.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// Runs a program and hands over each line of its output and of its errors as it comes; whether it succeeded, or nothing
/// when it was ended, with all that it started in its group, because it took longer than it may.
pub(crate) fn listen(
    mut command: Command,
    at_most: Option<Duration>,
    mut hear: impl FnMut(&str),
) -> Result<Option<bool>> {
    fn forward(from: impl Read + Send + 'static, to: Sender<std::io::Result<Vec<u8>>>) {
        thread::spawn(move || BufReader::new(from).split(b'\n').try_for_each(|line| to.send(line)));
    }
    if at_most.is_some() {
        command.process_group(0);
    }
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("failed to start cargo test")?;
    let (to, lines) = mpsc::channel();
    forward(child.stdout.take().context("cargo test has no output")?, to.clone());
    forward(child.stderr.take().context("cargo test has no errors")?, to);
    let end = at_most.map(|time| Instant::now() + time);
    loop {
        let line = match end {
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(end) => lines.recv_timeout(end.saturating_duration_since(Instant::now())),
        };
        match line {
            Ok(line) => hear(&String::from_utf8_lossy(&line.context("failed to read what cargo test says")?)),
            Err(RecvTimeoutError::Disconnected) => {
                return Ok(Some(child.wait().context("failed to wait for cargo test")?.success()));
            }
            Err(RecvTimeoutError::Timeout) => {
                let group = Pid::from_raw(child.id().cast_signed()).context("cargo test has no process id")?;
                kill_process_group(group, Signal::KILL).context("cannot end cargo test")?;
                child.wait().context("failed to wait for cargo test")?;
                return Ok(None);
            }
        }
    }
}

/// What the harnesses of all test programs said, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    /// Why tests failed, repeated at the end: a log is read from there.
    pub(crate) failures: Vec<String>,
    in_failures: bool,
    /// The program that runs, and since when.
    running: Option<(String, Instant)>,
    /// Those that have ended, and how long each took.
    pub(crate) programs: Vec<(String, Duration)>,
}

impl Heard {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_failures = false;
            for part in result.split([';', '.']) {
                match part.trim().split_once(' ').map(|(count, what)| (count.parse::<usize>(), what)) {
                    Some((Ok(count), "passed")) => self.passed += count,
                    Some((Ok(count), "failed")) => self.failed += count,
                    Some((Ok(count), "ignored")) => self.ignored += count,
                    _ => {}
                }
            }
        } else if line == "failures:" {
            // The second time it heads the bare names.
            self.in_failures = !self.in_failures;
        } else if let Some(name) = program(line) {
            self.program_ended();
            self.running = Some((name, Instant::now()));
        } else if self.in_failures {
            self.failures.push(line.to_owned());
        }
    }

    /// All of it, when no more will come.
    pub(crate) fn end(mut self) -> Self {
        self.program_ended();
        self
    }

    fn program_ended(&mut self) {
        if let Some((name, since)) = self.running.take() {
            self.programs.push((name, since.elapsed()));
        }
    }
}

/// The test program that cargo says it starts: its crate or file.
fn program(line: &str) -> Option<String> {
    if let Some(name) = line.strip_prefix("   Doc-tests ") {
        return Some(format!("doc tests of {name}"));
    }
    let (_, path) = line.strip_prefix("     Running ")?.rsplit_once('/')?;
    let (name, _) = path.strip_suffix(')')?.rsplit_once('-')?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::{Heard, listen};

    #[test]
    fn failures_of_every_program_are_kept_with_their_reason() {
        let mut heard = Heard::default();
        let said = "     Running unittests src/lib.rs (target/debug/deps/agents_core-0a1b)\n\
            running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nwhy\n\nfailures:\n    b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n\
            \x20    Running tests/run.rs (target/debug/deps/run-0a1c)\n\
            running 1 test\ntest c ... ok\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            \x20  Doc-tests agents_core";
        said.lines().for_each(|line| heard.line(line));
        let heard = heard.end();
        assert_eq!((heard.passed, heard.failed, heard.ignored), (3, 1, 1));
        assert_eq!(heard.failures.concat(), "---- b stdout ----why");
        let programs: Vec<_> = heard.programs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(programs, ["agents_core", "run", "doc tests of agents_core"]);
    }

    #[test]
    fn both_streams_are_heard_to_their_ends() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; printf unended; exit 3"]);
        let mut heard = Vec::new();
        assert_eq!(listen(command, None, |line| heard.push(line.to_owned())).unwrap(), Some(false));
        heard.sort();
        assert_eq!(heard, ["err", "out", "unended"]);
    }

    #[test]
    fn what_takes_too_long_is_ended_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        assert_eq!(listen(command, Some(Duration::from_millis(50)), |_| ()).unwrap(), None);
    }
}
