//! What users read: one enum of reasons, one builder of conditions, one shape of explanations.

mod conditions;
pub mod exit;
mod reason;

pub(crate) use conditions::condition;
pub use conditions::{ConditionType, Conditions, MAX_MESSAGE, Verdict, conditions};
pub use reason::{ALL_REASONS, Reason};

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};

/// `text` in at most `max` bytes, cut at a character and marked with `…`.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mark = '…';
    let mut end = max.saturating_sub(mark.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut cut = text[..end].to_owned();
    if max >= mark.len_utf8() {
        cut.push(mark);
    }
    cut
}

/// Status times are whole seconds, as Kubernetes writes its own: rounded down, so that no time lies in the future.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    time.round(TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor)).unwrap_or(time)
}

/// A number of seconds as a duration; negative numbers count as none.
pub fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n.max(0))
}

/// `time` later by `by`, or the end of time.
pub fn after(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}
