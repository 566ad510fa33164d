//! The runner: starts one provider, supervises it and reports how it ended.
//!
//! It is the only entrypoint of every runtime, and it needs nothing but its spec: no cluster, no network of its own.
//! The rooms follow one attempt: [`spec`] (find, decode, verify) → `prepare` (everything that can be decided before
//! anything is touched) → `attempt` (the steps in order) with `checkout`, `folder` (files without following links),
//! `supervise` and `processes` (signals, deadline, whatever the provider leaves behind), `program`, `streams` (output) and
//! `outputs` → `deliver` (status file and termination message). `env`, `roots`, `redact`, `spelling`, `remote`, `lines` and
//! `usage` are pure.
//!
//! It has no async runtime: see `supervise`.

pub mod spec;
#[doc(hidden)]
pub mod untrusted;

mod attempt;
mod checkout;
mod deliver;
mod env;
mod folder;
mod install;
mod lines;
mod log;
mod outputs;
mod prepare;
mod processes;
mod program;
mod redact;
mod remote;
mod roots;
mod spelling;
mod streams;
mod supervise;
mod usage;

use std::{ffi::OsString, io, path::PathBuf};

use agents_core::{
    report::{KEY_VARIABLE, MAX_PROOF},
    status::exit,
};
use nix::{
    sys::prctl::{set_child_subreaper, set_dumpable},
    unistd::getpid,
};

use attempt::{Proof, Start, say};
use spec::Sources;

use crate::pipes;

const USAGE: &str = "\
Runs one agent provider and reports how it ended.

Usage: agent-runner [SPEC]        execute SPEC, a file; without it or as `-`, what the environment names
       agent-runner install PATH  copy this executable to PATH
       agent-runner --version

Environment: AGENT_RUNNER_SPEC_PATH (file of the spec), AGENT_RUNNER_SPEC (the spec itself),
             AGENT_PROVIDERS_DIR (folder of providers named by specs),
             AGENT_TERMINATION_PATH (file of the termination message),
             AGENT_REPORT_KEY (what the report repeats, to prove that it is the runner's)
";

/// Runs the runner with the arguments after the program's name; returns the exit code, see [`exit`].
///
/// The caller ends the process with that code and does nothing else: signal handlers are installed, and the process
/// adopts and ends the orphans of the provider.
pub fn main(args: Vec<OsString>) -> i32 {
    // Before anything else: nothing of the same user may read the key of the report out of our environment or memory.
    let is_closed = set_dumpable(false);
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
        (None, None, None) => execute(None, is_closed),
        (Some((text, _)), None, None) if text == "-" => execute(None, is_closed),
        (Some((text, path)), None, None) if !text.starts_with('-') => execute(Some(path.into()), is_closed),
        _ => {
            let _ = pipes::write_all(io::stderr(), USAGE.as_bytes());
            exit::BAD_SPEC
        }
    }
}

fn tell(text: &str) -> i32 {
    match pipes::write_all(io::stdout(), text.as_bytes()) {
        Ok(()) => 0,
        // A reader that has gone away has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            say(&format!("standard output did not take everything: {error}"));
            exit::INTERNAL
        }
    }
}

fn execute(argument: Option<PathBuf>, is_closed: nix::Result<()>) -> i32 {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if variable(env::ACTIVE_VARIABLE).is_some() {
        // Without a report: its paths are those of the runner outside.
        say("a runner inside a runner is refused; name the agent's own program as the provider's `binary`");
        return exit::BAD_SPEC;
    }
    if let Err(error) = is_closed {
        say(&format!("the provider can read the runner's memory and so the key of its report: {error}"));
    }
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
        proof: variable(KEY_VARIABLE).map(report_key).unwrap_or_default(),
        // The one variable that goes no further than here.
        inherited: std::env::vars_os().filter(|(name, _)| name != KEY_VARIABLE).collect(),
    };
    std::panic::catch_unwind(|| attempt::run(start)).unwrap_or_else(|_| {
        processes::end_by_force();
        exit::INTERNAL
    })
}

/// The key as the report repeats it. One that a report has no room for proves nothing.
fn report_key(given: OsString) -> Proof {
    match given.into_string() {
        Ok(key) if key.len() <= MAX_PROOF && key.bytes().all(|byte| byte.is_ascii_graphic()) => Proof(key),
        Ok(_) | Err(_) => {
            say(&format!("{KEY_VARIABLE} is not made of at most {MAX_PROOF} visible ASCII characters and is not used"));
            Proof::default()
        }
    }
}
