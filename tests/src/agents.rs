//! Published coding agents, installed from the lock file in `tests/agents`. May run npm and write to the cache folder;
//! the work tree stays as it is.
//!
//! To pin another version: change `tests/agents/package.json`, run `npm install --package-lock-only` there, and record
//! the transcripts anew (`RECORD_TRANSCRIPTS=1 cargo test -p agents-tests --test scripted_model`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

/// The package and the triple under which codex publishes its binary for this machine.
const CODEX_PLATFORM: Option<(&str, &str)> = match (cfg!(target_os = "linux"), cfg!(target_os = "macos")) {
    (true, _) if cfg!(target_arch = "x86_64") => Some(("codex-linux-x64", "x86_64-unknown-linux-musl")),
    (true, _) if cfg!(target_arch = "aarch64") => Some(("codex-linux-arm64", "aarch64-unknown-linux-musl")),
    (_, true) if cfg!(target_arch = "x86_64") => Some(("codex-darwin-x64", "x86_64-apple-darwin")),
    (_, true) if cfg!(target_arch = "aarch64") => Some(("codex-darwin-arm64", "aarch64-apple-darwin")),
    _ => None,
};

/// The pinned codex, a single static file; installed at the first call, by one process at a time.
///
/// It lies in `$XDG_CACHE_HOME/agents-test/npm-<hash of the lock file>` and is never changed there, so it may be copied
/// into an image. Fails when npm is absent, the registry cannot be reached, or codex has no binary for this machine.
pub fn codex_binary() -> anyhow::Result<PathBuf> {
    let Some((package, triple)) = CODEX_PLATFORM else { bail!("codex has no binary for this machine") };
    let binary = installed(triple)?.join(format!("node_modules/@openai/{package}/vendor/{triple}/bin/codex"));
    ensure!(binary.is_file(), "the package @openai/{package} lacks {}", binary.display());
    Ok(binary)
}

/// The folder that holds `node_modules` for this lock file and platform.
fn installed(platform: &str) -> anyhow::Result<PathBuf> {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("agents");
    let lock_file = fs::read(pinned.join("package-lock.json")).context("cannot read the agents' lock file")?;
    let hash = Sha256::new().chain_update(&lock_file).chain_update(platform).finalize();
    let hash = hash.iter().take(8).fold(0, |high: u64, byte| high << 8 | u64::from(*byte));

    let cache = cache_folder()?;
    let folder = cache.join(format!("npm-{hash:016x}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let guard = File::create(cache.join("npm.lock"))?;
    guard.lock().context("cannot lock the cache folder")?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let fresh = tempfile::Builder::new().prefix("npm-unfinished-").tempdir_in(&cache)?;
    fs::copy(pinned.join("package.json"), fresh.path().join("package.json"))?;
    fs::write(fresh.path().join("package-lock.json"), &lock_file)?;
    let progress = xtask::cluster::Progress::new(|line| eprintln!("{line}"));
    xtask::cluster::ensure_npm(&progress)?;
    npm_ci(fresh.path())?;
    fs::rename(fresh.keep(), &folder).with_context(|| format!("cannot move the packages to {}", folder.display()))?;
    Ok(folder)
}

fn npm_ci(folder: &Path) -> anyhow::Result<()> {
    // Two retries of a minute each: a dead registry ends the tests in minutes, not never.
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .args(["--fetch-retries=2", "--fetch-timeout=60000"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("cannot start npm, which installs the agents that the tests run; it comes with Node.js")?;
    ensure!(
        output.status.success(),
        "npm ci ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("agents-test"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_lock_file_names_no_registry_and_every_package_by_its_hash() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("agents/package-lock.json");
        let lock: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        assert!(packages.len() > 1);
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["resolved"].is_null(), "{name} names where it comes from");
            assert!(package["integrity"].as_str().unwrap().starts_with("sha512-"), "{name} has no hash");
        }
    }
}
