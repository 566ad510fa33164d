//! Scheduler, kubelet and runner in one: pods start, run and end as their outcomes say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agents_core::report::{Ended, KEY_VARIABLE, Report, SCHEMA_VERSION};
use serde_json::{Value, json};

use super::{
    actors::Due,
    judge::{Judge, submission_of},
    outcome::Outcome,
    resource::of_plural,
    store::{DeleteOptions, Key, Moment, Part, Store, seconds},
};

/// From a pod's creation to its binding.
const BIND: Duration = Duration::from_millis(200);
/// From a pod's creation to its containers' start.
const START: Duration = Duration::from_secs(1);
/// From SIGTERM to the end of a container that heeds it.
const STOP: Duration = Duration::from_secs(1);
/// The container that the product's pods work in.
const AGENT: &str = "agent";

#[derive(Debug, Default)]
pub(super) struct Kubelet {
    pods: BTreeMap<String, Known>,
    /// Name of every run ever stored, by uid: a pod may outlive its run.
    runs: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Known {
    outcome: Outcome,
    created: Duration,
    stage: Stage,
    asked_to_stop: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Bound,
    Started(Duration),
    Over,
}

/// How a container ended.
struct End {
    code: i32,
    reason: &'static str,
    message: Option<String>,
}

impl Kubelet {
    pub(super) fn step(
        &mut self,
        store: &mut Store,
        judge: &mut Judge,
        outcomes: &BTreeMap<String, Vec<Outcome>>,
        now: Moment,
        due: &mut Due,
    ) {
        for (key, run) in store.list(of_plural("agentruns"), None) {
            let uid = run["metadata"]["uid"].as_str().unwrap_or_default();
            if !self.runs.contains_key(uid) {
                self.runs.insert(uid.to_owned(), key.name.clone());
            }
        }
        let pods: Vec<(Key, Value)> =
            store.list(of_plural("pods"), None).map(|(key, pod)| (key.clone(), pod.clone())).collect();
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let present: BTreeSet<String> = pods.iter().map(|(_, pod)| uid(pod)).collect();
        self.pods.retain(|uid, _| present.contains(uid));
        for (key, pod) in pods {
            let runs = &self.runs;
            let known = self.pods.entry(uid(&pod)).or_insert_with(|| Known {
                outcome: outcome_of(&pod, runs, outcomes),
                created: now.boot,
                stage: Stage::New,
                asked_to_stop: None,
            });
            step_pod(known, store, judge, &key, pod, now, due);
        }
    }
}

fn outcome_of(pod: &Value, runs: &BTreeMap<String, String>, outcomes: &BTreeMap<String, Vec<Outcome>>) -> Outcome {
    let (name, attempt) = match submission_of(pod) {
        Some((uid, attempt)) => (runs.get(&uid).cloned().unwrap_or_default(), attempt),
        None => (pod["metadata"]["labels"]["job-name"].as_str().unwrap_or_default().to_owned(), 1),
    };
    let script = outcomes.get(&name).map(Vec::as_slice).unwrap_or_default();
    let nth = usize::try_from(attempt.max(1) - 1).unwrap_or(0);
    script.get(nth).or(script.last()).cloned().unwrap_or_default()
}

fn step_pod(
    known: &mut Known,
    store: &mut Store,
    judge: &mut Judge,
    key: &Key,
    mut pod: Value,
    now: Moment,
    due: &mut Due,
) {
    let deleting = pod["metadata"]["deletionTimestamp"].is_string();
    if let (Stage::Started(at), Outcome::NodeSilent { evicted_after }) = (known.stage, &known.outcome) {
        if !deleting && due.reached(at + *evicted_after, now) {
            let _deleted = store.delete(key, &DeleteOptions::default(), now);
        }
        return;
    }
    match known.stage {
        Stage::New if deleting => {
            known.stage = Stage::Over;
            pod["status"]["phase"] = json!("Failed");
        }
        Stage::New => {
            if known.outcome == Outcome::Unschedulable {
                let message = "0/1 nodes are available: 1 Insufficient cpu.";
                set_condition(&mut pod, "PodScheduled", "False", Some(("Unschedulable", message)), now);
            } else if due.reached(known.created + BIND, now) {
                known.stage = Stage::Bound;
                pod["spec"]["nodeName"] = json!("node-1");
                pod["status"]["hostIP"] = json!("10.0.0.1");
                pod["status"]["startTime"] = json!(seconds(now.wall));
                set_condition(&mut pod, "PodScheduled", "True", None, now);
                let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
                set_containers(&mut pod, false, |_| waiting.clone());
                // Wakes again at the containers' start.
                due.reached(known.created + START, now);
            }
        }
        Stage::Bound if deleting => {
            known.stage = Stage::Over;
            pod["status"]["phase"] = json!("Failed");
            set_containers(&mut pod, false, |_| {
                let end = End { code: 137, reason: "ContainerStatusUnknown", message: None };
                terminated(&end, None, now)
            });
        }
        Stage::Bound => {
            if due.reached(known.created + START, now) {
                start(known, store, judge, &mut pod, now, due);
            }
        }
        Stage::Started(at) => {
            if deleting && known.asked_to_stop.is_none() {
                known.asked_to_stop = Some(now.boot);
            }
            if let Some(end) = end(known, &pod, at, now, due) {
                known.stage = Stage::Over;
                finish(known, &mut pod, &end, at, now);
                if matches!(known.outcome, Outcome::NodeLost { .. }) {
                    let _stored = store.update(key, pod, Part::Whole, now);
                    let now_gone = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
                    let _deleted = store.delete(key, &now_gone, now);
                    return;
                }
            }
        }
        Stage::Over => {}
    }
    let _stored = store.update(key, pod, Part::Whole, now);
    if deleting && known.stage == Stage::Over {
        let grace_over = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
        let _deleted = store.delete(key, &grace_over, now);
    }
}

fn start(known: &mut Known, store: &Store, judge: &mut Judge, pod: &mut Value, now: Moment, due: &mut Due) {
    let waiting = |reason: &str, message: String| json!({"waiting": {"reason": reason, "message": message}});
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    match known.outcome {
        Outcome::ImagePullFailure => {
            let state = waiting("ImagePullBackOff", format!("Back-off pulling image \"{image}\""));
            set_containers(pod, true, |_| state.clone());
        }
        Outcome::MissingSecret => {
            let state = waiting("CreateContainerConfigError", "secret \"missing\" not found".into());
            set_containers(pod, true, |_| state.clone());
        }
        Outcome::Succeed { .. }
        | Outcome::Exit { .. }
        | Outcome::Signal { .. }
        | Outcome::NoReport { .. }
        | Outcome::Message { .. }
        | Outcome::ForeignReport { .. }
        | Outcome::OutOfMemory { .. }
        | Outcome::Evicted { .. }
        | Outcome::NodeLost { .. }
        | Outcome::NodeSilent { .. }
        | Outcome::Hang
        | Outcome::IgnoreTerm
        | Outcome::Unschedulable => {
            known.stage = Stage::Started(now.boot);
            pod["status"]["phase"] = json!("Running");
            pod["status"]["podIP"] = json!("10.1.0.1");
            set_condition(pod, "Ready", "True", None, now);
            let running = json!({"running": {"startedAt": seconds(now.wall)}});
            set_containers(pod, true, |_| running.clone());
            if let Some(submission) = submission_of(pod) {
                judge.executed(submission, now.boot, store.version());
            }
            // Wakes again at the work's end.
            let silent = match known.outcome {
                Outcome::NodeSilent { evicted_after } => Some(evicted_after),
                _ => None,
            };
            if let Some(after) = known.outcome.ends_after().or(silent) {
                due.reached(now.boot + after, now);
            }
        }
    }
}

/// How the agent's container ends, once it does.
fn end(known: &Known, pod: &Value, started: Duration, now: Moment, due: &mut Due) -> Option<End> {
    if let Some(at) = known.asked_to_stop {
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().map_or(Duration::ZERO, Duration::from_secs);
        let heeds = known.outcome != Outcome::IgnoreTerm && grace >= STOP;
        let stopped = at + if heeds { STOP } else { grace };
        // The work may end by itself before that.
        let own = known.outcome.ends_after().map(|after| started + after).filter(|own| *own <= stopped);
        if own.is_none() {
            return due.reached(stopped, now).then(|| {
                if heeds {
                    End {
                        code: 143,
                        reason: "Error",
                        message: Some(report(pod, Ended::Cancelled, None, Some(15), now).termination_message()),
                    }
                } else {
                    End { code: 137, reason: "Error", message: None }
                }
            });
        }
    }
    let after = known.outcome.ends_after()?;
    if !due.reached(started + after, now) {
        return None;
    }
    let reported = |report: Report| Some(report.termination_message());
    Some(match &known.outcome {
        Outcome::Succeed { .. } => {
            End { code: 0, reason: "Completed", message: reported(report(pod, Ended::Succeeded, Some(0), None, now)) }
        }
        Outcome::Exit { code, .. } => {
            End { code: *code, reason: "Error", message: reported(report(pod, Ended::Failed, Some(*code), None, now)) }
        }
        Outcome::Signal { signal, .. } => End {
            code: 128 + signal,
            reason: "Error",
            message: reported(report(pod, Ended::Failed, None, Some(*signal), now)),
        },
        Outcome::NoReport { code, .. } => {
            End { code: *code, reason: if *code == 0 { "Completed" } else { "Error" }, message: None }
        }
        Outcome::Message { text, .. } => End { code: 0, reason: "Completed", message: Some(text.clone()) },
        Outcome::ForeignReport { .. } => {
            let mut foreign = report(pod, Ended::Succeeded, Some(0), None, now);
            foreign.run_uid = "00000000-0000-4000-a000-000000000000".into();
            End { code: 0, reason: "Completed", message: reported(foreign) }
        }
        Outcome::OutOfMemory { .. } => End { code: 137, reason: "OOMKilled", message: None },
        Outcome::Evicted { .. }
        | Outcome::NodeLost { .. }
        | Outcome::NodeSilent { .. }
        | Outcome::Hang
        | Outcome::IgnoreTerm
        | Outcome::ImagePullFailure
        | Outcome::MissingSecret
        | Outcome::Unschedulable => End { code: 137, reason: "Error", message: None },
    })
}

fn finish(known: &Known, pod: &mut Value, end: &End, started: Duration, now: Moment) {
    let phase = if end.code == 0 { "Succeeded" } else { "Failed" };
    pod["status"]["phase"] = json!(phase);
    set_condition(pod, "Ready", "False", None, now);
    match known.outcome {
        Outcome::Evicted { .. } => {
            pod["status"]["reason"] = json!("Evicted");
            pod["status"]["message"] = json!("The node was low on resource: ephemeral-storage.");
            if let Some(status) = pod["status"].as_object_mut() {
                status.remove("containerStatuses");
                status.remove("initContainerStatuses");
            }
        }
        // The node cannot say any more how its containers ended.
        Outcome::NodeLost { .. } => pod["status"]["reason"] = json!("NodeLost"),
        _ => {
            let ran = jiff::SignedDuration::try_from(now.boot.saturating_sub(started)).unwrap_or_default();
            let started_at = seconds(now.wall - ran);
            let others = End { code: 0, reason: "Completed", message: None };
            set_containers(pod, true, |agent| {
                terminated(if agent { end } else { &others }, Some(started_at.clone()), now)
            });
        }
    }
}

fn terminated(end: &End, started_at: Option<String>, now: Moment) -> Value {
    let mut state = json!({"exitCode": end.code, "reason": end.reason, "finishedAt": seconds(now.wall)});
    if let Some(started_at) = started_at {
        state["startedAt"] = json!(started_at);
    }
    if let Some(message) = &end.message {
        state["message"] = json!(message);
    }
    json!({"terminated": state})
}

fn report(pod: &Value, status: Ended, exit_code: Option<i32>, signal: Option<i32>, now: Moment) -> Report {
    let (run_uid, attempt) = submission_of(pod).unwrap_or_default();
    let reason = match (status, signal) {
        (Ended::Succeeded, _) => None,
        (Ended::Cancelled, _) => Some("Cancelled"),
        (Ended::Failed, Some(_)) => Some("ProviderSignaled"),
        (Ended::Failed, None) => Some("ProviderExited"),
    };
    Report {
        schema_version: SCHEMA_VERSION.into(),
        status,
        provider: "model".into(),
        run_uid,
        attempt: i32::try_from(attempt).unwrap_or(0),
        proof: proof_of(pod),
        plan_digest: String::new(),
        reason: reason.map(str::to_owned),
        exit_code,
        signal,
        started_at: None,
        finished_at: now.wall,
        error: reason.map(|reason| format!("the model says {reason}")),
        usage: None,
        vcs: None,
        conversation: None,
        outputs: vec![],
        truncated: false,
    }
}

/// What the runner repeats of its environment.
fn proof_of(pod: &Value) -> String {
    let agent = pod["spec"]["containers"].as_array().into_iter().flatten().find(|container| container["name"] == AGENT);
    let mut env = agent.and_then(|agent| agent["env"].as_array()).into_iter().flatten();
    let key = env.rfind(|variable| variable["name"] == KEY_VARIABLE);
    key.and_then(|key| key["value"].as_str()).unwrap_or_default().to_owned()
}

/// Sets the states of all containers; `state` is told whether it is for the agent's. Init containers are done once
/// the others may start.
fn set_containers(pod: &mut Value, inits_done: bool, state: impl Fn(bool) -> Value) {
    let names = |list: &Value| -> Vec<(String, Value)> {
        let items = list.as_array().into_iter().flatten();
        items.map(|c| (c["name"].as_str().unwrap_or_default().to_owned(), c["image"].clone())).collect()
    };
    let status = |name: &str, image: &Value, state: Value| {
        let running = !state["running"].is_null();
        json!({
            "name": name, "image": image, "imageID": "", "restartCount": 0, "ready": running, "started": running,
            "state": state,
        })
    };
    let containers = names(&pod["spec"]["containers"]);
    let has_agent = containers.iter().any(|(name, _)| name == AGENT);
    let statuses: Vec<Value> = containers
        .iter()
        .enumerate()
        .map(|(n, (name, image))| {
            let agent = if has_agent { name == AGENT } else { n == 0 };
            status(name, image, state(agent))
        })
        .collect();
    pod["status"]["containerStatuses"] = json!(statuses);
    let inits = names(&pod["spec"]["initContainers"]);
    if !inits.is_empty() {
        let state = if inits_done {
            json!({"terminated": {"exitCode": 0, "reason": "Completed"}})
        } else {
            json!({"waiting": {"reason": "PodInitializing"}})
        };
        let statuses: Vec<Value> = inits.iter().map(|(name, image)| status(name, image, state.clone())).collect();
        pod["status"]["initContainerStatuses"] = json!(statuses);
    }
}

fn set_condition(pod: &mut Value, kind: &str, status: &str, why: Option<(&str, &str)>, now: Moment) {
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == kind && c["status"] == status) {
        return;
    }
    conditions.retain(|condition| condition["type"] != kind);
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": seconds(now.wall)});
    if let Some((reason, message)) = why {
        condition["reason"] = json!(reason);
        condition["message"] = json!(message);
    }
    conditions.push(condition);
    pod["status"]["conditions"] = json!(conditions);
}
