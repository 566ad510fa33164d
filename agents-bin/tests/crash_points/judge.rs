//! What must hold after a crash, however it went.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::common::{Place, Ran};

/// How long what nobody waits for may take to end: a launcher that finds that another has begun.
const LINGERS: Duration = Duration::from_secs(5);
/// What the provider's exit code 1 and a lost attempt make of the command's.
const EXIT_FAILED: i32 = 1;
const EXIT_CANCELLED: i32 = 130;

/// Whether the wish to cancel stands in the record that a life left.
pub fn is_wished(place: &Place) -> bool {
    let record = fs::read_to_string(place.out().join("a/run.yaml")).unwrap_or_default();
    record.lines().any(|line| line == "  cancel: true")
}

/// Everything that is wrong after the last life on `place`, which printed `ran`. Attempts end for `reasons`; where a
/// launcher died, one may be lost instead.
pub fn faults(place: &Place, ran: &Ran, reasons: &[&str], may_lose: bool) -> Vec<String> {
    let mut faults = Faults::default();
    // First: what still lives may still do something.
    let since = Instant::now();
    let mut alive = place.processes();
    while !alive.is_empty() && since.elapsed() < LINGERS {
        thread::yield_now();
        alive = place.processes();
    }
    faults.unless(alive.is_empty(), || format!("alive are {alive:?}"));
    let history = history(place, ran, &mut faults);
    let lost = history.iter().filter(|reason| *reason == "Lost").count();
    let is_as_wanted = history.iter().zip(reasons).all(|(found, wanted)| found == wanted || found == "Lost");
    let is_whole = history.len() == reasons.len() && lost == 0;
    // A lost attempt may have been the last that was allowed, whatever it would have become.
    let has_lost_one = may_lose && lost == 1 && history.len() <= reasons.len();
    faults.unless(is_as_wanted && (is_whole || has_lost_one), || format!("{history:?} and not {reasons:?}"));
    executions(place, &history, &mut faults);
    leftovers(place, history.len(), &mut faults);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }
}

/// The reasons for which attempts ended, by the record, which is what was printed and what the exit code says.
fn history(place: &Place, ran: &Ran, faults: &mut Faults) -> Vec<String> {
    let record = fs::read_to_string(place.out().join("a/run.yaml")).unwrap_or_default();
    faults.unless(record == ran.out, || format!("run.yaml is not what is printed: {record:?}, {:?}", ran.out));
    let run: Value = serde_saphyr::from_str(&record).unwrap_or_default();
    let status = &run["status"];
    let attempts = status["attempts"].as_array().cloned().unwrap_or_default();
    let reason = |attempt: &Value| attempt["reason"].as_str().unwrap_or_default().to_owned();
    let history: Vec<_> = attempts.iter().map(reason).collect();
    let (phase, code) = match history.last().map(String::as_str) {
        Some("Completed") => ("Succeeded", 0),
        Some("Cancelled") => ("Cancelled", EXIT_CANCELLED),
        _ => ("Failed", EXIT_FAILED),
    };
    faults.unless(status["phase"] == phase, || format!("the phase is {} and not {phase}", status["phase"]));
    faults.unless(ran.code == Some(code), || format!("the exit code is not {code}"));
    let is_numbered = attempts.iter().zip(1..).all(|(attempt, n)| attempt["number"] == n);
    let last = &status["attempt"];
    faults.unless(is_numbered && *last == attempts.len(), || format!("attempt {last} of {attempts:?}"));
    history
}

/// Each attempt that was not lost was executed once, and what the last printed stands in its place once.
fn executions(place: &Place, history: &[String], faults: &mut Faults) {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let numbers = (1..).zip(history).filter(|(_, reason)| *reason != "Lost");
    let wanted: Vec<_> = numbers.map(|(n, _): (usize, _)| n.to_string()).collect();
    let executed = read(place.path().join("executions"));
    faults.unless(executed.lines().eq(&wanted), || format!("executed were {executed:?} and not {wanted:?}"));
    let terms = place.lines_of("terms");
    let cancelled = history.iter().filter(|reason| *reason == "Cancelled").count();
    faults.unless(terms == cancelled, || format!("the provider heard TERM {terms} times"));
    if history.last().is_some_and(|reason| reason != "Lost") {
        let log = read(place.out().join("a/log.txt"));
        // A shell adds a word of its own where its `sleep` was ended.
        let said = log.lines().filter_map(|line| line.strip_prefix("said "));
        faults.unless(said.eq(wanted.last()), || format!("log.txt is {log:?}"));
    }
}

/// Nothing lies there that belongs to no attempt of the history.
fn leftovers(place: &Place, attempts: usize, faults: &mut Faults) {
    let folder = place.out().join("a/attempts");
    let folders = fs::read_dir(&folder).map_or(0, Iterator::count);
    faults.unless(folders == attempts, || format!("{folders} folders of attempts"));
    let starts = below(&folder).iter().filter(|path| path.ends_with("started.json")).count();
    faults.unless(starts == attempts, || format!("{starts} attempts have a record of their start"));
    for path in below(&place.out()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_unfinished = name.starts_with(".preparing-") || name == ".run.yaml" || name == ".untold";
        faults.unless(!is_unfinished, || format!("{} is left", path.display()));
    }
    let mut runs: Vec<_> = fs::read_dir(place.out()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    runs.sort();
    faults.unless(runs == [".agents-run.locks", "a"], || format!("below out are {runs:?}"));
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()));
        }
    }
    found
}
