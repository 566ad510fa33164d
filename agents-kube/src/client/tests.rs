//! Calls against a scripted service: no socket, paused time.

use std::{
    io,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use agents_core::api::{AgentRun as Kind, Resource};
use agents_runtime::adapter::Class;
use futures::future::{BoxFuture, pending};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::{clock::TimerClock, object::AgentRun};

type Answer = Result<Response<Body>, BoxError>;

fn clock() -> Arc<dyn Clock> {
    Arc::new(TimerClock::starting_at(Timestamp::UNIX_EPOCH))
}

#[expect(clippy::unnecessary_wraps, reason = "one of the answers a service can give")]
fn answer(code: u16, body: &Value) -> Answer {
    Ok(Response::builder().status(code).body(Body::from(serde_json::to_vec(body).unwrap())).unwrap())
}

fn run() -> Value {
    json!({ "metadata": { "name": "r", "namespace": "ns" }, "spec": { "agentRef": { "name": "a" } } })
}

/// Records requests as `METHOD uri body`, and answers them all alike.
fn scripted(
    log: &Arc<Mutex<Vec<String>>>,
    script: impl Fn() -> BoxFuture<'static, Answer> + Send + Clone + 'static,
) -> Calls {
    let log = Arc::clone(log);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, script) = (Arc::clone(&log), script.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let line = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
            log.lock().unwrap().push(line);
            script().await
        }
    });
    Calls::over(service, clock(), "agents-test")
}

fn log() -> Arc<Mutex<Vec<String>>> {
    Arc::default()
}

#[tokio::test(start_paused = true)]
async fn requests_are_those_of_the_api() {
    let log = log();
    let calls = scripted(&log, || Box::pin(async { answer(200, &run()) }));
    let read: Resource<Kind> = calls.get(&Target::of::<AgentRun>(), "read the run", "ns", "r").await.unwrap();
    assert_eq!(read.metadata.name, "r");
    let _: AgentRun = calls.create(&Target::of::<AgentRun>(), "create the run", "ns", &json!({})).await.unwrap();
    let _: AgentRun =
        calls.replace_status(&Target::of::<AgentRun>(), "store the status", "ns", "r", &json!({})).await.unwrap();
    calls.delete(&Target::of::<AgentRun>(), "delete the run", "ns", "r", &Deletion::of("u1")).await.unwrap();
    let _: AgentRun = calls
        .patch(&Target::of::<AgentRun>(), "label the run", "ns", "r", None, &Patch::Merge(json!({})))
        .await
        .unwrap();
    let base = "/apis/agents.proompteng.ai/v1alpha1/namespaces/ns/agentruns";
    assert_eq!(
        *log.lock().unwrap(),
        [
            format!("GET {base}/r "),
            format!("POST {base}?&fieldManager=agents-test&timeout=10s {{}}"),
            format!("PUT {base}/r/status?&fieldManager=agents-test&timeout=10s {{}}"),
            format!(
                "DELETE {base}/r?timeout=10s \
                 {{\"propagationPolicy\":\"Background\",\"preconditions\":{{\"uid\":\"u1\"}}}}"
            ),
            format!("PATCH {base}/r?&fieldManager=agents-test&timeout=10s {{}}"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_carries_its_version_and_the_way_to_the_next() {
    let log = log();
    let calls = scripted(&log, || {
        let meta = json!({ "resourceVersion": "9", "continue": "t" });
        let body = json!({ "kind": "AgentRunList", "metadata": meta, "items": [run()] });
        Box::pin(async move { answer(200, &body) })
    });
    let scope = Scope {
        labels: Some("a=b".to_owned()),
        fields: Some("status.phase!=Succeeded".to_owned()),
        ..Scope::default()
    };
    let mut names = vec![];
    let take = |run: &[u8]| names.push(serde_json::from_slice::<Resource<Kind>>(run).unwrap().metadata.name);
    let page = calls.list(&Target::of::<AgentRun>(), "list runs", &scope, 2, None, take).await.unwrap();
    assert_eq!((page.resource_version.as_str(), page.next.as_deref(), page.objects), ("9", Some("t"), 1));
    assert_eq!(names, ["r"]);
    let sent = log.lock().unwrap().join("");
    for part in ["limit=2", "labelSelector=a%3Db", "fieldSelector=status.phase%21%3DSucceeded"] {
        assert!(sent.contains(part), "{sent}");
    }
    assert!(!sent.contains("resourceVersion"), "the first page is consistent: {sent}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice() {
    for code in [429, 500, 503, 504] {
        let log = log();
        let calls = scripted(&log, move || Box::pin(async move { answer(code, &json!({ "message": "no" })) }));
        let result = calls.create::<AgentRun>(&Target::of::<AgentRun>(), "create the run", "ns", &json!({})).await;
        assert!(result.is_err());
        assert_eq!(log.lock().unwrap().len(), 1, "status {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_at_its_deadline_and_a_write_is_ambiguous() {
    let calls = scripted(&log(), || Box::pin(pending()));
    let begin = tokio::time::Instant::now();
    let error = calls.get::<AgentRun>(&Target::of::<AgentRun>(), "read the run", "ns", "r").await.unwrap_err();
    assert_eq!((error.kind, begin.elapsed()), (ApiErrorKind::Unavailable, DEADLINE));
    let error =
        calls.create::<AgentRun>(&Target::of::<AgentRun>(), "create the run", "ns", &json!({})).await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Ambiguous);
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_ambiguous_for_writes_and_a_refused_one_is_not() {
    for (cause, kind) in [
        (io::ErrorKind::ConnectionReset, ApiErrorKind::Ambiguous),
        (io::ErrorKind::ConnectionRefused, ApiErrorKind::Unavailable),
    ] {
        let calls = scripted(&log(), move || Box::pin(async move { Err(BoxError::from(io::Error::from(cause))) }));
        let error =
            calls.create::<AgentRun>(&Target::of::<AgentRun>(), "create the run", "ns", &json!({})).await.unwrap_err();
        assert_eq!(error.kind, kind, "{cause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_not_quoted() {
    let calls = scripted(&log(), || {
        Box::pin(async { answer(200, &json!({ "metadata": {}, "spec": { "agentRef": "canary" } })) })
    });
    let error = calls.get::<AgentRun>(&Target::of::<AgentRun>(), "read the run", "ns", "r").await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Decode);
    assert!(!error.to_string().contains("canary"), "{error}");
}

/// Sends a request every 100 ms for `seconds` and answers with when requests arrived.
async fn arrivals(calls: &Calls, log: &Arc<Mutex<Vec<String>>>, seconds: u64) -> Vec<Duration> {
    let (began, mut arrived) = (tokio::time::Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        let before = log.lock().unwrap().len();
        let read = calls.get::<AgentRun>(&Target::of::<AgentRun>(), "read the run", "ns", "r").await;
        if log.lock().unwrap().len() > before {
            arrived.push(began.elapsed());
        } else {
            let error = read.unwrap_err();
            assert!(matches!(error.class, Class::RetryAfter(left) if !left.is_zero()), "{error:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    arrived
}

/// Answers with 429 and this `Retry-After`.
fn throttled(log: &Arc<Mutex<Vec<String>>>, after: &'static str) -> Calls {
    scripted(log, move || {
        let answer = Response::builder().status(429).header("Retry-After", after).body(Body::from(b"slow".to_vec()));
        Box::pin(async move { Ok(answer.unwrap()) })
    })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_asked_to_wait_sends_nothing_meanwhile() {
    for (after, apart) in [("7", 7), ("0", 1), ("soon", 1), ("86400", 60)] {
        let log = log();
        let arrived = arrivals(&throttled(&log, after), &log, 130).await;
        assert!(arrived.len() >= 2, "{after}: {arrived:?}");
        for pair in arrived.windows(2) {
            let waited = pair[1].saturating_sub(pair[0]);
            assert!(waited >= Duration::from_secs(apart), "{after}: {waited:?}");
            assert!(waited <= Duration::from_secs(apart) + Duration::from_millis(200), "{after}: {waited:?}");
        }
    }
}

/// Each clone of a client is the same client; the lease is renewed all the same.
#[tokio::test(start_paused = true)]
async fn a_wait_is_of_the_whole_client_but_not_of_its_lease() {
    let log = log();
    let calls = throttled(&log, "30");
    let (other, lease) = (calls.clone().with_deadline(DEADLINE), calls.clone().regardless());
    let target = Target::of::<AgentRun>();
    calls.get::<AgentRun>(&target, "read the run", "ns", "r").await.unwrap_err();
    other.create::<AgentRun>(&target, "create the run", "ns", &json!({})).await.unwrap_err();
    other.list(&target, "list runs", &Scope::default(), 1, None, |_| ()).await.unwrap_err();
    other.open_watch(&target, "watch", &Scope::default(), "1", DEADLINE).await.unwrap_err();
    assert_eq!(log.lock().unwrap().len(), 1, "nothing more was sent");
    lease.get::<AgentRun>(&target, "read the lease", "ns", "r").await.unwrap_err();
    lease.get::<AgentRun>(&target, "read the lease", "ns", "r").await.unwrap_err();
    assert_eq!(log.lock().unwrap().len(), 3, "its own 429 does not hold it back");
    tokio::time::sleep(Duration::from_secs(30)).await;
    other.get::<AgentRun>(&target, "read the run", "ns", "r").await.unwrap_err();
    assert_eq!(log.lock().unwrap().len(), 4);
}

/// What nothing depends on waits for the others and for its like in its namespace; nobody else waits for it.
#[tokio::test(start_paused = true)]
async fn a_wait_of_an_optional_call_holds_back_its_like_in_its_namespace_alone() {
    let log = log();
    let calls = throttled(&log, "30");
    let (events, others) = (calls.clone().optional(), calls.clone().optional());
    let sent = || log.lock().unwrap().len();
    let target = Target::of::<AgentRun>();
    let tell = async |calls: &Calls, namespace: &str| {
        calls.create::<AgentRun>(&target, "create an event", namespace, &json!({})).await.unwrap_err()
    };
    tell(&events, "a").await;
    let held = tell(&others, "a").await;
    assert!(matches!(held.kind, ApiErrorKind::TooManyRequests { .. }), "{held:?}");
    assert_eq!(sent(), 1, "its like waits");
    tell(&others, "b").await;
    assert_eq!(sent(), 2, "another namespace's does not");
    calls.get::<AgentRun>(&target, "read the run", "a", "r").await.unwrap_err();
    assert_eq!(sent(), 3, "nor does the work");
    tell(&events, "c").await;
    assert_eq!(sent(), 3, "the wait of the whole client is everybody's");
    tokio::time::sleep(Duration::from_secs(30)).await;
    tell(&events, "a").await;
    assert_eq!(sent(), 4);
}

/// A webhook of one tenant that answers with 429 is no reason for the others to wait.
#[tokio::test(start_paused = true)]
async fn a_webhooks_own_429_holds_nothing_back() {
    let log = log();
    let calls = scripted(&log, || {
        let denied = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429, "reason": "TooManyRequests",
            "message": "admission webhook \"tenant.test\" denied the request: later", "details": {"retryAfterSeconds": 60},
        });
        Box::pin(async move { answer(429, &denied) })
    });
    let target = Target::of::<AgentRun>();
    for sent in 1..=3 {
        let denied = calls.create::<AgentRun>(&target, "create the run", "ns", &json!({})).await.unwrap_err();
        assert_eq!((denied.kind, denied.class), (ApiErrorKind::Denied, Class::WaitForChange));
        assert_eq!(log.lock().unwrap().len(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_cut_or_no_document_leaves_a_write_in_doubt() {
    let whole = serde_json::to_vec(&run()).unwrap();
    for body in [whole[..whole.len() / 2].to_vec(), b"<html>canary</html>".to_vec(), vec![]] {
        let calls = scripted(&log(), move || {
            let body = body.clone();
            Box::pin(async move { Ok(Response::builder().status(200).body(Body::from(body)).unwrap()) })
        });
        let target = Target::of::<AgentRun>();
        let read = calls.get::<AgentRun>(&target, "read the run", "ns", "r").await.unwrap_err();
        assert_eq!((read.kind, read.class), (ApiErrorKind::Unavailable, Class::Retry));
        let written = calls.create::<AgentRun>(&target, "create the run", "ns", &json!({})).await.unwrap_err();
        assert_eq!((written.kind, written.class), (ApiErrorKind::Ambiguous, Class::Retry));
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_object_is_no_error_where_absence_is_an_answer() {
    let about = json!({ "name": "r", "group": "agents.proompteng.ai", "kind": "agentruns" });
    let absent = json!({
        "kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound", "message": "no", "details": about,
    });
    let calls = scripted(&log(), move || {
        let absent = absent.clone();
        Box::pin(async move { answer(404, &absent) })
    });
    let read = calls.get::<AgentRun>(&Target::of::<AgentRun>(), "read the run", "ns", "r").await.or_absent();
    assert!(matches!(read, Ok(None)));
}

/// The bodies that an answer can have, by name. `about` names the object of the request.
fn bodies(code: u16, reason: &str, about: &Value) -> [(&'static str, Vec<u8>); 5] {
    let status = |details: &Value| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
            "message": "no", "details": details,
        });
        serde_json::to_vec(&status).unwrap()
    };
    let ours = status(about);
    let cut = ours[..ours.len() / 2].to_vec();
    [
        ("status", ours),
        ("another's status", status(&json!({ "name": "ns", "kind": "namespaces" }))),
        ("html", b"<html><body>no</body></html>".to_vec()),
        ("empty", vec![]),
        ("cut", cut),
    ]
}

/// What the API server itself says with a code.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "Unknown",
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_for_good_but_what_the_api_server_says_about_the_object() {
    let target = Target::of::<AgentRun>();
    let about = json!({ "name": "r", "group": "agents.proompteng.ai", "kind": "AgentRun" });
    let next: Arc<Mutex<(u16, Vec<u8>)>> = Arc::default();
    let answers = Arc::clone(&next);
    // One that is not held back by the 429 among them.
    let calls = scripted(&log(), move || {
        let (code, body) = answers.lock().unwrap().clone();
        Box::pin(async move { Ok(Response::builder().status(code).body(Body::from(body)).unwrap()) })
    })
    .regardless();
    for code in 100..=599 {
        for (body, bytes) in bodies(code, reason(code), &about) {
            *next.lock().unwrap() = (code, bytes);
            let ours = body == "status";
            let object = run();
            let results = [
                ("create", calls.create::<AgentRun>(&target, "try", "ns", &object).await.map(drop)),
                ("replace", calls.replace::<AgentRun>(&target, "try", "ns", "r", &object).await.map(drop)),
                ("status", calls.replace_status::<AgentRun>(&target, "try", "ns", "r", &object).await.map(drop)),
                (
                    "patch",
                    calls.patch::<AgentRun>(&target, "try", "ns", "r", None, &Patch::Merge(&object)).await.map(drop),
                ),
                ("delete", calls.delete(&target, "try", "ns", "r", &Deletion::of("u")).await),
                ("get", calls.get::<AgentRun>(&target, "try", "ns", "r").await.map(drop)),
                ("list", calls.list(&target, "try", &Scope::default(), 1, None, |_| ()).await.map(drop)),
            ];
            for (call, result) in results {
                let case = format!("{call} answered with {code} and {body}");
                let Err(error) = result else {
                    // What a delete answers with is not looked at, as long as it is a document.
                    let taken = call == "delete" && matches!(body, "status" | "another's status");
                    assert!(taken && (200..300).contains(&code), "{case} is no success");
                    continue;
                };
                let reads = matches!(call, "get" | "list");
                let terminal = ours && !reads && matches!(code, 400 | 413 | 422);
                assert_eq!(error.class == Class::Terminal, terminal, "{case}: {error:?}");
                let absent = ours && code == 404 && call != "list";
                assert_eq!(error.is_not_found(), absent, "{case}: {error:?}");
                let exists = ours && code == 409 && !reads;
                assert_eq!(error.kind == ApiErrorKind::AlreadyExists, exists, "{case}: {error:?}");
                let said = matches!(body, "status" | "another's status");
                let success = (200..300).contains(&code);
                let in_code = matches!(code, 401 | 404 | 429) || (success && body == "cut");
                if !said && !in_code {
                    let kind = if reads { ApiErrorKind::Unavailable } else { ApiErrorKind::Ambiguous };
                    assert_eq!((error.kind, error.class), (kind, Class::Retry), "{case}");
                }
            }
        }
    }
}

/// A clock set by hand: it may run on while timers stand still, as when the machine sleeps.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn boot(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Takes no request until it is opened.
struct Gate {
    open: Arc<Notify>,
    waiting: Option<BoxFuture<'static, ()>>,
    served: Arc<AtomicUsize>,
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let open = Arc::clone(&self.open);
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(async move { open.notified().await }));
        waiting.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.served.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { answer(201, &run()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_outlived_its_deadline_in_the_queue_is_not_sent() {
    let (open, served, hand) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)), Arc::new(HandClock::default()));
    let gate = Gate { open: Arc::clone(&open), waiting: None, served: Arc::clone(&served) };
    let calls = Calls::over(gate, Arc::clone(&hand) as Arc<dyn Clock>, "agents-test");
    let body = json!({});
    let target = Target::of::<AgentRun>();
    let call = calls.create::<AgentRun>(&target, "create the run", "ns", &body);
    let awake = async {
        tokio::task::yield_now().await;
        hand.0.store(11, Ordering::SeqCst);
        open.notify_one();
    };
    let (result, ()) = tokio::join!(call, awake);
    assert_eq!(result.unwrap_err().kind, ApiErrorKind::NotSent);
    assert_eq!(served.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_never_moves_ends_as_not_sent() {
    let gate = Gate { open: Arc::new(Notify::new()), waiting: None, served: Arc::default() };
    let calls = Calls::over(gate, clock(), "agents-test");
    let error =
        calls.create::<AgentRun>(&Target::of::<AgentRun>(), "create the run", "ns", &json!({})).await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::NotSent);
    let unfenced = Calls::new(calls.client().clone(), clock(), "agents-test");
    let error =
        unfenced.create::<AgentRun>(&Target::of::<AgentRun>(), "create the run", "ns", &json!({})).await.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Ambiguous, "nobody said that it was not sent");
}
