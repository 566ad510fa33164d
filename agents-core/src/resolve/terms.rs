//! How long a run may take, how often it is tried and on what: its own words over its Agent's, over the defaults.
//!
//! The one place where these are put together; they count from the moment a run is stored, before everything that it
//! refers to is there.

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{Agent, AgentRun, Resource, runtime::RuntimeKind},
    status::{after, seconds},
};

/// Wait before the second attempt when nothing else is said, in seconds.
pub const DEFAULT_BACKOFF_SECONDS: i64 = 10;
/// Longest wait between two attempts that doubling leads to, in seconds.
const MAX_BACKOFF_SECONDS: i64 = 3600;
/// Most attempts besides the first.
const MAX_RETRIES: i32 = 100;

/// The terms of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Wall time from the first start over all attempts, in seconds.
    pub timeout_seconds: Option<i64>,
    /// Attempts besides the first.
    pub retry_limit: i32,
    /// Wait before the second attempt, in seconds; only the run itself says it.
    pub backoff_seconds: i64,
    /// Runtime, when the run or its Agent names one.
    pub runtime: Option<RuntimeKind>,
}

impl Terms {
    /// The terms of `run`; while its Agent is not there, what it says itself.
    pub fn of(run: &Resource<AgentRun>, agent: Option<&Resource<Agent>>) -> Self {
        let defaults = agent.and_then(|agent| agent.spec.defaults.as_ref());
        let retry = run.spec.retry_policy.unwrap_or_default();
        let of_agent = agent.and_then(|agent| agent.spec.runtime.as_ref());
        Self {
            timeout_seconds: run
                .spec
                .timeout_seconds
                .or(defaults.and_then(|defaults| defaults.timeout_seconds))
                .filter(|seconds| *seconds > 0),
            retry_limit: retry
                .limit
                .or(defaults.and_then(|defaults| defaults.retry_limit))
                .unwrap_or(0)
                .clamp(0, MAX_RETRIES),
            backoff_seconds: retry.backoff_seconds.unwrap_or(DEFAULT_BACKOFF_SECONDS).max(0),
            runtime: [run.spec.runtime.as_ref(), of_agent].into_iter().flatten().find_map(|runtime| runtime.kind),
        }
    }

    /// When the time is over of a run whose first attempt started then.
    pub fn deadline(&self, started: Timestamp) -> Option<Timestamp> {
        Some(after(started, seconds(self.timeout_seconds?)))
    }

    /// The wait after attempt `number`: doubled for each, up to one hour or the wait asked for.
    pub fn backoff(&self, number: i32) -> SignedDuration {
        let first = self.backoff_seconds;
        let doublings = u32::try_from(number.saturating_sub(1).clamp(0, 30)).unwrap_or(0);
        seconds(first.saturating_mul(1_i64 << doublings).min(MAX_BACKOFF_SECONDS.max(first)))
    }
}
