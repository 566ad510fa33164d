//! What the files and processes of a submission mean. Pure.

use agents_core::{
    report::{Ended, Report},
    runtime::{Finish, Observation},
    status::Reason,
};
use jiff::Timestamp;

use super::folder::{Broken, Cancelled, Claim, ReportFile, Started};

/// Everything that is known of a claimed submission, read in this order: a runner seen ended has written its report.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    pub(super) claim: Claim,
    pub(super) cancelled: Option<Cancelled>,
    /// Whether the runner was sent the signal to end.
    pub(super) signalled: bool,
    pub(super) started: Option<Started>,
    pub(super) runner_alive: bool,
    pub(super) locked: bool,
    pub(super) broken: Option<Broken>,
    pub(super) report: ReportFile,
    pub(super) last_sign: Timestamp,
}

/// What they mean.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// Claimed; nothing began and nothing is about to. It may be launched.
    Claimed,
    /// A launcher is at work.
    Launching,
    /// The runner lives.
    Running(Started),
    /// The runner lives and was asked to end.
    Stopping,
    /// The runner is gone, and something it started is left.
    Leftovers(Started),
    /// Nothing runs, and nothing will.
    Ended(Box<Finish>),
}

impl Facts {
    pub(super) fn state(&self) -> State {
        let Self { claim, cancelled, signalled, started, runner_alive, locked, broken, report, last_sign } = self;
        let Some(started) = started else {
            return match (cancelled, locked) {
                (_, true) => State::Launching,
                (None, false) => State::Claimed,
                (Some(cancelled), false) => State::Ended(Box::new(Finish {
                    submitted_at: Some(claim.submitted_at),
                    started_at: None,
                    finished_at: cancelled.at,
                    uid: None,
                    exit_code: None,
                    cause: Some((Reason::Cancelled, "cancelled before it started".to_owned())),
                    report: None,
                })),
            };
        };
        if *runner_alive {
            // A wish that nobody was told of ends nothing: an engine may have died between the two.
            return if *signalled { State::Stopping } else { State::Running(started.clone()) };
        }
        let without_report = |reason: Reason, message: &str| {
            Box::new(Finish {
                submitted_at: Some(claim.submitted_at),
                started_at: Some(started.at),
                finished_at: (*last_sign).max(started.at),
                uid: None,
                exit_code: None,
                cause: Some((reason, message.to_owned())),
                report: None,
            })
        };
        // Whatever is reported: the runner ends everything else before it reports, and its own hold on the lock ended with
        // it.
        if *locked {
            return State::Leftovers(started.clone());
        }
        match report {
            ReportFile::Whole(report) => State::Ended(Box::new(Finish {
                submitted_at: Some(claim.submitted_at),
                started_at: Some(started.at),
                finished_at: report.finished_at,
                uid: None,
                exit_code: Some(exit_code(report)),
                cause: None,
                report: Some((**report).clone()),
            })),
            ReportFile::Unusable(why) => State::Ended(without_report(Reason::ReportLost, why)),
            ReportFile::Absent => State::Ended(match (broken, cancelled) {
                (Some(Broken { message }), _) => {
                    Box::new(Finish { started_at: None, ..*without_report(Reason::StartFailed, message) })
                }
                (None, Some(_)) => without_report(Reason::Cancelled, "ended by force, without a report"),
                (None, None) => without_report(
                    Reason::Lost,
                    "the runner ended without a report: it was killed, or the machine restarted",
                ),
            }),
        }
    }
}

impl State {
    pub(super) fn observation(self, claim: &Claim) -> Observation {
        let submitted_at = claim.submitted_at;
        match self {
            // Nothing of it exists or ever did: submitting again is what starts it.
            Self::Claimed => Observation::Lost,
            Self::Launching => Observation::Pending { submitted_at, uid: None, cause: None },
            Self::Running(started) => Observation::Running { submitted_at, started_at: started.at, uid: None },
            Self::Stopping | Self::Leftovers(_) => Observation::Stopping,
            Self::Ended(finish) => Observation::Finished(finish),
        }
    }
}

/// The runner's own exit code follows from its report: whoever observes it may not be its parent.
fn exit_code(report: &Report) -> i32 {
    match (report.status, report.exit_code, report.signal) {
        (Ended::Succeeded, _, _) => 0,
        (_, Some(code), _) if code != 0 => code,
        (_, _, Some(signal)) => 128_i32.saturating_add(signal),
        (Ended::Failed | Ended::Cancelled, _, None) => 70,
    }
}

#[cfg(test)]
mod tests {
    use agents_core::name::SubmissionKey;
    use proptest::prelude::*;

    use super::*;
    use crate::process::identity::ProcessIdentity;

    fn facts(bits: u8, report: ReportFile) -> Facts {
        let bit = |n: u8| bits & (1 << n) != 0;
        let process = ProcessIdentity { pid: 1, start_ticks: 1, boot_id: "b".into() };
        let at = Timestamp::UNIX_EPOCH;
        Facts {
            claim: Claim {
                key: SubmissionKey::of_attempt("u", 1),
                namespace: "n".into(),
                run: "r".into(),
                submitted_at: at,
                claimed_by: process.clone(),
            },
            cancelled: bit(0).then_some(Cancelled { at }),
            signalled: bit(5),
            started: bit(1).then_some(Started { process, at, proof_digest: String::new() }),
            runner_alive: bit(2),
            locked: bit(3),
            broken: bit(4).then(|| Broken { message: "m".into() }),
            report,
            last_sign: at,
        }
    }

    /// Every kind of thing that may be found where the report belongs.
    fn report_file() -> impl Strategy<Value = ReportFile> {
        let of = |status: &str| -> Report {
            serde_json::from_value(serde_json::json!({
                "schemaVersion": "1", "status": status, "provider": "p", "runUid": "u", "attempt": 1,
                "finishedAt": "2026-01-01T00:00:00Z",
            }))
            .unwrap()
        };
        let statuses = ["succeeded", "failed", "cancelled"];
        prop_oneof![
            Just(ReportFile::Absent),
            Just(ReportFile::Unusable("x".into())),
            proptest::sample::select(statuses.map(of).to_vec()).prop_map(|report| ReportFile::Whole(Box::new(report))),
        ]
    }

    proptest! {
        /// The one rule everything rests on: what may be launched has no record of a start, of a cancel or of a lock.
        #[test]
        fn only_what_never_began_may_be_launched(bits in 0u8..64, report in report_file()) {
            let facts = facts(bits, report);
            let launchable = facts.state() == State::Claimed;
            prop_assert_eq!(launchable, facts.started.is_none() && facts.cancelled.is_none() && !facts.locked);
        }

        /// Whoever wants an end waits for what is ending and cancels everything else.
        #[test]
        fn a_runner_is_called_ending_exactly_when_it_was_told(bits in 0u8..64, report in report_file()) {
            let facts = facts(bits, report);
            if facts.started.is_some() && facts.runner_alive {
                prop_assert_eq!(facts.signalled, facts.state() == State::Stopping);
            }
        }

        #[test]
        fn what_lives_is_never_called_ended(bits in 0u8..64, report in report_file()) {
            let facts = facts(bits, report);
            let live = facts.locked || (facts.started.is_some() && facts.runner_alive);
            if live {
                let claim = facts.claim.clone();
                prop_assert!(facts.state().observation(&claim).is_live());
            }
        }
    }
}
