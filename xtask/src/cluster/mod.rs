//! The test cluster: a real Kubernetes of this machine's own, for tests and benches and for a person to look at.
//!
//! It may start programs and write below its folder and the cache, and on the machine it touches what `folder.rs` can
//! take away again. The control plane needs no rights; a node needs root and lives in namespaces of its own (`node.rs`).
//! A harness's cluster dies with the harness, however that ends; `cargo xtask cluster up` leaves one running.

mod certificates;
mod cgroups;
pub mod cli;
mod clients;
mod control_plane;
mod folder;
pub mod image;
pub mod images;
mod launching;
mod layout;
mod network;
mod node;
mod packages;
mod probe;
mod processes;
pub mod product;
mod programs;
mod progress;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use folder::{Folder, last_lines};
pub use layout::Component;
use layout::{Layout, Ports};
use network::Network;
pub use node::NAME as NODE_NAME;
pub use processes::Lifetime;
use processes::{COLLECT_SELDOM, Identity, Spawner, child_of, run, run_with_input};
use programs::Programs;
pub(crate) use programs::cache_root;
pub use programs::{Unavailable, Way};
pub use progress::Progress;

use crate::workspace;

/// How long one step of a start may take; generous, for two cores may be shared by a build.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// With a node that runs pods; else the API and, unless its programs come from `KUBEBUILDER_ASSETS`, the controllers.
    pub node: bool,
    /// The data folder, emptied first; by default one of its own below the workspace's `.agents/clusters`.
    pub dir: Option<PathBuf>,
    /// Whether the cluster ends with this process.
    pub lifetime: Lifetime,
    /// Where the steps are told.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self { node: false, dir: None, lifetime: Lifetime::Harness, progress: Progress::silent() }
    }
}

/// The folder of the cluster that `cargo xtask cluster up` starts by default.
pub fn default_dir() -> PathBuf {
    workspace().join(".agents/cluster")
}

/// Whether a cluster can be started here, and where its programs come from. Nothing is installed or built.
pub fn availability(node: bool) -> Result<Way, Unavailable> {
    if !cfg!(target_os = "linux") {
        return Err(Unavailable {
            reason: "the test cluster runs on Linux only".to_owned(),
            how_to_fix: "run it in a Linux machine or container".to_owned(),
        });
    }
    for name in ["setsid", "setpriv"] {
        if packages::locate(name).is_none() {
            return Err(Unavailable {
                reason: format!("{name} is missing"),
                how_to_fix: "install util-linux".to_owned(),
            });
        }
    }
    if node {
        if let Some((reason, how_to_fix)) = node::obstacle() {
            return Err(Unavailable { reason: reason.to_owned(), how_to_fix: how_to_fix.to_owned() });
        }
        packages::check(packages::NODE)?;
    }
    programs::way(node)
}

/// A running cluster.
///
/// With [`Lifetime::Harness`] it is stopped and taken away when dropped. A value that is never dropped, e.g. in a
/// static, ends with the process all the same, and the next start on this machine removes its folder.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    progress: Progress,
    spawner: Spawner,
    /// The programs this process started, to be reaped.
    children: Mutex<BTreeMap<Component, Child>>,
    stopped: bool,
}

impl Cluster {
    /// Builds or installs what is missing, starts a cluster and waits until it is ready.
    pub fn start(options: Options) -> Result<Self> {
        let Options { node, dir, lifetime, progress } = options;
        let way = availability(node)?;
        if node {
            packages::ensure(packages::NODE, &progress)?;
        }
        let programs = Programs::prepare(&way, node, &progress)?;
        let images = if node { Some(images::Basic::prepare(&progress)?) } else { None };

        let dir = match dir {
            Some(dir) => dir,
            None => workspace().join(".agents/clusters").join(unique_name()),
        };
        let folder = Folder::at(&dir)?;
        folder.create(lifetime, &progress)?;
        let ports = Ports::choose(&folder.key)?;
        let mut cluster = Self {
            layout: Layout { folder, lifetime, programs, ports, network: None },
            progress,
            spawner: Spawner::new(lifetime)?,
            children: Mutex::default(),
            stopped: false,
        };
        // From here on, an error drops the cluster, which takes it away.
        match cluster.bring_up(images.as_ref()) {
            Ok(()) => Ok(cluster),
            Err(error) => {
                if let Err(cleaning) = cluster.take_away() {
                    return Err(error.context(format!("and it could not be taken away: {cleaning:#}")));
                }
                Err(error)
            }
        }
    }

    fn bring_up(&mut self, images: Option<&images::Basic>) -> Result<()> {
        if images.is_some() {
            self.start_namespaces()?;
        }
        let Layout { folder, ports, network, .. } = &self.layout;
        control_plane::write_files(folder, *ports, network.as_ref())?;
        if let Some(network) = network {
            node::write_files(folder, network)?;
        }
        folder.write_json("cluster.json", &self.layout)?;
        for component in self.layout.components().filter(|component| *component != Component::Namespaces) {
            // These give up when they find no API server, where the others try again.
            if component == Component::ControllerManager {
                self.wait(Component::ApiServer)?;
            }
            self.launch(component)?;
            if component == Component::Containerd {
                self.wait(component)?;
                for image in images.into_iter().flat_map(images::Basic::archives) {
                    self.import_archive(image)?;
                }
            }
        }
        for component in self.layout.components() {
            self.wait(component)?;
        }
        if self.layout.has_controllers() {
            self.until("the first service account", None, || {
                self.kubectl(&["get", "serviceaccount", "default", "--namespace=default"]).map(drop)
            })?;
        }
        if self.layout.network.is_some() {
            self.until("a ready node", Some(Component::Kubelet), || {
                self.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", &format!("node/{NODE_NAME}")])
                    .map(drop)
            })?;
        }
        Ok(())
    }

    fn start_namespaces(&mut self) -> Result<()> {
        let folder = self.layout.folder.clone();
        folder::make_mount_points(node::HIDDEN, &self.progress)?;
        self.launch(Component::Namespaces)?;
        let ready = folder.file("namespaces-ready");
        self.until("the node's namespaces", Some(Component::Namespaces), || {
            if ready.exists() { Ok(()) } else { bail!("not yet there") }
        })?;
        let first = self.layout.identity(Component::Namespaces).context("the namespaces have no first process")?;
        let network = Network::connect(&folder.key, first.pid)?;
        folder.write_json("network.json", &network)?;
        self.layout.network = Some(network);
        Ok(())
    }

    /// Takes hold of a cluster that another process started; `None` if there is none in this folder.
    pub fn attach(dir: &Path) -> Result<Option<Self>> {
        let folder = Folder::at(dir)?;
        let Some(layout) = folder.read_json::<Layout>("cluster.json") else {
            return Ok(None);
        };
        Ok(Some(Self {
            spawner: Spawner::new(layout.lifetime)?,
            layout,
            progress: Progress::silent(),
            children: Mutex::default(),
            // Whoever started it ends it.
            stopped: true,
        }))
    }

    /// Takes away the cluster of a folder, or what a crash left of it; `false` if there was nothing.
    pub fn take_down(dir: &Path) -> Result<bool> {
        let folder = Folder::at(dir)?;
        let used = folder.is_used();
        folder.remove(&Progress::silent())?;
        Ok(used)
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        &self.layout.folder.data
    }

    /// Whether every component runs.
    fn is_whole(&self) -> bool {
        let mut components = self.layout.components();
        components.all(|component| self.layout.identity(component).is_some_and(|identity| identity.is_alive()))
    }

    /// The kubeconfig of an administrator; self-contained, it may be copied.
    pub fn kubeconfig(&self) -> PathBuf {
        clients::kubeconfig(&self.layout)
    }

    /// The API server's log of every request, one JSON `audit.k8s.io/v1` Event a line, complete when a request returns.
    pub fn audit_log(&self) -> PathBuf {
        self.layout.folder.file("audit.log")
    }

    /// The log of a component.
    pub fn log(&self, component: Component) -> PathBuf {
        self.layout.folder.log(component.name())
    }

    /// The place of a program of the cluster, e.g. `kubectl` or `ctr`.
    pub fn bin(&self, name: &str) -> Result<PathBuf> {
        self.layout.programs.path(name).map(Path::to_owned)
    }

    /// Whether there is a controller manager and a scheduler.
    pub fn has_controllers(&self) -> bool {
        self.layout.has_controllers()
    }

    /// The machine's address as pods see it, for servers that a test runs outside; `None` without a node.
    pub fn machine_address(&self) -> Option<Ipv4Addr> {
        self.layout.network.as_ref().map(Network::machine)
    }

    /// Runs kubectl as administrator and returns its standard output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(clients::kubectl(&self.layout)?.args(arguments))
    }

    /// The same with standard input, e.g. for `apply --filename=-`.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        run_with_input(clients::kubectl(&self.layout)?.args(arguments), input)
    }

    /// Runs helm as administrator, built first where it is missing, and returns its standard output.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let program = helm_program(&self.progress)?;
        run(Command::new(program)
            .env(COLLECT_SELDOM.0, COLLECT_SELDOM.1)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HELM_CACHE_HOME", self.layout.folder.file("helm/cache"))
            .env("HELM_CONFIG_HOME", self.layout.folder.file("helm/config"))
            .env("HELM_DATA_HOME", self.layout.folder.file("helm/data"))
            .args(arguments))
    }

    /// Gives the node an image; pods then name it with `imagePullPolicy: IfNotPresent` or `Never`.
    pub fn import_image(&self, image: &image::ImageSpec) -> Result<()> {
        let archive = tempfile::Builder::new()
            .suffix(".tar")
            .tempfile_in(self.dir())
            .context("cannot make a file for the image")?;
        image.write(archive.path())?;
        self.import_archive(archive.path())
    }

    /// The same from a file in Docker's format.
    pub fn import_archive(&self, archive: &Path) -> Result<()> {
        self.layout.network()?;
        clients::ctr(&self.layout)?
            .args(["--namespace=k8s.io", "images", "import", "--local"])
            .arg(archive)
            .output()
            .context("cannot run ctr")
            .and_then(|output| {
                if !output.status.success() {
                    bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
                }
                Ok(())
            })
            .with_context(|| format!("cannot import {}", archive.display()))
    }

    /// The process of a component.
    pub fn pid(&self, component: Component) -> Result<i32> {
        let identity = self.layout.identity(component).filter(Identity::is_alive);
        identity.map(|identity| identity.pid).with_context(|| format!("{component:?} does not run"))
    }

    /// Kills a component with SIGKILL and waits until it is gone.
    pub fn kill9(&self, component: Component) -> Result<()> {
        if let Some(identity) = self.layout.identity(component) {
            identity.kill()?;
            identity.wait_gone(START_LIMIT)?;
        }
        if let Some(mut child) = self.children().remove(&component) {
            child.wait().context("cannot reap it")?;
        }
        Ok(())
    }

    /// Starts a component again, killing it first if it runs, and waits until it is ready.
    pub fn restart(&self, component: Component) -> Result<()> {
        if component == Component::Namespaces {
            bail!("the node's namespaces cannot be started again; start another cluster");
        }
        self.kill9(component)?;
        self.launch(component)?;
        self.wait(component)
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<Component, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, component: Component) -> Result<()> {
        let folder = &self.layout.folder;
        let launch = launching::launch(&self.layout, component)?;
        let log = folder.log(component.name());
        let mut child = self.spawner.spawn(&folder.data, &log, &launch)?;
        let outer = i32::try_from(child.id()).context("a pid is out of range")?;
        let deadline = Instant::now() + START_LIMIT;
        let identity = loop {
            let found = if component.is_wrapped() { child_of(outer) } else { Identity::of(outer) };
            if let Some(identity) = found {
                break identity;
            }
            if let Some(status) = child.try_wait().context("cannot ask for the exit status")? {
                bail!("{} ended with {status}:\n{}", component.name(), last_lines(&log, 20));
            }
            if Instant::now() > deadline {
                bail!("{} did not appear", component.name());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        folder.record_pid(component.name(), &identity)?;
        self.children().insert(component, child);
        Ok(())
    }

    /// Waits until a component answers; ends early, with the end of its log, if it dies.
    fn wait(&self, component: Component) -> Result<()> {
        self.until(component.name(), Some(component), || probe::ready(&self.layout, component))
    }

    fn until(&self, what: &str, component: Option<Component>, mut ready: impl FnMut() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let last = match ready() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let log = component.map(|component| self.log(component));
            let tail =
                || log.as_deref().map(|log| format!("; its log ends:\n{}", last_lines(log, 20))).unwrap_or_default();
            let alive = component
                .is_none_or(|component| self.layout.identity(component).is_some_and(|identity| identity.is_alive()));
            if !alive {
                bail!("{what} has ended{}", tail());
            }
            if Instant::now() > deadline {
                return Err(last.context(format!("{what} is not ready after {} s{}", START_LIMIT.as_secs(), tail())));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Stops the cluster and takes away all that it made.
    pub fn stop(mut self) -> Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<()> {
        self.stopped = true;
        let result = self.layout.folder.remove(&self.progress);
        for (_, mut child) in std::mem::take(&mut *self.children()) {
            child.wait().ok();
        }
        result
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.stopped && self.layout.lifetime == Lifetime::Harness {
            // The next start cleans what stays, and there is nobody left to tell.
            self.take_away().ok();
        }
    }
}

/// The helm of the pinned modules, built first where it is missing.
pub fn helm_program(progress: &Progress) -> Result<PathBuf> {
    let mut programs = Programs::default();
    programs.add(programs::HELM, progress)?;
    programs.path("helm").map(Path::to_owned)
}

fn unique_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes sure that there is an npm, which the tests install published agent CLIs with: a person's own, or the system's.
///
/// # Errors
/// There is none and it may not be installed here; the text names the command that does.
pub fn ensure_npm(progress: &Progress) -> Result<()> {
    let own = std::process::Command::new("npm").arg("--version").output();
    if own.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    packages::ensure(&[packages::NPM], progress)
}
