//! Proof that an adapter keeps the guarantees of [`RuntimeAdapter`]; for adapters of this product and of others.
//!
//! [`run`] uses the adapter as two engines would, with submissions that a [`Fixture`] makes, and reports every broken
//! guarantee. It knows nothing of any runtime. What needs the death of a real engine process is tested beside each
//! adapter.

use std::{fmt, sync::Arc, time::Duration};

use agents_core::{
    runtime::{Finish, Observation, RuntimeRef, Submission},
    status::Reason,
};
use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::adapter::{AdapterError, AdapterErrorKind, Capabilities, Class, Grace, RuntimeAdapter};

/// How many submit the same at once.
const RACERS: usize = 8;
/// Grace of the cancels that are to work by themselves.
const GRACE: Grace = Grace(Duration::from_secs(10));

/// Time between two looks at an adapter that pushes and therefore names no interval of use.
const LOOK: Duration = Duration::from_millis(200);

/// What a submission's provider does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Ends at once with this exit code.
    Exit(i32),
    /// Runs until it gets a signal, and then ends.
    UntilSignalled,
}

/// Makes submissions for the suite and looks at the runtime from outside the adapter.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A submission with a key never used before. Its provider leaves a mark that [`Self::executions`] counts, then
    /// does `work`.
    fn submission(&self, work: Work) -> Submission;
    /// How often the submission's provider was started.
    async fn executions(&self, submission: &Submission) -> usize;
    /// Whether nothing that the submission started is left.
    async fn is_gone(&self, submission: &Submission) -> bool;
    /// An adapter on the same runtime that shares no memory with the tested one, as after a restart.
    fn restarted(&self) -> Arc<dyn RuntimeAdapter>;
    /// Puts something that is not ours in the place that the submission would take.
    async fn occupy(&self, submission: &Submission);
    /// Whether what [`Self::occupy`] put there is as it was.
    async fn is_untouched(&self, submission: &Submission) -> bool;
    /// How long the runtime may take for anything.
    fn patience(&self) -> Duration;
}

/// A guarantee that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{guarantee}: {found}")]
pub struct Violation {
    /// The guarantee.
    pub guarantee: &'static str,
    /// What was found instead.
    pub found: String,
}

/// Checks every guarantee, one after the other.
///
/// # Errors
/// Every guarantee that does not hold.
pub async fn run(adapter: &dyn RuntimeAdapter, fixture: &dyn Fixture) -> Result<(), Vec<Violation>> {
    let suite = Suite { adapter, fixture };
    let mut violations = Vec::new();
    let mut note = |guarantee: &'static str, result: Result<(), String>| {
        if let Err(found) = result {
            violations.push(Violation { guarantee, found });
        }
    };
    note("an unknown reference is Lost, and cancelling it succeeds", suite.unknown().await);
    note("an end is observed with exit code and report", suite.exit(0).await);
    note("a failure is observed with exit code and report", suite.exit(3).await);
    note("submitting twice gives one reference and one execution", suite.twice().await);
    note("submitting at once gives one reference and one execution", suite.race().await);
    note("submitting what has ended starts nothing", suite.after_the_end().await);
    note("a restarted engine finds what runs and starts nothing", suite.restart().await);
    note("cancel ends everything and can be repeated", suite.cancel().await);
    note("cancel without grace ends everything", suite.cancel_by_force().await);
    note("cancel of what has ended changes nothing", suite.cancel_after_the_end().await);
    note("a cancelled submission is never started again", suite.submit_after_cancel().await);
    note("a taken name is a Conflict, and what took it is left alone", suite.conflict().await);
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

struct Suite<'a> {
    adapter: &'a dyn RuntimeAdapter,
    fixture: &'a dyn Fixture,
}

impl Suite<'_> {
    async fn unknown(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::Exit(0));
        let reference =
            RuntimeRef::of(self.adapter.runtime(), &submission.namespace, &submission.owner.name, &submission.key);
        expect("status", &self.status(&reference).await?, &Observation::Lost)?;
        self.cancel_of(&reference, GRACE).await?;
        expect("executions", &self.fixture.executions(&submission).await, &0)
    }

    async fn exit(&self, code: i32) -> Result<(), String> {
        let submission = self.fixture.submission(Work::Exit(code));
        let reference = self.submit(&submission).await?;
        let finish = self.end(&reference).await?;
        expect("exit code", &finish.exit_code, &Some(code))?;
        let report = finish.report.ok_or("no report")?;
        expect("run of the report", &report.run_uid, &submission.key.uid)?;
        expect("attempt of the report", &report.attempt, &submission.key.attempt)?;
        expect("exit code of the report", &report.exit_code, &Some(code))?;
        if let (Some(started), finished) = (finish.started_at, finish.finished_at)
            && finished < started
        {
            return Err(format!("it ended at {finished}, before it started at {started}"));
        }
        expect("executions", &self.fixture.executions(&submission).await, &1)
    }

    async fn twice(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::UntilSignalled);
        let first = self.submit(&submission).await?;
        self.running(&first, &submission).await?;
        let second = self.submit(&submission).await?;
        expect("second reference", &second, &first)?;
        self.finish_off(&first, &submission).await
    }

    async fn race(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::UntilSignalled);
        let others: Vec<_> = (1..RACERS).map(|_| self.fixture.restarted()).collect();
        let racers = others.iter().map(|other| other.submit(&submission));
        let (first, rest) = tokio::join!(self.adapter.submit(&submission), join_all(racers));
        let first = first.map_err(failed("submit"))?;
        for reference in rest {
            expect("reference of another", &reference.map_err(failed("submit"))?, &first)?;
        }
        self.running(&first, &submission).await?;
        self.finish_off(&first, &submission).await
    }

    async fn after_the_end(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::Exit(0));
        let first = self.submit(&submission).await?;
        let end = self.end(&first).await?;
        let second = self.submit(&submission).await?;
        expect("second reference", &second, &first)?;
        expect("end", &self.end(&first).await?, &end)?;
        expect("executions", &self.fixture.executions(&submission).await, &1)
    }

    async fn restart(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::UntilSignalled);
        let first = self.submit(&submission).await?;
        self.running(&first, &submission).await?;
        let restarted = self.fixture.restarted();
        let seen = restarted.status(&first).await.map_err(failed("status"))?;
        if !matches!(seen, Observation::Running { .. }) {
            return Err(format!("a restarted engine sees {seen:?} of what runs"));
        }
        let second = restarted.submit(&submission).await.map_err(failed("submit"))?;
        expect("reference", &second, &first)?;
        restarted.cancel(&second, GRACE).await.map_err(failed("cancel"))?;
        self.finish_off(&first, &submission).await
    }

    async fn cancel(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::UntilSignalled);
        let reference = self.submit(&submission).await?;
        self.running(&reference, &submission).await?;
        for _ in 0..3 {
            self.cancel_of(&reference, GRACE).await?;
        }
        self.finish_off(&reference, &submission).await
    }

    async fn cancel_by_force(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::UntilSignalled);
        let reference = self.submit(&submission).await?;
        self.running(&reference, &submission).await?;
        self.cancel_of(&reference, Grace(Duration::ZERO)).await?;
        self.gone(&reference, &submission).await
    }

    async fn cancel_after_the_end(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::Exit(0));
        let reference = self.submit(&submission).await?;
        self.end(&reference).await?;
        self.cancel_of(&reference, GRACE).await?;
        // A runtime may forget what was cancelled, but it never says that something else happened.
        match self.status(&reference).await? {
            Observation::Lost => Ok(()),
            Observation::Finished(finish) => expect("exit code", &finish.exit_code, &Some(0)),
            other => Err(format!("it ended, and then it was {other:?}")),
        }
    }

    async fn submit_after_cancel(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::UntilSignalled);
        let reference = self.submit(&submission).await?;
        self.cancel_of(&reference, GRACE).await?;
        self.gone(&reference, &submission).await?;
        let executions = self.fixture.executions(&submission).await;
        if executions > 1 {
            return Err(format!("{executions} executions"));
        }
        if matches!(self.status(&reference).await?, Observation::Lost) {
            // The runtime has forgotten it; the run's status is what keeps the driver from submitting again.
            return Ok(());
        }
        self.submit(&submission).await?;
        self.gone(&reference, &submission).await?;
        expect("executions", &self.fixture.executions(&submission).await, &executions)
    }

    async fn conflict(&self) -> Result<(), String> {
        let submission = self.fixture.submission(Work::Exit(0));
        self.fixture.occupy(&submission).await;
        let reference =
            RuntimeRef::of(self.adapter.runtime(), &submission.namespace, &submission.owner.name, &submission.key);
        let error = match self.adapter.submit(&submission).await {
            Ok(reference) => return Err(format!("submit gave {reference:?}")),
            Err(error) => error,
        };
        expect("kind of the error", &error.kind, &AdapterErrorKind::Conflict)?;
        expect("class of the error", &error.class, &Class::WaitForChange)?;
        expect("reason of the error", &error.reason(), &Reason::Conflict)?;
        expect("status", &self.status(&reference).await?, &Observation::Lost)?;
        self.cancel_of(&reference, Grace(Duration::ZERO)).await?;
        if !self.fixture.is_untouched(&submission).await {
            return Err("what took the name was changed".to_owned());
        }
        expect("executions", &self.fixture.executions(&submission).await, &0)
    }

    /// The time between two looks: an adapter that is polled says how often that may be.
    async fn pause(&self) {
        let Capabilities { pushes, poll_interval, garbage_collected: _, has_pod: _ } = self.adapter.capabilities();
        sleep(if pushes { LOOK } else { poll_interval }).await;
    }

    async fn submit(&self, submission: &Submission) -> Result<RuntimeRef, String> {
        self.adapter.submit(submission).await.map_err(failed("submit"))
    }

    async fn status(&self, reference: &RuntimeRef) -> Result<Observation, String> {
        self.adapter.status(reference).await.map_err(failed("status"))
    }

    async fn cancel_of(&self, reference: &RuntimeRef, grace: Grace) -> Result<(), String> {
        self.adapter.cancel(reference, grace).await.map_err(failed("cancel"))
    }

    /// Waits until the provider has left its mark.
    async fn running(&self, reference: &RuntimeRef, submission: &Submission) -> Result<(), String> {
        let until = Instant::now() + self.fixture.patience();
        loop {
            let seen = self.status(reference).await?;
            let marked = self.fixture.executions(submission).await > 0;
            match seen {
                Observation::Running { .. } if marked => return Ok(()),
                Observation::Running { .. } | Observation::Pending { .. } if Instant::now() < until => {}
                other => return Err(format!("it should run and is {other:?}")),
            }
            self.pause().await;
        }
    }

    async fn end(&self, reference: &RuntimeRef) -> Result<Finish, String> {
        let until = Instant::now() + self.fixture.patience();
        loop {
            match self.status(reference).await? {
                Observation::Finished(finish) => return Ok(*finish),
                other if !other.is_live() || Instant::now() >= until => {
                    return Err(format!("it should have ended and is {other:?}"));
                }
                _ => self.pause().await,
            }
        }
    }

    /// Waits until the runtime says that nothing runs and nothing is left.
    async fn gone(&self, reference: &RuntimeRef, submission: &Submission) -> Result<(), String> {
        let until = Instant::now() + self.fixture.patience();
        loop {
            let seen = self.status(reference).await?;
            if !seen.is_live() && self.fixture.is_gone(submission).await {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(format!("it was cancelled, is {seen:?}, and something of it is left"));
            }
            self.pause().await;
        }
    }

    /// Cancels what runs, and counts.
    async fn finish_off(&self, reference: &RuntimeRef, submission: &Submission) -> Result<(), String> {
        self.cancel_of(reference, GRACE).await?;
        self.gone(reference, submission).await?;
        if let Observation::Finished(finish) = self.status(reference).await?
            && finish.exit_code == Some(0)
            && finish.cause.is_none()
        {
            return Err("it was cancelled and says that it exited 0".to_owned());
        }
        expect("executions", &self.fixture.executions(submission).await, &1)
    }
}

fn failed(call: &'static str) -> impl Fn(AdapterError) -> String {
    move |error| format!("{call} failed: {error}")
}

fn expect<T: PartialEq + fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found:?}, not {wanted:?}")) }
}
