//! The runner: starts one provider, supervises it and reports how it ended.
//!
//! It is the only entrypoint of every runtime, and it needs nothing but its spec: no cluster, no network of its own.
//! The rooms follow one attempt: [`spec`] (find, decode, verify) → `prepare` (everything that can be decided before
//! anything is touched) → `attempt` (the steps in order) with `checkout`, `folder` (files without following links),
//! `supervise` and `processes` (signals, deadline, whatever the provider leaves behind), `streams` (output) and
//! `outputs` → `deliver` (status file and termination message). `env`, `roots`, `coordinates`, `redact`, `lines`,
//! `usage` and [`exit`] are pure.
//!
//! It has no async runtime: see `supervise`.

pub mod exit;
pub mod spec;

mod attempt;
mod checkout;
mod coordinates;
mod deliver;
mod env;
mod folder;
mod install;
mod lines;
mod log;
mod outputs;
mod prepare;
mod processes;
mod redact;
mod roots;
mod streams;
mod supervise;
mod usage;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use nix::{
    sys::prctl::{set_child_subreaper, set_dumpable},
    unistd::getpid,
};

use attempt::{Start, say};
use spec::Sources;

const USAGE: &str = "\
Runs one agent provider and reports how it ended.

Usage: agent-runner [SPEC]        execute SPEC, a file; without it or as `-`, what the environment names
       agent-runner install PATH  copy this executable to PATH
       agent-runner --version

Environment: AGENT_RUNNER_SPEC_PATH (file of the spec), AGENT_RUNNER_SPEC (the spec itself),
             AGENT_PROVIDERS_DIR (folder of providers named by specs),
             AGENT_TERMINATION_PATH (file of the termination message)
";

/// Runs the runner with the arguments after the program's name; returns the exit code, see [`exit`].
///
/// The caller ends the process with that code and does nothing else: signal handlers are installed, and the process
/// adopts and ends the orphans of the provider.
pub fn main(args: Vec<OsString>) -> i32 {
    let mut args = args.into_iter();
    let first = args.next();
    let (first, more) = (first.as_ref().map(|first| first.to_string_lossy().into_owned()).zip(first), args.next());
    match (first, more, args.next()) {
        (Some((text, _)), None, None) if text == "--version" || text == "-V" => {
            tell(concat!("agent-runner ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        (Some((text, _)), None, None) if text == "--help" || text == "-h" => tell(USAGE),
        (Some((text, _)), Some(target), None) if text == "install" => match install::install(&PathBuf::from(&target)) {
            Ok(()) => 0,
            Err(error) => {
                say(&format!("cannot install to `{}`: {error}", target.to_string_lossy()));
                exit::INTERNAL
            }
        },
        (None, None, None) => execute(None),
        (Some((text, _)), None, None) if text == "-" => execute(None),
        (Some((text, path)), None, None) if !text.starts_with('-') => execute(Some(path.into())),
        _ => {
            let _ = io::stderr().write_all(USAGE.as_bytes());
            exit::BAD_SPEC
        }
    }
}

fn tell(text: &str) -> i32 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => exit::INTERNAL,
    }
}

fn execute(argument: Option<PathBuf>) -> i32 {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if variable(env::ACTIVE_VARIABLE).is_some() {
        // Without a report: its paths are those of the runner outside.
        say("a runner inside a runner is refused; name the agent's own program as the provider's `binary`");
        return exit::BAD_SPEC;
    }
    // The provider must not read our environment or memory; the kernel may not know the setting.
    let _ = set_dumpable(false);
    if getpid().as_raw() != 1
        && let Err(error) = set_child_subreaper(true)
    {
        say(&format!("orphans of the provider will not be found: {error}"));
    }
    let start = Start {
        sources: Sources {
            argument,
            path_variable: variable(spec::SPEC_PATH_VARIABLE),
            text_variable: variable(spec::SPEC_VARIABLE),
            providers: variable(spec::PROVIDERS_VARIABLE),
        },
        termination: deliver::termination_path(variable(deliver::TERMINATION_VARIABLE).map(PathBuf::from)),
        inherited: std::env::vars_os().collect(),
    };
    std::panic::catch_unwind(|| attempt::run(start)).unwrap_or_else(|_| {
        processes::end_by_force();
        exit::INTERNAL
    })
}
