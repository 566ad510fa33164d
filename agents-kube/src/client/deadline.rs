//! The fence below the client's buffer: a request whose deadline has passed is not sent any more.
//!
//! kube's client queues requests in a buffer, and the machine may sleep with a request in that queue. The caller's own
//! timer measures neither, so the deadline travels with the request in boot time and is compared again right before
//! each step of sending it. This only saves work: that a late write is harmless rests on names and versions.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

use crate::clock::Clock;

/// A request's deadline, carried in its extensions.
#[derive(Debug, Clone)]
pub struct Deadline {
    at: Duration,
    sent: Arc<AtomicBool>,
}

impl Deadline {
    /// A deadline at a moment of the boot clock.
    pub fn at(at: Duration) -> Self {
        Self { at, sent: Arc::new(AtomicBool::new(false)) }
    }

    /// Whether the fence has let the request through; it may have taken effect then.
    pub fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Acquire)
    }
}

/// The fence refused a request, or gave up on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Expired {
    /// The deadline passed in the queue; nothing was sent.
    #[error("the deadline passed before the request was sent")]
    Unsent,
    /// The deadline passed after sending began.
    #[error("the deadline passed before an answer came")]
    Unanswered,
}

/// Puts a [`Fence`] around a service.
#[derive(Debug, Clone)]
pub struct FenceLayer(Arc<dyn Clock>);

impl FenceLayer {
    /// A layer that reads this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(clock)
    }
}

impl<S> Layer<S> for FenceLayer {
    type Service = Fence<S>;

    fn layer(&self, inner: S) -> Fence<S> {
        Fence { inner, clock: Arc::clone(&self.0) }
    }
}

/// Refuses requests whose [`Deadline`] has passed; those without one pass.
#[derive(Debug, Clone)]
pub struct Fence<S> {
    inner: S,
    clock: Arc<dyn Clock>,
}

impl<S, B> Service<Request<Body>> for Fence<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(deadline) = request.extensions().get::<Deadline>().cloned() else {
            let call = self.inner.call(request);
            return Box::pin(async move { call.await.map_err(Into::into) });
        };
        let clock = Arc::clone(&self.clock);
        if clock.boot() >= deadline.at {
            return Box::pin(async { Err(Expired::Unsent.into()) });
        }
        let mut call = Box::pin(self.inner.call(request));
        Box::pin(poll_fn(move |cx| {
            if clock.boot() >= deadline.at {
                let expired = if deadline.was_sent() { Expired::Unanswered } else { Expired::Unsent };
                return Poll::Ready(Err(expired.into()));
            }
            deadline.sent.store(true, Ordering::Release);
            call.as_mut().poll(cx).map_err(Into::into)
        }))
    }
}
