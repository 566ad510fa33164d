//! `agents controller`: the manager with a real client, real clocks, signals and health pages.

mod health;

use std::{
    collections::BTreeMap, convert::Infallible, future::pending, net::SocketAddr, process::ExitCode, sync::Arc,
    time::Duration,
};

use agents_core::{
    check::Fault,
    hidden::visible,
    image,
    plan::{
        Defaults,
        bounds::{AmountError, Amounts, Bounds, parse_amounts},
    },
    policy::{AccountError, Rules, ServiceAccounts},
    quantity::{Quantity, QuantityError},
};
use agents_kube::{
    Calls, Clock, Keeper, LeaseOptions, Manager, Namespaces,
    installed::{self, Difference},
    lease,
    runtime::{JobSettings, MIN_TTL, ReportSecret},
};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::health::Watched;
use crate::{
    cluster::inferred,
    logs,
    output::{self, Stream},
};

/// Field manager of everything the controller writes.
const FIELD_MANAGER: &str = "agents-controller";

/// Look after the AgentRuns of a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Namespaces whose runs are looked after, with commas between; without it, that of the kubeconfig or of the pod
    #[arg(long, env = "AGENTS_NAMESPACE", value_delimiter = ',', conflicts_with = "all_namespaces")]
    namespace: Vec<String>,
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
    #[arg(long, env = "AGENTS_RUN_SERVICE_ACCOUNT", default_value = "agents-run", value_parser = account)]
    run_service_account: String,
    /// Other service accounts that runs may name, as NAME or NAMESPACE/NAME, with commas between; none unless said
    #[arg(long, env = "AGENTS_ALLOWED_SERVICE_ACCOUNTS", value_delimiter = ',')]
    allowed_service_accounts: Vec<String>,
    /// What a run's container asks for where run, Agent and provider say nothing, as cpu=…,memory=…,ephemeral-storage=…;
    /// one without an amount is left out, empty means nothing
    #[arg(long, env = "AGENTS_RUN_REQUESTS", default_value = "cpu=100m,memory=256Mi,ephemeral-storage=1Gi", value_parser = amounts)]
    run_requests: Written,
    /// What it may use at most where they say nothing; in the same form
    #[arg(long, env = "AGENTS_RUN_LIMITS", default_value = "cpu=4,memory=8Gi,ephemeral-storage=20Gi", value_parser = amounts)]
    run_limits: Written,
    /// What the init container that brings the runner asks for; in the same form
    #[arg(long, env = "AGENTS_INSTALL_REQUESTS", default_value = "cpu=10m,memory=16Mi,ephemeral-storage=64Mi", value_parser = amounts)]
    install_requests: Written,
    /// What it may use at most; in the same form
    #[arg(long, env = "AGENTS_INSTALL_LIMITS", default_value = "cpu=1,memory=64Mi,ephemeral-storage=256Mi", value_parser = amounts)]
    install_limits: Written,
    /// Largest size of each folder of a run that says nothing of its ephemeral storage, as a quantity; empty means that of
    /// the node's disk
    #[arg(long, env = "AGENTS_RUN_VOLUME_SIZE", default_value = "10Gi", value_parser = size)]
    run_volume_size: VolumeSize,
    /// Time a run's Job stays after its end, in seconds; at least 900
    #[arg(long, env = "AGENTS_JOB_TTL_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(MIN_TTL.as_secs()..))]
    job_ttl_seconds: u64,
    /// Time between TERM and KILL, in seconds
    #[arg(long, env = "AGENTS_GRACE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    grace_seconds: u64,
    /// Time an image, a Secret or a container may fail to start before its attempt fails, in seconds
    #[arg(long, env = "AGENTS_START_LIMIT_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    start_limit_seconds: u64,
    /// Lease that is held while runs are decided, of which each namespace that is looked after has one of its own with the
    /// namespace and a hash added to this name; without it the controller decides at once
    #[arg(long, env = "AGENTS_LEASE_NAME")]
    lease_name: Option<String>,
    /// Namespace of the leases; without it, that of the kubeconfig or of the pod
    #[arg(long, env = "AGENTS_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// Name of this replica in the lease and in Events
    #[arg(long, env = "AGENTS_IDENTITY", default_value = "agents-controller")]
    identity: String,
    /// Reconciles under way at once, per namespace that is looked after
    #[arg(long, env = "AGENTS_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Address of /healthz, /readyz and /metrics
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
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Sockets and timers are looked at often: what renders many plans must not keep the lease and the health pages
    // waiting.
    let runtime = builder.enable_all().event_interval(8).build();
    let result = runtime.context("failed to start the runtime").and_then(|runtime| runtime.block_on(run(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::line(Stream::Err, &format!("error: {}", visible(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let filter = logs::filter("info")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(logs::Stderr);
    match args.log_format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Text => logs.init(),
    }
    // Only fails when another provider was installed, and there is no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = inferred().await?;
    let scopes = scopes(&args, &config.default_namespace)?;
    let pods = pods(&args)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let calls = Calls::connect(config, clock, FIELD_MANAGER).context("failed to make a client")?;
    // A restarted container has the same pod name: its own former lease must not look like its present one.
    let identity = format!("{}_{}_{}", args.identity, std::process::id(), Timestamp::now().as_millisecond());
    let (args, pods) = (Arc::new(args), Arc::new(pods));
    let keepers: Vec<_> = scopes.into_iter().map(|scope| keeper(&args, &pods, scope, &calls, &identity)).collect();
    let listener = TcpListener::bind(args.health_address)
        .await
        .with_context(|| format!("failed to listen on {}", args.health_address))?;
    let watched = keepers.iter().map(|(runs, keeper)| Watched { runs: runs.clone(), current: keeper.current() });
    let pages = axum::serve(listener, health::pages(watched.collect()));
    let shutdown = CancellationToken::new();
    let mut work: JoinSet<_> = keepers.into_iter().map(|(_, keeper)| keeper.run(shutdown.clone())).collect();
    tracing::info!(health = %args.health_address, version = env!("CARGO_PKG_VERSION"), "started");
    let all_ended = async {
        while let Some(ended) = work.join_next().await {
            ended.context("the controller was cut off")?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = all_ended => result?,
        result = pages => result.context("the health pages ended")?,
        result = stopped_twice(&shutdown) => result?,
        never = tell_of_older_definitions(calls) => match never {},
    }
    tracing::info!("stopped");
    Ok(())
}

/// What one manager looks after, and its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Looked {
    namespaces: Namespaces,
    lease: Option<Place>,
}

/// Where a lease lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    namespace: String,
    name: String,
    /// Namespace and name that it had before.
    former: Option<(String, String)>,
}

/// One for all namespaces, or one for each. Each has a lease of its own, so that it keeps its history when the list
/// becomes longer or shorter. They lie with the controller and not with the runs: who may write Leases beside the runs
/// must not decide who controls them.
fn scopes(args: &Args, own: &str) -> Result<Vec<Looked>> {
    let beside = args.lease_namespace.clone();
    let namespace = beside.clone().unwrap_or_else(|| own.to_owned());
    let name = args.lease_name.clone();
    if args.all_namespaces {
        let lease = name.map(|name| Place { namespace, name, former: None });
        return Ok(vec![Looked { namespaces: Namespaces::All, lease }]);
    }
    let mut namespaces = args.namespace.clone();
    namespaces.sort();
    namespaces.dedup();
    if namespaces.is_empty() {
        namespaces.push(own.to_owned());
    }
    if namespaces.iter().any(String::is_empty) {
        bail!("a namespace is empty: --namespace takes names with commas between");
    }
    Ok(namespaces
        .into_iter()
        .map(|runs| {
            let lease = name.as_deref().map(|name| Place {
                namespace: namespace.clone(),
                name: lease::name_for(name, &runs),
                former: Some((beside.clone().unwrap_or_else(|| runs.clone()), name.to_owned())),
            });
            Looked { namespaces: Namespaces::One(runs), lease }
        })
        .collect())
}

/// What the pods of runs get, and what they may have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pods {
    defaults: Defaults,
    policy: Rules,
}

/// What could never make a pod is refused now, rather than at every run.
fn pods(args: &Args) -> Result<Pods> {
    let image = args.default_image.clone().unwrap_or_else(|| args.runner_image.clone());
    for (flag, image) in [("--runner-image", &args.runner_image), ("--default-image", &image)] {
        if let Some(problem) = image::problem(image) {
            bail!("{flag} {image:?}: {problem}");
        }
    }
    let part = |Written(requests): &Written, Written(limits): &Written| Amounts {
        requests: requests.clone(),
        limits: limits.clone(),
    };
    let VolumeSize(volume_size) = args.run_volume_size;
    let bounds = Bounds {
        agent: part(&args.run_requests, &args.run_limits),
        installer: part(&args.install_requests, &args.install_limits),
        volume_size,
    };
    if let Some(Fault { field, problem }) = bounds.faults().into_iter().next() {
        bail!("{}: {problem}", named(&field));
    }
    let mut policy = Rules::default();
    for entry in args.allowed_service_accounts.iter().filter(|entry| !entry.is_empty()) {
        policy.service_accounts.allow(entry).context("--allowed-service-accounts")?;
    }
    let defaults = Defaults {
        image,
        runner_image: args.runner_image.clone(),
        service_account: args.run_service_account.clone(),
        grace_seconds: args.grace_seconds,
        bounds,
    };
    Ok(Pods { defaults, policy })
}

/// A bound by its flag and its value in the chart.
fn named(field: &str) -> String {
    let (part, rest) = field.split_once('.').unwrap_or((field, ""));
    let (amounts, resource) = rest.split_once('.').unwrap_or((rest, ""));
    match part {
        "agent" => format!("--run-{amounts} (runs.{amounts} of the chart): {resource}"),
        "installer" => format!("--install-{amounts} (runs.install.{amounts} of the chart): {resource}"),
        _ => "--run-volume-size (runs.volumeSize of the chart)".to_owned(),
    }
}

/// Amounts by resource name.
#[derive(Debug, Clone)]
struct Written(BTreeMap<String, Quantity>);

/// A size, or none.
#[derive(Debug, Clone, Copy)]
struct VolumeSize(Option<Quantity>);

fn amounts(text: &str) -> Result<Written, AmountError> {
    parse_amounts(text).map(Written)
}

fn size(text: &str) -> Result<VolumeSize, QuantityError> {
    if text.is_empty() { Ok(VolumeSize(None)) } else { text.parse().map(|size| VolumeSize(Some(size))) }
}

/// One account, by the rule for those that are listed.
fn account(text: &str) -> Result<String, AccountError> {
    if text.contains('/') {
        return Err(AccountError { entry: text.to_owned() });
    }
    ServiceAccounts::default().allow(text).map(|()| text.to_owned())
}

/// What keeps a manager at work, and the namespace of its runs; empty for all.
fn keeper(
    args: &Arc<Args>,
    pods: &Arc<Pods>,
    looked: Looked,
    calls: &Calls,
    identity: &str,
) -> (String, Keeper<impl Fn(u32) -> Manager + use<>>) {
    let runs = match &looked.namespaces {
        Namespaces::One(namespace) => namespace.clone(),
        Namespaces::All => String::new(),
    };
    let (args, pods) = (Arc::clone(args), Arc::clone(pods));
    let (calls, identity) = (calls.clone(), identity.to_owned());
    // Each is another candidate: the lease of its predecessor must not look like its own.
    let make = move |number| manager(&args, &pods, looked.clone(), &calls, &format!("{identity}_{number}"));
    (runs.clone(), Keeper::new(runs, make))
}

fn manager(args: &Args, pods: &Pods, looked: Looked, calls: &Calls, identity: &str) -> Manager {
    let Looked { namespaces, lease } = looked;
    let mut builder = Manager::builder(calls.clone(), identity)
        .watch(namespaces)
        .jobs(Some(JobSettings { ttl: Duration::from_secs(args.job_ttl_seconds) }))
        .defaults(pods.defaults.clone())
        .policy(pods.policy.clone())
        .start_limit(Duration::from_secs(args.start_limit_seconds))
        .concurrency(usize::from(args.concurrency))
        .seed(u64::from(std::process::id()));
    if let Some(secret) = report_secret() {
        builder = builder.report_secret(secret);
    } else {
        tracing::error!("the system gives no random bytes: reports are believed by what they say alone");
    }
    if let Some(Place { namespace, name, former }) = lease {
        builder = builder.lease(LeaseOptions { namespace, name, former, params: lease::Params::default() });
    }
    builder.build()
}

/// Random bytes of this process, which it tells nobody.
fn report_secret() -> Option<ReportSecret> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).ok().map(|()| ReportSecret::new(bytes))
}

/// Says once which definitions in the cluster are not those of this program; nothing else waits for it.
async fn tell_of_older_definitions(calls: Calls) -> Infallible {
    let differences = installed::settled(calls.client()).await;
    if differences.is_empty() {
        tracing::info!("the installed definitions know every field of this program");
    }
    differences.iter().for_each(Difference::tell);
    pending().await
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn looked(arguments: &[&str]) -> Result<Vec<Looked>> {
        let line = [&["controller", "--runner-image=i"], arguments].concat();
        scopes(&Line::try_parse_from(line)?.args, "own")
    }

    fn one(runs: &str, namespace: &str, former: &str) -> Looked {
        let former = Some((former.to_owned(), "ctl".to_owned()));
        let name = lease::name_for("ctl", runs);
        let lease = Some(Place { namespace: namespace.to_owned(), name, former });
        Looked { namespaces: Namespaces::One(runs.to_owned()), lease }
    }

    #[test]
    fn each_namespace_has_its_own_lease_beside_the_controller() {
        let named = |arguments: &[&str]| looked(&[&["--lease-name=ctl"], arguments].concat());
        assert_eq!(named(&[]).unwrap(), [one("own", "own", "own")]);
        assert_eq!(named(&["--namespace=b,a,b"]).unwrap(), [one("a", "own", "a"), one("b", "own", "b")]);
        let placed = named(&["--namespace=a,b", "--lease-namespace=l"]).unwrap();
        assert_eq!(placed, [one("a", "l", "l"), one("b", "l", "l")]);
        let lease = Some(Place { namespace: "own".to_owned(), name: "ctl".to_owned(), former: None });
        assert_eq!(named(&["--all-namespaces"]).unwrap(), [Looked { namespaces: Namespaces::All, lease }]);
        assert!(looked(&["--namespace=a,b"]).unwrap().iter().all(|looked| looked.lease.is_none()));
    }

    fn given(arguments: &[&str]) -> Result<Pods> {
        let line = [&["controller", "--runner-image=i"], arguments].concat();
        pods(&Line::try_parse_from(line)?.args)
    }

    #[test]
    fn bounds_are_the_products_own_unless_said_and_can_be_switched_off() {
        assert_eq!(given(&[]).unwrap().defaults.bounds, Bounds::default());
        let off =
            ["--run-requests=", "--run-limits=", "--install-requests=", "--install-limits=", "--run-volume-size="];
        assert_eq!(given(&off).unwrap().defaults.bounds, Bounds::none());
        let said = given(&["--run-limits=memory=2Gi,cpu="]).unwrap().defaults.bounds.agent;
        assert_eq!(said.limits, parse_amounts("memory=2Gi").unwrap());
        assert_eq!(said.requests, Bounds::default().agent.requests);
    }

    #[test]
    fn only_the_default_account_is_allowed_unless_others_are_listed() {
        assert_eq!(given(&[]).unwrap().policy, Rules::default());
        let mut two = Rules::default();
        two.service_accounts.allow("a").unwrap();
        two.service_accounts.allow("ns/b").unwrap();
        assert_eq!(given(&["--allowed-service-accounts=a,ns/b"]).unwrap().policy, two);
        assert_eq!(given(&["--allowed-service-accounts="]).unwrap().policy, Rules::default());
    }

    #[test]
    fn what_makes_no_pod_is_refused_at_the_start() {
        for argument in [
            "--run-requests=cpu=5",
            "--run-limits=memory=128Mi",
            "--run-limits=cpu=0",
            "--run-limits=cpus=1",
            "--run-limits=cpu",
            "--run-requests=cpu=-1",
            "--install-limits=cpu=1m",
            "--run-volume-size=0",
            "--run-volume-size=-1",
            "--run-volume-size=10GiB",
            "--allowed-service-accounts=*",
            "--allowed-service-accounts=A",
            "--allowed-service-accounts=a,b.",
            "--run-service-account=",
            "--run-service-account=Default",
            "--run-service-account=ns/a",
            "--default-image=Agent",
            "--default-image=../agent",
        ] {
            assert!(given(&[argument]).is_err(), "{argument}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for arguments in [&["--namespace=a,"][..], &["--namespace=a", "--all-namespaces"]] {
            assert!(looked(arguments).is_err(), "{arguments:?}");
        }
    }
}
