//! The result of `agents run`, for people and for machines. Text in, text out, and one write.

use std::{env, fs, path::Path};

use agents_core::{
    api::{
        AgentRun, AgentRunStatus, GROUP, Kind, VERSION,
        agent_run::{BlockedBy, Phase},
    },
    hidden::visible,
};
use agents_runtime::local::Ended;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Value, json};

use super::Output;
use crate::output::{self, Stream};

const HEADINGS: [&str; 7] = ["NAME", "PHASE", "REASON", "ATTEMPT", "DURATION", "RESULT", "FOLDER"];
/// Characters of a commit that people read.
const SHORT_COMMIT: usize = 10;

/// Prints the result.
pub(super) fn print(form: Output, ended: &[Ended]) {
    let text = match form {
        Output::Table => for_people(ended, Stream::Out.is_drawable()),
        Output::Json => {
            let list =
                json!({ "apiVersion": "v1", "kind": "List", "items": ended.iter().map(object).collect::<Vec<_>>() });
            format!("{list:#}\n")
        }
        Output::Yaml => ended.iter().map(Ended::to_yaml).collect::<Vec<_>>().join("---\n"),
        Output::Name => {
            let name = |ended: &Ended| format!("{}.{GROUP}/{}\n", AgentRun::SINGULAR, ended.run.metadata.name);
            ended.iter().map(name).collect::<Vec<_>>().concat()
        }
    };
    output::write(Stream::Out, &text);
    if form != Output::Table {
        for ended in ended {
            if let Some(trouble) = trouble(ended) {
                output::line(Stream::Err, &trouble);
            }
        }
    }
}

/// What became of a run that was given up.
fn trouble(ended: &Ended) -> Option<String> {
    let trouble = ended.trouble.as_ref()?;
    let status = ended.run.status.clone().unwrap_or_default();
    let state = match (status.phase.map_or("Pending", Phase::as_str), status.reason) {
        (phase, Some(reason)) => format!("{phase} ({reason})"),
        (phase, None) => phase.to_owned(),
    };
    Some(format!(
        "{} was given up: {trouble}; the last that is known, {state}, may not stand in {}",
        ended.run.metadata.name,
        relative(&ended.folder.join("run.yaml"))
    ))
}

fn object(ended: &Ended) -> Value {
    let mut object = serde_json::to_value(&ended.run).unwrap_or_default();
    object["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
    object["kind"] = json!(AgentRun::KIND);
    object
}

fn for_people(ended: &[Ended], terminal: bool) -> String {
    let rows: Vec<[String; 7]> = ended.iter().map(row).collect();
    let mut text = if terminal { drawn(&rows) } else { aligned(&rows) };
    for ended in ended {
        text.push_str(&explanation(ended));
    }
    text
}

fn row(ended: &Ended) -> [String; 7] {
    let status = ended.run.status.clone().unwrap_or_default();
    [
        ended.run.metadata.name.clone(),
        status.phase.map_or("Pending", Phase::as_str).to_owned(),
        status.blocked_by.first().map(|blocked| blocked.reason.clone()).or(status.reason.clone()).unwrap_or_default(),
        status.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
        duration(&status),
        result(&status),
        relative(&ended.folder),
    ]
    .map(|cell| visible(&cell).into_owned())
}

fn duration(status: &AgentRunStatus) -> String {
    let (Some(start), Some(end)) = (status.started_at.or(status.submitted_at), status.finished_at) else {
        return String::new();
    };
    let seconds = end.duration_since(start).as_secs().max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

/// The commit the run made, and the outputs it left.
fn result(status: &AgentRunStatus) -> String {
    let commit = status.vcs.as_ref().and_then(|vcs| {
        let head = vcs.head_commit.as_ref().filter(|head| vcs.base_commit.as_ref() != Some(*head))?;
        Some(head.chars().take(SHORT_COMMIT).collect::<String>())
    });
    let outputs = status.outputs.iter().map(|output| output.name.clone());
    commit.into_iter().chain(outputs).collect::<Vec<_>>().join(", ")
}

fn relative(folder: &Path) -> String {
    let here = env::current_dir().and_then(fs::canonicalize).unwrap_or_default();
    folder.strip_prefix(here).unwrap_or(folder).display().to_string()
}

fn drawn(rows: &[[String; 7]]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(HEADINGS);
    for row in rows {
        table.add_row(row.iter());
    }
    format!("{table}\n")
}

fn aligned(rows: &[[String; 7]]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let all: Vec<_> = std::iter::once(&headings).chain(rows).collect();
    let widths: Vec<usize> =
        (0..HEADINGS.len()).map(|n| all.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    all.into_iter().map(line).collect()
}

/// Why a run did not succeed, and where to look.
fn explanation(ended: &Ended) -> String {
    let status = ended.run.status.clone().unwrap_or_default();
    let name = &ended.run.metadata.name;
    if let Some(trouble) = trouble(ended) {
        return format!("\n{trouble}\n");
    }
    match status.phase {
        Some(Phase::Succeeded) => String::new(),
        Some(Phase::Failed | Phase::Cancelled) => {
            let message = status.message.unwrap_or_default();
            let log = ended.folder.join("log.txt");
            let hint = if log.is_file() { format!("; its output is in {}", relative(&log)) } else { String::new() };
            format!("\n{name}: {}{hint}\n", visible(&message))
        }
        _ => {
            let why = |blocked: &BlockedBy| {
                let (message, cure) = (visible(&blocked.message), visible(&blocked.unblocked_by));
                format!("\n{name} was not run: {message}; to run it, {cure}\n")
            };
            status.blocked_by.iter().map(why).collect::<Vec<_>>().concat()
        }
    }
}
