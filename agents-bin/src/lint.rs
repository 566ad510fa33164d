//! `agents lint`: judges manifests without a cluster and exits as CI wants it.

use std::{env, path::PathBuf, process::ExitCode};

use agents_kube::lint::{Format, Options, Severity, lint};
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::{
    exit, input,
    output::{self, Stream},
};

/// Arguments of `agents lint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Judged without a cluster: types, bounds and unknown fields; the rules the API server would apply; what the controller
would refuse; references among the manifests; templates, and the plan of every run whose objects are all here. Objects of
other products are left out with a note.

Exit code: 0 when there is no error (notes do not count), 1 when there is one, 2 when nothing could be judged (usage,
unreadable files, no object of this product) or what was found could not be printed.")]
pub(crate) struct Args {
    /// Manifest (a file, a pipe), folder of manifests (*.yaml, *.yml, *.json, with everything below), or `-` for
    /// standard input.
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    filename: Vec<PathBuf>,
    /// How to print what was found.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Take objects that are referred to and not here for ones that are in the cluster.
    #[arg(long)]
    partial: bool,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people, one finding per line.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Annotations of a GitHub workflow.
    Github,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    match judge(args) {
        Ok(Judged { objects: 0, errors: 0 }) => {
            let nothing = anyhow!("nothing was judged: there is no object of this product");
            output::explain(&nothing, Some("-f names a manifest, a folder of manifests, or `-`"));
            ExitCode::from(exit::USAGE)
        }
        Ok(Judged { errors: 0, .. }) => ExitCode::SUCCESS,
        Ok(Judged { .. }) => ExitCode::from(exit::NO),
        Err(error) => {
            output::explain(&error, Some("-f names a manifest, a folder of manifests, or `-`"));
            ExitCode::from(exit::USAGE)
        }
    }
}

/// How much was judged, and how much of it is wrong.
struct Judged {
    objects: usize,
    errors: usize,
}

/// Prints what was found.
fn judge(args: Args) -> Result<Judged> {
    let Args { filename, output, partial } = args;
    let here = env::current_dir().context("cannot see the current folder")?;
    let sources = input::sources(filename, &here)?;
    let report = lint(&sources, Options { partial })?;
    let format = match output {
        Output::Text => Format::Text,
        Output::Json => Format::Json,
        Output::Github => Format::Github,
    };
    output::write(Stream::Out, &report.render(format));
    Ok(Judged { objects: report.objects, errors: report.count(Severity::Error) })
}
