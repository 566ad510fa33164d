//! `cargo xtask mutants`: switches each known fault on and sees the tests find it.
//!
//! The faults are those of [`agents_core::mutant`]. The tests of a row must pass without its fault and fail with it; a
//! fault that they do not find survives, and is a failure.

use std::time::Duration;

use agents_core::mutant::Mutant;
use anyhow::{Result, bail};

use crate::{
    cargo,
    heard::{Heard, listen},
    steps::Steps,
};

/// Names the fault to what is built with the feature `mutants`.
const VARIABLE: &str = "AGENTS_MUTANT";

/// A test that waits for what the fault keeps from it has found it too.
const AT_MOST: Duration = Duration::from_secs(15 * 60);

const SIMULATION: &[&str] = &["--package=agents-tests", "--test=simulation"];
const RUNNER: &[&str] = &["--package=agents-bin", "--test=runner"];
const PROCESSES: &[&str] = &["--package=agents-bin", "--test=process_adapter"];

/// A fault, the test program that must find it, and which of its tests are run: all whose name has one of the words.
const ROWS: &[(Mutant, &[&str], &[&str])] = &[
    (Mutant::ResubmitsUnrecorded, SIMULATION, &["unstored::"]),
    (Mutant::LeavesTheEndedAlive, SIMULATION, &["strays::"]),
    (Mutant::DoubtsFirstAttemptsOnly, SIMULATION, &["restart::"]),
    (Mutant::AdoptsByOwner, SIMULATION, &["forged::"]),
    (Mutant::CutsTheGrace, RUNNER, &["grace", "peace"]),
    (Mutant::BelievesAnyReport, PROCESSES, &["a_report_of_a_provider_that_killed"]),
];

/// What the tests of a row did.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    Passed,
    Failed,
    /// None has any of the words in its name.
    Nothing,
}

/// Runs every row.
///
/// # Errors
/// Rows whose tests fail without the fault or pass with it, or are none; what the tests said of the first has been said.
pub fn run(steps: &mut Steps<'_>) -> Result<()> {
    let mut wrong = Vec::new();
    for (mutant, program, words) in ROWS {
        let name = format!("{mutant:?}");
        let mut said = Vec::new();
        match tests(program, words, None, &mut said)? {
            Ran::Passed => {}
            Ran::Failed => {
                said.iter().for_each(|line| steps.say(line));
                wrong.push(format!("{name}: its tests fail without it"));
                continue;
            }
            Ran::Nothing => {
                wrong.push(format!("{name}: no test of {} is meant by {words:?}", program.join(" ")));
                continue;
            }
        }
        match tests(program, words, Some(&name), &mut said)? {
            Ran::Failed => steps.say(&format!("mutant {name}: found")),
            Ran::Passed | Ran::Nothing => {
                steps.say(&format!("mutant {name}: survives"));
                wrong.push(format!("{name} survives"));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

fn tests(program: &[&str], words: &[&str], mutant: Option<&str>, said: &mut Vec<String>) -> Result<Ran> {
    let command = |no_run: &[&str]| {
        let mut command = cargo();
        command.args(["test", "--quiet", "--features=mutants"]).args(program).args(no_run).env_remove(VARIABLE);
        command
    };
    // Apart, so that what does not build is never taken for a fault that was found.
    if listen(command(&["--no-run"]), None, |line| said.push(line.to_owned()))? != Some(true) {
        bail!("cargo test --features=mutants {} does not build:\n{}", program.join(" "), said.join("\n"));
    }
    let mut tests = command(&["--"]);
    tests.args(words);
    if let Some(name) = mutant {
        tests.env(VARIABLE, name);
    }
    let mut heard = Heard::default();
    let success = listen(tests, Some(AT_MOST), |line| {
        heard.line(line);
        said.push(line.to_owned());
    })?;
    Ok(match (success, heard.passed + heard.failed) {
        (Some(true), 0) => Ran::Nothing,
        (Some(true), _) => Ran::Passed,
        (Some(false) | None, _) => Ran::Failed,
    })
}

#[cfg(test)]
mod tests {
    use agents_core::mutant::Mutant;

    use super::ROWS;

    #[test]
    fn every_fault_has_tests_that_must_find_it() {
        assert!(Mutant::ALL.iter().all(|mutant| ROWS.iter().any(|(row, ..)| row == mutant)));
        assert!(ROWS.iter().all(|(_, _, words)| !words.is_empty()));
    }
}
