//! The endpoint itself: the one part of the scripted model that listens, keeps time and remembers.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::answer::{self, Answer, Outcome, Step};
use super::script::Script;
use super::wire::{CallOutput, Request};

/// Largest request body read; agents send their whole history each time.
const BODY_LIMIT: usize = 16 << 20;
/// Requests remembered; the oldest go first.
const REMEMBERED: usize = 2_000;
/// Bytes kept of each text of a remembered request.
const TEXT_LIMIT: usize = 4 << 10;

/// A scripted model that listens until it is dropped.
///
/// `POST /v1/responses` and `POST /CONVERSATION/v1/responses` follow the script, `GET /requests` gives what
/// [`ModelServer::requests`] does, `GET /healthz` answers 200.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What the server keeps of one request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRequest {
    /// The conversation it was answered from; absent when it named none of the script.
    pub conversation: Option<String>,
    /// The agent's own name for its session; empty when it gave none.
    pub session: String,
    /// The turn it was given, from 0.
    pub turn: Option<usize>,
    /// How often this session had asked for this turn before.
    pub attempt: u32,
    /// The model it asked for.
    pub model: String,
    /// Whether it carried a key, right or wrong.
    pub bearer: bool,
    /// The last thing the user said, shortened.
    pub prompt: Option<String>,
    /// The outputs of the calls so far, each shortened.
    pub outputs: Vec<CallOutput>,
    /// Function tools offered.
    pub tools: Vec<String>,
    /// What it got.
    pub outcome: Outcome,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    requests: Mutex<VecDeque<RecordedRequest>>,
    stop: CancellationToken,
}

impl ModelServer {
    /// Listens on a free port of the loopback.
    pub async fn start(script: Script) -> anyhow::Result<Self> {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script).await
    }

    /// Listens on `address`.
    pub async fn listen(address: SocketAddr, script: Script) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { script, requests: Mutex::default(), stop: stop.clone() });
        let router = Router::new()
            .route("/v1/responses", post(respond))
            .route("/{conversation}/v1/responses", post(respond_as))
            .route("/requests", get(recorded))
            .route("/healthz", get(|| async { "ok" }))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(Arc::clone(&shared));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "scripted model stopped");
            }
        });
        Ok(Self { address, shared, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for agents which name the conversation by their model.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL of one conversation, whatever model is asked for.
    pub fn url_of(&self, conversation: &str) -> String {
        format!("http://{}/{conversation}/v1", self.address)
    }

    /// The requests so far, oldest first, the last 2,000 at most.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.requests().iter().cloned().collect()
    }
}

impl Shared {
    fn requests(&self) -> std::sync::MutexGuard<'_, VecDeque<RecordedRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides and remembers in one step, so that parallel requests of a session count as different attempts.
    fn decide(&self, path: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Answer {
        let request: Request = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) => {
                let (answer, outcome) = answer::refuse(400, "invalid_request", format!("not a request: {error}"));
                tracing::warn!(?outcome, "refused");
                return answer;
            }
        };
        let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let found = self.script.conversation(path, &request.model);
        let turn = found.and_then(|(_, conversation)| conversation.position(&request.history()));
        let mut record = RecordedRequest {
            conversation: found.map(|(name, _)| name.to_owned()),
            session: request.prompt_cache_key.as_deref().map_or_else(String::new, shorten),
            turn,
            attempt: 0,
            model: shorten(&request.model),
            bearer: bearer.is_some(),
            prompt: request.prompt().as_deref().map(shorten),
            outputs: request.outputs().into_iter().map(shorten_output).collect(),
            tools: request.tool_names().into_iter().map(shorten).collect(),
            outcome: Outcome::Turn,
        };
        let mut requests = self.requests();
        let same = |before: &&RecordedRequest| {
            before.session == record.session && before.conversation == record.conversation && before.turn == turn
        };
        record.attempt = u32::try_from(requests.iter().filter(same).count()).unwrap_or(u32::MAX);
        let (answer, outcome) = match (found, turn) {
            (None, _) => {
                let names = self.script.conversations.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                answer::refuse(404, "model_not_found", format!("the script has the conversations {names}"))
            }
            (Some(_), _) if !request.stream => {
                answer::refuse(400, "invalid_request", "stream: only true is served".to_owned())
            }
            (Some((name, conversation)), turn) => match (answer::authorize(conversation, bearer), turn) {
                (Err(unauthorized), _) => unauthorized,
                (Ok(()), None) => answer::refuse(400, "script_ended", format!("{name} has no further turn")),
                (Ok(()), Some(turn)) => answer::answer(name, turn, &conversation.turns[turn], record.attempt, &request),
            },
        };
        tracing::info!(conversation = ?record.conversation, turn, attempt = record.attempt, ?outcome, "answered");
        record.outcome = outcome;
        if requests.len() == REMEMBERED {
            requests.pop_front();
        }
        requests.push_back(record);
        answer
    }
}

async fn respond(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    send(&shared, shared.decide(None, &headers, &body))
}

async fn respond_as(
    State(shared): State<Arc<Shared>>,
    Path(conversation): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    send(&shared, shared.decide(Some(&conversation), &headers, &body))
}

async fn recorded(State(shared): State<Arc<Shared>>) -> Json<Vec<RecordedRequest>> {
    Json(shared.requests().iter().cloned().collect())
}

fn send(shared: &Shared, answer: Answer) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    match answer {
        Answer::Error { status, retry_after, body } => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a header value"));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.get().into());
            }
            *response.body_mut() = body.to_string().into();
        }
        Answer::Stream(steps) => {
            response.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().expect("a header value"));
            let steps = VecDeque::from(steps);
            *response.body_mut() = Body::from_stream(stream::unfold((steps, shared.stop.clone()), next));
        }
    }
    response
}

/// The next bytes of a stream. An endless one holds one event at a time, and ends with the client or the server.
async fn next(
    (mut steps, stop): (VecDeque<Step>, CancellationToken),
) -> Option<(io::Result<Bytes>, (VecDeque<Step>, CancellationToken))> {
    let wait = async |pause| stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    loop {
        let bytes = match steps.pop_front()? {
            Step::Send(event) => Ok(event.into()),
            Step::Abort => {
                // What was sent so far is written out only when the body has nothing ready.
                tokio::task::yield_now().await;
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the script"))
            }
            Step::Pause(pause) => {
                wait(pause).await?;
                continue;
            }
            Step::Hang => {
                stop.cancelled().await;
                return None;
            }
            Step::Repeat(event, pause) => {
                wait(pause).await?;
                steps.push_front(Step::Repeat(event.clone(), pause));
                Ok(event.into())
            }
        };
        return Some((bytes, (steps, stop)));
    }
}

fn shorten(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_LIMIT)].to_owned()
}

fn shorten_output(CallOutput { call_id, output }: CallOutput) -> CallOutput {
    CallOutput { call_id: shorten(&call_id), output: shorten(&output) }
}
