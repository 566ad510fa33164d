//! The way of events to whoever shows them.
//!
//! News of states are few and small and never wait. Output may be endless: what was read of it and not shown yet, of
//! all runs together, is bounded.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Event;

/// Most bytes of output, of all runs together, that wait to be shown.
pub(super) const BUDGET: usize = 8 * 1024 * 1024;

/// Takes up memory for as long as output waits to be shown: dropped with the event.
#[derive(Debug, Clone)]
pub struct Room(#[expect(dead_code, reason = "held until it is dropped")] Option<Arc<OwnedSemaphorePermit>>);

/// Where events go; clones lead to the same place.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    events: mpsc::UnboundedSender<Event>,
    budget: Arc<Semaphore>,
}

impl Stage {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { events, budget: Arc::new(Semaphore::new(BUDGET)) }, receiver)
    }

    /// Tells an event; nobody has to listen.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Waits until there is room for this many bytes, or nobody listens.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        let bytes = u32::try_from(bytes.min(BUDGET)).unwrap_or(u32::MAX);
        let permit = tokio::select! {
            permit = Arc::clone(&self.budget).acquire_many_owned(bytes) => permit.ok(),
            () = self.events.closed() => None,
        };
        Room(permit.map(Arc::new))
    }
}
