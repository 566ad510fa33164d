//! The waits that an API server has asked a client for with 429, and which calls they hold back.
//!
//! Such an answer says nothing of whom it is meant for: mostly it is the whole client, so the whole client waits. What
//! nothing depends on is set apart, since a limit of its own, such as one on the Events of a namespace, is no reason for
//! work to stand still.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a call is to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Waits for, and holds back, the whole client.
    Usual,
    /// Waits for the whole client and holds back none but its like, in its namespace.
    Optional,
    /// Neither waits nor holds anything back.
    Regardless,
}

/// Until when nothing is sent, in boot time.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Until>);

#[derive(Debug, Default)]
struct Until {
    whole: Duration,
    /// Of optional calls, by namespace; those that are over are left out when another comes.
    optional: BTreeMap<String, Duration>,
}

impl Waits {
    /// What is left at `now` of the waits that hold a call in `namespace` back.
    pub(super) fn left(&self, standing: Standing, namespace: &str, now: Duration) -> Duration {
        let until = self.until();
        let own = || until.optional.get(namespace).copied().unwrap_or_default();
        let until = match standing {
            Standing::Usual => until.whole,
            Standing::Optional => until.whole.max(own()),
            Standing::Regardless => Duration::ZERO,
        };
        until.saturating_sub(now)
    }

    /// Takes in that the answer to a call in `namespace` asks for `wait`; whether the whole client begins to wait by it.
    pub(super) fn asked(&self, standing: Standing, namespace: &str, now: Duration, wait: Duration) -> bool {
        let mut until = self.until();
        let end = now.saturating_add(wait);
        match standing {
            Standing::Usual => {
                let began = until.whole < now;
                until.whole = until.whole.max(end);
                began
            }
            Standing::Optional => {
                until.optional.retain(|_, until| *until > now);
                let known = until.optional.entry(namespace.to_owned()).or_default();
                *known = end.max(*known);
                false
            }
            Standing::Regardless => false,
        }
    }

    /// Nothing is left half done under this lock.
    fn until(&self) -> MutexGuard<'_, Until> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
