//! Placeholder.

use std::process::ExitCode;

use agents_tests::ring;
use xtask::rings::Ring;

fn main() -> ExitCode {
    ring::run(Ring::Node, 2, |_| Ok(()), &[])
}
