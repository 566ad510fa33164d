//! One submission: what is known of it, and the one table that says which step comes next.
//!
//! A run folds over its submissions; whatever they are the attempts of, each goes through this table by itself, and the table
//! knows no run. The columns are what is recorded of it, the rows what is seen of it:
//!
//! | | nothing | handed over here | under way | being ended |
//! |---|---|---|---|---|
//! | something of its name, in doubt | hold | hold | hold | hold |
//! | nothing, by a cache | start | confirm | confirm | confirm |
//! | nothing, by its runtime | start | lost | lost | stopped |
//! | its end without a word, by a cache | confirm | confirm | confirm | stopped |
//! | its end | judge | judge | judge | stopped |
//! | that it lives, as it should | follow | follow | follow | stop again |
//! | that it lives, and should not | stop | stop | stop | stop again |

use crate::{
    api::{agent_run::Stopping, runtime::RuntimeKind},
    runtime::{Finish, Observation, Overdue},
    status::Reason,
};

/// What is known of a submission besides what the status has recorded of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// What the runtime says.
    pub observation: Observation,
    /// Whether it was read from the runtime itself just now, rather than from a cache.
    pub consistent: bool,
    /// Whether it stays until it is let go ([`crate::decide::Effect::Keep`]), rather than for its usual time after its
    /// end.
    pub kept: bool,
    /// When it lives although its end was asked for: when that was due.
    pub overdue: Option<Overdue>,
    /// What stands under its name and may be it, when that cannot be told now, and why.
    pub in_doubt: Option<String>,
    /// Where it was found when it was not where [`super::current_ref`] says: its Agent may have been given another runtime
    /// before it was recorded.
    pub found_on: Option<RuntimeKind>,
    /// Whether this engine handed it over, or saw it: when it is not seen any more, it is gone.
    pub handed_over: bool,
    /// Digest of the plan that this engine handed over as it.
    pub plan_digest: Option<String>,
}

impl Sighting {
    /// What the runtime itself has just said, and nothing besides.
    pub fn certain(observation: Observation) -> Self {
        Self { consistent: true, ..Self::cached(observation) }
    }

    /// What a cache says, and nothing besides.
    pub const fn cached(observation: Observation) -> Self {
        Self {
            observation,
            consistent: false,
            kept: false,
            overdue: None,
            in_doubt: None,
            found_on: None,
            handed_over: false,
            plan_digest: None,
        }
    }

    /// What the table reads of it. `unwanted` says why what lives should end.
    pub(super) fn seen(&self, unwanted: impl FnOnce() -> Option<Unwanted>) -> Seen<'_> {
        if let Some(doubt) = &self.in_doubt {
            return Seen::InDoubt(doubt);
        }
        match &self.observation {
            Observation::Lost => Seen::Nothing { consistent: self.consistent },
            Observation::Finished(finish) => Seen::Ended { finish, consistent: self.consistent },
            Observation::Pending { .. } | Observation::Running { .. } | Observation::Stopping => {
                unwanted().map_or(Seen::Live, Seen::Unwanted)
            }
        }
    }
}

/// Why what lives should end, in one word and for people.
pub(super) type Unwanted = (Reason, String);

/// What is recorded of a submission.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Recorded<'a> {
    /// Nothing.
    Nothing,
    /// Nothing, although this engine handed it over or saw it.
    HandedOver,
    /// It is under way.
    UnderWay,
    /// It is being ended.
    Ending(&'a Stopping),
}

/// What is seen of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen<'a> {
    /// Something that may be it, and why that is not known.
    InDoubt(&'a str),
    /// Nothing.
    Nothing { consistent: bool },
    /// Its end.
    Ended { finish: &'a Finish, consistent: bool },
    /// That it lives.
    Live,
    /// That it lives, and should not.
    Unwanted(Unwanted),
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step<'a> {
    /// Nothing is started or ended beside what may be it.
    Hold(&'a str),
    /// Ask the runtime itself.
    Confirm,
    /// Hand it over, unless something is in the way.
    Start,
    /// Record what it does.
    Follow,
    /// End it: the intent is recorded first.
    Stop(Unwanted),
    /// Go on ending it.
    StopAgain(&'a Stopping),
    /// It is gone, and nobody of us ended it.
    Lost,
    /// It was ended by us.
    Stopped(&'a Stopping, Option<&'a Finish>),
    /// It ended by itself.
    Judge(&'a Finish),
}

/// The table.
pub(super) fn step<'a>(seen: Seen<'a>, recorded: Recorded<'a>) -> Step<'a> {
    use Recorded::{Ending, HandedOver, Nothing, UnderWay};
    match (seen, recorded) {
        (Seen::InDoubt(doubt), Nothing | HandedOver | UnderWay | Ending(_)) => Step::Hold(doubt),
        (Seen::Nothing { consistent: _ }, Nothing) => Step::Start,
        (Seen::Nothing { consistent: false }, HandedOver | UnderWay | Ending(_)) => Step::Confirm,
        (Seen::Nothing { consistent: true }, HandedOver | UnderWay) => Step::Lost,
        (Seen::Nothing { consistent: true }, Ending(stopping)) => Step::Stopped(stopping, None),
        (Seen::Ended { finish, consistent: _ }, Ending(stopping)) => Step::Stopped(stopping, Some(finish)),
        // Its pod may have been collected or not be in the cache yet.
        (Seen::Ended { finish, consistent: false }, Nothing | HandedOver | UnderWay) if says_nothing(finish) => {
            Step::Confirm
        }
        (Seen::Ended { finish, consistent: _ }, Nothing | HandedOver | UnderWay) => Step::Judge(finish),
        (Seen::Live, Nothing | HandedOver | UnderWay) => Step::Follow,
        (Seen::Unwanted(why), Nothing | HandedOver | UnderWay) => Step::Stop(why),
        (Seen::Live | Seen::Unwanted(_), Ending(stopping)) => Step::StopAgain(stopping),
    }
}

fn says_nothing(finish: &Finish) -> bool {
    finish.report.is_none() && finish.cause.is_none()
}
