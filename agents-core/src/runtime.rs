//! What passes between a decision and a runtime adapter: submissions, references, observations.
//!
//! Neutral data. Adapters translate it; nothing here knows a Job from a process.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    api::{agent_provider::SecretEnv, agent_run::RuntimeRefStatus, runtime::RuntimeKind},
    name::{ChildName, SubmissionKey},
    plan::{RunnerSpec, pod::PodPlan},
    report::Report,
    status::Reason,
};

/// One attempt, ready to be started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// What makes it one submission, however often it is sent.
    pub key: SubmissionKey,
    /// The runtime it is for.
    pub runtime: RuntimeKind,
    /// Deterministic name of what it becomes.
    pub name: ChildName,
    /// Namespace of the run.
    pub namespace: String,
    /// The run, for an owner reference.
    pub owner: Owner,
    /// What the runner executes.
    pub spec: RunnerSpec,
    /// The pod, for runtimes that have one.
    pub pod: PodPlan,
    /// Variables taken from Secrets, for runtimes without a pod.
    pub secret_env: Vec<SecretEnv>,
    /// Labels of what is created.
    pub labels: BTreeMap<String, String>,
}

/// The run that owns a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the run.
    pub name: String,
    /// Uid of the run.
    pub uid: String,
}

/// How a submission is found again. It is computed from the key; only `uid` is learnt from the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RuntimeRef {
    /// The runtime.
    pub runtime: RuntimeKind,
    /// Namespace of the run.
    pub namespace: String,
    /// Deterministic name.
    pub name: ChildName,
    /// Uid of the run that owns it.
    pub owner_uid: String,
    /// Uid of the object itself, once known.
    pub uid: Option<String>,
}

impl RuntimeRef {
    /// The reference of the submission `key` of the run `run` in `namespace`.
    pub fn of(runtime: RuntimeKind, namespace: &str, run: &str, key: &SubmissionKey) -> Self {
        Self {
            runtime,
            namespace: namespace.to_owned(),
            name: ChildName::of(run, key),
            owner_uid: key.uid.clone(),
            uid: None,
        }
    }

    /// The reference as stored in status.
    pub fn to_status(&self) -> RuntimeRefStatus {
        let Self { runtime, namespace, name, owner_uid: _, uid } = self;
        RuntimeRefStatus {
            kind: *runtime,
            name: name.as_str().to_owned(),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: uid.clone(),
            url: None,
            others: serde_json::Map::new(),
        }
    }
}

/// What a runtime says of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// Nothing of ours has that reference: it was never submitted, or it is gone.
    Lost,
    /// Submitted; its container has not started.
    Pending {
        /// When it was submitted.
        submitted_at: Timestamp,
        /// Uid of the object.
        uid: Option<String>,
        /// What keeps it from starting.
        cause: Option<Hindrance>,
    },
    /// The container has started.
    Running {
        /// When it was submitted.
        submitted_at: Timestamp,
        /// When the container started.
        started_at: Timestamp,
        /// Uid of the object.
        uid: Option<String>,
    },
    /// It is being torn down and something of it may still run.
    Stopping,
    /// It has ended.
    Finished(Box<Finish>),
}

impl Observation {
    /// Whether something of the submission may still run.
    pub fn is_live(&self) -> bool {
        match self {
            Self::Pending { .. } | Self::Running { .. } | Self::Stopping => true,
            Self::Lost | Self::Finished(_) => false,
        }
    }
}

/// What keeps a submission from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// `ImagePullFailed`, `Unschedulable`, `SecretMissing` or `StartFailed`.
    pub reason: Reason,
    /// What the runtime says, for people.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// The end of something that lives, by the runtime's own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// When it was to have ended at the latest.
    pub since: Timestamp,
    /// The node that has to end it.
    pub node: String,
}

/// How a submission ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// When it was submitted.
    pub submitted_at: Option<Timestamp>,
    /// When the container started; absent when it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Uid of the object.
    pub uid: Option<String>,
    /// Exit code of the container, which is the runner's.
    pub exit_code: Option<i32>,
    /// What the runtime itself says went wrong: `OutOfMemory`, `Evicted`, `DeadlineExceeded`, …
    pub cause: Option<(Reason, String)>,
    /// The runner's report, when it was found and is whole.
    pub report: Option<Report>,
}
