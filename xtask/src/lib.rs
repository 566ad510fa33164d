//! What the project needs beside its product: the test cluster, generation, checks, benches.

pub mod bench;
pub mod check;
pub mod cluster;
pub mod generate;
pub mod links;
pub mod rings;

use std::path::{Path, PathBuf};

/// Root of the workspace this program was built from.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
