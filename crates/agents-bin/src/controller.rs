//! `agents controller`: the manager with a real client, real clocks, signals and health pages.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use agents_core::plan::Defaults;
use agents_kube::{
    Calls, Clock, Health, LeaseOptions, Manager, Namespaces, lease,
    runtime::{JobSettings, MIN_TTL},
};
use anyhow::{Context as _, Result};
use axum::{Router, extract::State, http::StatusCode, routing::get};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Field manager of everything the controller writes.
const FIELD_MANAGER: &str = "agents-controller";

/// Look after the AgentRuns of a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Namespace whose runs are looked after; without it, that of the kubeconfig or of the pod
    #[arg(long, env = "AGENTS_NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Look after the runs of all namespaces
    #[arg(long, env = "AGENTS_ALL_NAMESPACES")]
    all_namespaces: bool,
    /// Image that brings the runner into every run's pod
    #[arg(long, env = "AGENTS_RUNNER_IMAGE")]
    runner_image: String,
    /// Image of a run whose run, Agent and provider name none; without it, the runner's image
    #[arg(long, env = "AGENTS_DEFAULT_IMAGE")]
    default_image: Option<String>,
    /// Service account of a run that names none
    #[arg(long, env = "AGENTS_RUN_SERVICE_ACCOUNT", default_value = "agents-run")]
    run_service_account: String,
    /// Time a run's Job stays after its end, in seconds; at least 900
    #[arg(long, env = "AGENTS_JOB_TTL_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(MIN_TTL.as_secs()..))]
    job_ttl_seconds: u64,
    /// Time between TERM and KILL, in seconds
    #[arg(long, env = "AGENTS_GRACE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    grace_seconds: u64,
    /// Time an image, a Secret or a container may fail to start before its attempt fails, in seconds
    #[arg(long, env = "AGENTS_START_LIMIT_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    start_limit_seconds: u64,
    /// Lease that is held while runs are decided; without it the controller decides at once
    #[arg(long, env = "AGENTS_LEASE_NAME")]
    lease_name: Option<String>,
    /// Namespace of the lease; without it, the namespace that is looked after
    #[arg(long, env = "AGENTS_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of this replica in the lease and in Events
    #[arg(long, env = "AGENTS_IDENTITY", default_value = "agents-controller")]
    identity: String,
    /// Reconciles under way at once
    #[arg(long, env = "AGENTS_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Address of /healthz and /readyz
    #[arg(long, env = "AGENTS_HEALTH_ADDRESS", default_value = "127.0.0.1:8081")]
    health_address: SocketAddr,
    /// Form of the logs; their filter is read from RUST_LOG
    #[arg(long, env = "AGENTS_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

pub(crate) fn main(args: Args) -> ExitCode {
    // One thread: nearly all of the work is waiting for the API server, and threads that wake each other for every line
    // of a watch cost more than what they do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("failed to start the runtime").and_then(|runtime| runtime.block_on(run(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
    // Only fails when another provider was installed, and there is no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::infer().await.context("failed to find a cluster")?;
    let own = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let calls = Calls::connect(config, clock, FIELD_MANAGER).context("failed to make a client")?;
    let namespaces = if args.all_namespaces { Namespaces::All } else { Namespaces::One(own.clone()) };
    // A restarted container has the same pod name: its own former lease must not look like its present one.
    let identity = format!("{}_{}_{}", args.identity, std::process::id(), Timestamp::now().as_millisecond());
    let mut builder = Manager::builder(calls, identity)
        .watch(namespaces)
        .jobs(Some(JobSettings { ttl: Duration::from_secs(args.job_ttl_seconds) }))
        .defaults(Defaults {
            image: args.default_image.unwrap_or_else(|| args.runner_image.clone()),
            runner_image: args.runner_image,
            service_account: args.run_service_account,
            grace_seconds: args.grace_seconds,
        })
        .start_limit(Duration::from_secs(args.start_limit_seconds))
        .concurrency(usize::from(args.concurrency))
        .seed(u64::from(std::process::id()));
    if let Some(name) = args.lease_name {
        let namespace = args.lease_namespace.unwrap_or(own);
        builder = builder.lease(LeaseOptions { namespace, name, params: lease::Params::default() });
    }
    let manager = builder.build();
    let listener = TcpListener::bind(args.health_address)
        .await
        .with_context(|| format!("failed to listen on {}", args.health_address))?;
    let pages = axum::serve(listener, pages(manager.health()));
    let shutdown = CancellationToken::new();
    tracing::info!(health = %args.health_address, version = env!("CARGO_PKG_VERSION"), "started");
    tokio::select! {
        result = manager.run(shutdown.clone()) => result.context("the controller ended")?,
        result = pages => result.context("the health pages ended")?,
        result = stopped_twice(&shutdown) => result?,
    }
    tracing::info!("stopped");
    Ok(())
}

/// The first signal asks for the end, the second forces it.
async fn stopped_twice(shutdown: &CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for SIGINT")?;
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
    }
    anyhow::bail!("stopped by force")
}

fn pages(health: Health) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match health.ready() {
        Ok(()) if health.is_leading() => (StatusCode::OK, "ok, leading\n".to_owned()),
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The machine's clocks.
#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boot(&self) -> Duration {
        // Linux has this clock since 2.6.39, and reading it cannot fail otherwise.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }
}
