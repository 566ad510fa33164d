//! The parts of the API server's JSON that are read, in its own shape.

use serde_json::value::RawValue;

use super::{BTreeMap, CONTAINER, Deserialize, INSTALL_CONTAINER, OwnerView, PodNote, SignedDuration, Timestamp};

#[derive(Deserialize)]
pub(super) struct Job {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: JobSpec,
    #[serde(default)]
    pub(super) status: JobStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct JobSpec {
    pub(super) active_deadline_seconds: Option<i64>,
    pub(super) template: Template,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Template {
    /// As it was sent: it is looked into only when it was not seen before.
    pub(super) spec: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct JobStatus {
    pub(super) start_time: Option<Timestamp>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigMap {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) immutable: bool,
    #[serde(default)]
    pub(super) binary_data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) node_name: Option<Box<str>>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
}

impl PodSpec {
    /// Of our containers, in their order.
    pub(super) fn images(&self) -> String {
        let all = self.init_containers.iter().chain(&self.containers);
        let ours = all.filter(|container| container.name == CONTAINER || container.name == INSTALL_CONTAINER);
        let images: Vec<_> = ours.map(|Container { name: _, image }| image.as_str()).collect();
        images.join(", ")
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    pub(super) creation_timestamp: Timestamp,
    #[serde(default)]
    pub(super) deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    pub(super) deletion_grace_period_seconds: i64,
    #[serde(default)]
    pub(super) labels: Labels,
    #[serde(default)]
    pub(super) annotations: Annotations,
    #[serde(default)]
    pub(super) owner_references: Vec<OwnerReference>,
}

impl Metadata {
    pub(super) fn controller(&self) -> Option<OwnerView> {
        let owner = self.owner_references.iter().find(|owner| owner.controller)?;
        let OwnerReference { api_version, kind, name, uid, controller: _ } = owner.clone();
        Some(OwnerView { api_version, kind, name, uid })
    }

    /// The API server stores when the deletion ends, not when it was asked for.
    pub(super) fn deletion_asked(&self) -> Option<Timestamp> {
        let grace = SignedDuration::from_secs(self.deletion_grace_period_seconds);
        self.deletion_timestamp.and_then(|until| until.checked_sub(grace).ok())
    }
}

#[derive(Deserialize, Default)]
pub(super) struct Labels {
    #[serde(rename = "agents.proompteng.ai/run-uid")]
    pub(super) run_uid: Option<String>,
    #[serde(rename = "agents.proompteng.ai/attempt")]
    attempt: Option<String>,
    #[serde(rename = "batch.kubernetes.io/controller-uid")]
    pub(super) job_uid: Option<Box<str>>,
}

impl Labels {
    pub(super) fn attempt(&self) -> Option<i32> {
        self.attempt.as_deref().and_then(|attempt| attempt.parse().ok())
    }
}

#[derive(Deserialize, Default)]
pub(super) struct Annotations {
    #[serde(rename = "agents.proompteng.ai/run")]
    pub(super) run: Option<Box<str>>,
    #[serde(rename = "agents.proompteng.ai/kept")]
    pub(super) kept: Option<String>,
    #[serde(rename = "agents.proompteng.ai/plan-digest")]
    pub(super) plan: Option<Box<str>>,
    #[serde(rename = "agents.proompteng.ai/pod-fingerprint")]
    pub(super) pod: Option<Box<str>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OwnerReference {
    #[serde(default)]
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    r#type: String,
    status: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) last_transition_time: Option<Timestamp>,
}

impl Condition {
    pub(super) fn is_true(&self, kind: &str) -> bool {
        self.r#type == kind && self.status == "True"
    }

    pub(super) fn is_false(&self, kind: &str) -> bool {
        self.r#type == kind && self.status == "False"
    }

    pub(super) fn note(&self) -> PodNote {
        PodNote { reason: self.reason.clone(), message: self.message.clone(), at: self.last_transition_time }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(default)]
    pub(super) restart_count: u32,
    #[serde(default)]
    pub(super) state: State,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct State {
    pub(super) waiting: Option<Waiting>,
    pub(super) running: Option<Running>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Running {
    #[serde(default)]
    pub(super) started_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) started_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) finished_at: Option<Timestamp>,
}
