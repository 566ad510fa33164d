//! When the next attempt may start, and when none may.

use jiff::{SignedDuration, Timestamp};

use super::outcome::Outcome;
use crate::{
    api::{
        AgentRun, Resource,
        agent::AgentDefaults,
        agent_run::{Attempt, Phase},
    },
    resolve::{DEFAULT_BACKOFF_SECONDS, Found, References},
    status::{after, seconds},
};

/// Longest wait between two attempts that doubling leads to, in seconds.
const MAX_BACKOFF_SECONDS: i64 = 3600;

fn defaults(references: &References) -> Option<&AgentDefaults> {
    match &references.agent {
        Found::Object(agent) => agent.spec.defaults.as_ref(),
        Found::Absent | Found::Unreadable(_) => None,
    }
}

/// When the run's time is over: its timeout counts from the first start over all attempts.
pub(super) fn deadline(
    run: &Resource<AgentRun>,
    references: &References,
    started: Option<Timestamp>,
) -> Option<Timestamp> {
    let of_agent = || defaults(references)?.timeout_seconds;
    let timeout = run.spec.timeout_seconds.or_else(of_agent).filter(|seconds| *seconds > 0)?;
    Some(after(started?, seconds(timeout)))
}

fn limit(run: &Resource<AgentRun>, references: &References) -> i32 {
    let of_run = run.spec.retry_policy.and_then(|policy| policy.limit);
    of_run.or_else(|| defaults(references)?.retry_limit).unwrap_or(0).clamp(0, 100)
}

/// The wait after attempt `number`: doubled for each, up to one hour or the wait asked for.
pub(super) fn backoff(run: &Resource<AgentRun>, number: i32) -> SignedDuration {
    let first =
        run.spec.retry_policy.and_then(|policy| policy.backoff_seconds).unwrap_or(DEFAULT_BACKOFF_SECONDS).max(0);
    let doublings = u32::try_from(number.saturating_sub(1).clamp(0, 30)).unwrap_or(0);
    seconds(first.saturating_mul(1_i64 << doublings).min(MAX_BACKOFF_SECONDS.max(first)))
}

/// When the attempt after `outcome` of attempt `number` starts.
///
/// # Errors
/// None follows; the text says why when it is not simply the last one.
pub(super) fn next(
    run: &Resource<AgentRun>,
    references: &References,
    number: i32,
    outcome: &Outcome,
    started: Option<Timestamp>,
) -> Result<Timestamp, Option<String>> {
    let limit = limit(run, references);
    if number > limit {
        return Err((limit > 0).then(|| format!("attempt {number} of {} was the last", limit + 1)));
    }
    if !outcome.reason.is_retryable() {
        return Err(None);
    }
    let start = after(outcome.finished_at, backoff(run, number));
    match deadline(run, references, started) {
        Some(over) if start >= over => Err(Some("no time is left for another attempt".to_owned())),
        _ => Ok(start),
    }
}

/// When the attempt after the finished attempt `last` starts; counted from its end, whenever it is looked at.
pub(super) fn start_of_next(run: &Resource<AgentRun>, last: &Attempt) -> Option<Timestamp> {
    let finished = last.finished_at?;
    (last.phase != Some(Phase::Succeeded)).then(|| after(finished, backoff(run, last.number)))
}
