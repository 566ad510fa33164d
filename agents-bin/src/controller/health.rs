//! The pages of a controller: whether it lives, whether it is ready, and its metrics.

use std::fmt::Write as _;
use std::sync::Arc;

use agents_kube::{Current, Health};
use axum::{Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, routing::get};

/// A manager as the pages see it.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Namespace of its runs; empty for all.
    pub(super) runs: String,
    /// How the manager of them that works now is doing.
    pub(super) current: Current,
}

impl Watched {
    fn health(&self) -> Health {
        self.current.health()
    }

    /// What metrics call its namespace: its place among those the controller was given, from 1, which tells a tenant
    /// nothing of the others; empty where it stands for all.
    fn label(&self, n: usize) -> String {
        if self.runs.is_empty() { String::new() } else { (n + 1).to_string() }
    }
}

type All = Arc<Vec<Watched>>;

/// `/healthz`, `/readyz` and `/metrics`.
pub(super) fn pages(watched: Vec<Watched>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(watched))
}

/// Ready when every manager is; the leader is named so when it leads anywhere. Statuses that cannot be stored are named
/// and do not make it unready: another replica could not store them either, and one run of one namespace must not take
/// the controller of all out of service.
async fn ready(State(all): State<All>) -> (StatusCode, String) {
    let troubles: Vec<String> = all
        .iter()
        .filter_map(|watched| {
            let (runs, trouble) = (&watched.runs, watched.health().ready().err()?);
            Some(if all.len() > 1 { format!("{runs}: {trouble}") } else { trouble })
        })
        .collect();
    let (leading, others): (Vec<_>, Vec<_>) = all.iter().partition(|watched| watched.health().is_leading());
    let mut said = if leading.is_empty() { "ok" } else { "ok, leading" }.to_owned();
    if !leading.is_empty() && !others.is_empty() {
        let others: Vec<&str> = others.iter().map(|watched| watched.runs.as_str()).collect();
        // Writing to a String cannot fail.
        let _ = write!(said, "; others have {}", others.join(", "));
    }
    for watched in all.iter() {
        if let Some((count, first)) = watched.health().unstored() {
            // Writing to a String cannot fail.
            let _ = write!(said, "; {count} statuses cannot be stored, such as {first}");
        }
    }
    match troubles.as_slice() {
        [] => (StatusCode::OK, format!("{said}\n")),
        troubles => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", troubles.join("; "))),
    }
}

/// The text format of Prometheus. Whoever reaches the page may read it, so no namespace is named: see [`Watched::label`].
async fn metrics(State(all): State<All>) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    let ready = u8::from(all.iter().all(|watched| watched.health().ready().is_ok()));
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "# HELP agents_build_info The version that runs.\n# TYPE agents_build_info gauge\n\
         agents_build_info{{version=\"{version}\"}} 1\n\
         # HELP agents_ready Whether every cache is complete, as /readyz says.\n# TYPE agents_ready gauge\n\
         agents_ready {ready}\n"
    );
    let leading = |health: &Health| usize::from(health.is_leading());
    gauge(&mut text, &all, ("agents_leader", "Whether this replica decides the runs of a namespace."), leading);
    let refused = |health: &Health| health.unstored().map_or(0, |(count, _)| count);
    let name = ("agents_status_refused_runs", "Runs whose status the API server lastingly does not take.");
    gauge(&mut text, &all, name, refused);
    let kept = |health: &Health| health.kept_bytes().iter().flat_map(|(_, namespaces)| namespaces.values()).sum();
    let name = ("agents_kept_bytes", "About what the caches keep of the objects of a namespace, in bytes.");
    gauge(&mut text, &all, name, kept);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// A gauge with a value for each namespace.
fn gauge(text: &mut String, all: &[Watched], (name, help): (&str, &str), value: impl Fn(&Health) -> usize) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (n, watched) in all.iter().enumerate() {
        let _ = writeln!(text, "{name}{{runs=\"{}\"}} {}", watched.label(n), value(&watched.health()));
    }
}
