//! What the operator lets runs do. Pure: a rule is a function of the final pod and of what the operator configured.
//!
//! One file per rule family. Rules judge the [`PodPlan`] of the plan, with every layer and default laid in, so that no way
//! of saying something escapes them. Everything is denied that no rule allows. A denial is not for good: configuration can
//! change, so the run waits.

mod service_account;

use jiff::Timestamp;

pub use self::service_account::{AccountError, ServiceAccounts};
use crate::{plan::pod::PodPlan, status::Reason};

/// What the operator configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Which service accounts the pods of runs may have.
    pub service_accounts: ServiceAccounts,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Namespace of the run.
    pub namespace: &'a str,
    /// Its pod.
    pub pod: &'a PodPlan,
    /// Service account of a run that names none.
    pub default_account: &'a str,
    /// The field that named the service account; absent where it is the default.
    pub service_account_at: Option<&'a str>,
}

/// What a rule answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may start.
    Allow,
    /// It may not, until the configuration or the objects it follows from change.
    Deny(Denial),
    /// It may not yet.
    Wait(Denial, Timestamp),
}

/// Why something may not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// What must happen.
    pub unblocked_by: String,
}

/// The answer of the first rule that does not allow it.
pub fn judge(rules: &Rules, subject: Subject<'_>) -> Verdict {
    let Rules { service_accounts } = rules;
    service_accounts.judge(subject)
}
