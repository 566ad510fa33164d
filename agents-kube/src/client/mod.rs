//! Calls to the API server: each has a deadline, one kind of outcome, and no hidden retry.
//!
//! kube's default client repeats every method on 429, 503 and 504 for minutes and logs bodies that it cannot decode.
//! Neither is wanted: a repeated create may happen twice, and a body may hold a secret. So requests are built by kube,
//! sent once, and judged here.

mod deadline;
mod error;
mod judge;
mod listing;
mod waits;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::{
    Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    client::{Body, ClientBuilder},
    core::request::Request as Requests,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time;
use tower::{BoxError, Service};

pub(crate) use self::error::{decode_text, is_page};
pub use self::{
    deadline::{Deadline, Expired, Fence, FenceLayer},
    error::{ApiError, ApiErrorKind, MAX_RETRY_AFTER, OrAbsent, in_words},
};
use self::{
    judge::{Asked, Verdict, judge, judge_status},
    listing::{Frame, Listing, ListingError},
    waits::{Standing, Waits},
};
use crate::clock::Clock;

/// Deadline of a call unless another is set.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long the API server itself may work on a write.
const SERVER_TIMEOUT: &str = "10s";
/// Largest answer that is read whole: an object of etcd's largest size, escaped, with room. Lists are not read whole.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A kind of object that calls are about. It is a value, so that one cache can be of any kind.
#[derive(Clone)]
pub struct Target {
    kind: Cow<'static, str>,
    plural: Cow<'static, str>,
    group: Cow<'static, str>,
    path: fn(Option<&str>) -> String,
}

impl Target {
    /// A namespaced or cluster-wide type known at compile time.
    pub fn of<K: kube::Resource<DynamicType = ()>>() -> Self {
        Self {
            kind: K::kind(&()),
            plural: K::plural(&()),
            group: K::group(&()),
            path: |namespace| K::url_path(&(), namespace),
        }
    }

    /// A cluster-wide type known at compile time, whatever namespace a call names.
    pub fn cluster_wide<K: kube::Resource<DynamicType = ()>>() -> Self {
        Self { path: |_| K::url_path(&(), None), ..Self::of::<K>() }
    }

    /// Name of the kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    fn requests(&self, namespace: Option<&str>) -> Requests {
        Requests::new((self.path)(namespace))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.kind).finish()
    }
}

/// Calls to the API server.
///
/// # Guarantees
/// A call ends before its deadline. It is sent at most once. A write asks the API server to give up after 10 s. After
/// a 429 no clone of this client sends anything for as long as the answer asks, at most [`MAX_RETRY_AFTER`]: calls fail
/// meanwhile with what is left of that time. [`Calls::optional`] and [`Calls::regardless`] are the exceptions, and a
/// refusal of an admission webhook or policy is none of the API server's waits, whatever its code.
///
/// # Errors
/// Every call fails with [`ApiError`], whose `step` is the one given.
#[derive(Clone)]
pub struct Calls {
    client: Client,
    clock: Arc<dyn Clock>,
    manager: Arc<str>,
    deadline: Duration,
    fenced: bool,
    standing: Standing,
    waits: Arc<Waits>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client: _, clock, manager, deadline, fenced, standing, waits: _ } = self;
        f.debug_struct("Calls")
            .field("clock", clock)
            .field("manager", manager)
            .field("deadline", deadline)
            .field("fenced", fenced)
            .field("standing", standing)
            .finish_non_exhaustive()
    }
}

/// Which objects a list or a watch covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
}

/// What one page of a list came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Version the whole list was read at.
    pub resource_version: String,
    /// Asks for the next page; `None` on the last.
    pub next: Option<String>,
    /// Objects on the page.
    pub objects: usize,
    /// Length of the page, in bytes.
    pub bytes: usize,
}

/// What must hold for a delete, and what becomes of the object's dependents.
#[derive(Debug, Clone, PartialEq)]
pub struct Deletion {
    /// Only the object with this uid is deleted.
    pub uid: String,
    /// Only this version of it, if given.
    pub resource_version: Option<String>,
    /// Time for pods to end by themselves, in seconds; else what the object says.
    pub grace_seconds: Option<u32>,
    /// What becomes of dependents.
    pub propagation: PropagationPolicy,
}

impl Deletion {
    /// Deletes the object with this uid; its dependents follow in the background.
    pub fn of(uid: impl Into<String>) -> Self {
        Self {
            uid: uid.into(),
            resource_version: None,
            grace_seconds: None,
            propagation: PropagationPolicy::Background,
        }
    }
}

/// Any answer whose content does not matter.
#[derive(Deserialize)]
struct Anything {}

impl Calls {
    /// Connects as configured, without kube's retry and with the deadline checked below its buffer.
    ///
    /// The crate must be built with a TLS feature of kube by the binary, unless the address is plain HTTP.
    pub fn connect(
        mut config: Config,
        clock: Arc<dyn Clock>,
        manager: impl Into<Arc<str>>,
    ) -> Result<Self, kube::Error> {
        config.default_retry = false;
        let fence = FenceLayer::new(Arc::clone(&clock));
        let client = ClientBuilder::try_from(config)?.with_layer(&fence).build();
        Ok(Self { fenced: true, ..Self::new(client, clock, manager) })
    }

    /// Speaks to a service instead of a connection, such as a model of the API.
    pub fn over<S, B>(service: S, clock: Arc<dyn Clock>, manager: impl Into<Arc<str>>) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let fence = FenceLayer::new(Arc::clone(&clock));
        let client = ClientBuilder::new(service, "default").with_layer(&fence).build();
        Self { fenced: true, ..Self::new(client, clock, manager) }
    }

    /// Uses a client made elsewhere. Without the fence below its buffer, a call that ran out of time counts as sent.
    pub fn new(client: Client, clock: Arc<dyn Clock>, manager: impl Into<Arc<str>>) -> Self {
        let (manager, standing, waits) = (manager.into(), Standing::Usual, Arc::default());
        Self { client, clock, manager, deadline: DEADLINE, fenced: false, standing, waits }
    }

    /// The same client, except that a 429 to another call does not hold this one's calls back, nor one of its own any
    /// other: for the few calls that cannot wait, such as the renewal of a lease.
    #[must_use]
    pub fn regardless(self) -> Self {
        Self { standing: Standing::Regardless, ..self }
    }

    /// The same client for calls that nothing depends on, such as Events: a 429 to the others holds them back, one of
    /// theirs holds back none but their like in the same namespace.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { standing: Standing::Optional, ..self }
    }

    /// The same with another deadline per call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The client below.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The clock that deadlines are measured by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Reads an object consistently, as `P`.
    pub async fn get<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<P, ApiError> {
        let request = target.requests(Some(namespace)).get(name, &kube::api::GetParams::default());
        self.exchange(step, Asked { target, namespace, name: Some(name), mutates: false }, request).await
    }

    /// Reads one page of at most `limit` objects and hands each on while the page arrives, so that what is held is one
    /// object. The first page is consistent, further ones belong to the same moment. On an error, some objects may have
    /// been handed on.
    pub async fn list(
        &self,
        target: &Target,
        step: &'static str,
        scope: &Scope,
        limit: u32,
        next: Option<String>,
        mut object: impl FnMut(&[u8]) + Send,
    ) -> Result<Page, ApiError> {
        let Scope { namespace, labels, fields } = scope;
        let params = ListParams {
            label_selector: labels.clone(),
            field_selector: fields.clone(),
            limit: Some(limit),
            continue_token: next,
            ..ListParams::default()
        };
        let request = target.requests(namespace.as_deref()).list(&params);
        let namespace = namespace.as_deref().unwrap_or_default();
        let asked = Asked { target, namespace, name: None, mutates: false };
        self.send(step, asked, request, async |asked, response| {
            if !response.status().is_success() {
                let refused = self.receive(step, asked, response).await;
                return Err(refused.map_or_else(|error| error, |_| unavailable(step, "the answer is no list")));
            }
            let (mut listing, mut objects, mut bytes) = (Listing::new(), 0_usize, 0_usize);
            let mut chunks = response.into_body().into_data_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|_| unavailable(step, "the answer ended early"))?;
                bytes = bytes.saturating_add(chunk.len());
                let taken = listing.push(&chunk, |found| {
                    objects += 1;
                    object(found);
                });
                taken.map_err(|error| of_listing(step, error))?;
            }
            let Frame { kind, resource_version, next } = listing.end().map_err(|error| of_listing(step, error))?;
            // Taken for an empty list, any other document would say that every object is gone.
            if kind.strip_suffix("List") != Some(target.kind()) {
                return Err(ApiError::new(step, ApiErrorKind::Decode, "the document is no list of the kind"));
            }
            Ok(Page { resource_version, next, objects, bytes })
        })
        .await
    }

    /// Creates an object; `body` carries its apiVersion and kind.
    pub async fn create<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<P, ApiError> {
        self.post_object(target, step, namespace, body, false).await
    }

    /// What would be stored if `body` were created, after everything that admission changes; nothing is created.
    pub async fn would_create<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<P, ApiError> {
        self.post_object(target, step, namespace, body, true).await
    }

    async fn post_object<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        body: &(impl Serialize + Sync),
        dry_run: bool,
    ) -> Result<P, ApiError> {
        let body = encode(step, body)?;
        let request = target.requests(Some(namespace)).create(&PostParams { dry_run, ..self.post() }, body);
        self.exchange(step, Asked { target, namespace, name: None, mutates: !dry_run }, request).await
    }

    /// Replaces an object; with the resourceVersion in `body`, only if it has not changed.
    pub async fn replace<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        name: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<P, ApiError> {
        let body = encode(step, body)?;
        let request = target.requests(Some(namespace)).replace(name, &self.post(), body);
        self.exchange(step, Asked { target, namespace, name: Some(name), mutates: true }, request).await
    }

    /// Replaces an object's whole status; with the resourceVersion in `body`, only if the object has not changed.
    pub async fn replace_status<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        name: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<P, ApiError> {
        let body = encode(step, body)?;
        let request = target.requests(Some(namespace)).replace_subresource("status", name, &self.post(), body);
        self.exchange(step, Asked { target, namespace, name: Some(name), mutates: true }, request).await
    }

    /// Patches an object, or one of its subresources.
    pub async fn patch<P: DeserializeOwned>(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch<impl Serialize + Sync>,
    ) -> Result<P, ApiError> {
        let params = PatchParams {
            field_manager: Some(self.manager.to_string()),
            force: matches!(patch, Patch::Apply(_)),
            ..PatchParams::default()
        };
        let requests = target.requests(Some(namespace));
        let request = match subresource {
            Some(subresource) => requests.patch_subresource(subresource, name, &params, patch),
            None => requests.patch(name, &params, patch),
        };
        self.exchange(step, Asked { target, namespace, name: Some(name), mutates: true }, request).await
    }

    /// Deletes an object, or begins to. An object that is gone gives [`ApiErrorKind::NotFound`], one with another uid
    /// or version [`ApiErrorKind::Conflict`].
    pub async fn delete(
        &self,
        target: &Target,
        step: &'static str,
        namespace: &str,
        name: &str,
        deletion: &Deletion,
    ) -> Result<(), ApiError> {
        let Deletion { uid, resource_version, grace_seconds, propagation } = deletion.clone();
        let params = DeleteParams {
            grace_period_seconds: grace_seconds,
            propagation_policy: Some(propagation),
            preconditions: Some(Preconditions { uid: Some(uid), resource_version }),
            ..DeleteParams::default()
        };
        let request = target.requests(Some(namespace)).delete(name, &params);
        let Anything {} =
            self.exchange(step, Asked { target, namespace, name: Some(name), mutates: true }, request).await?;
        Ok(())
    }

    /// Reads an answer's body, or what is said instead.
    async fn receive(&self, step: &'static str, sent: &Sent<'_>, response: Response<Body>) -> Result<Bytes, ApiError> {
        let Sent { asked: Asked { target, namespace, name, mutates }, body: written } = sent;
        let code = response.status();
        let retry_after =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        // The headers were read, and what was to follow is not known.
        let body = body.map_err(|_| ApiError::unexplained(step, "the answer ended early", *mutates))?.to_bytes();
        if code.is_success() {
            return Ok(body);
        }
        let created = name.is_none().then(|| name_in(written)).flatten();
        let asked = Asked { target, namespace, name: name.or(created.as_deref()), mutates: *mutates };
        Err(self.judged(step, &asked, judge(&asked, code.as_u16(), retry_after, &body)))
    }

    /// What a verdict comes to for the caller; one that asks for a wait holds calls back.
    fn judged(&self, step: &'static str, asked: &Asked<'_>, verdict: Verdict) -> ApiError {
        if let ApiErrorKind::TooManyRequests { retry_after } = verdict.kind
            && self.waits.asked(self.standing, asked.namespace, self.clock.boot(), retry_after)
        {
            tracing::warn!(step, wait = ?retry_after, "the API server asks for fewer requests: nothing is sent meanwhile");
        }
        ApiError::of_verdict(step, verdict)
    }

    /// Fails while the API server's wait lasts.
    fn may_send(&self, step: &'static str, namespace: &str) -> Result<(), ApiError> {
        let left = self.waits.left(self.standing, namespace, self.clock.boot());
        if left.is_zero() { Ok(()) } else { Err(ApiError::held(step, left)) }
    }

    fn post(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.to_string()), ..PostParams::default() }
    }

    /// Sends one request and decodes its answer.
    async fn exchange<P: DeserializeOwned>(
        &self,
        step: &'static str,
        asked: Asked<'_>,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<P, ApiError> {
        let bytes =
            self.send(step, asked, request, async |asked, response| self.receive(step, asked, response).await).await?;
        serde_json::from_slice(&bytes).map_err(|error| ApiError::unread(step, &error, asked.mutates))
    }

    /// Sends one request and has its answer read.
    async fn send<T>(
        &self,
        step: &'static str,
        asked: Asked<'_>,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
        read: impl AsyncFnOnce(&Sent<'_>, Response<Body>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mutates = asked.mutates;
        self.may_send(step, asked.namespace)?;
        let mut request = request.map_err(|error| ApiError::new(step, ApiErrorKind::Invalid, error.to_string()))?;
        if mutates {
            *request.uri_mut() = with_server_timeout(request.uri());
        }
        let deadline = Deadline::at(self.clock.boot().saturating_add(self.deadline));
        request.extensions_mut().insert(deadline.clone());
        let request = request.map(Bytes::from);
        let sent = request.body().clone();
        let answer = time::timeout(self.deadline, async {
            let response = self
                .client
                .send(request.map(Body::from))
                .await
                .map_err(|error| ApiError::of_transport(step, &error, mutates))?;
            read(&Sent { asked, body: sent }, response).await
        });
        match answer.await {
            Ok(answer) => answer,
            Err(_) if self.fenced && !deadline.was_sent() => {
                Err(ApiError::new(step, ApiErrorKind::NotSent, Expired::Unsent.to_string()))
            }
            Err(_) => Err(ApiError::unanswered(step, mutates)),
        }
    }

    /// Opens a watch: the answer's body is a stream of lines. Only its beginning has a deadline.
    pub(crate) async fn open_watch(
        &self,
        target: &Target,
        step: &'static str,
        scope: &Scope,
        resource_version: &str,
        timeout: Duration,
    ) -> Result<Body, ApiError> {
        let Scope { namespace, labels, fields } = scope;
        let asked_in = namespace.as_deref().unwrap_or_default();
        self.may_send(step, asked_in)?;
        let params = kube::api::WatchParams {
            label_selector: labels.clone(),
            field_selector: fields.clone(),
            timeout: u32::try_from(timeout.as_secs()).ok(),
            ..kube::api::WatchParams::default()
        };
        let mut request = target
            .requests(namespace.as_deref())
            .watch(&params, resource_version)
            .map_err(|error| ApiError::new(step, ApiErrorKind::Invalid, error.to_string()))?;
        // A compressed watch has one gzip member per event, of which decoders read only the first.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let opening = time::timeout(self.deadline, async {
            let response = self
                .client
                .send(request.map(Body::from))
                .await
                .map_err(|error| ApiError::of_transport(step, &error, false))?;
            if response.status().is_success() {
                return Ok(response.into_body());
            }
            let asked = Asked { target, namespace: asked_in, name: None, mutates: false };
            let sent = Sent { asked, body: Bytes::new() };
            match self.receive(step, &sent, response).await {
                Err(error) => Err(error),
                Ok(_) => Err(ApiError::new(step, ApiErrorKind::Unavailable, "the answer is not a watch")),
            }
        });
        opening.await.unwrap_or_else(|_| Err(ApiError::unanswered(step, false)))
    }
}

/// What an ERROR event of a watch says.
pub(crate) fn told_in_watch(target: &Target, object: &[u8]) -> ApiError {
    let status = judge::read(object);
    let code = status.as_ref().map_or(0, |status| status.code);
    let asked = Asked { target, namespace: "", name: None, mutates: false };
    ApiError::of_verdict("watch", judge_status(&asked, code, None, status))
}

fn encode(step: &'static str, body: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(body).map_err(|error| ApiError::new(step, ApiErrorKind::Invalid, decode_text(&error)))
}

/// Adds the server's own timeout to a write.
fn with_server_timeout(uri: &Uri) -> Uri {
    let text = uri.to_string();
    let separator = match text.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    let separator = if text.ends_with('&') { "" } else { separator };
    format!("{text}{separator}timeout={SERVER_TIMEOUT}").parse().unwrap_or_else(|_| uri.clone())
}

fn unavailable(step: &'static str, message: &str) -> ApiError {
    ApiError::new(step, ApiErrorKind::Unavailable, message)
}

fn of_listing(step: &'static str, error: ListingError) -> ApiError {
    match error {
        ListingError::CutShort => unavailable(step, "the answer ended early"),
        ListingError::NotAList(error) => ApiError::unread(step, &error, false),
        ListingError::TooLarge => ApiError::new(step, ApiErrorKind::Decode, error.to_string()),
    }
}

/// What was sent, as far as its answer is judged by it.
struct Sent<'a> {
    asked: Asked<'a>,
    body: Bytes,
}

/// The name of the object in the body of a create.
fn name_in(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Name,
    }
    #[derive(Deserialize)]
    struct Name {
        name: Option<String>,
    }
    serde_json::from_slice::<Named>(body).ok()?.metadata.name
}

#[cfg(test)]
mod tests;
