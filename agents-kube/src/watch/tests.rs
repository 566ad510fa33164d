//! The list-watch against a scripted API server: no socket, paused time.

use std::collections::VecDeque;

use agents_core::api::{AgentRun as Run, Resource};
use bytes::Bytes;
use futures::{StreamExt, future::pending, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, Instant},
};
use tower::BoxError;

use super::*;
use crate::{client::ApiErrorKind, clock::TimerClock, object::AgentRun};

type Frames = stream::BoxStream<'static, Result<Frame<Bytes>, BoxError>>;
type Lines = mpsc::UnboundedSender<Value>;

/// What the server does with one request.
enum Answer {
    Json(u16, Value),
    /// Lines sent by the test; the answer ends when the sender is dropped.
    Stream(mpsc::UnboundedReceiver<Value>),
    /// Never any answer.
    Silence,
}

/// Requests in the expected order: a part of the address, and the answer.
struct Server {
    watch: Arc<Watch<Resource<Run>>>,
    changes: mpsc::UnboundedReceiver<Change<Resource<Run>>>,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

fn serve(script: Vec<(&'static str, Answer)>) -> Server {
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&requests);
    let service = tower::service_fn(move |request: Request<Body>| {
        let uri = request.uri().to_string();
        log.lock().unwrap().push(uri.clone());
        let step = script.lock().unwrap().pop_front();
        async move {
            let Some((expected, answer)) = step else {
                return pending().await;
            };
            assert!(uri.contains(expected), "asked {uri}, expected {expected}");
            let (code, frames): (u16, Frames) = match answer {
                Answer::Json(code, body) => {
                    let bytes = Bytes::from(serde_json::to_vec(&body).unwrap());
                    (code, stream::iter([Ok(Frame::data(bytes))]).boxed())
                }
                Answer::Stream(lines) => {
                    let frames = stream::unfold(lines, |mut lines| async move {
                        let line: Value = lines.recv().await?;
                        let text = match line {
                            Value::String(text) => text,
                            line => format!("{line}\n"),
                        };
                        Some((Ok(Frame::data(Bytes::from(text))), lines))
                    });
                    (200, frames.boxed())
                }
                Answer::Silence => return pending().await,
            };
            Ok::<_, BoxError>(Response::builder().status(code).body(StreamBody::new(frames)).unwrap())
        }
    });
    let clock = Arc::new(TimerClock::starting_at(Timestamp::UNIX_EPOCH));
    let calls = Calls::over(service, clock, "agents-test");
    let watch = Arc::new(Watch::new(Target::of::<AgentRun>(), calls, Scope::default(), Settings::seeded(1)));
    let (tell, changes) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&watch).run(move |change| {
        // The receiver is gone when the test ends.
        let _ = tell.send(change);
    }));
    Server { watch, changes, requests, _tasks: tasks }
}

impl Server {
    async fn next(&mut self) -> String {
        let change = time::timeout(Duration::from_secs(1000), self.changes.recv()).await;
        match change.expect("a change comes").expect("the watch runs") {
            Change::Seen(key, object) => format!("seen {key} {}", object.metadata.resource_version.as_deref().unwrap()),
            Change::Unreadable(key, why) => format!("unreadable {key}: {why}"),
            Change::Left(key, last) => {
                format!("left {key} {}", last.map_or("unread".to_owned(), |last| phase(&last).to_owned()))
            }
        }
    }

    fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn version(&self, name: &str) -> Option<String> {
        self.watch.get(&Key::new("ns", name))?.object()?.metadata.resource_version.clone()
    }
}

fn phase(run: &Resource<Run>) -> &str {
    run.status.as_ref().and_then(|status| status.phase).map_or("none", |phase| phase.as_str())
}

fn run(name: &str, version: u64, phase: &str) -> Value {
    json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun",
        "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": version.to_string() },
        "spec": { "agentRef": { "name": "a" } },
        "status": { "phase": phase },
    })
}

fn resource(name: &str, version: u64, phase: &str) -> Resource<Run> {
    serde_json::from_value(run(name, version, phase)).unwrap()
}

fn page(version: u64, next: Option<&str>, items: &[Value]) -> Answer {
    let metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
    Answer::Json(200, json!({ "kind": "AgentRunList", "metadata": metadata, "items": items }))
}

fn gone() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old resource version",
    })
}

#[expect(clippy::needless_pass_by_value, reason = "called with values made in place")]
fn event(kind: &str, object: Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn bookmark(version: u64) -> Value {
    event("BOOKMARK", json!({ "kind": "AgentRun", "metadata": { "resourceVersion": version.to_string() } }))
}

fn stream() -> (Lines, Answer) {
    let (lines, receiver) = mpsc::unbounded_channel();
    (lines, Answer::Stream(receiver))
}

/// Lets everything that is ready happen.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pages_make_one_list_and_the_watch_follows_it() {
    let (lines, watch) = stream();
    let mut server = serve(vec![
        ("limit=20", page(10, Some("t"), &[run("a", 3, "Running")])),
        ("continue=t", page(10, None, &[run("b", 9, "Pending")])),
        ("watch=true", watch),
    ]);
    server.watch.synced().await;
    assert_eq!(server.next().await, "seen ns/a 3");
    assert_eq!(server.next().await, "seen ns/b 9");
    lines.send(event("MODIFIED", run("a", 11, "Running"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 11");
    let requests = server.requests.lock().unwrap().clone();
    assert!(!requests[0].contains("resourceVersion"), "the list is consistent: {}", requests[0]);
    let watch = &requests[2];
    assert!(watch.contains("resourceVersion=10") && watch.contains("allowWatchBookmarks=true"), "{watch}");
    assert!(watch.contains("timeoutSeconds=2"), "{watch}");
}

/// Of large objects a page has few, and a cache keeps what decisions read, whichever way they came.
#[tokio::test(start_paused = true)]
async fn large_objects_come_in_short_pages_and_are_kept_in_part() {
    let large = |name: &str, version: u64| {
        let mut run = run(name, version, "Running");
        run["spec"]["payloads"] = json!({ "p": "x".repeat(1024 * 1024) });
        run
    };
    let (lines, watch) = stream();
    let mut server = serve(vec![
        ("limit=20", page(10, Some("t"), &[large("a", 3)])),
        ("limit=7&continue=t", page(10, Some("u"), &[run("b", 4, "Running")])),
        ("limit=500&continue=u", page(10, None, &[])),
        ("watch=true", watch),
    ]);
    assert_eq!(server.next().await, "seen ns/a 3");
    assert_eq!(server.next().await, "seen ns/b 4");
    lines.send(event("ADDED", large("c", 11))).unwrap();
    assert_eq!(server.next().await, "seen ns/c 11");
    server.watch.wrote(serde_json::from_value(large("d", 12)).unwrap(), Some("9"), Duration::ZERO);
    for (name, is_kept_whole) in [("a", false), ("b", true), ("c", false), ("d", false)] {
        let slot = server.watch.get(&Key::new("ns", name)).expect("it is known");
        let run = slot.object().expect("it can be read");
        assert_eq!(run.metadata.left_out.is_none(), is_kept_whole, "{name}");
        assert_eq!((run.spec.payloads.len(), run.spec.agent_ref.name.as_str()), (0, "a"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_the_set_is_told_with_the_state_that_came_with_it() {
    let (lines, watch) = stream();
    let mut server = serve(vec![("limit=20", page(10, None, &[run("a", 3, "Running")])), ("watch=true", watch)]);
    assert_eq!(server.next().await, "seen ns/a 3");
    // The API server sends the previous status with the version of the change.
    lines.send(event("DELETED", run("a", 12, "Running"))).unwrap();
    assert_eq!(server.next().await, "left ns/a Running");
    assert!(server.watch.get(&Key::new("ns", "a")).is_none());
    // An older event that comes late does not bring it back; a newer one does.
    lines.send(event("MODIFIED", run("a", 11, "Running"))).unwrap();
    lines.send(event("DELETED", run("a", 12, "Running"))).unwrap();
    lines.send(event("ADDED", run("a", 13, "Pending"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 13");
}

#[tokio::test(start_paused = true)]
async fn repeated_and_reordered_events_never_go_back() {
    let (lines, watch) = stream();
    let mut server = serve(vec![("limit=20", page(10, None, &[])), ("watch=true", watch)]);
    for (name, version) in [("a", 12), ("a", 12), ("a", 11), ("b", 11), ("a", 13)] {
        lines.send(event("MODIFIED", run(name, version, "Running"))).unwrap();
    }
    assert_eq!(server.next().await, "seen ns/a 12");
    assert_eq!(server.next().await, "seen ns/b 11");
    assert_eq!(server.next().await, "seen ns/a 13");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_leads_to_a_list_whichever_way_it_is_said() {
    let (first, watch) = stream();
    let (_second, last) = stream();
    let mut server = serve(vec![
        ("limit=20", page(10, None, &[run("a", 3, "Running"), run("b", 4, "Running")])),
        ("watch=true", watch),
        ("limit=20", page(20, None, &[run("a", 3, "Running"), run("c", 15, "Running")])),
        ("watch=true", Answer::Json(410, gone())),
        ("limit=20", page(30, Some("t"), &[run("a", 21, "Running")])),
        ("continue=t", Answer::Json(410, gone())),
        ("limit=20", page(40, None, &[run("a", 31, "Running")])),
        ("resourceVersion=40", last),
    ]);
    assert_eq!(server.next().await, "seen ns/a 3");
    assert_eq!(server.next().await, "seen ns/b 4");
    let begin = Instant::now();
    first.send(event("ERROR", gone())).unwrap();
    assert_eq!(server.next().await, "seen ns/c 15", "a has not changed");
    assert_eq!(server.next().await, "left ns/b Running");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(server.next().await, "seen ns/a 21");
    assert_eq!(server.next().await, "seen ns/a 31");
    assert_eq!(server.next().await, "left ns/c Running");
    assert!(begin.elapsed() < Duration::from_secs(5));
    settle().await;
    assert_eq!(server.requests(), 8);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_decoded_is_kept_as_unreadable() {
    let (lines, watch) = stream();
    let mut broken = run("b", 4, "Running");
    broken["spec"] = json!("canary");
    let mut server = serve(vec![
        ("limit=20", page(10, None, &[broken.clone(), run("a", 3, "Running"), json!({ "metadata": {} })])),
        ("watch=true", watch),
    ]);
    let told = server.next().await;
    assert!(told.starts_with("unreadable ns/b: ") && !told.contains("canary"), "{told}");
    assert_eq!(server.next().await, "seen ns/a 3");
    assert!(matches!(server.watch.get(&Key::new("ns", "b")), Some(Slot::Unreadable(_))));
    let mut worse = run("a", 11, "Running");
    worse["status"]["phase"] = json!("Sleeping");
    lines.send(event("MODIFIED", worse)).unwrap();
    assert!(server.next().await.starts_with("unreadable ns/a: "));
    lines.send(event("MODIFIED", run("b", 12, "Running"))).unwrap();
    assert_eq!(server.next().await, "seen ns/b 12");
    broken["metadata"]["resourceVersion"] = json!("13");
    lines.send(event("DELETED", broken)).unwrap();
    assert_eq!(server.next().await, "left ns/b Running", "the last state that could be read");
    assert_eq!(server.requests(), 2, "none of it ended the watch");
}

#[tokio::test(start_paused = true)]
async fn age_is_proven_by_a_mark_and_a_bookmark_together() {
    let (lines, watch) = stream();
    let server =
        serve(vec![("limit=20", page(10, None, &[])), ("watch=true", watch), ("limit=1", page(50, None, &[]))]);
    assert_eq!(server.watch.age(), None);
    server.watch.synced().await;
    settle().await;
    for _ in 0..2 {
        time::sleep(Duration::from_secs(100)).await;
        lines.send(bookmark(11)).unwrap();
    }
    settle().await;
    assert!(!server.watch.is_fresh(), "a bookmark of unknown age proves nothing");
    server.watch.prove().await.unwrap();
    server.watch.prove().await.unwrap();
    assert_eq!(server.requests(), 3, "one consistent list in thirty seconds");
    assert!(!server.watch.is_fresh(), "the watch has not come as far yet");
    time::sleep(Duration::from_secs(2)).await;
    lines.send(bookmark(50)).unwrap();
    settle().await;
    assert_eq!(server.watch.age(), Some(Duration::from_secs(2)));
    let proof = server.watch.health().proof.unwrap();
    assert_eq!(proof.0, Version::Number(50));
}

#[tokio::test(start_paused = true)]
async fn our_own_write_is_not_overtaken_by_our_own_cache() {
    let (lines, watch) = stream();
    let mut server = serve(vec![("limit=20", page(10, None, &[run("a", 3, "Pending")])), ("watch=true", watch)]);
    assert_eq!(server.next().await, "seen ns/a 3");
    let key = Key::new("ns", "a");
    server.watch.wrote(resource("a", 20, "Running"), None, Duration::ZERO);
    server.watch.wrote(resource("new", 21, "Pending"), None, Duration::ZERO);
    assert_eq!(server.version("a").unwrap(), "20");
    // Someone's older change arrives later than our answer.
    lines.send(event("MODIFIED", run("a", 15, "Pending"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 15");
    assert_eq!(server.version("a").unwrap(), "20");
    let mut known: Vec<String> = server.watch.objects().iter().map(|run| run.metadata.name.clone()).collect();
    known.sort();
    assert_eq!(known, ["a", "new"]);
    // The watch comes as far, and from then on it is right again.
    lines.send(event("MODIFIED", run("a", 20, "Running"))).unwrap();
    lines.send(event("ADDED", run("new", 21, "Pending"))).unwrap();
    lines.send(event("DELETED", run("new", 22, "Pending"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 20");
    assert_eq!(server.next().await, "seen ns/new 21");
    assert_eq!(server.next().await, "left ns/new Pending");
    assert_eq!(server.version("new"), None);
    // An answer that is slower than the watch does not go back either.
    server.watch.wrote(resource("new", 21, "Pending"), None, Duration::ZERO);
    assert_eq!(server.version("new"), None);
    assert!(!server.watch.is_doubtful(&key));
}

#[tokio::test(start_paused = true)]
async fn an_unresolved_write_stays_in_doubt_until_it_is_read_back() {
    let (lines, watch) = stream();
    let mut server = serve(vec![("limit=20", page(10, None, &[run("a", 3, "Pending")])), ("watch=true", watch)]);
    assert_eq!(server.next().await, "seen ns/a 3");
    let key = Key::new("ns", "a");
    server.watch.doubt(key.clone());
    lines.send(event("MODIFIED", run("a", 11, "Pending"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 11");
    assert!(server.watch.is_doubtful(&key), "an event can be older than the write");
    let began = server.watch.boot();
    server.watch.read_back(&key, None, began);
    assert!(!server.watch.is_doubtful(&key));
    assert!(server.watch.get(&key).is_none(), "it is known to be gone before the watch says so");
    lines.send(event("DELETED", run("a", 12, "Pending"))).unwrap();
    assert_eq!(server.next().await, "left ns/a Pending");
    lines.send(event("ADDED", run("a", 13, "Pending"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 13");
    assert_eq!(server.version("a").unwrap(), "13");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_not_found_does_not_hide_the_next_one_of_its_name() {
    let (lines, watch) = stream();
    let mut server = serve(vec![("limit=20", page(10, None, &[])), ("watch=true", watch)]);
    server.watch.synced().await;
    let (key, began) = (Key::new("ns", "a"), server.watch.boot());
    time::sleep(Duration::from_secs(1)).await;
    lines.send(event("ADDED", run("a", 13, "Pending"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 13");
    server.watch.read_back(&key, None, began);
    assert_eq!(server.version("a").as_deref(), Some("13"), "it came after the read that found nothing had left");
}

#[tokio::test(start_paused = true)]
async fn reading_an_old_object_proves_nothing_of_the_others() {
    let (lines, watch) = stream();
    let server = serve(vec![("limit=20", page(10, None, &[run("a", 3, "Pending")])), ("watch=true", watch)]);
    server.watch.synced().await;
    for _ in 0..2 {
        time::sleep(Duration::from_secs(100)).await;
        lines.send(bookmark(10)).unwrap();
        settle().await;
    }
    assert!(!server.watch.is_fresh());
    let began = server.watch.boot();
    server.watch.read_back(&Key::new("ns", "a"), Some(resource("a", 3, "Pending")), began);
    assert!(!server.watch.is_fresh(), "its version is as old as its last change");
    server.watch.wrote(resource("a", 3, "Pending"), Some("3"), began);
    assert!(!server.watch.is_fresh(), "a write that changed nothing has no new version");
    server.watch.wrote(resource("a", 11, "Pending"), Some("3"), began);
    lines.send(bookmark(11)).unwrap();
    settle().await;
    assert!(server.watch.is_fresh(), "what was written had the newest version");
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_listed_again() {
    let (_dead, silent) = stream();
    let (lines, watch) = stream();
    let mut server = serve(vec![
        ("limit=20", page(10, None, &[])),
        ("resourceVersion=10", silent),
        // After a restore the API server's versions are lower than before.
        ("limit=20", page(7, None, &[])),
        ("resourceVersion=7", watch),
    ]);
    lines.send(event("ADDED", run("a", 11, "Pending"))).unwrap();
    let begin = Instant::now();
    assert_eq!(server.next().await, "seen ns/a 11");
    assert!(begin.elapsed() >= Duration::from_secs(150) && begin.elapsed() < Duration::from_secs(155));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_resumes_at_the_last_version_also_after_half_a_line() {
    let (first, watch) = stream();
    let (second, resumed) = stream();
    let mut server =
        serve(vec![("limit=20", page(10, None, &[])), ("resourceVersion=10", watch), ("resourceVersion=14", resumed)]);
    first.send(event("ADDED", run("a", 11, "Pending"))).unwrap();
    first.send(bookmark(14)).unwrap();
    first.send(json!("{\"type\":\"MODIF")).unwrap();
    assert_eq!(server.next().await, "seen ns/a 11");
    drop(first);
    second.send(event("MODIFIED", run("a", 15, "Running"))).unwrap();
    assert_eq!(server.next().await, "seen ns/a 15");
}

#[tokio::test(start_paused = true)]
async fn failures_are_waited_out_and_shown() {
    let status = |code: u16| json!({ "kind": "Status", "apiVersion": "v1", "code": code, "message": "not now" });
    let error = |code: u16| Answer::Json(code, status(code));
    let (_lines, watch) = stream();
    let mut server = serve(vec![
        ("limit=20", error(500)),
        ("limit=20", Answer::Silence),
        ("limit=20", error(403)),
        ("limit=20", page(10, None, &[run("a", 3, "Pending")])),
        ("watch=true", error(500)),
        ("resourceVersion=10", watch),
    ]);
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.watch.health().trouble.as_deref(), Some("failed to list: not now"));
    assert!(!server.watch.health().synced);
    assert_eq!(server.next().await, "seen ns/a 3");
    server.watch.synced().await;
    time::sleep(Duration::from_secs(30)).await;
    assert_eq!(server.requests(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_is_not_reopened_in_a_hot_loop() {
    // In silence, after half a line, after a whole one.
    for said in [None, Some(json!("{\"type\":\"MODIF")), Some(bookmark(11))] {
        let mut script = vec![("limit=100", page(10, None, &[]))];
        for _ in 0..1000 {
            let (lines, watch) = stream();
            if let Some(said) = &said {
                lines.send(said.clone()).unwrap();
            }
            script.push(("watch=true", watch));
        }
        let server = serve(script);
        time::sleep(Duration::from_secs(60)).await;
        assert!(server.requests() < 25, "{} requests in a minute after {said:?}", server.requests());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_fails_says_so() {
    let (_lines, watch) = stream();
    let server = serve(vec![("limit=20", page(10, None, &[])), ("watch=true", watch)]);
    server.watch.synced().await;
    settle().await;
    time::sleep(Duration::from_secs(31)).await;
    let error = server.watch.prove().await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Unavailable);
}
