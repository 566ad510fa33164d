//! Whether a Job that was found by its name alone is the attempt's. Everybody may make a Job that says that it is a run's;
//! one that executes something else, or whose plan nobody can make now, is not believed.
//!
//! The same plan becomes another pod under an earlier leader with other defaults, and where admission rewrites Jobs. The
//! leaders leave their defaults in the lease, which no tenant writes; of admission the API server itself is asked, by a
//! create that creates nothing.

use std::sync::{Arc, PoisonError};

use agents_core::{
    api::{AgentRun, Resource, runtime::RuntimeKind},
    decide::{
        Confirm,
        agent_run::{Settings, expected},
    },
    mutant::{self, Mutant},
    plan::Defaults,
    resolve::References,
    runtime::{RuntimeRef, Submission},
};
use agents_runtime::driver::Failure;
use serde::{Deserialize, Serialize};

use super::{agent_run::AgentRunWorld, submitted::Stranger};
use crate::{
    runtime::{CachedJobs, JobView, is_admitted_job_of, is_the_job_of},
    watch::{Key, Slot},
};

/// What a leader fills in of what decides what a pod executes, as it leaves it for the next ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    image: String,
    runner_image: String,
    service_account: String,
}

/// What a leader with these defaults leaves for the next ones.
pub fn leave(defaults: &Defaults) -> String {
    let Defaults { image, runner_image, service_account, grace_seconds: _, bounds: _ } = defaults;
    let left =
        Left { image: image.clone(), runner_image: runner_image.clone(), service_account: service_account.clone() };
    // Texts have a JSON form.
    serde_json::to_string(&left).unwrap_or_default()
}

/// The defaults that earlier leaders left, as far as they can be read.
pub fn former(left: &[String], own: &Defaults) -> Vec<Defaults> {
    let read = left.iter().filter_map(|left| serde_json::from_str::<Left>(left).ok());
    read.map(|Left { image, runner_image, service_account }| Defaults {
        image,
        runner_image,
        service_account,
        ..own.clone()
    })
    .collect()
}

impl AgentRunWorld {
    /// Whether what was found by name alone is what would be submitted.
    pub(super) async fn is_what_would_be_submitted(
        &self,
        key: &Key,
        run: &Arc<Resource<AgentRun>>,
        references: &References,
        reference: &RuntimeRef,
    ) -> Result<bool, Failure> {
        let job = self.caches.jobs.get(&Key::new(&reference.namespace, reference.name.as_str()));
        // What another adapter executes is not watched: it answers for it.
        let Some(job) = job.as_ref().and_then(Slot::object).filter(|_| reference.runtime == RuntimeKind::Job) else {
            return Ok(true);
        };
        // What is planned from a part of the objects has another digest.
        let (mut run, mut references) = (Arc::clone(run), references.clone());
        self.read_whole(&mut references).await?;
        if run.metadata.left_out.is_some() {
            match self.run(key, Confirm::WHOLE).await? {
                Some((whole, _)) => run = whole,
                None => return Ok(false),
            }
        }
        let is_it = match expected(&run, &references, &self.settings) {
            Some(own) => self.is_of_a_leader(key, &run, &references, own, job).await,
            None => false,
        };
        let is_it = is_it || mutant::is_on(Mutant::AdoptsByOwner);
        if is_it {
            self.submitted.remember(key, reference, Some(&job.uid));
        } else {
            tracing::debug!(run = %key, job = job.name, job.uid = job.uid, "a job of that name is not the attempt's");
        }
        Ok(is_it)
    }

    /// Whether `job` is what this leader or one of the last few makes of the run; `own` is what this one submits.
    async fn is_of_a_leader(
        &self,
        key: &Key,
        run: &Resource<AgentRun>,
        references: &References,
        own: Submission,
        job: &JobView,
    ) -> bool {
        if is_the_job_of(&own, job) {
            return true;
        }
        let stranger = Stranger { uid: job.uid.clone(), pod: job.marks.pod, plan: own.spec.plan_digest.clone() };
        if job.marks.plan.as_deref() != own.spec.plan_digest.as_deref() || self.submitted.is_stranger(key, &stranger) {
            return false;
        }
        let defaults = self.former_defaults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let former = defaults.into_iter().filter_map(|defaults| {
            let settings = Settings { defaults, ..self.settings.clone() };
            expected(run, references, &settings)
        });
        let all: Vec<Submission> = std::iter::once(own).chain(former).collect();
        if all.iter().any(|submission| is_the_job_of(submission, job)) {
            return true;
        }
        let api = CachedJobs::new(self.calls.clone(), Arc::clone(&self.caches.jobs), Arc::clone(&self.caches.pods));
        let mut known = true;
        for submission in &all {
            match is_admitted_job_of(&api, submission, job).await {
                Some(true) => return true,
                Some(false) => {}
                None => known = false,
            }
        }
        if known {
            self.submitted.remember_stranger(key, stranger);
        }
        false
    }
}
