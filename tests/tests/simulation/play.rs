//! How a workload is played, and what it came to.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agents_core::plan::Defaults;
use agents_kube::{
    Builder, Calls, LeaseOptions, Manager, ManagerError, Namespaces, lease,
    runtime::{JobSettings, MIN_TTL, ReportSecret},
};
use agents_tests::apimodel::{Log, NAMESPACE, Settled, Supervised, World};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::workload::{CANARY, RUN, Workload};

/// Longest time a workload may take, disturbed as it may be.
pub const LIMIT: Duration = Duration::from_secs(7200);

/// The controller of runs as the binary puts it together. Declarations are kept by a loop of its own that shares
/// nothing with it but the lease, and costs most of the time of a simulated world: [`whole`] has both.
pub fn manager(calls: Calls, identity: &str, lease: bool) -> Manager {
    builder(calls, identity, lease).declarations(false).build()
}

/// The whole controller as the binary puts it together.
pub fn whole(calls: Calls, identity: &str, lease: bool) -> Manager {
    builder(calls, identity, lease).build()
}

fn builder(calls: Calls, identity: &str, lease: bool) -> Builder {
    builder_of_version(calls, identity, lease, 1)
}

fn builder_of_version(calls: Calls, identity: &str, lease: bool, version: u32) -> Builder {
    agents_tests::mutant::switch_named_on();
    let defaults = Defaults {
        image: "agent:1".to_owned(),
        runner_image: format!("runner:{version}"),
        service_account: "agents-run".to_owned(),
        grace_seconds: agents_core::plan::runner_spec::DEFAULT_GRACE_SECONDS,
        bounds: agents_core::plan::Bounds::default(),
    };
    // Nobody guesses it in a simulation, and every world is the same each time.
    let mut secret = [0; 32];
    secret.iter_mut().zip(identity.bytes().cycle()).for_each(|(byte, of)| *byte = of);
    let builder = Manager::builder(calls, identity)
        .defaults(defaults)
        .seed(identity.len() as u64)
        .report_secret(ReportSecret::new(secret));
    if lease { builder.lease(lease_options()) } else { builder }
}

pub fn lease_options() -> LeaseOptions {
    lease_named("agents")
}

fn lease_named(name: &str) -> LeaseOptions {
    let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
    LeaseOptions { namespace, name, former: None, params: lease::Params::default() }
}

/// Keeps a controller of runs running under a lease that no other knows, as another release on the same namespace does.
pub fn keep_another_release_running(world: &World, name: &'static str) -> Supervised {
    keep(world, name, move |calls, identity| {
        builder(calls, identity, false).lease(lease_named(name)).declarations(false).build()
    })
}

/// Keeps a controller of runs running: one that crashes or ends is followed by another, with an identity of its own.
pub fn keep_running(world: &World, name: &'static str, lease: bool) -> Supervised {
    keep(world, name, move |calls, identity| manager(calls, identity, lease))
}

/// The same of a version that brings its own runner along.
pub fn keep_version_running(world: &World, name: &'static str, lease: bool, version: u32) -> Supervised {
    keep(world, name, move |calls, identity| {
        builder_of_version(calls, identity, lease, version).declarations(false).build()
    })
}

/// The same for the runs of all namespaces.
pub fn keep_running_everywhere(world: &World, name: &'static str) -> Supervised {
    keep(world, name, |calls, identity| {
        builder(calls, identity, false).watch(Namespaces::All).declarations(false).build()
    })
}

/// The same for the whole controller.
pub fn keep_whole_running(world: &World, name: &'static str, lease: bool) -> Supervised {
    keep(world, name, move |calls, identity| whole(calls, identity, lease))
}

/// The same where Jobs are kept no longer than they must be, so that what outlasts them takes no day.
pub fn keep_running_briefly(world: &World, name: &'static str, lease: bool) -> Supervised {
    keep(world, name, move |calls, identity| {
        builder(calls, identity, lease).declarations(false).jobs(Some(JobSettings { ttl: MIN_TTL })).build()
    })
}

fn keep(world: &World, name: &'static str, make: impl Fn(Calls, &str) -> Manager + Send + 'static) -> Supervised {
    world.supervise(name, move |calls| {
        let born = calls.clock().boot().as_millis();
        let manager = make(calls, &format!("{name}-{born}"));
        async move {
            let _end: Result<(), ManagerError> = manager.run(CancellationToken::new()).await;
        }
    })
}

/// What a workload came to.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Status of each run by name, without times, versions and the uids of Jobs.
    pub runs: BTreeMap<String, Value>,
    /// How often the agent started, by attempt.
    pub executions: BTreeMap<i64, u32>,
    /// Jobs that are not finished, by name.
    pub live_jobs: Vec<String>,
}

impl End {
    pub fn of(world: &World) -> Self {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let runs = world.objects("agentruns").iter().map(|run| (name(run), masked(&run["status"]))).collect();
        let executions = world.executions().into_iter().map(|((_, attempt), count)| (attempt, count)).collect();
        let live = |job: &&Value| {
            !job["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                matches!(condition["type"].as_str(), Some("Complete" | "Failed")) && condition["status"] == "True"
            })
        };
        let live_jobs = world.objects("jobs").iter().filter(live).map(name).collect();
        Self { runs, executions, live_jobs }
    }

    /// How each run and each of its attempts ended: what remains when what was seen on the way there may differ, such
    /// as the start of a container whose pod was gone before anyone saw it.
    pub fn outline(&self) -> (BTreeMap<&str, Vec<String>>, &BTreeMap<i64, u32>) {
        let ended = |value: &Value| format!("{} {}", value["phase"], value["reason"]);
        let of = |status: &Value| {
            let attempts = status["attempts"].as_array().into_iter().flatten();
            std::iter::once(ended(status)).chain(attempts.map(ended)).collect()
        };
        (self.runs.iter().map(|(name, status)| (name.as_str(), of(status))).collect(), &self.executions)
    }

    pub fn phase(&self) -> &str {
        self.runs.get(RUN).and_then(|status| status["phase"].as_str()).unwrap_or("gone")
    }

    pub fn reason(&self) -> &str {
        self.runs.get(RUN).and_then(|status| status["reason"].as_str()).unwrap_or("gone")
    }
}

/// The same without what depends on when something happened.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let value = if key == "uid" { json!("uid") } else { masked(value) };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => json!("time"),
        other => other.clone(),
    }
}

/// A workload that was played to its end.
pub struct Played {
    pub world: Arc<World>,
    pub end: End,
    pub log: Log,
    /// When nothing more happened; `None` when something still did at the limit.
    pub settled: Option<Duration>,
}

impl Played {
    /// What is wrong with it by itself.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.world.violations().iter().map(ToString::to_string).collect();
        if !self.world.has_canary() {
            faults.push("no secret could have been told".to_owned());
        }
        if self.settled.is_none() {
            faults.push("the world did not settle".to_owned());
        }
        if self.end.phase() != "gone" && !matches!(self.end.phase(), "Succeeded" | "Failed" | "Cancelled") {
            faults.push(format!("stuck in {:?} ({})", self.end.phase(), self.end.reason()));
        }
        if !self.end.live_jobs.is_empty() {
            faults.push(format!("left behind: {:?}", self.end.live_jobs));
        }
        faults
    }

    /// What is wrong with it beside the undisturbed one.
    pub fn faults_beside(&self, clean: &End) -> Vec<String> {
        let mut faults = self.faults();
        if self.end != *clean {
            let (clean, disturbed) = (format!("{clean:#?}"), format!("{:#?}", self.end));
            faults.push(format!("another end: {}", difference(&clean, &disturbed)));
        }
        faults
    }

    /// The same where a create may land after the Job of its name was deleted again: a deletion frees the only lock there
    /// is, so the attempt has a second Job. It must be ended, and the run must not notice.
    pub fn faults_but_a_freed_name(&self, clean: &End) -> Vec<String> {
        let runs =
            |end: &End| end.outline().0.into_iter().map(|(run, ends)| (run.to_owned(), ends)).collect::<Vec<_>>();
        let mut faults = self.faults();
        faults.retain(|fault| !["SubmittedAgain", "ExecutedAgain"].iter().any(|broken| fault.contains(broken)));
        if runs(&self.end) != runs(clean) {
            faults.push(format!("another end:\n  {:?}\n  {:?}", runs(clean), runs(&self.end)));
        }
        faults
    }

    /// The same where the way there may have been seen otherwise.
    pub fn faults_in_outline(&self, clean: &End) -> Vec<String> {
        let mut faults = self.faults();
        if self.end.outline() != clean.outline() {
            faults.push(format!("another end:\n  {:?}\n  {:?}", clean.outline(), self.end.outline()));
        }
        faults
    }
}

/// The lines of each text that the other does not have.
fn difference(clean: &str, disturbed: &str) -> String {
    let only = |of: &str, other: &str, sign: &str| -> String {
        of.lines()
            .filter(|line| !other.lines().any(|known| known == *line))
            .map(|line| format!("\n  {sign}{line}"))
            .collect()
    };
    format!("{}{}", only(clean, disturbed, "-"), only(disturbed, clean, "+"))
}

/// Plays a workload under the controllers that `start` keeps running.
pub async fn play<C>(workload: &Workload, seed: u64, start: impl FnOnce(&Arc<World>) -> C) -> Played {
    let world = workload.world(seed);
    let controllers = start(&world);
    workload.tell(&world).await;
    world.until_terminal(LIMIT).await;
    let settled = match world.settle(LIMIT).await {
        Settled::Since(since) => Some(since),
        Settled::Not => None,
    };
    let (end, log) = (End::of(&world), world.log());
    drop(controllers);
    world.stop_actors();
    Played { world, end, log, settled }
}

/// Plays it under one controller and nothing in its way.
pub async fn play_clean(workload: &Workload) -> Played {
    let played = play(workload, 1, |world| keep_running(world, "a", false)).await;
    let faults = played.faults();
    assert!(faults.is_empty(), "{}: {faults:#?}\n{:#?}", workload.name, played.end);
    played
}

/// Takes log lines, keeps none, and notices one that tells the workloads' secret.
#[derive(Clone, Default)]
pub struct Overhearing(Arc<AtomicBool>);

impl Overhearing {
    /// Hears what this thread logs, until the guard is dropped.
    pub fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let ear = self.clone();
        let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(move || ear.clone());
        tracing::subscriber::set_default(log.finish())
    }

    pub fn was_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl io::Write for Overhearing {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if String::from_utf8_lossy(line).contains(CANARY) {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs each of `cases` in a simulation of its own, on as many threads as the machine has, and fails with every fault
/// found.
pub fn simulate<T, F, Fut>(cases: Vec<T>, run: F)
where
    T: Send,
    F: Fn(T) -> Fut + Sync,
    Fut: Future<Output = Vec<String>>,
{
    agents_tests::mutant::switch_named_on();
    let (count, began) = (cases.len(), std::time::Instant::now());
    let cases = std::sync::Mutex::new(cases.into_iter().rev().collect::<Vec<_>>());
    let faults = std::sync::Mutex::new(Vec::new());
    let logs = Overhearing::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _log = logs.begin();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
                runtime.expect("a runtime").block_on(async {
                    loop {
                        let Some(case) = cases.lock().expect("no panic").pop() else { break };
                        let found = run(case).await;
                        faults.lock().expect("no panic").extend(found);
                    }
                });
            });
        }
    });
    let mut faults = faults.into_inner().expect("no panic");
    if logs.was_told() {
        faults.push("a secret was logged".to_owned());
    }
    println!("{count} simulations in {:.1?}", began.elapsed());
    let shown = faults.iter().take(12).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(faults.is_empty(), "{} of {count} simulations failed:\n{shown}", faults.len());
}

/// One text of the faults of one case, or none.
pub fn named(case: impl FnOnce() -> String, faults: &[String]) -> Option<String> {
    (!faults.is_empty()).then(|| format!("{}:\n  {}", case(), faults.join("\n  ")))
}
