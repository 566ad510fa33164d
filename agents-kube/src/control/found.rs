//! Whether a Job that was found by its name alone is the attempt's. Everybody may make a Job that says that it is a run's;
//! one that executes something else, or whose plan nobody can make now, is not believed.
//!
//! The same plan becomes another pod under an earlier leader with other defaults, and where admission rewrites Jobs. The
//! leaders leave their defaults in the lease, which no tenant writes; of admission the API server itself is asked, by a
//! create that creates nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRun, Kind, Resource, runtime::RuntimeKind},
    decide::agent_run::{Settings, expected},
    look::Found,
    mutant::{self, Mutant},
    plan::Defaults,
    resolve::References,
    runtime::RuntimeRef,
};
use agents_runtime::driver::Failure;
use serde::{Deserialize, Serialize};
use tokio::task;

use super::agent_run::Runs;
use crate::{
    runtime::{CachedJobs, Fingerprint, JobView, is_admitted_job_of, is_the_job_of, note_admission},
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
pub(crate) fn leave(defaults: &Defaults) -> String {
    let Defaults { image, runner_image, service_account, grace_seconds: _, bounds: _ } = defaults;
    let left =
        Left { image: image.clone(), runner_image: runner_image.clone(), service_account: service_account.clone() };
    // Texts have a JSON form.
    serde_json::to_string(&left).unwrap_or_default()
}

/// The defaults that earlier leaders left, as far as they can be read.
pub(crate) fn former(left: &[String], own: &Defaults) -> Vec<Defaults> {
    let read = left.iter().filter_map(|left| serde_json::from_str::<Left>(left).ok());
    read.map(|Left { image, runner_image, service_account }| Defaults {
        image,
        runner_image,
        service_account,
        ..own.clone()
    })
    .collect()
}

/// How long the answer about one Job holds: what admission does may change.
const HOLDS: Duration = Duration::from_secs(300);
/// Shortest time between two looks for one run, whatever changes meanwhile: each costs a plan and some calls.
const AGAIN: Duration = Duration::from_secs(30);
/// Deadline of one question to the API server: webhooks that are slow or away are asked as well.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a Job is that was found by its name alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The attempt's.
    Ours,
    /// Somebody else's.
    Stranger,
    /// It cannot be told, and why.
    InDoubt(String),
}

/// What a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    job: String,
    pod: Fingerprint,
    plan: Option<Box<str>>,
    /// Uid and generation of the run and of what it refers to.
    objects: [Option<(String, Option<i64>)>; 4],
}

impl Basis {
    fn of(job: &JobView, run: &Resource<AgentRun>, references: &References) -> Self {
        fn state<K: Kind>(found: &Found<Resource<K>>) -> Option<(String, Option<i64>)> {
            found.object().map(|object| (object.metadata.uid.clone(), object.metadata.generation))
        }
        let References { agent, provider, implementation } = references;
        let of_run = Some((run.metadata.uid.clone(), run.metadata.generation));
        Self {
            job: job.uid.clone(),
            pod: job.marks.pod,
            plan: job.marks.plan.clone(),
            objects: [of_run, state(agent), state(provider), state(implementation)],
        }
    }
}

/// What was found of Jobs that are not known to be ours, with when, in boot time.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<HashMap<Key, (Basis, Finding, Duration)>>);

impl Findings {
    /// What is to be said without another look.
    fn known(&self, key: &Key, basis: &Basis, now: Duration) -> Option<Finding> {
        let all = self.all();
        let (of, finding, at) = all.get(key)?;
        let holds = match finding {
            Finding::Stranger if of == basis => HOLDS,
            // A Job can be changed as often as somebody likes.
            Finding::Stranger | Finding::InDoubt(_) if of.objects == basis.objects => AGAIN,
            Finding::Ours | Finding::Stranger | Finding::InDoubt(_) => return None,
        };
        (now.saturating_sub(*at) < holds).then(|| finding.clone())
    }

    fn remember(&self, key: &Key, basis: Basis, finding: Finding, now: Duration) {
        self.all().insert(key.clone(), (basis, finding, now));
    }

    pub(super) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    /// Nothing is left half done under this lock.
    fn all(&self) -> MutexGuard<'_, HashMap<Key, (Basis, Finding, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    /// What stands under the attempt's name.
    pub(super) async fn found(
        &self,
        key: &Key,
        run: &Arc<Resource<AgentRun>>,
        references: &References,
        reference: &RuntimeRef,
    ) -> Result<Finding, Failure> {
        let job = self.caches.jobs.get(&Key::new(&reference.namespace, reference.name.as_str()));
        // What another adapter executes is not watched: it answers for it.
        let Some(job) = job.as_ref().and_then(Slot::object).filter(|_| reference.runtime == RuntimeKind::Job) else {
            return Ok(Finding::Ours);
        };
        let (basis, now) = (Basis::of(job, run, references), self.calls.clock().boot());
        if let Some(known) = self.findings.known(key, &basis, now) {
            return Ok(known);
        }
        // What is planned from a part of the objects has another digest.
        let (mut run, mut references) = (Arc::clone(run), references.clone());
        self.caches.kinds.read_whole(&self.calls, &mut references).await?;
        if run.metadata.left_out.is_some() {
            match self.caches.kinds.whole(&self.calls, key).await? {
                Found::Object(whole) => run = whole,
                Found::Absent | Found::Unreadable(_) => return Ok(Finding::Stranger),
            }
        }
        let found = self.look_at(&run, &references, job).await;
        if found == Finding::Ours || mutant::is_on(Mutant::AdoptsByOwner) {
            self.submitted.remember(key, reference, Some(&job.uid));
            self.findings.forget(key);
            return Ok(Finding::Ours);
        }
        tracing::debug!(run = %key, job = job.name, job.uid = job.uid, ?found, "a job of that name is not the attempt's");
        self.findings.remember(key, basis, found.clone(), now);
        Ok(found)
    }

    /// Whether `job` is what this leader or one of the last few makes of the run.
    async fn look_at(&self, run: &Resource<AgentRun>, references: &References, job: &JobView) -> Finding {
        let Some(own) = expected(run, references, &self.settings) else { return Finding::Stranger };
        // Many such Jobs in a row leave the thread to others in between.
        task::yield_now().await;
        if is_the_job_of(&own, job) {
            return Finding::Ours;
        }
        if job.marks.plan.as_deref() != own.spec.plan_digest.as_deref() {
            return Finding::Stranger;
        }
        let defaults = self.former_defaults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = vec![own];
        for defaults in defaults {
            let settings = Settings { defaults, ..self.settings.clone() };
            all.extend(expected(run, references, &settings));
            task::yield_now().await;
        }
        if all.iter().any(|submission| is_the_job_of(submission, job)) {
            return Finding::Ours;
        }
        let calls = self.calls.clone().with_deadline(PATIENCE);
        let api = CachedJobs::new(calls, Arc::clone(&self.caches.jobs), Arc::clone(&self.caches.pods));
        for submission in &all {
            match is_admitted_job_of(&api, submission, job).await {
                Ok(true) => {
                    note_admission(&api, job).await;
                    return Finding::Ours;
                }
                Ok(false) => {}
                Err(error) => {
                    return Finding::InDoubt(format!(
                        "job {} may be the attempt's, and what admission makes of it cannot be learnt: {}",
                        job.name, error.message
                    ));
                }
            }
        }
        Finding::Stranger
    }
}
