//! A report as text, as JSON and as annotations of a GitHub workflow.

use std::fmt::Write as _;

use agents_core::hidden::visible;
use agents_runtime::manifest::{ManifestFault, tree::Place};
use serde_json::{Value, json};

use super::{Finding, Report, Severity};

/// A form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people: one finding per line, then a sum.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Workflow commands of GitHub Actions.
    Github,
}

impl Report {
    /// The report in this form.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => format!("{:#}\n", self.json()),
            Format::Github => self.findings.iter().map(github).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { severity, object, fault } in &self.findings {
            let ManifestFault { file, document: _, place, field, rule, problem, hint } = fault;
            let at = match *place {
                Place { line: 0, .. } => String::new(),
                Place { line, column: 0 } => format!(":{line}"),
                Place { line, column } => format!(":{line}:{column}"),
            };
            let subject = [object.as_str(), field.as_str()].into_iter().filter(|part| !part.is_empty());
            let subject = subject.chain([problem.as_str()]).collect::<Vec<_>>().join(" ");
            let (file, subject) = (visible(file), visible(&subject));
            let _ = writeln!(text, "{file}{at}: {} [{}] {subject}", severity.as_str(), rule.as_str());
            if let Some(hint) = hint {
                let _ = writeln!(text, "    hint: {}", visible(hint));
            }
        }
        let (errors, notes) = (self.count(Severity::Error), self.count(Severity::Note));
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let _ = writeln!(
            text,
            "{}: {}, {}",
            plural(self.objects, "object"),
            if errors == 0 { "no error".to_owned() } else { plural(errors, "error") },
            plural(notes, "note")
        );
        text
    }

    fn json(&self) -> Value {
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|Finding { severity, object, fault }| {
                let ManifestFault { file, document, place: Place { line, column }, field, rule, problem, hint } = fault;
                json!({
                    "severity": severity.as_str(),
                    "rule": rule.as_str(),
                    "file": file,
                    "document": document,
                    "line": Some(*line).filter(|line| *line > 0),
                    "column": Some(*column).filter(|column| *column > 0),
                    "object": Some(object).filter(|object| !object.is_empty()),
                    "field": Some(field).filter(|field| !field.is_empty()),
                    "problem": problem,
                    "hint": hint,
                })
            })
            .collect();
        json!({
            "objects": self.objects,
            "errors": self.count(Severity::Error),
            "notes": self.count(Severity::Note),
            "findings": findings,
        })
    }
}

fn github(finding: &Finding) -> String {
    let Finding { severity, object, fault } = finding;
    let ManifestFault { file, document: _, place: Place { line, column }, field, rule, problem, hint } = fault;
    let command = match severity {
        Severity::Error => "error",
        Severity::Note => "notice",
    };
    let mut at = format!("file={}", property(file));
    if *line > 0 {
        let _ = write!(at, ",line={line}");
        if *column > 0 {
            let _ = write!(at, ",col={column}");
        }
    }
    let _ = write!(at, ",title={}", property(&format!("agents lint: {}", rule.as_str())));
    let subject = [object, field].into_iter().filter(|part| !part.is_empty()).map(String::as_str);
    let mut message = subject.chain([problem.as_str()]).collect::<Vec<_>>().join(" ");
    if let Some(hint) = hint {
        let _ = write!(message, " ({hint})");
    }
    format!("::{command} {at}::{}\n", data(&message))
}

/// Text as the value of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Text as a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
