//! Manifests to typed objects that can be run here.
//!
//! Strict: a wrong type, an unknown field, an unknown kind or a duplicate is a fault, and with any fault nothing is run.
//! What is sound and not acted on is named.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use agents_core::{
    api::{AgentRun, Meta, Resource},
    id::{Id, Key},
    kinds::AnyKind,
    look::AnyResource,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};

use super::identity::{self, generated_name};
use crate::manifest::{
    DEFAULT_NAMESPACE, Definitions, Document, LoadError, ManifestFault, Rule, Skipped, Source, read,
};

/// An AgentRun with the folder that relative paths in it start from.
#[derive(Debug, Clone, PartialEq)]
pub struct RunManifest {
    /// The run.
    pub run: Resource<AgentRun>,
    /// The folder of its file.
    pub folder: PathBuf,
    /// Whether its name was generated.
    pub generated: bool,
}

/// A Secret: its values by key. `Debug` shows the keys alone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything that was loaded.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Every object but the runs.
    pub objects: BTreeMap<Id, Arc<AnyResource>>,
    /// Runs.
    pub runs: BTreeMap<Key, RunManifest>,
    /// Secrets.
    pub secrets: BTreeMap<Key, SecretData>,
    /// What was not read, and why.
    pub skipped: Vec<Skipped>,
    /// Objects of kinds that nothing here acts on, as `Kind/name in FILE`.
    pub left_out: Vec<String>,
}

/// Loads every manifest of `sources`, which must be as `definitions` say.
///
/// # Errors
/// A file that cannot be read, too much, nothing, or every fault of every document.
pub fn load(sources: &[Source], definitions: &dyn Definitions, now: Timestamp) -> Result<Manifests, LoadError> {
    let read = read(sources)?;
    let mut loader = Loader {
        now,
        definitions,
        loaded: Manifests { skipped: read.skipped, ..Manifests::default() },
        faults: read.faults,
        seen: BTreeMap::new(),
    };
    for document in &read.documents {
        loader.document(document);
    }
    if loader.faults.is_empty() { Ok(loader.loaded) } else { Err(LoadError::Faults(loader.faults)) }
}

struct Loader<'a> {
    now: Timestamp,
    definitions: &'a dyn Definitions,
    loaded: Manifests,
    faults: Vec<ManifestFault>,
    /// Kind, namespace and name → where it was first.
    seen: BTreeMap<(String, Key), String>,
}

impl Loader<'_> {
    fn document(&mut self, document: &Document) {
        let is_secret = document.kind() == Some("Secret") && document.api_version() == Some("v1");
        let kind = if is_secret { Ok(document.kind()) } else { document.kind_of_ours() };
        let kind = match kind {
            Ok(Some(kind)) => kind,
            // Of another product: it may say what it likes.
            Ok(None) => return self.leave_out(document),
            Err(fault) => return self.faults.push(*fault),
        };
        let Some((meta, generated)) = self.meta(document, kind) else {
            return;
        };
        if is_secret {
            let data = self.secret(document);
            self.loaded.secrets.insert(key(&meta), data);
            return;
        }
        let Some(kind) = AnyKind::by_name(kind) else { return };
        let Some(object) = self.object(document, kind, meta.clone()) else { return };
        let object = match object.downcast::<Resource<AgentRun>>() {
            Ok(run) => {
                let manifest =
                    RunManifest { run: Arc::unwrap_or_clone(run), folder: document.folder.clone(), generated };
                self.loaded.runs.insert(key(&meta), manifest);
                return;
            }
            Err(object) => object,
        };
        if !kind.traits.acted_on {
            self.leave_out(document);
        }
        self.loaded.objects.insert(Id::new(kind.name, key(&meta)), object);
    }

    fn leave_out(&mut self, document: &Document) {
        let metadata = document.node.get("metadata");
        let name = ["name", "generateName"].into_iter().find_map(|name| metadata?.get(name)?.text());
        let kind = document.kind().unwrap_or_default();
        self.loaded.left_out.push(format!("{kind}/{} in {}", name.unwrap_or_default(), document.file));
    }

    fn meta(&mut self, document: &Document, kind: &str) -> Option<(Meta, bool)> {
        let written = document.metadata(&mut self.faults)?;
        let namespace = written.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let uid = identity::new_uid();
        let generated = written.name.is_none();
        let prefix = written.generate_name.unwrap_or_default();
        let name = written.name.unwrap_or_else(|| generated_name(&prefix, &uid));
        let identity = (kind.to_owned(), Key::new(&namespace, &name));
        if let Some(first) = self.seen.get(&identity) {
            let problem = format!("{name:?} names a second {kind}; the first is in {first}");
            self.faults.push(document.fault(written.place, "metadata.name", Rule::Duplicate, problem));
            return None;
        }
        self.seen.insert(identity, format!("{}, document {}", document.file, document.number));
        let meta = Meta {
            name,
            namespace,
            uid,
            resource_version: Some("1".to_owned()),
            generation: Some(1),
            // What is written first is the older one.
            creation_timestamp: i64::try_from(self.seen.len())
                .ok()
                .and_then(|n| self.now.checked_add(SignedDuration::from_nanos(n)).ok()),
            deletion_timestamp: None,
            labels: written.labels,
            annotations: written.annotations,
            left_out: None,
        };
        Some((meta, generated))
    }

    fn object(&mut self, document: &Document, kind: &AnyKind, metadata: Meta) -> Option<Arc<AnyResource>> {
        let mut object = match document.object(self.definitions) {
            Ok(object) => object,
            Err(faults) => {
                self.faults.extend(faults);
                return None;
            }
        };
        let spec = Some(object["spec"].take()).filter(|spec| !spec.is_null());
        match kind.read(metadata, spec, None) {
            Ok(object) => Some(object),
            Err(error) => {
                self.faults.push(document.fault_at("spec", Rule::Type, format!("cannot be read: {error}")));
                None
            }
        }
    }

    fn secret(&mut self, document: &Document) -> SecretData {
        const KNOWN: [&str; 7] = ["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"];
        self.faults.extend(document.unknown_members(&KNOWN));
        let mut data = BTreeMap::new();
        if let Some(node) = document.node.get("data") {
            for (name, value) in document.secret_texts(node, "data", &mut self.faults) {
                // The value is not shown: it may be the secret itself, pasted into the wrong field.
                if let Ok(value) = STANDARD.decode(value.trim()) {
                    data.insert(name, value);
                } else {
                    let hint = Some("plain text belongs in stringData".to_owned());
                    let field = format!("data[{name:?}]");
                    self.faults.push(document.fault_at(&field, Rule::Value, "is not base64").with_hint(hint));
                }
            }
        }
        if let Some(node) = document.node.get("stringData") {
            for (name, value) in document.secret_texts(node, "stringData", &mut self.faults) {
                data.insert(name, value.into_bytes());
            }
        }
        SecretData(data)
    }
}

fn key(meta: &Meta) -> Key {
    Key::new(&meta.namespace, &meta.name)
}
