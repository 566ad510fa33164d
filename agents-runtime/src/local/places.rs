//! The folders of local runs, and the record by which the next engine continues what this one left.
//!
//! `<out>/<run>/` holds `run.yaml` (the AgentRun with its uid and status: the record), `log.txt`, `outputs/`,
//! `workspace` (a link to that of the last attempt) and `attempts/`. An engine holds the lock of every folder it works
//! in: a range of one file for all of them, so that a thousand runs need no thousand descriptors. A folder whose record
//! is unfinished, or whose end no command has told yet (`.untold`), and says the same as the manifest is continued; any
//! other folder stays as it is, and the run gets `<run>-2`, `<run>-3` and so on.
//!
//! Everything made here is for its owner alone, whatever the umask; of outputs and workspaces the provider decides.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write},
    iter::once,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use agents_core::{
    api::{AgentRun, GROUP, Kind, Resource, VERSION},
    decide::agent_run::is_finished,
    name::label_value,
    place::MAX_NAME,
    plan::runner_spec::WORKSPACE,
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use serde::Serialize;

use crate::manifest::{RUN_FOLDER_MARK, RUN_FOLDER_MARKER, tree::Node};

const RECORD: &str = "run.yaml";
/// The file below `out` whose ranges are the locks of the folders beside it.
const LOCKS: &str = ".agents-run.locks";
/// What makes a folder ours is still missing in it: nothing, or what a dead engine had begun with.
const BEGINNINGS: [&str; 3] = [RUN_FOLDER_MARKER, UNTOLD, ".run.yaml"];
/// Stands in a folder until the command has told how its run ended: a record that says so does not mean that log and
/// outputs are in place, nor that anybody knows.
const UNTOLD: &str = ".untold";
/// Most folders of one name that are looked at.
const MAX_FOLDERS: usize = 10_000;
/// Largest record that is read back, in bytes.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// The folder of a run, locked by this engine.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    /// Released when this engine ends, however it ends.
    _lock: Lock,
    /// Folders of this run's name with an unfinished execution of another spec or namespace, which were left alone.
    pub(super) passed_over: Vec<PathBuf>,
}

/// An AgentRun as written to disk.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", bound = "")]
struct Written<'a> {
    api_version: String,
    kind: &'static str,
    #[serde(flatten)]
    run: &'a Resource<AgentRun>,
}

impl RunFolder {
    /// The folder for `run` below `out`, with the run as it is to be continued: the recorded one, or `run` itself.
    ///
    /// # Errors
    /// A folder cannot be made, locked or written.
    pub(super) fn choose(locks: &Locks, run: Resource<AgentRun>) -> io::Result<(Self, Resource<AgentRun>)> {
        let out = &locks.out;
        let name = label_value(&run.metadata.name);
        let mut passed_over = Vec::new();
        for n in 1..MAX_FOLDERS {
            let folder = if n == 1 { name.clone() } else { format!("{name}-{n}") };
            let path = out.join(&folder);
            let Some(lock) = locks.lock(&folder)? else { continue };
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let mut folder = Self { path, _lock: lock, passed_over: Vec::new() };
            match folder.recorded()? {
                None if folder.is_unused()? => {
                    write_private(&folder.path.join(RUN_FOLDER_MARKER), RUN_FOLDER_MARK.as_bytes())?;
                    write_private(&folder.path.join(UNTOLD), b"")?;
                    folder.record(&run)?;
                    folder.passed_over = passed_over;
                    return Ok((folder, run));
                }
                Some(found) if is_same(&found, &run) && (!is_finished(&found) || folder.is_untold()) => {
                    folder.passed_over = passed_over;
                    return Ok((folder, found));
                }
                Some(found) if !is_finished(&found) && folder.has_begun() => passed_over.push(folder.path),
                None | Some(_) => {}
            }
        }
        Err(io::Error::other(format!("{} has too many folders of {name}", out.display())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of the submissions.
    pub(super) fn attempts(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// Whether an attempt was handed to the runtime, recorded in the status or not.
    pub(super) fn has_begun(&self) -> bool {
        fs::read_dir(self.attempts()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Writes the record, whole or not at all.
    pub(super) fn record(&self, run: &Resource<AgentRun>) -> io::Result<()> {
        write_whole(&self.path.join(RECORD), written(run)?.as_bytes())
    }

    /// Leaves log, outputs and workspace of the last attempt where people look for them.
    pub(super) fn present(&self, run: &Resource<AgentRun>, workspace: &Path, log: &Path) -> io::Result<()> {
        if let Ok(inside) = workspace.strip_prefix(&self.path) {
            let link = self.path.join("workspace");
            match fs::remove_file(&link) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if workspace.is_dir() {
                std::os::unix::fs::symlink(inside, link)?;
            }
        }
        if is_file(log) {
            put(log, &self.path.join("log.txt"))?;
        }
        let Some(status) = &run.status else { return Ok(()) };
        if status.outputs.is_empty() {
            return Ok(());
        }
        let outputs = self.path.join("outputs");
        match DirBuilder::new().mode(0o700).create(&outputs) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        let wanted: Vec<(&str, String)> = status
            .outputs
            .iter()
            .map(|output| (output.name.as_str(), file(&output.path).unwrap_or_else(|| output.name.clone())))
            .collect();
        for (output, name) in status.outputs.iter().zip(apart(&wanted)) {
            let path = Path::new(&output.path);
            let found = path.strip_prefix(WORKSPACE).map_or_else(|_| path.to_owned(), |rest| workspace.join(rest));
            if found.starts_with(workspace) && is_file(&found) {
                fs::copy(&found, outputs.join(name))?;
            }
        }
        Ok(())
    }

    fn recorded(&self) -> io::Result<Option<Resource<AgentRun>>> {
        let text = match read_record(&self.path.join(RECORD)) {
            Ok(text) => text.unwrap_or_default(),
            // Whatever it is, it is not a record of ours.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(error),
        };
        let node: Result<Node, _> = serde_saphyr::from_str(&text);
        Ok(node.ok().and_then(|node| serde_json::from_value(node.to_json()).ok()))
    }

    /// Notes that the end of the run was told: from now on the same manifest is a new run.
    pub(super) fn told(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(UNTOLD)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn is_untold(&self) -> bool {
        self.path.join(UNTOLD).exists()
    }

    fn is_unused(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if !BEGINNINGS.iter().any(|beginning| name == *beginning) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Names for files of one folder, given the name of each output and of its file, which may be those of files of different
/// folders. The first of a file name keeps it; the others are told apart by the names of their outputs, and by numbers
/// where even that is somebody's name.
fn apart(wanted: &[(&str, String)]) -> Vec<String> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let first: Vec<bool> = wanted.iter().map(|(_, file)| taken.insert(file.clone())).collect();
    let name = |((output, file), first): (&(&str, String), bool)| {
        if first {
            return file.clone();
        }
        let told = format!("{output}-{file}");
        let numbered = (2_usize..).map(|n| format!("{n}-{told}"));
        let mut free =
            once(told.clone()).chain(numbered).map(|name| cut_name(&name)).filter(|name| taken.insert(name.clone()));
        free.next().unwrap_or_default()
    };
    wanted.iter().zip(first).map(name).collect()
}

/// As much of a name as a file can have.
fn cut_name(name: &str) -> String {
    let end = (0..=name.len().min(MAX_NAME)).rev().find(|end| name.is_char_boundary(*end));
    name[..end.unwrap_or_default()].to_owned()
}

/// A run as its record is written.
pub(super) fn written(run: &Resource<AgentRun>) -> io::Result<String> {
    let written = Written { api_version: format!("{GROUP}/{VERSION}"), kind: AgentRun::KIND, run };
    serde_saphyr::to_string(&written).map_err(io::Error::other)
}

/// The text of a record; `None` where nothing is in its place.
///
/// # Errors
/// It cannot be read, or what is there is no record of ours whatever it says ([`io::ErrorKind::InvalidData`]).
pub(super) fn read_record(path: &Path) -> io::Result<Option<String>> {
    // What is no file might have no end, or never begin.
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_RECORD + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_RECORD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large to be a record"));
    }
    Ok(Some(text))
}

/// Writes a record, whole or not at all.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}"));
    write_private(&beside, text)?;
    fs::rename(beside, path)
}

/// Writes a file for its owner alone and flushes it to disk.
fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // One that was left behind keeps the mode it was made with.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text)?;
    file.sync_all()
}

/// The locks of all run folders below one folder.
#[derive(Debug)]
pub(super) struct Locks {
    out: PathBuf,
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    /// The system tells engines apart, and not the runs of this one.
    places: Mutex<BTreeSet<i64>>,
}

/// A locked folder.
#[derive(Debug)]
pub(super) struct Lock {
    held: Arc<Held>,
    at: i64,
}

impl Locks {
    /// Makes `out` if need be.
    ///
    /// # Errors
    /// The folder cannot be made, or no file in it.
    pub(super) fn of(out: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(out)?;
        let out = fs::canonicalize(out)?;
        let path = out.join(LOCKS);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Self { out, held: Arc::new(Held { file, places: Mutex::default() }) })
    }

    /// The folder of everything that is locked here.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// Locks the folder of that name; `None` when it is locked already.
    pub(super) fn lock(&self, folder: &str) -> io::Result<Option<Lock>> {
        let at = place_of(folder);
        let mut places = self.held.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.contains(&at) {
            return Ok(None);
        }
        match set(&self.held.file, at, libc::F_WRLCK) {
            Ok(()) => {
                places.insert(at);
                Ok(Some(Lock { held: Arc::clone(&self.held), at }))
            }
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut places = self.held.places.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the process releases what this does not.
        let _ = set(&self.held.file, self.at, libc::F_UNLCK);
        places.remove(&self.at);
    }
}

/// FNV-1a, so that every version of this program finds the same place. Two names of one place only keep each other from
/// being used at the same time.
fn place_of(folder: &str) -> i64 {
    let hash = folder
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    i64::try_from(hash >> 2).unwrap_or(0)
}

fn set(file: &File, at: i64, kind: libc::c_int) -> nix::Result<()> {
    let range = libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: at,
        l_len: 1,
        l_pid: 0,
    };
    // Of the open file and not of the process, so that two engines in one process exclude each other too.
    fcntl(file, FcntlArg::F_OFD_SETLK(&range)).map(|_| ())
}

/// Whether the recorded run is the wanted one.
fn is_same(found: &Resource<AgentRun>, wanted: &Resource<AgentRun>) -> bool {
    let mut spec = found.spec.clone();
    spec.cancel = wanted.spec.cancel;
    let identity = |run: &Resource<AgentRun>| (run.metadata.namespace.clone(), run.metadata.name.clone());
    identity(found) == identity(wanted) && spec == wanted.spec
}

/// The same file under a second name where the disk can do that: logs are long. Nothing writes to it any more.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::set_permissions(from, Permissions::from_mode(0o600))?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ()))
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_of_another_namespace_is_another_run() {
        let out = tempfile::tempdir().unwrap();
        let run = |namespace: &str, uid: &str| -> Resource<AgentRun> {
            let metadata = json!({ "name": "a", "namespace": namespace, "uid": uid });
            serde_json::from_value(json!({ "metadata": metadata, "spec": { "agentRef": { "name": "x" } } })).unwrap()
        };
        let locks = || Locks::of(out.path()).unwrap();
        let (first, _) = RunFolder::choose(&locks(), run("one", "1")).unwrap();
        fs::create_dir_all(first.attempts().join("a-1")).unwrap();
        let left = first.path().to_owned();
        drop(first);
        let (moved, continued) = RunFolder::choose(&locks(), run("two", "2")).unwrap();
        assert_eq!((continued.metadata.namespace.as_str(), continued.metadata.uid.as_str()), ("two", "2"));
        assert_eq!(moved.passed_over, std::slice::from_ref(&left));
        let (same, continued) = RunFolder::choose(&locks(), run("one", "3")).unwrap();
        assert_eq!((same.path(), continued.metadata.uid.as_str()), (left.as_path(), "1"));
    }

    proptest! {
        #[test]
        fn no_two_outputs_get_one_name(
            files in proptest::collection::vec("[ab]|[ab]-[ab]|2-[ab]-[ab]|é{120,127}", 0..12), long in 0..2_usize,
        ) {
            // The names of outputs are unique already.
            let outputs: Vec<String> = (0..files.len()).map(|n| match n { 0 => "a".into(), 1 => "b".into(), n => "é".repeat(n * long * 20) + &n.to_string() }).collect();
            let wanted: Vec<(&str, String)> = outputs.iter().map(String::as_str).zip(files.clone()).collect();
            let names = apart(&wanted);
            let distinct: BTreeSet<&String> = names.iter().collect();
            prop_assert_eq!(distinct.len(), files.len(), "{:?}", names);
            prop_assert!(names.iter().all(|name| name.len() <= MAX_NAME));
            for (n, file) in files.iter().enumerate() {
                let is_first = !files[..n].contains(file);
                prop_assert_eq!(is_first, names[n] == *file, "{:?}", names);
            }
        }
    }

    #[test]
    fn a_folder_is_locked_for_every_other_engine_and_every_other_run_of_this_one() {
        let out = tempfile::tempdir().unwrap();
        let (one, other) = (Locks::of(out.path()).unwrap(), Locks::of(out.path()).unwrap());
        let held = one.lock("a").unwrap().unwrap();
        assert!(one.lock("a").unwrap().is_none() && other.lock("a").unwrap().is_none());
        assert!(other.lock("b").unwrap().is_some());
        drop(held);
        assert!(other.lock("a").unwrap().is_some());
    }
}
