//! Virtual time: the runtime's paused clock plus an offset. Nothing in the model reads the machine's clock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// When every simulated world begins, in seconds since the epoch: 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;

/// A clock. Clones share their offset, so that a jump is seen by every holder of that clock and by nobody else.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    offset: Arc<Mutex<SignedDuration>>,
}

impl Clock {
    pub(super) fn starting_now() -> Self {
        Self { origin: Instant::now(), offset: Arc::default() }
    }

    /// A clock with the same origin and an offset of its own: another machine.
    #[must_use]
    pub fn skewed(&self, offset: SignedDuration) -> Self {
        Self { origin: self.origin, offset: Arc::new(Mutex::new(offset)) }
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        let offset = *self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = SignedDuration::try_from(self.boot()).unwrap_or(SignedDuration::MAX);
        Timestamp::from_second(START)
            .and_then(|start| start.checked_add(elapsed))
            .and_then(|now| now.checked_add(offset))
            .unwrap_or(Timestamp::MAX)
    }

    /// Time since the world began; never jumps.
    pub fn boot(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Moves the wall clock, forward or back.
    pub fn jump(&self, by: SignedDuration) {
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset = offset.saturating_add(by);
    }

    /// The instant `boot` after the world's beginning.
    pub(super) fn instant(&self, boot: Duration) -> Instant {
        self.origin + boot
    }
}

impl agents_kube::Clock for Clock {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    fn boot(&self) -> Duration {
        Self::boot(self)
    }
}
