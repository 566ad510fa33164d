//! What does not succeed for the moment and is tried again: which, since when, and when it is given up. Pure.
//!
//! A person waits for the end of the command, so nothing is tried for ever. Time counts only while it could be that
//! nothing changes any more: not while the attempt itself still runs, and for a start not while anything of any run does,
//! whose end may make room.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agents_core::{api::AgentRunStatus, id::Id};
use tokio::time::Instant;

use super::world::title;

/// How long a status is tried to be stored when nothing of the run lives any more.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(20);
/// How long an attempt is tried to be started or looked at when nothing of any run lives.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);

/// What is tried again.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// An attempt cannot be looked at.
    Look,
    /// An attempt cannot be started.
    Start,
    /// A status cannot be stored: this one, of a run.
    Store(Option<Box<AgentRunStatus>>),
}

impl What {
    fn is_same(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Look, Self::Look) | (Self::Start, Self::Start) | (Self::Store(_), Self::Store(_))
        )
    }

    fn limit(&self) -> Duration {
        match self {
            Self::Look | Self::Start => START_LIMIT,
            Self::Store(_) => STORE_LIMIT,
        }
    }

    fn problem(&self) -> &'static str {
        match self {
            Self::Look => "its attempt cannot be looked at",
            Self::Start => "its attempt cannot be started",
            Self::Store(_) => "its status cannot be stored",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Trouble {
    what: What,
    message: String,
    since: Instant,
}

/// Everything that is tried again.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    of: BTreeMap<Id, Trouble>,
    live: BTreeSet<Id>,
    /// What was said once and holds for many runs.
    told: BTreeSet<String>,
    given_up: BTreeSet<Id>,
}

impl Troubles {
    /// Notes a failure; what to say, the first time that it is met.
    pub(super) fn note(&mut self, id: &Id, what: What, message: &str, now: Instant) -> Option<String> {
        let since = self.of.get(id).filter(|known| known.what.is_same(&what)).map_or(now, |known| known.since);
        let (problem, limit) = (what.problem(), what.limit().as_secs());
        self.of.insert(id.clone(), Trouble { what, message: message.to_owned(), since });
        let is_news = self.told.insert(format!("{problem}: {message}"));
        is_news.then(|| {
            format!("{}: {problem}: {message}; it is tried again, for {limit} s when nothing runs any more", title(id))
        })
    }

    /// Notes that it succeeded after all.
    pub(super) fn over(&mut self, id: &Id, what: &What) {
        if self.of.get(id).is_some_and(|known| known.what.is_same(what)) {
            self.of.remove(id);
        }
    }

    /// Notes whether something of a run lives.
    pub(super) fn seen(&mut self, id: &Id, is_live: bool, now: Instant) {
        if is_live {
            self.live.insert(id.clone());
        } else {
            self.live.remove(id);
        }
        let any = !self.live.is_empty();
        for (other, trouble) in &mut self.of {
            let counts = match trouble.what {
                What::Look | What::Start => !any,
                What::Store(_) => !(is_live && other == id),
            };
            if !counts {
                trouble.since = now;
            }
        }
    }

    /// Gives up what was tried for long enough.
    pub(super) fn give_up(&mut self, now: Instant) {
        for (id, trouble) in &self.of {
            if now.saturating_duration_since(trouble.since) >= trouble.what.limit() {
                self.given_up.insert(id.clone());
            }
        }
    }

    /// Gives a run up at once.
    pub(super) fn give_up_now(&mut self, id: &Id) {
        self.given_up.insert(id.clone());
    }

    /// Whether the run is no longer waited for.
    pub(super) fn is_given_up(&self, id: &Id) -> bool {
        self.given_up.contains(id)
    }

    /// The status of a run that could not be stored, and for one that was given up what to say of it.
    pub(super) fn left(&self, id: &Id) -> (Option<AgentRunStatus>, Option<String>) {
        let is_given_up = self.is_given_up(id);
        match self.of.get(id) {
            None if is_given_up => (None, Some("it was given up before its end was known".to_owned())),
            None => (None, None),
            Some(Trouble { what, message, since: _ }) => {
                let text = is_given_up.then(|| format!("{}: {message}", what.problem()));
                match what {
                    What::Store(Some(status)) => (Some((**status).clone()), text),
                    What::Look | What::Start | What::Store(None) => (None, text),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use agents_core::{
        api::{AgentRun, Kind as _},
        id::Key,
    };

    use super::*;

    fn name(text: &str) -> Id {
        Id::new(AgentRun::KIND, Key::new("n", text))
    }

    #[test]
    fn the_first_failure_is_told_at_once_and_each_cause_once() {
        let (mut troubles, now) = (Troubles::default(), Instant::now());
        let store = || What::Store(None);
        assert!(
            troubles
                .note(&name("a"), store(), "full", now)
                .unwrap()
                .starts_with("a: its status cannot be stored: full;")
        );
        assert_eq!(troubles.note(&name("a"), store(), "full", now), None);
        assert_eq!(troubles.note(&name("b"), store(), "full", now), None);
        assert!(troubles.note(&name("b"), store(), "no right", now).is_some());
        assert!(troubles.note(&name("b"), What::Start, "full", now).is_some());
    }

    #[test]
    fn it_is_given_up_after_its_time_and_not_while_something_lives() {
        let (mut troubles, begin) = (Troubles::default(), Instant::now());
        let (a, b) = (name("a"), name("b"));
        troubles.note(&a, What::Store(None), "full", begin);
        troubles.note(&b, What::Start, "no descriptors", begin);
        troubles.seen(&a, true, begin + STORE_LIMIT * 5);
        troubles.give_up(begin + STORE_LIMIT * 5);
        assert!(!troubles.is_given_up(&a) && !troubles.is_given_up(&b));
        troubles.seen(&a, false, begin + STORE_LIMIT * 5);
        troubles.give_up(begin + STORE_LIMIT * 6);
        assert!(troubles.is_given_up(&a) && !troubles.is_given_up(&b));
        assert!(troubles.left(&a).1.unwrap().contains("full"));
        troubles.over(&b, &What::Start);
        troubles.give_up(begin + START_LIMIT * 100);
        assert!(!troubles.is_given_up(&b));
    }
}
