//! What a Job and its pods mean: a pure function from their projections to an [`Observation`].
//!
//! An attempt is finished as soon as the runner's container has ended, even before the Job says so. That is safe because
//! nothing starts it again: the pod has `restartPolicy: Never`; the Job has `backoffLimit: 0`, so a pod that failed is
//! not replaced; and with `podReplacementPolicy: Failed` a pod that is being deleted counts as failed only once it has
//! ended, while the Job's own finalizer on the pod keeps it from vanishing uncounted. The phase of the pod is not waited
//! for: the kubelet sets it later, and an injected side container may delay it. The end of an init container is
//! believed only with the phase, since an injected one may restart.
//!
//! A pod that lives outweighs everything its Job says. When the Job has ended and no pod is seen, the pod's view may be
//! older than the Job's or the pod may be gone; the caller finds out with one consistent read.

use agents_core::{
    api::{AgentRun, Kind, VERSION},
    mutant::{self, Mutant},
    report::{Report, SCHEMA_VERSION},
    runtime::{Finish, Hindrance, Observation, Overdue},
    status::{Reason, cut},
};

use super::view::{ContainerState, JobEnd, JobView, Marks, OwnerView, Phase, PodNote, PodView, Terminated};

/// Longest message taken over from the kubelet, in bytes.
const MAX_MESSAGE: usize = 1024;

/// A Job's controller's own words.
const PAST_DEADLINE: &str = "Job was active longer than specified deadline";

/// What the Job `job` and those of `pods` that it controls say of the submission of the run `owner_uid`. Once the Job's
/// own `uid` is known, another one of its name says nothing.
///
/// `pods` may hold pods of other Jobs. When both come from GETs, the Job's is made first.
pub fn observe<'a>(
    owner_uid: &str,
    uid: Option<&str>,
    job: Option<&JobView>,
    pods: impl IntoIterator<Item = &'a PodView>,
) -> Observation {
    let known = |job: &&JobView| is_ours(job, owner_uid) && uid.is_none_or(|uid| job.uid == uid);
    let Some(job) = job.filter(known) else {
        return Observation::Lost;
    };
    match pod_of(job, pods) {
        Some(pod) if has_ended(pod) => Observation::Finished(Box::new(finish(job, pod))),
        Some(_) if job.deleting => Observation::Stopping,
        Some(pod) => live(job, pod),
        None => match job.end.as_deref() {
            Some(end) if end.reached => Observation::Finished(Box::new(finish_unseen(job, end))),
            Some(_) => Observation::Stopping,
            None if job.deleting => Observation::Stopping,
            None => Observation::Pending { submitted_at: job.created, uid: Some(job.uid.clone()), cause: None },
        },
    }
}

/// When a pod of the Job that lives was to have ended, if its deletion was asked for. A node that answers is late by
/// seconds; one that does not leaves the pod as it was seen last, for as long as its object is there.
pub fn overdue<'a>(job: &JobView, pods: impl IntoIterator<Item = &'a PodView>) -> Option<Overdue> {
    let pod = pod_of(job, pods).filter(|pod| !has_ended(pod))?;
    Some(Overdue { since: pod.deletion_due?, node: pod.node.as_deref()?.to_owned() })
}

/// The pod that says what becomes of the Job: one that lives before one that has ended.
fn pod_of<'a>(job: &JobView, pods: impl IntoIterator<Item = &'a PodView>) -> Option<&'a PodView> {
    let ours = pods.into_iter().filter(|pod| pod.job_uid.as_deref() == Some(&job.uid));
    ours.max_by_key(|pod| (!has_ended(pod), pod.created))
}

/// Whether `job` belongs to the run of uid `owner_uid`.
pub fn is_ours(job: &JobView, owner_uid: &str) -> bool {
    job.owner.as_ref().is_some_and(|owner| is_run(owner, owner_uid))
}

/// Whether `owner` is the run of this uid: a kind of the same name in another group is somebody else's.
pub(super) fn is_run(owner: &OwnerView, uid: &str) -> bool {
    let OwnerView { api_version, kind, name: _, uid: found } = owner;
    let ours = api_version.strip_prefix(AgentRun::GROUP).and_then(|rest| rest.strip_prefix('/')) == Some(VERSION);
    let ours = ours || mutant::is_on(Mutant::AdoptsByOwner);
    ours && kind == AgentRun::KIND && found == uid
}

/// Whether nothing of ours runs in this pod any more.
pub fn has_ended(pod: &PodView) -> bool {
    matches!(pod.agent, ContainerState::Terminated(_)) || matches!(pod.phase, Phase::Succeeded | Phase::Failed)
}

fn live(job: &JobView, pod: &PodView) -> Observation {
    let (submitted_at, uid) = (job.created, Some(job.uid.clone()));
    match &pod.agent {
        ContainerState::Running { started_at } => Observation::Running {
            submitted_at,
            started_at: started_at.or(pod.ready_to_start).unwrap_or(pod.created),
            uid,
        },
        ContainerState::Unknown | ContainerState::Waiting { .. } | ContainerState::Terminated(_) => {
            Observation::Pending { submitted_at, uid, cause: hindrance(pod) }
        }
    }
}

fn hindrance(pod: &PodView) -> Option<Hindrance> {
    let waiting = |state: &ContainerState| match state {
        ContainerState::Waiting { reason, message } => {
            waiting_reason(reason, message).map(|known| (known, message_of(reason, message)))
        }
        ContainerState::Unknown | ContainerState::Running { .. } | ContainerState::Terminated(_) => None,
    };
    let init = pod.init.as_ref().and_then(|(name, state)| {
        waiting(state).map(|(reason, message)| (reason, format!("init container {name}: {message}")))
    });
    let (reason, message, since) = if let Some((reason, message)) = init.or_else(|| waiting(&pod.agent)) {
        (reason, message, pod.ready_to_start)
    } else {
        let note = pod.unscheduled.as_deref().filter(|note| note.reason == "Unschedulable")?;
        (Reason::Unschedulable, note.message.clone(), note.at)
    };
    Some(Hindrance { reason, message: cut(&message, MAX_MESSAGE), since: since.unwrap_or(pod.created) })
}

/// The meaning of a reason for which a container waits; none for those that pass by themselves.
fn waiting_reason(reason: &str, message: &str) -> Option<Reason> {
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some(Reason::ImagePullFailed),
        "CreateContainerConfigError" if names_a_secret(message) => Some(Reason::SecretMissing),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreStartHookError"
        | "CrashLoopBackOff" => Some(Reason::StartFailed),
        _ => None,
    }
}

fn names_a_secret(message: &str) -> bool {
    // `secret "name" not found` and `couldn't find key name in Secret namespace/name`.
    message.contains("secret \"") || message.contains(" in Secret ")
}

/// What the kubelet says, without what changes between a try and the wait for the next one: a status that alternated
/// with it would be written once per try.
fn message_of(reason: &str, message: &str) -> String {
    let detail = message
        .strip_prefix("Back-off pulling image ")
        .and_then(|rest| rest.split_once("\": "))
        .map_or(message, |(_, detail)| detail);
    let detail = detail.strip_prefix("ErrImagePull: ").unwrap_or(detail);
    if detail.is_empty() { reason.to_owned() } else { detail.to_owned() }
}

fn finish(job: &JobView, pod: &PodView) -> Finish {
    let (exit, started_at) = match &pod.agent {
        ContainerState::Terminated(exit) => (Some(exit.as_ref()), exit.started_at),
        ContainerState::Running { started_at } => (None, *started_at),
        ContainerState::Waiting { .. } | ContainerState::Unknown => (None, None),
    };
    let init = failed_init(pod);
    let finished_at = exit
        .and_then(|exit| exit.finished_at)
        .or_else(|| init.and_then(|(_, exit)| exit.finished_at))
        .or_else(|| pod.disrupted.as_ref().and_then(|note| note.at))
        .or_else(|| job.end.as_ref().map(|end| end.at))
        .or(started_at)
        .or(pod.ready_to_start)
        .unwrap_or(pod.created);
    let ran = exit.filter(|exit| !never_started(exit) && !was_lost(exit));
    let changed = pod.changed.as_deref().map(|how| {
        let message = format!("pod {} is not what was submitted: {how}; what it reports is not believed", pod.name);
        (Reason::PodChanged, message)
    });
    let report = ran.filter(|_| changed.is_none()).and_then(|exit| report(job, &exit.message));
    let cause = changed.or_else(|| cause(job, pod, exit, init));
    Finish {
        submitted_at: Some(job.created),
        started_at,
        finished_at,
        uid: Some(job.uid.clone()),
        exit_code: ran.map(|exit| exit.exit_code),
        cause: cause.map(|(reason, message)| (reason, cut(&message, MAX_MESSAGE))),
        report,
    }
}

fn finish_unseen(job: &JobView, end: &JobEnd) -> Finish {
    Finish {
        submitted_at: Some(job.created),
        started_at: None,
        finished_at: end.at,
        uid: Some(job.uid.clone()),
        exit_code: None,
        cause: deadline(end).map(|(reason, message)| (reason, cut(&message, MAX_MESSAGE))),
        report: None,
    }
}

/// What went wrong outside the runner. A runner that exited 0 was not harmed by whatever happened around it.
fn cause(
    job: &JobView,
    pod: &PodView,
    exit: Option<&Terminated>,
    init: Option<(&str, &Terminated)>,
) -> Option<(Reason, String)> {
    if exit.is_some_and(|exit| exit.exit_code == 0) {
        return None;
    }
    if let Some(found) = job.end.as_deref().and_then(deadline) {
        return Some(found);
    }
    if exit.is_some_and(|exit| exit.reason == "OOMKilled") {
        let message = "the container was killed for using more memory than its limit".to_owned();
        return Some((Reason::OutOfMemory, message));
    }
    if let Some(note) = pod.verdict.as_deref().or(pod.disrupted.as_deref()) {
        let reason = match note.reason.as_str() {
            "DeadlineExceeded" => Reason::DeadlineExceeded,
            _ => Reason::Evicted,
        };
        return Some((reason, said(note)));
    }
    // A Job's controller deletes the pods first and says why in a second write, which may not have arrived.
    if job.deadline.zip(pod.deletion_asked).is_some_and(|(deadline, asked)| asked >= deadline) {
        return Some((Reason::DeadlineExceeded, PAST_DEADLINE.to_owned()));
    }
    match (exit, init) {
        (Some(exit), _) if never_started(exit) => Some((Reason::StartFailed, message_of(&exit.reason, &exit.message))),
        (Some(exit), _) if was_lost(exit) => Some((Reason::Lost, message_of(&exit.reason, &exit.message))),
        (None, Some((name, Terminated { exit_code, reason, message, .. }))) => {
            let message = format!("init container {name} exited {exit_code} ({reason}): {message}");
            Some((Reason::StartFailed, message.trim_end_matches([':', ' ']).to_owned()))
        }
        (Some(_), _) | (None, None) => None,
    }
}

fn deadline(end: &JobEnd) -> Option<(Reason, String)> {
    (!end.complete && end.reason == "DeadlineExceeded").then(|| (Reason::DeadlineExceeded, end.message.clone()))
}

fn said(note: &PodNote) -> String {
    let PodNote { reason, message, at: _ } = note;
    if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") }
}

fn failed_init(pod: &PodView) -> Option<(&str, &Terminated)> {
    match &pod.init {
        Some((name, ContainerState::Terminated(exit))) => Some((name, exit)),
        _ => None,
    }
}

/// Whether the container runtime could not start the container; its exit code is then nobody's.
fn never_started(exit: &Terminated) -> bool {
    matches!(exit.reason.as_str(), "StartError" | "ContainerCannotRun")
}

/// Whether the kubelet made the end up for a container it no longer finds.
fn was_lost(exit: &Terminated) -> bool {
    exit.reason == "ContainerStatusUnknown"
}

/// The runner's report, when it is whole and is this submission's: it repeats the key that only this Job's runner was
/// given, and tells of the plan that was submitted.
fn report(job: &JobView, message: &str) -> Option<Report> {
    let report: Report = serde_json::from_str(message).ok()?;
    let run = job.owner.as_ref()?;
    let ours =
        report.schema_version == SCHEMA_VERSION && report.run_uid == run.uid && job.attempt == Some(report.attempt);
    let Marks { plan, pod: _, made: _, report_key } = &*job.marks;
    let proven =
        report_key.as_deref().is_none_or(|key| report.proof == key) || mutant::is_on(Mutant::BelievesAnyReport);
    // A runner that could not verify its plan reports no digest, and no success.
    let planned = plan.as_deref().is_none_or(|plan| report.plan_digest.is_empty() || report.plan_digest == plan);
    (ours && proven && planned).then_some(report)
}

#[cfg(test)]
mod tests;
