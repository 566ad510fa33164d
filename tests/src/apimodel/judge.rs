//! The invariants, checked on every committed write.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    request::Request,
    store::{Change, Commit, Store},
};

/// Label of a Job and its pod: uid of the run.
pub const RUN_UID_LABEL: &str = "agents.proompteng.ai/run-uid";
/// Label of a Job and its pod: number of the attempt.
pub const ATTEMPT_LABEL: &str = "agents.proompteng.ai/attempt";

/// What may start once: (uid of the run, number of the attempt).
pub type Submission = (String, i64);

/// The submission an object belongs to, by its labels or those of its template.
pub fn submission_of(object: &Value) -> Option<Submission> {
    [&object["metadata"], &object["spec"]["template"]["metadata"]].into_iter().find_map(|meta| {
        let found = |key: &str| meta["labels"][key].as_str().or_else(|| meta["annotations"][key].as_str());
        Some((found(RUN_UID_LABEL)?.to_owned(), found(ATTEMPT_LABEL)?.parse().ok()?))
    })
}

/// How the promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// Two Jobs of one submission live at once.
    TwoLiveSubmissions(Submission),
    /// A second Job was created for a submission, whatever became of the first.
    SubmittedAgain(Submission),
    /// The agent's container started twice for a submission.
    ExecutedAgain(Submission),
    /// A Job carries no submission, so nothing can be counted on it.
    Untraceable(String),
    /// A terminal phase was left: object, from, to.
    PhaseLeft(String, String, String),
    /// A run waits, and its status does not say for what.
    WaitsWithoutReason(String),
    /// A secret stands in an object other than its Secret.
    CanaryStored(String),
    /// A controller sent a secret, stored or not.
    CanarySent(String),
    /// A controller asked for Secrets, which it has no right to.
    SecretAsked(String),
}

/// A broken promise and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Since the world began.
    pub at: Duration,
    /// Version of the write that broke it.
    pub version: u64,
    /// How.
    pub broken: Broken,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}, version {}: {:?}", self.at, self.version, self.broken)
    }
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    seen: usize,
    jobs: BTreeMap<Submission, BTreeSet<String>>,
    pub(super) executions: BTreeMap<Submission, u32>,
    pub(super) canaries: Vec<String>,
    pub(super) violations: Vec<Violation>,
}

impl Judge {
    pub(super) fn observe(&mut self, store: &Store) {
        while let Some(commit) = store.history().get(self.seen) {
            self.seen += 1;
            let mut found = Vec::new();
            self.check_canaries(commit, &mut found);
            match commit.key.resource.plural {
                "jobs" => self.check_job(store, commit, &mut found),
                "agentruns" => check_run(commit, &mut found),
                _ => {}
            }
            self.violations.extend(found.into_iter().map(|broken| Violation {
                at: commit.at,
                version: commit.version,
                broken,
            }));
        }
    }

    /// The agent's container of a pod started.
    pub(super) fn executed(&mut self, submission: Submission, at: Duration, version: u64) {
        let count = self.executions.entry(submission.clone()).or_default();
        *count += 1;
        if *count > 1 {
            self.violations.push(Violation { at, version, broken: Broken::ExecutedAgain(submission) });
        }
    }

    pub(super) fn jobs_of(&self, submission: &Submission) -> usize {
        self.jobs.get(submission).map_or(0, BTreeSet::len)
    }

    fn check_canaries(&self, commit: &Commit, found: &mut Vec<Broken>) {
        if self.canaries.is_empty() || commit.key.resource.plural == "secrets" || commit.change == Change::Deleted {
            return;
        }
        if self.tells(&commit.object.to_string()) {
            found.push(Broken::CanaryStored(format!("{}/{}", commit.key.resource.plural, commit.key.name)));
        }
    }

    /// Whether a text holds a secret, as it is or as Secrets spell it.
    fn tells(&self, text: &str) -> bool {
        self.canaries.iter().any(|canary| text.contains(canary.as_str()) || text.contains(&STANDARD.encode(canary)))
    }

    /// A controller's request, judged whatever becomes of it.
    pub(super) fn asked(&mut self, request: &Request, at: Duration, version: u64) {
        let body = String::from_utf8_lossy(&request.body);
        let query: String = request.query.values().map(String::as_str).collect();
        let mut found = Vec::new();
        if request.plural() == "secrets" {
            found.push(Broken::SecretAsked(request.path.clone()));
        }
        if [request.path.as_str(), &query, &body].into_iter().any(|text| self.tells(text)) {
            found.push(Broken::CanarySent(format!("{:?} {}", request.verb, request.path)));
        }
        self.violations.extend(found.into_iter().map(|broken| Violation { at, version, broken }));
    }

    fn check_job(&mut self, store: &Store, commit: &Commit, found: &mut Vec<Broken>) {
        if commit.change != Change::Added {
            return;
        }
        let Some(submission) = submission_of(&commit.object) else {
            found.push(Broken::Untraceable(commit.key.name.clone()));
            return;
        };
        let uids = self.jobs.entry(submission.clone()).or_default();
        uids.insert(commit.object["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
        if uids.len() > 1 {
            found.push(Broken::SubmittedAgain(submission.clone()));
        }
        let live = store
            .list(commit.key.resource, None)
            .filter(|(_, job)| submission_of(job).as_ref() == Some(&submission))
            .filter(|(_, job)| job["metadata"]["deletionTimestamp"].is_null() && !job_finished(job))
            .count();
        if live > 1 {
            found.push(Broken::TwoLiveSubmissions(submission));
        }
    }
}

/// Whether a Job is Complete or Failed.
pub(super) fn job_finished(job: &Value) -> bool {
    job["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
        condition["status"] == "True" && matches!(condition["type"].as_str(), Some("Complete" | "Failed"))
    })
}

fn check_run(commit: &Commit, found: &mut Vec<Broken>) {
    if commit.change == Change::Deleted {
        return;
    }
    let name = || commit.key.name.clone();
    let phase = |object: &Value| object["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let now = phase(&commit.object);
    if let Some(previous) = &commit.previous {
        let before = phase(previous);
        if matches!(before.as_str(), "Succeeded" | "Failed" | "Cancelled") && before != now {
            found.push(Broken::PhaseLeft(name(), before, now.clone()));
        }
    }
    // Before a controller has judged the run its phase is a default and says nothing of it.
    let waits = now == "Pending" && commit.object["status"]["observedGeneration"].is_number();
    let stated = commit.object["status"]["blockedBy"].as_array().is_some_and(|list| !list.is_empty());
    // One that cannot be read says so in its conditions alone.
    let mut conditions = commit.object["status"]["conditions"].as_array().into_iter().flatten();
    let stalled = conditions.any(|condition| condition["type"] == "Stalled" && condition["status"] == "True");
    if waits && !stated && !stalled {
        found.push(Broken::WaitsWithoutReason(name()));
    }
}
