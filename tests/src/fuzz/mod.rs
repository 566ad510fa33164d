//! Everything that reads what others wrote, as functions over bytes that must hold for any bytes.
//!
//! One list for all who throw bytes at them: the test program `fuzz`, for seconds, with a fixed seed; `cargo xtask fuzz`,
//! for as long as it is told, with the same search or with libFuzzer (`tests/fuzz`).

mod search;
mod seeds;
mod targets;

pub use search::{Search, Stopped};

/// A reader of untrusted bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Panics when something does not hold for these bytes.
    pub run: fn(&[u8]),
    /// Inputs that get deep.
    pub seeds: fn() -> anyhow::Result<Vec<Vec<u8>>>,
    /// Words of its language.
    pub words: &'static [&'static str],
    /// Inputs that a search tries in the gate: about two seconds' worth.
    pub cases: u32,
}

/// Every reader.
pub const TARGETS: &[Target] = &[
    target("templates", targets::templates, seeds::templates, seeds::TEMPLATE_WORDS, 6_000),
    target("runner_specs", targets::runner_specs, seeds::runner_specs, seeds::SPEC_WORDS, 6_000),
    target("reports", targets::reports, seeds::reports, seeds::REPORT_WORDS, 8_000),
    target("usage_lines", targets::usage_lines, seeds::usage_lines, seeds::USAGE_WORDS, 3_000),
    target("git_coordinates", targets::git_coordinates, seeds::git_coordinates, seeds::GIT_WORDS, 10_000),
    target("manifests", targets::manifests, seeds::manifests, seeds::MANIFEST_WORDS, 1_500),
    target("names", targets::names, seeds::names, &[".", "-", "é", "\u{202e}", "\0"], 8_000),
    target("schemas", targets::schemas, seeds::schemas, seeds::SCHEMA_WORDS, 4_000),
    target("amounts", targets::amounts, seeds::amounts, seeds::AMOUNT_WORDS, 15_000),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> anyhow::Result<Vec<Vec<u8>>>,
    words: &'static [&'static str],
    cases: u32,
) -> Target {
    Target { name, run, seeds, words, cases }
}
