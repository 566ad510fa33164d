//! ImplementationSource: a tracker whose issues become ImplementationSpecs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, SecretKeyRef, TemplateText},
    kind::{Column, Kind, Rule},
};

/// A tracker that work items come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImplementationSource;

impl Kind for ImplementationSource {
    const KIND: &'static str = "ImplementationSource";
    const PLURAL: &'static str = "implementationsources";
    const SINGULAR: &'static str = "implementationsource";
    const SHORT_NAMES: &'static [&'static str] = &["implsrc"];
    const DESCRIPTION: &'static str = "A tracker whose issues become ImplementationSpecs.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Provider", path: ".spec.provider", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "LastSync", path: ".status.lastSyncedAt", kind: "date", wide: false },
        Column { name: "Repository", path: ".spec.scope.repository", kind: "string", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[
        Rule {
            field: ".spec.scope.repository",
            expression: "self.spec.provider != 'github' || !has(self.spec.scope) || !has(self.spec.scope.repository) \
                         || self.spec.scope.repository.matches('^[^/ ]+/[^/ ]+$')",
            message: "a GitHub repository is written as owner/name",
        },
        Rule {
            field: ".spec.reportBack.type",
            expression: "self.spec.provider == 'github' || !has(self.spec.reportBack) \
                         || self.spec.reportBack.type != 'check'",
            message: "only GitHub has checks; use comment",
        },
    ];
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/implementationsource.yaml");
    type Spec = ImplementationSourceSpec;
    type Status = ImplementationSourceStatus;
}

/// Desired state of an ImplementationSource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImplementationSourceSpec {
    /// The tracker: `github` or `linear`.
    pub provider: TrackerProvider,
    /// How the tracker is spoken to.
    pub auth: SourceAuth,
    /// Base URL of the tracker's API, for installations of one's own; the public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern(r"^https?://[^\s/]+"))]
    pub api_base_url: Option<String>,
    /// How events of the tracker are received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<SourceWebhook>,
    /// How the tracker is read at an interval, which also closes the gaps that lost webhooks leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<SourcePoll>,
    /// Which issues become ImplementationSpecs; every issue that the credentials show when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<SourceScope>,
    /// Template per field of the ImplementationSpec (`text`, `summary`, `description`, `acceptanceCriteria`, `labels`)
    /// over `issue`; a field without one is filled from the issue directly. Another name is reported as a warning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub mapping: BTreeMap<String, TemplateText>,
    /// What happens to the ImplementationSpec of an issue that was closed or deleted; `stale` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_closed: Option<OnClosed>,
    /// What the issue is told of the runs that work on it; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_back: Option<ReportBack>,
}

/// A tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrackerProvider {
    /// GitHub Issues.
    Github,
    /// Linear.
    Linear,
}

/// How a tracker is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceAuth {
    /// The Secret with the API token; its key is `token` when none is given.
    pub secret_ref: SecretKeyRef,
}

/// How events are received.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceWebhook {
    /// Whether webhooks are received; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The Secret with which the tracker signs; its key is `token` when none is given, and it is `auth.secretRef` when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// How a tracker is read at an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourcePoll {
    /// Whether the tracker is read at an interval; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Seconds between two reads, 10 to 86400; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub interval_seconds: Option<i64>,
}

/// Which issues are taken. Every field that is given must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct SourceScope {
    /// Repository, as `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub repository: Option<String>,
    /// Labels that an issue must have, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub labels: Vec<String>,
    /// Team of Linear, by key or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub team: Option<String>,
    /// Project, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub project: Option<String>,
    /// Organization whose repositories are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub organization: Option<String>,
    /// Search in the tracker's own language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub query: Option<String>,
}

/// What happens to the ImplementationSpec of a closed issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnClosed {
    /// Nothing.
    Keep,
    /// Its condition Stale becomes true.
    Stale,
    /// It is deleted.
    Delete,
}

/// What the issue is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportBack {
    /// `comment`: one comment, kept up to date; `check`: a check on the commit (GitHub only).
    #[serde(rename = "type")]
    pub kind: ReportKind,
}

/// How the issue is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    /// One comment, kept up to date.
    Comment,
    /// A check on the commit.
    Check,
}

/// State of an ImplementationSource in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImplementationSourcePhase {
    /// Not looked at yet, or waiting for its Secret.
    Pending,
    /// Being read.
    Syncing,
    /// Up to date.
    Ready,
    /// The tracker cannot be read; tried again with growing pauses.
    Error,
    /// The spec can never work.
    Invalid,
}

/// Observed state of an ImplementationSource.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImplementationSourceStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ImplementationSourcePhase>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// When this status was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When the tracker was read last without an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_synced_at: Option<Timestamp>,
    /// When the tracker is read next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_at: Option<Timestamp>,
    /// Up to where the tracker was read, in its own terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub cursor: Option<String>,
    /// Reads that failed since the last one that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    /// The webhook received last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_webhook: Option<WebhookStatus>,
    /// Current conditions, one per type: Ready, Syncing, Error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A webhook that was received.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// The tracker that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub provider: Option<String>,
    /// The tracker's id of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub delivery_id: Option<String>,
    /// The issue it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub external_id: Option<String>,
    /// What makes a repeated delivery one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub idempotency_key: Option<String>,
    /// Version of the issue it carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub source_version: Option<String>,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub status: Option<String>,
    /// How often it was worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// What went wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub error: Option<String>,
    /// When it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// When the ImplementationSpec was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<Timestamp>,
}
