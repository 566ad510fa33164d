//! A harness to be killed: starts a test cluster with a node, names its folder, and never ends by itself.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use xtask::cluster::{Cluster, Options};

fn main() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options { node: true, ..Options::default() })?;
    writeln!(std::io::stdout(), "{}", cluster.dir().display()).context("cannot name the folder")?;
    // The end of standard input is the end of a test that forgot to kill this process.
    std::io::stdin().read_to_end(&mut Vec::new()).context("cannot wait")?;
    Ok(())
}
