//! What the project needs beside its product: the test cluster, generation, checks, tests, benches.

pub mod attacks;
pub mod bench;
pub mod check;
pub mod cluster;
pub mod fuzz;
pub mod generate;
mod heard;
pub mod links;
pub mod mutants;
pub mod recipe;
pub mod rings;
pub mod steps;
pub mod test;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Root of the workspace this program was built from.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs us, in the workspace, as a person would start it.
///
/// What cargo tells a program that it runs is taken away: build scripts ask for some of it, ring's for one, so that each
/// cargo below another would build them, and all that rests on them, again.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).stdin(Stdio::null()).env_remove("OUT_DIR");
    for (name, _) in std::env::vars_os() {
        let told = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if name.to_str().is_some_and(|name| told.iter().any(|told| name.starts_with(told))) {
            command.env_remove(name);
        }
    }
    command
}

/// How a program of another ends, where its end is all that is wanted of it.
pub(crate) trait Success {
    /// Runs it to its end.
    ///
    /// # Errors
    /// `or`, when it does not end well; or it cannot be started.
    fn success(&mut self, or: &str) -> Result<()>;
}

impl Success for Command {
    fn success(&mut self, or: &str) -> Result<()> {
        let status = self.status().context("failed to start cargo")?;
        if status.success() { Ok(()) } else { bail!("{or}") }
    }
}
