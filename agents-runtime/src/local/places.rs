//! The folders of local runs, and the record by which the next engine continues what this one left.
//!
//! `<out>/<run>/` holds `run.yaml` (the AgentRun with its uid and status: the record), `log.txt`, `outputs/`,
//! `workspace` (a link to that of the last attempt) and `attempts/`. An engine holds the lock of every folder it works
//! in. A folder whose record is unfinished and says the same as the manifest is continued; any other folder stays as it
//! is, and the run gets `<run>-2`, `<run>-3` and so on.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use agents_core::{
    api::{AgentRun, GROUP, Kind, Resource, VERSION},
    decide::agent_run::is_finished,
    name::label_value,
    plan::runner_spec::WORKSPACE,
};
use serde::Serialize;

use crate::manifest::tree::Node;

const RECORD: &str = "run.yaml";
const LOCK: &str = ".lock";
/// Most folders of one name that are looked at.
const MAX_FOLDERS: usize = 10_000;
/// Largest record that is read back, in bytes.
const MAX_RECORD: u64 = 16 * 1024 * 1024;

/// The folder of a run, locked by this engine.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    /// Released when this engine ends, however it ends.
    _lock: File,
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
    pub(super) fn choose(out: &Path, run: Resource<AgentRun>) -> io::Result<(Self, Resource<AgentRun>)> {
        fs::create_dir_all(out)?;
        let out = fs::canonicalize(out)?;
        let name = label_value(&run.metadata.name);
        let mut passed_over = Vec::new();
        for n in 1..MAX_FOLDERS {
            let path = out.join(if n == 1 { name.clone() } else { format!("{name}-{n}") });
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let Some(lock) = lock(&path)? else { continue };
            let mut folder = Self { path, _lock: lock, passed_over: Vec::new() };
            match folder.recorded()? {
                None if folder.is_unused()? => {
                    folder.record(&run)?;
                    folder.passed_over = passed_over;
                    return Ok((folder, run));
                }
                Some(found) if is_continued(&found, &run) => {
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
        let written = Written { api_version: format!("{GROUP}/{VERSION}"), kind: AgentRun::KIND, run };
        let text = serde_saphyr::to_string(&written).map_err(io::Error::other)?;
        let beside = self.path.join(format!(".{RECORD}"));
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, self.path.join(RECORD))
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
        fs::create_dir_all(&outputs)?;
        let mut taken = std::collections::BTreeSet::new();
        for output in &status.outputs {
            let path = Path::new(&output.path);
            let found = path.strip_prefix(WORKSPACE).map_or_else(|_| path.to_owned(), |rest| workspace.join(rest));
            if !found.starts_with(workspace) || !is_file(&found) {
                continue;
            }
            let file =
                found.file_name().map_or_else(|| output.name.clone(), |name| name.to_string_lossy().into_owned());
            // Two outputs may have the same file name in different folders; names of outputs are unique.
            let name = if taken.insert(file.clone()) { file } else { format!("{}-{file}", output.name) };
            fs::copy(&found, outputs.join(name))?;
        }
        Ok(())
    }

    fn recorded(&self) -> io::Result<Option<Resource<AgentRun>>> {
        let path = self.path.join(RECORD);
        match fs::metadata(&path) {
            Ok(found) if found.len() <= MAX_RECORD => {}
            // Whatever it is, it is not a record of ours.
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let text = fs::read_to_string(&path)?;
        let node: Result<Node, _> = serde_saphyr::from_str(&text);
        Ok(node.ok().and_then(|node| serde_json::from_value(node.to_json()).ok()))
    }

    fn is_unused(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if name != LOCK && name.to_str() != Some(&format!(".{RECORD}")) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(LOCK));
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the recorded run is the wanted one, not yet at its end.
fn is_continued(found: &Resource<AgentRun>, wanted: &Resource<AgentRun>) -> bool {
    let mut spec = found.spec.clone();
    spec.cancel = wanted.spec.cancel;
    let identity = |run: &Resource<AgentRun>| (run.metadata.namespace.clone(), run.metadata.name.clone());
    !is_finished(found) && identity(found) == identity(wanted) && spec == wanted.spec
}

/// The same file under a second name where the disk can do that: logs are long. Nothing writes to it any more.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ()))
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_of_another_namespace_is_another_run() {
        let out = tempfile::tempdir().unwrap();
        let run = |namespace: &str, uid: &str| -> Resource<AgentRun> {
            let metadata = json!({ "name": "a", "namespace": namespace, "uid": uid });
            serde_json::from_value(json!({ "metadata": metadata, "spec": { "agentRef": { "name": "x" } } })).unwrap()
        };
        let (first, _) = RunFolder::choose(out.path(), run("one", "1")).unwrap();
        fs::create_dir_all(first.attempts().join("a-1")).unwrap();
        let left = first.path().to_owned();
        drop(first);
        let (moved, continued) = RunFolder::choose(out.path(), run("two", "2")).unwrap();
        assert_eq!((continued.metadata.namespace.as_str(), continued.metadata.uid.as_str()), ("two", "2"));
        assert_eq!(moved.passed_over, std::slice::from_ref(&left));
        let (same, continued) = RunFolder::choose(out.path(), run("one", "3")).unwrap();
        assert_eq!((same.path(), continued.metadata.uid.as_str()), (left.as_path(), "1"));
    }
}
