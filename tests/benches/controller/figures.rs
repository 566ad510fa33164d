//! Figures with units and targets, for people and for comparison. The only place that prints a result.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde_json::{Map, Value, json};
use xtask::bench::Output;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    PerRun,
    PerSecond,
    Seconds,
    Milliseconds,
    MillisecondsPerRun,
    MillisecondsPerSecond,
    Mebibytes,
    KibibytesPerRun,
    Times,
}

impl Unit {
    fn symbol(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::PerRun => "/run",
            Self::PerSecond => "/s",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::MillisecondsPerRun => "ms/run",
            Self::MillisecondsPerSecond => "ms/s",
            Self::Mebibytes => "MiB",
            Self::KibibytesPerRun => "KiB/run",
            Self::Times => "times",
        }
    }

    fn show(self, value: f64) -> String {
        let digits = match self {
            Self::Count => 0,
            Self::PerRun | Self::PerSecond | Self::Seconds | Self::Milliseconds | Self::Mebibytes | Self::Times => 2,
            Self::MillisecondsPerRun | Self::MillisecondsPerSecond | Self::KibibytesPerRun => 3,
        };
        format!("{value:.digits$}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    Exactly(f64),
    AtMost(f64),
    Between(f64, f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            // Counts are small whole numbers, and their mean is that number only when every one is.
            Self::Exactly(wanted) => (value - wanted).abs() < f64::EPSILON,
            Self::AtMost(most) => value <= most,
            Self::Between(least, most) => least - f64::EPSILON <= value && value <= most + f64::EPSILON,
        }
    }

    fn show(self) -> String {
        match self {
            Self::Exactly(wanted) => format!("{wanted}"),
            Self::AtMost(most) => format!("≤ {most}"),
            Self::Between(least, most) if least.total_cmp(&most).is_eq() => format!("{least}"),
            Self::Between(least, most) => format!("{least} to {most:.2}"),
        }
    }
}

/// Whether a target that is missed fails the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Yes,
    No,
}

#[derive(Debug, Clone)]
pub(crate) struct Figure {
    key: &'static str,
    what: String,
    value: f64,
    unit: Unit,
    target: Option<(Target, Gate)>,
}

impl Figure {
    pub(crate) fn new(key: &'static str, what: &str, value: f64, unit: Unit) -> Self {
        Self { key, what: what.to_owned(), value, unit, target: None }
    }

    pub(crate) fn target(mut self, target: Target, gate: Gate) -> Self {
        self.target = Some((target, gate));
        self
    }
}

/// The middle one of what was measured; the mean of the two in the middle where there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// Figures of one part of the bench.
#[derive(Debug)]
pub(crate) struct Group {
    key: String,
    title: String,
    pub(crate) figures: Vec<Figure>,
}

impl Group {
    pub(crate) fn new(title: &str, figures: Vec<Figure>) -> Self {
        let key = title.split(',').next().unwrap_or(title).to_owned();
        Self { key, title: title.to_owned(), figures }
    }

    /// The same under another key in JSON.
    pub(crate) fn named(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }
}

/// The gated targets that were missed.
pub(crate) fn violations(groups: &[Group]) -> Vec<String> {
    let mut violations = Vec::new();
    for Group { key: _, title, figures } in groups {
        for Figure { key: _, what, value, unit, target } in figures {
            if let Some((target, Gate::Yes)) = target
                && !target.is_met(*value)
            {
                violations.push(format!("{title}: {what}: {} where {} is due", unit.show(*value), target.show()));
            }
        }
    }
    violations
}

/// What was measured, with which numbers, and how it is printed.
#[derive(Debug)]
pub(crate) struct Heading {
    pub(crate) bench: &'static str,
    pub(crate) numbers: Value,
    pub(crate) output: Output,
}

pub(crate) fn print(heading: &Heading, groups: &[Group]) -> Result<()> {
    let text = match heading.output {
        Output::Table => for_people(groups),
        Output::Json => serde_json::to_string_pretty(&for_machines(heading, groups))? + "\n",
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot print the result")
}

fn for_people(groups: &[Group]) -> String {
    let mut text = String::new();
    for Group { key: _, title, figures } in groups {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header([title.as_str(), "MEASURED", "", "TARGET", ""]);
        for Figure { key: _, what, value, unit, target } in figures {
            let (wanted, verdict) = match target {
                Some((target, _)) if target.is_met(*value) => (target.show(), "met"),
                Some((target, _)) => (target.show(), "missed"),
                None => (String::new(), ""),
            };
            table.add_row([what.clone(), unit.show(*value), unit.symbol().to_owned(), wanted, verdict.to_owned()]);
        }
        for column in [1, 3] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        text += &format!("{table}\n\n");
    }
    text
}

fn for_machines(heading: &Heading, groups: &[Group]) -> Value {
    let groups: Map<String, Value> = groups
        .iter()
        .map(|Group { key, title: _, figures }| {
            let figures: Map<String, Value> = figures
                .iter()
                .map(|Figure { key, what: _, value, unit, target }| {
                    let mut figure = json!({"value": value, "unit": unit.symbol()});
                    if let Some((target, gate)) = target {
                        figure["target"] = json!(target.show());
                        figure["met"] = json!(target.is_met(*value));
                        figure["gate"] = json!(*gate == Gate::Yes);
                    }
                    ((*key).to_owned(), figure)
                })
                .collect();
            (key.clone(), Value::Object(figures))
        })
        .collect();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let Heading { bench, numbers, output: _ } = heading;
    let mut result = json!({"bench": bench, "cpus": cpus, "figures": groups});
    for (name, number) in numbers.as_object().into_iter().flatten() {
        result[name] = number.clone();
    }
    result
}
