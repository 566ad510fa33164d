//! `cargo xtask fuzz`: bytes for everything that reads what others wrote, for as long as it is told.
//!
//! The targets are those of `tests/src/fuzz`. With a nightly toolchain libFuzzer searches, guided by what the bytes reach
//! (`tests/fuzz`, which no workspace has; cargo-fuzz is installed once); without it the search of the test program `fuzz`
//! goes on with seeds of its own. What libFuzzer found worth keeping stays in `.agents/fuzz` and is where it begins the
//! next time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};

use crate::{Success, cargo, cluster::cache_root, workspace};

/// What the test program `fuzz` reads, see there.
const SECONDS_VARIABLE: &str = "AGENTS_FUZZ_SECONDS";
const SEED_VARIABLE: &str = "AGENTS_FUZZ_SEED";
const CORPUS_VARIABLE: &str = "AGENTS_FUZZ_CORPUS";
/// The cargo-fuzz that is installed.
const CARGO_FUZZ: &str = "0.13.2";
/// Where the targets are; without a sanitizer, for nothing of ours is unsafe, and everything is quicker.
const SETTINGS: [&str; 2] = ["--fuzz-dir=tests/fuzz", "--sanitizer=none"];
/// What `tests/fuzz` reads.
const TARGET_VARIABLE: &str = "AGENTS_FUZZ_TARGET";

/// Searches all targets, or one, for `minutes` together.
///
/// # Errors
/// A target that does not hold for some bytes, which have been said; or it could not be searched.
pub fn run(minutes: u64, only: Option<&str>, mut say: impl FnMut(&str)) -> Result<()> {
    let targets = targets(only)?;
    let each = minutes * 60 / targets.len() as u64;
    match guided(&mut say) {
        Ok(tool) => {
            // The versions that everything else is built with; cargo adds what only libFuzzer needs.
            fs::copy(workspace().join("Cargo.lock"), workspace().join("tests/fuzz/Cargo.lock"))
                .context("the versions of the workspace cannot be copied to tests/fuzz")?;
            let corpus = workspace().join(".agents/fuzz");
            fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
            program(only).env(CORPUS_VARIABLE, &corpus).success("the seeds cannot be written")?;
            // Apart, so that what does not build is never taken for a find.
            let mut build = with(&tool)?;
            build.args(["fuzz", "build"]).args(SETTINGS).arg("any").success("tests/fuzz does not build")?;
            let mut found = Vec::new();
            for target in &targets {
                say(&format!("fuzz: {target}, {each} s with libFuzzer"));
                if libfuzzer(with(&tool)?, target, each, &corpus).success("").is_err() {
                    found.push(target.as_str());
                }
            }
            if found.is_empty() { Ok(()) } else { bail!("libFuzzer found something in {}", found.join(", ")) }
        }
        Err(why) => {
            let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
            say(&format!("fuzz: without libFuzzer, because {why}: the search of the tests, {each} s per target"));
            say(&format!("fuzz: {SECONDS_VARIABLE}={each} {SEED_VARIABLE}={seed} makes it the same again"));
            let mut search = program(only);
            search.env(SECONDS_VARIABLE, each.to_string()).env(SEED_VARIABLE, seed.to_string());
            search.success("a target does not hold for the bytes above")
        }
    }
}

/// The test program, with one target or all, one after another: each has its time for itself.
fn program(only: Option<&str>) -> Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--package=agents-tests", "--test=fuzz", "--", "--test-threads=1"]);
    if let Some(only) = only {
        command.args([only, "--exact"]);
    }
    command
}

fn targets(only: Option<&str>) -> Result<Vec<String>> {
    let mut list = cargo();
    list.args(["test", "--quiet", "--package=agents-tests", "--test=fuzz", "--", "--list"]).stderr(Stdio::inherit());
    let output = list.output().context("failed to start cargo")?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned);
    let all: Vec<_> = all.filter(|name| only.is_none_or(|only| name == only)).collect();
    if all.is_empty() {
        bail!("no target of this name; there are:\n{listed}");
    }
    Ok(all)
}

/// The cargo-fuzz with which libFuzzer searches here, or why it cannot.
fn guided(say: &mut impl FnMut(&str)) -> Result<PathBuf, String> {
    let mut toolchain = nightly();
    toolchain.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match toolchain.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return Err("there is no nightly toolchain (`rustup toolchain install nightly`)".to_owned()),
        Err(_) => return Err("rustup is missing".to_owned()),
    }
    let mut compiler = Command::new("c++");
    compiler.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match compiler.status() {
        Ok(status) if status.success() => tool(say).map_err(|error| format!("{error:#}")),
        Ok(_) | Err(_) => Err("there is no C++ compiler, which libFuzzer is built with".to_owned()),
    }
}

/// The folder of the cargo-fuzz of this version, installed when it is not there yet.
fn tool(say: &mut impl FnMut(&str)) -> Result<PathBuf> {
    let root = cache_root()?.join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    if !root.join("bin/cargo-fuzz").exists() {
        say(&format!("fuzz: installing cargo-fuzz {CARGO_FUZZ}"));
        let mut install = nightly();
        install.args(["install", "--quiet", "--locked", "--version", CARGO_FUZZ, "--root"]).arg(&root);
        install.arg("cargo-fuzz").success("cargo-fuzz cannot be installed")?;
    }
    Ok(root.join("bin"))
}

/// The cargo of the nightly toolchain that has the tool as a command.
fn with(tool: &Path) -> Result<Command> {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tool.to_owned()).chain(std::env::split_paths(&others)))
        .context("PATH cannot be extended")?;
    let mut command = nightly();
    command.env("PATH", path);
    Ok(command)
}

/// The cargo of the nightly toolchain, without what the cargo above has set for its own.
fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(workspace()).stdin(Stdio::null());
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTDOC", "RUSTFLAGS", "OUT_DIR"] {
        command.env_remove(name);
    }
    command
}

fn libfuzzer(mut command: Command, target: &str, seconds: u64, corpus: &Path) -> Command {
    command.args(["fuzz", "run"]).args(SETTINGS).arg("any").arg(corpus.join(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-dict={}", corpus.join(format!("{target}.dict")).display()));
    // An input that takes longer is a find.
    command.args(["-timeout=60", "-rss_limit_mb=4096", "-max_len=65536", "-print_final_stats=1", "-verbosity=0"]);
    command.env(TARGET_VARIABLE, target);
    command
}
