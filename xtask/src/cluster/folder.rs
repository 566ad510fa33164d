//! A cluster's two folders, the record of who owns it, and how everything it made is taken away again.
//!
//! The data folder holds it all: configuration, keys, logs, databases, images, pid files. The run folder is short, for
//! sockets (their paths end at 107 bytes), and its existence registers the cluster: the next start on this machine
//! finds there what a killed harness could not clean. Taking away is one function that never trusts a single record, so
//! that it works after a crash at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::cgroups;
use super::network::Network;
use super::processes::{Identity, Lifetime, marked};
use super::programs::{hex, lock};
use super::progress::Progress;

/// How long killed processes and removed control groups may take to vanish.
const LIMIT: Duration = Duration::from_secs(20);

/// Says in a data folder that it is one, and whose.
const OWNER: &str = "owner.json";
const OWNER_PARTIAL: &str = "owner.partial";

/// The places of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub(super) data: PathBuf,
    pub(super) run: PathBuf,
    /// Eight hexadecimal digits of the data folder's path; names whatever must be unique on the machine.
    pub(super) key: String,
}

/// Who may take a cluster away without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Owner {
    /// It belongs to this process and is rubbish once that has ended.
    Harness(Identity),
    /// It stays until it is asked down.
    Person,
}

impl Folder {
    /// The folder at this path; nothing is created.
    pub(super) fn at(data: &Path) -> Result<Self> {
        let data = std::path::absolute(data).with_context(|| format!("{} is no path", data.display()))?;
        let key = hex(&Sha256::digest(data.as_os_str().as_encoded_bytes())[..4]);
        Ok(Self { run: run_root().join(&key), data, key })
    }

    /// Creates the folders empty and registers the owner, after taking away what stood there.
    pub(super) fn create(&self, lifetime: Lifetime, progress: &Progress) -> Result<()> {
        let root = run_root();
        // One at a time, so that no start takes a folder that another has not registered yet for rubbish.
        let _lock = take_turn(&root, progress)?;
        for stale in stale(&root)? {
            progress.tell(&format!("cleaning up after a test cluster that was killed, {}", stale.data.display()));
            stale.remove_in_turn(&root)?;
        }
        self.remove_in_turn(&root)?;
        // Registered first: whatever a crash leaves from here on is found by the next start.
        create_private(&self.run)?;
        std::os::unix::fs::symlink(&self.data, self.run.join("data")).context("cannot register the cluster")?;
        create_private(&self.data)?;
        let owner = match lifetime {
            Lifetime::Harness => Owner::Harness(Identity::own()?),
            Lifetime::Person => Owner::Person,
        };
        self.write_json(OWNER, &owner)?;
        for name in ["pids", "log", "pki"] {
            create_private(&self.data.join(name))?;
        }
        Ok(())
    }

    /// Refuses a data folder with anything in it that no cluster was made in: it is somebody's own.
    fn check_ours(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.data) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", self.data.display())),
        };
        // A crash can leave the owner half written, and then nothing else is there. Of a folder deleted by hand, living
        // programs make parts again; the registration tells whose they are.
        let registered = fs::read_link(self.run.join("data")).is_ok_and(|data| data == self.data);
        let foreign = entries.flatten().any(|entry| entry.file_name() != OWNER_PARTIAL);
        if foreign && !registered && !self.file(OWNER).exists() {
            bail!("{} is not empty and not the folder of a test cluster; name another one", self.data.display());
        }
        Ok(())
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// The file at this place, as text for a command line.
    pub(super) fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.data.join("log").join(format!("{name}.log"))
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        // Readers in other processes must see either the old or the new text.
        let partial = path.with_extension("partial");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.write(name, &serde_json::to_string_pretty(value).context("cannot write JSON")?)
    }

    /// `None` if there is no such file, or if a crash left it torn.
    pub(super) fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.file(name)).ok()?).ok()
    }

    pub(super) fn record_pid(&self, name: &str, identity: &Identity) -> Result<()> {
        self.write_json(&format!("pids/{name}"), identity)
    }

    pub(super) fn pids(&self) -> BTreeMap<String, Identity> {
        let Ok(entries) = fs::read_dir(self.file("pids")) else {
            return BTreeMap::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let identity = self.read_json(&format!("pids/{name}"))?;
                Some((name, identity))
            })
            .collect()
    }

    /// Whether anything of a cluster is here: its folders or its processes.
    pub(super) fn is_used(&self) -> bool {
        self.data.join(OWNER).exists() || self.run.exists() || !marked(&self.data).is_empty()
    }

    fn owner_is_gone(&self) -> bool {
        match self.read_json(OWNER) {
            Some(Owner::Harness(identity)) => !identity.is_alive(),
            Some(Owner::Person) => false,
            // A crash between making the folder and registering it, or a folder that somebody deleted by hand.
            None => true,
        }
    }

    /// Ends every process of the cluster and takes away all that it made. Safe to repeat, and after any crash.
    pub(super) fn remove(&self, progress: &Progress) -> Result<()> {
        let root = run_root();
        let _lock = take_turn(&root, progress)?;
        self.remove_in_turn(&root)
    }

    fn remove_in_turn(&self, root: &Path) -> Result<()> {
        self.check_ours()?;
        self.kill_all()?;
        if let Some(network) = self.read_json::<Network>("network.json") {
            network.remove(LIMIT)?;
        }
        for dir in [&self.run, &self.data] {
            unmount_below(dir)?;
        }
        cgroups::remove(&self.key, LIMIT)?;
        // The owner and the registration go last, so that a crash in here is found again.
        for entry in fs::read_dir(&self.data).into_iter().flatten().flatten() {
            if entry.file_name() != OWNER && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path())?;
            }
        }
        for dir in [&self.data, &self.run] {
            remove_tree(dir)?;
        }
        remove_mount_points(root)
    }

    fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let recorded: Vec<Identity> = self.pids().into_values().collect();
        for identity in &recorded {
            identity.kill()?;
        }
        // The wrappers outside a namespace reap what ended inside. Killed too early they would leave that to the
        // machine's first process, which takes its time, and the namespace stays until then.
        for identity in &recorded {
            identity.wait_gone(Duration::from_secs(5)).ok();
        }
        loop {
            // A process may start another one between the look and the kill.
            let found = marked(&self.data);
            if found.is_empty() {
                break;
            }
            for identity in &found {
                identity.kill()?;
            }
            if Instant::now() > deadline {
                bail!(
                    "processes of {} do not end: {:?}",
                    self.data.display(),
                    found.iter().map(|p| p.pid).collect::<Vec<_>>()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // The first process of a namespace hides its environment while it waits for the others in it to end.
        for identity in &recorded {
            identity.wait_gone(deadline.saturating_duration_since(Instant::now()))?;
        }
        Ok(())
    }
}

fn create_private(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create {}", dir.display()))
}

/// Where clusters are registered: below `/run` for root, else in the person's own run folder.
fn run_root() -> PathBuf {
    let user = rustix::process::getuid();
    if user.is_root() {
        return PathBuf::from("/run/agents-test");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("agents-test"),
        None => std::env::temp_dir().join(format!("agents-test-{}", user.as_raw())),
    }
}

/// Waits until no other cluster of this person is being made or taken away.
fn take_turn(root: &Path, progress: &Progress) -> Result<File> {
    create_private(root)?;
    // In a temporary folder that all share, somebody else could have made it first and would rule over its links.
    let owner = fs::symlink_metadata(root).with_context(|| format!("cannot look at {}", root.display()))?.uid();
    if owner != rustix::process::getuid().as_raw() {
        bail!("{} belongs to another user (id {owner}); set XDG_RUNTIME_DIR to a folder of your own", root.display());
    }
    lock(&root.join("lock"), "or ends a test cluster", progress)
}

/// The list of folders made for nodes, beside the registrations.
const MOUNT_POINTS: &str = "mount-points";

fn listed(list: &Path) -> BTreeSet<PathBuf> {
    fs::read_to_string(list).unwrap_or_default().lines().map(PathBuf::from).collect()
}

/// Makes folders of the machine that a node hides under mounts of its own, where they are missing.
///
/// Several nodes mount on the same ones, and removing a folder tears it from the namespaces of all; so the last
/// cluster of the machine removes them, and there is one list of what was not there before.
pub(super) fn make_mount_points(wanted: &[&str], progress: &Progress) -> Result<()> {
    let root = run_root();
    let _lock = take_turn(&root, progress)?;
    let list = root.join(MOUNT_POINTS);
    let mut made = listed(&list);
    made.extend(wanted.iter().map(PathBuf::from).filter(|dir| !dir.exists()));
    let lines: Vec<String> = made.iter().map(|dir| dir.display().to_string()).collect();
    fs::write(&list, lines.join("\n")).with_context(|| format!("cannot write {}", list.display()))?;
    for dir in &made {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    Ok(())
}

/// Removes what was made for nodes once no cluster is registered any more.
fn remove_mount_points(root: &Path) -> Result<()> {
    let mut entries = fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))?.flatten();
    let list = root.join(MOUNT_POINTS);
    if !list.exists() || entries.any(|entry| entry.path().is_dir()) {
        return Ok(());
    }
    for dir in listed(&list) {
        // Only when empty: whatever else uses it by now keeps it.
        fs::remove_dir(dir).ok();
    }
    fs::remove_file(&list).with_context(|| format!("cannot remove {}", list.display()))
}

/// Registered clusters whose owner has ended.
fn stale(root: &Path) -> Result<Vec<Folder>> {
    let entries = fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let run = entry.path();
        // Somebody else's entry in a shared temporary folder is theirs to clean.
        if !run.is_dir()
            || fs::symlink_metadata(&run).is_ok_and(|meta| meta.uid() != rustix::process::getuid().as_raw())
        {
            continue;
        }
        match fs::read_link(run.join("data")) {
            Ok(data) => {
                let folder = Folder::at(&data)?;
                if folder.run == run && folder.owner_is_gone() {
                    found.push(folder);
                }
            }
            // Killed before it could register; nothing was started yet.
            Err(_) => remove_tree(&run)?,
        }
    }
    Ok(found)
}

/// Mount points at or below `dir`, the deepest last.
fn mounts_below(table: &str, dir: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(dir))
        .collect()
}

/// Mount tables write space, tab, newline and backslash as three octal digits.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
}

fn mount_table() -> Result<String> {
    fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")
}

fn unmount_below(dir: &Path) -> Result<()> {
    for path in mounts_below(&mount_table()?, dir).iter().rev() {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", path.display()))?;
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<()> {
    // A mount below could be a folder of the machine, and its files are not ours to delete.
    if let Some(path) = mounts_below(&mount_table()?, dir).first() {
        bail!("{} is still mounted; unmount it and try again", path.display());
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // A dying process may write one more file.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", dir.display())),
        }
    }
}

/// The last lines of a log, for an error's text.
pub(super) fn last_lines(path: &Path, count: usize) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::processes::MARKER;
    use super::*;

    #[test]
    fn mounts_are_found_below_a_folder_and_not_beside_it() {
        let table = "30 1 0:26 / /tmp/a rw - tmpfs t rw\n31 1 0:27 / /tmp/a/b\\040c rw - tmpfs t rw\n\
                     32 1 0:28 / /tmp/ab rw - tmpfs t rw\n";
        let found = mounts_below(table, Path::new("/tmp/a"));
        assert_eq!(found, [PathBuf::from("/tmp/a"), PathBuf::from("/tmp/a/b c")]);
    }

    #[test]
    fn a_killed_harness_leaves_nothing_after_the_next_start() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(&parent.path().join("first")).unwrap();
        folder.create(Lifetime::Harness, &Progress::silent()).unwrap();
        // One process whose pid was written down, and one whose was not.
        let mut recorded = Command::new("sleep").arg("600").spawn().unwrap();
        let identity = Identity::of(i32::try_from(recorded.id()).unwrap()).unwrap();
        folder.record_pid("etcd", &identity).unwrap();
        let mut unrecorded = Command::new("sleep").arg("600").env(MARKER, &folder.data).spawn().unwrap();
        // The owner's pid now belongs to a later process.
        let own = Identity::own().unwrap();
        let dead = Identity { started: own.started - 1, ..own };
        folder.write_json(OWNER, &Owner::Harness(dead)).unwrap();

        let next = Folder::at(&parent.path().join("second")).unwrap();
        next.create(Lifetime::Harness, &Progress::silent()).unwrap();
        assert!(!folder.data.exists() && !folder.run.exists());
        assert!(!recorded.wait().unwrap().success());
        assert!(!unrecorded.wait().unwrap().success());

        // A living owner's cluster stays.
        let third = Folder::at(&parent.path().join("third")).unwrap();
        third.create(Lifetime::Harness, &Progress::silent()).unwrap();
        assert!(next.data.exists() && next.run.exists());
        next.remove(&Progress::silent()).unwrap();
        third.remove(&Progress::silent()).unwrap();
        assert!(!next.is_used() && !third.is_used());
        third.remove(&Progress::silent()).unwrap();
    }

    #[test]
    fn a_folder_of_somebody_elses_is_refused_whole() {
        let parent = tempfile::tempdir().unwrap();
        let precious = parent.path().join("precious");
        fs::write(&precious, "years of work").unwrap();
        let folder = Folder::at(parent.path()).unwrap();
        for result in [folder.remove(&Progress::silent()), folder.create(Lifetime::Person, &Progress::silent())] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("not the folder of a test cluster"), "{error}");
        }
        assert!(precious.exists() && !folder.run.exists());

        // A start that was killed before it had written its owner is no reason to refuse.
        let torn = Folder::at(&parent.path().join("torn")).unwrap();
        fs::create_dir(&torn.data).unwrap();
        fs::write(torn.file(OWNER_PARTIAL), "{").unwrap();
        torn.remove(&Progress::silent()).unwrap();
        assert!(!torn.data.exists());
    }

    #[test]
    fn a_persons_cluster_is_not_taken_for_rubbish() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(&parent.path().join("kept")).unwrap();
        folder.create(Lifetime::Person, &Progress::silent()).unwrap();
        assert!(!folder.owner_is_gone());
        folder.remove(&Progress::silent()).unwrap();
    }

    #[test]
    fn sockets_fit_however_long_the_data_folder_is() {
        let folder = Folder::at(Path::new(&format!("/{}", "long/".repeat(60)))).unwrap();
        assert!(folder.run.join("containerd.sock.ttrpc").as_os_str().len() < 80);
    }
}
