//! Manifests kept as data, one file per case, and every kind as a table row that such a case can be held against.
//!
//! `tests/fixtures/<plural>/valid/*.yaml` are admitted and kept whole. `tests/fixtures/<plural>/invalid/*.yaml` begin with
//! comment lines that say by whom, at which field and with which words they are refused; a second document in such a file
//! is an update of the first, and `# status: {…}` is what is stored as status in between.

use std::{
    fs,
    path::{Path, PathBuf},
};

use agents_core::{
    api::{Kind, VERSION},
    check::{self, Check, Fault},
    kinds::{self, Visitor},
};
use agents_kube::{Object, crd};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};
use xtask::workspace;

/// Who refuses a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// The API server by the schema: types, bounds, unknown fields.
    Schema,
    /// The API server by a CEL rule.
    Rule,
    /// Our own check, after the API server has admitted it.
    Check,
}

/// What the head of an invalid fixture says.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Who refuses it.
    pub by: Judge,
    /// Path of the field, as the refusal prints it.
    pub field: String,
    /// Words of the refusal.
    pub message: String,
    /// What is stored as status before an update.
    pub status: Option<Value>,
}

/// One file.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixture {
    /// Path from the workspace's root.
    pub path: String,
    /// Plural of the kind it belongs to.
    pub plural: String,
    /// The object, and what it is changed to where the change is refused.
    pub documents: Vec<Value>,
    /// Absent on a valid one.
    pub refusal: Option<Refusal>,
}

/// A kind without its type: everything a test wants to know of it.
#[derive(Clone)]
pub struct KindRow {
    /// API group.
    pub group: &'static str,
    /// Kind in CamelCase.
    pub kind: &'static str,
    /// Lower-case plural.
    pub plural: &'static str,
    /// The manifest in the reference.
    pub example: &'static str,
    /// Schema of the object, as in the definition.
    pub schema: Value,
    /// Decodes an object through our types and writes it again.
    pub through_types: fn(Value) -> serde_json::Result<Value>,
    /// What our check finds in the spec of an object.
    pub faults: fn(Value) -> serde_json::Result<Vec<Fault>>,
}

impl KindRow {
    /// `group/version`.
    pub fn api_version(&self) -> String {
        format!("{}/{VERSION}", self.group)
    }

    /// Path of the kind's objects in a namespace.
    pub fn path(&self, namespace: &str) -> String {
        format!("/apis/{}/{VERSION}/namespaces/{namespace}/{}", self.group, self.plural)
    }
}

/// Every kind, in the order in which they are documented.
pub fn kinds() -> Vec<KindRow> {
    struct Rows(Vec<KindRow>);
    impl Visitor for Rows {
        fn visit<K: Kind + Check>(&mut self) {
            let definition = crd::crd::<K>();
            self.0.push(KindRow {
                group: K::GROUP,
                kind: K::KIND,
                plural: K::PLURAL,
                example: K::EXAMPLE,
                schema: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone(),
                through_types: |object| serde_json::to_value(serde_json::from_value::<Object<K>>(object)?),
                faults: |object| Ok(check::faults::<K>(&serde_json::from_value::<Object<K>>(object)?.spec)),
            });
        }
    }
    let mut rows = Rows(Vec::new());
    kinds::visit(&mut rows);
    rows.0
}

/// Every fixture, by path.
///
/// # Errors
/// A file in a wrong place or without a readable head.
pub fn fixtures() -> Result<Vec<Fixture>> {
    let root = workspace().join("tests/fixtures");
    let known = kinds();
    let mut all = Vec::new();
    for folder in entries(&root)? {
        let plural = name(&folder)?;
        // Manifests of several kinds together, and values of the charts.
        if matches!(plural.as_str(), "seeds" | "chart") {
            continue;
        }
        ensure!(known.iter().any(|row| row.plural == plural), "{} belongs to no kind", folder.display());
        for verdict in entries(&folder)? {
            let valid = match name(&verdict)?.as_str() {
                "valid" => true,
                "invalid" => false,
                _ => bail!("{} is neither valid nor invalid", verdict.display()),
            };
            for file in entries(&verdict)? {
                all.push(fixture(&plural, valid, &file).with_context(|| file.display().to_string())?);
            }
        }
    }
    Ok(all)
}

/// Every manifest of our kinds below `examples/`, those of the first designs, and the example of every kind, each with
/// where it stands.
///
/// # Errors
/// A file that is not YAML.
pub fn examples() -> Result<Vec<(String, Value)>> {
    let known = kinds();
    let mut all = Vec::new();
    for row in &known {
        all.push((format!("the example of {}", row.kind), serde_saphyr::from_str(row.example)?));
    }
    let mut folders = vec![workspace().join("examples"), workspace().join("tests/fixtures/seeds")];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path)?)
                    .with_context(|| path.display().to_string())?;
                let ours =
                    documents.into_iter().filter(|document| known.iter().any(|row| document["kind"] == row.kind));
                all.extend(ours.map(|document| (path.display().to_string(), document)));
            }
        }
    }
    Ok(all)
}

/// The row of an object's kind.
///
/// # Errors
/// An object of another kind or version.
pub fn row_of<'r>(rows: &'r [KindRow], object: &Value) -> Result<&'r KindRow> {
    rows.iter()
        .find(|row| object["kind"] == row.kind && object["apiVersion"] == row.api_version().as_str())
        .with_context(|| format!("{} {} is no kind of ours", object["apiVersion"], object["kind"]))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut entries: Vec<PathBuf> = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    Ok(entries)
}

fn name(path: &Path) -> Result<String> {
    Ok(path.file_name().and_then(|name| name.to_str()).context("a name is no text")?.to_owned())
}

fn fixture(plural: &str, valid: bool, file: &Path) -> Result<Fixture> {
    let text = fs::read_to_string(file)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).context("is not YAML")?;
    let refusal = if valid { None } else { Some(refusal(&text)?) };
    let most = if valid { 1 } else { 2 };
    ensure!((1..=most).contains(&documents.len()), "{} documents", documents.len());
    let path = file.strip_prefix(workspace())?.display().to_string();
    Ok(Fixture { path, plural: plural.to_owned(), documents, refusal })
}

fn refusal(text: &str) -> Result<Refusal> {
    let mut head = Map::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
        for key in ["refused by", "field", "message", "status"] {
            if let Some(value) = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')) {
                ensure!(head.insert(key.to_owned(), value.trim().into()).is_none(), "says {key} twice");
            }
        }
    }
    let line = |key: &str| head.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    let by = match line("refused by") {
        Some("schema") => Judge::Schema,
        Some("rule") => Judge::Rule,
        Some("check") => Judge::Check,
        other => bail!("`# refused by:` is {other:?}; schema, rule or check is wanted"),
    };
    Ok(Refusal {
        by,
        field: line("field").context("no `# field:`")?.to_owned(),
        message: line("message").context("no `# message:`")?.to_owned(),
        status: line("status").map(serde_json::from_str).transpose().context("`# status:` is not JSON")?,
    })
}
