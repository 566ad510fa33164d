//! `cargo xtask`: the command line over the library of this crate, and the only place of it that prints.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use xtask::{
    attacks, bench, check,
    cluster::{Progress, cli},
    fuzz, generate, mutants, recipe,
    rings::Ring,
    steps::Steps,
    test,
};

/// Everything about this project that is not its product.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start, stop and show the test cluster
    Cluster(cli::ClusterArguments),
    /// Write definitions, rights, chart and reference
    GenCrds {
        /// Only compare, and fail when something differs
        #[arg(long)]
        check: bool,
    },
    /// Formatting, lints, dependency direction, generated files, links, each crate alone
    Check,
    /// Checks and every test ring
    Test {
        /// Rings whose absence is a failure
        #[arg(long, value_delimiter = ',')]
        require: Vec<Ring>,
        /// Also what takes longer than a gate may: counts of the benches, mutants, fuzzing, more cases of every property
        #[arg(long)]
        all: bool,
    },
    /// What becomes of each known attack, and the test that shows it
    AttackReport,
    /// Switch each known fault on and see the tests find it
    Mutants,
    /// Throw bytes at everything that reads them, longer than the tests do
    Fuzz {
        /// Minutes for all targets together
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_080))]
        minutes: u64,
        /// Only this target
        #[arg(long)]
        target: Option<String>,
    },
    /// Whether a commit that makes a kind act changes only the places that CONTRIBUTING names
    Recipe {
        /// The commit, as git names it
        commit: String,
    },
    /// Measure the product on this machine
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Cluster(arguments) => cli::execute(arguments, progress()),
        Command::GenCrds { check } => generate::run(&xtask::workspace(), check),
        Command::Check => check::run(say).map(|()| String::new()),
        Command::Test { require, all } => test::run(&require.into_iter().collect(), all, say).map(|()| String::new()),
        Command::AttackReport => attack_report(),
        Command::Mutants => mutants::run(&mut Steps::new(&mut say)).map(|()| String::new()),
        Command::Fuzz { minutes, target } => fuzz::run(minutes, target.as_deref(), say).map(|()| String::new()),
        Command::Recipe { commit } => recipe::check(&commit),
        Command::Bench(what) => bench::run(&what).map(|()| String::new()),
    };
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    match result {
        Ok(text) => {
            // A reader that has seen enough is no failure.
            std::io::stdout().write_all(text.as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The report is printed whatever the verdict.
fn attack_report() -> anyhow::Result<String> {
    let report = attacks::report(&xtask::workspace())?;
    let verdict = report.verdict();
    // A reader that has seen enough is no failure.
    std::io::stdout().write_all(report.text.as_bytes()).ok();
    verdict.map(|()| String::new())
}

/// A line of its own.
fn say(line: &str) {
    eprintln!("{line}");
}

/// One line that changes on a terminal, one line per step in a log.
fn progress() -> Progress {
    if std::io::stderr().is_terminal() {
        Progress::new(|line| eprint!("\r\x1b[K{line}"))
    } else {
        Progress::new(|line| eprintln!("{line}"))
    }
}
