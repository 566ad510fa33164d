//! The product as the tests use it: its program, and the examples as a person would apply them.

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The `agents` program, built by cargo from the present code.
///
/// # Errors
/// cargo cannot be started, or the code does not build.
pub fn agents() -> Result<PathBuf> {
    // With the features of the whole workspace, as a test of all of it has just built them.
    let built = xtask::cargo()
        .args(["build", "--quiet", "--workspace", "--bin=agents", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    let lines = String::from_utf8(built.stdout).context("cargo speaks no text")?;
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    program.with_context(|| format!("the program was not built: {}", built.status))
}

/// The manifests of the example `name`, file by file in the order of their names.
///
/// # Errors
/// No such example, or one that is no YAML.
pub fn example(name: &str) -> Result<Vec<Value>> {
    let folder = xtask::workspace().join("examples").join(name);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    let mut manifests = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| path.display().to_string())?;
        manifests.extend(documents);
    }
    Ok(manifests)
}

/// The one manifest of a kind, to be changed before it is applied.
///
/// # Errors
/// There is none.
pub fn of_kind<'a>(manifests: &'a mut [Value], kind: &str) -> Result<&'a mut Value> {
    manifests.iter_mut().find(|manifest| manifest["kind"] == kind).with_context(|| format!("the example has no {kind}"))
}
