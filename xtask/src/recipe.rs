//! Whether a commit that makes a kind act keeps to the places that CONTRIBUTING names ("A kind begins to act").

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Where a kind's own rules and their proof stand.
const PLACES: &[(&str, &str)] = &[
    ("agents-core/src/decide/", "its rules"),
    ("agents-core/src/kinds.rs", "its row"),
    ("agents-core/src/api/", "ACTED_ON"),
    ("tests/tests/simulation/", "its stories"),
];

/// What follows from them or says so.
const BESIDES: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "agents-core/src/api/examples/",
    "agents-core/src/status/reason.rs",
    "agents-kube/src/rbac.rs",
    "charts/",
    "crds/",
    "docs/",
    "examples/",
    "tests/fixtures/",
    "tests/attacks.yaml",
];

/// Decision code that is not of one kind: a commit that makes a kind act has no business there.
const SHARED: &[&str] = &["agents-core/src/decide/rules.rs", "agents-core/src/decide/declaration.rs"];

/// What a commit changed, by place.
///
/// # Errors
/// The commit is not there, or it changed something else.
pub fn check(commit: &str) -> Result<String> {
    let files = git(&["show", "--name-only", "--format=", commit, "--"])?;
    let mut lines = Vec::new();
    let mut others = Vec::new();
    for file in files.lines() {
        match place(file) {
            Some(place) => lines.push(format!("{place:<12} {file}")),
            None => others.push(file),
        }
    }
    let api = git(&["show", "--unified=0", "--format=", commit, "--", "agents-core/src/api/*.rs"])?;
    let changed =
        api.lines().filter(|line| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---"));
    let beside: Vec<&str> = changed.filter(|line| !is_allowed_in_api(&line[1..])).collect();
    if !others.is_empty() || !beside.is_empty() {
        bail!(
            "{commit} changes more than its places: {}",
            others.into_iter().chain(beside).collect::<Vec<_>>().join(", ")
        );
    }
    lines.sort();
    Ok(lines.join("\n") + "\n")
}

fn place(file: &str) -> Option<&'static str> {
    if SHARED.contains(&file) {
        return None;
    }
    if BESIDES.iter().any(|known| file.starts_with(known)) {
        return Some("besides");
    }
    PLACES.iter().find(|(known, _)| file.starts_with(known)).map(|(_, place)| *place)
}

/// Of a kind's types: that it is acted on, and what its documentation says.
fn is_allowed_in_api(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with("///") || line.contains("ACTED_ON") || line.contains("DESCRIPTION")
}

fn git(args: &[&str]) -> Result<String> {
    let output = Command::new("git").args(args).current_dir(workspace()).output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_and_shared_decisions_are_no_place_of_a_kind() {
        assert_eq!(place("agents-core/src/decide/signal.rs"), Some("its rules"));
        assert_eq!(place("agents-core/src/api/examples/signal.yaml"), Some("besides"));
        for other in
            ["agents-kube/src/control/kinds.rs", "agents-core/src/decide/rules.rs", "agents-kube/src/manager.rs"]
        {
            assert_eq!(place(other), None);
        }
        assert!(is_allowed_in_api("    const ACTED_ON: bool = true;") && !is_allowed_in_api("    pub name: String,"));
    }
}
