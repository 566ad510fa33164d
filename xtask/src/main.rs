//! `cargo xtask`: the command line over the library of this crate, and the only place of it that prints.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use xtask::cluster::{Progress, cli};

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
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Cluster(arguments) => cli::execute(arguments, progress()),
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

/// One line that changes on a terminal, one line per step in a log.
fn progress() -> Progress {
    if std::io::stderr().is_terminal() {
        Progress::new(|line| eprint!("\r\x1b[K{line}"))
    } else {
        Progress::new(|line| eprintln!("{line}"))
    }
}
