//! Schedule: runs started by the clock.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    common::Condition,
    kind::{Column, Kind},
};

/// Runs started by the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule;

impl Kind for Schedule {
    const GROUP: &'static str = "schedules.proompteng.ai";
    const KIND: &'static str = "Schedule";
    const PLURAL: &'static str = "schedules";
    const SINGULAR: &'static str = "schedule";
    const SHORT_NAMES: &'static [&'static str] = &["sched"];
    const DESCRIPTION: &'static str = "Starts a copy of an AgentRun or an OrchestrationRun at times of the calendar.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Cron", path: ".spec.cron", kind: "string", wide: false },
        Column { name: "Timezone", path: ".spec.timezone", kind: "string", wide: false },
        Column { name: "Suspend", path: ".spec.suspend", kind: "boolean", wide: false },
        Column { name: "Last", path: ".status.lastRunTime", kind: "date", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Kind", path: ".spec.targetRef.kind", kind: "string", wide: true },
        Column { name: "Target", path: ".spec.targetRef.name", kind: "string", wide: true },
        Column { name: "Next", path: ".status.nextRunTime", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/schedule.yaml");
    type Spec = ScheduleSpec;
    type Status = ScheduleStatus;
}

/// Desired state of a Schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// When to start a run, in the language of CronJob: minute, hour, day of month, month, day of week, each with `*`,
    /// numbers, names, lists, ranges and steps; or `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`,
    /// `@annually`, `@every` and a duration. Of two kinds of day that are both given either counts. A time that the clock
    /// leaves out fires at the next minute that exists, a time that comes twice fires once, unless every hour is meant.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = cron_rules()))]
    pub cron: String,
    /// IANA name of the time zone in which `cron` is read, such as `Europe/Berlin`. UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}(/[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13})*$"), extend("x-kubernetes-validations" = [{
        "rule": "self.lowerAscii() != 'local'",
        "message": "a time zone is one of the IANA database, such as Europe/Berlin; Local means another one on each machine"
    }]))]
    pub timezone: Option<String>,
    /// Starts nothing while true; what was started goes on. False when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What happens when a run of this schedule has not ended at the time of the next. `Forbid` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
    /// How late a run may start, in seconds, from 1 to one year; of several times that were missed within it, the last one
    /// counts. 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub starting_deadline_seconds: Option<i64>,
    /// How many runs that succeeded are kept, from 0 to 1000, as `successfulJobsHistoryLimit` of a CronJob. 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_runs_history_limit: Option<i32>,
    /// How many runs that failed or were cancelled are kept, from 0 to 1000, as `failedJobsHistoryLimit` of a CronJob.
    /// 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_runs_history_limit: Option<i32>,
    /// Who watches the clock. `controller` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<ScheduleEngine>,
    /// The run that is copied.
    pub target_ref: TargetRef,
}

/// What happens when a run has not ended at the time of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Both run.
    Allow,
    /// The next one is left out.
    Forbid,
    /// The one that runs is cancelled.
    Replace,
}

/// Who watches the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleEngine {
    /// The product's controller: no pod is needed to start a run.
    Controller,
    /// A CronJob of Kubernetes, whose pod starts the run.
    Cronjob,
}

/// The run that is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.apiVersion) || (self.kind == 'AgentRun' ? self.apiVersion.startsWith('agents.proompteng.ai/') : self.apiVersion.startsWith('orchestration.proompteng.ai/'))",
    "message": "apiVersion is that of the kind: agents.proompteng.ai/v1alpha1 for AgentRun, orchestration.proompteng.ai/v1alpha1 for OrchestrationRun"
}]))]
pub struct TargetRef {
    /// Group and version of `kind`; the one this product serves when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub api_version: Option<String>,
    /// Kind of the run.
    pub kind: TargetKind,
    /// Name of the run, best one with the annotation `agents.proompteng.ai/template: "true"`: others run themselves, too.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the run, and of its copies; this object's namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A kind of run that can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// One execution by an agent.
    AgentRun,
    /// One execution of an Orchestration.
    OrchestrationRun,
}

/// Observed state of a Schedule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Active`, `Suspended`, `Pending` or `Invalid`.
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
    /// The time of the last run, as `cron` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_time: Option<Timestamp>,
    /// When a run of this schedule last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Timestamp>,
    /// The time of the next run, as `cron` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_time: Option<Timestamp>,
    /// Name of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_run_name: Option<String>,
    /// Names of the runs that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 253)))]
    pub active: Vec<String>,
    /// When this status was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// Current conditions, one per type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What the API server itself refuses of an expression: all but reversed ranges, steps of zero, and dates that never come.
fn cron_rules() -> Value {
    let mut rules = vec![
        json!({
            "rule": r"self.startsWith('@') || self.matches('^\\s*\\S+(\\s+\\S+){4}\\s*$')",
            "message": "cron has five fields: minute, hour, day of month, month, day of week; or is a word such as @daily",
        }),
        json!({
            "rule": r"!self.startsWith('@') || self.matches('^@(yearly|annually|monthly|weekly|daily|midnight|hourly|every [+]?[0-9.].*)$')",
            "message": "a word is one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, or @every and a duration such as 90m",
        }),
        json!({
            "rule": "!self.contains('TZ')",
            "message": "a time zone does not belong into cron: give it in timezone",
        }),
    ];
    let fields = [
        ("minute", "[0-5]?[0-9]", "0 to 59"),
        ("hour", "([01]?[0-9]|2[0-3])", "0 to 23"),
        ("day of month", "([1-9]|[12][0-9]|3[01])", "1 to 31"),
        ("month", "([1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))", "1 to 12 or jan to dec"),
        ("day of week", "([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))", "0 to 6, Sunday being 0, or sun to sat"),
    ];
    for (before, (name, value, values)) in fields.into_iter().enumerate() {
        let after = fields.len() - 1 - before;
        // The API server's parser also takes a plus sign, zeros in front, and empty elements of a list.
        let value = format!(r"\\+?0*{value}");
        let part = format!(r"([*?]|{value}(-{value})?)(/\\+?[0-9]+)?");
        rules.push(json!({
            "rule": format!(
                r"self.startsWith('@') || !self.matches('^\\s*\\S+(\\s+\\S+){{4}}\\s*$') || self.matches('^\\s*(\\S+\\s+){{{before}}},*{part}(,+{part})*,*(\\s+\\S+){{{after}}}\\s*$')"
            ),
            "message": format!("{name} is a list of *, numbers, ranges and steps, with values from {values}"),
        }));
    }
    rules.into()
}
