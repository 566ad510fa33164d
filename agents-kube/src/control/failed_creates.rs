//! Why a Job has no pod. A Job's controller says it in Events alone, which are listed when a Job has had no pod for some
//! time, and again now and then while it has none; a Job with a pod costs nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::{
    decide::{EffectKind, Plan},
    runtime::{Hindrance, Observation},
    status::{Reason, after, seconds},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde::Deserialize;

use crate::{
    client::{Calls, Scope, Target},
    runtime::JobView,
};

/// How long a Job may be without a pod before anybody asks, in seconds.
const QUIET_SECONDS: i64 = 10;
/// Shortest time between two lists for one Job, in seconds.
const AGAIN_SECONDS: i64 = 25;
/// Time between two looks at a Job that has not started and of which nothing was said, in seconds.
const LOOK_SECONDS: i64 = 30;
/// How long an answer is kept after it was asked for last, in seconds.
const KEPT_SECONDS: i64 = 600;
/// Events of one Job that are read at most; its controller repeats one rather than making many.
const MAX_EVENTS: u32 = 20;

/// What is known of Jobs without pods.
#[derive(Debug)]
pub struct FailedCreates {
    calls: Calls,
    /// When its events were listed, and what they said, by the uid of the Job.
    known: Mutex<HashMap<String, (Timestamp, Option<Hindrance>)>>,
}

/// Makes sure that a Job that may have no pod is looked at again in time: neither why it has none nor that there is room
/// for one now is an event of anything that is watched.
pub(super) fn look_again<S>(plan: &mut Plan<S>, observation: &Observation, now: Timestamp) {
    let wait = match observation {
        Observation::Pending { cause, .. }
            if cause.as_ref().is_none_or(|cause| cause.reason == Reason::QuotaExceeded) =>
        {
            LOOK_SECONDS
        }
        Observation::Lost if plan.before.iter().any(|effect| effect.kind() == EffectKind::Submit) => QUIET_SECONDS + 1,
        Observation::Pending { .. }
        | Observation::Lost
        | Observation::Running { .. }
        | Observation::Stopping
        | Observation::Finished(_) => return,
    };
    let next = after(now, seconds(wait));
    plan.wake = Some(plan.wake.map_or(next, |wake| wake.min(next)));
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(default)]
    message: String,
    metadata: ToldMeta,
    #[serde(default)]
    first_timestamp: Option<Timestamp>,
    #[serde(default)]
    last_timestamp: Option<Timestamp>,
    #[serde(default)]
    event_time: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldMeta {
    creation_timestamp: Timestamp,
}

impl Told {
    fn first(&self) -> Timestamp {
        self.first_timestamp.or(self.event_time).unwrap_or(self.metadata.creation_timestamp)
    }

    fn last(&self) -> Timestamp {
        self.last_timestamp.or(self.event_time).unwrap_or(self.metadata.creation_timestamp)
    }
}

impl FailedCreates {
    /// Asks by `calls`.
    pub fn new(calls: Calls) -> Self {
        Self { calls, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Timestamp, Option<Hindrance>)>> {
        // A panic while the lock was held leaves at most one answer out.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why `job`, which has no pod, has none, as far as its controller has said.
    pub async fn of(&self, job: &JobView) -> Option<Hindrance> {
        let now = self.calls.clock().now();
        if now < after(job.created, seconds(QUIET_SECONDS)) {
            return None;
        }
        if let Some((asked, found)) = self.known().get(&job.uid)
            && now < after(*asked, seconds(AGAIN_SECONDS))
        {
            return found.clone();
        }
        let found = self.ask(job).await;
        let mut known = self.known();
        known.retain(|_, (asked, _)| now < after(*asked, seconds(KEPT_SECONDS)));
        known.insert(job.uid.clone(), (now, found.clone()));
        found
    }

    async fn ask(&self, job: &JobView) -> Option<Hindrance> {
        let scope = Scope {
            namespace: Some(job.namespace.clone()),
            labels: None,
            fields: Some(format!("involvedObject.uid={},reason=FailedCreate", job.uid)),
        };
        let step = "list the events of a job without a pod";
        let mut told = Vec::new();
        // One that cannot be read tells nothing.
        let take = |event: &[u8]| told.extend(serde_json::from_slice::<Told>(event).ok());
        let listed = self.calls.list(&Target::of::<Event>(), step, &scope, MAX_EVENTS, None, take).await;
        match listed {
            Ok(_) => hindrance(&told),
            // It is told less well then, and nothing else depends on it.
            Err(error) => {
                tracing::debug!(%error, job = job.name, "why a job has no pod is not known");
                None
            }
        }
    }
}

fn hindrance(told: &[Told]) -> Option<Hindrance> {
    let latest = told.iter().max_by_key(|told| told.last())?;
    let since = told.iter().map(Told::first).min()?;
    let message = plain(&latest.message);
    // `exceeded quota: …`, and `failed quota: …: must specify …`.
    let quota = message.starts_with("exceeded quota") || message.starts_with("failed quota");
    let reason = if quota { Reason::QuotaExceeded } else { Reason::StartFailed };
    Some(Hindrance { reason, message, since })
}

/// The message without what is another one at each try: the name of the pod, and what of the quota is used.
fn plain(message: &str) -> String {
    let message = message.strip_prefix("(combined from similar events): ").unwrap_or(message);
    let message = message.strip_prefix("Error creating: ").unwrap_or(message);
    let message = message
        .strip_prefix("pods \"")
        .and_then(|rest| rest.split_once("\" is forbidden: "))
        .map_or(message, |(_, cause)| cause);
    match message.split_once(", used: ").and_then(|(before, rest)| Some((before, rest.split_once(", limited: ")?.1))) {
        Some((before, limited)) => format!("{before}, limited: {limited}"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &str, first: &str, last: &str) -> Told {
        serde_json::from_value(serde_json::json!({
            "metadata": {"creationTimestamp": first}, "message": message, "firstTimestamp": first, "lastTimestamp": last,
            "eventTime": null,
        }))
        .expect("it is an Event")
    }

    #[test]
    fn the_latest_words_count_without_what_differs_at_each_try() {
        assert_eq!(hindrance(&[]), None);
        let quota =
            "pods \"run-1-x7k2p\" is forbidden: exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9";
        let table = [
            (format!("Error creating: {quota}"), "exceeded quota: team, requested: pods=1, limited: pods=9", Reason::QuotaExceeded),
            (
                format!("(combined from similar events): Error creating: {quota}"),
                "exceeded quota: team, requested: pods=1, limited: pods=9",
                Reason::QuotaExceeded,
            ),
            (
                "Error creating: pods \"a-b\" is forbidden: failed quota: cpu: must specify limits.cpu for: agent".to_owned(),
                "failed quota: cpu: must specify limits.cpu for: agent",
                Reason::QuotaExceeded,
            ),
            (
                "Error creating: pods \"a-b\" is forbidden: violates PodSecurity \"restricted:latest\"".to_owned(),
                "violates PodSecurity \"restricted:latest\"",
                Reason::StartFailed,
            ),
            (
                "Error creating: pods \"a-\" is forbidden: error looking up service account a/b: serviceaccount \"b\" not found".to_owned(),
                "error looking up service account a/b: serviceaccount \"b\" not found",
                Reason::StartFailed,
            ),
            (String::new(), "", Reason::StartFailed),
        ];
        for (message, expected, reason) in table {
            let events = [
                told(&message, "2026-01-05T10:00:10Z", "2026-01-05T10:03:00Z"),
                told("older", "2026-01-05T10:00:01Z", "2026-01-05T10:00:02Z"),
            ];
            let found = hindrance(&events).expect("it was told");
            assert_eq!((found.reason, found.message.as_str()), (reason, expected));
            assert_eq!(found.since, "2026-01-05T10:00:01Z".parse().expect("a time"));
        }
    }
}
