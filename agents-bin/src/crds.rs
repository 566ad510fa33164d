//! `agents crds`: the definitions built into this program beside those of a cluster, and their way there.

use std::{process::ExitCode, time::Duration};

use agents_core::hidden::visible_lines;
use agents_kube::installed::apply::{Action, ApplyError, Plan, compare};
use anyhow::Result;
use kube::Client;

use crate::{
    cluster::{ClusterArgs, NO_CLUSTER, block_on, complain},
    exit,
    output::{self, Stream},
};

/// Arguments of `agents crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Helm installs definitions once and never upgrades them, so `apply` comes before `helm upgrade`. It refuses to drop a version
that is served, or a field that an object uses; nothing is changed then.

Exit code: 0 when done or nothing differs; 1 when refused, or when `diff` finds something; 2 when it cannot be known (usage,
cluster, rights).")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring the cluster's definitions to those of this program, and wait until they are served
    Apply {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// Change nothing: check, let the API server validate, and say what would be done
        #[arg(long)]
        dry_run: bool,
        /// How long a definition may take to be served, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
        timeout: u64,
    },
    /// Show what `apply` would change, field by field
    Diff {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Show each definition and whether the cluster has it
    List {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    block_on(async {
        let Args { action } = args;
        let (Command::Apply { cluster, .. } | Command::Diff { cluster } | Command::List { cluster }) = &action;
        let client = match cluster.clone().connect().await {
            Ok(connection) => connection.client,
            Err(error) => return complain(&error, Some(NO_CLUSTER), exit::USAGE),
        };
        let done = match action {
            Command::Apply { dry_run, timeout, .. } => apply(&client, dry_run, Duration::from_secs(timeout)).await,
            Command::Diff { .. } => diff(&client).await,
            Command::List { .. } => list(&client).await,
        };
        done.unwrap_or_else(|error| {
            let (hint, code) = match error.downcast_ref::<ApplyError>() {
                Some(error) => (Some(error.hint()), if error.is_refusal() { exit::NO } else { exit::USAGE }),
                None => (None, exit::USAGE),
            };
            complain(&error, hint, code)
        })
    })
}

/// Everything is checked before anything is changed.
async fn apply(client: &Client, dry_run: bool, limit: Duration) -> Result<ExitCode> {
    let plans = compare(client).await?;
    for plan in &plans {
        plan.check(client).await?;
    }
    for plan in &plans {
        if plan.action() != Action::Keep {
            plan.write(client, dry_run).await?;
        }
        if !dry_run {
            plan.established(client, limit).await?;
        }
        let done = match (plan.action(), dry_run) {
            (Action::Create, false) => "created",
            (Action::Update, false) => "updated",
            (Action::Create, true) => "would be created",
            (Action::Update, true) => "would be updated",
            (Action::Keep, _) => "unchanged",
        };
        say(&format!("{}: {done}{}", plan.name(), count(plan)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn diff(client: &Client) -> Result<ExitCode> {
    let mut differs = false;
    for plan in compare(client).await? {
        match plan.action() {
            Action::Keep => continue,
            Action::Create => say(&format!("{}: not installed", plan.name())),
            Action::Update => {
                say(&format!("{}:", plan.name()));
                for line in &plan.differences {
                    say(&format!("  {line}"));
                }
            }
        }
        differs = true;
    }
    Ok(if differs { ExitCode::from(exit::NO) } else { ExitCode::SUCCESS })
}

async fn list(client: &Client) -> Result<ExitCode> {
    for plan in compare(client).await? {
        let state = match plan.action() {
            Action::Keep => "installed",
            Action::Create => "not installed",
            Action::Update => "differs",
        };
        say(&format!("{}: {state}{}", plan.name(), count(&plan)));
    }
    Ok(ExitCode::SUCCESS)
}

fn count(plan: &Plan) -> String {
    match plan.differences.len() {
        0 => String::new(),
        1 => " (1 difference)".to_owned(),
        n => format!(" ({n} differences)"),
    }
}

fn say(line: &str) {
    output::line(Stream::Out, &visible_lines(line));
}
