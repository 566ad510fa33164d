//! What is read of Jobs and pods: small projections that decode straight from the API server's JSON, from a GET and
//! from a watch alike. Everything else of an object is dropped while it is decoded.

mod raw;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use agents_core::plan::{CONTAINER, INSTALL_CONTAINER};

use super::fingerprint::{Fingerprint, Template};
use crate::watch::{Identity, Projection};

/// What is read of a Job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "raw::Job")]
pub struct JobView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version of the object.
    pub resource_version: String,
    /// When it was created.
    pub created: Timestamp,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Its controller.
    pub owner: Option<OwnerView>,
    /// The attempt it was created for, by its label.
    pub attempt: Option<i32>,
    /// When its time is over and its controller deletes its pods.
    pub deadline: Option<Timestamp>,
    /// Its end, decided or reached.
    pub end: Option<Box<JobEnd>>,
    /// Whether it was asked to stay after its end, by its annotation.
    pub kept: bool,
    /// What it executes.
    pub marks: Box<Marks>,
}

/// What a Job executes, and what it says that it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Digest of its plan, by its annotation.
    pub plan: Option<Box<str>>,
    /// Fingerprint of its pod template.
    pub pod: Fingerprint,
    /// The same as it was when the Job was made, by its annotation.
    pub made: Option<Fingerprint>,
    /// The key that the report of its runner repeats.
    pub report_key: Option<Box<str>>,
}

impl Marks {
    /// Whether it still is what it says, if it says anything.
    pub fn agree(&self) -> bool {
        self.made.is_none_or(|made| made == self.pod)
    }
}

/// The controller of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerView {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// What is read of a ConfigMap that may carry a runner's spec.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "raw::ConfigMap")]
pub struct ConfigMapView {
    /// Its controller.
    pub owner: Option<OwnerView>,
    /// Whether nobody can change it any more.
    pub immutable: bool,
    /// Its files, in base64.
    pub files: BTreeMap<String, String>,
}

impl From<raw::ConfigMap> for ConfigMapView {
    fn from(raw::ConfigMap { metadata, immutable, binary_data }: raw::ConfigMap) -> Self {
        Self { owner: metadata.controller(), immutable, files: binary_data }
    }
}

/// The end of a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEnd {
    /// Whether it is reached: every pod of the Job has ended. Otherwise it is decided, and pods are still ending.
    pub reached: bool,
    /// Whether it succeeded.
    pub complete: bool,
    /// Since when.
    pub at: Timestamp,
    /// `DeadlineExceeded`, `BackoffLimitExceeded`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What is read of a pod.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "raw::Pod")]
pub struct PodView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version of the object.
    pub resource_version: String,
    /// When it was created.
    pub created: Timestamp,
    /// Uid of the Job that controls it.
    pub job_uid: Option<String>,
    /// Uid of the run, by its label.
    pub run_uid: Option<String>,
    /// Name of the run, by its annotation.
    pub run: Option<Box<str>>,
    /// The attempt it was created for, by its label.
    pub attempt: Option<i32>,
    /// Uid of the Job it was created by, by its label, when it was cut off from it.
    pub cut_off_from: Option<Box<str>>,
    /// When its deletion was asked for.
    pub deletion_asked: Option<Timestamp>,
    /// When it is to have ended at the latest, if its deletion was asked for.
    pub deletion_due: Option<Timestamp>,
    /// The node it was given to.
    pub node: Option<Box<str>>,
    /// Phase.
    pub phase: Phase,
    /// What the kubelet says of the pod as a whole: `Evicted`, …
    pub verdict: Option<Box<PodNote>>,
    /// The condition `DisruptionTarget`, while true.
    pub disrupted: Option<Box<PodNote>>,
    /// The condition `PodScheduled`, while false.
    pub unscheduled: Option<Box<PodNote>>,
    /// Since when its containers could start: its last init container ended, else it was scheduled.
    pub ready_to_start: Option<Timestamp>,
    /// The first init container that has not ended well, with its name.
    pub init: Option<(String, ContainerState)>,
    /// The container of the runner.
    pub agent: ContainerState,
    /// Images of our containers, as the pod asks for them.
    pub images: Box<str>,
    /// What shows that the pod was changed after it was created, for people.
    pub changed: Option<Box<str>>,
}

impl Projection for JobView {
    fn identity(&self) -> Identity<'_> {
        Identity {
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            resource_version: &self.resource_version,
        }
    }
}

impl Projection for PodView {
    fn identity(&self) -> Identity<'_> {
        Identity {
            namespace: &self.namespace,
            name: &self.name,
            uid: &self.uid,
            resource_version: &self.resource_version,
        }
    }

    /// An image is all that can be changed of what a pod executes. It is compared with what was seen of this pod and not
    /// with the Job's, because clusters rewrite the images of pods as they are created.
    fn beside(&mut self, other: &Self) {
        if self.changed.is_none() {
            self.changed.clone_from(&other.changed);
        }
        if self.changed.is_none() && self.images != other.images {
            let both = format!("its images were changed: {} and {}", other.images, self.images);
            self.changed = Some(both.into_boxed_str());
        }
    }
}

/// Phase of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Not all containers have started.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers have exited 0.
    Succeeded,
    /// All containers have ended, one of them badly.
    Failed,
    /// Nothing is known.
    #[default]
    Unknown,
}

/// Something said about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNote {
    /// In one word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when.
    pub at: Option<Timestamp>,
}

/// State of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ContainerState {
    /// Nothing was said.
    #[default]
    Unknown,
    /// It has not started.
    Waiting {
        /// In one word.
        reason: String,
        /// For people.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        started_at: Option<Timestamp>,
    },
    /// It has ended.
    Terminated(Box<Terminated>),
}

/// The end of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// Exit code.
    pub exit_code: i32,
    /// In one word: `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub reason: String,
    /// Its termination message, or why it could not start.
    pub message: String,
    /// When it started; absent when it never did.
    pub started_at: Option<Timestamp>,
    /// When it ended, when that is known.
    pub finished_at: Option<Timestamp>,
}

impl From<raw::Job> for JobView {
    fn from(job: raw::Job) -> Self {
        let raw::Job { metadata, spec, status: raw::JobStatus { start_time, conditions } } = job;
        let allowed = spec.active_deadline_seconds.map(SignedDuration::from_secs);
        let deadline = start_time.zip(allowed).and_then(|(start, allowed)| start.checked_add(allowed).ok());
        let attempt = metadata.labels.attempt();
        let template = spec.template.spec.as_deref().map_or("{}", RawValue::get);
        let Template { pod, report_key } = Template::read(template);
        let marks = Box::new(Marks {
            plan: metadata.annotations.plan.clone(),
            made: metadata.annotations.pod.as_deref().and_then(Fingerprint::parse),
            report_key,
            pod,
        });
        let end = |kind: &str| conditions.iter().find(|condition| condition.is_true(kind));
        let end = [
            ("Complete", true, true),
            ("Failed", true, false),
            ("SuccessCriteriaMet", false, true),
            ("FailureTarget", false, false),
        ]
        .into_iter()
        .find_map(|(kind, reached, complete)| {
            end(kind).map(|condition| {
                Box::new(JobEnd {
                    reached,
                    complete,
                    at: condition.last_transition_time.unwrap_or(metadata.creation_timestamp),
                    reason: condition.reason.clone(),
                    message: condition.message.clone(),
                })
            })
        });
        Self {
            owner: metadata.controller(),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            created: metadata.creation_timestamp,
            deleting: metadata.deletion_timestamp.is_some(),
            attempt,
            deadline,
            end,
            kept: metadata.annotations.kept.is_some(),
            marks,
        }
    }
}

impl From<raw::Pod> for PodView {
    fn from(pod: raw::Pod) -> Self {
        let raw::Pod { metadata, spec, status } = pod;
        let raw::PodStatus { phase, reason, message, conditions, init_container_statuses, container_statuses } = status;
        let since = |kind: &str| {
            let condition = conditions.iter().find(|condition| condition.is_true(kind));
            condition.and_then(|condition| condition.last_transition_time)
        };
        let ready_to_start = since("Initialized").or_else(|| since("PodScheduled"));
        let note = |found: Option<&raw::Condition>| found.map(raw::Condition::note).map(Box::new);
        let disrupted = note(conditions.iter().find(|condition| condition.is_true("DisruptionTarget")));
        let unscheduled = note(conditions.iter().find(|condition| condition.is_false("PodScheduled")));
        let (deletion_asked, deletion_due) = (metadata.deletion_asked(), metadata.deletion_timestamp);
        let job_uid = metadata.controller().filter(|owner| owner.kind == "Job").map(|owner| owner.uid);
        let attempt = metadata.labels.attempt();
        let agent = container_statuses.into_iter().find(|status| status.name == CONTAINER);
        // A pod of ours never starts a container twice; the kubelet does where its image was changed.
        let restarts = agent.as_ref().map_or(0, |status| status.restart_count);
        let changed = (restarts > 0).then(|| format!("its container was started {} times", restarts.saturating_add(1)));
        Self {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            created: metadata.creation_timestamp,
            job_uid,
            run_uid: metadata.labels.run_uid,
            run: metadata.annotations.run,
            attempt,
            cut_off_from: metadata.labels.job_uid.filter(|_| metadata.owner_references.is_empty()),
            deletion_asked,
            deletion_due,
            phase: match phase.as_str() {
                "Pending" => Phase::Pending,
                "Running" => Phase::Running,
                "Succeeded" => Phase::Succeeded,
                "Failed" => Phase::Failed,
                _ => Phase::Unknown,
            },
            verdict: (!reason.is_empty()).then(|| Box::new(PodNote { reason, message, at: None })),
            disrupted,
            unscheduled,
            ready_to_start,
            init: init_container_statuses
                .into_iter()
                .map(|status| (status.name, ContainerState::from(status.state)))
                .find(|(_, state)| !matches!(state, ContainerState::Terminated(end) if end.exit_code == 0)),
            agent: agent.map(|status| status.state.into()).unwrap_or_default(),
            images: spec.images().into_boxed_str(),
            node: spec.node_name,
            changed: changed.map(String::into_boxed_str),
        }
    }
}

impl From<raw::State> for ContainerState {
    fn from(state: raw::State) -> Self {
        // A container that never started, or was lost, has the first second of 1970 for its times.
        let real = |time: Option<Timestamp>| time.filter(|time| *time > Timestamp::UNIX_EPOCH);
        match state {
            raw::State {
                terminated: Some(raw::Terminated { exit_code, reason, message, started_at, finished_at }),
                ..
            } => Self::Terminated(Box::new(Terminated {
                exit_code,
                reason,
                message,
                started_at: real(started_at),
                finished_at: real(finished_at),
            })),
            raw::State { running: Some(raw::Running { started_at }), .. } => {
                Self::Running { started_at: real(started_at) }
            }
            raw::State { waiting: Some(raw::Waiting { reason, message }), .. } => Self::Waiting { reason, message },
            raw::State { waiting: None, running: None, terminated: None } => Self::Unknown,
        }
    }
}
