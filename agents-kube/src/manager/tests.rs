//! What a manager says of a place where it can do nothing: a scripted API server, paused time.

use http::{Request, Response};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

use super::*;
use crate::clock::TimerClock;

const SECOND: Duration = Duration::from_secs(1);

/// The paths that were asked for, in order.
type Asked = Arc<Mutex<Vec<String>>>;

fn refused(code: u16, reason: &str, kind: &str, name: &str) -> (u16, Value) {
    let details = json!({"name": name, "kind": kind});
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("{kind} {name:?} not found"), "details": details,
    });
    (code, status)
}

/// An API server with a namespace `there` and nothing in it; every other has empty lists, and no object can be made.
fn serve(request: &Request<Body>) -> Option<(u16, Value)> {
    let path = request.uri().path();
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        return None;
    }
    Some(match path.rsplit('/').next().unwrap_or_default() {
        "there" => (200, json!({"kind": "Namespace", "metadata": {"name": "there"}})),
        "nope" | "leases" => refused(404, "NotFound", "namespaces", "nope"),
        "lease" => {
            let (code, mut status) = refused(404, "NotFound", "leases", "lease");
            status["details"]["group"] = json!("coordination.k8s.io");
            (code, status)
        }
        plural => {
            let kinds = ["AgentRun", "Agent", "AgentProvider", "ImplementationSpec", "Job", "Pod"];
            let kind = kinds.into_iter().find(|kind| format!("{}s", kind.to_lowercase()) == plural).unwrap_or_default();
            (200, json!({"kind": format!("{kind}List"), "metadata": {"resourceVersion": "1"}, "items": []}))
        }
    })
}

fn calls(asked: &Asked) -> Calls {
    let asked = Arc::clone(asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        let answer = serve(&request);
        async move {
            let Some((code, body)) = answer else { return pending().await };
            Ok::<_, BoxError>(Response::builder().status(code).body(Body::from(serde_json::to_vec(&body)?))?)
        }
    });
    Calls::over(service, Arc::new(TimerClock::starting_at(Timestamp::UNIX_EPOCH)), "agents-test")
}

/// What readiness says after a minute, and what was asked for in that time.
async fn a_minute(namespace: &str, lease: bool) -> (Result<(), String>, Vec<String>) {
    let asked = Asked::default();
    let mut builder =
        Manager::builder(calls(&asked), "a").watch(Namespaces::One(namespace.to_owned())).declarations(false);
    if lease {
        builder = builder.lease(LeaseOptions {
            namespace: namespace.to_owned(),
            name: "lease".to_owned(),
            former: None,
            params: lease::Params::default(),
        });
    }
    let manager = builder.build();
    let health = manager.health();
    let _ = time::timeout(60 * SECOND, Box::pin(manager.run(CancellationToken::new()))).await;
    let asked = asked.lock().unwrap().clone();
    (health.ready(), asked)
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_does_not_exist_is_told_from_an_empty_one() {
    let look = |asked: &[String], path: &str| asked.iter().filter(|asked| asked.as_str() == path).count();
    let (ready, asked) = a_minute("nope", false).await;
    assert_eq!(ready, Err("the namespace does not exist".to_owned()));
    assert!((1..=3).contains(&look(&asked, "GET /api/v1/namespaces/nope")), "{asked:?}");
    let (ready, asked) = a_minute("there", false).await;
    assert_eq!(ready, Ok(()));
    assert_eq!(look(&asked, "GET /api/v1/namespaces/there"), 1, "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn an_election_that_cannot_go_on_is_named_and_not_hurried() {
    let (ready, asked) = a_minute("nope", true).await;
    let trouble = ready.expect_err("it cannot lead");
    assert!(trouble.contains("the election: failed to create the lease"), "{trouble}");
    let of_leases = asked.iter().filter(|asked| asked.contains("/leases")).count();
    assert!((20..=170).contains(&of_leases), "{of_leases} requests in a minute");
}
