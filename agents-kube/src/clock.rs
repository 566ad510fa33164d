//! Time as an argument: wall time for what is stored, boot time for what expires.

use std::{fmt::Debug, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

/// The clocks of the machine. The real one belongs to the binary.
///
/// # Guarantees asked of it
/// `boot` never runs backwards and goes on while the machine sleeps (`CLOCK_BOOTTIME`); `now` may jump either way.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Wall time.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment.
    fn boot(&self) -> Duration;
}

/// A clock that follows tokio's timer: with paused time, a simulated one.
///
/// Its boot time stands still while the machine sleeps, so a controller that runs for days uses another.
#[derive(Debug, Clone, Copy)]
pub struct TimerClock {
    origin: Instant,
    wall: Timestamp,
}

impl TimerClock {
    /// A clock that reads `wall` now.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { origin: Instant::now(), wall }
    }
}

impl Clock for TimerClock {
    fn now(&self) -> Timestamp {
        self.wall.saturating_add(self.boot()).unwrap_or(self.wall)
    }

    fn boot(&self) -> Duration {
        self.origin.elapsed()
    }
}
