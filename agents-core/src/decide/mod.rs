//! Every decision, as a pure function from a snapshot to a [`Plan`].
//!
//! A Plan is effects to perform before the status write (creating ones: the deterministic name is their record), the
//! whole status to store, effects after it (destructive ones: the status has recorded the intent), and when to look
//! again. The same snapshot and the same `now` always give the same Plan.

pub mod agent_run;
pub mod declaration;
pub mod rules;
mod signal;
mod signal_delivery;
pub mod unreadable;

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    name::SubmissionKey,
    runtime::{RuntimeRef, Submission},
    status::Reason,
};

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<S> {
    /// What must be read consistently before anything is decided. When it asks for more than the snapshot has, nothing
    /// else of the Plan is set.
    pub confirm: Confirm,
    /// Performed in order before the status is stored.
    pub before: Vec<Effect>,
    /// The whole status to store; absent when the stored one is right.
    pub status: Option<Box<S>>,
    /// Performed in order after the status is stored.
    pub after: Vec<Effect>,
    /// When to decide again although nothing changed.
    pub wake: Option<Timestamp>,
}

impl<S> Plan<S> {
    /// Nothing to do.
    pub fn settled() -> Self {
        Self { confirm: Confirm::default(), before: vec![], status: None, after: vec![], wake: None }
    }

    /// The same with another form of the status.
    pub fn map<T>(self, form: impl FnOnce(S) -> T) -> Plan<T> {
        let Self { confirm, before, status, after, wake } = self;
        Plan { confirm, before, status: status.map(|status| Box::new(form(*status))), after, wake }
    }

    /// Nothing to do before these facts are read consistently.
    pub fn confirm(confirm: Confirm) -> Self {
        Self { confirm, ..Self::settled() }
    }
}

/// Facts that are read consistently, instead of from a cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confirm {
    /// The object itself.
    pub object: bool,
    /// What its runtimes say of these submissions.
    pub submissions: BTreeSet<SubmissionKey>,
    /// All of the object and of what it refers to, also what caches leave out ([`crate::kept`]).
    pub whole: bool,
}

impl Confirm {
    /// The object itself.
    pub fn object() -> Self {
        Self { object: true, ..Self::default() }
    }

    /// What its runtime says of one submission.
    pub fn submission(key: SubmissionKey) -> Self {
        Self { submissions: [key].into(), ..Self::default() }
    }

    /// All of it.
    pub fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// Whether it asks for nothing.
    pub fn is_nothing(&self) -> bool {
        let Self { object, submissions, whole } = self;
        !object && submissions.is_empty() && !whole
    }

    /// Both sets together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let Self { object, submissions, whole } = other;
        self.submissions.extend(submissions);
        Self { object: self.object || object, submissions: self.submissions, whole: self.whole || whole }
    }

    /// Whether every fact of `other` is in this set.
    pub fn covers(&self, other: &Self) -> bool {
        let Self { object, submissions, whole } = other;
        (self.object || !object) && self.submissions.is_superset(submissions) && (self.whole || !whole)
    }
}

/// An effect on the world. Each variant's comment names the record that lets a restart recover it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Starts an attempt.
    ///
    /// Record: the deterministic name of what is created, computed from (uid, step, iteration, attempt). A restart
    /// submits again and finds it.
    Submit(Box<Submission>),
    /// Ends a submission, gracefully and then by force.
    ///
    /// Record: `status.attempts[].stopping`, stored before. A restart reads it and cancels again until nothing is left.
    Cancel {
        /// What to end.
        reference: RuntimeRef,
        /// Time to end by itself, in seconds.
        grace_seconds: u64,
    },
    /// Keeps what is left of a submission from being collected, because its end could not be recorded yet.
    ///
    /// Record: the submission itself, which stays until [`Effect::LetGo`] or until its run goes. A restart finds it.
    Keep {
        /// What to keep.
        reference: RuntimeRef,
    },
    /// Lets what was kept be collected after its usual time again.
    ///
    /// Record: the status says what became of it, stored before. A restart that finds what is kept of an attempt that is
    /// recorded lets it go.
    LetGo {
        /// What to let go.
        reference: RuntimeRef,
    },
    /// Tells people; may be dropped.
    ///
    /// Record: none is needed, since the status says the same.
    Emit(Notice),
}

/// The variants of [`Effect`], so that a test can enumerate them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectKind {
    /// [`Effect::Submit`].
    Submit,
    /// [`Effect::Cancel`].
    Cancel,
    /// [`Effect::Keep`].
    Keep,
    /// [`Effect::LetGo`].
    LetGo,
    /// [`Effect::Emit`].
    Emit,
}

impl EffectKind {
    /// Every variant.
    pub const ALL: [Self; 5] = [Self::Submit, Self::Cancel, Self::Keep, Self::LetGo, Self::Emit];
}

impl Effect {
    /// The submission that it starts, whose refusal is decided upon.
    pub fn submission(&self) -> Option<&SubmissionKey> {
        match self {
            Self::Submit(submission) => Some(&submission.key),
            Self::Cancel { .. } | Self::Keep { .. } | Self::LetGo { .. } | Self::Emit(_) => None,
        }
    }

    /// Which variant it is.
    pub fn kind(&self) -> EffectKind {
        match self {
            Self::Submit(_) => EffectKind::Submit,
            Self::Cancel { .. } => EffectKind::Cancel,
            Self::Keep { .. } => EffectKind::Keep,
            Self::LetGo { .. } => EffectKind::LetGo,
            Self::Emit(_) => EffectKind::Emit,
        }
    }
}

/// An Event for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is a warning.
    pub warning: bool,
    /// What happened, in one word.
    pub reason: Reason,
    /// What happened, for people.
    pub message: String,
}

/// A submission that the world refused in a way that a repetition does not cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub submission: SubmissionKey,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Whether it can never succeed.
    pub terminal: bool,
}
