//! What runs cost, from their creation to their end.
//!
//! The controller is the released program with the generated rights, beside a real API server, etcd and Job controller;
//! pods are played by hand. One program for all such benches; `cargo xtask bench trunk`, `neighbours`, `weight`
//! and `pair` start a part of it each.

mod dear;
mod figures;
mod floor;
mod load;
mod neighbours;
mod pair;
mod phase;
mod process;
mod scene;
mod trunk;
mod weight;

use std::process::ExitCode;

use agents_tests::api_server;
use anyhow::Result;
use clap::Parser as _;
use figures::{Figure, Gate, Group, Heading, Target, Unit};
use serde_json::json;
use xtask::{
    bench::{Neighbours, Pair, Trunk, Weight},
    cluster::{Cluster, Options, Progress, product},
};

/// Runs before anything counts: connections, caches and code are warm after them.
const WARM_UP: u32 = 20;

#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// What cargo tells every bench.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    Trunk(Trunk),
    Neighbours(Neighbours),
    Weight(Weight),
    Pair(Pair),
}

impl What {
    fn heading(&self) -> Heading {
        match self {
            Self::Trunk(Trunk { runs, burst, output }) => {
                Heading { bench: "trunk", numbers: json!({"runs": runs, "burst": burst}), output: *output }
            }
            Self::Neighbours(Neighbours { runs, output }) => {
                Heading { bench: "neighbours", numbers: json!({"runs": runs}), output: *output }
            }
            Self::Weight(Weight { runs, rounds, output }) => {
                Heading { bench: "weight", numbers: json!({"runs": runs, "rounds": rounds}), output: *output }
            }
            Self::Pair(Pair { runs, rounds, against: _, output }) => {
                Heading { bench: "pair", numbers: json!({"runs": runs, "rounds": rounds}), output: *output }
            }
        }
    }
}

fn main() -> ExitCode {
    let Arguments { what, bench: _ } = Arguments::parse();
    let printed = measure(&what).and_then(|groups| {
        figures::print(&what.heading(), &groups)?;
        Ok(figures::violations(&groups))
    });
    match printed {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            for violation in violations {
                eprintln!("error: {violation}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(what: &What) -> Result<Vec<Group>> {
    let progress = Progress::new(|line| eprintln!("{line}"));
    let programs = product::build_release(&progress)?;
    let cluster = Cluster::start(Options { progress, ..Options::default() })?;
    api_server::prepare(&cluster)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let groups = runtime.block_on(async {
        match what {
            What::Trunk(trunk) => trunk::play(&cluster, &programs, *trunk).await,
            What::Neighbours(neighbours) => neighbours::play(&cluster, &programs, *neighbours).await,
            What::Weight(weight) => weight::play(&cluster, &programs, *weight).await,
            What::Pair(pair) => pair::play(&cluster, &programs, pair).await,
        }
    })?;
    drop(runtime);
    cluster.stop()?;
    Ok(groups)
}
