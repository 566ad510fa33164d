//! Where `/workspace` and `/root` really are. Pure.
//!
//! In a container they are themselves; for a local process they are folders of the run. Mapped are paths and those
//! arguments and variables that begin with one of the two as whole path components.

use std::path::PathBuf;

use agents_core::plan::runner_spec::{HOME, Roots, WORKSPACE};
use thiserror::Error;

/// Longest path, in bytes.
const MAX_PATH: usize = 4096;

/// One of the two folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RootName {
    /// [`WORKSPACE`].
    Workspace,
    /// [`HOME`].
    Home,
}

/// A path below one of the two folders, without `.`, `..` or empty components. Never the folder itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Beneath {
    /// The folder.
    pub root: RootName,
    /// Components below it; at least one.
    pub components: Vec<String>,
}

impl Beneath {
    /// The path as users write it.
    pub(super) fn logical(&self) -> String {
        let root = match self.root {
            RootName::Workspace => WORKSPACE,
            RootName::Home => HOME,
        };
        format!("{root}/{}", self.components.join("/"))
    }

    /// Whether one of the two lies at or below the other.
    pub(super) fn collides(&self, other: &Self) -> bool {
        self.root == other.root && self.components.iter().zip(&other.components).all(|(a, b)| a == b)
    }
}

/// A path that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NotAllowed {
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
}

/// Splits an absolute path below one of the two folders.
///
/// # Errors
/// The path is not absolute, lies elsewhere, or says `..`.
pub(super) fn beneath(path: &str) -> Result<Beneath, NotAllowed> {
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
    Ok(Beneath { root, components })
}

fn split(path: &str) -> Option<(RootName, &str)> {
    [(RootName::Workspace, WORKSPACE), (RootName::Home, HOME)].into_iter().find_map(|(name, prefix)| {
        let rest = path.strip_prefix(prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((name, rest))
    })
}

/// The real places of the two folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootMap {
    workspace: PathBuf,
    home: PathBuf,
}

impl RootMap {
    /// The places a spec names; without any, the two folders are themselves.
    ///
    /// # Errors
    /// The name of the field whose place is not an absolute path.
    pub(super) fn new(roots: Option<&Roots>) -> Result<Self, &'static str> {
        let Some(Roots { workspace, home }) = roots else {
            return Ok(Self { workspace: WORKSPACE.into(), home: HOME.into() });
        };
        if !workspace.starts_with('/') {
            return Err("roots.workspace");
        }
        if !home.starts_with('/') {
            return Err("roots.home");
        }
        Ok(Self { workspace: workspace.into(), home: home.into() })
    }

    /// The real place of a folder.
    pub(super) fn place(&self, root: RootName) -> &PathBuf {
        match root {
            RootName::Workspace => &self.workspace,
            RootName::Home => &self.home,
        }
    }

    /// The real place of a path below one of the folders.
    pub(super) fn path(&self, beneath: &Beneath) -> PathBuf {
        let mut path = self.place(beneath.root).clone();
        path.extend(&beneath.components);
        path
    }

    /// `text` with the real place in front when it begins with one of the two folders, else unchanged.
    pub(super) fn text(&self, text: &str) -> String {
        match split(text) {
            Some((root, rest)) => format!("{}{rest}", self.place(root).display()),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map() -> RootMap {
        RootMap::new(Some(&Roots { workspace: "/r/w".into(), home: "/r/h".into() })).unwrap()
    }

    #[test]
    fn only_whole_components_are_mapped() {
        for (given, wanted) in [
            ("/workspace", "/r/w"),
            ("/workspace/a b", "/r/w/a b"),
            ("/root/.codex", "/r/h/.codex"),
            ("/workspaces/a", "/workspaces/a"),
            ("--path=/workspace/a", "--path=/workspace/a"),
            ("/rooted", "/rooted"),
            ("", ""),
        ] {
            assert_eq!(map().text(given), wanted);
        }
    }

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

    proptest! {
        #[test]
        fn an_accepted_path_stays_below_its_root(path in "/(workspace|root|etc)?(/|\\.|\\.\\.|a|b| ){0,12}") {
            if let Ok(accepted) = beneath(&path) {
                let real = map().path(&accepted);
                prop_assert!(real.starts_with("/r"));
                prop_assert!(real.components().all(|part| part != std::path::Component::ParentDir));
                prop_assert_eq!(beneath(&accepted.logical()).unwrap(), accepted);
            }
        }
    }
}
