//! The Job controller and the controller of finished Jobs' time to live, for Jobs of one completion.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    actors::Due,
    builtin::{JOB_UID_LABELS, TRACKING},
    judge::job_finished,
    resource::of_plural,
    store::{DeleteOptions, Key, Moment, Part, Store, seconds, strings},
};

/// From a Job's creation to its pod's.
const CREATE_POD: Duration = Duration::from_millis(100);
/// From a failed pod to the next one, when the Job's backoffLimit allows it.
const POD_BACKOFF: Duration = Duration::from_secs(10);
/// Longest time between two tries to create a pod.
const MAX_POD_BACKOFF: Duration = Duration::from_secs(60);

/// What becomes of pods as they are created.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission {
    /// How many that have not ended there may be.
    pub(super) quota: Option<usize>,
    /// What is put before their images.
    pub(super) mirror: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct JobController {
    jobs: BTreeMap<String, Known>,
}

/// What the controller remembers of a Job; the times have more precision than the stored ones.
#[derive(Debug)]
struct Known {
    seen_at: Duration,
    next_pod_at: Duration,
    finished_at: Option<Duration>,
    uncounted: BTreeSet<String>,
    pods: u32,
    failures: u32,
}

impl JobController {
    pub(super) fn step(&mut self, store: &mut Store, admission: Admission, now: Moment, due: &mut Due) {
        let jobs: Vec<(Key, Value)> =
            store.list(of_plural("jobs"), None).map(|(key, job)| (key.clone(), job.clone())).collect();
        let present: BTreeSet<String> = jobs.iter().map(|(_, job)| uid(job)).collect();
        self.jobs.retain(|uid, _| present.contains(uid));
        for (key, job) in jobs {
            let known = self.jobs.entry(uid(&job)).or_insert(Known {
                seen_at: now.boot,
                next_pod_at: now.boot + CREATE_POD,
                finished_at: None,
                uncounted: BTreeSet::new(),
                pods: 0,
                failures: 0,
            });
            step_job(known, store, &key, &job, admission, now, due);
        }
        // Pods whose Job is gone are nobody's to count.
        let orphans: Vec<Key> = store
            .list(of_plural("pods"), None)
            .filter(|(_, pod)| is_tracked(pod) && owner(pod).is_none_or(|uid| !present.contains(&uid)))
            .map(|(key, _)| key.clone())
            .collect();
        for pod in orphans {
            untrack(store, &pod, now);
        }
    }
}

fn step_job(
    known: &mut Known,
    store: &mut Store,
    key: &Key,
    job: &Value,
    Admission { quota, mirror }: Admission,
    now: Moment,
    due: &mut Due,
) {
    let pods: Vec<(Key, Value)> = store
        .list(of_plural("pods"), Some(&key.namespace))
        .filter(|(_, pod)| owner(pod).as_deref() == job["metadata"]["uid"].as_str())
        .map(|(key, pod)| (key.clone(), pod.clone()))
        .collect();
    let deleting = job["metadata"]["deletionTimestamp"].is_string();
    if deleting || job_finished(job) {
        for (pod, _) in pods.iter().filter(|(_, pod)| is_tracked(pod)) {
            untrack(store, pod, now);
        }
        let finished_at = *known.finished_at.get_or_insert(now.boot);
        let ttl = job["spec"]["ttlSecondsAfterFinished"].as_u64().map(Duration::from_secs);
        if ttl.is_some_and(|ttl| !deleting && due.reached(finished_at + ttl, now)) {
            let options = DeleteOptions {
                uid: Some(uid(job)),
                propagation: Some("Foreground".into()),
                ..DeleteOptions::default()
            };
            let _deleted = store.delete(key, &options, now);
        }
        return;
    }
    let mut status = job["status"].clone();
    if job["spec"]["suspend"] == true {
        return;
    }
    if status["startTime"].is_null() {
        status["startTime"] = json!(seconds(now.wall));
    }
    let phase = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let counted = |status: &Value, field: &str| status[field].as_u64().unwrap_or(0);
    for (pod_key, pod) in &pods {
        known.uncounted.insert(uid(pod));
        let field = match phase(pod).as_str() {
            "Succeeded" => "succeeded",
            "Failed" => "failed",
            _ => continue,
        };
        if is_tracked(pod) {
            status[field] = json!(counted(&status, field) + 1);
            untrack(store, pod_key, now);
            known.next_pod_at = now.boot + POD_BACKOFF;
        }
        known.uncounted.remove(&uid(pod));
    }
    // A pod that went without an end being seen has failed.
    let present: BTreeSet<String> = pods.iter().map(|(_, pod)| uid(pod)).collect();
    let lost: Vec<String> = known.uncounted.difference(&present).cloned().collect();
    for pod in lost {
        known.uncounted.remove(&pod);
        status["failed"] = json!(counted(&status, "failed") + 1);
    }
    let active: Vec<&(Key, Value)> =
        pods.iter().filter(|(_, pod)| !matches!(phase(pod).as_str(), "Succeeded" | "Failed")).collect();
    let ready = active.iter().filter(|(_, pod)| phase(pod) == "Running").count();
    status["active"] = json!(active.len());
    status["ready"] = json!(ready);
    status["uncountedTerminatedPods"] = json!({});
    let deadline = job["spec"]["activeDeadlineSeconds"].as_u64().map(Duration::from_secs);
    let late = deadline.is_some_and(|deadline| due.reached(known.seen_at + deadline, now));
    let limit = job["spec"]["backoffLimit"].as_u64().unwrap_or(6);
    let failure = if late {
        Some(("DeadlineExceeded", "Job was active longer than specified deadline"))
    } else if counted(&status, "failed") > limit {
        Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    } else {
        None
    };
    if counted(&status, "succeeded") > 0 {
        condition(
            &mut status,
            "SuccessCriteriaMet",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            now,
        );
        condition(&mut status, "Complete", "CompletionsReached", "Reached expected number of succeeded pods", now);
        status["completionTime"] = json!(seconds(now.wall));
    } else if let Some((reason, message)) = failure {
        condition(&mut status, "FailureTarget", reason, message, now);
        if active.is_empty() {
            condition(&mut status, "Failed", reason, message, now);
        } else {
            for (pod, object) in &active {
                if object["metadata"]["deletionTimestamp"].is_null() {
                    let _deleted = store.delete(pod, &DeleteOptions::default(), now);
                }
            }
        }
    } else if active.is_empty() && due.reached(known.next_pod_at, now) && over_quota(store, key, quota) {
        // The controller says so in an Event, and nowhere else, and waits longer each time.
        known.failures += 1;
        known.next_pod_at = now.boot + (POD_BACKOFF * known.failures).min(MAX_POD_BACKOFF);
        due.reached(known.next_pod_at, now);
        tell_over_quota(known, store, key, job, quota, now);
    } else if active.is_empty() && due.reached(known.next_pod_at, now) {
        known.pods += 1;
        create_pod(known, store, key, job, mirror, now);
        status["active"] = json!(1);
    }
    let mut updated = job.clone();
    updated["status"] = status;
    let _stored = store.update(key, updated, Part::Whole, now);
}

fn over_quota(store: &Store, key: &Key, quota: Option<usize>) -> bool {
    let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let live = || store.list(of_plural("pods"), Some(&key.namespace)).filter(|(_, pod)| !ended(pod)).count();
    quota.is_some_and(|quota| live() >= quota)
}

fn tell_over_quota(known: &Known, store: &mut Store, key: &Key, job: &Value, quota: Option<usize>, now: Moment) {
    let quota = quota.unwrap_or_default();
    let (at, nth) = (seconds(now.wall), known.failures);
    let cause = format!("exceeded quota: team, requested: pods=1, used: pods={quota}, limited: pods={quota}");
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{}.{nth:x}", key.name), "namespace": key.namespace},
        "involvedObject": {
            "apiVersion": "batch/v1", "kind": "Job", "name": key.name, "namespace": key.namespace,
            "uid": job["metadata"]["uid"],
        },
        "type": "Warning", "reason": "FailedCreate",
        "message": format!("Error creating: pods \"{}-{nth:05}\" is forbidden: {cause}", key.name),
        "source": {"component": "job-controller"}, "firstTimestamp": at, "lastTimestamp": at, "count": 1,
    });
    let _stored = store.create(of_plural("events"), &key.namespace, event, now);
}

fn create_pod(known: &mut Known, store: &mut Store, key: &Key, job: &Value, mirror: &str, now: Moment) {
    let template = &job["spec"]["template"];
    let mut meta = template["metadata"].clone();
    meta["generateName"] = json!(format!("{}-", key.name));
    meta["finalizers"] = json!([TRACKING]);
    meta["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "Job", "name": key.name, "uid": job["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let mut spec = template["spec"].clone();
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default();
            container["image"] = json!(format!("{mirror}{image}"));
        }
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec});
    if let Ok(pod) = store.create(of_plural("pods"), &key.namespace, pod, now) {
        known.uncounted.insert(uid(&pod));
    }
}

fn condition(status: &mut Value, kind: &str, reason: &str, message: &str, now: Moment) {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == kind) {
        return;
    }
    let at = seconds(now.wall);
    let mut conditions = conditions;
    conditions.push(json!({
        "type": kind, "status": "True", "reason": reason, "message": message,
        "lastProbeTime": at, "lastTransitionTime": at,
    }));
    status["conditions"] = json!(conditions);
}

fn untrack(store: &mut Store, key: &Key, now: Moment) {
    let Some(mut pod) = store.get(key).cloned() else {
        return;
    };
    let mut finalizers = strings(&pod["metadata"]["finalizers"]);
    finalizers.retain(|finalizer| finalizer != TRACKING);
    pod["metadata"]["finalizers"] = json!(finalizers);
    let _stored = store.update(key, pod, Part::Whole, now);
}

fn is_tracked(pod: &Value) -> bool {
    strings(&pod["metadata"]["finalizers"]).iter().any(|finalizer| finalizer == TRACKING)
}

fn owner(pod: &Value) -> Option<String> {
    pod["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)?["uid"]
        .as_str()
        .map(str::to_owned)
        .filter(|uid| pod["metadata"]["labels"][JOB_UID_LABELS[0]] == **uid)
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
