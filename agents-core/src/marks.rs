//! Every label and annotation that the product puts on objects or reads from them.
//!
//! Labels are for selectors and hold what fits one ([`crate::name::label_value`]); what must be whole is an annotation.
//! Users and other programs rely on them, so none is ever renamed.

/// Label of everything we create, by which it is watched.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "agents";
/// Label of everything that belongs to a run: its name, shortened when it does not fit.
pub const LABEL_RUN: &str = "agents.proompteng.ai/run";
/// Label of everything that belongs to a run: its uid.
pub const LABEL_RUN_UID: &str = "agents.proompteng.ai/run-uid";
/// Label of everything that belongs to an attempt: its number.
pub const LABEL_ATTEMPT: &str = "agents.proompteng.ai/attempt";
/// Label of everything that belongs to an agent's runs.
pub const LABEL_AGENT: &str = "agents.proompteng.ai/agent";
/// Label of everything that belongs to a provider's runs.
pub const LABEL_PROVIDER: &str = "agents.proompteng.ai/provider";

/// Annotation that makes a run a template: never executed, a target for others to copy.
pub const ANNOTATION_TEMPLATE: &str = "agents.proompteng.ai/template";
/// Annotation of what belongs to a run: its whole name.
pub const ANNOTATION_RUN: &str = "agents.proompteng.ai/run";
/// Annotation of a pod template that holds the encoded spec of the runner.
pub const ANNOTATION_SPEC: &str = "agents.proompteng.ai/runner-spec";
/// Annotation of a Job that stays until the status of its run could be stored; its value says so.
pub const ANNOTATION_KEPT: &str = "agents.proompteng.ai/kept";
/// Annotation of a Job with the digest of its plan.
pub const ANNOTATION_PLAN: &str = "agents.proompteng.ai/plan-digest";
/// Annotation of a Job with the fingerprint of its pod template.
pub const ANNOTATION_POD: &str = "agents.proompteng.ai/pod-fingerprint";

/// Annotation of a Lease: since when nobody has led and judged what happened.
pub const ANNOTATION_UNLED_SINCE: &str = "agents.proompteng.ai/unled-since";
/// Annotation of a Lease: what this leader and those before it left for the next ones, as a JSON list with the latest
/// first.
pub const ANNOTATION_LEFT_BY: &str = "agents.proompteng.ai/left-by-leaders";
