//! `cargo xtask attack-report`: the list of bad inputs, attacks and misuse, what becomes of each, and the test that shows
//! it. The rows stand in `tests/attacks.yaml`; here they are held against the sources: every row is there once, a row that
//! is called safe names a test, and every test that is named exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Component, Path},
};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};
use serde::Deserialize;

/// The rows, relative to the workspace.
const ROWS: &str = "tests/attacks.yaml";

/// Letter, subject and number of rows of each part of the list.
const PARTS: &[(char, &str, usize)] = &[
    ('A', "secrets and identity", 14),
    ('B', "pod and privilege", 10),
    ('C', "templates and text", 14),
    ('D', "runner, files, artifacts", 14),
    ('E', "webhooks and polling", 14),
    ('F', "HTTP API", 12),
    ('G', "objects, limits, lifecycle", 12),
    ('H', "budgets, approvals, schedules, orchestration, signals", 12),
    ('I', "the agent itself", 8),
];

/// The rings whose tests are entries of a table, and the file of that table.
const TABLES: &[(&str, &str)] = &[("api", "tests/tests/api.rs"), ("node", "tests/tests/node.rs")];

/// One row as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    /// The attack, in a few words.
    input: String,
    outcome: Outcome,
    /// Each `path::function` from the top of the workspace, or `api::case` and `node::case`.
    #[serde(default)]
    tests: Vec<String>,
    /// Why it does not apply yet, or what the tests leave open.
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    /// Refused or harmless, and a test shows it.
    Safe,
    /// There is nothing yet that it could be done to.
    NotYetApplicable,
    /// It works.
    Unsafe,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::NotYetApplicable => "not yet applicable",
            Self::Unsafe => "unsafe",
        }
    }
}

/// The report, and what is wrong with it.
#[derive(Debug)]
pub struct Report {
    /// All rows and a table of their numbers.
    pub text: String,
    faults: Vec<String>,
}

impl Report {
    /// # Errors
    /// What is wrong with the rows.
    pub fn verdict(&self) -> Result<()> {
        let Self { faults, .. } = self;
        if faults.is_empty() { Ok(()) } else { bail!("{} faults in {ROWS}:\n  {}", faults.len(), faults.join("\n  ")) }
    }
}

/// Reads the rows and holds them against the sources below `workspace`.
///
/// # Errors
/// The rows cannot be read.
pub fn report(workspace: &Path) -> Result<Report> {
    let text = fs::read_to_string(workspace.join(ROWS)).with_context(|| format!("cannot read {ROWS}"))?;
    let rows: Vec<Row> = serde_saphyr::from_str(&text).with_context(|| format!("{ROWS} cannot be read"))?;
    Ok(judge(&rows, &mut |test| missing(workspace, test)))
}

/// The check of the gate: the rows are whole and true.
///
/// # Errors
/// What is wrong with them.
pub fn check(workspace: &Path) -> Result<()> {
    report(workspace)?.verdict()
}

fn judge(rows: &[Row], missing: &mut dyn FnMut(&str) -> Option<String>) -> Report {
    let mut faults = Vec::new();
    let mut text = String::new();
    let mut seen = BTreeSet::new();
    let mut counts: BTreeMap<(char, &str), usize> = BTreeMap::new();
    let known: Vec<String> =
        PARTS.iter().flat_map(|(letter, _, rows)| (1..=*rows).map(move |n| format!("{letter}{n}"))).collect();
    for Row { id, input, outcome, tests, why } in rows {
        if !known.contains(id) {
            faults.push(format!("{id}: no such row"));
        } else if !seen.insert(id.as_str()) {
            faults.push(format!("{id}: twice"));
        }
        faults.extend(tests.iter().filter_map(|test| Some(format!("{id}: {test}: {}", missing(test)?))));
        match outcome {
            Outcome::Safe if tests.is_empty() => faults.push(format!("{id}: safe without a test")),
            Outcome::NotYetApplicable if why.is_none() => faults.push(format!("{id}: does not say why")),
            Outcome::Unsafe => faults.push(format!("{id}: unsafe")),
            Outcome::Safe | Outcome::NotYetApplicable => {}
        }
        let _ = write!(text, "{id:<4} {}: {input}", outcome.name());
        let _ = why.as_ref().map(|why| write!(text, "\n     {why}"));
        let _ = tests.iter().try_for_each(|test| write!(text, "\n     {test}"));
        text.push('\n');
        *counts.entry((id.chars().next().unwrap_or('?'), outcome.name())).or_default() += 1;
    }
    faults.extend(known.iter().filter(|id| !seen.contains(id.as_str())).map(|id| format!("{id}: missing")));
    let outcomes = [Outcome::Safe, Outcome::NotYetApplicable, Outcome::Unsafe].map(Outcome::name);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "part", "safe + tested", "not yet applicable", "unsafe"]);
    for (letter, subject, _) in PARTS {
        let of = outcomes.map(|outcome| counts.get(&(*letter, outcome)).copied().unwrap_or_default().to_string());
        table.add_row([vec![letter.to_string(), (*subject).to_owned()], of.to_vec()].concat());
    }
    let all = outcomes.map(|name| counts.iter().filter(|((_, one), _)| *one == name).map(|(_, n)| n).sum::<usize>());
    table.add_row([vec![String::new(), "all".to_owned()], all.map(|n| n.to_string()).to_vec()].concat());
    let _ = writeln!(text, "\n{table}");
    Report { text, faults }
}

/// Why a test that is named is none; nothing when it is one.
fn missing(workspace: &Path, test: &str) -> Option<String> {
    let Some((place, name)) = test.rsplit_once("::") else { return Some("no `path::name`".to_owned()) };
    let table = TABLES.iter().find(|(ring, _)| *ring == place).map(|(_, file)| *file);
    let file = Path::new(table.unwrap_or(place));
    if !file.components().all(|part| matches!(part, Component::Normal(_))) {
        return Some("its path leads elsewhere".to_owned());
    }
    let Ok(source) = fs::read_to_string(workspace.join(file)) else { return Some("no such file".to_owned()) };
    let found = if table.is_some() { is_case(&source, name) } else { is_test(&source, name) };
    (!found).then(|| "no such test in that file".to_owned())
}

fn is_case(source: &str, name: &str) -> bool {
    source.contains(&format!("(\"{name}\", "))
}

/// Whether a function of that name stands below an attribute that makes it a test.
fn is_test(source: &str, name: &str) -> bool {
    let mut attributed = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            attributed |= line.starts_with("#[test") || line.starts_with("#[tokio::test");
        } else if !line.starts_with("//") {
            let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if attributed && declared.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
            {
                return true;
            }
            attributed = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Outcome, PARTS, Row, is_case, is_test, judge};

    fn all() -> Vec<Row> {
        let row = |id| Row {
            id,
            input: "bad".to_owned(),
            outcome: Outcome::Safe,
            tests: vec!["here.rs::it_holds".to_owned()],
            why: None,
        };
        PARTS.iter().flat_map(|(letter, _, rows)| (1..=*rows).map(move |n| row(format!("{letter}{n}")))).collect()
    }

    fn verdict(rows: &[Row]) -> String {
        let missing = |test: &str| (test != "here.rs::it_holds").then(|| "not there".to_owned());
        match judge(rows, &mut { missing }).verdict() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_row_once_and_with_what_its_outcome_needs() {
        assert_eq!(all().len(), 110);
        assert_eq!(verdict(&all()), "");
        let broken = |change: &dyn Fn(&mut Vec<Row>)| {
            let mut rows = all();
            change(&mut rows);
            verdict(&rows)
        };
        assert!(broken(&|rows| drop(rows.remove(0))).contains("A1: missing"));
        assert!(broken(&|rows| rows[1].id = "A1".to_owned()).contains("A1: twice"));
        assert!(broken(&|rows| rows[0].id = "A15".to_owned()).contains("A15: no such row"));
        assert!(broken(&|rows| rows[0].tests.clear()).contains("A1: safe without a test"));
        assert!(broken(&|rows| rows[0].tests.push("there.rs::x".to_owned())).contains("A1: there.rs::x: not there"));
        assert!(broken(&|rows| rows[0].outcome = Outcome::Unsafe).contains("A1: unsafe"));
        assert!(broken(&|rows| rows[0].outcome = Outcome::NotYetApplicable).contains("A1: does not say why"));
    }

    #[test]
    fn a_test_is_a_function_below_its_attribute_or_an_entry_of_a_table() {
        let source = "#[test]\nfn one() {}\nfn two() {}\n#[tokio::test(start_paused = true)]\n// why\n#[ignore]\nasync fn three() {}";
        assert_eq!(["one", "two", "three", "thre"].map(|name| is_test(source, name)), [true, false, true, false]);
        let table = "    (\"a_case\", kills::a_case),";
        assert_eq!(["a_case", "case"].map(|name| is_case(table, name)), [true, false]);
    }
}
