//! The `agents` binary: composition only. One file or folder per subcommand.

mod cluster;
mod controller;
mod crds;
mod exit;
mod input;
mod lint;
mod logs;
mod output;
mod run;
mod wait;

use std::{
    env,
    ffi::OsString,
    process::{self, ExitCode},
    sync::Arc,
};

use clap::{Parser, Subcommand};
use signal_hook::consts::SIGXFSZ;

use self::output::Stream;

/// First argument that makes this binary the launcher of the process adapter.
const LAUNCH: &str = "__launch";
/// First argument that makes this binary the runner.
const RUNNER: &str = "__runner";

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
    Controller(Box<controller::Args>),
    /// Show, compare and upgrade the definitions of the kinds in a cluster.
    Crds(crds::Args),
    /// Judge manifests without a cluster.
    Lint(lint::Args),
    /// Run AgentRuns from manifests here and now, as local processes, without a cluster.
    Run(run::Args),
    /// Wait for the end of AgentRuns of a cluster, or for a condition of any object of the kinds.
    Wait(wait::Args),
}

fn main() -> ExitCode {
    // A file as large as a limit allows is an error of a write, as on a full disk, and no reason to die. Children begin
    // without this.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    let mut args = env::args_os().skip(1);
    let first = args.next();
    let rest: Vec<OsString> = args.collect();
    // Before anything starts a thread: the one becomes another program, the other adopts and ends processes.
    match first.as_deref().and_then(|first| first.to_str()) {
        Some(LAUNCH) => process::exit(agents_runtime::process::launch::main(rest)),
        Some(RUNNER) => process::exit(agents_runtime::runner::main(rest)),
        _ => {}
    }
    let command = match Cli::try_parse() {
        Ok(Cli { command }) => command,
        Err(answer) => return explain(&answer),
    };
    let (code, if_unsaid) = match command {
        Command::Controller(args) => (controller::main(*args), exit::NO),
        Command::Crds(args) => (crds::main(args), exit::USAGE),
        Command::Lint(args) => (lint::main(args), exit::USAGE),
        Command::Run(args) => (run::main(args), exit::NO),
        Command::Wait(args) => (wait::main(args), exit::USAGE),
    };
    output::end(code, if_unsaid)
}

/// Prints help, the version, or what is wrong with the arguments.
fn explain(answer: &clap::Error) -> ExitCode {
    let stream = if answer.use_stderr() { Stream::Err } else { Stream::Out };
    let text = answer.render();
    let text = if stream.is_coloured() { text.ansi().to_string() } else { text.to_string() };
    output::write(stream, &text);
    output::end(ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(exit::USAGE)), exit::USAGE)
}
