//! A scripted model as a program, to stand behind a Service: `scripted-model --listen 0.0.0.0:8080 --ready NAME`.

use std::net::SocketAddr;
use std::path::PathBuf;

use agents_tests::model::{ModelServer, Script};
use anyhow::Context as _;
use clap::{ArgGroup, Parser};
use tokio::signal::unix::{SignalKind, signal};

/// Answers the Responses API from a script. Ends with exit code 0 on SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("source").required(true))]
struct Args {
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A script in YAML or JSON.
    #[arg(long, group = "source", value_name = "FILE")]
    script: Option<PathBuf>,
    /// A script that ships with this program: `edit-and-commit` or `faults`.
    #[arg(long, group = "source", value_name = "NAME")]
    ready: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    let Args { listen, script, ready } = Args::parse();
    // Both before anything else: as a pod's first process it has no default action for either.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let script = match (script, ready) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Script::parse(&text).with_context(|| path.display().to_string())?
        }
        (None, Some(name)) => Script::ready(&name)?,
        (None, None) => anyhow::bail!("a script is needed"),
    };
    let server = ModelServer::listen(listen, script).await?;
    println!("listening on {}", server.url());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
