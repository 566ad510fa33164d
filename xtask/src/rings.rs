//! The test rings that need something of the machine, and what tests ask about them.
//!
//! Unit, property and simulation tests need nothing. Each [`Ring`] is named with `--require`; a new one is a variant, its
//! name, and what it lacks. `cargo xtask test` tells the tests two things in their environment: [`RINGS_VARIABLE`], the
//! rings that can run here, and [`REQUIRE_VARIABLE`], those whose absence is a failure. A test that finds its ring
//! missing calls [`lacking`].

use std::process::{Command, Stdio};

use crate::cluster;

/// Names the rings that tests may use; unset in a plain `cargo test`.
pub const RINGS_VARIABLE: &str = "AGENTS_TEST_RINGS";

/// Names the rings whose tests fail where they cannot run; unset in a plain `cargo test`.
pub const REQUIRE_VARIABLE: &str = "AGENTS_TEST_REQUIRE";

/// What some tests need beside a compiler and git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Ring {
    /// A real API server
    Api,
    /// A real node
    Node,
    /// Root, with mount and process namespaces of its own
    Root,
}

impl Ring {
    /// Every ring.
    pub const ALL: [Self; 3] = [Self::Api, Self::Node, Self::Root];

    /// As `--require` and the variables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Node => "node",
            Self::Root => "root",
        }
    }

    /// How it can run here, or why it cannot, both in words.
    ///
    /// # Errors
    /// What is missing and how to get it.
    pub fn availability(self) -> Result<String, String> {
        let cluster = |node| match cluster::availability(node) {
            Ok(way) => Ok(way.to_string()),
            Err(unavailable) => Err(unavailable.to_string()),
        };
        match self {
            Self::Api => cluster(false),
            Self::Node => cluster(true),
            Self::Root => root(),
        }
    }
}

fn root() -> Result<String, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("this user is not root; run it as root".to_owned());
    }
    for namespace in [["--mount", "--fork"], ["--pid", "--fork"]] {
        let tried = Command::new("unshare").args(namespace).arg("true").stdin(Stdio::null()).output();
        match tried {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(format!("unshare {} is refused: {said}; allow it", namespace[0]));
            }
            Err(error) => return Err(format!("unshare cannot be started: {error}; install util-linux")),
        }
    }
    Ok("as root, with namespaces".to_owned())
}

fn named_in(variable: &str, ring: Ring) -> bool {
    std::env::var(variable).unwrap_or_default().split(',').any(|name| name.trim() == ring.name())
}

/// Whether a test of `ring` may run; says so when it may not.
///
/// # Panics
/// When it may not although it is required.
pub fn enabled(ring: Ring) -> bool {
    let enabled = named_in(RINGS_VARIABLE, ring);
    if !enabled {
        lacking(ring, "it runs through `cargo xtask test`");
    }
    enabled
}

/// Says that a test cannot run because `ring` is missing, and why.
///
/// # Panics
/// When the ring is required: a test that did nothing would count as passed.
pub fn lacking(ring: Ring, why: &str) {
    assert!(!named_in(REQUIRE_VARIABLE, ring), "the ring {} is required and missing: {why}", ring.name());
    eprintln!("skipped: the ring {} is missing: {why}", ring.name());
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::Ring;

    #[test]
    fn every_ring_can_be_required_by_its_name() {
        assert_eq!(Ring::value_variants(), Ring::ALL);
        for ring in Ring::ALL {
            assert_eq!(Ring::from_str(ring.name(), false), Ok(ring));
        }
    }
}
