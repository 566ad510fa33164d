//! `cargo xtask cluster`: a cluster that stays until it is asked down, and what a person wants to know of it.
//!
//! Returns what is to be printed; the binary prints it.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};

use super::processes::Identity;
use super::{Cluster, Lifetime, NODE_NAME, Options, Progress, default_dir, images, probe, product};

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
    /// Build the product's image from the present code and give it to the node, under the name the chart uses
    Load,
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
        Action::Load => load(&running()?, &progress),
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

fn load(cluster: &Cluster, progress: &Progress) -> Result<String> {
    if cluster.layout.network.is_none() {
        bail!("the cluster has no node to take an image; start one with `cargo xtask cluster up --node`");
    }
    let image = images::product_reference();
    cluster.import_image(&images::product(&image, &product::build(progress)?))?;
    Ok(format!("the node has {image}\n"))
}

fn export(cluster: &Cluster) -> String {
    format!("export KUBECONFIG={}\n", shell_word(&cluster.kubeconfig().display().to_string()))
}

/// A word as a shell reads it back.
fn shell_word(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn status(cluster: &Cluster) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["COMPONENT", "PID", "PORT", "READY"]);
    let mut lines = Vec::new();
    for component in cluster.layout.components() {
        let identity = cluster.layout.identity(component).filter(Identity::is_alive);
        let pid = identity.as_ref().map_or_else(|| "-".to_owned(), |identity| identity.pid.to_string());
        let ready = match identity.map(|_| probe::ready(&cluster.layout, component)) {
            None => "ended",
            Some(Ok(())) => "yes",
            Some(Err(error)) => {
                lines.push(format!("{}: {}", component.name(), short(&format!("{error:#}"))));
                "no"
            }
        };
        table.add_row([component.name(), &pid, &cluster.layout.port(component), ready]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if cluster.layout.network.is_some() {
        let path = r#"--output=jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} ({.reason}){end}"#;
        let ready = cluster
            .kubectl(&["get", "node", NODE_NAME, path])
            .unwrap_or_else(|error| format!("unknown: {}", short(&format!("{error:#}"))));
        lines.push(format!("node {NODE_NAME} ready: {ready}"));
    }
    if !cluster.has_controllers() {
        lines.push("no controller manager and no scheduler: KUBEBUILDER_ASSETS has none".to_owned());
    }
    lines.push(export(cluster));
    format!("{}\n\n{}", table.trim_fmt(), lines.join("\n"))
}

/// The first line of an error, no longer than a terminal is wide or two.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_and_quotes_survives_the_shell() {
        assert_eq!(shell_word("/a/b-c_d.e"), "/a/b-c_d.e");
        for word in ["/a b", "/it's", "/$HOME;ls"] {
            let script = format!("printf %s {}", shell_word(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        assert_eq!(short("one\ntwo"), "one");
        assert_eq!(short(&"é".repeat(300)).chars().count(), 201);
    }
}
