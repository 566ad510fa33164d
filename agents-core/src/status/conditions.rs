//! The one builder of conditions: a truth table from what the run is to what every condition says.

use jiff::Timestamp;

use super::{Reason, cut, whole_seconds};
use crate::api::common::{Condition, ConditionStatus};

/// Longest message of a condition, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// Every condition type of a run, in the order they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Delivered; for a template, usable.
    Ready,
    /// The spec was understood.
    Accepted,
    /// The spec can never become right.
    InvalidSpec,
    /// Something is awaited.
    Blocked,
    /// Work is under way.
    InProgress,
    /// Delivered.
    Succeeded,
    /// Ended without delivering.
    Failed,
    /// Ended because its user asked.
    Cancelled,
    /// Nothing more will happen, and it is not ready.
    Stalled,
    /// Something deserves attention and stops nothing.
    Warning,
}

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::Accepted,
        Self::InvalidSpec,
        Self::Blocked,
        Self::InProgress,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Stalled,
        Self::Warning,
    ];

    /// The type as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Accepted => "Accepted",
            Self::InvalidSpec => "InvalidSpec",
            Self::Blocked => "Blocked",
            Self::InProgress => "InProgress",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Stalled => "Stalled",
            Self::Warning => "Warning",
        }
    }
}

/// What a run is, as far as conditions tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never executed.
    Template,
    /// Not started, nothing in the way.
    Pending,
    /// Not started, something in the way.
    PendingBlocked,
    /// A provider has started.
    Running,
    /// A provider has started, and something is awaited before the next attempt.
    RunningBlocked,
    /// Delivered.
    Succeeded,
    /// Ended without delivering.
    Failed,
    /// The spec can never become right.
    InvalidSpec,
    /// Ended because its user asked.
    Cancelled,
}

impl Verdict {
    fn truth(self, condition: ConditionType) -> ConditionStatus {
        use ConditionStatus::{False, True, Unknown};
        use ConditionType as C;
        match (self, condition) {
            (Self::Template | Self::Succeeded, C::Ready)
            | (
                Self::Template
                | Self::Pending
                | Self::PendingBlocked
                | Self::Running
                | Self::RunningBlocked
                | Self::Succeeded
                | Self::Failed
                | Self::Cancelled,
                C::Accepted,
            )
            | (Self::InvalidSpec, C::InvalidSpec | C::Failed | C::Stalled)
            | (Self::PendingBlocked | Self::RunningBlocked, C::Blocked)
            | (Self::Pending | Self::Running | Self::RunningBlocked, C::InProgress)
            | (Self::Succeeded, C::Succeeded)
            | (Self::Failed, C::Failed | C::Stalled)
            | (Self::Cancelled, C::Cancelled | C::Stalled) => True,
            (Self::Pending | Self::PendingBlocked | Self::Running | Self::RunningBlocked, C::Ready | C::Succeeded)
            | (Self::Template, C::Succeeded) => Unknown,
            (
                Self::Template
                | Self::Pending
                | Self::PendingBlocked
                | Self::Running
                | Self::RunningBlocked
                | Self::Succeeded
                | Self::Failed
                | Self::InvalidSpec
                | Self::Cancelled,
                C::Ready
                | C::Accepted
                | C::InvalidSpec
                | C::Blocked
                | C::InProgress
                | C::Succeeded
                | C::Failed
                | C::Cancelled
                | C::Stalled
                | C::Warning,
            ) => False,
        }
    }
}

/// What the conditions are built from.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// What the run is.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: &'a str,
    /// Something that deserves attention and stops nothing.
    pub warning: Option<(Reason, &'a str)>,
    /// Generation of the spec it was judged on.
    pub generation: Option<i64>,
}

/// The whole list of conditions, always all of them. A transition time moves only when its status does.
pub fn conditions(from: &Conditions<'_>, previous: &[Condition], now: Timestamp) -> Vec<Condition> {
    let Conditions { verdict, reason, message, warning, generation } = *from;
    ConditionType::ALL
        .into_iter()
        .map(|kind| {
            let (status, reason, message) = match (kind, warning) {
                (ConditionType::Warning, Some((reason, message))) => (ConditionStatus::True, reason, message),
                (ConditionType::Warning, None) => (ConditionStatus::False, Reason::AsExpected, ""),
                // A type that says nothing about this run has nothing to explain.
                (ConditionType::InvalidSpec | ConditionType::Blocked | ConditionType::Cancelled, _)
                    if verdict.truth(kind) == ConditionStatus::False =>
                {
                    (ConditionStatus::False, Reason::AsExpected, "")
                }
                _ => (verdict.truth(kind), reason, message),
            };
            condition((kind, status, reason, message), generation, previous, now)
        })
        .collect()
}

/// One condition. Its transition time moves only when its status does.
pub(crate) fn condition(
    (kind, status, reason, message): (ConditionType, ConditionStatus, Reason, &str),
    generation: Option<i64>,
    previous: &[Condition],
    now: Timestamp,
) -> Condition {
    let since = previous
        .iter()
        .find(|old| old.kind == kind.as_str() && old.status == status)
        .map_or_else(|| whole_seconds(now), |old| old.last_transition_time);
    Condition {
        kind: kind.as_str().to_owned(),
        status,
        reason: reason.as_str().to_owned(),
        message: cut(message, MAX_MESSAGE),
        last_transition_time: since,
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    const VERDICTS: [Verdict; 9] = [
        Verdict::Template,
        Verdict::Pending,
        Verdict::PendingBlocked,
        Verdict::Running,
        Verdict::RunningBlocked,
        Verdict::Succeeded,
        Verdict::Failed,
        Verdict::InvalidSpec,
        Verdict::Cancelled,
    ];

    fn build(verdict: Verdict, previous: &[Condition], now: Timestamp) -> Vec<Condition> {
        let from = Conditions { verdict, reason: Reason::AsExpected, message: "m", warning: None, generation: Some(3) };
        conditions(&from, previous, now)
    }

    fn row(verdict: Verdict) -> String {
        build(verdict, &[], Timestamp::UNIX_EPOCH)
            .iter()
            .filter(|c| c.kind != "Warning")
            .map(|c| match c.status {
                ConditionStatus::True => 'T',
                ConditionStatus::False => '-',
                ConditionStatus::Unknown => '?',
            })
            .collect()
    }

    #[test]
    fn the_table_is_the_one_kubectl_wait_and_kstatus_need() {
        // Ready Accepted InvalidSpec Blocked InProgress Succeeded Failed Cancelled Stalled
        assert_eq!(row(Verdict::Pending), "?T--T?---");
        assert_eq!(row(Verdict::PendingBlocked), "?T-T-?---");
        assert_eq!(row(Verdict::Running), "?T--T?---");
        assert_eq!(row(Verdict::RunningBlocked), "?T-TT?---");
        assert_eq!(row(Verdict::Succeeded), "TT---T---");
        assert_eq!(row(Verdict::Failed), "-T----T-T");
        assert_eq!(row(Verdict::InvalidSpec), "--T---T-T");
        assert_eq!(row(Verdict::Cancelled), "-T-----TT");
        assert_eq!(row(Verdict::Template), "TT---?---");
    }

    proptest! {
        #[test]
        fn a_transition_time_moves_only_with_its_status(a in 0usize..9, b in 0usize..9, later in 1i64..100_000) {
            let first = build(VERDICTS[a], &[], Timestamp::UNIX_EPOCH);
            let now = Timestamp::UNIX_EPOCH.checked_add(SignedDuration::from_secs(later)).unwrap();
            let second = build(VERDICTS[b], &first, now);
            prop_assert_eq!(second.len(), ConditionType::ALL.len());
            for (old, new) in first.iter().zip(&second) {
                prop_assert_eq!(&old.kind, &new.kind);
                let expected = if old.status == new.status { Timestamp::UNIX_EPOCH } else { now };
                prop_assert_eq!(new.last_transition_time, expected);
            }
        }
    }
}
