//! The product's own programs, linked so that they run in an empty image.
//!
//! They are built by cargo into a target folder of their own: other flags in the common one would rebuild everything at
//! every change between the two.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::progress::Progress;
use crate::{cargo, workspace};

/// How the programs are linked: they need no loader, and the addresses that are filled in at start are stored in a
/// hundredth of the room.
const FLAGS: &str = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs";

/// The static programs of the product.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The controller and command line.
    pub agents: PathBuf,
    /// The runner inside a pod.
    pub agent_runner: PathBuf,
}

/// Builds the static programs for a test's image; cargo knows what is still fresh.
pub fn build(progress: &Progress) -> Result<Programs> {
    build_as("image", progress)
}

/// The same as they are released, which takes minutes.
pub fn build_release(progress: &Progress) -> Result<Programs> {
    build_as("release", progress)
}

fn build_as(profile: &str, progress: &Progress) -> Result<Programs> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = match std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        Some(given) => std::path::absolute(PathBuf::from(given)).context("CARGO_TARGET_DIR is no path")?,
        None => workspace().join("target"),
    }
    .join("static");
    progress.tell(&format!("building the static programs of the product ({profile})"));
    let status = cargo()
        .args(["build", "--quiet", "--locked", "--package=agents-bin", "--bins"])
        .args(["--profile", profile])
        .arg(format!("--target={target}"))
        .arg("--target-dir")
        .arg(&folder)
        // In the environment, for flags given there by others would override those of a configuration.
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the build of the static programs ended with {status}");
    }
    let built = |name: &str| {
        let path = folder.join(&target).join(profile).join(name);
        if !is_static(&path)? {
            bail!("{} needs shared libraries, so no image could run it", path.display());
        }
        Ok(path)
    };
    Ok(Programs { agents: built("agents")?, agent_runner: built("agent-runner")? })
}

/// Whether a program of this machine's kind runs without a dynamic loader.
pub(super) fn is_static(path: &Path) -> Result<bool> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64 * 1024).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    asks_for_loader(&bytes)
        .map(|asks| !asks)
        .with_context(|| format!("{} is no 64-bit little-endian ELF program", path.display()))
}

/// Whether the program headers of an ELF file name an interpreter; `None` if it is no such file.
fn asks_for_loader(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let word = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(word(54)?), usize::from(word(56)?));
    let mut asks = false;
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        asks |= u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?) == PT_INTERP;
    }
    Some(asks)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        // Tests themselves are linked dynamically.
        assert!(!is_static(&std::env::current_exe().unwrap()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("main.rs");
        std::fs::write(&source, "fn main() {}").unwrap();
        let program = folder.path().join("main");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(rustc)
            .args(["-C", "target-feature=+crt-static", "-o"])
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(status.success());
        assert!(is_static(&program).unwrap());
        assert!(is_static(&source).unwrap_err().to_string().ends_with("no 64-bit little-endian ELF program"));
    }

    #[test]
    fn a_torn_program_is_no_program() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 5, 40, 57, 64] {
            assert_eq!(asks_for_loader(&whole[..length]), None, "{length} bytes");
        }
    }
}
