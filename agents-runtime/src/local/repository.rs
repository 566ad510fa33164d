//! Repositories named by a path: a manifest cannot know where it was checked out, so `.`, `..`, `./…`, `../…` and
//! absolute paths mean the git repository that holds that folder. Looks at folders; changes nothing.

use std::{
    fmt::Write,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use agents_core::git::is_path;

/// A path that names no repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// There is no such folder.
    #[error("cannot find {}", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No folder above it is a repository either.
    #[error("{} is not inside a git repository", .0.display())]
    Outside(PathBuf),
}

/// The `file://` address of the repository that `url` names by a path relative to `folder`; `None` when `url` is an
/// address already.
pub(super) fn address(url: &str, folder: &Path) -> Result<Option<String>, RepositoryError> {
    if !is_path(url) {
        return Ok(None);
    }
    let named = folder.join(url);
    let start = fs::canonicalize(&named).map_err(|source| RepositoryError::Absent { path: named, source })?;
    let repository =
        start.ancestors().find(|folder| is_repository(folder)).ok_or(RepositoryError::Outside(start.clone()))?;
    let mut address = "file://".to_owned();
    for byte in repository.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            address.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(address, "%{byte:02X}");
        }
    }
    Ok(Some(address))
}

fn is_repository(folder: &Path) -> bool {
    let bare = || folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir();
    folder.join(".git").exists() || bare()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_the_repository_around_it() {
        let place = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(place.path()).unwrap().join("a b");
        fs::create_dir_all(root.join("examples/quick")).unwrap();
        assert!(matches!(address(".", &root), Err(RepositoryError::Outside(_))));
        fs::create_dir(root.join(".git")).unwrap();
        let wanted = format!("file://{}", root.display().to_string().replace(' ', "%20"));
        for (url, folder) in
            [("..", "examples/quick"), (".", "examples"), ("./quick", "examples"), ("../..", "examples/quick")]
        {
            assert_eq!(address(url, &root.join(folder)).unwrap(), Some(wanted.clone()), "{url}");
        }
        assert!(matches!(address("./absent", &root), Err(RepositoryError::Absent { .. })));
        for other in ["https://example.com/a", "git@example.com:a/b", "file:///a"] {
            assert_eq!(address(other, &root).unwrap(), None);
        }
    }
}
