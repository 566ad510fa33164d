//! What the runner reports of one attempt: the status file and, cut to fit, the termination message.
//!
//! The shape is a contract between two versions of the product: fields are added, never changed.

pub mod exit;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        agent_run::{OutputStatus, VcsStatus},
        common::Usage,
    },
    status::Reason,
};

/// Value of [`Report::schema_version`].
pub const SCHEMA_VERSION: &str = "agents.proompteng.ai/report/v1";
/// Variable by which whoever submits an attempt gives the runner, and nobody else, the key of its report.
pub const KEY_VARIABLE: &str = "AGENT_REPORT_KEY";
/// Longest key of a report, in bytes.
pub const MAX_PROOF: usize = 256;
/// Largest termination message Kubernetes keeps, in bytes.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;
/// `sha256:` and 64 digits.
const MAX_DIGEST: usize = 71;
/// Outputs a run may declare.
const MAX_OUTPUTS: usize = 50;
/// The longest path that may be declared, below the folder of outputs.
const MAX_OUTPUT_PATH: usize = 2048;

/// How the provider ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// The provider exited 0 and every declared output exists.
    Succeeded,
    /// Anything else.
    Failed,
    /// The runner was asked to stop.
    Cancelled,
}

/// The runner's report of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// How it ended.
    pub status: Ended,
    /// Name of the provider.
    pub provider: String,
    /// Uid of the run, so that a report is never taken for another run's.
    pub run_uid: String,
    /// Number of the attempt.
    pub attempt: i32,
    /// The key that the runner was given in [`KEY_VARIABLE`]: that the report is the runner's, since nothing it starts
    /// can know it. Empty when none was given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
    /// Digest the runner verified; empty when it could not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_digest: String,
    /// Why it did not succeed: the name of a [`Reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The provider's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When the provider started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When everything had ended.
    pub finished_at: Timestamp,
    /// What went wrong, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the provider consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What happened to the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcs: Option<VcsStatus>,
    /// Conversation id of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// Declared outputs that were found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputStatus>,
    /// Whether outputs were left out to fit the termination message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

impl Report {
    /// The same, as a status takes it: what a program inside the pod wrote may be longer than the status allows, and a
    /// status that is refused would never be stored.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let Self {
            schema_version: _,
            status: _,
            provider,
            run_uid: _,
            attempt: _,
            proof,
            plan_digest,
            reason: _,
            exit_code: _,
            signal: _,
            started_at: _,
            finished_at: _,
            error,
            usage: _,
            vcs,
            conversation,
            outputs,
            truncated: _,
        } = &mut self;
        fit([provider], 253);
        fit([proof], MAX_PROOF);
        fit([plan_digest], MAX_DIGEST);
        fit(error, 1024);
        fit(conversation, 256);
        outputs.truncate(MAX_OUTPUTS);
        for OutputStatus { name, path, size_bytes: _, checksum } in outputs {
            fit([name], 63);
            fit([path], MAX_OUTPUT_PATH);
            fit([checksum], MAX_DIGEST);
        }
        if let Some(VcsStatus {
            repository,
            provider,
            base_branch,
            head_branch,
            mode: _,
            branch,
            base_commit,
            head_commit,
            commits: _,
        }) = vcs
        {
            fit(repository, 2048);
            fit(provider, 63);
            fit([base_branch, head_branch, branch].into_iter().flatten(), 256);
            fit([base_commit, head_commit].into_iter().flatten(), 64);
        }
        self
    }

    /// The reason as the product knows it; a name of a newer version reads as `ProviderExited`.
    pub fn known_reason(&self) -> Option<Reason> {
        self.reason.as_deref().map(|name| Reason::parse(name).unwrap_or(Reason::ProviderExited))
    }

    /// The report as JSON in at most [`MAX_TERMINATION_MESSAGE`] bytes: outputs are dropped from the end, then the
    /// error is cut, and the fixed part always stays, the proof in it.
    pub fn termination_message(&self) -> String {
        let fits =
            |report: &Self| serde_json::to_string(report).ok().filter(|text| text.len() <= MAX_TERMINATION_MESSAGE);
        let mut report = self.clone();
        loop {
            if let Some(text) = fits(&report) {
                return text;
            }
            report.truncated = true;
            if report.outputs.pop().is_some() {
                continue;
            }
            match report.error.take() {
                Some(error) if error.len() > 64 => report.error = Some(crate::status::cut(&error, error.len() / 2)),
                _ => {
                    report.conversation = None;
                    if report.vcs.take().is_none() {
                        // A spec that nobody checked may name a provider at any length.
                        fit([&mut report.provider, &mut report.run_uid], 253);
                        return fits(&report.bounded()).unwrap_or_default();
                    }
                }
            }
        }
    }
}

/// Cuts each text to `most` bytes.
fn fit<'a>(texts: impl IntoIterator<Item = &'a mut String>, most: usize) {
    for text in texts {
        *text = crate::status::cut(text, most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report() -> Report {
        Report {
            schema_version: SCHEMA_VERSION.into(),
            status: Ended::Succeeded,
            provider: "shell".into(),
            run_uid: "u".into(),
            attempt: 1,
            proof: "p".repeat(64),
            plan_digest: "sha256:0".into(),
            reason: None,
            exit_code: Some(0),
            signal: None,
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
            error: None,
            usage: None,
            vcs: None,
            conversation: None,
            outputs: vec![],
            truncated: false,
        }
    }

    proptest! {
        #[test]
        fn a_termination_message_fits_and_keeps_the_fixed_part(
            outputs in 0usize..60, path in "[a-z\"\\\\é]{0,300}", error in proptest::option::of(".{0,9000}"), provider in "[a\"\u{1}é]{0,9000}",
        ) {
            let mut whole = report();
            whole.provider = provider;
            whole.error = error;
            whole.outputs = (0..outputs)
                .map(|n| OutputStatus { name: n.to_string(), path: path.clone(), size_bytes: 1, checksum: "sha256:1".into() })
                .collect();
            let message = whole.termination_message();
            prop_assert!(message.len() <= MAX_TERMINATION_MESSAGE);
            let back: Report = serde_json::from_str(&message).expect("the message is whole JSON");
            prop_assert_eq!(&back.run_uid, &whole.run_uid);
            prop_assert_eq!(back.exit_code, whole.exit_code);
            prop_assert_eq!(&back.proof, &whole.proof);
            prop_assert!(back.truncated || back == whole);
        }
    }
}
