//! The `agents` binary: composition only. One file or folder per subcommand.

mod controller;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs AI agents: declared in manifests, locally or in Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "agents", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look after the AgentRuns of a cluster.
    Controller(controller::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Controller(args) => controller::main(args),
    }
}
