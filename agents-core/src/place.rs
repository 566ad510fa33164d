//! Paths below the two folders of a run, `/workspace` and `/root`, and which files of a run get in each other's way.
//!
//! One judge for the check of manifests and for the runner, which maps the paths to where the folders really are.

use thiserror::Error;

use crate::{
    api::agent_run::Output,
    plan::runner_spec::{ArtifactPaths, CHECKOUT_DIR, HOME, OUTPUTS_DIR, STATUS_PATH, WORKSPACE},
    status::cut,
};

/// Where the decoded spec lies for the provider.
pub const SPEC_COPY: &str = "/workspace/.agent/runner-spec.json";
/// Longest name of a file on the file systems of nodes, in bytes (NAME_MAX).
pub const MAX_NAME: usize = 255;
/// Longest path, in bytes.
const MAX_PATH: usize = 4096;

/// One of the two folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootName {
    /// [`WORKSPACE`].
    Workspace,
    /// [`HOME`].
    Home,
}

/// A path below one of the two folders, without `.`, `..` or empty components. Never the folder itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beneath {
    /// The folder.
    pub root: RootName,
    /// Components below it; at least one.
    pub components: Vec<String>,
}

impl Beneath {
    /// The path as users write it.
    pub fn logical(&self) -> String {
        let root = match self.root {
            RootName::Workspace => WORKSPACE,
            RootName::Home => HOME,
        };
        format!("{root}/{}", self.components.join("/"))
    }

    /// Whether one of the two lies at or below the other.
    pub fn collides(&self, other: &Self) -> bool {
        self.root == other.root && self.components.iter().zip(&other.components).all(|(a, b)| a == b)
    }
}

/// A path that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAllowed {
    /// Not below one of the two folders.
    #[error("path `{0}` is not below {WORKSPACE} or {HOME}")]
    Outside(String),
    /// It has a `..`.
    #[error("path `{0}` contains `..`")]
    Upward(String),
    /// It has a control character.
    #[error("path {0:?} contains a control character")]
    Control(String),
    /// It is longer than 4096 bytes.
    #[error("path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// No file system has room for such a name.
    #[error("path has a name longer than {MAX_NAME} bytes, which no file can have: `{}`", cut(.0, 64))]
    LongName(String),
    /// It is the folder of the outputs itself, or one above.
    #[error("path `{0}` is a folder that is always there, and no file")]
    Folder(String),
    /// It is a file that the runner writes itself.
    #[error("path `{0}` collides with {1}, which no provider writes")]
    Own(String, &'static str),
}

/// Splits an absolute path below one of the two folders.
///
/// # Errors
/// The path is not absolute, lies elsewhere, or says `..`.
pub fn beneath(path: &str) -> Result<Beneath, NotAllowed> {
    if path.len() > MAX_PATH {
        return Err(NotAllowed::TooLong);
    }
    if path.chars().any(char::is_control) {
        return Err(NotAllowed::Control(path.to_owned()));
    }
    let (root, rest) = split(path).ok_or_else(|| NotAllowed::Outside(path.to_owned()))?;
    let components: Vec<String> =
        rest.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
    if components.iter().any(|part| part == "..") {
        return Err(NotAllowed::Upward(path.to_owned()));
    }
    if components.is_empty() {
        return Err(NotAllowed::Outside(path.to_owned()));
    }
    if let Some(long) = components.iter().find(|part| part.len() > MAX_NAME) {
        return Err(NotAllowed::LongName(long.clone()));
    }
    Ok(Beneath { root, components })
}

/// The folder a path lies in or is, and the rest of the path.
pub fn split(path: &str) -> Option<(RootName, &str)> {
    [(RootName::Workspace, WORKSPACE), (RootName::Home, HOME)].into_iter().find_map(|(name, prefix)| {
        let rest = path.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((name, rest))
    })
}

/// The folder that is the runner's own, whatever it keeps in it.
pub const OWN_DIR: &str = "/workspace/.agent";
/// A file that keeps room for the report on a disk that the provider fills.
pub const RESERVE: &str = "/workspace/.agent/.reserve";

/// Where a declared output should be.
///
/// # Errors
/// The path lies outside the workspace, or at a file of the runner's own.
pub fn of_output(output: &Output) -> Result<Beneath, NotAllowed> {
    let path = output.path.as_deref().unwrap_or(&output.name);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{OUTPUTS_DIR}/{path}") };
    let place = beneath(&path)?;
    if place.root != RootName::Workspace {
        return Err(NotAllowed::Outside(path));
    }
    if contains(&place, OUTPUTS_DIR) {
        return Err(NotAllowed::Folder(place.logical()));
    }
    // They are there whatever the provider does, or are replaced after it was looked for them.
    match collision(&place, &[("the runner's spec", SPEC_COPY), RESERVED, ("the status file", STATUS_PATH)]) {
        Some(name) => Err(NotAllowed::Own(place.logical(), name)),
        None => Ok(place),
    }
}

const RESERVED: (&str, &str) = ("the file that keeps room for the report", RESERVE);
const FOLDERS: [(&str, &str); 2] =
    [("the folder of the outputs", OUTPUTS_DIR), ("the folder of the repository", CHECKOUT_DIR)];

/// What of these a place gets in the way of.
fn collision(place: &Beneath, own: &[(&'static str, &str)]) -> Option<&'static str> {
    own.iter().find(|(_, own)| beneath(own).is_ok_and(|own| own.collides(place))).map(|(name, _)| *name)
}

/// What of the runner's own a status file or a log at this path would get in the way of.
pub fn of_another(path: &str) -> Option<&'static str> {
    let place = beneath(path).ok()?;
    let folder = FOLDERS.iter().find(|(_, folder)| contains(&place, folder)).map(|(name, _)| *name);
    folder.or_else(|| collision(&place, &[("the runner's spec", SPEC_COPY), RESERVED]))
}

/// Whether the path is the place or lies below it.
fn contains(place: &Beneath, path: &str) -> bool {
    beneath(path).is_ok_and(|path| path.root == place.root && path.components.starts_with(&place.components))
}

/// The declared outputs that can never be there beside an earlier one: two files of one place, or one where the other
/// needs a folder. Each by its number, with the number of the earlier.
pub fn shared_outputs(outputs: &[Output]) -> Vec<(usize, usize)> {
    let places: Vec<Option<Beneath>> = outputs.iter().map(|output| of_output(output).ok()).collect();
    let earlier = |n: usize, place: &Beneath| {
        places[..n].iter().position(|other| other.as_ref().is_some_and(|other| other.collides(place)))
    };
    (0..).zip(&places).filter_map(|(n, place)| Some((n, earlier(n, place.as_ref()?)?))).collect()
}

/// An input file that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputFileError {
    /// Its path.
    #[error(transparent)]
    Path(#[from] NotAllowed),
    /// Two files of one path, or one where the other needs a folder.
    #[error("`{path}` collides with {other}")]
    Collision {
        /// The path.
        path: String,
        /// The other.
        other: String,
    },
    /// It lies in the folder of the runner.
    #[error("`{0}` lies in {OWN_DIR}, which is the runner's own: only below {OUTPUTS_DIR} is room for files of others")]
    Own(String),
}

/// Where input files should be, judged against each other and against what the runner puts somewhere; in their order.
pub fn of_input_files<'a>(
    paths: impl IntoIterator<Item = &'a str>,
    artifacts: &ArtifactPaths,
) -> Vec<Result<Beneath, InputFileError>> {
    let ArtifactPaths { status_path, log_path } = artifacts;
    let own = [
        ("the runner's spec", SPEC_COPY.to_owned()),
        ("the status file", status_path.clone()),
        ("the status file", format!("{status_path}.1")),
        ("the log", log_path.clone()),
        ("the log", format!("{log_path}.1")),
    ];
    // One outside the two folders cannot collide with a file inside.
    let mut taken: Vec<(String, Beneath)> =
        own.into_iter().filter_map(|(name, path)| Some((name.to_owned(), beneath(&path).ok()?))).collect();
    let judge = |(n, path): (usize, &'a str)| {
        let place = beneath(path)?;
        let collision = |other: &str| InputFileError::Collision { path: place.logical(), other: other.to_owned() };
        if let Some((other, _)) = taken.iter().find(|(_, other)| other.collides(&place)) {
            return Err(collision(other));
        }
        if let Some((name, _)) = FOLDERS.iter().find(|(_, folder)| contains(&place, folder)) {
            return Err(collision(name));
        }
        if is_below(&place, OWN_DIR) && !is_below(&place, OUTPUTS_DIR) {
            return Err(InputFileError::Own(place.logical()));
        }
        taken.push((format!("`inputFiles[{n}].path`"), place.clone()));
        Ok(place)
    };
    paths.into_iter().enumerate().map(judge).collect()
}

/// Whether the place lies in the folder, or is it.
fn is_below(place: &Beneath, folder: &str) -> bool {
    beneath(folder).is_ok_and(|folder| folder.root == place.root && place.components.starts_with(&folder.components))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_outside_or_upward_are_refused() {
        for path in [
            "../../etc/passwd",
            "/etc/passwd",
            "/proc/self/environ",
            "/workspace",
            "/workspace/",
            "/workspace/.",
            "/workspace/../etc/passwd",
            "/workspace/a/../../b",
            "/workspace/a\0b",
            "/workspace/a\nb",
            "workspace/a",
            "//workspace/a",
            "",
            "/workspacex/a",
            &format!("/workspace/{}", "a".repeat(5000)),
        ] {
            assert!(beneath(path).is_err(), "{path:?}");
        }
        assert_eq!(beneath("/workspace//a/./b/").unwrap().logical(), "/workspace/a/b");
    }

    #[test]
    fn files_of_one_path_or_of_the_runners_own_get_in_each_others_way() {
        let judged = |paths: &[&str]| -> Vec<bool> {
            let judged = of_input_files(paths.iter().copied(), &ArtifactPaths::default());
            judged.into_iter().map(|place| place.is_ok()).collect()
        };
        assert_eq!(judged(&["/workspace/a", "/workspace/b", "/root/a", "/workspace/ab"]), [true; 4]);
        assert_eq!(judged(&["/workspace/a", "/workspace/./a"]), [true, false]);
        assert_eq!(judged(&["/workspace/a", "/workspace/a/b"]), [true, false]);
        assert_eq!(judged(&["/workspace/a/b", "/workspace/a"]), [true, false]);
        for own in
            ["status.json.1", "log.txt", "log.txt.1", "runner-spec.json", "log.txt/x", "outputs", "gitconfig", "new/x"]
        {
            assert_eq!(judged(&[&format!("/workspace/.agent/{own}")]), [false], "{own}");
        }
        assert_eq!(judged(&["/workspace/.agent", RESERVE, SPEC_COPY, CHECKOUT_DIR]), [false; 4]);
        // What the provider may edit, and what is put over a checkout.
        let beside =
            ["/workspace/.agent/outputs/a", "/workspace/repository/AGENTS.md", "/workspace/.agents", "/root/.agent"];
        assert_eq!(judged(&beside), [true; 4]);
    }

    #[test]
    fn an_output_lies_in_the_workspace() {
        let place = |path: Option<&str>| {
            of_output(&Output { name: "o".to_owned(), path: path.map(str::to_owned) }).map(|place| place.logical())
        };
        assert_eq!(place(None).as_deref(), Ok("/workspace/.agent/outputs/o"));
        assert_eq!(place(Some("a/b")).as_deref(), Ok("/workspace/.agent/outputs/a/b"));
        assert_eq!(place(Some("/workspace/a")).as_deref(), Ok("/workspace/a"));
        for path in ["/root/a", "/workspace/", "/workspace", "/etc/passwd", "../x", "a/../b", "a\nb", &"a".repeat(5000)]
        {
            assert!(place(Some(path)).is_err(), "{path:?}");
        }
        // What can be no file: the folder of the outputs, one above, and a name that no file has.
        for path in [".", "./", "/workspace/.agent", "/workspace/.agent/outputs/", &"a".repeat(256)] {
            assert!(place(Some(path)).is_err(), "{path:?}");
        }
        for path in [SPEC_COPY, RESERVE, STATUS_PATH, "../runner-spec.json", "/workspace/.agent/status.json/x"] {
            assert!(place(Some(path)).is_err(), "{path:?}");
        }
        assert!(place(Some(&"a".repeat(255))).is_ok());
    }

    #[test]
    fn outputs_that_share_a_place_are_found_however_it_is_written() {
        let shared = |paths: &[&str]| {
            let outputs = paths.iter().map(|path| Output { name: "o".to_owned(), path: Some((*path).to_owned()) });
            shared_outputs(&outputs.collect::<Vec<_>>())
        };
        assert_eq!(shared(&["a", "b/a", "/workspace/a", "ab"]), []);
        assert_eq!(shared(&["a", "b", "./a", "/workspace/.agent/outputs//b"]), [(2, 0), (3, 1)]);
        assert_eq!(shared(&["a/b", "a", "..", ".."]), [(1, 0)]);
    }

    proptest! {
        #[test]
        fn an_accepted_path_reads_back(path in "/(workspace|root|etc)?(/|\\.|\\.\\.|a|b| ){0,12}") {
            if let Ok(accepted) = beneath(&path) {
                prop_assert!(accepted.components.iter().all(|part| part != ".." && part != "." && !part.is_empty()));
                prop_assert_eq!(beneath(&accepted.logical()).unwrap(), accepted);
            }
        }
    }
}
