//! What became of objects whose status says more than the manifests do: of kinds with rules of their own, such as whether a
//! delivery was judged.
//!
//! `<out>/.objects/<kind>/<namespace>/<name>.yaml` holds such an object with its status, as `run.yaml` holds a run. One
//! engine at a time keeps them; another one beside it goes by the manifests alone. An object that left the manifests
//! leaves its record, and goes on from it when it comes back.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::PathBuf, sync::Arc};

use agents_core::{
    api::Meta,
    id::{Id, Key},
    kinds::AnyKind,
    look::AnyResource,
    name::label_value,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::places::{Lock, Locks, read_record, write_whole};
use crate::manifest::tree::Node;

const FOLDER: &str = ".objects";

/// The records below one folder, locked by this engine.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
    /// Released when this engine ends, however it ends.
    _lock: Lock,
}

impl Records {
    /// Those beside the folders of runs; `None` while another engine keeps them.
    ///
    /// # Errors
    /// They cannot be locked.
    pub(super) fn open(locks: &Locks) -> io::Result<Option<Self>> {
        let lock = locks.lock(FOLDER)?;
        Ok(lock.map(|lock| Self { folder: locks.out().join(FOLDER), _lock: lock }))
    }

    fn path(&self, Id { kind, key: Key { namespace, name } }: &Id) -> PathBuf {
        // Names may be longer than those of files.
        self.folder.join(kind).join(label_value(namespace)).join(format!("{}.yaml", label_value(name)))
    }

    /// `object` as it is to be continued: with the uid, age and status of its record. With another spec it is another
    /// object, as a run is, whose record takes the place of the former.
    ///
    /// # Errors
    /// There is something in the place of the record that is none; the error names it.
    pub(super) fn resume(&self, kind: &AnyKind, id: &Id, object: Arc<AnyResource>) -> io::Result<Arc<AnyResource>> {
        let path = self.path(id);
        let read = || {
            let Some(text) = read_record(&path)? else { return Ok(object) };
            resumed(kind, &text, object).map_err(io::Error::other)
        };
        read().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Writes the record, whole or not at all.
    pub(super) fn record(&self, kind: &AnyKind, id: &Id, object: &AnyResource) -> io::Result<()> {
        let path = self.path(id);
        let folder = path.parent().unwrap_or(&self.folder);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let text = serde_saphyr::to_string(&kind.written(object)?).map_err(io::Error::other)?;
        write_whole(&path, text.as_bytes())
    }
}

/// A record as it is read back.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    api_version: String,
    kind: String,
    metadata: Meta,
    spec: Option<Value>,
    #[serde(default)]
    status: Map<String, Value>,
}

fn resumed(kind: &AnyKind, text: &str, object: Arc<AnyResource>) -> Result<Arc<AnyResource>, String> {
    let node: Node = serde_saphyr::from_str(text).map_err(|_| "it is no record: no YAML")?;
    let written = serde_json::from_value(node.to_json()).map_err(|error| format!("it is no record: {error}"))?;
    let Written { api_version, kind: of, metadata, spec, status } = written;
    let Some(now) = kind.metadata(&*object) else { return Ok(object) };
    if (of.as_str(), api_version) != (kind.name, kind.api_version())
        || (&metadata.namespace, &metadata.name) != (&now.namespace, &now.name)
    {
        return Err(format!("it is the record of another object, {of}/{} in {}", metadata.name, metadata.namespace));
    }
    if metadata.uid.is_empty() {
        return Err("metadata.uid is missing".to_owned());
    }
    let metadata = Meta { uid: metadata.uid, creation_timestamp: metadata.creation_timestamp, ..now.clone() };
    let said = |error| format!("it cannot be read as {}: {error}", kind.name);
    let recorded = kind.read(metadata, spec, Some(&status)).map_err(said)?;
    if !status.is_empty() && kind.status(&*recorded).map_err(said)?.is_empty() {
        return Err(format!("its status is none of {}", kind.name));
    }
    let spec = |object: &AnyResource| kind.written(object).map(|mut written| written["spec"].take()).map_err(said);
    Ok(if spec(&*recorded)? == spec(&*object)? { recorded } else { object })
}

/// Whether the status of its objects is to outlast the engine.
pub(super) fn are_kept(kind: &AnyKind) -> bool {
    kind.has_rules()
}
