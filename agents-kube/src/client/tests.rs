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
        let body = json!({ "metadata": { "resourceVersion": "9", "continue": "t" }, "items": [run()] });
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

#[tokio::test(start_paused = true)]
async fn an_absent_object_is_no_error_where_absence_is_an_answer() {
    let calls = scripted(&log(), || Box::pin(async { answer(404, &json!({ "reason": "NotFound", "message": "no" })) }));
    let read = calls.get::<AgentRun>(&Target::of::<AgentRun>(), "read the run", "ns", "r").await.or_absent();
    assert!(matches!(read, Ok(None)));
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
