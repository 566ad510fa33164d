//! The tower service a `kube::Client` talks to: applies faults, carries requests out, keeps the log. A client that has
//! crashed gets no further answer, and nothing it still sends is carried out.

use std::{
    future::pending,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use futures::future::BoxFuture;
use http::Response;
use serde_json::Value;
use tower::{BoxError, Service};

use super::{
    answer::Refusal,
    fault::{CrashAt, Fault},
    request::{Request, Verb},
    verbs::{self, Answer},
    watch::Watcher,
    world::{ClientId, Shared},
};

/// The model as seen by one client.
#[derive(Clone)]
pub(super) struct ApiService {
    pub(super) shared: Arc<Shared>,
    pub(super) client: ClientId,
}

impl Service<http::Request<kube::client::Body>> for ApiService {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<kube::client::Body>) -> Self::Future {
        let Self { shared, client } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?.to_vec();
            let request = Request::read(&parts, body);
            serve(shared, client, request).await
        })
    }
}

async fn serve(shared: Arc<Shared>, client: ClientId, request: Request) -> Result<Response<Body>, BoxError> {
    let Some((record, fault, latency)) = shared.with(|state, now| {
        state.is_alive(client).then(|| {
            let fault = state.decide(client, &request);
            let record = state.record(client, &request, now, fault.clone());
            (record, fault, state.settings.latency)
        })
    }) else {
        return pending().await;
    };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let run = Run { shared, client, request, record };
    let Some(fault) = fault else {
        return run.respond(None).await;
    };
    match &fault {
        Fault::Reject(_) | Fault::Throttle(_) => run.refuse(&fault),
        Fault::Refuse(code, words) => {
            run.shared.with(|state, _| state.answered(run.record, *code));
            response(*code, Body::from(words.body(*code, &run.request)), None)
        }
        Fault::CommitThenReject(_) => {
            let _unseen = run.commit(None).await;
            run.refuse(&fault)
        }
        Fault::CommitThenDrop => {
            let _unseen = run.commit(None).await;
            Err(broken())
        }
        Fault::DropBeforeCommit => Err(broken()),
        Fault::CommitLate(by) => {
            let by = *by;
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                // It is on its way already, so the sender's death does not stop it.
                run.shared.with(|state, now| {
                    let _answer = verbs::handle(&mut state.store, &run.request, now, Duration::ZERO, None);
                });
            });
            Err(broken())
        }
        Fault::Delay(by) => {
            tokio::time::sleep(*by).await;
            run.respond(None).await
        }
        Fault::DelayResponse(by) => {
            let answer = run.commit(None).await;
            tokio::time::sleep(*by).await;
            run.alive().await;
            run.answer(answer)
        }
        Fault::Blackhole => pending().await,
        Fault::CommitThenBlackhole => {
            let _unseen = run.commit(None).await;
            pending().await
        }
        Fault::StaleBy(by) => run.respond(Some(*by)).await,
        Fault::TruncatedBody => {
            let text = match run.commit(None).await {
                Ok((_, body)) => body.to_string(),
                Err(refusal) => refusal.body().to_string(),
            };
            let half = text.len() / 2;
            Ok(response(200, Body::from(text.into_bytes()[..half].to_vec()), None)?)
        }
        Fault::Crash(at) => {
            if *at == CrashAt::Before {
                run.shared.crash(client);
                return pending().await;
            }
            let answer = run.commit(None).await;
            run.shared.crash(client);
            match at {
                CrashAt::Before | CrashAt::Inside => pending().await,
                CrashAt::After => run.answer(answer),
            }
        }
    }
}

fn broken() -> BoxError {
    Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer"))
}

/// One request under way.
struct Run {
    shared: Arc<Shared>,
    client: ClientId,
    request: Request,
    record: usize,
}

impl Run {
    async fn alive(&self) {
        if !self.shared.with(|state, _| state.is_alive(self.client)) {
            pending::<()>().await;
        }
    }

    async fn commit(&self, stale: Option<Duration>) -> Answer {
        self.alive().await;
        self.shared.with(|state, now| {
            if let Some(refusal) = state.denial(self.client, &self.request) {
                return Err(refusal);
            }
            let lag = state.faults.lag_of(self.request.plural());
            verbs::handle(&mut state.store, &self.request, now, lag, stale)
        })
    }

    async fn respond(&self, stale: Option<Duration>) -> Result<Response<Body>, BoxError> {
        if self.request.verb != Verb::Watch {
            return self.answer(self.commit(stale).await);
        }
        self.alive().await;
        let opened = self.shared.with(|state, now| match &self.request.target {
            Some(target) => Watcher::open(&self.shared, self.client, &self.request, target, state, now),
            None => Err(Refusal::no_such_path()),
        });
        match opened {
            Ok(watcher) => {
                self.shared.with(|state, _| state.answered(self.record, 200));
                response(200, Body::from_stream(watcher.into_stream()), None)
            }
            Err(refusal) => self.answer(Err(refusal)),
        }
    }

    fn refuse(&self, fault: &Fault) -> Result<Response<Body>, BoxError> {
        self.answer(Err(fault.refusal().unwrap_or_else(|| Refusal::scripted(500))))
    }

    fn answer(&self, answer: Answer) -> Result<Response<Body>, BoxError> {
        let (code, body, retry_after): (u16, Value, Option<String>) = match answer {
            Ok((code, body)) => (code, body, None),
            Err(refusal) => (refusal.code, refusal.body(), refusal.retry_after),
        };
        self.shared.with(|state, _| state.answered(self.record, code));
        response(code, Body::from(body.to_string()), retry_after)
    }
}

fn response(code: u16, body: Body, retry_after: Option<String>) -> Result<Response<Body>, BoxError> {
    let mut builder = Response::builder().status(code).header(http::header::CONTENT_TYPE, "application/json");
    if let Some(after) = retry_after {
        builder = builder.header(http::header::RETRY_AFTER, after);
    }
    Ok(builder.body(body)?)
}
