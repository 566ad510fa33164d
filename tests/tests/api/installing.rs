//! `agents crds` and `agents wait` as a person uses them, on a cluster of their own: definitions are everyone's.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xtask::cluster::{Cluster, Options};

use super::stage::agents;

const DEFINITION: &str = "implementationspecs.agents.proompteng.ai";
/// A rule that no version of ours has.
const FORMER_RULE: &str = "self.spec.text != 'former'";

/// What the program printed, and its exit code.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    text: String,
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Result<Said> {
    let program = agents()?;
    let output = Command::new(program).args(arguments).env("KUBECONFIG", cluster.kubeconfig()).output();
    let Output { status, stdout, stderr } = output.context("failed to start the program")?;
    let text = [String::from_utf8(stdout)?, String::from_utf8(stderr)?].concat();
    Ok(Said { code: status.code(), text })
}

fn says(cluster: &Cluster, arguments: &[&str], code: i32, texts: &[&str]) -> Result<()> {
    let said = run(cluster, arguments)?;
    let missing = texts.iter().find(|text| !said.text.contains(**text));
    ensure!(
        said.code == Some(code) && missing.is_none(),
        "{arguments:?} should end with {code} and say {texts:?}: {said:?}"
    );
    Ok(())
}

/// The definition as stored, changed by hand as another version of the product would have it.
fn rewrite(cluster: &Cluster, change: impl FnOnce(&mut Value)) -> Result<()> {
    let stored = cluster.kubectl(&["get", "crd", DEFINITION, "--output=json"])?;
    let mut stored: Value = serde_json::from_str(&stored)?;
    change(&mut stored);
    cluster.kubectl_with_input(&["replace", "--filename=-"], &stored.to_string()).map(drop)
}

fn spec_of(definition: &mut Value) -> &mut Value {
    &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
}

/// Definitions are installed, kept, upgraded and never made to lose what is stored.
pub(crate) fn definitions_are_brought_up_to_date(_: &Cluster) -> Result<()> {
    let cluster = &Cluster::start(Options::default())?;
    let all = agents_kube::crd::all().len();
    let each = |text: &str, said: &Said| {
        let lines = said.text.lines().filter(|line| line.contains(text)).count();
        ensure!(said.code == Some(0) && lines == all, "{text}: {said:?}");
        Ok(())
    };

    // A cluster without any.
    says(cluster, &["crds", "diff"], 1, &["agentruns.agents.proompteng.ai: not installed"])?;
    each("would be created", &run(cluster, &["crds", "apply", "--dry-run"])?)?;
    says(cluster, &["crds", "diff"], 1, &["not installed"])?;
    each("created", &run(cluster, &["crds", "apply"])?)?;
    each("unchanged", &run(cluster, &["crds", "apply"])?)?;
    each("installed", &run(cluster, &["crds", "list"])?)?;
    says(cluster, &["crds", "diff"], 0, &[])?;
    let told = tells(cluster, Duration::from_secs(45), |log| log.contains("know every field of this program"))?;
    ensure!(!told.contains("agents crds apply"), "these are its own definitions: {told}");

    // An older one, which the controller names, and which loses its former rule although another program wrote that.
    rewrite(cluster, |stored| {
        spec_of(stored).as_object_mut().expect("a schema").remove("acceptanceCriteria");
        let schema = &mut stored["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["x-kubernetes-validations"] = json!([{"rule": FORMER_RULE, "message": "former"}]);
    })?;
    cluster.kubectl(&["delete", "crd", "agentproviders.agents.proompteng.ai"])?;
    let told = tells(cluster, Duration::from_secs(45), |log| {
        log.contains("spec.acceptanceCriteria") && log.contains("the kind is not installed")
    })?;
    let lines = told.lines().filter(|line| line.contains("agents crds apply")).count();
    ensure!(lines == 2, "one line for each kind: {told}");
    says(
        cluster,
        &["crds", "diff"],
        1,
        &["+ spec.acceptanceCriteria", "agentproviders.agents.proompteng.ai: not installed"],
    )?;
    says(cluster, &["crds", "apply", "--dry-run"], 0, &["implementationspecs.agents.proompteng.ai: would be updated"])?;
    says(
        cluster,
        &["crds", "apply"],
        0,
        &["implementationspecs.agents.proompteng.ai: updated", "agentproviders.agents.proompteng.ai: created"],
    )?;
    says(cluster, &["crds", "diff"], 0, &[])?;

    // A newer one with a field that something uses.
    rewrite(cluster, |stored| {
        spec_of(stored)["later"] = json!({"type": "object", "properties": {"field": {"type": "string"}}});
    })?;
    let object = json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "ImplementationSpec",
        "metadata": {"name": "modern", "namespace": "default"}, "spec": {"text": "t", "later": {"field": "x"}},
    });
    until("the field is served", || {
        cluster.kubectl_with_input(&["create", "--validate=strict", "--filename=-"], &object.to_string()).map(drop)
    })?;
    for arguments in [&["crds", "apply", "--dry-run"][..], &["crds", "apply"]] {
        says(cluster, arguments, 1, &["would lose the field spec.later, which default/modern uses", "hint: "])?;
    }
    let stored = cluster.kubectl(&["get", "implementationspec", "modern", "--output=jsonpath={.spec.later.field}"])?;
    ensure!(stored == "x", "nothing was changed: {stored}");
    cluster.kubectl(&["delete", "implementationspec", "modern"])?;
    says(cluster, &["crds", "diff"], 1, &["- spec.later"])?;
    says(cluster, &["crds", "apply"], 0, &["implementationspecs.agents.proompteng.ai: updated (1 difference)"])?;

    // A version that someone may speak.
    rewrite(cluster, |stored| {
        let mut later = stored["spec"]["versions"][0].clone();
        later["name"] = "v1beta1".into();
        later["storage"] = false.into();
        stored["spec"]["versions"].as_array_mut().expect("versions").push(later);
    })?;
    says(cluster, &["crds", "apply"], 1, &["would no longer serve the version v1beta1"])?;

    // Nobody to ask, and nothing to ask about.
    says(cluster, &["crds", "list", "--context=nowhere"], 2, &["error: ", "hint: "])?;
    says(cluster, &["crds", "apply", "--timeout=0"], 2, &["--timeout"])
}

/// Waiting ends with what became of the object, and says it in the exit code.
pub(crate) fn waiting_ends_as_the_run_did(cluster: &Cluster) -> Result<()> {
    super::stage::play(cluster, "wait-command", async |stage| {
        stage.declarations().await?;
        let namespace = format!("--namespace={}", stage.namespace);
        let of = |name: &str, more: &[&str], code: i32, texts: &[&str]| {
            let arguments = [&["wait", name, namespace.as_str()], more].concat();
            tokio::task::block_in_place(|| says(cluster, &arguments, code, texts))
        };
        let ended = |phase: &str, truth: &str| {
            let now = "2026-01-01T00:00:00Z";
            let condition =
                json!({"type": "Succeeded", "status": truth, "reason": "R", "message": "m", "lastTransitionTime": now});
            let attempt = json!({"number": 1, "phase": phase, "exitCode": 3});
            json!({"status": {"phase": phase, "reason": "R", "conditions": [condition], "attempts": [attempt]}})
        };
        for (name, phase, truth) in
            [("good", "Succeeded", "True"), ("bad", "Failed", "False"), ("cancelled", "Cancelled", "False")]
        {
            stage.run(name, &json!({})).await?;
            let status = ended(phase, truth).to_string();
            stage.kubectl(&["patch", "agentrun", name, "--subresource=status", "--type=merge", "--patch", &status])?;
        }
        stage.run("waiting", &json!({})).await?;
        of("agentrun/good", &[], 0, &["agentrun/good: Succeeded (R)"])?;
        of("bad", &["--for=condition=Succeeded"], 3, &["agentrun/bad: Failed (R)"])?;
        of("bad", &["--for=Succeeded=False"], 0, &[])?;
        of("ar/cancelled", &[], 130, &["Cancelled"])?;
        of("good", &["bad"], 1, &[])?;
        of("waiting", &["--timeout=1s"], 124, &["the time is over"])?;
        of("nobody", &[], 2, &["there is no agentrun/nobody"])?;
        of("pod/good", &[], 2, &["there is no kind pod"])?;
        of("good", &["--timeout=soon"], 2, &["90s"])
    })
}

/// What a controller logs until `enough` holds, at most for `patience`.
fn tells(cluster: &Cluster, patience: Duration, enough: impl Fn(&str) -> bool) -> Result<String> {
    let path = cluster.dir().join("telling-controller.log");
    let mut controller = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(agents()?)
        .args(["controller", "--namespace=default", "--runner-image=runner.invalid/agents:1"])
        .arg("--health-address=127.77.1.2:18099")
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&path)?)
        .spawn()
        .context("failed to start the controller")?;
    let start = Instant::now();
    let log = loop {
        let log = std::fs::read_to_string(&path)?;
        if enough(&log) {
            break Ok(log);
        }
        if start.elapsed() > patience {
            break Err(anyhow::anyhow!("the controller did not say it in {patience:?}: {log}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    controller.kill()?;
    controller.wait()?;
    log
}

fn until(what: &str, mut done: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        match done() {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > Duration::from_secs(20) => bail!("{what}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
