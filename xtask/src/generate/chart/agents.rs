//! The chart `agents`: its values, what Artifact Hub shows of it, and the rights the controller gets.

use std::{collections::BTreeMap, fmt::Write as _};

use agents_core::{
    api::{Kind, VERSION},
    check::Check,
    kinds::{self, Visitor},
    plan::Bounds,
    quantity::Quantity,
};
use agents_kube::rbac::{FORMER_LEASE, LEASE, RUNS, Rule};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    super::HEADER,
    forms,
    table::{Entry, group, list, named, number, object, one_of, switch, value},
};

/// Image of the product, without its tag.
pub(super) const IMAGE: &str = "ghcr.io/proompteng/agents";

/// Every value, in the order of `values.yaml`.
pub(super) fn values() -> Vec<Entry> {
    [image(), work(), accounts(), pod(), objects()].concat()
}

fn image() -> Vec<Entry> {
    let pull = ["Always", "IfNotPresent", "Never"];
    vec![
        group("image", "Image of the controller, which also brings the runner into every run's pod."),
        value("image.repository", json!(IMAGE), forms::image_name(), "Registry and name, without tag."),
        value(
            "image.tag",
            json!(""),
            forms::tag(),
            "Tag; without one, the chart's appVersion. Not `latest`, which means another image every day.",
        ),
        value(
            "image.digest",
            json!(""),
            json!({ "type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$" }),
            "Digest, such as sha256:…; wins over the tag.",
        ),
        value("image.pullPolicy", json!("IfNotPresent"), one_of(&pull), "When the kubelet pulls it."),
        value(
            "image.pullSecrets",
            json!([]),
            forms::references(),
            "Secrets for a private registry, each as `name: …`.",
        ),
    ]
}

/// The product's own default of a resource.
fn amount(path: &'static str, own: &BTreeMap<String, Quantity>, meaning: &'static str) -> Entry {
    let name = path.rsplit('.').next().unwrap_or_default();
    let form = if path.starts_with("runs.requests.") { forms::request() } else { forms::limit() };
    value(path, json!(own.get(name).map(ToString::to_string).unwrap_or_default()), form, meaning)
}

fn written(amounts: &BTreeMap<String, Quantity>) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

fn work() -> Vec<Entry> {
    let own = Bounds::default();
    vec![
        value(
            "replicaCount",
            json!(1),
            number(0, 10),
            "Replicas of the controller; one works, the others wait with warm caches.",
        ),
        value(
            "scope",
            json!("namespace"),
            one_of(&["namespace", "cluster"]),
            "namespace: look after the runs of `namespaces`, with a Role in each. cluster: of all namespaces, with a \
             ClusterRole.",
        ),
        value(
            "namespaces",
            json!([]),
            json!({ "type": "array", "items": forms::label_name(), "uniqueItems": true, "maxItems": 64 }),
            "Namespaces whose runs are looked after; none means the release's own. They must exist.",
        ),
        group("crds", "The definitions in `crds/`."),
        value(
            "crds.install",
            json!(true),
            switch(),
            "Says what Helm does anyway and changes nothing: the first install brings the definitions unless it is told \
             `--skip-crds`, and no later one touches them; `agents crds apply` does.",
        ),
        group("runs", "What runs get that say nothing themselves."),
        value(
            "runs.image",
            json!(""),
            forms::image(),
            "Image of a run whose run, Agent and provider name none; without it, the controller's image.",
        ),
        value(
            "runs.serviceAccount",
            json!("agents-run"),
            forms::object_name(),
            "Service account of a run that names none.",
        ),
        value(
            "runs.allowedServiceAccounts",
            json!([]),
            json!({ "type": "array", "uniqueItems": true, "maxItems": 256, "items": forms::account() }),
            "Other service accounts that runs may name, as NAME, or NAMESPACE/NAME for one namespace alone; without an \
             entry, `runs.serviceAccount` is the only one.",
        ),
        value(
            "runs.createServiceAccount",
            json!(true),
            switch(),
            "Create that account, without rights and without a token, in `namespaces` or, with `scope: cluster`, in the \
             release's namespace.",
        ),
        value(
            "runs.imagePullSecrets",
            json!([]),
            forms::references(),
            "Secrets with which the pods of runs pull their images, beside `image.pullSecrets`.",
        ),
        group(
            "runs.requests",
            "What a run's container asks for where run, Agent and provider say nothing; empty: nothing.",
        ),
        amount("runs.requests.cpu", &own.agent.requests, "CPU, in cores."),
        amount("runs.requests.memory", &own.agent.requests, "Memory, in bytes."),
        amount("runs.requests.ephemeral-storage", &own.agent.requests, "Disk of the node, in bytes."),
        group("runs.limits", "What it may use at most where they say nothing; empty: no limit."),
        amount("runs.limits.cpu", &own.agent.limits, "CPU, in cores; above it, it is slowed down."),
        amount("runs.limits.memory", &own.agent.limits, "Memory, in bytes; above it, it is killed."),
        amount(
            "runs.limits.ephemeral-storage",
            &own.agent.limits,
            "Disk of the node for folders, logs and changed files together, in bytes; above it, the pod is evicted.",
        ),
        value(
            "runs.volumeSize",
            json!(own.volume_size.map(|size| size.to_string()).unwrap_or_default()),
            forms::limit(),
            "Largest size of each folder of a run, in bytes; one that says what ephemeral storage it may use has that \
             instead. Empty: no limit.",
        ),
        group("runs.install", "The same for the init container that brings the runner; as `cpu=…,memory=…`."),
        value(
            "runs.install.requests",
            json!(written(&own.installer.requests)),
            forms::requests(),
            "What it asks for; empty: nothing.",
        ),
        value(
            "runs.install.limits",
            json!(written(&own.installer.limits)),
            forms::limits(),
            "What it may use at most; empty: no limit.",
        ),
        value(
            "runs.jobTtlSeconds",
            json!(86_400),
            number(900, 2_147_483_647),
            "Time a run's Job stays after its end, in seconds; at least 900.",
        ),
        value("runs.graceSeconds", json!(30), number(1, 3600), "Time between TERM and KILL, in seconds."),
        value(
            "runs.startLimitSeconds",
            json!(600),
            number(1, 86_400),
            "Time an image, a Secret or a container may fail to start before its attempt fails, in seconds.",
        ),
        group("controller", "How the controller works."),
        value(
            "controller.concurrency",
            json!(16),
            number(1, 256),
            "Reconciles under way at once, per entry of `namespaces`.",
        ),
        value(
            "controller.logLevel",
            json!("info"),
            forms::log_levels(),
            "off, error, warn, info, debug or trace; also per module, as in `info,agents_kube=debug`.",
        ),
        value("controller.logFormat", json!("json"), one_of(&["json", "text"]), "Form of the logs."),
        value(
            "env",
            json!([]),
            env(),
            "More variables of the controller, as in a container; they win over its values.",
        ),
        value(
            "envFromSecretRefs",
            json!([]),
            list(&forms::object_name()),
            "Secrets all of whose keys become variables of the controller.",
        ),
    ]
}

fn env() -> Value {
    list(&json!({
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "value": { "type": "string" },
            "valueFrom": { "type": "object" },
        },
    }))
}

fn accounts() -> Vec<Entry> {
    vec![
        group("serviceAccount", "The controller's own service account."),
        value("serviceAccount.create", json!(true), switch(), "Create it; else it must exist."),
        value(
            "serviceAccount.name",
            json!(""),
            forms::perhaps_object_name(),
            "Its name; without one, the release's name.",
        ),
        value("serviceAccount.annotations", json!({}), forms::annotations(), "Its annotations."),
        group("rbac", "What the controller may do; `templates/_rules.tpl` says why."),
        value(
            "rbac.create",
            json!(true),
            switch(),
            "Create roles and bindings; else someone else gives the account these rights.",
        ),
        group("service", "The Service before the controller's health page and metrics."),
        value("service.create", json!(true), switch(), "Create it."),
        value("service.type", json!("ClusterIP"), one_of(&["ClusterIP", "NodePort", "LoadBalancer"]), "Its type."),
        value("service.port", json!(80), number(1, 65_535), "Its port; /healthz, /readyz and /metrics are behind it."),
        value("service.annotations", json!({}), forms::annotations(), "Its annotations."),
    ]
}

fn pod() -> Vec<Entry> {
    let restricted = json!({
        "runAsNonRoot": true,
        "runAsUser": 65_532,
        "runAsGroup": 65_532,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let container = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    });
    vec![
        value(
            "resources",
            json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } }),
            object(),
            "Resources of the controller.",
        ),
        value(
            "podSecurityContext",
            restricted,
            object(),
            "Security context of the pod; as it stands, Pod Security \"restricted\" admits it.",
        ),
        value("securityContext", container, object(), "Security context of the container."),
        group("probes", "When a replica is restarted, and when it counts as available."),
        value(
            "probes.liveness",
            json!({ "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3 }),
            probe(&[("successThreshold", number(0, 1)), ("terminationGracePeriodSeconds", number(1, 3600))]),
            "Times of the probe of /healthz.",
        ),
        value(
            "probes.readiness",
            json!({ "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 3 }),
            probe(&[("successThreshold", number(0, 3600))]),
            "Times of the probe of /readyz.",
        ),
        value(
            "terminationGracePeriodSeconds",
            json!(45),
            number(15, 600),
            "Time a replica has to finish what is under way and to give the lease away, in seconds.",
        ),
        value("priorityClassName", json!(""), forms::perhaps_object_name(), "Priority class of the pod."),
        value("nodeSelector", json!({}), forms::labels(), "Labels of the nodes it may run on."),
        value("tolerations", json!([]), list(&object()), "Taints it tolerates."),
        value("affinity", json!({}), object(), "Where it prefers to run."),
        value(
            "topologySpreadConstraints",
            json!([]),
            list(&object()),
            "How replicas are spread; without a `labelSelector`, the replicas of this release are meant.",
        ),
        value("extraVolumes", json!([]), named(), "More volumes of the pod."),
        value(
            "extraVolumeMounts",
            json!([]),
            list(&json!({ "type": "object", "required": ["name", "mountPath"] })),
            "Where the container sees them.",
        ),
    ]
}

/// Times of a probe; the API server takes different ones of each.
fn probe(own: &[(&str, Value)]) -> Value {
    let shared = ["initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold"];
    let shared = shared.map(|name| (name, number(0, 3600)));
    let properties: BTreeMap<&str, Value> = shared.into_iter().chain(own.iter().cloned()).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn objects() -> Vec<Entry> {
    vec![
        value("labels", json!({}), forms::labels(), "More labels of every object of the chart."),
        value("annotations", json!({}), forms::annotations(), "Annotations of every object of the chart."),
        value("podLabels", json!({}), forms::labels(), "More labels of the pod."),
        value("podAnnotations", json!({}), forms::annotations(), "Annotations of the pod."),
    ]
}

/// What concerns several values.
pub(super) fn rules() -> Value {
    json!({
        "if": { "properties": { "scope": { "const": "cluster" } }, "required": ["scope"] },
        "then": { "properties": { "namespaces": { "maxItems": 0, "$comment": "with scope: cluster all are meant" } } },
    })
}

/// `Chart.yaml` with what Artifact Hub reads.
pub(super) fn chart_yaml() -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut shown = Shown::default();
    kinds::visit(&mut shown);
    let Shown { definitions, examples } = shown;
    let examples = examples.into_iter().collect::<Result<Vec<_>>>()?;
    let images = json!([{ "name": "agents", "image": format!("{IMAGE}:{version}"), "whitelisted": false }]);
    let mut text = format!(
        "{HEADER}apiVersion: v2\nname: agents\ntype: application\nversion: {version}\nappVersion: \"{version}\"\n\
         kubeVersion: \">=1.33.0-0\"\ndescription: Kubernetes control plane for AI agent runs\n\
         keywords: [agents, ai, controller, operator]\nannotations:\n  \
         artifacthub.io/category: ai-machine-learning\n  artifacthub.io/license: Apache-2.0\n  \
         artifacthub.io/operator: \"true\"\n  artifacthub.io/operatorCapabilities: Basic Install\n"
    );
    for (name, value) in
        [("images", images), ("crds", Value::Array(definitions)), ("crdsExamples", Value::Array(examples))]
    {
        writeln!(text, "  artifacthub.io/{name}: |")?;
        let yaml = serde_saphyr::to_string(&value).context("an annotation without a YAML form")?;
        for line in yaml.lines() {
            writeln!(text, "{}", format!("    {line}").trim_end())?;
        }
    }
    Ok(text)
}

/// What is shown of every kind.
#[derive(Default)]
struct Shown {
    definitions: Vec<Value>,
    examples: Vec<Result<Value>>,
}

impl Visitor for Shown {
    fn visit<K: Kind + Check>(&mut self) {
        self.definitions.push(json!({
            "kind": K::KIND,
            "version": VERSION,
            "name": format!("{}.{}", K::PLURAL, K::GROUP),
            "displayName": spaced(K::KIND),
            "description": K::DESCRIPTION,
        }));
        let example = serde_saphyr::from_str(K::EXAMPLE);
        self.examples.push(example.with_context(|| format!("the example of {} is no YAML", K::KIND)));
    }
}

/// `AgentRun` as people write it: `Agent Run`.
fn spaced(kind: &str) -> String {
    let mut out = String::new();
    for character in kind.chars() {
        if character.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.push(character);
    }
    out
}

/// The rules of the roles as templates, each with its reason.
pub(super) fn rules_tpl() -> Result<String> {
    let mut text = String::from("{{/* Generated by `cargo xtask gen-crds`. Do not edit. */}}\n");
    let lease = "{{ include \"agents.name\" . }}-controller";
    for (name, rules, only) in [("runs", &RUNS, None), ("lease", &LEASE, None), ("former", &FORMER_LEASE, Some(lease))]
    {
        writeln!(text, "{{{{- define \"agents.rules.{name}\" -}}}}")?;
        for Rule { group, resources, verbs, reason } in rules.iter() {
            writeln!(
                text,
                "# {reason}\n- apiGroups: [\"{group}\"]\n  resources: [{}]\n  verbs: [{}]",
                resources.join(", "),
                verbs.join(", ")
            )?;
            if let Some(only) = only {
                writeln!(text, "  resourceNames: [{only}]")?;
            }
        }
        text.push_str("{{- end }}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_shown_in_words() {
        assert_eq!(spaced("AgentRun"), "Agent Run");
        assert_eq!(spaced("Agent"), "Agent");
    }

    #[test]
    fn artifact_hub_can_read_what_it_gets() {
        let chart: Value = serde_saphyr::from_str(&chart_yaml().unwrap()).unwrap();
        let annotation = |name: &str| -> Vec<Value> {
            let text = chart["annotations"][format!("artifacthub.io/{name}")].as_str().unwrap();
            serde_saphyr::from_str(text).unwrap()
        };
        let kinds: Vec<Value> = annotation("crds").iter().map(|kind| kind["kind"].clone()).collect();
        let examples: Vec<Value> = annotation("crdsExamples").iter().map(|example| example["kind"].clone()).collect();
        assert_eq!(kinds.len(), agents_kube::crd::all().len());
        assert_eq!(kinds, examples, "each kind has its example");
        assert_eq!(annotation("images")[0]["image"], format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION")));
    }
}
