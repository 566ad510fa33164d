//! What deserves attention of a run and stops nothing. Among it: texts of the work that hold what people do not see. Each
//! is looked at when the run is submitted; how long they may be is the schema's and `resolve`'s business.

use super::record::Warning;
use crate::{
    api::implementation_spec::ImplementationSpecSpec,
    hidden::{hidden, visible},
    resolve::Resolved,
    status::Reason,
};

/// Texts that are named; how many more there are is said.
const NAMED: usize = 10;

/// What deserves attention of what is submitted; the reason is that of the gravest.
pub(super) fn warning(resolved: &Resolved) -> Option<Warning> {
    let hidden = hidden_texts(resolved);
    let reason = match (hidden.is_empty(), resolved.ambiguous.is_empty()) {
        (false, _) => Reason::HiddenText,
        (true, false) => Reason::Ambiguous,
        (true, true) => Reason::NotUsed,
    };
    let all: Vec<&str> =
        hidden.iter().chain(&resolved.ambiguous).chain(&resolved.left_out).map(String::as_str).collect();
    (!all.is_empty()).then(|| (reason, all.join("; ")))
}

/// One sentence for each text with something hidden: its field, what, and in which line. Never the text.
fn hidden_texts(resolved: &Resolved) -> Vec<String> {
    let ImplementationSpecSpec {
        text,
        summary,
        description,
        acceptance_criteria,
        labels: _,
        source: _,
        contract: _,
        vcs_ref: _,
    } = &resolved.implementation;
    let work = match &resolved.implementation_name {
        Some(name) => format!("ImplementationSpec/{name} spec"),
        None => "spec.implementation.inline".to_owned(),
    };
    let mut found = Vec::new();
    let mut look = |field: &dyn Fn() -> String, text: &str| {
        let kinds: Vec<_> = hidden(text).iter().map(|(kind, line)| format!("{kind} (line {line})")).collect();
        if !kinds.is_empty() {
            found.push(format!("{} has {}", field(), kinds.join(", ")));
        }
    };
    look(&|| format!("{work}.text"), text);
    for (name, text) in [("summary", summary), ("description", description)] {
        look(&|| format!("{work}.{name}"), text.as_deref().unwrap_or_default());
    }
    for (n, text) in acceptance_criteria.iter().enumerate() {
        look(&|| format!("{work}.acceptanceCriteria[{n}]"), text);
    }
    for (field, texts) in [("parameters", &resolved.inputs), ("payloads", &resolved.payloads)] {
        for (name, text) in texts {
            look(&|| format!("spec.{field}.{}", visible(name)), text);
        }
    }
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    if more > 0 {
        found.push(format!("so have {more} more texts"));
    }
    found
}
