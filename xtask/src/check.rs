//! `cargo xtask check`: everything about the code that needs no test to run.

use anyhow::{Context as _, Result, bail};

use crate::{attacks, cargo, generate, links, steps::Steps, workspace};

/// Crates that agents-core may never depend on, however deep.
const FORBIDDEN_IN_CORE: &[&str] = &["tokio", "kube", "kube-core", "k8s-openapi", "reqwest", "hyper"];
/// Crypto providers and TLS stacks besides ring: two providers make rustls refuse to choose.
const FORBIDDEN_ANYWHERE: &[&str] = &["aws-lc-rs", "openssl-sys", "native-tls"];
/// Crates in the order of their dependencies: each may use those before it.
const LAYERS: &[&str] = &["agents-core", "agents-runtime", "agents-kube", "agents-bin"];

/// One named check.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: &[Check] = &[
    ("formatting", || run_cargo(&["fmt", "--all", "--check"])),
    ("dependency direction", dependency_direction),
    ("generated files", || generate::run(&workspace(), true).map(drop)),
    ("links of documents", || links::check(&workspace())),
    ("attacks and their tests", || attacks::check(&workspace())),
    ("clippy", || run_cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])),
    ("each crate alone", each_crate_alone),
];

/// Runs every check and reports all that fail.
///
/// # Errors
/// The names of the checks that failed; their output has been printed.
pub fn run(mut say: impl FnMut(&str)) -> Result<()> {
    let mut all = Steps::new(&mut say);
    steps(&mut all);
    all.print();
    all.verdict()
}

/// Every check, each a step.
pub(crate) fn steps(steps: &mut Steps<'_>) {
    for (name, check) in CHECKS {
        steps.step(*name, |_| check());
    }
}

fn run_cargo(arguments: &[&str]) -> Result<()> {
    let status = cargo().args(arguments).status().context("failed to start cargo")?;
    if status.success() { Ok(()) } else { bail!("cargo {} ended with {status}", arguments.join(" ")) }
}

fn tree(arguments: &[&str]) -> Result<Vec<String>> {
    let output = cargo()
        .args(["tree", "--prefix", "none", "--edges", "normal", "--format", "{p}"])
        .args(arguments)
        .output()
        .context("failed to start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn dependency_direction() -> Result<()> {
    let core = tree(&["--package", "agents-core"])?;
    if let Some(found) = core.iter().find(|name| FORBIDDEN_IN_CORE.contains(&name.as_str())) {
        bail!("agents-core depends on {found}: the core stays free of IO and of Kubernetes");
    }
    for (n, layer) in LAYERS.iter().enumerate() {
        let below = tree(&["--package", layer])?;
        if let Some(above) = LAYERS[n + 1..].iter().find(|above| below.iter().any(|name| name == *above)) {
            bail!("{layer} depends on {above}: dependencies point the other way");
        }
    }
    let all = tree(&["--workspace"])?;
    if let Some(found) = all.iter().find(|name| FORBIDDEN_ANYWHERE.contains(&name.as_str())) {
        bail!("{found} is in the tree: ring is the only crypto provider");
    }
    Ok(())
}

/// A crate that builds only beside its siblings leans on features that they switch on.
fn each_crate_alone() -> Result<()> {
    for layer in LAYERS {
        // k8s-openapi wants exactly one version feature, which a library leaves to whoever uses it.
        let version: &[&str] = if *layer == "agents-kube" { &["--features", "k8s-openapi/v1_33"] } else { &[] };
        let arguments = [&["check", "--quiet", "--package", layer, "--no-default-features"], version].concat();
        run_cargo(&arguments).with_context(|| format!("{layer} does not build alone"))?;
    }
    Ok(())
}
