//! Where the cluster's programs come from: `KUBEBUILDER_ASSETS`, or a Go build that is done once per machine.
//!
//! A build is named by its inputs, made beside its place and renamed into it, under a lock: two checkouts that ask for
//! the same one wait for each other and build once. Nothing is ever written into the work tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};

use super::processes::run;
use super::progress::Progress;

/// One pinned set of modules, `tests/cluster/<name>`, and the commands built from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModuleSet {
    pub(super) name: &'static str,
    /// Package and the name of its binary.
    commands: &'static [(&'static str, &'static str)],
    /// The module whose version is linked in, where clients cannot read the answer without it.
    stamped: Option<&'static str>,
}

pub(super) const ETCD: ModuleSet =
    ModuleSet { name: "etcd", commands: &[("go.etcd.io/etcd/server/v3", "etcd")], stamped: None };

pub(super) const KUBERNETES: ModuleSet = ModuleSet {
    name: "kubernetes",
    commands: &[
        ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
        ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
        ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
        ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    ],
    stamped: Some("k8s.io/kubernetes"),
};

pub(super) const CONTAINERD: ModuleSet = ModuleSet {
    name: "containerd",
    commands: &[
        ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
        ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
        ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
    ],
    stamped: None,
};

pub(super) const HELM: ModuleSet =
    ModuleSet { name: "helm", commands: &[("helm.sh/helm/v4/cmd/helm", "helm")], stamped: None };

/// The module sets a cluster needs when it is built here.
pub(super) fn needed(node: bool) -> Vec<ModuleSet> {
    let mut sets = vec![ETCD, KUBERNETES];
    if node {
        sets.push(CONTAINERD);
    }
    sets
}

impl ModuleSet {
    fn source(&self) -> PathBuf {
        crate::workspace().join("tests/cluster").join(self.name)
    }

    fn linker_flags(&self) -> Result<String> {
        let mut flags = "-s -w".to_owned();
        if let Some(module) = self.stamped {
            let file = self.source().join("go.mod");
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let version =
                pinned_version(&text, module).with_context(|| format!("{} does not pin {module}", file.display()))?;
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
            for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                flags.push_str(" -X k8s.io/component-base/version.");
                flags.push_str(name);
                flags.push('=');
                flags.push_str(value);
            }
        }
        Ok(flags)
    }

    fn arguments(&self) -> Result<Vec<String>> {
        Ok(vec![
            "build".to_owned(),
            "-v".to_owned(),
            "-mod=readonly".to_owned(),
            "-buildvcs=false".to_owned(),
            "-trimpath".to_owned(),
            format!("-ldflags={}", self.linker_flags()?),
        ])
    }

    /// The folder that holds, or will hold, the built commands.
    fn place(&self) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for name in ["go.mod", "go.sum"] {
            let file = self.source().join(name);
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        }
        for argument in self.arguments()? {
            hash.update(argument.as_bytes());
            hash.update([0]);
        }
        for (package, binary) in self.commands {
            hash.update(format!("{package} {binary}\n"));
        }
        hash.update(std::env::consts::ARCH);
        Ok(cache_root()?.join(format!("{}-{}", self.name, hex(&hash.finalize()[..8]))))
    }

    /// Whether a build of exactly these inputs is there.
    pub(super) fn is_built(&self) -> bool {
        self.place().is_ok_and(|place| place.is_dir())
    }

    /// The folder of the built commands; builds them first where they are missing.
    pub(super) fn build(&self, progress: &Progress) -> Result<PathBuf> {
        let place = self.place()?;
        if place.is_dir() {
            return Ok(place);
        }
        let _lock = lock(&place.with_extension("lock"), self.name, progress)?;
        if place.is_dir() {
            return Ok(place);
        }
        let partial = place.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        self.compile(&partial, progress)?;
        // The last part of a module's path can be its version, and Go then names the binary by the part before.
        for (package, binary) in self.commands {
            let named = partial.join(go_name(package));
            fs::rename(&named, partial.join(binary))
                .with_context(|| format!("go built no {} for {package}", named.display()))?;
        }
        fs::rename(&partial, &place).with_context(|| format!("cannot move the build to {}", place.display()))?;
        Ok(place)
    }

    fn compile(&self, output: &Path, progress: &Progress) -> Result<()> {
        let started = Instant::now();
        progress.tell(&format!("building {} with go, once per machine", self.name));
        let mut child = Command::new("go")
            .args(self.arguments()?)
            .arg("-o")
            .arg(format!("{}/", output.display()))
            .args(self.commands.iter().map(|(package, _)| package))
            .current_dir(self.source())
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .env_remove("GOFLAGS")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    anyhow!("go is missing; install Go 1.26 or newer from https://go.dev/dl and put it on PATH")
                }
                _ => anyhow!(error).context("cannot run go"),
            })?;
        let mut tail = Tail::default();
        let mut told = Instant::now();
        let mut packages = 0_usize;
        for line in BufReader::new(child.stderr.take().context("go has no standard error")?).lines() {
            let line = line.context("cannot read what go prints")?;
            packages += usize::from(!line.starts_with("go: "));
            tail.push(line);
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                progress.tell(&format!(
                    "building {} with go, once per machine: {packages} packages in {} s",
                    self.name,
                    started.elapsed().as_secs()
                ));
            }
        }
        let status = child.wait().context("cannot wait for go")?;
        if !status.success() {
            bail!("go build of tests/cluster/{} ended with {status}:\n{}", self.name, tail.text());
        }
        progress.tell(&format!("built {} in {} s", self.name, started.elapsed().as_secs()));
        Ok(())
    }
}

/// The last lines of an output, for an error's text.
#[derive(Default)]
struct Tail(std::collections::VecDeque<String>);

impl Tail {
    fn push(&mut self, line: String) {
        if self.0.len() == 30 {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// The name `go build` gives the binary of a package.
fn go_name(package: &str) -> &str {
    let mut parts = package.rsplit('/');
    let last = parts.next().unwrap_or(package);
    let is_version = last.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    if is_version { parts.next().unwrap_or(last) } else { last }
}

fn pinned_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word == "require");
        if words.next()? != module {
            return None;
        }
        words.next().filter(|word| word.starts_with('v'))
    })
}

/// Everything built or fetched once per machine: `$XDG_CACHE_HOME/agents-test`, by default below `~/.cache`.
pub(crate) fn cache_root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(given) => PathBuf::from(given),
        None => std::env::home_dir().context("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    let root = base.join("agents-test");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    Ok(root)
}

/// Takes a lock that ends with this process, and says so when somebody else holds it.
pub(super) fn lock(path: &Path, what: &str, progress: &Progress) -> Result<File> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            progress.tell(&format!("waiting for another process that makes {what}"));
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// The programs of one cluster by name.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds or finds what a cluster of this kind needs.
    pub(super) fn prepare(way: &Way, node: bool, progress: &Progress) -> Result<Self> {
        let mut programs = Self::default();
        match way {
            Way::Assets { dir } => {
                for name in ASSETS {
                    programs.0.insert((*name).to_owned(), dir.join(name));
                }
            }
            Way::Built | Way::Build { .. } => {
                for set in needed(node) {
                    programs.add(set, progress)?;
                }
            }
        }
        Ok(programs)
    }

    pub(super) fn add(&mut self, set: ModuleSet, progress: &Progress) -> Result<()> {
        let place = set.build(progress)?;
        for (_, binary) in set.commands {
            self.0.insert((*binary).to_owned(), place.join(binary));
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &str) -> Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| {
            format!(
                "this cluster has no {name}; it has {}",
                self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
            )
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

const ASSETS: &[&str] = &["etcd", "kube-apiserver", "kubectl"];

/// How the programs of a cluster are got on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the folder that `KUBEBUILDER_ASSETS` names. It holds no controller manager and no scheduler: there are no
    /// default service accounts, Jobs make no pods, and nothing is garbage-collected.
    Assets {
        /// The folder.
        dir: PathBuf,
    },
    /// From earlier Go builds in the cache.
    Built,
    /// From Go builds that still have to be done, minutes for the first of each.
    Build {
        /// The module sets to build.
        sets: Vec<&'static str>,
    },
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Assets { dir } => write!(
                f,
                "etcd and kube-apiserver of KUBEBUILDER_ASSETS ({}), without controller manager and scheduler",
                dir.display()
            ),
            Self::Built => write!(f, "programs built earlier with go"),
            Self::Build { sets } => write!(f, "a go build of {}", sets.join(", ")),
        }
    }
}

/// Why no cluster can run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What a person does about it; a command where there is one.
    pub how_to_fix: String,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.reason, self.how_to_fix)
    }
}

impl std::error::Error for Unavailable {}

/// Finds the way to a cluster's programs.
pub(super) fn way(node: bool) -> Result<Way, Unavailable> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()).map(PathBuf::from);
    choose(assets, node, &needed(node), ModuleSet::is_built, || run(Command::new("go").arg("version")).is_ok())
}

fn choose(
    assets: Option<PathBuf>,
    node: bool,
    sets: &[ModuleSet],
    is_built: impl Fn(&ModuleSet) -> bool,
    has_go: impl Fn() -> bool,
) -> Result<Way, Unavailable> {
    // Assets hold no kubelet, so that a cluster with a node never comes from them.
    if let Some(dir) = assets.filter(|_| !node) {
        let missing: Vec<_> = ASSETS.iter().filter(|name| !dir.join(name).is_file()).copied().collect();
        if missing.is_empty() {
            return Ok(Way::Assets { dir });
        }
        return Err(Unavailable {
            reason: format!("KUBEBUILDER_ASSETS is {}, which has no {}", dir.display(), missing.join(", ")),
            how_to_fix: "fill it with `setup-envtest use`, or unset it to build with go".to_owned(),
        });
    }
    let missing: Vec<_> = sets.iter().filter(|set| !is_built(set)).map(|set| set.name).collect();
    if missing.is_empty() {
        return Ok(Way::Built);
    }
    if has_go() {
        return Ok(Way::Build { sets: missing });
    }
    Err(Unavailable {
        reason: format!("the cluster's programs ({}) are not built, and go is not on PATH", missing.join(", ")),
        how_to_fix: if node {
            "install Go 1.26 or newer (https://go.dev/dl); a cluster with a node has no other way yet, for \
             KUBEBUILDER_ASSETS holds no kubelet and a cluster in Docker is not supported"
        } else {
            "install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd, \
             kube-apiserver and kubectl (`setup-envtest use -p path`); a cluster in Docker is not supported yet"
        }
        .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_a_binary_by_the_part_before_a_version() {
        assert_eq!(go_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(go_name("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
        assert_eq!(go_name("example.com/vault"), "vault");
    }

    #[test]
    fn every_set_has_its_modules_and_a_readable_version() {
        for set in [ETCD, KUBERNETES, CONTAINERD, HELM] {
            set.place().unwrap();
        }
        let flags = KUBERNETES.linker_flags().unwrap();
        assert!(flags.contains("gitVersion=v1.") && flags.contains("gitMajor=1 "), "{flags}");
    }

    #[test]
    fn the_assets_come_first_and_only_without_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let assets = Some(dir.path().to_owned());
        let error = choose(assets.clone(), false, &needed(false), |_| true, || true).unwrap_err();
        assert!(error.reason.contains("no etcd, kube-apiserver, kubectl"), "{error}");

        for name in ASSETS {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let way = choose(assets.clone(), false, &needed(false), |_| false, || false).unwrap();
        assert_eq!(way, Way::Assets { dir: dir.path().to_owned() });
        assert_eq!(choose(assets, true, &needed(true), |_| true, || false).unwrap(), Way::Built);
    }

    #[test]
    fn without_go_every_way_is_named() {
        let error = choose(None, false, &needed(false), |set| set.name == "etcd", || false).unwrap_err();
        assert!(error.reason.contains("(kubernetes)"), "{error}");
        for word in ["Go", "KUBEBUILDER_ASSETS", "Docker"] {
            assert!(error.how_to_fix.contains(word), "{error}");
        }
        let built = choose(None, true, &needed(true), |set| set.name == "etcd", || true).unwrap();
        assert_eq!(built, Way::Build { sets: vec!["kubernetes", "containerd"] });
    }
}
