//! The chart `agents-extras`: its values, and the kinds in the cluster's own roles.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use agents_core::{
    api::Kind,
    check::Check,
    kinds::{self, Visitor},
};
use serde_json::{Value, json};

use super::{
    super::HEADER,
    forms,
    table::{Entry, group, list, number, object, switch, text, value},
};

/// Kinds that bound what others may do: whoever may only edit must not lift the bounds.
const ADMIN_ONLY: &[&str] = &["ApprovalPolicy", "Budget", "SecretBinding"];

/// Every value, in the order of `values.yaml`.
pub(super) fn values() -> Vec<Entry> {
    let port = || list(&number(1, 65_535));
    vec![
        value(
            "release",
            json!("agents"),
            forms::object_name(),
            "Name of the release of the chart `agents`, in this release's namespace.",
        ),
        group("clusterRoles", "The kinds in the cluster's roles view, edit and admin."),
        value(
            "clusterRoles.create",
            json!(true),
            switch(),
            "Create them; they hold for every namespace of the cluster.",
        ),
        group("podDisruptionBudget", "What a drain may take away at once."),
        value("podDisruptionBudget.enabled", json!(true), switch(), "Create it."),
        value(
            "podDisruptionBudget.maxUnavailable",
            json!(1),
            json!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]{1,3}%$" }),
            "Replicas of the controller that may be away, as a number or in percent.",
        ),
        group("networkPolicy", "Who may speak to whom; needs a network that enforces it."),
        group("networkPolicy.controller", "The controller's pods."),
        value(
            "networkPolicy.controller.enabled",
            json!(false),
            switch(),
            "Create the policy: in, the health port alone; out, DNS and `egressPorts`.",
        ),
        value(
            "networkPolicy.controller.ingressFrom",
            json!([]),
            list(&object()),
            "Peers that may reach health page and metrics, as in a NetworkPolicy; none means every pod of the cluster.",
        ),
        value("networkPolicy.controller.egressPorts", json!([443, 6443]), port(), "Ports of the API server."),
        group("networkPolicy.runs", "The pods of runs in this namespace."),
        value(
            "networkPolicy.runs.enabled",
            json!(false),
            switch(),
            "Create the policy: nobody may connect to a run's pod; it may connect to what the values below say, and to no \
             address at which clouds and nodes serve credentials.",
        ),
        value(
            "networkPolicy.runs.dnsTo",
            json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } } }]),
            list(&object()),
            "Peers that runs may ask for names, on port 53, as in a NetworkPolicy; none means no names. A cache of names on \
             each node is an `ipBlock` of its own.",
        ),
        value(
            "networkPolicy.runs.egressPorts",
            json!([22, 80, 443]),
            port(),
            "Ports that runs may reach at every address that is not excepted; none means no such address.",
        ),
        value(
            "networkPolicy.runs.egressExcept",
            json!([]),
            list(&forms::range()),
            "More ranges that `egressPorts` do not reach, such as `10.0.0.0/8`, beside link-local and metadata addresses.",
        ),
        value(
            "networkPolicy.runs.egress",
            json!([]),
            list(&object()),
            "More rules of what runs may reach, as in a NetworkPolicy.",
        ),
        group("serviceMonitor", "For the Prometheus operator."),
        value("serviceMonitor.enabled", json!(false), switch(), "Create it; needs the operator's definitions."),
        value("serviceMonitor.interval", json!("30s"), forms::interval(), "Time between two looks."),
        value("serviceMonitor.labels", json!({}), forms::labels(), "Labels by which a Prometheus selects it."),
        group("prometheusRule", "Alert rules for the Prometheus operator."),
        value("prometheusRule.enabled", json!(false), switch(), "Create it; needs the operator's definitions."),
        value("prometheusRule.labels", json!({}), forms::labels(), "Labels by which a Prometheus selects it."),
        group("dashboard", "A dashboard for Grafana, as a ConfigMap that its sidecar reads."),
        value("dashboard.enabled", json!(true), switch(), "Create it."),
        value(
            "dashboard.labels",
            json!({ "grafana_dashboard": "1" }),
            forms::labels(),
            "Labels by which the sidecar finds it.",
        ),
        value("labels", json!({}), forms::labels(), "More labels of every object of the chart."),
        value("annotations", json!({}), forms::annotations(), "Annotations of every object of the chart."),
        value("clusterName", json!(""), text(), "Text added to every alert as the label `cluster`; none without it."),
    ]
}

/// Nothing concerns several values.
pub(super) fn rules() -> Value {
    json!({})
}

pub(super) fn chart_yaml() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{HEADER}apiVersion: v2\nname: agents-extras\ntype: application\nversion: {version}\nappVersion: \"{version}\"\n\
         kubeVersion: \">=1.33.0-0\"\ndescription: What a cluster may want beside the chart agents\n\
         keywords: [agents, ai, prometheus, grafana, networkpolicy]\nannotations:\n  \
         artifacthub.io/category: ai-machine-learning\n  artifacthub.io/license: Apache-2.0\n"
    )
}

/// Roles that the API server adds to its own view, edit and admin.
pub(super) fn cluster_roles() -> String {
    #[derive(Default)]
    struct Kinds(BTreeMap<&'static str, Vec<(&'static str, &'static str)>>);
    impl Visitor for Kinds {
        fn visit<K: Kind + Check>(&mut self) {
            self.0.entry(K::GROUP).or_default().push((K::KIND, K::PLURAL));
        }
    }
    let mut kinds = Kinds::default();
    kinds::visit(&mut kinds);
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    let mut text = format!("{HEADER}{{{{- if .Values.clusterRoles.create }}}}\n");
    // The cluster's admin has what its edit has, and that what its view has.
    for (role, verbs, wanted) in [
        ("view", read.as_slice(), None),
        ("edit", write.as_slice(), Some(false)),
        ("admin", write.as_slice(), Some(true)),
    ] {
        let mut rules = String::new();
        for (group, kinds) in &kinds.0 {
            let plurals: Vec<&str> = kinds
                .iter()
                .filter(|(kind, _)| wanted.is_none_or(|admin| ADMIN_ONLY.contains(kind) == admin))
                .map(|(_, plural)| *plural)
                .collect();
            if !plurals.is_empty() {
                let (resources, verbs) = (plurals.join(", "), verbs.join(", "));
                // Writing to a String cannot fail.
                let _ = writeln!(rules, "  - apiGroups: [{group}]\n    resources: [{resources}]\n    verbs: [{verbs}]");
            }
        }
        if rules.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  \
             name: {{{{ printf \"%s-%s-{role}\" .Release.Namespace .Release.Name }}}}\n  \
             {{{{- include \"extras.metadata\" (dict \"root\" . \"wide\" true \"labels\" (dict \
             \"rbac.authorization.k8s.io/aggregate-to-{role}\" \"true\")) | nindent 2 }}}}\nrules:\n{rules}"
        );
    }
    text.push_str("{{- end }}\n");
    text
}
