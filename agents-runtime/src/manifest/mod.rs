//! Manifests from files, with the place of everything in them. Reads files; starts nothing and changes nothing.
//!
//! Every fault is reported at once. Bounds keep a wrong path (a home folder, a device) from being read to its end. What
//! objects must be like is told by [`Definitions`]: schemas and rules come from whoever generates the definitions.

mod list;
mod metadata;
mod owner;
mod read;
pub mod strict;
mod text;
pub mod tree;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use self::tree::{Node, Place};
pub use self::{
    metadata::{Metadata, name_problem},
    read::{Read, Skipped, read},
};

/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most files of one command.
pub const MAX_FILES: usize = 1000;
/// Most documents of one command.
pub const MAX_DOCUMENTS: usize = 5000;
/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// File that tells a folder of a local run from one of manifests.
pub const RUN_FOLDER_MARKER: &str = ".agents-run";
/// Beginning of that file; any other content marks nothing.
pub const RUN_FOLDER_MARK: &str = "This folder was made by `agents run`. What is in it is not read as manifests.\n";
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Where manifests come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or anything else that can be read like one, or a folder with everything in it: `*.yaml`, `*.yml`,
    /// `*.json`, hidden ones left out.
    Path(PathBuf),
    /// Text that was made elsewhere.
    Text {
        /// Its name in faults.
        name: String,
        /// Folder that relative paths in it start from.
        folder: PathBuf,
        /// The documents.
        text: String,
    },
    /// What was read elsewhere, such as from standard input.
    Bytes {
        /// Its name in faults.
        name: String,
        /// Folder that relative paths in it start from.
        folder: PathBuf,
        /// The documents.
        bytes: Vec<u8>,
    },
}

/// What an object of a kind must be like, besides its metadata.
pub trait Definitions {
    /// The structural schema of the whole object; `None` for a kind or version that is not defined.
    fn schema(&self, api_version: &str, kind: &str) -> Option<&Value>;
    /// The rules that a new object breaks, whose schema has been found to be kept.
    fn broken(&self, api_version: &str, kind: &str, object: &Value) -> Vec<Broken>;
}

/// A rule that an object breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Path of the field from the object's root.
    pub field: String,
    /// What the rule says about it.
    pub message: String,
}

/// What kind of fault it is. The names are stable: people and programs filter by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The file cannot be read as YAML or JSON.
    Syntax,
    /// The document is no object of a known kind and version.
    Document,
    /// Name, labels or annotations are wrong.
    Metadata,
    /// Two objects of one name.
    Duplicate,
    /// A field that the kind does not have.
    UnknownField,
    /// A value of another type.
    Type,
    /// A field that must be there.
    Required,
    /// Too long, too short, too many, too few, too large, too small.
    Bounds,
    /// A value that is not among those allowed.
    Value,
    /// A rule over several fields.
    Rule,
    /// What neither schema nor rules can say of one object.
    Check,
    /// What is asked for and not carried out, so that the run would wait.
    Support,
    /// Another object that is not there, or not as it is needed.
    Reference,
    /// A template that cannot be rendered.
    Template,
    /// Inputs that do not fit what the provider reads.
    Input,
}

impl Rule {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Document => "document",
            Self::Metadata => "metadata",
            Self::Duplicate => "duplicate",
            Self::UnknownField => "unknown-field",
            Self::Type => "type",
            Self::Required => "required",
            Self::Bounds => "bounds",
            Self::Value => "value",
            Self::Rule => "rule",
            Self::Check => "check",
            Self::Support => "support",
            Self::Reference => "reference",
            Self::Template => "template",
            Self::Input => "input",
        }
    }
}

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFault {
    /// The file.
    pub file: String,
    /// Number of the document in the file, from 1; absent when the file as a whole is at fault.
    pub document: Option<usize>,
    /// Where in the file.
    pub place: Place,
    /// Path of the field; empty when the document as a whole is at fault.
    pub field: String,
    /// What kind of fault it is.
    pub rule: Rule,
    /// What is wrong.
    pub problem: String,
    /// What might help.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, place: Place { line, column }, field, rule: _, problem, hint } = self;
        f.write_str(file)?;
        if *line > 0 {
            write!(f, ":{line}")?;
        }
        if *line > 0 && *column > 0 {
            write!(f, ":{column}")?;
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
    #[error("no manifest found: an object in {} is wanted", EXTENSIONS.map(|e| format!("*.{e}")).join(", "))]
    Nothing,
    /// Everything that is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<ManifestFault>),
}

/// A document and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file's name, as it was given.
    pub file: String,
    /// The folder of the file, absolute.
    pub folder: PathBuf,
    /// Number in the file, from 1.
    pub number: usize,
    /// Where in the document it stands, such as `items[3]` of a list; empty for the document itself.
    pub path: String,
    /// What it says.
    pub node: Node,
}

impl Document {
    /// A fault of the value at `place`, called `field`.
    pub fn fault(&self, place: Place, field: &str, rule: Rule, problem: impl Into<String>) -> ManifestFault {
        ManifestFault {
            file: self.file.clone(),
            document: Some(self.number),
            place,
            field: match (self.path.as_str(), field) {
                ("", field) => field.to_owned(),
                (path, "") => path.to_owned(),
                (path, field) => format!("{path}.{field}"),
            },
            rule,
            problem: problem.into(),
            hint: None,
        }
    }

    /// A fault of the field at `field`, wherever that stands.
    pub fn fault_at(&self, field: &str, rule: Rule, problem: impl Into<String>) -> ManifestFault {
        self.fault(self.node.locate(field), field, rule, problem)
    }

    /// The folder that relative paths start from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `apiVersion`, if it is text.
    pub fn api_version(&self) -> Option<&str> {
        self.node.get("apiVersion").and_then(Node::text)
    }

    /// `kind`, if it is text.
    pub fn kind(&self) -> Option<&str> {
        self.node.get("kind").and_then(Node::text)
    }

    /// Holds the document's top level and its spec against the definition of its kind; the object when it has no fault.
    ///
    /// The status is somebody else's and is not looked at.
    ///
    /// # Errors
    /// Every fault of the schema, or every broken rule.
    pub fn object(&self, definitions: &dyn Definitions) -> Result<Value, Vec<ManifestFault>> {
        const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
        let (api_version, kind) = (self.api_version().unwrap_or_default(), self.kind().unwrap_or_default());
        let Some(schema) = definitions.schema(api_version, kind) else {
            return Err(vec![self.fault_at(
                "kind",
                Rule::Document,
                format!("{kind:?} is not defined in {api_version}"),
            )]);
        };
        let mut faults = self.unknown_members(&KNOWN);
        let part = &schema["properties"]["spec"];
        match self.node.get("spec") {
            Some(spec) => faults.extend(strict::check(spec, part, "spec").into_iter().map(|fault| {
                let strict::Fault { field, place, rule, problem, hint } = fault;
                self.fault(place, &field, rule, problem).with_hint(hint)
            })),
            None if schema["required"]
                .as_array()
                .is_some_and(|required| required.iter().any(|name| name == "spec")) =>
            {
                faults.push(self.fault(self.node.place, "spec", Rule::Required, "is missing"));
            }
            None => {}
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut object = self.node.to_json();
        strict::prune_nulls(&mut object, schema);
        let broken = definitions.broken(api_version, kind, &object);
        if broken.is_empty() {
            return Ok(object);
        }
        Err(broken.into_iter().map(|Broken { field, message }| self.fault_at(&field, Rule::Rule, message)).collect())
    }

    /// A fault for every member of the top level that is not among `known`.
    pub fn unknown_members(&self, known: &[&str]) -> Vec<ManifestFault> {
        let tree::Tree::Map(members) = &self.node.value else { return vec![] };
        let unknown = members.iter().filter(|member| !known.contains(&member.name.as_str()));
        unknown
            .map(|member| {
                let hint = strict::nearest(&member.name, known.iter().copied());
                self.fault(member.place, &member.name, Rule::UnknownField, "is not a known field").with_hint(Some(hint))
            })
            .collect()
    }
}

impl ManifestFault {
    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}
