//! Keeps a manager at work: one that ends without being asked is followed by another in the same process.
//!
//! A process may look after many namespaces, each by a manager of its own. What ends one of them, such as a lease that
//! another took or a panic, is no reason to leave the runs of the others alone.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::manager::{Health, Manager};

/// Wait before the first successor; each further one waits twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A manager that worked for this long is followed after the first wait again.
const WORKED: Duration = Duration::from_secs(600);

/// How the manager that works now is doing.
#[derive(Debug, Clone)]
pub struct Current(Arc<RwLock<Health>>);

impl Current {
    /// Its health.
    pub fn health(&self) -> Health {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, health: Health) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = health;
    }
}

/// Runs one manager after another.
///
/// # Guarantees
/// At most one of its managers runs at a time, and dropping [`Keeper::run`] drops it.
pub struct Keeper<F> {
    make: F,
    name: String,
    first: Manager,
    current: Current,
}

impl<F> fmt::Debug for Keeper<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F: Fn(u32) -> Manager> Keeper<F> {
    /// `make` puts the n-th manager together, from 0, each with an identity of its own. `name` is for the log.
    pub fn new(name: impl Into<String>, make: F) -> Self {
        let first = make(0);
        let current = Current(Arc::new(RwLock::new(first.health())));
        Self { make, name: name.into(), first, current }
    }

    /// A handle for health pages.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Works until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { make, name, first, current } = self;
        let (mut manager, mut wait) = (first, FIRST_WAIT);
        for number in 1.. {
            let began = Instant::now();
            // A task of its own, so that a panic ends it and nothing else.
            let mut task = JoinSet::new();
            task.spawn(manager.run(shutdown.clone()));
            let why = match task.join_next().await {
                None | Some(Ok(Ok(()))) => return,
                Some(Ok(Err(error))) => error.to_string(),
                Some(Err(error)) => error.to_string(),
            };
            if began.elapsed() >= WORKED {
                wait = FIRST_WAIT;
            }
            tracing::error!(runs = name, why, ?wait, "the controller of these runs ended and begins anew");
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = time::sleep(wait) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
            manager = make(number);
            current.set(manager.health());
        }
    }
}
