//! Why a Job has no pod. A Job's controller says it in Events alone, which are listed when a Job has had no pod for some
//! time, and again now and then while it has none: one list for all such Jobs of a namespace. A Job with a pod costs
//! nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agents_core::{
    decide::{EffectKind, Plan},
    runtime::{Hindrance, Observation},
    status::{Reason, after, cut, seconds},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde::Deserialize;
use tokio::{sync, time};

use crate::{
    client::{Calls, Scope, Target},
    runtime::JobView,
    watch::{Key, Watch},
};

/// How long a Job may be without a pod before anybody asks, in seconds.
const QUIET_SECONDS: i64 = 10;
/// Shortest time between two lists of one namespace.
const AGAIN: Duration = Duration::from_secs(25);
/// Time between two looks at a Job that has not started and of which nothing was said, in seconds.
const LOOK_SECONDS: i64 = 30;
/// How long what was said in a namespace is kept after it was asked for last.
const KEPT: Duration = Duration::from_secs(600);
/// Events on a page. They are about one thousand bytes each, and the API server has the page as a whole.
const PAGE: u32 = 500;
/// Pages of one look: Jobs that are not ours can have any number of Events, and the next look goes on where this ended.
const PAGES: usize = 4;
/// Bytes after which a look asks for no further page.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Longest time of one look: one run waits for it.
const MAX_LOOK: Duration = Duration::from_secs(5);
/// Longest message that is kept, in bytes.
const MAX_MESSAGE: usize = 1024;

/// What is known of Jobs without pods.
#[derive(Debug)]
pub(crate) struct FailedCreates {
    calls: Calls,
    jobs: Arc<Watch<JobView>>,
    /// By namespace.
    known: Mutex<BTreeMap<String, Arc<Known>>>,
}

/// What is known of the Jobs of one namespace.
#[derive(Debug, Default)]
struct Known {
    /// Who looks holds it. Nobody waits for it: the others take what was said before.
    look: sync::Mutex<Look>,
    /// What was said, by the uid of the Job.
    found: Mutex<HashMap<String, Said>>,
}

#[derive(Debug, Default)]
struct Look {
    /// When Events were listed last, in boot time.
    asked: Option<Duration>,
    /// Where the next look goes on, if the last one did not come to the end.
    next: Option<String>,
    /// What the look that goes on has found so far, by the uid of the Job.
    finding: HashMap<String, Said>,
}

/// What was said of one Job.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    first: Timestamp,
    last: Timestamp,
    message: String,
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
    involved_object: Involved,
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

#[derive(Debug, Deserialize)]
struct Involved {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
}

impl Told {
    fn said(self) -> (String, Said) {
        let Self { message, metadata, involved_object, first_timestamp, last_timestamp, event_time } = self;
        let made = event_time.unwrap_or(metadata.creation_timestamp);
        let (first, last) = (first_timestamp.unwrap_or(made), last_timestamp.unwrap_or(made));
        (involved_object.uid, Said { first, last, message: cut(&message, MAX_MESSAGE) })
    }
}

impl Said {
    /// Both together: the latest words, since the first.
    fn and(self, other: Self) -> Self {
        let first = self.first.min(other.first);
        let latest = if other.last > self.last { other } else { self };
        Self { first, ..latest }
    }

    fn hindrance(&self) -> Hindrance {
        let message = plain(&self.message);
        // `exceeded quota: …`, and `failed quota: …: must specify …`.
        let quota = message.starts_with("exceeded quota") || message.starts_with("failed quota");
        let reason = if quota { Reason::QuotaExceeded } else { Reason::StartFailed };
        Hindrance { reason, message, since: self.first }
    }
}

fn add(to: &mut HashMap<String, Said>, uid: String, said: Said) {
    let said = match to.remove(&uid) {
        Some(known) => known.and(said),
        None => said,
    };
    to.insert(uid, said);
}

impl FailedCreates {
    /// Asks by `calls`, about Jobs that `jobs` has.
    pub(crate) fn new(calls: Calls, jobs: Arc<Watch<JobView>>) -> Self {
        Self { calls, jobs, known: Mutex::default() }
    }

    /// Why `job`, which has no pod, has none, as far as its controller has said.
    pub(crate) async fn of(&self, job: &JobView) -> Option<Hindrance> {
        let now = self.calls.clock().now();
        if now < after(job.created, seconds(QUIET_SECONDS)) {
            return None;
        }
        let boot = self.calls.clock().boot();
        let known = self.in_namespace(&job.namespace, boot);
        if let Ok(mut look) = known.look.try_lock()
            && look.asked.is_none_or(|asked| boot >= asked.saturating_add(AGAIN))
        {
            look.asked = Some(boot);
            // What is known stays: it is told less well then, and nothing else depends on it.
            if time::timeout(MAX_LOOK, self.look(&job.namespace, &mut look, &known.found)).await.is_err() {
                tracing::debug!(namespace = job.namespace, "why Jobs have no pods was not answered in time");
            }
        }
        let found = known.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(&job.uid).map(Said::hindrance)
    }

    fn in_namespace(&self, namespace: &str, boot: Duration) -> Arc<Known> {
        // Nothing is left half done under this lock.
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = |look: &Look| look.asked.is_some_and(|asked| boot >= asked.saturating_add(KEPT));
        // One that is locked is being used.
        all.retain(|_, known| known.look.try_lock().map_or(true, |look| !stale(&look)));
        Arc::clone(all.entry(namespace.to_owned()).or_default())
    }

    /// Reads some pages of what Jobs' controllers say in a namespace.
    async fn look(&self, namespace: &str, look: &mut Look, found: &Mutex<HashMap<String, Said>>) {
        let found = || found.lock().unwrap_or_else(PoisonError::into_inner);
        let scope = Scope {
            namespace: Some(namespace.to_owned()),
            labels: None,
            fields: Some("involvedObject.kind=Job,reason=FailedCreate".to_owned()),
        };
        let step = "list the events of jobs without pods";
        let mut bytes = 0_usize;
        for _ in 0..PAGES {
            let (next, finding) = (look.next.clone(), &mut look.finding);
            if next.is_none() {
                finding.clear();
            }
            let take = |event: &[u8]| {
                // One that cannot be read tells nothing.
                let Ok(told) = serde_json::from_slice::<Told>(event) else { return };
                let Involved { namespace, name, uid } = &told.involved_object;
                let job = self.jobs.get(&Key::new(namespace, name));
                if job.as_ref().and_then(|job| job.object()).is_some_and(|job| job.uid == *uid) {
                    let (uid, said) = told.said();
                    add(finding, uid, said);
                }
            };
            let page = match self.calls.list(&Target::of::<Event>(), step, &scope, PAGE, next, take).await {
                Ok(page) => page,
                // The next look begins anew: the page may be one that is not there any more.
                Err(error) => {
                    look.next = None;
                    tracing::debug!(%error, namespace, "why jobs have no pods is not known");
                    return;
                }
            };
            look.next = page.next;
            if look.next.is_none() {
                *found() = std::mem::take(&mut look.finding);
                return;
            }
            // A look may be cut off, and the next one may be too.
            found().extend(look.finding.iter().map(|(uid, said)| (uid.clone(), said.clone())));
            bytes = bytes.saturating_add(page.bytes);
            if bytes >= MAX_BYTES {
                return;
            }
        }
    }
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

    fn told(message: &str, first: &str, last: &str) -> (String, Said) {
        let told: Told = serde_json::from_value(serde_json::json!({
            "metadata": {"creationTimestamp": first}, "message": message, "firstTimestamp": first, "lastTimestamp": last,
            "eventTime": null, "involvedObject": {"kind": "Job", "namespace": "ns", "name": "run-1", "uid": "u"},
        }))
        .expect("it is an Event");
        told.said()
    }

    #[test]
    fn the_latest_words_count_without_what_differs_at_each_try() {
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
            for order in [[0, 1], [1, 0]] {
                let mut all = HashMap::new();
                for at in order {
                    let (uid, said) = events[at].clone();
                    add(&mut all, uid, said);
                }
                let found = all["u"].hindrance();
                assert_eq!((found.reason, found.message.as_str()), (reason, expected));
                assert_eq!(found.since, "2026-01-05T10:00:01Z".parse().expect("a time"));
            }
        }
    }
}
