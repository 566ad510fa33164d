//! `cargo xtask test`: every test ring, and the truth about which ones ran.
//!
//! Unit, property and simulation tests need nothing. The `api` ring needs a real API server, the `node` ring a real node;
//! both are started by the tests themselves through [`crate::cluster`]. A ring that cannot run is named, and is a failure
//! when it is required.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, check, cluster};

/// Names the rings that tests may use; unset in a plain `cargo test`.
pub const RINGS_VARIABLE: &str = "AGENTS_TEST_RINGS";

/// A ring that needs something started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Ring {
    /// A real API server.
    Api,
    /// A real node.
    Node,
}

impl Ring {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Node => "node",
        }
    }
}

/// Whether a test of `ring` may run; says so when it may not.
pub fn enabled(ring: Ring) -> bool {
    let rings = std::env::var(RINGS_VARIABLE).unwrap_or_default();
    let enabled = rings.split(',').any(|name| name == ring.name());
    if !enabled {
        eprintln!("skipped: the {} ring runs through `cargo xtask test`", ring.name());
    }
    enabled
}

/// Runs the checks and every ring.
///
/// # Errors
/// A check or a test that failed, or a required ring that cannot run.
pub fn run(required: &BTreeSet<Ring>, mut say: impl FnMut(&str)) -> Result<()> {
    let mut rings = Vec::new();
    let mut skipped = Vec::new();
    for ring in [Ring::Api, Ring::Node] {
        match cluster::availability(ring == Ring::Node) {
            Ok(way) => {
                say(&format!("ring {}: {way}", ring.name()));
                rings.push(ring.name());
            }
            Err(unavailable) if required.contains(&ring) => bail!("ring {} is required: {unavailable}", ring.name()),
            Err(unavailable) => skipped.push(format!("ring {} skipped: {unavailable}", ring.name())),
        }
    }
    check::run(&mut say)?;
    say("test: every ring");
    let mut tests = cargo()
        .args(["test", "--workspace", "--no-fail-fast"])
        .env(RINGS_VARIABLE, rings.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start cargo test")?;
    let mut heard = Heard::default();
    for line in BufReader::new(tests.stdout.take().context("cargo test has no output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line.context("failed to read what cargo test says")?).into_owned();
        say(&line);
        heard.line(line);
    }
    let status = tests.wait().context("failed to wait for cargo test")?;
    let Heard { passed, failed, ignored, failures, .. } = heard;
    for line in &failures {
        say(line);
    }
    for line in &skipped {
        say(line);
    }
    say(&format!("rings run: unit, simulation{}{}", if rings.is_empty() { "" } else { ", " }, rings.join(", ")));
    say(&format!("tests: {passed} passed, {failed} failed, {ignored} ignored"));
    if status.success() { Ok(()) } else { bail!("tests failed") }
}

/// What the harnesses of all test programs said, one after the other.
#[derive(Debug, Default)]
struct Heard {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Why tests failed, repeated at the end: a log is read from there.
    failures: Vec<String>,
    in_failures: bool,
}

impl Heard {
    fn line(&mut self, line: String) {
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
        } else if self.in_failures {
            self.failures.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Heard;

    #[test]
    fn failures_of_every_program_are_kept_with_their_reason() {
        let mut heard = Heard::default();
        let said = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nwhy\n\nfailures:\n    b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n\
            running 1 test\ntest c ... ok\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        said.lines().for_each(|line| heard.line(line.to_owned()));
        assert_eq!((heard.passed, heard.failed, heard.ignored), (3, 1, 1));
        assert_eq!(heard.failures.concat(), "---- b stdout ----why");
    }
}
