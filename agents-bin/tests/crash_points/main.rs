//! `agents run` dies at each call that changes something outside the process, and the next `agents run` on the same folder
//! loses, doubles and wedges nothing; and so where its launcher dies.
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

use std::{fs, process::Command};

use common::{Place, Ran, provider, run};
use judge::{Past, faults};
use tracer::{Hunt, Life, Prey, live};

/// Points of a table that are tried where not all are.
const FEW: usize = 7;

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
    script: "trap 'exit 0' TERM; echo $AGENT_ATTEMPT >> \"$PLACE/executions\"; echo \"said $AGENT_ATTEMPT\"; \
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
        let (mut met, mut past) = (Vec::new(), Past::default());
        // The first life is told to cancel; one with luck does.
        let (mut ran, mut is_told) = (None, false);
        for (n, point) in points.iter().enumerate() {
            let life = lived(&place, &self.hunt(&place, prey, Some(*point), n == 0));
            met.push(format!("{point} ({})", life.calls.get(point - 1).map_or("nothing", |call| call)));
            if life.code.is_some() {
                ran = Some(printed(&place, life.code));
                is_told = n == 0;
                break;
            }
            past = Past::of(&place, self.is_cancelled);
            if !past.is_wished {
                // Nobody told the provider to end, and nobody will.
                fs::write(place.path().join("go"), "").unwrap();
            }
        }
        let ran = ran.unwrap_or_else(|| Ran::of(command(&place).output().unwrap()));
        let is_wished = self.is_cancelled && (is_told || past.is_wished);
        let reasons = if self.is_cancelled && !is_wished { &["Completed"] } else { self.reasons };
        let Ran { code, err, .. } = &ran;
        faults(&place, &ran, reasons, prey == Prey::Launcher)
            .into_iter()
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
fn an_engine_that_dies_and_whose_successor_dies_leads_to_one_execution() {
    for scenario in [&HAPPY, &CANCEL] {
        let count = scenario.calls(Prey::Engine).len();
        let mut faults = Vec::new();
        for first in points(count, 2, scenario) {
            for second in [2, count / 4, count / 2, count - 1] {
                faults.extend(scenario.play(Prey::Engine, &[first, second.max(1)]));
            }
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }
}
