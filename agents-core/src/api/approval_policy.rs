//! ApprovalPolicy: who must agree before something runs.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    common::{Condition, Subject},
    kind::{Column, Kind, Rule},
};

/// Who must agree before something runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApprovalPolicy;

impl Kind for ApprovalPolicy {
    const GROUP: &'static str = "approvals.proompteng.ai";
    const KIND: &'static str = "ApprovalPolicy";
    const PLURAL: &'static str = "approvalpolicies";
    const SINGULAR: &'static str = "approvalpolicy";
    const SHORT_NAMES: &'static [&'static str] = &["apol"];
    const DESCRIPTION: &'static str = "Holds runs and orchestration steps until people or checks agree to their plan.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Mode", path: ".spec.mode", kind: "string", wide: false },
        Column { name: "Required", path: ".spec.required", kind: "integer", wide: false },
        Column { name: "Default", path: ".spec.defaultDecision", kind: "string", wide: false },
        Column { name: "Waiting", path: ".status.waiting", kind: "integer", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Last", path: ".status.lastDecisionAt", kind: "date", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[
        Rule {
            field: ".spec.required",
            expression: "!has(self.spec) || !has(self.spec.required) || !has(self.spec.approvers) || (has(self.spec.approvers.groups) && size(self.spec.approvers.groups) > 0) || !has(self.spec.approvers.users) || self.spec.required <= size(self.spec.approvers.users)",
            message: "more approvals are required than approvers.users names, so it could never be approved",
        },
        Rule {
            field: ".spec.required",
            expression: "!has(self.spec) || !has(self.spec.required) || !has(self.spec.mode) || self.spec.mode != 'automatic'",
            message: "an automatic policy asks nobody: leave required out, or use mode manual or mixed",
        },
        Rule {
            field: ".spec.checks",
            expression: "!has(self.spec) || !has(self.spec.mode) || self.spec.mode != 'mixed' || (has(self.spec.checks) && size(self.spec.checks) > 0)",
            message: "a mixed policy needs checks: they decide when nobody has to be asked",
        },
    ];
    const SPEC_OPTIONAL: bool = true;
    const EXAMPLE: &'static str = include_str!("examples/approvalpolicy.yaml");
    type Spec = ApprovalPolicySpec;
    type Status = ApprovalPolicyStatus;
}

/// Desired state of an ApprovalPolicy. Further fields are kept and decide nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ApprovalPolicySpec {
    /// Who decides. `manual` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ApprovalMode>,
    /// What it holds, at most 100: Agents, Orchestrations, Tools, or single runs, made after this policy. What names this
    /// policy itself is held always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub subjects: Vec<Subject>,
    /// Who may decide; whoever may create SignalDeliveries in the namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<Approvers>,
    /// How many different people must approve, from 1 to 20; one denial denies. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub required: Option<i32>,
    /// How long a decision is waited for, and how long one counts, in seconds, from 1 to one year. Without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expires_after_seconds: Option<i64>,
    /// What the plan must satisfy, at most 32. With `automatic` all of them approve and one denies; with `mixed` all of
    /// them approve and one that fails asks people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<ApprovalCheck>,
    /// What is not held although it is a subject, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub exceptions: Vec<ApprovalException>,
    /// What happens when nobody has decided in time, or no check says anything. `deny` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_decision: Option<DefaultDecision>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Map<String, Value>,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalMode {
    /// People.
    Manual,
    /// The checks.
    Automatic,
    /// The checks, and people where they fail.
    Mixed,
}

/// What happens when nobody decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DefaultDecision {
    /// It may go on.
    Allow,
    /// It may not.
    Deny,
}

/// Who may decide: each of these users, and everyone in one of these groups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.users) && size(self.users) > 0) || (has(self.groups) && size(self.groups) > 0)",
    "message": "approvers without users and groups let nobody decide: name some, or leave approvers out"
}]))]
pub struct Approvers {
    /// User names as the API server knows them, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
    /// Group names as the API server knows them, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
}

/// A condition on a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalCheck {
    /// Name, unique in the policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// CEL expression over `plan`, true when the plan is in order; at most 4096 characters.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
    /// What people read when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// What is not held although it is a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.subjects) && size(self.subjects) > 0) || (has(self.users) && size(self.users) > 0) || has(self.expression)",
    "message": "an exception names subjects, users or an expression; with none of them nothing would be held at all"
}]))]
pub struct ApprovalException {
    /// Name, unique in the policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Why it is excepted, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// The objects it excepts, at most 100; any when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub subjects: Vec<Subject>,
    /// Names of the users whose runs it excepts, at most 100; any when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub users: Vec<String>,
    /// CEL expression over `plan`, true when it is excepted; at most 4096 characters. True when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
    /// Until when; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Observed state of an ApprovalPolicy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalPolicyStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` or `Invalid`; never a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub phase: Option<String>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// How many runs and steps wait for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<i32>,
    /// When something was decided last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_decision_at: Option<Timestamp>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
