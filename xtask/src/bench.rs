//! `cargo xtask bench`: what the product costs on this machine.
//!
//! A bench of whole runs is a part of a program of the tests crate, which has the cluster, the controller and the kubelet by
//! hand; its arguments stand here, where both sides know them. It prints its result itself and fails when a count is not
//! what it must be; times, memory and sizes are printed beside their targets and never fail, for machines are noisy.

use std::path::PathBuf;

use anyhow::Result;

use crate::{Success, cargo};

/// What is measured.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Bench {
    /// One AgentRun from its creation to its end: requests, added latency, CPU, memory, sizes
    Trunk(Trunk),
    /// The runs of one namespace while another has templates that cost as much as they can: added latency
    Neighbours(Neighbours),
    /// Runs at once, beside bare Jobs and Jobs of the least operator: time, CPU of API server, etcd and controller
    Weight(Weight),
    /// Runs under this program and under others at the same moments: CPU, added latency, memory
    Pair(Pair),
    /// The worst templates that are admitted: CPU of one decision
    Templates,
}

/// Arguments of the bench `trunk`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Trunk {
    /// Runs one after another, and as many again at each rate
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Runs at once
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub burst: u32,
    /// Form of the result
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Arguments of the bench `neighbours`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Neighbours {
    /// Ordinary runs in each phase; of fewer than 300 the 99th percentile is that of one or two runs
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Form of the result
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Arguments of the bench `weight`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Weight {
    /// So many at once in each turn
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Turns of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Form of the result
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Arguments of the bench `pair`.
#[derive(Debug, Clone, clap::Args)]
pub struct Pair {
    /// So many at once under each program
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Rounds; in each, every program gets the next namespace
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Another program `agents`, such as an older one; three at most
    #[arg(long, value_name = "PROGRAM", required = true)]
    pub against: Vec<PathBuf>,
    /// Form of the result
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One JSON object, to be compared with another
    Json,
}

impl Output {
    fn argument(self) -> String {
        let word = match self {
            Self::Table => "table",
            Self::Json => "json",
        };
        format!("--output={word}")
    }
}

impl Bench {
    /// `trunk` with the numbers of runs of its documentation.
    pub fn trunk() -> Self {
        Self::Trunk(Trunk { runs: 100, burst: 300, output: Output::Table })
    }

    /// `neighbours` with as many runs as its counts need; its times then say little.
    pub fn counts_of_neighbours() -> Self {
        Self::Neighbours(Neighbours { runs: 50, output: Output::Table })
    }

    /// `weight` as a sign of life; its figures then say little.
    pub fn least_weight() -> Self {
        Self::Weight(Weight { runs: 20, rounds: 1, output: Output::Table })
    }

    /// The package, the program in it, and its arguments.
    fn program(&self) -> (&'static str, &'static str, Vec<String>) {
        match self {
            Self::Trunk(Trunk { runs, burst, output }) => {
                let (runs, burst) = (format!("--runs={runs}"), format!("--burst={burst}"));
                ("agents-tests", "controller", vec!["trunk".to_owned(), runs, burst, output.argument()])
            }
            Self::Neighbours(Neighbours { runs, output }) => (
                "agents-tests",
                "controller",
                vec!["neighbours".to_owned(), format!("--runs={runs}"), output.argument()],
            ),
            Self::Weight(Weight { runs, rounds, output }) => (
                "agents-tests",
                "controller",
                vec!["weight".to_owned(), format!("--runs={runs}"), format!("--rounds={rounds}"), output.argument()],
            ),
            Self::Pair(Pair { runs, rounds, against, output }) => {
                let mut arguments = vec!["pair".to_owned(), format!("--runs={runs}"), format!("--rounds={rounds}")];
                // The bench is started elsewhere.
                let against = against.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
                arguments.extend(against.map(|path| format!("--against={}", path.display())));
                arguments.push(output.argument());
                ("agents-tests", "controller", arguments)
            }
            Self::Templates => ("agents-core", "templates", Vec::new()),
        }
    }
}

/// Builds and runs a bench.
///
/// # Errors
/// It does not build, could not measure, or a count is not what it must be; it has said which.
pub fn run(what: &Bench) -> Result<()> {
    let (package, name, arguments) = what.program();
    let said = arguments.first().map_or(name, String::as_str);
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--package", package, "--bench", name, "--"]).args(&arguments);
    bench.success(&format!("the bench {said} failed"))
}
