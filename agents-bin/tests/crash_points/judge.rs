//! What must hold after a crash, however it went.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::common::{Place, Ran};

/// How long what nobody waits for may take to end: a launcher that finds that another has begun.
const LINGERS: Duration = Duration::from_secs(5);
/// What the provider's exit code 1 and every other failure make of the command's.
const EXIT_FAILED: i32 = 1;
const EXIT_CANCELLED: i32 = 130;

/// What a life that was ended left.
#[derive(Debug, Default)]
pub struct Past {
    /// Whether the wish to cancel is on record.
    pub is_wished: bool,
}

impl Past {
    pub fn of(place: &Place, is_cancelled: bool) -> Self {
        let record = fs::read_to_string(place.out().join("a/run.yaml")).unwrap_or_default();
        Self { is_wished: is_cancelled && record.lines().any(|line| line == "  cancel: true") }
    }
}

/// Everything that is wrong after the last life on `place`, which printed `ran`. Attempts end for `reasons`; where a
/// launcher died, one may be lost instead.
pub fn faults(place: &Place, ran: &Ran, reasons: &[&str], may_lose: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut hold = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    let folder = place.out().join("a");
    let record = fs::read_to_string(folder.join("run.yaml")).unwrap_or_default();
    let run: Value = serde_saphyr::from_str(&record).unwrap_or_default();
    hold(record == ran.out, "run.yaml is not what is printed");
    let attempts = run["status"]["attempts"].as_array().cloned().unwrap_or_default();
    let found: Vec<_> = attempts.iter().map(|attempt| attempt["reason"].as_str().unwrap_or_default()).collect();
    let is_as_wanted = |found: &[&str]| {
        found.len() <= reasons.len()
            && found.iter().zip(reasons).all(|(found, wanted)| found == wanted || *found == "Lost")
    };
    let lost = found.iter().filter(|reason| **reason == "Lost").count();
    let is_whole = found == reasons || may_lose && lost == 1 && is_as_wanted(&found);
    hold(is_whole, &format!("attempts ended with {found:?} and not with {reasons:?}"));
    hold(run["status"]["attempt"] == attempts.len(), "status.attempt is not the last attempt");
    let (phase, code) = match found.last() {
        Some(&"Completed") => ("Succeeded", 0),
        Some(&"Cancelled") => ("Cancelled", EXIT_CANCELLED),
        _ => ("Failed", EXIT_FAILED),
    };
    hold(run["status"]["phase"] == phase, &format!("the phase is not {phase}"));
    hold(ran.code == Some(code), &format!("the exit code is not {code}"));
    let executed: Vec<_> = (1..).zip(&found).filter(|(_, reason)| **reason != "Lost").map(|(n, _)| n).collect();
    let lines = |attempts: &[usize], before: &str| {
        attempts.iter().map(|n| format!("{before}{n}\n")).collect::<Vec<_>>().concat()
    };
    let executions = fs::read_to_string(place.path().join("executions")).unwrap_or_default();
    hold(executions == lines(&executed, ""), &format!("executed were {executions:?}, and by the history {executed:?}"));
    if let Some(last) = executed.last().filter(|last| **last == attempts.len()) {
        let log = fs::read_to_string(folder.join("log.txt")).unwrap_or_default();
        // A shell adds a word where its `sleep` was ended.
        let said: String = log.split_inclusive('\n').filter(|line| line.starts_with("said ")).collect();
        hold(said == lines(&[*last], "said "), &format!("log.txt is {log:?}"));
    }
    let began = left(&folder.join("attempts")).iter().filter(|path| path.ends_with("started.json")).count();
    hold(began == attempts.len(), &format!("{began} attempts have a record of their start"));
    let folders = fs::read_dir(folder.join("attempts")).map_or(0, Iterator::count);
    hold(folders == attempts.len(), &format!("{folders} folders of attempts"));
    for path in left(&place.out()) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_of_a_writer = name.starts_with(".preparing-") || name == ".run.yaml" || name == ".untold";
        hold(!is_of_a_writer, &format!("{path} is left"));
    }
    let beside: Vec<_> = fs::read_dir(place.out()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let is_ours = |name: &std::ffi::OsString| name == "a" || name == ".agents-run.locks";
    hold(beside.iter().all(is_ours), &format!("below out is {beside:?}"));
    let since = Instant::now();
    let mut alive = place.processes();
    while !alive.is_empty() && since.elapsed() < LINGERS {
        thread::yield_now();
        alive = place.processes();
    }
    hold(alive.is_empty(), &format!("alive is {alive:?}"));
    faults
}

/// Everything below a folder.
fn left(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        found.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            found.extend(left(&entry.path()));
        }
    }
    found
}
