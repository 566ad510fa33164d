//! Manifests from files to typed objects. Reads files; starts nothing and changes nothing.
//!
//! Strict: a wrong type, an unknown field, an unknown kind or a duplicate is a fault, every fault is reported at once,
//! and with any fault nothing is run. Bounds keep a wrong path (a home folder, a device) from being read to its end.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use agents_core::api::{Agent, AgentProvider, AgentRun, GROUP, ImplementationSpec, Kind, Meta, Resource, VERSION};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use super::{
    identity::{self, generated_name},
    strict::{self, nearest},
    tree::{Node, Tree},
};

/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most files of one command.
pub const MAX_FILES: usize = 1000;
/// Most documents of one command.
pub const MAX_DOCUMENTS: usize = 5000;
/// Deepest folder below the one that was named.
const MAX_DEPTH: usize = 16;
/// Most folder entries looked at.
const MAX_ENTRIES: usize = 100_000;
/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
const KINDS: [&str; 5] = ["Agent", "AgentProvider", "AgentRun", "ImplementationSpec", "Secret"];
/// Metadata that is read.
const METADATA: [&str; 5] = ["name", "generateName", "namespace", "labels", "annotations"];
/// Metadata that a server wrote and that means nothing here.
const SERVER_METADATA: [&str; 10] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Where manifests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, or a folder with everything in it: `*.yaml`, `*.yml`, `*.json`, hidden ones left out.
    Path(PathBuf),
    /// Text that was read elsewhere, such as standard input.
    Text {
        /// Its name in faults.
        name: String,
        /// Folder that relative paths in it start from.
        folder: PathBuf,
        /// The documents.
        text: String,
    },
}

/// Namespace and name.
pub type ObjectName = (String, String);

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
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifests {
    /// Agents.
    pub agents: BTreeMap<ObjectName, Arc<Resource<Agent>>>,
    /// Providers.
    pub providers: BTreeMap<ObjectName, Arc<Resource<AgentProvider>>>,
    /// Work items.
    pub implementations: BTreeMap<ObjectName, Arc<Resource<ImplementationSpec>>>,
    /// Runs.
    pub runs: BTreeMap<ObjectName, RunManifest>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectName, SecretData>,
}

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFault {
    /// The file.
    pub file: String,
    /// Number of the document in the file, from 1; absent when the file as a whole is at fault.
    pub document: Option<usize>,
    /// Line in the file, when it is known.
    pub line: Option<u64>,
    /// Path of the field; empty when the document as a whole is at fault.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What might help.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, line, field, problem, hint } = self;
        f.write_str(file)?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        if let Some(document) = document {
            write!(f, ": document {document}")?;
        }
        f.write_str(": ")?;
        if !field.is_empty() {
            write!(f, "{field} ")?;
        }
        f.write_str(problem)?;
        if let Some(hint) = hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// Manifests that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than is taken in one command.
    #[error("{0}")]
    TooMuch(String),
    /// No object at all.
    #[error("no manifest found: {} wanted", EXTENSIONS.map(|e| format!("*.{e}")).join(", "))]
    Nothing,
    /// Everything that is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<ManifestFault>),
}

/// Loads every manifest of `sources`.
///
/// # Errors
/// A file that cannot be read, too much, nothing, or every fault of every document.
pub fn load(sources: &[Source], now: Timestamp) -> Result<Manifests, LoadError> {
    let mut loader = Loader { now, ..Loader::default() };
    for source in sources {
        match source {
            Source::Path(path) => {
                let mut files = Vec::new();
                let mut entries = 0;
                find(path, 0, &mut entries, &mut files)?;
                for file in files {
                    loader.file(&file)?;
                }
            }
            Source::Text { name, folder, text } => loader.text(name, folder, text)?,
        }
    }
    if !loader.faults.is_empty() {
        return Err(LoadError::Faults(loader.faults));
    }
    if loader.documents == 0 {
        return Err(LoadError::Nothing);
    }
    Ok(loader.loaded)
}

fn find(path: &Path, depth: usize, entries: &mut usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(read)?;
    if !found.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        *entries += 1;
        if *entries > MAX_ENTRIES {
            return Err(LoadError::TooMuch(format!(
                "{} has more than {MAX_ENTRIES} entries: name the folder of the manifests",
                path.display()
            )));
        }
        let kind = entry.file_type().map_err(read)?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let wanted = path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension));
        // A linked file is as good as a file (ConfigMaps are mounted so); a linked folder could lead in circles.
        if !hidden && (kind.is_dir() || (wanted && fs::metadata(&path).is_ok_and(|found| found.is_file()))) {
            inside.push(path);
        }
    }
    inside.sort();
    for inner in inside {
        if depth >= MAX_DEPTH {
            return Err(LoadError::TooMuch(format!(
                "{} is nested more than {MAX_DEPTH} folders deep",
                inner.display()
            )));
        }
        find(&inner, depth + 1, entries, files)?;
    }
    if files.len() > MAX_FILES {
        return Err(LoadError::TooMuch(format!("more than {MAX_FILES} manifest files")));
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Loader {
    now: Timestamp,
    loaded: Manifests,
    faults: Vec<ManifestFault>,
    documents: usize,
    /// Kind, namespace and name → where it was first.
    seen: BTreeMap<(String, ObjectName), String>,
}

/// A document and where it stands.
struct Document<'a> {
    file: &'a str,
    folder: &'a Path,
    number: usize,
    node: &'a Node,
}

impl Document<'_> {
    fn fault(&self, node: &Node, field: &str, problem: impl Into<String>, hint: Option<String>) -> ManifestFault {
        ManifestFault {
            file: self.file.to_owned(),
            document: Some(self.number),
            line: Some(node.line).filter(|line| *line > 0),
            field: field.to_owned(),
            problem: problem.into(),
            hint,
        }
    }
}

impl Loader {
    fn file(&mut self, path: &Path) -> Result<(), LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(read)?;
        let name = path.display().to_string();
        let folder = fs::canonicalize(path).map_err(read)?.parent().map_or_else(PathBuf::new, Path::to_owned);
        if let Ok(text) = String::from_utf8(bytes) {
            self.text(&name, &folder, &text)?;
        } else {
            self.whole_file(&name, "is not UTF-8 text".to_owned(), None);
        }
        Ok(())
    }

    fn whole_file(&mut self, file: &str, problem: String, line: Option<u64>) {
        self.faults.push(ManifestFault {
            file: file.to_owned(),
            document: None,
            line,
            field: String::new(),
            problem,
            hint: None,
        });
    }

    fn text(&mut self, file: &str, folder: &Path, text: &str) -> Result<(), LoadError> {
        if text.len() as u64 > MAX_FILE_BYTES {
            self.whole_file(file, format!("is larger than {MAX_FILE_BYTES} bytes"), None);
            return Ok(());
        }
        let documents: Vec<Node> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => {
                let line = error.location().map(|place| place.line());
                let problem = error.without_snippet().to_string();
                self.whole_file(file, format!("cannot be read: {problem}"), line);
                return Ok(());
            }
        };
        for (n, node) in documents.iter().enumerate() {
            if node.value == Tree::Null {
                continue;
            }
            self.documents += 1;
            if self.documents > MAX_DOCUMENTS {
                return Err(LoadError::TooMuch(format!("more than {MAX_DOCUMENTS} manifest documents")));
            }
            self.document(&Document { file, folder, number: n + 1, node });
        }
        Ok(())
    }

    fn document(&mut self, document: &Document<'_>) {
        let node = document.node;
        let Tree::Map(members) = &node.value else {
            let problem = format!("is {}; an object is wanted", node.value.describe());
            self.faults.push(document.fault(node, "", problem, None));
            return;
        };
        let Some(kind) = self.kind(document) else { return };
        let core = format!("{GROUP}/{VERSION}");
        let wanted = if kind == "Secret" { "v1" } else { core.as_str() };
        let version = node.get("apiVersion");
        if version.and_then(Node::text) != Some(wanted) {
            let at = version.unwrap_or(node);
            let problem =
                version.map_or_else(|| "is missing".to_owned(), |found| format!("is {}", found.value.describe()));
            let hint = format!("{kind} has the apiVersion {wanted}");
            self.faults.push(document.fault(at, "apiVersion", problem, Some(hint)));
            return;
        }
        let known: &[&str] = if kind == "Secret" {
            &["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"]
        } else {
            &["apiVersion", "kind", "metadata", "spec", "status"]
        };
        for (name, member) in members {
            if !known.contains(&name.as_str()) {
                let hint = nearest(name, known.iter().copied());
                self.faults.push(document.fault(member, name, "is not a known field", Some(hint)));
            }
        }
        let Some((meta, generated)) = self.meta(document, kind) else {
            return;
        };
        match kind {
            "Agent" => {
                if let Some(agent) = self.object::<Agent>(document, meta) {
                    self.loaded.agents.insert(key(&agent.metadata), Arc::new(agent));
                }
            }
            "AgentProvider" => {
                if let Some(provider) = self.object::<AgentProvider>(document, meta) {
                    self.loaded.providers.insert(key(&provider.metadata), Arc::new(provider));
                }
            }
            "ImplementationSpec" => {
                if let Some(work) = self.object::<ImplementationSpec>(document, meta) {
                    self.loaded.implementations.insert(key(&work.metadata), Arc::new(work));
                }
            }
            "AgentRun" => {
                if let Some(run) = self.object::<AgentRun>(document, meta) {
                    let folder = document.folder.to_owned();
                    let name = key(&run.metadata);
                    self.loaded.runs.insert(name, RunManifest { run, folder, generated });
                }
            }
            _ => {
                let data = self.secret(document);
                self.loaded.secrets.insert(key(&meta), data);
            }
        }
    }

    fn kind<'d>(&mut self, document: &Document<'d>) -> Option<&'d str> {
        let node = document.node;
        let found = node.get("kind");
        match found.and_then(Node::text) {
            Some(kind) if KINDS.contains(&kind) => Some(kind),
            Some(kind) => {
                let hint = nearest(kind, KINDS.into_iter());
                let problem = format!("{kind:?} cannot be run here: the kinds are {}", KINDS.join(", "));
                let hint = Some(hint).filter(|hint| hint.starts_with("did"));
                self.faults.push(document.fault(found.unwrap_or(node), "kind", problem, hint));
                None
            }
            None => {
                let hint = format!("the kinds are {}", KINDS.join(", "));
                self.faults.push(document.fault(node, "kind", "is missing", Some(hint)));
                None
            }
        }
    }

    fn meta(&mut self, document: &Document<'_>, kind: &str) -> Option<(Meta, bool)> {
        let before = self.faults.len();
        let Some(node) = document.node.get("metadata") else {
            self.faults.push(document.fault(document.node, "metadata", "is missing", None));
            return None;
        };
        let Tree::Map(members) = &node.value else {
            let problem = format!("is {}; a map is wanted", node.value.describe());
            self.faults.push(document.fault(node, "metadata", problem, None));
            return None;
        };
        let mut text = BTreeMap::new();
        let mut maps = BTreeMap::new();
        for (name, member) in members {
            let field = format!("metadata.{name}");
            match name.as_str() {
                "labels" | "annotations" => {
                    maps.insert(name.as_str(), self.texts(document, member, &field));
                }
                known if METADATA.contains(&known) => match &member.value {
                    Tree::Text(value) => {
                        text.insert(known, (value.as_str(), member));
                    }
                    Tree::Null => {}
                    other => {
                        let problem = format!("is {}; a text is wanted", other.describe());
                        self.faults.push(document.fault(member, &field, problem, Some("quote it".to_owned())));
                    }
                },
                server if SERVER_METADATA.contains(&server) => {}
                unknown => {
                    let hint = nearest(unknown, METADATA.into_iter());
                    self.faults.push(document.fault(member, &field, "is not a known field", Some(hint)));
                }
            }
        }
        let namespace = text.get("namespace").map_or(DEFAULT_NAMESPACE, |(value, _)| value).to_owned();
        let uid = identity::new_uid();
        let (name, generated, field, at) = match (text.get("name"), text.get("generateName")) {
            (Some((name, at)), _) if !name.is_empty() => ((*name).to_owned(), false, "metadata.name", *at),
            (_, Some((prefix, at))) => (generated_name(prefix, &uid), true, "metadata.generateName", *at),
            _ => {
                // A name of a wrong type has its own fault already.
                if self.faults.len() == before {
                    self.faults.push(document.fault(node, "metadata.name", "is missing", None));
                }
                return None;
            }
        };
        if let Some(problem) = identity::name_problem(&name) {
            self.faults.push(document.fault(at, field, problem, None));
        }
        let place = format!("{}, document {}", document.file, document.number);
        let identity = (kind.to_owned(), (namespace.clone(), name.clone()));
        if let Some(first) = self.seen.get(&identity) {
            let problem = format!("{name:?} names a second {kind}; the first is in {first}");
            self.faults.push(document.fault(at, field, problem, None));
        } else {
            self.seen.insert(identity, place);
        }
        (self.faults.len() == before).then(|| {
            let meta = Meta {
                name,
                namespace,
                uid,
                resource_version: Some("1".to_owned()),
                generation: Some(1),
                creation_timestamp: Some(self.now),
                deletion_timestamp: None,
                labels: maps.remove("labels").unwrap_or_default(),
                annotations: maps.remove("annotations").unwrap_or_default(),
            };
            (meta, generated)
        })
    }

    fn texts(&mut self, document: &Document<'_>, node: &Node, field: &str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match &node.value {
            Tree::Map(members) => {
                for (name, member) in members {
                    match &member.value {
                        Tree::Text(value) => {
                            texts.insert(name.clone(), value.clone());
                        }
                        other => {
                            let problem = format!("is {}; a text is wanted", other.describe());
                            let hint = Some("quote it".to_owned());
                            self.faults.push(document.fault(member, &format!("{field}[{name:?}]"), problem, hint));
                        }
                    }
                }
            }
            Tree::Null => {}
            other => {
                let problem = format!("is {}; a map of texts is wanted", other.describe());
                self.faults.push(document.fault(node, field, problem, None));
            }
        }
        texts
    }

    fn object<K: Kind>(&mut self, document: &Document<'_>, metadata: Meta) -> Option<Resource<K>> {
        let Some(node) = document.node.get("spec") else {
            self.faults.push(document.fault(document.node, "spec", "is missing", None));
            return None;
        };
        let schema = schemars::schema_for!(K::Spec);
        let faults = strict::check(node, schema.as_value(), "spec");
        if !faults.is_empty() {
            self.faults.extend(faults.into_iter().map(|fault| ManifestFault {
                file: document.file.to_owned(),
                document: Some(document.number),
                line: Some(fault.line).filter(|line| *line > 0),
                field: fault.field,
                problem: fault.problem,
                hint: fault.hint,
            }));
            return None;
        }
        match serde_json::from_value(node.to_json()) {
            Ok(spec) => Some(Resource { metadata, spec, status: None }),
            Err(error) => {
                self.faults.push(document.fault(node, "spec", format!("cannot be read: {error}"), None));
                None
            }
        }
    }

    fn secret(&mut self, document: &Document<'_>) -> SecretData {
        let mut data = BTreeMap::new();
        if let Some(node) = document.node.get("data") {
            for (name, value) in self.texts(document, node, "data") {
                // The value is not shown: it may be the secret itself, pasted into the wrong field.
                if let Ok(value) = STANDARD.decode(value.trim()) {
                    data.insert(name, value);
                } else {
                    let hint = Some("plain text belongs in stringData".to_owned());
                    self.faults.push(document.fault(node, &format!("data[{name:?}]"), "is not base64", hint));
                }
            }
        }
        if let Some(node) = document.node.get("stringData") {
            for (name, value) in self.texts(document, node, "stringData") {
                data.insert(name, value.into_bytes());
            }
        }
        SecretData(data)
    }
}

fn key(meta: &Meta) -> ObjectName {
    (meta.namespace.clone(), meta.name.clone())
}
