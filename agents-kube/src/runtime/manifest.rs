//! A submission as the objects that are created for it: the Job and, when the runner's spec is large, a ConfigMap.

use std::{collections::BTreeMap, time::Duration};

use agents_core::{
    api::{AgentRun, GROUP, Kind, VERSION},
    marks::{
        ANNOTATION_PLAN, ANNOTATION_POD, ANNOTATION_RUN, ANNOTATION_SPEC, LABEL_ATTEMPT, LABEL_MANAGED_BY, LABEL_RUN,
        LABEL_RUN_UID, MANAGED_BY,
    },
    name::{ChildName, label_value},
    plan::{
        CONTAINER,
        pod::SPEC_FILE,
        runner_spec::{DEFAULT_GRACE_SECONDS, Limits},
    },
    report::KEY_VARIABLE,
    runtime::{Owner, Submission},
};
use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{ConfigMap, EnvVar, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{
    fingerprint::Fingerprint,
    pod::pod_template,
    spec::{self, CarrierError, SpecCarrier},
    view::Marks,
};

/// How long a finished Job is kept when nothing else is said: a controller that was down for a day still reads it.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest time a finished Job is kept. Its name is what keeps an attempt from being started twice, so it outlives
/// every cache and every call in flight.
pub const MIN_TTL: Duration = Duration::from_secs(15 * 60);
/// Time the runner has to report after its own deadline and grace, before the Job is ended from outside.
const REPORT_SECONDS: u64 = 60;
/// Time that scheduling, image pulls and init containers may take beside that: Kubernetes counts the deadline of a Job
/// from its creation, users count theirs from the start of the provider, and how long a start may take is decided by
/// the controller.
const START_SECONDS: u64 = 3600;

/// What the operator decides about every Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobSettings {
    /// How long a finished Job is kept; raised to [`MIN_TTL`].
    pub ttl: Duration,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self { ttl: DEFAULT_TTL }
    }
}

impl JobSettings {
    pub(super) fn ttl_seconds(self) -> i32 {
        whole(self.ttl.max(MIN_TTL))
    }
}

/// What is created for a submission.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    /// Created before the Job, whose pod needs it.
    pub config_map: Option<ConfigMap>,
    /// The Job.
    pub job: Job,
    /// What the Job executes.
    pub marks: Marks,
}

/// The objects of `submission`. Its runner repeats `report_key` in its report, if there is one.
///
/// # Errors
/// A runner's spec that fits no object.
pub fn manifests(
    submission: &Submission,
    settings: JobSettings,
    report_key: Option<&str>,
) -> Result<Manifests, CarrierError> {
    let Submission {
        key,
        runtime: _,
        name,
        namespace,
        owner,
        spec: runner_spec,
        pod,
        // The pod carries them already.
        secret_env: _,
        labels,
    } = submission;
    let mut labels = labels.clone();
    // Ours come last: they say whose it is.
    labels.extend([
        (LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned()),
        (LABEL_RUN.to_owned(), label_value(&owner.name)),
        (LABEL_RUN_UID.to_owned(), label_value(&owner.uid)),
        (LABEL_ATTEMPT.to_owned(), key.attempt.to_string()),
    ]);
    let annotations = BTreeMap::from([(ANNOTATION_RUN.to_owned(), owner.name.clone())]);
    let metadata = |name: &ChildName| ObjectMeta {
        name: Some(name.as_str().to_owned()),
        namespace: Some(namespace.clone()),
        labels: Some(labels.clone()),
        annotations: Some(annotations.clone()),
        owner_references: Some(vec![owner_reference(owner)]),
        ..ObjectMeta::default()
    };

    let encoded = spec::encode(runner_spec)?;
    let others = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    let carrier = spec::carrier(name, runner_spec, encoded.len(), others)?;
    let mut template_annotations = annotations.clone();
    let config_map = match &carrier {
        SpecCarrier::Annotation => {
            template_annotations.insert(ANNOTATION_SPEC.to_owned(), encoded);
            None
        }
        SpecCarrier::ConfigMap(name) => Some(ConfigMap {
            binary_data: Some([(SPEC_FILE.to_owned(), ByteString(encoded.into_bytes()))].into()),
            data: None,
            immutable: Some(true),
            metadata: metadata(name),
        }),
    };
    let mut template = pod_template(pod, &carrier, labels.clone(), template_annotations);
    let marks = mark(&mut template, runner_spec.plan_digest.as_deref(), report_key);
    let mut job_metadata = metadata(name);
    let said =
        [(ANNOTATION_PLAN, marks.plan.as_deref().map(str::to_owned)), (ANNOTATION_POD, Some(marks.pod.to_string()))];
    job_metadata
        .annotations
        .get_or_insert_default()
        .extend(said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let job = Job {
        metadata: job_metadata,
        spec: Some(JobSpec {
            active_deadline_seconds: active_deadline(&runner_spec.limits),
            // Attempts are ours: the Job starts one pod and never another.
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            pod_replacement_policy: Some("Failed".to_owned()),
            template,
            ttl_seconds_after_finished: Some(settings.ttl_seconds()),
            ..JobSpec::default()
        }),
        status: None,
    };
    Ok(Manifests { config_map, job, marks })
}

/// Gives the runner the key of its report, and says what the template executes.
fn mark(template: &mut PodTemplateSpec, plan: Option<&str>, report_key: Option<&str>) -> Marks {
    // Plain data with text keys has a JSON form.
    let pod = Fingerprint::of(&serde_json::to_string(&template.spec).unwrap_or_default());
    if let (Some(key), Some(spec)) = (report_key, &mut template.spec) {
        for container in spec.containers.iter_mut().filter(|container| container.name == CONTAINER) {
            // The last one counts, whatever a provider calls its variables.
            let key = EnvVar { name: KEY_VARIABLE.to_owned(), value: Some(key.to_owned()), value_from: None };
            container.env.get_or_insert_default().push(key);
        }
    }
    Marks { plan: plan.map(Into::into), pod, made: Some(pod), report_key: report_key.map(Into::into) }
}

/// Later than the runner's own deadline, so that the runner reports first.
fn active_deadline(limits: &Limits) -> Option<i64> {
    let Limits { timeout_seconds, grace_seconds, log_bytes: _ } = limits;
    timeout_seconds.map(|timeout| {
        let seconds = timeout
            .saturating_add(grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS))
            .saturating_add(REPORT_SECONDS + START_SECONDS);
        i64::try_from(seconds).unwrap_or(i64::MAX)
    })
}

fn owner_reference(owner: &Owner) -> OwnerReference {
    let Owner { name, uid } = owner;
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        block_owner_deletion: Some(true),
        controller: Some(true),
        kind: AgentRun::KIND.to_owned(),
        name: name.clone(),
        uid: uid.clone(),
    }
}

fn whole(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}

#[cfg(test)]
pub(in crate::runtime) mod tests;
