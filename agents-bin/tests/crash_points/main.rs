//! `agents run` dies at each call that changes something outside the process, and the next `agents run` on the same folder
//! loses, doubles and wedges nothing; and so where its launcher dies, or outlives it and goes on late.
//!
//! Which call is the n-th depends on threads, so a point is a number and what it met is told with a fault. A life that
//! ends before its point is held to the same. In a plain `cargo test` a few points of each table are tried, spread over
//! all of it; `AGENTS_CRASH_POINTS=all` tries every one, as `cargo xtask test --all` does.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod judge;
mod tracer;

use std::{
    fs::{self, File},
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use common::{Place, Ran, provider, run, until};
use judge::{faults, is_wished};
use tracer::{Hunt, Life, Prey, live};

/// Points of a table that are tried where not all are.
const FEW: usize = 7;
/// What comes after a crash takes parts of a second. Less than the grace of a cancel: who waits for it told nobody.
const PROMPT: Duration = Duration::from_secs(20);

/// What is run, and how it ends where nothing dies.
#[derive(Debug)]
struct Scenario {
    name: &'static str,
    script: &'static str,
    spec: &'static str,
    /// Of each attempt.
    reasons: &'static [&'static str],
    /// Whether it is cancelled once it has started.
    is_cancelled: bool,
}

const HAPPY: Scenario = Scenario {
    name: "happy",
    script: "echo $AGENT_ATTEMPT >> \"$PLACE/executions\"; echo \"said $AGENT_ATTEMPT\"",
    spec: "",
    reasons: &["Completed"],
    is_cancelled: false,
};

const RETRY: Scenario = Scenario {
    name: "retry",
    script: "echo $AGENT_ATTEMPT >> \"$PLACE/executions\"; echo \"said $AGENT_ATTEMPT\"; test $AGENT_ATTEMPT -ge 2",
    spec: "  retryPolicy: {limit: 1, backoffSeconds: 0}\n",
    reasons: &["ProviderExited", "Completed"],
    is_cancelled: false,
};

const CANCEL: Scenario = Scenario {
    name: "cancel",
    script: "trap 'echo heard >> \"$PLACE/terms\"; exit 0' TERM; echo $AGENT_ATTEMPT >> \"$PLACE/executions\"; echo \"said $AGENT_ATTEMPT\"; \
             touch \"$PLACE/started\"; while test ! -e \"$PLACE/go\"; do sleep 0.02; done",
    spec: "",
    reasons: &["Cancelled"],
    is_cancelled: true,
};

impl Scenario {
    fn place(&self) -> Place {
        let place = Place::new();
        place.write("provider.yaml", &provider("sh", &["-c", self.script]));
        place.write("run.yaml", &run("a", self.spec));
        place
    }

    /// The first life is hunted; a second only where it dies too.
    fn hunt(&self, place: &Place, prey: Prey, at: Option<usize>, is_first: bool) -> Hunt {
        let term_after = (self.is_cancelled && is_first).then(|| place.path().join("started"));
        Hunt { prey, at, term_after }
    }

    /// Lives that die at these points, one after another and each on what the one before left, and one that nobody
    /// disturbs. What is wrong then.
    fn play(&self, prey: Prey, points: &[usize]) -> Vec<String> {
        let place = self.place();
        let (mut met, mut is_cancel) = (Vec::new(), false);
        let (mut ran, mut held) = (None, None);
        for (n, point) in points.iter().enumerate() {
            let life = lived(&place, &self.hunt(&place, prey, Some(*point), n == 0));
            met.push(format!("{point} ({})", life.calls.get(point - 1).map_or("nothing", |call| call)));
            held = life.held;
            if life.code.is_some() {
                ran = Some(printed(&place, life.code));
                // Whoever was told in time to cancel did.
                is_cancel |= self.is_cancelled && n == 0;
                break;
            }
            is_cancel = is_wished(&place);
            if !is_cancel {
                // Nobody told the provider to end, and nobody will.
                fs::write(place.path().join("go"), "").unwrap();
            }
        }
        let since = Instant::now();
        let ran = ran.unwrap_or_else(|| undisturbed(&place, held));
        let took = since.elapsed();
        let reasons = if self.is_cancelled && !is_cancel { &["Completed"] } else { self.reasons };
        let Ran { code, err, .. } = &ran;
        let slow = (took > PROMPT).then(|| format!("the next command took {took:?}"));
        faults(&place, &ran, reasons, prey == Prey::Launcher)
            .into_iter()
            .chain(slow)
            .map(|fault| {
                let met = met.join(", then at ");
                format!("{}, {prey:?} dies at {met}: {fault}; then exit code {code:?}, {err:?}", self.name)
            })
            .collect()
    }

    /// The calls of a life that nobody disturbs.
    fn calls(&self, prey: Prey) -> Vec<String> {
        let place = self.place();
        let life = lived(&place, &self.hunt(&place, prey, None, true));
        let ran = printed(&place, life.code);
        assert_eq!(faults(&place, &ran, self.reasons, false), Vec::<String>::new(), "{}: {ran:?}", self.name);
        assert!(!life.calls.is_empty(), "{}: nothing to die at", self.name);
        life.calls
    }
}

fn command(place: &Place) -> Command {
    let mut command = place.command();
    command.args(["-o", "yaml"]).env("HOME", place.path());
    command
}

/// A command that nobody disturbs, beside a launcher that is held.
fn undisturbed(place: &Place, mut held: Option<Pid>) -> Ran {
    let is_waited_for = held.is_some() && has_locked(place);
    let to = |name: &str| File::create(place.path().join(name)).unwrap();
    let mut child = command(place).stdout(to("printed")).stderr(to("said")).spawn().unwrap();
    let since = Instant::now();
    let mut code = None;
    until("the end of the next command", || {
        let ended = child.try_wait().unwrap();
        code = ended.and_then(|status| status.code());
        if since.elapsed() > PROMPT {
            child.kill().unwrap();
        }
        let has_found_it = || fs::read_to_string(place.path().join("said")).unwrap().contains("is continued");
        // One that has no lock yet is late when all is over.
        let is_due = is_waited_for && has_found_it();
        if (ended.is_some() || is_due)
            && let Some(held) = held.take()
        {
            kill(held, Signal::SIGCONT).unwrap();
        }
        ended.is_some()
    });
    printed(place, code)
}

/// Whether the first attempt's lock is held.
fn has_locked(place: &Place) -> bool {
    let attempt = fs::read_dir(place.out().join("a/attempts")).unwrap().next().unwrap().unwrap().path();
    File::open(attempt.join("lock")).unwrap().try_lock_shared().is_err()
}

fn lived(place: &Place, hunt: &Hunt) -> Life {
    live(&command(place), &place.path().join("printed"), &place.path().join("said"), hunt)
}

fn printed(place: &Place, code: Option<i32>) -> Ran {
    let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
    Ran { code, out: read("printed"), err: read("said") }
}

/// Points of `count` to try: all, or `few` spread over them, of each scenario others.
fn points(count: usize, few: usize, scenario: &Scenario) -> Vec<usize> {
    let all = std::env::var("AGENTS_CRASH_POINTS").is_ok_and(|points| points == "all");
    let step = if all { 1 } else { count.div_ceil(few) };
    // One more than there were: a life with luck.
    (1..=count + 1).skip(scenario.name.len() % step).step_by(step).collect()
}

fn holds(scenario: &Scenario, prey: Prey) {
    let calls = scenario.calls(prey);
    let points = points(calls.len(), FEW, scenario);
    println!("{}, {prey:?}: {} of {} points: {calls:?}", scenario.name, points.len(), calls.len());
    let faults: Vec<_> = points.iter().flat_map(|point| scenario.play(prey, &[*point])).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn an_engine_that_dies_at_any_point_leads_to_one_execution() {
    holds(&HAPPY, Prey::Engine);
}

#[test]
fn an_engine_that_dies_at_any_point_of_two_attempts_leads_to_two() {
    holds(&RETRY, Prey::Engine);
}

#[test]
fn an_engine_that_dies_at_any_point_of_a_cancel_leads_to_a_cancel_or_to_none() {
    holds(&CANCEL, Prey::Engine);
}

#[test]
fn a_launcher_that_dies_at_any_point_leads_to_one_execution_or_a_lost_attempt() {
    holds(&HAPPY, Prey::Launcher);
    holds(&RETRY, Prey::Launcher);
}

#[test]
fn a_launcher_that_outlives_its_engine_executes_once_with_the_next() {
    holds(&HAPPY, Prey::EngineOfLauncher);
}

fn holds_twice(scenario: &Scenario) {
    let count = scenario.calls(Prey::Engine).len();
    let firsts = points(count, 2, scenario);
    println!("{}, twice: {} of {count} points, each with 3 of the next life", scenario.name, firsts.len());
    // A life that goes on has fewer calls before it; its last are nearly those of the life before.
    let seconds = [2, count / 4, count / 2];
    let pairs = firsts.iter().flat_map(|first| seconds.map(|second| [*first, second]));
    let faults: Vec<_> = pairs.flat_map(|pair| scenario.play(Prey::Engine, &pair)).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn an_engine_that_dies_and_whose_successor_dies_leads_to_one_execution() {
    holds_twice(&HAPPY);
}

#[test]
fn a_cancel_whose_engine_dies_and_whose_successor_dies_is_a_cancel_or_none() {
    holds_twice(&CANCEL);
}
