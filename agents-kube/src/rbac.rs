//! The rights the controller needs, each with its reason. The chart's Role is generated from this list, and a test on a
//! real API server runs the controller with nothing else.

use std::{collections::BTreeMap, sync::LazyLock};

use agents_core::{
    api::{AgentRun, Kind},
    check::Check,
    kinds::{self, Visitor},
};

/// One rule of a Role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resources, subresources as `resource/subresource`.
    pub resources: Vec<String>,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Why the controller needs it.
    pub reason: &'static str,
}

/// Rights in every namespace whose runs the controller looks after.
pub static RUNS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let mut rules = declarations();
    rules.extend([
        rule(
            AgentRun::GROUP,
            "agentruns/finalizers",
            &["update"],
            "names a run as the owner of its Job where the API server enforces that permission",
        ),
        rule(
            "batch",
            "jobs",
            &["create", "delete", "get", "list", "patch", "watch"],
            "runs each attempt as a Job, follows it, ends it, keeps it while the status of its run cannot be stored",
        ),
        rule(
            "",
            "pods",
            &["delete", "get", "list", "watch"],
            "reads why a pod waits and the runner's report; deletes by force what outlives its grace",
        ),
        rule("", "configmaps", &["create", "get"], "carries a runner spec that is too large for an annotation"),
        rule("", "events", &["list"], "reads why a Job could not create its pod, which is told nowhere else"),
        rule("events.k8s.io", "events", &["create"], "tells people what happened"),
        rule("", "namespaces", &["get"], "tells a namespace that does not exist from an empty one"),
    ]);
    rules
});

/// Rights in the controller's own namespace.
pub static LEASE: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let verbs = &["create", "get", "update"];
    vec![rule("coordination.k8s.io", "leases", verbs, "elects the replica that works")]
});

/// Rights in every namespace whose runs the controller looks after, on the lease that an earlier version held there and no
/// other. Without them nothing is taken over from it.
pub static FORMER_LEASE: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    vec![rule(
        "coordination.k8s.io",
        "leases",
        &["get"],
        "takes over the times of the lease that an earlier version held",
    )]
});

fn rule(group: &'static str, resource: &str, verbs: &'static [&'static str], reason: &'static str) -> Rule {
    Rule { group, resources: vec![resource.to_owned()], verbs, reason }
}

/// What is done with every kind, group by group.
fn declarations() -> Vec<Rule> {
    struct Plurals(BTreeMap<&'static str, Vec<&'static str>>);
    impl Visitor for Plurals {
        fn visit<K: Kind + Check>(&mut self) {
            self.0.entry(K::GROUP).or_default().push(K::PLURAL);
        }
    }
    let mut plurals = Plurals(BTreeMap::new());
    kinds::visit(&mut plurals);
    let of_group = |(group, mut plurals): (&'static str, Vec<&'static str>)| {
        plurals.sort_unstable();
        let statuses = plurals.iter().map(|plural| format!("{plural}/status")).collect();
        let objects = plurals.into_iter().map(str::to_owned).collect();
        [
            Rule { group, resources: objects, verbs: &["get", "list", "watch"], reason: "reads what users declare" },
            Rule {
                group,
                resources: statuses,
                verbs: &["update"],
                reason: "stores the status, and nothing of the spec",
            },
        ]
    };
    plurals.0.into_iter().flat_map(of_group).collect()
}
