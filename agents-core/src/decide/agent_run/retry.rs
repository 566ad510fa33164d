//! When the next attempt may start, and when none may.

use jiff::Timestamp;

use super::outcome::Outcome;
use crate::{
    api::{
        AgentRun, Resource,
        agent_run::{Attempt, Phase},
    },
    resolve::terms::Terms,
    status::after,
};

/// When the attempt after `outcome` of attempt `number` starts.
///
/// # Errors
/// None follows; the text says why when it is not simply the last one.
pub(super) fn next(
    terms: &Terms,
    number: i32,
    outcome: &Outcome,
    started: Option<Timestamp>,
) -> Result<Timestamp, Option<String>> {
    let limit = terms.retry_limit;
    if number > limit {
        return Err((limit > 0).then(|| format!("attempt {number} of {} was the last", limit + 1)));
    }
    if !outcome.reason.is_retryable() {
        return Err(None);
    }
    let start = after(outcome.finished_at, terms.backoff(number));
    match started.and_then(|started| terms.deadline(started)) {
        Some(over) if start >= over => Err(Some("no time is left for another attempt".to_owned())),
        _ => Ok(start),
    }
}

/// When the attempt after the finished attempt `last` starts; counted from its end, whenever it is looked at.
pub(super) fn start_of_next(run: &Resource<AgentRun>, last: &Attempt) -> Option<Timestamp> {
    let finished = last.finished_at?;
    (last.phase != Some(Phase::Succeeded)).then(|| after(finished, Terms::of(run, None).backoff(last.number)))
}
