//! Budget: what runs may consume in a period.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    common::{Condition, Scalar, Subject},
    kind::{Column, Kind, Rule},
};

/// What runs may consume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget;

impl Kind for Budget {
    const GROUP: &'static str = "budgets.proompteng.ai";
    const KIND: &'static str = "Budget";
    const PLURAL: &'static str = "budgets";
    const SINGULAR: &'static str = "budget";
    const SHORT_NAMES: &'static [&'static str] = &["bud"];
    const DESCRIPTION: &'static str = "Limits what runs may consume in a period: tokens, dollars, CPU, memory, GPU.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Period", path: ".spec.period", kind: "string", wide: false },
        Column { name: "Dollars-Used", path: ".status.used.dollars", kind: "string", wide: false },
        Column { name: "Dollars", path: ".spec.limits.dollars", kind: "string", wide: false },
        Column { name: "Tokens-Used", path: ".status.used.tokens", kind: "string", wide: false },
        Column { name: "Tokens", path: ".spec.limits.tokens", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "CPU", path: ".spec.limits.cpu", kind: "string", wide: true },
        Column { name: "Memory", path: ".spec.limits.memory", kind: "string", wide: true },
        Column { name: "GPU", path: ".spec.limits.gpu", kind: "string", wide: true },
        Column { name: "Since", path: ".status.periodStart", kind: "date", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[Rule {
        field: ".spec.subjects",
        expression: "!has(self.spec) || !has(self.spec.selector) || !has(self.spec.subjects) || size(self.spec.subjects) == 0",
        message: "a budget is for the runs of a selector or for those of subjects, not both",
    }];
    const SPEC_OPTIONAL: bool = true;
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/budget.yaml");
    type Spec = BudgetSpec;
    type Status = BudgetStatus;
}

/// Desired state of a Budget. Without `selector` and `subjects` it is for the runs that name it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetSpec {
    /// Over which time the limits count. `total` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// IANA name of the time zone in which a day, a week (from Monday) and a month begin. UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = r"^[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}(/[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13})*$")
    )]
    pub timezone: Option<String>,
    /// Labels of the runs it is for; not together with `subjects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// The Agents, Orchestrations and runs it is for, at most 100; not together with `selector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub subjects: Vec<Subject>,
    /// What may be consumed; what is not named is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<BudgetLimits>,
    /// Share of a limit, in percent from 1 to 100, from which a warning is given; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warn_at_percent: Option<i32>,
    /// Whether runs of a provider that does not report its consumption may start. `deny` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_usage: Option<UnknownUsage>,
}

/// Over which time limits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// Each run on its own.
    Run,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// For ever.
    Total,
}

/// Whether what cannot be metered may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownUsage {
    /// It may, and counts as nothing.
    Allow,
    /// It may not.
    Deny,
}

/// Labels that an object must have; everything in it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with their values, at most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    "message": "In and NotIn need values; Exists and DoesNotExist have none"
}]))]
pub struct LabelRequirement {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// The values it is compared with, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// What may be consumed: each a number or a quantity such as `500m`, `2.5` or `64Gi`, not negative. Further fields are
/// kept and limit nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct BudgetLimits {
    /// Tokens read and written by models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Amount>,
    /// US dollars, as providers report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dollars: Option<Amount>,
    /// CPU in core-hours: the CPU that a run's pods request, times the hours they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    /// Memory in byte-hours: the memory that a run's pods request, times the hours they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Amount>,
    /// GPUs in device-hours: the GPUs that a run's pods request, times the hours they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Amount>,
    /// Everything else.
    #[serde(flatten)]
    #[schemars(skip)]
    pub extra: Map<String, Value>,
}

/// A number or a quantity, kept as it was written; a fraction too, because money has one. The schema cannot say what it
/// is, so anything is read and the check refuses what is neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(pub Value);

impl Amount {
    /// The text of the quantity, unless it is something else.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match &self.0 {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Int-or-string knows no fractions.
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Amounts as the controller writes them: quantities.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Amounts {
    /// Tokens read and written by models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Scalar>,
    /// US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dollars: Option<Scalar>,
    /// Core-hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Scalar>,
    /// Byte-hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Scalar>,
    /// Device-hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Scalar>,
}

/// Observed state of a Budget.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Warning`, `Exceeded` or `Invalid`.
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
    /// Consumed in this period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Amounts>,
    /// Set aside in this period for attempts that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Amounts>,
    /// When this period began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_start: Option<Timestamp>,
    /// When this period ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end: Option<Timestamp>,
    /// The attempts that have something set aside, each until it is settled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub entries: Vec<LedgerEntry>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What is set aside for one attempt, and what it has consumed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// Unique id of the run.
    #[schemars(length(max = 128))]
    pub uid: String,
    /// Name of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// The step, for runs of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub step: Option<String>,
    /// Number of the attempt, from 1.
    #[schemars(range(min = 0))]
    pub attempt: i32,
    /// Set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Amounts>,
    /// Consumed so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Amounts>,
    /// When it was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}
