//! Where `/workspace` and `/root` really are. Pure.
//!
//! In a container they are themselves; for a local process they are folders of the run. Mapped are paths and those
//! arguments and variables that begin with one of the two as whole path components.

use std::path::PathBuf;

pub(super) use agents_core::place::{Beneath, NotAllowed, RootName, beneath};
use agents_core::{
    place::split,
    plan::runner_spec::{HOME, Roots, WORKSPACE},
};

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
