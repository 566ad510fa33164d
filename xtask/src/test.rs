//! `cargo xtask test`: the checks, every test ring that can run, and with `--all` what takes longer than a gate may; the
//! truth about which rings ran, and the time of each step.

use std::{collections::BTreeSet, num::NonZero, thread, time::Duration};

use anyhow::{Result, bail};

use crate::{
    Success,
    bench::{self, Bench},
    cargo, check, fuzz,
    heard::{Heard, listen},
    mutants,
    rings::{REQUIRE_VARIABLE, RINGS_VARIABLE, Ring},
    steps::{Steps, clock},
};

/// What the gate may take when everything it needs is built.
const WARM: Duration = Duration::from_secs(12 * 60);
/// What the gate may take on a machine that has nothing.
const COLD: Duration = Duration::from_secs(60 * 60);
/// Test programs in the table: those that take longest.
const PROGRAMS: usize = 8;
/// How many tests of a program wait at once, which the test programs read.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";
/// Cases per property with `--all`, where the property does not say how many it needs.
const CASES: &str = "4096";
/// What the test program `crash_points` reads, see there.
const POINTS_VARIABLE: &str = "AGENTS_CRASH_POINTS";
/// Minutes of fuzzing with `--all`, for all targets together.
const FUZZ_MINUTES: u64 = 8;

/// Runs the checks and every ring; with `all` also the counts of the benches, mutants, fuzzing and more property cases.
///
/// # Errors
/// A check or a test that failed, or a required ring that cannot run.
pub fn run(required: &BTreeSet<Ring>, all: bool, mut say: impl FnMut(&str)) -> Result<()> {
    let mut rings = Vec::new();
    let mut skipped = Vec::new();
    for ring in Ring::ALL {
        match ring.availability() {
            Ok(way) => {
                say(&format!("ring {}: {way}", ring.name()));
                rings.push(ring);
            }
            Err(why) if required.contains(&ring) => bail!("ring {} is required: {why}", ring.name()),
            Err(why) => skipped.push(format!("ring {} skipped: {why}", ring.name())),
        }
    }
    let mut steps = Steps::new(&mut say);
    check::steps(&mut steps);
    if steps.all_passed() {
        let rings: Vec<_> = rings.iter().map(|ring| ring.name()).collect();
        let required: Vec<_> = required.iter().map(|ring| ring.name()).collect();
        tests(&mut steps, &rings, &required, &skipped);
    }
    let gate = steps.took();
    if all && steps.all_passed() {
        longer(&mut steps, &rings);
    }
    steps.print();
    for line in judged(gate) {
        steps.say(&line);
    }
    steps.verdict()
}

fn tests(steps: &mut Steps<'_>, rings: &[&str], required: &[&str], skipped: &[String]) {
    let told = [(RINGS_VARIABLE, rings.join(",")), (REQUIRE_VARIABLE, required.join(","))];
    let built = steps.step("build of the tests", |_| {
        cargo().args(["test", "--workspace", "--no-run", "--quiet"]).success("the tests do not build")
    });
    if built.is_none() {
        return;
    }
    steps.step("tests", |steps| {
        let mut command = cargo();
        command.args(["test", "--workspace", "--no-fail-fast"]).envs(told);
        // Tests of processes wait more than they work.
        if std::env::var_os(THREADS_VARIABLE).is_none() {
            let threads = thread::available_parallelism().map_or(2, NonZero::get) * 2;
            command.env(THREADS_VARIABLE, threads.to_string());
        }
        let mut heard = Heard::default();
        let success = listen(command, None, |line| {
            steps.say(line);
            heard.line(line);
        })?;
        let Heard { passed, failed, ignored, failures, mut programs, .. } = heard.end();
        programs.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        for (name, took) in programs.iter().take(PROGRAMS) {
            steps.within(name, *took);
        }
        for line in failures.iter().chain(skipped) {
            steps.say(line);
        }
        let more: String = rings.iter().map(|ring| format!(", {ring}")).collect();
        steps.say(&format!("rings run: unit, simulation{more}"));
        steps.say(&format!("tests: {passed} passed, {failed} failed, {ignored} ignored"));
        if success == Some(true) { Ok(()) } else { bail!("tests failed") }
    });
}

/// What is too long for a gate, each a step.
fn longer(steps: &mut Steps<'_>, rings: &[Ring]) {
    let benches = [
        ("counts of the bench", Bench::trunk()),
        ("counts beside dear templates", Bench::counts_of_neighbours()),
        ("runs beside floors", Bench::least_weight()),
    ];
    for (name, bench) in benches {
        if rings.contains(&Ring::Api) {
            steps.step(name, |_| bench::run(&bench));
        } else {
            steps.skip(name, "the ring api cannot run here");
        }
    }
    steps.step("more cases of every property", |_| {
        let crates = ["--package=agents-core", "--package=agents-runtime", "--package=agents-kube"];
        let mut properties = cargo();
        properties.args(["test", "--quiet", "--lib"]).args(crates).env("PROPTEST_CASES", CASES);
        properties.success("a property does not hold")
    });
    steps.step("every crash point of local runs", |_| {
        let mut points = cargo();
        points.args(["test", "--quiet", "--package=agents-bin", "--test=crash_points"]).env(POINTS_VARIABLE, "all");
        points.success("a crash changes a result")
    });
    steps.step("mutants", |steps| mutants::run(steps));
    steps.step("fuzz", |steps| fuzz::run(FUZZ_MINUTES, None, |line| steps.say(line)));
}

/// What there is to say about the time of the gate.
fn judged(gate: Duration) -> Vec<String> {
    if gate > COLD {
        let bar = "!".repeat(88);
        let text = format!(
            "!!! THE GATE TOOK {}: MORE THAN THE {} THAT IT MAY TAKE. MAKE IT FASTER BEFORE ANYTHING ELSE.",
            clock(gate),
            clock(COLD)
        );
        vec![bar.clone(), text, bar]
    } else if gate > WARM {
        vec![format!(
            "note: the gate took {}; with everything built it should take at most {}",
            clock(gate),
            clock(WARM)
        )]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::judged;

    #[test]
    fn a_gate_that_takes_too_long_says_so() {
        let minutes = |n: u64| judged(Duration::from_secs(n * 60)).join("\n");
        assert_eq!(minutes(12), "");
        assert!(minutes(13).starts_with("note: the gate took 13 m"), "{}", minutes(13));
        assert!(minutes(61).contains("!!! THE GATE TOOK 61 m 00 s"), "{}", minutes(61));
    }
}
