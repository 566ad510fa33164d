//! Links between the documents of the repository: every relative one leads to a file, every anchor to a heading. What is
//! written for those who change the code names files as code does, whole or from some folder on; each of them is there too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Folders without files of ours.
const OTHERS: &[&str] = &["target", "node_modules"];
/// Folder of templates of documents, which lead from where they are written to.
const TEMPLATES: &str = "chart";

/// Endings of names that are taken for files.
const FILES: &[&str] = &[".rs", ".md", ".toml", ".yaml", ".yml", ".json"];

/// Follows every relative link of every Markdown file below `root`, and every file that those for developers name.
///
/// # Errors
/// Every link that leads nowhere, and every name of a file that is not there.
pub fn check(root: &Path) -> Result<()> {
    let mut all = Vec::new();
    find(root, &mut all)?;
    let is_document = |path: &&PathBuf| {
        path.extension().is_some_and(|extension| extension == "md") && path.iter().all(|folder| folder != TEMPLATES)
    };
    let files: Vec<_> = all.iter().filter(is_document).collect();
    let mut broken = Vec::new();
    let mut anchors = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        let path = file.strip_prefix(root).unwrap_or(file);
        let shown = path.display();
        if path == Path::new("CONTRIBUTING.md") || path.starts_with("docs/dev") {
            let missing = named(&text).into_iter().filter(|(_, name)| !all.iter().any(|path| path.ends_with(name)));
            broken.extend(missing.map(|(line, name)| format!("{shown}:{line}: `{name}` is not there")));
        }
        for (line, target) in links(&text) {
            if let Some(problem) = problem(file, &target, &mut anchors) {
                broken.push(format!("{shown}:{line}: {target} {problem}"));
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("links lead nowhere:\n{}", broken.join("\n")) }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || OTHERS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong with a link in `file`.
fn problem(file: &Path, target: &str, anchors: &mut BTreeMap<PathBuf, BTreeSet<String>>) -> Option<String> {
    // Addresses with a scheme are somebody else's.
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = file.parent().unwrap_or(file);
    let led = if path.is_empty() { file.to_owned() } else { plain(&folder.join(path)) };
    if !led.exists() {
        return Some("is not there".to_owned());
    }
    let anchor = anchor?;
    if led.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let known = anchors.entry(led.clone()).or_insert_with(|| headings(&fs::read_to_string(&led).unwrap_or_default()));
    (!known.contains(anchor)).then(|| "names no heading".to_owned())
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// The lines of a document outside code blocks, each with its number from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(n, line)| {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((n + 1, line)),
            (Some(_), _) => {}
        }
        None
    })
}

/// The targets of all links, each with its line.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in prose(text) {
        let line = without_code(line);
        let mut rest = line.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            // A title may follow the target.
            let target = target.split_whitespace().next().unwrap_or_default();
            if !target.is_empty() {
                found.push((n, target.trim_matches(['<', '>']).to_owned()));
            }
            rest = after;
        }
        // `[name]: target` at the start of a line.
        if let Some((_, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
            found.extend(target.split_whitespace().next().map(|target| (n, target.to_owned())));
        }
    }
    found
}

/// The files that code spans name, each with its line; a pattern is no name.
fn named(text: &str) -> Vec<(usize, String)> {
    let spans = prose(text).flat_map(|(n, line)| line.split('`').skip(1).step_by(2).map(move |span| (n, span)));
    let is_file = |span: &str| {
        FILES.iter().any(|ending| span.ends_with(ending) && span.len() > ending.len())
            && !span.contains(['<', '>', '*', '{', ' ', '…', '$', '~'])
            && !span.starts_with('/')
    };
    spans.filter(|(_, span)| is_file(span)).map(|(n, span)| (n, span.to_owned())).collect()
}

/// The line with its code spans taken out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The anchors of a document's headings, as they are made for them on the web.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if !(1..=6).contains(&level) || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut anchor = slug.clone();
        let mut n = 0;
        while !anchors.insert(anchor.clone()) {
            n += 1;
            anchor = format!("{slug}-{n}");
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code() {
        let text = "See [a](b.md#c \"title\") and ![i](i.png).\n`[no](x)`\n```\n[no](y)\n```\n[d]: e.md\n";
        assert_eq!(links(text), [(1, "b.md#c".to_owned()), (1, "i.png".to_owned()), (6, "e.md".to_owned())]);
    }

    #[test]
    fn anchors_are_those_of_the_web() {
        let anchors = headings("# A `b`, c!\n## Twice\n## Twice\n#no\n```\n# no\n```\n");
        assert_eq!(anchors, ["a-b-c", "twice", "twice-1"].map(str::to_owned).into());
    }

    #[test]
    fn what_leads_nowhere_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        fs::write(folder.path().join("docs/b.md"), "# Here\n").unwrap();
        let of = |text: &str| {
            fs::write(folder.path().join("a.md"), text).unwrap();
            check(folder.path()).map_err(|error| error.to_string())
        };
        of("[x](docs/b.md) [x](docs/../docs/b.md#here) [x](docs) [x](https://example.org/none)").unwrap();
        assert!(of("\n[x](docs/c.md)").unwrap_err().contains("a.md:2: docs/c.md is not there"));
        assert!(of("[x](docs/b.md#there)").unwrap_err().contains("a.md:1: docs/b.md#there names no heading"));
        assert!(of("[x](#nowhere)").unwrap_err().contains("#nowhere names no heading"));
        of("`no.rs`").unwrap();
        let developers = |text: &str| {
            fs::write(folder.path().join("CONTRIBUTING.md"), text).unwrap();
            check(folder.path()).map_err(|error| error.to_string())
        };
        of("").unwrap();
        developers("`docs/b.md`, `b.md`, `src/<kind>.rs`, `.rs`").unwrap();
        assert!(developers("\nin `ocs/b.md`").unwrap_err().contains("CONTRIBUTING.md:2: `ocs/b.md` is not there"));
    }
}
