//! How an attempt ended: the runtime's and the runner's words judged together.

use jiff::Timestamp;

use crate::{
    api::{
        AgentRun, Resource,
        agent_run::{Phase, Stopping},
    },
    report::{Ended, Report},
    runtime::{Finish, Overdue},
    status::Reason,
};

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    /// `Succeeded`, `Failed` or `Cancelled`.
    pub(super) ended: Phase,
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) submitted_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Timestamp,
    pub(super) uid: Option<String>,
    pub(super) exit_code: Option<i32>,
    pub(super) report: Option<Report>,
}

impl Outcome {
    fn bare(ended: Phase, reason: Reason, message: String, finished_at: Timestamp) -> Self {
        Self {
            ended,
            reason,
            message,
            submitted_at: None,
            started_at: None,
            finished_at,
            uid: None,
            exit_code: None,
            report: None,
        }
    }

    fn of_finish(finish: &Finish, ended: Phase, reason: Reason, message: String) -> Self {
        let Finish { submitted_at, started_at, finished_at, uid, exit_code, cause: _, report } = finish;
        Self {
            ended,
            reason,
            message,
            submitted_at: *submitted_at,
            started_at: *started_at,
            finished_at: *finished_at,
            uid: uid.clone(),
            exit_code: *exit_code,
            report: report.clone().map(Report::bounded),
        }
    }

    /// What executed the attempt is gone.
    pub(super) fn lost(now: Timestamp) -> Self {
        let message = "what executed the attempt is gone and left no result".to_owned();
        Self::bare(Phase::Failed, Reason::Lost, message, now)
    }

    /// Nobody looked after the run for longer than results are kept: it may have run and been collected.
    pub(super) fn lost_unseen(since: Timestamp, now: Timestamp) -> Self {
        let message = format!(
            "no controller ran since {since}, for longer than results are kept: the attempt may have run unseen"
        );
        Self::bare(Phase::Failed, Reason::Lost, message, now)
    }

    /// We ended it ourselves.
    pub(super) fn stopped(stopping: &Stopping, finish: Option<&Finish>, now: Timestamp) -> Self {
        let reason = Reason::parse(&stopping.reason).unwrap_or(Reason::Cancelled);
        let (ended, message) = match reason {
            Reason::Cancelled => (Phase::Cancelled, "cancelled by spec.cancel"),
            Reason::Deleted => (Phase::Cancelled, "the run is being deleted"),
            Reason::DeadlineExceeded => (Phase::Failed, "ended because its time was over"),
            _ => (Phase::Failed, "ended because it could not start in time"),
        };
        match finish {
            Some(finish) => Self::of_finish(finish, ended, reason, message.to_owned()),
            None => Self::bare(ended, reason, message.to_owned(), now),
        }
    }

    /// We wanted to end it, and the node it ran on has never said that it did.
    pub(super) fn given_up(stopping: &Stopping, overdue: &Overdue, now: Timestamp) -> Self {
        let stopped = Self::stopped(stopping, None, now);
        let Overdue { since: _, node } = overdue;
        let message =
            format!("{}; node {node} has not said that it ended, and it may still run there", stopped.message);
        Self { message, ..stopped }
    }

    /// Success needs all of it: the container's exit 0, an intact report of this attempt that says so, and every
    /// declared output.
    pub(super) fn judge(finish: &Finish, run: &Resource<AgentRun>, attempt: i32) -> Self {
        let failed = |reason, message: String| Self::of_finish(finish, Phase::Failed, reason, message);
        if let Some((reason, message)) = &finish.cause {
            return failed(*reason, message.clone());
        }
        let exit =
            finish.exit_code.map_or_else(|| "an unknown exit code".to_owned(), |code| format!("exit code {code}"));
        let report =
            finish.report.as_ref().filter(|report| report.run_uid == run.metadata.uid && report.attempt == attempt);
        let Some(report) = report else {
            return failed(Reason::ReportLost, format!("the attempt ended with {exit} and left no report"));
        };
        match report.status {
            Ended::Succeeded if finish.exit_code == Some(0) => {}
            Ended::Succeeded => {
                return failed(Reason::RunnerFailed, format!("the runner reported success and ended with {exit}"));
            }
            // Nobody of ours asked, so the place it ran in did: a drained node, a deleted pod.
            Ended::Cancelled => {
                return failed(Reason::Evicted, "the runner was told to stop by the place it ran in".to_owned());
            }
            Ended::Failed => {
                let reason = report.known_reason().unwrap_or(Reason::ProviderExited);
                let how = match (report.signal, report.exit_code) {
                    (Some(signal), _) => Some(format!("the provider was ended by signal {signal}")),
                    (None, Some(code)) => Some(format!("the provider exited with code {code}")),
                    (None, None) => None,
                };
                let message = match (report.error.clone(), how) {
                    (Some(error), Some(how)) if !error.contains(&how) && reason == Reason::ProviderExited => {
                        format!("{how}: {error}")
                    }
                    (Some(error), _) => error,
                    (None, Some(how)) => how,
                    (None, None) => format!("ended with {exit}"),
                };
                return failed(reason, message);
            }
        }
        let missing: Vec<_> = run
            .spec
            .outputs
            .iter()
            .map(|output| output.name.as_str())
            .filter(|name| !report.outputs.iter().any(|found| found.name == *name))
            .collect();
        if !missing.is_empty() && !report.truncated {
            return failed(Reason::OutputMissing, format!("declared outputs are missing: {}", missing.join(", ")));
        }
        Self::of_finish(finish, Phase::Succeeded, Reason::Completed, "the provider exited 0".to_owned())
    }
}
