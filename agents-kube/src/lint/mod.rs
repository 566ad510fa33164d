//! `agents lint`: manifests judged without a server. Reads files; prints nothing.
//!
//! In this order, each only for what has passed the one before: the document, its metadata, the schema of its kind, the
//! kind's rules, core's check; then what only the folder as a whole can tell: names given twice, references, what a kind's
//! own decisions refuse, templates, the plan of every run. What an operator's policies allow is configured at the
//! controller and not known here.

mod definitions;
mod references;
mod render;
mod rules;
mod templates;

use std::{collections::BTreeMap, fmt};

use agents_core::api::{AgentProvider, Kind};
use agents_runtime::manifest::{
    DEFAULT_NAMESPACE, Definitions as _, Document, LoadError, ManifestFault, Rule, Skipped, Source, read, tree::Place,
};
use serde_json::Value;

pub use self::{definitions::Definitions, render::Format};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It would be refused, or could never work.
    Error,
    /// Worth knowing; the manifests are fine.
    Note,
}

impl Severity {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Note => "note",
        }
    }
}

/// Something to say about a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its weight.
    pub severity: Severity,
    /// The object as `Kind/name`; empty where there is none.
    pub object: String,
    /// What and where.
    pub fault: ManifestFault,
}

/// Everything that was found, in the order of files and places.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
    /// Number of objects that were judged.
    pub objects: usize,
}

impl Report {
    /// Number of findings of this weight.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// What is taken for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Objects that are referred to and not among the manifests are in the cluster.
    pub partial: bool,
}

/// Judges every manifest of `sources`.
///
/// # Errors
/// A file that cannot be read, too much, or no manifest at all.
pub fn lint(sources: &[Source], options: Options) -> Result<Report, LoadError> {
    judge(&Definitions::new(), sources, options)
}

/// [`lint`] with definitions that are there already: they take longer to make than most manifests to judge.
///
/// # Errors
/// A file that cannot be read, too much, or no manifest at all.
pub fn judge(definitions: &Definitions, sources: &[Source], options: Options) -> Result<Report, LoadError> {
    let read = read(sources)?;
    let whole = |fault| Finding { severity: Severity::Error, object: String::new(), fault };
    let mut findings: Vec<Finding> = read.faults.into_iter().map(whole).collect();
    findings.extend(read.skipped.into_iter().map(|Skipped { path, why }| Finding {
        severity: Severity::Note,
        object: String::new(),
        fault: ManifestFault {
            file: path.display().to_string(),
            document: None,
            place: Place::default(),
            field: String::new(),
            rule: Rule::Document,
            problem: format!("is not read: {why}"),
            hint: None,
        },
    }));
    let mut folder = Folder { partial: options.partial, definitions, items: vec![], places: vec![] };
    let mut objects = 0;
    for document in &read.documents {
        match ours(document) {
            Ok(kind) => {
                objects += 1;
                folder.take(document, kind, &mut findings);
            }
            Err(finding) => findings.push(*finding),
        }
    }
    folder.twice(&mut findings);
    for item in &folder.items {
        if let Some(schema) = definitions.schema(item.document.api_version().unwrap_or_default(), item.kind) {
            references::check(&folder, item, schema, &mut findings);
        }
        rules::check(&folder, item, &mut findings);
        if item.kind == AgentProvider::KIND {
            templates::provider(item, &mut findings);
        }
    }
    templates::runs(&folder, &mut findings);
    findings.sort_by(|a, b| {
        let order = |finding: &Finding| (finding.fault.file.clone(), finding.fault.place, finding.fault.document);
        order(a).cmp(&order(b)).then_with(|| a.fault.field.cmp(&b.fault.field))
    });
    Ok(Report { findings, objects })
}

/// The kind of a document, if it is one of ours; otherwise what to say about it.
fn ours(document: &Document) -> Result<&str, Box<Finding>> {
    let finding = |severity, fault| Box::new(Finding { severity, object: String::new(), fault });
    match document.kind_of_ours() {
        Ok(Some(kind)) => Ok(kind),
        Ok(None) => {
            let (kind, of) = (document.kind().unwrap_or_default(), document.api_version().unwrap_or_default());
            let problem = format!("{kind} of {of} is not judged");
            Err(finding(Severity::Note, document.fault(document.node.place, "", Rule::Document, problem)))
        }
        Err(fault) => Err(finding(Severity::Error, *fault)),
    }
}

/// The objects of all manifests together.
struct Folder<'a> {
    partial: bool,
    definitions: &'a Definitions,
    /// Those whose schema and rules are kept.
    items: Vec<Item<'a>>,
    /// Kind, namespace, name and place of every object that has a name.
    places: Vec<(&'a str, String, String, &'a Document, Place)>,
}

/// An object whose schema and rules are kept.
struct Item<'a> {
    document: &'a Document,
    kind: &'a str,
    namespace: String,
    /// Its name, or the prefix of its name.
    name: String,
    object: Value,
}

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl Item<'_> {
    fn finding(&self, severity: Severity, fault: ManifestFault) -> Finding {
        Finding { severity, object: self.to_string(), fault }
    }
}

impl<'a> Folder<'a> {
    /// Judges a document by itself and keeps it when others may rely on it.
    fn take(&mut self, document: &'a Document, kind: &'a str, findings: &mut Vec<Finding>) {
        let mut faults = Vec::new();
        let metadata = document.metadata(&mut faults);
        let named = metadata.as_ref().and_then(|metadata| metadata.name.clone());
        let name = metadata.as_ref().and_then(|one| one.name.clone().or(one.generate_name.clone())).unwrap_or_default();
        let namespace = metadata.as_ref().and_then(|metadata| metadata.namespace.clone());
        let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        if let (Some(metadata), Some(name)) = (&metadata, named) {
            self.places.push((kind, namespace.clone(), name, document, metadata.place));
        }
        match document.object(self.definitions) {
            Ok(object) => {
                let checked = self.definitions.check(kind, &object);
                faults.extend(
                    checked.into_iter().map(|fault| document.fault_at(&fault.field, Rule::Check, fault.problem)),
                );
                self.items.push(Item { document, kind, namespace, name: name.clone(), object });
            }
            Err(found) => faults.extend(found),
        }
        let object = if name.is_empty() { kind.to_owned() } else { format!("{kind}/{name}") };
        findings.extend(faults.into_iter().map(|fault| Finding {
            severity: Severity::Error,
            object: object.clone(),
            fault,
        }));
    }

    /// Names that are given twice.
    fn twice(&self, findings: &mut Vec<Finding>) {
        let mut first: BTreeMap<(&str, &str, &str), &Document> = BTreeMap::new();
        for (kind, namespace, name, document, place) in &self.places {
            if let Some(other) = first.get(&(*kind, namespace.as_str(), name.as_str())) {
                let problem = format!(
                    "{name:?} names a second {kind}; the first is in {}, document {}",
                    other.file, other.number
                );
                let fault = document.fault(*place, "metadata.name", Rule::Duplicate, problem);
                findings.push(Finding { severity: Severity::Error, object: format!("{kind}/{name}"), fault });
            } else {
                first.insert((kind, namespace, name), document);
            }
        }
    }

    fn is_known(&self, kind: &str) -> bool {
        self.definitions.plural(kind).is_some()
    }

    /// The sound object of that name.
    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Item<'a>> {
        self.items.iter().find(|item| item.kind == kind && item.namespace == namespace && item.name == name)
    }

    /// The names of a kind's objects, sound or not.
    fn names<'f>(&'f self, kind: &'f str, namespace: &'f str) -> impl Iterator<Item = &'f str> {
        self.places.iter().filter(move |place| place.0 == kind && place.1 == namespace).map(|place| place.2.as_str())
    }
}
