//! `cargo xtask`: the command line over the library of this crate, and the only place of it that prints.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use xtask::{
    bench, check,
    cluster::{Progress, cli},
    generate,
    rings::{self, Ring},
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
        Command::Test { require } => rings::run(&require.into_iter().collect(), say).map(|()| String::new()),
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
