//! The election against one lease object in memory: no socket, paused time.

use std::sync::Mutex;

use futures::future::{BoxFuture, pending};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::BoxError;

use super::*;
use crate::clock::TimerClock;

#[derive(Debug, Default)]
struct Store {
    lease: Option<Value>,
    version: u64,
    writes: u32,
    /// Answers are lost; requests arrive.
    deaf: bool,
    /// Requests are lost.
    unreachable: bool,
    /// The answer to a read of the lease before this one.
    former: Option<(u16, Value)>,
    /// How often it was read.
    former_reads: u32,
}

impl Store {
    fn serve(&mut self, method: &Method, body: Option<Value>) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            let about = json!({ "name": "agents", "group": "coordination.k8s.io", "kind": "leases" });
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": reason, "details": about,
            });
            (code, status)
        };
        match (method, body) {
            (&Method::GET, _) => self.lease.clone().map_or_else(|| status(404, "NotFound"), |lease| (200, lease)),
            (&Method::POST, Some(_)) if self.lease.is_some() => status(409, "AlreadyExists"),
            (&Method::PUT, Some(lease))
                if self
                    .lease
                    .as_ref()
                    .is_none_or(|old| old["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]) =>
            {
                status(409, "Conflict")
            }
            (_, Some(mut lease)) => {
                self.version += 1;
                self.writes += 1;
                lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.lease = Some(lease.clone());
                (200, lease)
            }
            (_, None) => status(400, "BadRequest"),
        }
    }
}

#[derive(Clone)]
struct Cluster {
    store: Arc<Mutex<Store>>,
    clock: Arc<dyn Clock>,
}

fn cluster() -> Cluster {
    let start = "2026-11-21T12:00:00Z".parse().unwrap();
    Cluster { store: Arc::default(), clock: Arc::new(TimerClock::starting_at(start)) }
}

impl Cluster {
    fn elector(&self, identity: &str) -> Elector {
        let store = Arc::clone(&self.store);
        let service = tower::service_fn(move |request: Request<Body>| -> BoxFuture<'static, _> {
            let store = Arc::clone(&store);
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let served = {
                    let mut store = store.lock().unwrap();
                    if store.unreachable {
                        None
                    } else if parts.uri.path().contains("/namespaces/tenant/leases/") {
                        assert_eq!(parts.method, Method::GET, "it is only read");
                        store.former_reads += 1;
                        Some(store.former.clone().unwrap_or((403, json!({}))))
                    } else {
                        let answer = store.serve(&parts.method, serde_json::from_slice(&body).ok());
                        (!store.deaf).then_some(answer)
                    }
                };
                let Some((code, answer)) = served else {
                    return pending().await;
                };
                let body = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, BoxError>(Response::builder().status(code).body(body).unwrap())
            })
        });
        let calls = Calls::over(service, Arc::clone(&self.clock), "agents-test");
        Elector::new(calls, "ns", "agents", identity, Params::default())
    }

    fn set(&self, change: impl FnOnce(&mut Store)) {
        change(&mut self.store.lock().unwrap());
    }

    fn lease(&self) -> Value {
        self.store.lock().unwrap().lease.clone().unwrap()
    }
}

async fn for_seconds<T>(seconds: u64, future: impl Future<Output = T>) -> Option<T> {
    time::timeout(Duration::from_secs(seconds), future).await.ok()
}

#[tokio::test(start_paused = true)]
async fn the_first_creates_the_lease_and_the_second_waits() {
    let cluster = cluster();
    let stop = CancellationToken::new();
    let (mut first, mut second) = (cluster.elector("first"), cluster.elector("second"));
    let term = first.acquire(&stop).await.unwrap();
    assert_eq!((term.unled_since, term.gap), (None, Duration::ZERO));
    assert!(first.tenure().may_act());
    let both = async { tokio::join!(first.hold(&stop), second.acquire(&stop)) };
    assert!(for_seconds(60, both).await.is_none(), "nothing changes while the first renews");
    assert!(!second.tenure().may_act());
    let lease = cluster.lease();
    assert_eq!(lease["spec"]["holderIdentity"], "first");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
    let writes = cluster.store.lock().unwrap().writes;
    assert!((15..=22).contains(&writes), "{writes} writes in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_within_a_second() {
    let cluster = cluster();
    let (stop, never) = (CancellationToken::new(), CancellationToken::new());
    let (mut first, mut second) = (cluster.elector("first"), cluster.elector("second"));
    first.acquire(&stop).await.unwrap().recovered();
    let tenure = first.tenure();
    let handover = async {
        time::sleep(Duration::from_secs(7)).await;
        stop.cancel();
        Instant::now()
    };
    let (ended, term, released) = tokio::join!(first.hold(&stop), second.acquire(&never), handover);
    assert!(matches!(ended, Ended::Released));
    assert!(!tenure.may_act() && second.tenure().may_act());
    assert!(released.elapsed() < Duration::from_secs(1), "{:?}", released.elapsed());
    assert!(term.unwrap().gap < Duration::from_secs(1));
    assert_eq!(cluster.lease()["spec"]["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_after_its_lease_and_the_gap_is_told() {
    let cluster = cluster();
    let started = cluster.clock.now();
    let never = CancellationToken::new();
    let mut first = cluster.elector("first");
    first.acquire(&never).await.unwrap().recovered();
    for_seconds(10, first.hold(&never)).await;
    let could_act_until = first.params.tenure() + Duration::from_secs(9);
    drop(first);
    time::sleep(Duration::from_secs(90_000)).await;
    let begin = Instant::now();
    let mut second = cluster.elector("second");
    let term = second.acquire(&never).await.unwrap();
    // The record is new to it: it may just have been renewed.
    assert!(begin.elapsed() >= Duration::from_secs(15) && begin.elapsed() < Duration::from_secs(16));
    assert!(term.gap > Duration::from_secs(90_000), "{:?}", term.gap);
    let (since, acted_until) = (term.unled_since.unwrap(), term.acted_until.unwrap());
    assert!(acted_until >= started + could_act_until, "acted until {acted_until}, renewed last at {since}");
}

#[tokio::test(start_paused = true)]
async fn the_gap_outlives_leaders_that_die_before_they_have_judged() {
    let cluster = cluster();
    let never = CancellationToken::new();
    cluster.elector("first").acquire(&never).await.unwrap().recovered();
    time::sleep(Duration::from_secs(90_000)).await;
    // The second takes the lease without ever learning of it.
    let mut second = cluster.elector("second");
    let begin = cluster.clock.now();
    {
        let mut acquire = Box::pin(second.acquire(&never));
        let writes = cluster.store.lock().unwrap().writes;
        let _ = time::timeout(Duration::from_millis(14_900), &mut acquire).await;
        cluster.set(|store| store.deaf = true);
        let _ = time::timeout(Duration::from_secs(1), &mut acquire).await;
        assert_eq!(cluster.store.lock().unwrap().writes, writes + 1);
    }
    drop(second);
    cluster.set(|store| store.deaf = false);
    assert_eq!(cluster.lease()["spec"]["holderIdentity"], "second");
    let mut third = cluster.elector("third");
    let term = third.acquire(&never).await.unwrap();
    let since = term.unled_since.unwrap();
    assert!(begin.duration_since(since).as_secs() >= 90_000, "{since}");
    // It dies in its turn, before it has judged; the fourth judges, and only then it is forgotten.
    for_seconds(10, third.hold(&never)).await;
    drop((third, term));
    let mut fourth = cluster.elector("fourth");
    let term = fourth.acquire(&never).await.unwrap();
    assert_eq!(term.unled_since, Some(since));
    term.recovered();
    for_seconds(10, fourth.hold(&never)).await;
    assert!(cluster.lease()["metadata"]["annotations"][ANNOTATION_UNLED_SINCE].is_null());
    drop(fourth);
    let term = cluster.elector("fifth").acquire(&never).await.unwrap();
    assert!(term.gap < Duration::from_secs(60), "{:?}", term.gap);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_others_may_begin() {
    let cluster = cluster();
    let never = CancellationToken::new();
    let mut first = cluster.elector("first");
    let _term = first.acquire(&never).await.unwrap();
    let tenure = first.tenure();
    cluster.set(|store| store.unreachable = true);
    let begin = Instant::now();
    let watching = async {
        while tenure.may_act() {
            time::sleep(Duration::from_millis(10)).await;
        }
        begin.elapsed()
    };
    let (ended, acted) = tokio::join!(first.hold(&never), watching);
    assert!(matches!(ended, Ended::Lost));
    assert!(begin.elapsed() <= Duration::from_millis(12_100), "{:?}", begin.elapsed());
    assert!(acted <= Duration::from_millis(12_050), "{acted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_short_interruption_does_not_end_the_term() {
    let cluster = cluster();
    let never = CancellationToken::new();
    let mut first = cluster.elector("first");
    let _term = first.acquire(&never).await.unwrap();
    let interruption = async {
        for (seconds, unreachable, deaf) in [(4, true, false), (6, false, false), (9, false, true), (5, false, false)] {
            time::sleep(Duration::from_secs(seconds)).await;
            cluster.set(|store| (store.unreachable, store.deaf) = (unreachable, deaf));
        }
        time::sleep(Duration::from_secs(20)).await;
    };
    tokio::select! {
        biased;
        ended = first.hold(&never) => panic!("{ended:?}"),
        () = interruption => (),
    }
    assert!(first.tenure().may_act());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_is_told_at_its_next_renewal() {
    let cluster = cluster();
    let never = CancellationToken::new();
    let mut first = cluster.elector("first");
    let _term = first.acquire(&never).await.unwrap();
    cluster.set(|store| {
        store.version += 1;
        let version = store.version.to_string();
        let lease = store.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!("thief");
        lease["metadata"]["resourceVersion"] = json!(version);
    });
    let ended = for_seconds(4, first.hold(&never)).await.unwrap();
    assert!(matches!(ended, Ended::Lost));
    assert!(!first.tenure().may_act());
    assert_eq!(cluster.lease()["spec"]["holderIdentity"], "thief");
}

fn held_until(time: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "agents", "namespace": "tenant", "resourceVersion": "9" },
        "spec": { "holderIdentity": "old", "renewTime": time, "leaseDurationSeconds": 15 },
    })
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_takes_the_place_of_another_knows_its_times() {
    let cluster = cluster();
    let never = CancellationToken::new();
    cluster.set(|store| store.former = Some((200, held_until("2026-11-20T12:00:00.000000Z"))));
    let mut first = cluster.elector("first").after("tenant", "agents");
    let term = first.acquire(&never).await.unwrap();
    assert_eq!(term.gap, Duration::from_secs(86_400));
    assert_eq!(term.acted_until, Some("2026-11-20T12:00:15Z".parse().unwrap()));
    // It dies before it has judged; the lease itself remembers now.
    drop(first);
    cluster.set(|store| store.former = None);
    let mut second = cluster.elector("second").after("tenant", "agents");
    let term = for_seconds(60, second.acquire(&never)).await.expect("the former lease is not waited for").unwrap();
    assert!(term.gap > Duration::from_secs(86_400), "{:?}", term.gap);
    assert_eq!(cluster.store.lock().unwrap().former_reads, 1, "read once");
}

#[tokio::test(start_paused = true)]
async fn a_former_lease_that_is_absent_or_may_not_be_read_is_none() {
    let status = |code: u16, reason: &str| {
        let about = json!({ "name": "agents", "group": "coordination.k8s.io", "kind": "leases" });
        (code, json!({ "kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "details": about }))
    };
    for former in [status(403, "Forbidden"), status(404, "NotFound")] {
        let cluster = cluster();
        cluster.set(|store| store.former = Some(former));
        let mut first = cluster.elector("first").after("tenant", "agents");
        let term = first.acquire(&CancellationToken::new()).await.unwrap();
        assert_eq!((term.gap, term.acted_until), (Duration::ZERO, None));
    }
    // One that cannot be read for the moment is waited for.
    let cluster = cluster();
    cluster.set(|store| store.former = Some((502, json!("a gateway"))));
    let mut first = cluster.elector("first").after("tenant", "agents");
    assert!(for_seconds(60, first.acquire(&CancellationToken::new())).await.is_none());
    assert!(first.trouble().message().is_some_and(|message| message.contains("former lease")));
    let reads = cluster.store.lock().unwrap().former_reads;
    assert!((2..=85).contains(&reads), "{reads} reads in a minute");
}

#[test]
fn each_namespace_has_a_lease_of_its_own_and_its_name_is_bounded() {
    let name = name_for("agents-controller", "team-a");
    assert!(name.starts_with("agents-controller-team-a-"), "{name}");
    assert_ne!(name_for("a-b", "c"), name_for("a", "b-c"));
    let long = name_for(&"l".repeat(253), &"n".repeat(63));
    assert!(long.len() <= 200 && long != name_for(&"l".repeat(253), &"n".repeat(62)), "{long}");
    assert!(!name_for(&"l".repeat(MAX_READABLE - 1), "x").contains("--"));
}

#[tokio::test(start_paused = true)]
async fn what_others_wrote_on_the_lease_stays() {
    let cluster = cluster();
    let never = CancellationToken::new();
    cluster.set(|store| {
        store.lease = Some(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": "agents", "namespace": "ns", "resourceVersion": "0", "labels": { "app": "agents" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "agents", "uid": "u" }],
            },
        }));
    });
    let mut first = cluster.elector("first");
    let _term = first.acquire(&never).await.unwrap();
    let lease = cluster.lease();
    assert_eq!(lease["metadata"]["labels"]["app"], "agents");
    assert_eq!(lease["metadata"]["ownerReferences"][0]["name"], "agents");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_told_to_stop() {
    let cluster = cluster();
    let stop = CancellationToken::new();
    let _term = cluster.elector("first").acquire(&stop).await.unwrap();
    let mut second = cluster.elector("second");
    let stopping = async {
        time::sleep(Duration::from_secs(2)).await;
        stop.cancel();
    };
    let (term, ()) = tokio::join!(second.acquire(&stop), stopping);
    assert!(term.is_none());
}

/// Each leader may have handed something over that is not recorded when the next one begins.
#[tokio::test(start_paused = true)]
async fn the_last_few_leaders_leave_word_once_each() {
    let cluster = cluster();
    let never = CancellationToken::new();
    for (n, word) in ["one", "two", "two", "three", "one", "four", "five", "six"].into_iter().enumerate() {
        let mut leader = cluster.elector(&format!("leader-{n}")).leaving(word);
        let _term = leader.acquire(&never).await.unwrap();
        time::sleep(Duration::from_secs(60)).await;
    }
    let term = cluster.elector("next").leaving("six").acquire(&never).await.unwrap();
    assert_eq!(term.left, ["five", "four", "one", "three"]);
    // A lease whose words cannot be read, or are longer than any of ours, still is a lease.
    for left in ["no list".to_owned(), json!(["x".repeat(MAX_WORD + 1)]).to_string()] {
        time::sleep(Duration::from_secs(60)).await;
        cluster.set(|store| store.lease.as_mut().unwrap()["metadata"]["annotations"][ANNOTATION_LEFT_BY] = json!(left));
        let term = cluster.elector("later").leaving("seven").acquire(&never).await.unwrap();
        assert_eq!(term.left, Vec::<String>::new());
    }
}
