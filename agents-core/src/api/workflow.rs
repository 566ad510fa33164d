//! The steps of a run, and where each of them stands.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{FreeForm, NameRef, Parameters, ShortText},
    implementation_spec::Implementation,
    workload::Workload,
};

/// The steps of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Workflow {
    /// The steps. Each begins when the one before it has succeeded, unless it says `dependsOn`.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.dependsOn) || !(self.name in self.dependsOn)", "message": "a step cannot depend on itself", "fieldPath": ".dependsOn"},
]))]
pub struct Step {
    /// Name, unique in the run.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Steps that must have succeeded before this one begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub depends_on: Vec<String>,
    /// The ImplementationSpec of this step; the run's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation_spec_ref: Option<NameRef>,
    /// The work item of this step, given in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation: Option<Implementation>,
    /// Values that win over the run's parameters.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub parameters: Parameters,
    /// Attempts besides the first; the run's `retryPolicy.limit` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: Option<i32>,
    /// Wait before the second attempt, in seconds; the run's `retryPolicy.backoffSeconds` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub retry_backoff_seconds: Option<i32>,
    /// Time of one attempt of one iteration, in seconds; no limit of its own when 0 or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub timeout_seconds: Option<i32>,
    /// Image, resources and volumes of this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Repeats the step.
    #[serde(rename = "loop", default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Loop>,
}

/// How often a step is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loop {
    /// Iterations at most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_iterations: i32,
    /// Whether another iteration follows; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<LoopCondition>,
    /// What iterations hand to each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LoopState>,
}

/// Whether another iteration follows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LoopCondition {
    /// Language of the expression: `cel`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ConditionLanguage>,
    /// A CEL expression over `iteration.index`, `iteration.maxIterations`, `last.phase` and `last.control`; true repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
    /// Where `last.control` comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LoopSource>,
}

/// The language of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConditionLanguage {
    /// Common Expression Language.
    Cel,
}

/// Where the control document of an iteration comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoopSource {
    /// `file`: the step leaves it in a file.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<LoopSourceKind>,
    /// Path of the file; `/workspace/.agentrun/loop-control.json` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// What an absent file does: `stop` (the default) ends the loop, `fail` fails the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing: Option<LoopReaction>,
    /// What an unreadable file does: `fail` (the default) fails the step, `stop` ends the loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_invalid: Option<LoopReaction>,
}

/// A kind of control document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoopSourceKind {
    /// A JSON file.
    File,
}

/// What happens to a loop whose control document is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoopReaction {
    /// It ends, and the step has succeeded.
    Stop,
    /// The step fails.
    Fail,
}

/// What iterations hand to each other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoopState {
    /// Iterations need a volume that outlives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Volumes of the workload that carry the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63)))]
    pub volume_names: Vec<String>,
}

/// Where a workflow stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// `Pending`, `Running`, `Retrying`, `Succeeded`, `Failed` or `Cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub phase: Option<String>,
    /// When `phase` changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// The steps, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<StepStatus>,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// `Pending`, `Running`, `Retrying`, `Succeeded`, `Failed`, `Skipped` or `Cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub phase: Option<String>,
    /// Why, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Number of the current attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// When its first attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When `phase` changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// When the next attempt may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<Timestamp>,
    /// When its Job was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_observed_at: Option<Timestamp>,
    /// The Job of the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_ref: Option<JobRef>,
    /// The iterations of a step that repeats.
    #[serde(rename = "loop", default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<LoopStatus>,
    /// What the step left for later ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub outputs: BTreeMap<String, ShortText>,
}

/// A Job by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct JobRef {
    /// Name of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Namespace of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// Uid of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uid: Option<String>,
}

/// The iterations of a step that repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoopStatus {
    /// Number of the iteration under way, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_iteration: Option<i32>,
    /// Iterations that have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_iterations: Option<i32>,
    /// Iterations at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_iterations: Option<i32>,
    /// Iterations kept in `iterations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_iterations: Option<i32>,
    /// Iterations dropped from `iterations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned_iterations: Option<i32>,
    /// Why no further iteration followed, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub stop_reason: Option<String>,
    /// The last control document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_control: Option<FreeForm>,
    /// The newest iterations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub iterations: Vec<IterationStatus>,
}

/// One iteration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IterationStatus {
    /// Number, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<i32>,
    /// How it stands or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub phase: Option<String>,
    /// Attempts made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// The Job of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_ref: Option<JobRef>,
}
