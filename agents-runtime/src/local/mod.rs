//! The local engine: the controller's own decisions over a folder of manifests, without a cluster.
//!
//! [`manifest::load`] reads, [`Engine::new`] prepares, [`Engine::run`] runs every AgentRun to its end. Objects live in
//! memory, every attempt is a process, and each run leaves a folder. An engine that dies loses nothing: the next one on
//! the same folder continues, because processes belong to their folder and the run's record stands beside them.

mod follow;
mod identity;
pub mod manifest;
mod objects;
mod places;
mod records;
mod repository;
mod stage;
mod trouble;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use agents_core::{
    api::{
        Agent, AgentRun, AgentRunStatus, Kind as _, Resource,
        agent_provider::SecretEnv,
        agent_run::Phase,
        common::{ParameterValue, Scalar},
        runtime::RuntimeKind,
    },
    decide::{
        Notice,
        agent_run::{is_finished, open_attempt},
    },
    id::{Id, Key},
    kinds::AnyKind,
    look::AnyResource,
    marks::ANNOTATION_TEMPLATE,
    resolve::terms::Terms,
    status::Reason,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    manifest::{Manifests, RunManifest, SecretData},
    objects::run_id,
    places::{Locks, RunFolder},
    records::{Records, are_kept},
    stage::Stage,
    world::{LocalWorld, Place, title},
};
pub use self::{repository::RepositoryError, stage::Room};
use crate::{
    driver::{Driver, Options as DriverOptions},
    manifest::Skipped,
    process::{CommandLine, Options as ProcessOptions, ProcessAdapter, SecretSource, SecretValue},
};

/// The parameter that also says which repository is checked out, when it is given to the engine.
pub const REPOSITORY_PARAMETER: &str = "repository";
/// Longest wait between two tries of what fails here: a person waits, and what is tried costs little.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// How long the end of everything may take after it was forced.
const FORCE_LIMIT: Duration = Duration::from_secs(5);

/// What the engine is to run, where and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that was loaded.
    pub manifests: Manifests,
    /// Runs to run, by name; empty: every run that is no template.
    pub names: Vec<String>,
    /// Parameters that win over those of every run. `repository` also takes the place of
    /// `spec.execution.coordinates.git.url` where a run has one.
    pub parameters: BTreeMap<String, String>,
    /// Folder that gets one folder per run.
    pub out: PathBuf,
    /// Folder that a path in the parameter `repository` starts from.
    pub folder: PathBuf,
    /// See [`ProcessOptions::launcher`].
    pub launcher: CommandLine,
    /// See [`ProcessOptions::runner`].
    pub runner: CommandLine,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A name that no run has.
    #[error("no AgentRun is named {name:?}; there are: {}", known.join(", "))]
    UnknownRun {
        /// The name.
        name: String,
        /// The names of the runs.
        known: Vec<String>,
    },
    /// Nothing to run.
    #[error("the manifests hold no AgentRun{}", if *templates { " besides templates" } else { "" })]
    NoRun {
        /// Whether there are templates.
        templates: bool,
    },
    /// A repository given by a path cannot be used.
    #[error("AgentRun {run:?}: spec.execution.coordinates.git.url {url:?} names no repository")]
    Repository {
        /// The run.
        run: String,
        /// The path.
        url: String,
        /// Why.
        source: RepositoryError,
    },
    /// What is kept of objects that are no runs cannot be used.
    #[error("cannot go on from what {} holds of objects", out.display())]
    Record {
        /// The folder of all runs.
        out: PathBuf,
        /// Which record, and why.
        source: io::Error,
    },
    /// The folder of a run cannot be used.
    #[error("cannot use {} for the run {run:?}", out.display())]
    Folder {
        /// The run.
        run: String,
        /// The folder of all runs.
        out: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What happens while the engine runs. Runs are named without their namespace.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something people should know once, about no run in particular.
    Remark(String),
    /// A run's status changed.
    Status {
        /// The run.
        run: String,
        /// Its status now.
        status: Arc<AgentRunStatus>,
    },
    /// Another object than a run is in another phase, one that its kind's own rules say.
    Phase {
        /// The object, as `Kind/name`.
        object: String,
        /// Its phase now.
        phase: String,
    },
    /// What a controller would tell as an Event.
    Notice {
        /// The run, or any other object as `Kind/name`.
        object: String,
        /// What happened.
        notice: Notice,
    },
    /// Whole lines that the provider or the runner printed.
    Output {
        /// The run.
        run: String,
        /// The lines, without their ends.
        lines: Vec<String>,
        /// What the lines take of the room for all output that is not shown yet; free when it is dropped.
        room: Room,
    },
}

/// A run when the engine has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The run with its last status: terminal, blocked by something that no waiting here can cure, or the last that is
    /// known of a run that was given up.
    pub run: Resource<AgentRun>,
    /// Its folder.
    pub folder: PathBuf,
    /// Why the run was given up, if it was: its record is then behind, or it has not ended.
    pub trouble: Option<String>,
    /// Locked until the end is told: another engine must not take it for one that nobody tells.
    kept: Arc<RunFolder>,
}

impl Ended {
    /// Notes that whoever started the run knows how it ended. Until then the next engine tells it again; from then on
    /// it runs the same manifest anew.
    ///
    /// # Errors
    /// Nothing can be noted in the run's folder.
    pub fn was_told(&self) -> io::Result<()> {
        if self.trouble.is_none() && is_finished(&self.run) { self.kept.told() } else { Ok(()) }
    }

    /// The run as a manifest, as its record is written.
    pub fn to_yaml(&self) -> String {
        places::written(&self.run).unwrap_or_default()
    }
}

/// Ends runs early. It keeps nothing alive: when the engine has ended, it does nothing.
#[derive(Debug, Clone)]
pub struct Handle {
    world: Weak<LocalWorld>,
    asked: CancellationToken,
    forced: CancellationToken,
}

impl Handle {
    /// Cancels every run: gracefully, then by force.
    pub fn cancel(&self) {
        if let Some(world) = self.world.upgrade() {
            world.cancel_all();
        }
        self.asked.cancel();
    }

    /// Ends what was cancelled at once.
    pub fn force(&self) {
        self.cancel();
        self.forced.cancel();
    }
}

/// Runs AgentRuns as local processes.
#[derive(Debug)]
pub struct Engine {
    world: Arc<LocalWorld>,
    stage: Stage,
    remarks: Vec<String>,
    asked: CancellationToken,
    forced: CancellationToken,
}

impl Engine {
    /// Prepares the runs and their folders; starts nothing. The receiver gets what happens. Runs do not wait for it; the
    /// engine ends when all output was taken from it, or it was dropped.
    ///
    /// # Errors
    /// Nothing to run, a path that names no repository, or a folder that cannot be used.
    pub fn new(options: Options) -> Result<(Self, mpsc::UnboundedReceiver<Event>), EngineError> {
        let Options { mut manifests, names, parameters, out, folder, launcher, runner } = options;
        let secrets: Arc<dyn SecretSource> = Arc::new(LocalSecrets(manifests.secrets.clone()));
        let mut remarks = not_read(&manifests.skipped);
        remarks.extend(left_out(&manifests.left_out));
        let mut runs = BTreeMap::new();
        let selected = select(&manifests, &names)?;
        let first = selected.first().map(|(name, _)| name.name.clone()).unwrap_or_default();
        let locks = Locks::of(&out).map_err(|source| EngineError::Folder { run: first, out: out.clone(), source })?;
        let records = resume(&locks, &mut manifests.objects, &mut remarks)
            .map_err(|source| EngineError::Record { out: out.clone(), source })?;
        for (name, mut manifest) in selected {
            place_repository(&mut manifest, &parameters, &folder)?;
            let run = &mut manifest.run;
            let given = parameters.iter().map(|(name, value)| (name.clone(), ParameterValue(Scalar(value.clone()))));
            run.spec.parameters.extend(given);
            let failed = |source| EngineError::Folder { run: name.name.clone(), out: out.clone(), source };
            let (folder, mut run) = RunFolder::choose(&locks, manifest.run).map_err(failed)?;
            let was_finished = is_finished(&run);
            for other in &folder.passed_over {
                let place = other.display();
                remarks.push(format!(
                    "{}: {place} holds an unfinished execution of another spec or namespace, which is left alone",
                    name.name
                ));
            }
            if folder.has_begun() {
                let (place, run) = (folder.path().display(), &name.name);
                remarks.push(if was_finished {
                    format!("{run} had ended: {place} holds its execution, whose end was not told yet")
                } else {
                    format!("{run} is continued: {place} holds its unfinished execution")
                });
            }
            if let Some(status) = &mut run.status {
                // What was in the way then is judged anew.
                status.blocked_by.clear();
            }
            let adapter = ProcessAdapter::new(ProcessOptions {
                root: folder.attempts(),
                launcher: launcher.clone(),
                runner: runner.clone(),
                secrets: Arc::clone(&secrets),
            })
            .map_err(failed)?;
            runs.insert(name, (run, Place { folder: Arc::new(folder), adapter }));
        }
        let elsewhere: Vec<_> = runs
            .iter()
            .filter(|(_, (run, _))| wants_another_runtime(run, &manifests))
            .map(|(name, _)| name.name.as_str())
            .collect();
        if !elsewhere.is_empty() {
            remarks.push(format!("run here as local processes, whatever runtime they name: {}", elsewhere.join(", ")));
        }
        let Manifests { objects, .. } = manifests;
        let (stage, receiver) = Stage::new();
        let world = Arc::new(LocalWorld::new(objects, runs, records, stage.clone()));
        let engine = Self { world, stage, remarks, asked: CancellationToken::new(), forced: CancellationToken::new() };
        Ok((engine, receiver))
    }

    /// Names of the runs, in the order of their namespaces and names.
    pub fn runs(&self) -> Vec<String> {
        self.world.names().into_iter().map(|key| key.name).collect()
    }

    /// A handle that ends runs early.
    pub fn handle(&self) -> Handle {
        Handle { world: Arc::downgrade(&self.world), asked: self.asked.clone(), forced: self.forced.clone() }
    }

    /// Runs until every run has ended or is blocked by something that cannot change here.
    pub async fn run(self) -> Vec<Ended> {
        let Self { world, stage, remarks, asked, forced } = self;
        for remark in remarks {
            stage.tell(Event::Remark(remark));
        }
        let options =
            DriverOptions { longest_backoff: LONGEST_BACKOFF, drain: FORCE_LIMIT, ..DriverOptions::default() };
        let driver = Driver::new(Arc::clone(&world), options);
        let requests = driver.requests();
        let shutdown = CancellationToken::new();
        let driving = driver.run(shutdown.clone());
        let names = world.names();
        let mut followers = JoinSet::new();
        world.ask_of(&requests);
        for name in &names {
            followers.spawn(follow::follow(Arc::clone(&world), name.clone(), requests.clone(), stage.clone()));
        }
        let is_open = |name: &Key| !world.is_given_up(name) && world.run(name).is_some_and(|run| !is_finished(&run));
        let (mut was_asked, mut forced_at) = (false, None::<Instant>);
        let mut undecided = Undecided::default();
        let settled = async {
            loop {
                let changed = world.changed.notified();
                world.troubles().give_up(Instant::now());
                let open: Vec<_> = names.iter().filter(|name| is_open(name)).collect();
                let are_settled = open.iter().filter_map(|name| world.run(name)).all(|run| is_stuck(&run));
                if are_settled && (was_asked || undecided.is_over(world.undecided().len(), Instant::now())) {
                    break;
                }
                if forced_at.is_some_and(|at| at.elapsed() >= FORCE_LIMIT) {
                    for name in open {
                        world.troubles().give_up_now(&run_id(name));
                    }
                    break;
                }
                tokio::select! {
                    biased;
                    () = forced.cancelled(), if forced_at.is_none() => {
                        forced_at = Some(Instant::now());
                        // What cannot even be killed in that time is given up below.
                        let _ = timeout(FORCE_LIMIT, world.kill_all()).await;
                    }
                    () = asked.cancelled(), if !was_asked => {
                        was_asked = true;
                        for name in &names {
                            requests.ask_now(run_id(name));
                        }
                    }
                    () = changed => {}
                    () = sleep(Duration::from_millis(100)) => {}
                }
            }
            // Those of stuck runs have nothing to follow; the others are about to end by themselves.
            let stuck = names.iter().filter(|name| is_open(name)).count();
            let last_words = async {
                while followers.len() > stuck {
                    followers.join_next().await;
                }
            };
            tokio::select! {
                () = last_words => {}
                // Output that nobody takes does not hold up who wants the end.
                () = async { forced.cancelled().await; sleep(FORCE_LIMIT).await } => {}
            }
            shutdown.cancel();
        };
        tokio::join!(driving, settled);
        for id in world.undecided() {
            stage.tell(Event::Remark(format!(
                "{}: what becomes of it could not be stored, or was not waited for",
                title(&id)
            )));
        }
        names
            .iter()
            .filter_map(|name| {
                let kept = Arc::clone(&world.place(name)?.folder);
                let folder = kept.path().to_owned();
                let mut run = Arc::unwrap_or_clone(world.run(name)?);
                let (unstored, trouble) = world.troubles().left(&run_id(name));
                run.status = unstored.or(run.status);
                Some(Ended { run, folder, trouble, kept })
            })
            .collect()
    }
}

/// What is still to be decided when all runs have come to their end: it is waited for as long as it becomes less.
#[derive(Debug, Default)]
struct Undecided {
    least: Option<(usize, Instant)>,
}

impl Undecided {
    /// Whether there is nothing left, or nothing has come of the rest for long enough.
    fn is_over(&mut self, left: usize, now: Instant) -> bool {
        match self.least {
            _ if left == 0 => true,
            Some((least, since)) if left >= least => now.saturating_duration_since(since) >= trouble::STORE_LIMIT,
            Some(_) | None => {
                self.least = Some((left, now));
                false
            }
        }
    }
}

fn select(manifests: &Manifests, names: &[String]) -> Result<Vec<(Key, RunManifest)>, EngineError> {
    let is_template = |run: &Resource<AgentRun>| {
        run.metadata.annotations.get(ANNOTATION_TEMPLATE).is_some_and(|value| value == "true")
    };
    let runs = || manifests.runs.iter().filter(|(_, manifest)| !is_template(&manifest.run));
    let known = || runs().map(|(name, _)| name.name.clone()).collect::<Vec<_>>();
    if let Some(name) = names.iter().find(|name| !runs().any(|(known, _)| known.name == **name)) {
        return Err(EngineError::UnknownRun { name: name.clone(), known: known() });
    }
    let wanted: BTreeSet<_> = names.iter().collect();
    let selected: Vec<_> = runs()
        .filter(|(name, _)| wanted.is_empty() || wanted.contains(&name.name))
        .map(|(name, manifest)| (name.clone(), manifest.clone()))
        .collect();
    if selected.is_empty() {
        return Err(EngineError::NoRun { templates: !manifests.runs.is_empty() });
    }
    Ok(selected)
}

/// Goes on from what is kept of objects beside the folders of runs. `None` where nothing is to be kept here.
fn resume(
    locks: &Locks,
    objects: &mut BTreeMap<Id, Arc<AnyResource>>,
    remarks: &mut Vec<String>,
) -> io::Result<Option<Records>> {
    let kind_of = |id: &Id| AnyKind::by_name(id.kind).filter(|kind| are_kept(kind));
    let mut kept = objects.iter_mut().filter_map(|(id, object)| Some((id, kind_of(id)?, object))).peekable();
    let Some((first, ..)) = kept.peek() else { return Ok(None) };
    let Some(records) = Records::open(locks)? else {
        remarks.push(format!(
            "another command works in {}: what becomes of {first} and the like is kept by it, and not by this one",
            locks.out().display()
        ));
        return Ok(None);
    };
    for (id, kind, object) in kept {
        *object = records.resume(kind, id, Arc::clone(object))?;
    }
    Ok(Some(records))
}

/// What lies among the manifests and was not read; for many of a kind one is named.
fn not_read(skipped: &[Skipped]) -> Vec<String> {
    let mut kinds: BTreeMap<&str, (&Path, usize)> = BTreeMap::new();
    for Skipped { path, why } in skipped {
        kinds.entry(why).or_insert((path, 0)).1 += 1;
    }
    let text = |(why, (path, count)): (&str, (&Path, usize))| match count {
        1 => format!("{} is not read: {why}", path.display()),
        count => format!("{} and {} more are not read: {why}", path.display(), count - 1),
    };
    kinds.into_iter().map(text).collect()
}

/// Most objects that are named as left out.
const MAX_LEFT_OUT: usize = 20;

/// What is told of objects that a cluster would act on, or another program.
fn left_out(objects: &[String]) -> Option<String> {
    let named = objects.iter().take(MAX_LEFT_OUT).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match objects.len().saturating_sub(MAX_LEFT_OUT) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!objects.is_empty()).then(|| format!("nothing here acts on {named}{more}"))
}

/// Turns a repository given by a path into an address.
fn place_repository(
    manifest: &mut RunManifest,
    parameters: &BTreeMap<String, String>,
    here: &Path,
) -> Result<(), EngineError> {
    let coordinates = manifest.run.spec.execution.as_mut().and_then(|execution| execution.coordinates.as_mut());
    let Some(git) = coordinates.and_then(|coordinates| coordinates.git.as_mut()) else {
        return Ok(());
    };
    let (url, folder) = match parameters.get(REPOSITORY_PARAMETER) {
        Some(given) => (given.clone(), here),
        None => (git.url.clone(), manifest.folder.as_path()),
    };
    let address = repository::address(&url, folder).map_err(|source| EngineError::Repository {
        run: manifest.run.metadata.name.clone(),
        url: url.clone(),
        source,
    })?;
    git.url = address.unwrap_or(url);
    Ok(())
}

fn wants_another_runtime(run: &Resource<AgentRun>, manifests: &Manifests) -> bool {
    let key = Key::new(&run.metadata.namespace, run.spec.agent_ref.name.as_str());
    let agent = manifests.objects.get(&Id::new(Agent::KIND, key)).and_then(|agent| agent.downcast_ref());
    let wanted = Terms::of(run, agent).runtime;
    wanted.is_some_and(|kind| kind != RuntimeKind::Process)
}

/// Whether a run waits for something that a fixed folder of manifests will never bring.
fn is_stuck(run: &Resource<AgentRun>) -> bool {
    let Some(status) = &run.status else { return false };
    let lives = open_attempt(status).is_some();
    let waits_for_ever = |reason: &str| Reason::parse(reason).is_some_and(Reason::is_cured_by_hand);
    status.phase.is_some_and(|phase| !phase.is_terminal() && phase != Phase::Template)
        && !lives
        && run.spec.cancel != Some(true)
        && status.blocked_by.iter().any(|blocked| waits_for_ever(&blocked.reason))
}

/// Secrets of the manifests, else the variable of the same name that the engine was started with.
#[derive(Debug)]
struct LocalSecrets(BTreeMap<Key, SecretData>);

impl SecretSource for LocalSecrets {
    fn value(&self, namespace: &str, wanted: &SecretEnv) -> Option<SecretValue> {
        let secret = self.0.get(&Key::new(namespace, wanted.secret_name.as_str()));
        let value = secret.and_then(|SecretData(data)| data.get(&wanted.key));
        match value {
            // No variable can hold a NUL.
            Some(value) if value.contains(&0) => None,
            Some(value) => Some(SecretValue::new(OsStr::from_bytes(value))),
            None => std::env::var_os(&wanted.name).map(SecretValue::new),
        }
    }

    fn why_none(&self, namespace: &str, wanted: &SecretEnv) -> String {
        let SecretEnv { name, secret_name, key, .. } = wanted;
        let secret = self.0.get(&Key::new(namespace, secret_name.as_str()));
        match secret.map(|SecretData(data)| data.contains_key(key)) {
            Some(true) => format!("the value of the key {key:?} of the Secret {secret_name:?} has a NUL"),
            Some(false) => format!(
                "the Secret {secret_name:?} of the manifests has no key {key:?}, and the environment no variable {name}"
            ),
            None => format!("the manifests have no Secret {secret_name:?}, and the environment no variable {name}"),
        }
    }
}
