//! The charts on a real API server: every variant of values is admitted or refused by name, and what monitoring asks for
//! exists.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::{cluster::Cluster, workspace};

use super::stage::{agents, play};

const CHARTS: [&str; 2] = ["agents", "agents-extras"];
/// Where the charts are rendered for.
const NAMESPACE: &str = "charts";

fn chart(name: &str) -> Result<String> {
    let path = workspace().join("charts").join(name);
    Ok(path.to_str().context("a path is no text")?.to_owned())
}

/// The files of values of a chart that are `valid` or `invalid`.
fn variants(chart: &str, kind: &str) -> Result<Vec<PathBuf>> {
    let folder = workspace().join("tests/fixtures/chart").join(chart).join(kind);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    Ok(files)
}

/// Every variant passes Helm's lint, and the API server would take all that it renders, without a warning, in namespaces
/// that enforce Pod Security "restricted".
pub(crate) fn every_variant_of_values_is_admitted(cluster: &Cluster) -> Result<()> {
    for namespace in [NAMESPACE, "chart-a", "chart-b"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl(&["label", "namespace", namespace, enforce, "pod-security.kubernetes.io/warn=restricted"])?;
    }
    // The pod of `helm test` is admitted only beside its account, which no dry run makes.
    for account in ["agents", "controller"] {
        cluster.kubectl(&["create", "serviceaccount", account, "--namespace", NAMESPACE])?;
    }
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        cluster.kubectl_with_input(&["apply", "--filename=-"], &monitoring(kind).to_string())?;
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?;
    for name in CHARTS {
        let path = chart(name)?;
        let mut all: Vec<Option<PathBuf>> = vec![None];
        all.extend(variants(name, "valid")?.into_iter().map(Some));
        let local = Path::new(&path).join("values-local.yaml");
        all.extend(local.exists().then_some(Some(local)));
        for variant in all {
            admitted(cluster, &path, variant.as_deref())
                .with_context(|| format!("{name} with {:?}", variant.unwrap_or_else(|| "its own values".into())))?;
        }
    }
    Ok(())
}

fn admitted(cluster: &Cluster, chart: &str, variant: Option<&Path>) -> Result<()> {
    let values: Vec<&str> = match variant {
        Some(path) => vec!["--values", path.to_str().context("a path is no text")?],
        None => vec![],
    };
    cluster.helm(&[&["lint", "--strict", chart], values.as_slice()].concat())?;
    let rendered =
        cluster.helm(&[&["template", "agents", chart, "--namespace", NAMESPACE], values.as_slice()].concat())?;
    if !rendered.lines().any(|line| line.starts_with("kind:")) {
        return Ok(());
    }
    let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
    let rest = ["--warnings-as-errors", "--filename=-"];
    let shown = cluster.kubectl_with_input(&[&apply[..], &rest[..]].concat(), &rendered)?;
    let objects = rendered.lines().filter(|line| line.starts_with("kind:")).count();
    ensure!(shown.lines().count() == objects, "{objects} objects were rendered:\n{shown}");
    Ok(())
}

/// A definition of the Prometheus operator as far as a dry run needs it.
fn monitoring(kind: &str) -> serde_json::Value {
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    })
}

/// Values that mean nothing are refused before anything is installed, with the name of the value.
pub(crate) fn meaningless_values_are_refused(cluster: &Cluster) -> Result<()> {
    for name in CHARTS {
        let path = chart(name)?;
        for variant in variants(name, "invalid")? {
            let text = fs::read_to_string(&variant)?;
            let wanted = text.lines().next().and_then(|line| line.strip_prefix("# refused: "));
            let wanted = wanted.with_context(|| format!("{} does not say why it is refused", variant.display()))?;
            let values = variant.to_str().context("a path is no text")?;
            match cluster.helm(&["template", "agents", &path, "--values", values]) {
                Ok(_) => bail!("{} was accepted", variant.display()),
                Err(error) => {
                    let said = format!("{error:#}");
                    ensure!(said.contains(wanted), "{}: {said}", variant.display());
                }
            }
        }
    }
    release_names_are_those_of_a_service(cluster)
}

fn release_names_are_those_of_a_service(cluster: &Cluster) -> Result<()> {
    let path = chart("agents")?;
    for name in ["team.agents", "1st"] {
        match cluster.helm(&["template", name, &path]) {
            Ok(_) => bail!("a release {name} was accepted"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(&format!("the name of the release: {name}")), "{said}");
            }
        }
        cluster.helm(&["template", name, &path, "--set", "service.create=false"])?;
    }
    for name in ["123", "true"] {
        // Names that YAML takes for something else, unless they are quoted.
        let values = "serviceAccount.name=1e3,runs.serviceAccount=false";
        let namespaces = "namespaces=[\"123\"]";
        let set = ["--set-string", values, "--set", "service.create=false", "--set-json", namespaces];
        let rendered = cluster.helm(&[&["template", name, &path], &set[..]].concat())?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered)?;
        for object in objects {
            let metadata = &object["metadata"];
            let instance = &metadata["labels"]["app.kubernetes.io/instance"];
            let is_text =
                metadata["name"].is_string() && (metadata["namespace"].is_string() || metadata["namespace"].is_null());
            ensure!(is_text && instance == name, "{object:#}");
        }
    }
    Ok(())
}

/// What a run's pod could ask the API server for in its account's name: nothing, not even about itself.
pub(crate) fn the_account_of_runs_may_ask_for_nothing(cluster: &Cluster) -> Result<()> {
    play(cluster, "rights-of-runs", async |stage| {
        let path = chart("agents")?;
        let only = ["--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccounts.yaml"];
        let place = ["--namespace", &stage.namespace];
        let objects = cluster.helm(&[&["template", "agents", &path], &only[..], &place[..]].concat())?;
        cluster.kubectl_with_input(&["apply", "--filename=-"], &objects)?;
        let may = |account: &str, verb: &str, what: &str| {
            let (user, namespace) = (
                format!("--as=system:serviceaccount:{0}:{account}", stage.namespace),
                format!("--namespace={}", stage.namespace),
            );
            cluster.kubectl(&["auth", "can-i", verb, what, &user, &namespace]).is_ok()
        };
        ensure!(may("agents", "list", "agentruns.agents.proompteng.ai"), "the controller's account has its rights");
        for what in [
            "secrets",
            "configmaps",
            "pods",
            "jobs.batch",
            "agentruns.agents.proompteng.ai",
            "leases.coordination.k8s.io",
        ] {
            for verb in ["get", "list", "watch", "create", "patch", "delete"] {
                ensure!(!may("agents-run", verb, what), "the account of runs may {verb} {what}");
            }
        }
        Ok(())
    })
}

/// The policy of runs opens what its values say, and no address at which credentials are served.
pub(crate) fn runs_reach_names_and_what_values_allow(cluster: &Cluster) -> Result<()> {
    let path = chart("agents-extras")?;
    let egress = |set: &[&str]| -> Result<Vec<Value>> {
        let only = ["--show-only", "templates/network.yaml", "--set", "networkPolicy.runs.enabled=true"];
        let rendered = cluster.helm(&[&["template", "agents", &path], &only[..], set].concat())?;
        let policies: Vec<Value> = serde_saphyr::from_multiple(&rendered)?;
        let policy = policies.iter().find(|policy| policy["metadata"]["name"] == "agents-runs").context("no policy")?;
        ensure!(policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]), "{policy:#}");
        ensure!(policy["spec"]["ingress"].is_null(), "{policy:#}");
        Ok(policy["spec"]["egress"].as_array().cloned().unwrap_or_default())
    };
    let rules = egress(&[])?;
    let [names, all] = rules.as_slice() else { bail!("{rules:#?}") };
    ensure!(names["ports"] == json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]), "{names:#}");
    ensure!(
        names["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "kube-system",
        "{names:#}"
    );
    ensure!(all["ports"] == json!([{"port": 22}, {"port": 80}, {"port": 443}]), "{all:#}");
    let except = |rule: &Value, n: usize| rule["to"][n]["ipBlock"]["except"].as_array().cloned().unwrap_or_default();
    ensure!(
        except(all, 0).contains(&json!("169.254.0.0/16"))
            && except(all, 0).iter().all(|one| !one.to_string().contains(':'))
    );
    ensure!(
        except(all, 1).contains(&json!("fe80::/10")) && except(all, 1).contains(&json!("fd00:ec2::254/128")),
        "{all:#}"
    );
    let rules = egress(&["--set", "networkPolicy.runs.egressExcept={10.0.0.0/8,fc00::/7}"])?;
    ensure!(except(&rules[1], 0).contains(&json!("10.0.0.0/8")) && except(&rules[1], 1).contains(&json!("fc00::/7")));
    ensure!(except(&rules[1], 0).contains(&json!("169.254.0.0/16")), "{rules:#?}");
    // An empty list of ports in a rule would mean every port.
    let closed =
        egress(&["--set-json", "networkPolicy.runs.egressPorts=[]", "--set-json", "networkPolicy.runs.dnsTo=[]"])?;
    ensure!(closed.is_empty(), "{closed:#?}");
    Ok(())
}

/// Whoever may view, edit or administrate a namespace may do so with the kinds, and with nothing of another namespace.
pub(crate) fn people_get_the_kinds_by_their_roles(cluster: &Cluster) -> Result<()> {
    play(cluster, "people", async |stage| {
        let path = chart("agents-extras")?;
        let only = ["--show-only", "templates/clusterroles.yaml", "--namespace", &stage.namespace];
        let roles = cluster.helm(&[&["template", "extras", &path], &only[..]].concat())?;
        cluster.kubectl_with_input(&["apply", "--filename=-"], &roles)?;
        for role in ["view", "edit"] {
            let (name, user) = (format!("{role}ers"), format!("--user={role}er"));
            stage.kubectl(&["create", "rolebinding", &name, &format!("--clusterrole={role}"), &user])?;
        }
        let may = |user: &str, verb: &str, namespace: &str| {
            let (user, namespace) = (format!("--as={user}"), format!("--namespace={namespace}"));
            cluster.kubectl(&["auth", "can-i", verb, "agentruns.agents.proompteng.ai", &user, &namespace]).is_ok()
        };
        // A controller gathers the rules.
        stage
            .until("the roles are gathered", async || {
                let all = tokio::task::block_in_place(|| {
                    may("viewer", "list", "people") && may("editer", "create", "people")
                });
                Ok(all.then_some(()))
            })
            .await?;
        for (user, verb, namespace) in
            [("viewer", "create", "people"), ("viewer", "delete", "people"), ("editer", "create", "default")]
        {
            ensure!(!may(user, verb, namespace), "{user} must not {verb} in {namespace}");
        }
        Ok(())
    })
}

/// Every metric that alerts and dashboard name is one that a controller shows.
pub(crate) fn alerts_and_dashboard_name_metrics_that_exist(cluster: &Cluster) -> Result<()> {
    let path = chart("agents-extras")?;
    let rendered = cluster.helm(&["template", "agents", &path, "--set", "prometheusRule.enabled=true"])?;
    let asked = metrics_in(&rendered);
    ensure!(!asked.is_empty(), "nothing is asked for");
    let address = "127.77.1.1:18099";
    let log = cluster.dir().join("metrics-controller.log");
    let _controller = Running(
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(agents()?)
            .args(["controller", "--namespace=default", "--runner-image=runner.invalid/agents:1"])
            .arg(format!("--health-address={address}"))
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("failed to start the controller")?,
    );
    let start = Instant::now();
    loop {
        let page = page(address, "/metrics").unwrap_or_default();
        let shown: BTreeSet<String> = metrics_in(&page);
        let leads = page.lines().any(|line| line == "agents_leader{runs=\"1\"} 1");
        if leads && page.lines().any(|line| line == "agents_ready 1") {
            ensure!(asked.is_subset(&shown), "{asked:?} are asked for, and there are {shown:?}");
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(30) {
            bail!("the controller did not become ready:\n{page}\n{}", fs::read_to_string(&log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Names that look like metrics of ours, in front of their labels or their value.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("agents_")).map(str::to_owned).collect()
}

fn page(address: &str, path: &str) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
