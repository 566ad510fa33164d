//! `cargo xtask test`: every test ring, and the truth about which ones ran.
//!
//! Unit, property and simulation tests need nothing. The `api` ring needs a real API server, the `node` ring a real node;
//! both are started by the tests themselves through [`crate::cluster`]. A ring that cannot run is named, and is a failure
//! when it is required.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{check, cluster};

/// Names the rings that tests may use; unset in a plain `cargo test`.
pub const RINGS_VARIABLE: &str = "AGENTS_TEST_RINGS";

/// A ring that needs something started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Ring {
    /// A real API server.
    Api,
    /// A real node.
    Node,
}

impl Ring {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Node => "node",
        }
    }
}

/// Whether a test of `ring` may run; says so when it may not.
pub fn enabled(ring: Ring) -> bool {
    let rings = std::env::var(RINGS_VARIABLE).unwrap_or_default();
    let enabled = rings.split(',').any(|name| name == ring.name());
    if !enabled {
        eprintln!("skipped: the {} ring runs through `cargo xtask test`", ring.name());
    }
    enabled
}

/// Runs the checks and every ring.
///
/// # Errors
/// A check or a test that failed, or a required ring that cannot run.
pub fn run(root: &Path, required: &BTreeSet<Ring>, mut say: impl FnMut(&str)) -> Result<()> {
    let mut rings = Vec::new();
    let mut skipped = Vec::new();
    for ring in [Ring::Api, Ring::Node] {
        match cluster::availability(ring == Ring::Node) {
            Ok(way) => {
                say(&format!("ring {}: {way}", ring.name()));
                rings.push(ring.name());
            }
            Err(unavailable) if required.contains(&ring) => bail!("ring {} is required: {unavailable}", ring.name()),
            Err(unavailable) => skipped.push(format!("ring {} skipped: {unavailable}", ring.name())),
        }
    }
    check::run(root, &mut say)?;
    say("test: every ring");
    let status = check::cargo_command(root, &["test", "--workspace", "--no-fail-fast"])
        .env(RINGS_VARIABLE, rings.join(","))
        .status()
        .context("failed to start cargo test")?;
    for line in &skipped {
        say(line);
    }
    if !status.success() {
        bail!("tests failed");
    }
    say(&format!("rings run: unit, simulation{}{}", if rings.is_empty() { "" } else { ", " }, rings.join(", ")));
    Ok(())
}
