//! Every reader of untrusted bytes against a search for bytes that it does not hold for: the same inputs each time, and no
//! more than ten seconds per reader.
//!
//! `AGENTS_FUZZ_SECONDS` makes each search that long, with the inputs of `AGENTS_FUZZ_SEED`; `AGENTS_FUZZ_CORPUS` names a
//! folder into which the seeds are written instead, for another searcher. `cargo xtask fuzz` sets them.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use agents_tests::fuzz::{Search, Stopped, TARGETS, Target};
use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Trial};

const AT_MOST: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let trials = TARGETS.iter().map(|target| {
        Trial::test(target.name, move || with_room(|| run(target)).map_err(|error| format!("{error:#}").into()))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// On a stack as large as a program's first thread has: builds without optimisation need more than a test's thread has.
fn with_room(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let working = std::thread::Builder::new().stack_size(8 * 1024 * 1024).spawn_scoped(scope, work)?;
        working.join().map_err(|_| anyhow::anyhow!("it panicked outside of a target"))?
    })
}

fn run(target: &Target) -> Result<()> {
    if let Some(folder) = std::env::var_os("AGENTS_FUZZ_CORPUS") {
        return write_seeds(target, Path::new(&folder));
    }
    let search = match number("AGENTS_FUZZ_SECONDS")? {
        None => Search { cases: target.cases, at_most: AT_MOST, seed: 0 },
        Some(seconds) => Search {
            cases: u32::MAX,
            at_most: Duration::from_secs(seconds),
            seed: number("AGENTS_FUZZ_SEED")?.unwrap_or_default(),
        },
    };
    if let Stopped::TimeOver(tried) = search.run(target)? {
        eprintln!("{}: {tried} inputs in {} s", target.name, search.at_most.as_secs());
    }
    Ok(())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let value = std::env::var(variable).ok();
    value.map(|value| value.parse().with_context(|| format!("{variable} is no number: {value}"))).transpose()
}

fn write_seeds(target: &Target, folder: &Path) -> Result<()> {
    let folder = folder.join(target.name);
    fs::create_dir_all(&folder)?;
    for (n, seed) in (target.seeds)()?.iter().enumerate() {
        fs::write(folder.join(format!("seed-{n}")), seed)?;
    }
    let words = target.words.iter().map(|word| {
        let hex: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{hex}\"\n")
    });
    fs::write(folder.with_extension("dict"), words.collect::<String>())?;
    Ok(())
}
