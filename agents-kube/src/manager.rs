//! The whole controller as a library: watches, lease, driver and shutdown, composed.
//!
//! It takes its client, clocks, seed and identity as arguments and has no listener, signal handler, thread or
//! environment of its own. Every task lives in one `JoinSet` inside [`Manager::run`], so dropping that future is the
//! crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agents_core::{
    api::{AgentRun, Resource, agent_run::Phase, runtime::RuntimeKind},
    decide::agent_run::{self, first_possible, open_attempt},
    plan::{Bounds, Defaults},
    policy::Rules,
};
use agents_runtime::{
    adapter::{Class, Registry, RuntimeAdapter},
    driver::{self, Driver},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde::de::IgnoredAny;
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Calls, Target},
    control::{
        Asks, Caches, ClusterWorld, FailedCreates, Namespaces, Notices, NoticesTask, Runs, StrayWorld, Submitted,
        Unrecorded, found,
    },
    lease::{self, Elector, Ended, Term, Trouble},
    runtime::{CachedJobs, JobAdapter, JobSettings, ReportSecret},
    watch::{self, Key},
};

/// Time between two looks at whether everything from a time without a leader is judged.
const RECOVERY_LOOK: Duration = Duration::from_secs(10);

/// Strays looked at at once: there are none in ordinary times, and runs come first.
const RARE_AT_ONCE: usize = 2;
/// Declarations looked at at once: a check is quick, and runs come first.
const DECLARED_AT_ONCE: usize = 4;
/// Time between two looks for a namespace that does not exist; each is told.
const NAMESPACE_LOOK: Duration = Duration::from_secs(30);

/// How much sooner than results are collected a time without a leader counts as too long: what ended shortly before that
/// time may not have been recorded, and this leader looks only some time after it began to lead.
const COLLECTION_MARGIN: Duration = watch::MAX_AGE;

/// Which lease is held while runs are decided.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Namespace and name of the lease that an earlier version held for the same runs: where the lease does not exist
    /// yet, its times are taken over.
    pub former: Option<(String, String)>,
    /// Times of the election.
    pub params: lease::Params,
}

/// How a [`Manager`] is put together.
///
/// # Expected flow
/// ```no_run
/// # async fn example(calls: agents_kube::Calls) -> Result<(), agents_kube::ManagerError> {
/// use agents_kube::{Manager, Namespaces};
/// let stop = tokio_util::sync::CancellationToken::new();
/// Manager::builder(calls, "replica-1").watch(Namespaces::One("agents".into())).build().run(stop).await
/// # }
/// ```
#[derive(Debug)]
pub struct Builder {
    calls: Calls,
    identity: String,
    namespaces: Namespaces,
    adapters: Vec<Arc<dyn RuntimeAdapter>>,
    jobs: Option<JobSettings>,
    report_secret: Option<ReportSecret>,
    defaults: Defaults,
    default_runtime: RuntimeKind,
    policy: Rules,
    start_limit: Duration,
    lease: Option<LeaseOptions>,
    concurrency: usize,
    seed: u64,
    declarations: bool,
}

impl Builder {
    /// Whose runs are looked after; the namespace `default` unless said.
    #[must_use]
    pub fn watch(mut self, namespaces: Namespaces) -> Self {
        self.namespaces = namespaces;
        self
    }

    /// Adds a runtime adapter; one for `job` replaces the own.
    #[must_use]
    pub fn runtime(mut self, adapter: Arc<dyn RuntimeAdapter>) -> Self {
        self.adapters.push(adapter);
        self
    }

    /// Changes how Jobs are made, or leaves the runtime `job` out.
    #[must_use]
    pub fn jobs(mut self, settings: Option<JobSettings>) -> Self {
        self.jobs = settings;
        self
    }

    /// What the keys are derived from that each Job's runner repeats in its report; without it a report is believed by
    /// what it says alone. Another secret at each start is fine.
    #[must_use]
    pub fn report_secret(mut self, secret: ReportSecret) -> Self {
        self.report_secret = Some(secret);
        self
    }

    /// What is filled in where a run, its Agent and its provider say nothing.
    #[must_use]
    pub fn defaults(mut self, defaults: Defaults) -> Self {
        self.defaults = defaults;
        self
    }

    /// What runs may do. The service account of the defaults is always allowed, another one only by a rule.
    #[must_use]
    pub fn policy(mut self, policy: Rules) -> Self {
        self.policy = policy;
        self
    }

    /// How long an image, a Secret or a container may fail to start before its attempt fails.
    #[must_use]
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// Decides only while holding this lease. Without one the manager decides at once; several at a time give the same
    /// result with more work.
    #[must_use]
    pub fn lease(mut self, lease: LeaseOptions) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Reconciles under way at once.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// Whether the status of every other kind is kept too, which is so unless said; a program that embeds the manager for
    /// runs alone needs fewer rights and watches without it.
    #[must_use]
    pub fn declarations(mut self, kept: bool) -> Self {
        self.declarations = kept;
        self
    }

    /// Spreads waits between replicas.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The manager.
    pub fn build(self) -> Manager {
        let Self {
            calls,
            identity,
            namespaces,
            adapters,
            jobs,
            report_secret,
            defaults,
            policy,
            default_runtime,
            start_limit,
            lease,
            concurrency,
            seed,
            declarations,
        } = self;
        let watches = watch::Settings::seeded(seed);
        let caches = Arc::new(Caches::new(&calls, &namespaces, watches));
        let mut registry = Registry::default();
        if let Some(settings) = jobs {
            let api = CachedJobs::new(calls.clone(), Arc::clone(&caches.jobs), Arc::clone(&caches.pods));
            let adapter = JobAdapter::new(Arc::new(api)).with_settings(settings);
            registry = registry.with(Arc::new(match report_secret {
                Some(secret) => adapter.with_report_secret(secret),
                None => adapter,
            }));
        }
        registry = adapters.into_iter().fold(registry, Registry::with);
        let settings = agent_run::Settings {
            defaults,
            default_runtime,
            only_runtime: None,
            runtimes: registry.runtimes().collect::<BTreeSet<_>>(),
            start_limit_seconds: i64::try_from(start_limit.as_secs()).unwrap_or(i64::MAX),
            max_object_bytes: Some(agent_run::MAX_OBJECT_BYTES),
            policy,
        };
        let elector = lease.map(|LeaseOptions { namespace, name, former, params }| {
            let elector = Elector::new(calls.clone(), namespace, name, identity.clone(), params)
                .leaving(found::leave(&settings.defaults));
            match former {
                Some((namespace, name)) => elector.after(namespace, name),
                None => elector,
            }
        });
        let tenure = elector.as_ref().map(Elector::tenure);
        let election = elector.as_ref().map(Elector::trouble).unwrap_or_default();
        let unrecorded = Arc::new(Unrecorded::default());
        let (notices, sender) = Notices::new(calls.clone().optional(), &identity);
        let grace = settings.defaults.grace_seconds;
        let strays = StrayWorld::new(calls.clone(), Arc::clone(&caches), registry.clone(), grace, tenure.clone());
        let runs = Runs {
            failed_creates: FailedCreates::new(calls.clone().optional(), Arc::clone(&caches.jobs)),
            calls: calls.clone(),
            caches: Arc::clone(&caches),
            adapters: registry,
            settings,
            blind_since: Mutex::default(),
            undecided: Mutex::default(),
            unrecorded: Arc::clone(&unrecorded),
            submitted: Submitted::default(),
            findings: found::Findings::default(),
            former_defaults: Mutex::default(),
        };
        let world = ClusterWorld { calls, kinds: Arc::clone(&caches.kinds), runs, tenure, notices };
        let keep = jobs.unwrap_or_default().ttl;
        Manager {
            world: Arc::new(world),
            strays: Arc::new(strays),
            declarations,
            elector,
            sender,
            options: driver::Options { concurrency, seed, ..driver::Options::default() },
            health: Health { caches, leading: Arc::default(), unrecorded, election, missing: Arc::default() },
            keep,
            namespaces,
        }
    }
}

/// How a manager is doing.
#[derive(Debug, Clone)]
pub struct Health {
    caches: Arc<Caches>,
    leading: Arc<AtomicBool>,
    unrecorded: Arc<Unrecorded>,
    election: Trouble,
    /// Whether the namespace of the runs is known not to exist.
    missing: Arc<AtomicBool>,
}

impl Health {
    /// Whether every cache is complete and the election goes on; a standby replica is ready too.
    ///
    /// # Errors
    /// The namespace that does not exist, what keeps the election from going on, and each cache that is not complete,
    /// with its trouble.
    pub fn ready(&self) -> Result<(), String> {
        let missing = self.caches.ready().missing.into_iter().map(|(name, trouble)| match trouble {
            Some(trouble) => format!("{name}: {trouble}"),
            None => format!("{name}: not listed yet"),
        });
        let election = self.election.message().map(|message| format!("the election: {message}"));
        let place = self.missing.load(Ordering::Acquire).then(|| "the namespace does not exist".to_owned());
        let troubles: Vec<_> = place.into_iter().chain(election).chain(missing).collect();
        if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
    }

    /// About how many bytes the caches keep, by kind and namespace.
    pub fn kept_bytes(&self) -> Vec<(&'static str, BTreeMap<String, usize>)> {
        self.caches.weights()
    }

    /// How many runs have a status that the API server lastingly does not take, and one of them as `namespace/name: why`.
    /// The manager is ready all the same: no other replica could store them, and the other runs go on.
    pub fn unstored(&self) -> Option<(usize, String)> {
        self.unrecorded.lasting()
    }

    /// Whether this replica decides.
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }
}

/// Why a manager ended without being asked.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// Another holds the lease, or it could not be renewed: this manager must not go on.
    #[error("the lease is lost")]
    LeaseLost,
    /// A watch ended, which it never should.
    #[error("a watch ended")]
    WatchEnded,
}

/// The controller.
#[derive(Debug)]
pub struct Manager {
    world: Arc<ClusterWorld>,
    strays: Arc<StrayWorld>,
    declarations: bool,
    elector: Option<Elector>,
    sender: NoticesTask,
    options: driver::Options,
    health: Health,
    keep: Duration,
    namespaces: Namespaces,
}

impl Manager {
    /// Begins to put a manager together. `identity` differs from every other process's.
    pub fn builder(calls: Calls, identity: impl Into<String>) -> Builder {
        Builder {
            calls,
            identity: identity.into(),
            namespaces: Namespaces::One("default".to_owned()),
            adapters: vec![],
            jobs: Some(JobSettings::default()),
            report_secret: None,
            defaults: Defaults {
                image: String::new(),
                runner_image: String::new(),
                service_account: "default".to_owned(),
                grace_seconds: agents_core::plan::runner_spec::DEFAULT_GRACE_SECONDS,
                bounds: Bounds::default(),
            },
            policy: Rules::default(),
            default_runtime: RuntimeKind::Job,
            start_limit: Duration::from_secs(600),
            lease: None,
            concurrency: driver::Options::default().concurrency,
            seed: 0,
            declarations: true,
        }
    }

    /// A handle for health pages.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Works until `shutdown`, then finishes what is under way and gives the lease away.
    ///
    /// # Errors
    /// The lease was lost, or a watch ended. Another manager may follow in the same process, as [`Keeper`] has it.
    ///
    /// [`Keeper`]: crate::Keeper
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ManagerError> {
        let Self { world, strays, declarations, elector, sender, options, health, keep, namespaces } = self;
        let (runs, caches) = (&world.runs, &world.runs.caches);
        let strays = Driver::new(strays, driver::Options { concurrency: RARE_AT_ONCE, ..options.clone() });
        let declared = driver::Options { concurrency: DECLARED_AT_ONCE, ..options.clone() };
        let declared = declarations.then(|| Driver::new(Arc::clone(&world), declared));
        let driver = Driver::new(Arc::clone(&world), options);
        let asks = Asks {
            executed: driver.requests(),
            declared: declared.as_ref().map(Driver::requests),
            strays: strays.requests(),
        };
        let mut tasks = JoinSet::new();
        caches.start(&mut tasks, &asks, &health.leading);
        tasks.spawn(sender.run());
        let place = find(&world.calls, caches, &namespaces, &health.missing);
        let work = async {
            let Some((term, held)) = lead(elector, &shutdown).await else { return Ok(()) };
            let released = CancellationToken::new();
            let driver_stop = shutdown.child_token();
            let decide = async {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    () = caches.declarations_synced() => {}
                }
                if let Some(term) = &term
                    && term.gap.saturating_add(COLLECTION_MARGIN) > keep
                {
                    *runs.blind_since.lock().unwrap_or_else(PoisonError::into_inner) = term.acted_until;
                }
                if let Some(term) = &term {
                    let former = found::former(&term.left, &runs.settings.defaults);
                    *runs.former_defaults.lock().unwrap_or_else(PoisonError::into_inner) = former;
                }
                health.leading.store(true, Ordering::Release);
                caches.ask_all(&asks);
                let executions = async {
                    caches.synced().await;
                    doubt(term.as_ref(), runs);
                    caches.ask_runs(&asks);
                    caches.ask_strays(&asks);
                    tokio::join!(recover(term, runs), prove(caches));
                };
                let mut of_declared = JoinSet::new();
                if declared.is_some() {
                    caches.start_declared(&mut of_declared, &asks, &health.leading);
                }
                let stop = || driver_stop.clone();
                let declared = async {
                    if let Some(declared) = declared {
                        declared.run(stop()).await;
                    }
                };
                let ended = tokio::select! {
                    biased;
                    _ = async { tokio::join!(driver.run(stop()), strays.run(stop()), declared) } => Ok(()),
                    Some(_) = of_declared.join_next() => Err(ManagerError::WatchEnded),
                    () = executions => Ok(()),
                };
                health.leading.store(false, Ordering::Release);
                ended
            };
            let Some(mut elector) = held else { return decide.await };
            let decide = async {
                match decide.await {
                    Ok(()) => {
                        released.cancel();
                        pending().await
                    }
                    Err(error) => error,
                }
            };
            tokio::select! {
                biased;
                ended = elector.hold(&released) => match ended {
                    Ended::Lost => Err(ManagerError::LeaseLost),
                    Ended::Released => Ok(()),
                    Ended::Unreleased(error) => {
                        tracing::warn!(%error, "the lease could not be given away; it runs out by itself");
                        Ok(())
                    }
                },
                error = decide => Err(error),
            }
        };
        let ended = tokio::select! {
            biased;
            result = work => result,
            Some(_) = tasks.join_next() => Err(ManagerError::WatchEnded),
            never = place => match never {},
        };
        health.leading.store(false, Ordering::Release);
        ended
    }
}

/// Waits for the lease, if there is one; `None` when stopped before.
async fn lead(elector: Option<Elector>, shutdown: &CancellationToken) -> Option<(Option<Term>, Option<Elector>)> {
    match elector {
        None => Some((None, None)),
        Some(mut elector) => elector.acquire(shutdown).await.map(|term| (Some(term), Some(elector))),
    }
}

/// Tells a namespace that does not exist from an empty one, which lists do not; for ever.
async fn find(calls: &Calls, caches: &Caches, namespaces: &Namespaces, missing: &AtomicBool) -> Infallible {
    let Namespaces::One(name) = namespaces else { return pending().await };
    caches.synced().await;
    if !caches.are_empty() {
        return pending().await;
    }
    loop {
        let step = "look for the namespace";
        match calls.get::<IgnoredAny>(&Target::cluster_wide::<Namespace>(), step, "", name).await {
            Err(error) if error.is_not_found() => {
                missing.store(true, Ordering::Release);
                tracing::warn!(namespace = name, "the namespace does not exist: nothing can be looked after in it");
            }
            Err(error) if matches!(error.class, Class::Retry | Class::RetryAfter(_)) => {}
            // It is there, or may not be looked for: then lists are refused as well where it does not exist.
            Ok(IgnoredAny) | Err(_) => break,
        }
        time::sleep(NAMESPACE_LOOK).await;
    }
    missing.store(false, Ordering::Release);
    pending().await
}

/// Keeps the age of the runs' cache proven while a run is undecided, for ever: without it, each decision that rests on
/// the age would cost a read of its own.
async fn prove(caches: &Caches) {
    loop {
        time::sleep(watch::MARK_EVERY).await;
        let runs = &caches.kinds.runs;
        if !runs.is_empty()
            && let Err(error) = runs.prove().await
        {
            tracing::debug!(%error, "the age of the cache is not proven");
        }
    }
}

/// The runs whose current attempt the last leader may have handed over without recording it: each is to be decided once
/// from complete lists before the time without a leader may be forgotten.
fn doubt(term: Option<&Term>, runs: &Runs) {
    let Some(acted_until) = term.and_then(|term| term.acted_until) else { return };
    let doubtful = runs.caches.kinds.readable_runs().into_iter().filter(|run| may_be_older(run, acted_until));
    let keys = doubtful.map(|run| Key::new(&run.metadata.namespace, &run.metadata.name)).collect();
    *runs.undecided.lock().unwrap_or_else(PoisonError::into_inner) = keys;
}

/// Whether the run's current attempt is not recorded and can have been handed over before `moment`.
fn may_be_older(run: &Resource<AgentRun>, moment: Timestamp) -> bool {
    let settled = run.status.as_ref().is_some_and(|status| {
        open_attempt(status).is_some()
            || status.phase.is_some_and(|phase| phase.is_terminal() || phase == Phase::Template)
    });
    !settled && first_possible(run).is_some_and(|first| first < moment)
}

/// Lets the time without a leader be forgotten once no run is left that it makes doubtful.
async fn recover(term: Option<Term>, runs: &Runs) {
    let Some(term) = term else { return };
    let blind = *runs.blind_since.lock().unwrap_or_else(PoisonError::into_inner);
    let doubtful = || match blind {
        // What could have been executed then stays in doubt until it is recorded as lost.
        Some(blind) => runs.caches.kinds.readable_runs().iter().any(|run| may_be_older(run, blind)),
        None => !runs.undecided.lock().unwrap_or_else(PoisonError::into_inner).is_empty(),
    };
    while doubtful() {
        time::sleep(RECOVERY_LOOK).await;
    }
    term.recovered();
}

#[cfg(test)]
mod tests;
