//! Second spellings: one meaning read from whichever field says it.
//!
//! `runtime.config` is read into the typed block of the chosen runtime. Two spellings that differ are a fault naming
//! both; a key nobody knows is a warning, since a newer controller may know it.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    api::{
        common::FreeForm,
        runtime::{ArgoRuntime, CustomRuntime, JobRuntime, RuntimeKind, RuntimeSpec, TemporalRuntime},
    },
    check::Faults,
};

const JOB_KEYS: &[&str] = &[
    "affinity",
    "backoffLimit",
    "command",
    "image",
    "imagePullSecrets",
    "logRetentionSeconds",
    "nodeSelector",
    "podSecurityContext",
    "priorityClassName",
    "resources",
    "schedulerName",
    "serviceAccount",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
    "ttlSecondsAfterFinished",
];
const ARGO_KEYS: &[&str] = &["namespace", "serviceAccount", "workflowTemplate"];
const TEMPORAL_KEYS: &[&str] = &["address", "namespace", "taskQueue", "timeouts", "workflowId", "workflowType"];
const CUSTOM_KEYS: &[&str] = &["endpoint", "payload", "url"];

/// The settings of a runtime as one block each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuntimeSettings {
    /// Of the Job runtime.
    pub job: JobRuntime,
    /// Of the Argo runtime.
    pub argo: ArgoRuntime,
    /// Of the Temporal runtime.
    pub temporal: TemporalRuntime,
    /// Of the custom runtime.
    pub custom: CustomRuntime,
    /// Keys of `config` that nobody knows.
    pub unknown: Vec<String>,
}

/// Reads every spelling of the settings at `at`, such as `spec.runtime`.
pub fn runtime(at: &str, runtime: &RuntimeSpec, faults: &mut Faults) -> RuntimeSettings {
    let RuntimeSpec { kind, job, argo, temporal, custom, config } = runtime;
    let config_of = |block: RuntimeKind| {
        let chosen = match kind {
            Some(RuntimeKind::Job | RuntimeKind::Workflow | RuntimeKind::Process) | None => RuntimeKind::Job,
            Some(other) => *other,
        };
        config.as_ref().filter(|_| chosen == block)
    };
    let mut unknown = Vec::new();
    if let (Some(RuntimeKind::Other(_)), Some(_)) = (kind, config) {
        unknown.push(format!("{at}.config"));
    }
    let mut read = Reading { at, faults, unknown: &mut unknown };
    let mut job = read.merged("job", JOB_KEYS, job.as_ref(), config_of(RuntimeKind::Job));
    let argo = read.merged("argo", ARGO_KEYS, argo.as_ref(), config_of(RuntimeKind::Argo));
    let temporal = read.merged("temporal", TEMPORAL_KEYS, temporal.as_ref(), config_of(RuntimeKind::Temporal));
    let mut custom = read.merged("custom", CUSTOM_KEYS, custom.as_ref(), config_of(RuntimeKind::Custom));
    service_account(at, &mut job, faults);
    let CustomRuntime { url, endpoint, payload: _ } = &mut custom;
    faults.same((&format!("{at}.custom.url"), url.as_ref()), (&format!("{at}.custom.endpoint"), endpoint.as_ref()));
    *url = url.take().or(endpoint.take());
    RuntimeSettings { job, argo, temporal, custom, unknown }
}

/// Lays the two spellings of a service account together.
pub fn service_account(at: &str, job: &mut JobRuntime, faults: &mut Faults) {
    let JobRuntime { service_account: canonical, service_account_name: other, .. } = job;
    let field = |name: &str| format!("{at}.job.{name}");
    faults.same((&field("serviceAccount"), canonical.as_ref()), (&field("serviceAccountName"), other.as_ref()));
    *canonical = canonical.take().or(other.take());
}

/// `upper` with the fields it does not give taken from `lower`.
pub fn over(upper: JobRuntime, lower: JobRuntime) -> JobRuntime {
    JobRuntime {
        image: upper.image.or(lower.image),
        command: or(upper.command, lower.command, Vec::is_empty),
        service_account: upper.service_account.or(lower.service_account),
        service_account_name: upper.service_account_name.or(lower.service_account_name),
        resources: upper.resources.or(lower.resources),
        node_selector: or(upper.node_selector, lower.node_selector, BTreeMap::is_empty),
        tolerations: or(upper.tolerations, lower.tolerations, Vec::is_empty),
        affinity: upper.affinity.or(lower.affinity),
        topology_spread_constraints: or(
            upper.topology_spread_constraints,
            lower.topology_spread_constraints,
            Vec::is_empty,
        ),
        pod_security_context: upper.pod_security_context.or(lower.pod_security_context),
        priority_class_name: upper.priority_class_name.or(lower.priority_class_name),
        scheduler_name: upper.scheduler_name.or(lower.scheduler_name),
        image_pull_secrets: or(upper.image_pull_secrets, lower.image_pull_secrets, Vec::is_empty),
        backoff_limit: upper.backoff_limit.or(lower.backoff_limit),
        ttl_seconds_after_finished: upper.ttl_seconds_after_finished.or(lower.ttl_seconds_after_finished),
        log_retention_seconds: upper.log_retention_seconds.or(lower.log_retention_seconds),
    }
}

fn or<T>(upper: T, lower: T, is_empty: impl Fn(&T) -> bool) -> T {
    if is_empty(&upper) { lower } else { upper }
}

struct Reading<'a> {
    at: &'a str,
    faults: &'a mut Faults,
    unknown: &'a mut Vec<String>,
}

impl Reading<'_> {
    /// The typed block with the keys of `config` laid under it.
    fn merged<T: Serialize + DeserializeOwned + Default + Clone>(
        &mut self,
        name: &str,
        keys: &[&str],
        typed: Option<&T>,
        config: Option<&FreeForm>,
    ) -> T {
        let Some(FreeForm(config)) = config else {
            return typed.cloned().unwrap_or_default();
        };
        // Plain data with text keys has a JSON form.
        let written = match serde_json::to_value(typed) {
            Ok(Value::Object(written)) => written,
            _ => Map::new(),
        };
        let mut merged = written.clone();
        for (key, value) in config {
            let field = format!("{}.config.{key}", self.at);
            if !keys.contains(&key.as_str()) {
                self.unknown.push(field);
                continue;
            }
            let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
            match serde_json::from_value::<T>(alone).map(|read| serde_json::to_value(read)) {
                Err(error) => self.faults.add(field, error.to_string()),
                Ok(read) => {
                    let read = read.ok().and_then(|read| read.get(key).cloned());
                    let block = format!("{}.{name}.{key}", self.at);
                    self.faults.same((&block, written.get(key)), (&field, read.as_ref()));
                    if let Some(read) = read {
                        merged.entry(key.clone()).or_insert(read);
                    }
                }
            }
        }
        serde_json::from_value(Value::Object(merged)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> (RuntimeSettings, Vec<String>) {
        let mut faults = Faults::default();
        let settings = runtime("spec.runtime", &serde_json::from_value(spec).unwrap(), &mut faults);
        (settings, faults.into_vec().into_iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect())
    }

    fn fields<T: JsonSchema>() -> Vec<String> {
        let schema = schemars::schema_for!(T);
        let mut fields: Vec<String> = schema.get("properties").unwrap().as_object().unwrap().keys().cloned().collect();
        fields.sort();
        fields
    }

    #[test]
    fn every_field_of_a_block_is_a_key_of_config() {
        assert_eq!(fields::<JobRuntime>(), JOB_KEYS);
        assert_eq!(fields::<ArgoRuntime>(), ARGO_KEYS);
        assert_eq!(fields::<TemporalRuntime>(), TEMPORAL_KEYS);
        assert_eq!(fields::<CustomRuntime>(), CUSTOM_KEYS);
    }

    #[test]
    fn config_says_the_same_as_the_block() {
        let settings = json!({"serviceAccount": "a", "nodeSelector": {"disk": "ssd"}});
        for kind in ["job", "workflow", "process"] {
            let (block, none) = read(json!({"type": kind, "job": settings}));
            let (config, faults) = read(json!({"type": kind, "config": settings}));
            assert_eq!((block, none), (config, faults));
        }
        let (custom, faults) = read(json!({"type": "custom", "config": {"endpoint": "https://a.invalid"}}));
        assert_eq!(custom.custom.url.as_deref(), Some("https://a.invalid"));
        assert_eq!(faults, Vec::<String>::new());
    }

    #[test]
    fn two_spellings_that_differ_are_named_both() {
        let (_, faults) = read(json!({"type": "job", "job": {"image": "a"}, "config": {"image": "b"}}));
        assert_eq!(
            faults,
            [
                "spec.runtime.config.image: contradicts spec.runtime.job.image: give one of them, or the same value in both"
            ]
        );
        let (same, faults) = read(json!({"type": "job", "job": {"image": "a"}, "config": {"image": "a"}}));
        assert_eq!((same.job.image.as_deref(), faults.len()), (Some("a"), 0));
        let (_, faults) = read(json!({"job": {"serviceAccount": "a", "serviceAccountName": "b"}}));
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn what_config_gets_wrong_is_named() {
        let (settings, faults) = read(json!({"type": "job", "config": {"image": 1, "colour": "red"}}));
        assert_eq!(settings.unknown, ["spec.runtime.config.colour"]);
        assert!(faults.len() == 1 && faults[0].starts_with("spec.runtime.config.image: "), "{faults:?}");
    }
}
