//! `agents run`: loads manifests, runs them on the local engine, shows what happens, and exits as the runs did.

mod screen;
mod signals;
mod table;

use std::{collections::BTreeMap, env, path::PathBuf, process::ExitCode, thread};

use agents_core::api::agent_run::Phase;
use agents_kube::lint::Definitions;
use agents_runtime::{
    local::{Ended, Engine, Event, Options, manifest},
    process::CommandLine,
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;

use self::screen::Screen;
use crate::{exit, input, logs, output};

/// Threads that look after attempts' folders, each with a descriptor or two: a few are enough, and runs may be many.
const WORKERS: usize = 8;

/// Arguments of `agents run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A folder per run is left below --out: run.yaml (the AgentRun with its status), log.txt, outputs/ and workspace.
A command that was killed is continued by the next one with the same manifests and --out.

Exit code: 0 when every run succeeded; of a single run that failed, its provider's; else 1 (failed), 2 (usage,
manifests), 130 (cancelled). Ctrl-C cancels, a second one ends everything at once, and the command within ten seconds.")]
pub(crate) struct Args {
    /// Manifest (a file, a pipe), folder of manifests (*.yaml, *.yml, *.json, with everything below), or `-` for
    /// standard input.
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filename: Vec<PathBuf>,
    /// Run only this AgentRun; may be given several times. Without it, every AgentRun that is no template.
    #[arg(long, value_name = "RUN")]
    name: Vec<String>,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Folder that gets one folder per run.
    #[arg(long, value_name = "DIR", default_value = ".agents/runs")]
    out: PathBuf,
    /// Parameter that wins over the runs' own; `repository` also says what is checked out.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// A list of AgentRuns.
    Json,
    /// One document per AgentRun.
    Yaml,
    /// The names alone.
    Name,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is wanted".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    let filter = match logs::filter("error") {
        Ok(filter) => filter,
        Err(error) => {
            output::explain(&error, None);
            return ExitCode::from(exit::USAGE);
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(logs::Stderr).init();
    let form = args.output;
    let prepared = prepare(args).and_then(|options| Engine::new(options).map_err(Into::into));
    let (engine, events) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            output::explain(&error, hint(&error));
            return ExitCode::from(exit::USAGE);
        }
    };
    match run(form, engine, events) {
        Ok(ended) => {
            table::print(form, &ended);
            for ended in &ended {
                if let Err(error) = ended.was_told() {
                    let (run, error) = (&ended.run.metadata.name, &error as &dyn std::error::Error);
                    tracing::warn!(run, error, "the next command will tell it again");
                }
            }
            ExitCode::from(exit_code(&ended))
        }
        Err(error) => {
            output::explain(&error, None);
            ExitCode::from(exit::NO)
        }
    }
}

/// Runs everything to its end and shows what happens.
fn run(form: Output, engine: Engine, events: UnboundedReceiver<Event>) -> Result<Vec<Ended>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let screen = Screen::new(form, engine.runs());
    signals::listen(engine.handle(), screen.clone()).context("cannot listen to signals")?;
    // A thread of its own: who reads the streams slowly must not hold up what runs.
    let showing = {
        let screen = screen.clone();
        thread::Builder::new().spawn(move || screen.show(events)).context("cannot start a thread")?
    };
    let ended = runtime.block_on(engine.run());
    // What still works on a disk that does not answer is no reason to stay.
    runtime.shutdown_background();
    // Nobody can tell any more, so this ends after the last event.
    let _ = showing.join();
    screen.clear();
    Ok(ended)
}

fn prepare(args: Args) -> Result<Options> {
    let Args { filename, name, output: _, out, params } = args;
    let here = env::current_dir().context("cannot see the current folder")?;
    let sources = input::sources(filename, &here)?;
    let manifests = manifest::load(&sources, &Definitions::new(), Timestamp::now())?;
    let me = env::current_exe().context("cannot find this program's own file")?;
    // The runner is this very program, so the two are always of one version.
    let myself_as = |role: &str| CommandLine { program: me.clone(), args: vec![role.into()] };
    Ok(Options {
        manifests,
        names: name,
        parameters: params.into_iter().collect::<BTreeMap<_, _>>(),
        out,
        folder: here,
        launcher: myself_as(crate::LAUNCH),
        runner: myself_as(crate::RUNNER),
    })
}

fn exit_code(ended: &[Ended]) -> u8 {
    let phase = |ended: &Ended| ended.run.status.as_ref().and_then(|status| status.phase);
    let is_whole = ended.iter().all(|ended| ended.trouble.is_none());
    if is_whole && ended.iter().all(|ended| phase(ended) == Some(Phase::Succeeded)) {
        return 0;
    }
    if ended.iter().any(|ended| phase(ended) == Some(Phase::Cancelled)) {
        return exit::CANCELLED;
    }
    let ([only], true) = (ended, is_whole) else { return exit::NO };
    let last = only.run.status.as_ref().and_then(|status| status.attempts.last());
    let (code, signal) = last.map_or((None, None), |last| (last.exit_code, last.signal));
    phase(only).map_or(exit::NO, |phase| exit::of_run(phase, code, signal))
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    use agents_runtime::{local::EngineError, manifest::LoadError};
    if let Some(error) = error.downcast_ref::<LoadError>() {
        return match error {
            LoadError::Faults(_) => Some("nothing was run"),
            LoadError::Nothing | LoadError::Read { .. } => Some("-f names a manifest, a folder of manifests, or `-`"),
            LoadError::TooMuch(_) => Some("name the manifests' own folder"),
        };
    }
    match error.downcast_ref::<EngineError>()? {
        EngineError::UnknownRun { .. } => Some("leave --name out to run all of them"),
        EngineError::NoRun { .. } => Some("add a manifest of kind AgentRun"),
        EngineError::Repository { .. } => Some("give --param repository=URL, or put an address into git.url"),
        EngineError::Record { .. } => Some("mend or delete it, or give another folder with --out; nothing was run"),
        EngineError::Folder { .. } => Some("give another folder with --out"),
    }
}
