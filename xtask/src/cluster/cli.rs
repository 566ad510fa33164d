//! `cargo xtask cluster`: a cluster that stays until it is asked down, and what a person wants to know of it.
//!
//! Returns what is to be printed; the binary prints it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};

use super::{Cluster, Lifetime, NODE_NAME, Options, Progress, default_dir, probe};

/// Starts, stops and shows the test cluster.
#[derive(Debug, clap::Args)]
pub struct ClusterArguments {
    /// The folder of the cluster [default: .agents/cluster in the workspace]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Start a cluster that stays until `down`
    Up {
        /// With a node that runs pods; needs root
        #[arg(long)]
        node: bool,
    },
    /// End the cluster and everything it made, also after a crash
    Down,
    /// Show the components and the node
    Status,
    /// Print the path of the kubeconfig
    Kubeconfig,
}

/// Does what was asked and returns the text for standard output.
pub fn execute(arguments: ClusterArguments, progress: Progress) -> Result<String> {
    let ClusterArguments { dir, action } = arguments;
    let dir = std::path::absolute(dir.unwrap_or_else(default_dir)).context("--dir is no path")?;
    let running = || {
        Cluster::attach(&dir)?
            .with_context(|| format!("no cluster in {}; start one with `cargo xtask cluster up`", dir.display()))
    };
    match action {
        Action::Up { node } => up(dir, node, progress),
        Action::Down if Cluster::take_down(&dir)? => Ok("the cluster is down\n".to_owned()),
        Action::Down => Ok(format!("no cluster in {}\n", dir.display())),
        Action::Status => Ok(status(&running()?)),
        Action::Kubeconfig => Ok(format!("{}\n", running()?.kubeconfig().display())),
    }
}

fn up(dir: PathBuf, node: bool, progress: Progress) -> Result<String> {
    if let Some(cluster) = Cluster::attach(&dir)?.filter(Cluster::is_whole) {
        if node && cluster.layout.network.is_none() {
            bail!("a cluster without a node is up in {}; take it down first", dir.display());
        }
        return Ok(format!("already up\n{}", export(&cluster)));
    }
    let way = super::availability(node)?;
    progress.tell(&format!("taking {way}"));
    let started = Instant::now();
    // What a crash left in the folder is taken away by the start.
    let cluster = Cluster::start(Options { node, dir: Some(dir), lifetime: Lifetime::Person, progress })?;
    Ok(format!("up after {:.1} s\n{}", started.elapsed().as_secs_f64(), export(&cluster)))
}

fn export(cluster: &Cluster) -> String {
    format!("export KUBECONFIG={}\n", cluster.kubeconfig().display())
}

fn status(cluster: &Cluster) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["COMPONENT", "PID", "PORT", "READY"]);
    for component in cluster.layout.components() {
        let identity = cluster.layout.identity(component).filter(super::Identity::is_alive);
        let (pid, ready) = match &identity {
            None => ("-".to_owned(), "ended".to_owned()),
            Some(identity) => {
                let ready = match probe::ready(cluster, component) {
                    Ok(()) => "yes".to_owned(),
                    Err(error) => format!("no: {error:#}"),
                };
                (identity.pid.to_string(), ready)
            }
        };
        table.add_row([component.name().to_owned(), pid, cluster.port(component), ready]);
    }
    let mut text = format!("{table}\n");
    if cluster.layout.network.is_some() {
        let path = r#"--output=jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} ({.reason}){end}"#;
        let ready =
            cluster.kubectl(&["get", "node", NODE_NAME, path]).unwrap_or_else(|error| format!("unknown: {error:#}"));
        text += &format!("\nnode {NODE_NAME} ready: {ready}\n");
    }
    if !cluster.has_controllers() {
        text.push_str("\nno controller manager and no scheduler: KUBEBUILDER_ASSETS has none\n");
    }
    text.push('\n');
    text.push_str(&export(cluster));
    text
}
