//! The rights the controller needs, each with its reason. The chart's Role is generated from this list, and a test on a
//! real API server runs the controller with nothing else.

/// One rule of a Role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resources, subresources as `resource/subresource`.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Why the controller needs it.
    pub reason: &'static str,
}

/// Rights in every namespace whose runs the controller looks after.
pub const RUNS: &[Rule] = &[
    Rule {
        group: agents_core::api::GROUP,
        resources: &["agents", "agentproviders", "agentruns", "implementationspecs"],
        verbs: &["get", "list", "watch"],
        reason: "reads what users declare",
    },
    Rule {
        group: agents_core::api::GROUP,
        resources: &["agentruns/status"],
        verbs: &["update"],
        reason: "stores the status, and nothing of the spec",
    },
    Rule {
        group: agents_core::api::GROUP,
        resources: &["agentruns/finalizers"],
        verbs: &["update"],
        reason: "names a run as the owner of its Job where the API server enforces that permission",
    },
    Rule {
        group: "batch",
        resources: &["jobs"],
        verbs: &["create", "delete", "get", "list", "watch"],
        reason: "runs each attempt as a Job, follows it, ends it",
    },
    Rule {
        group: "",
        resources: &["pods"],
        verbs: &["delete", "get", "list", "watch"],
        reason: "reads why a pod waits and the runner's report; deletes by force what outlives its grace",
    },
    Rule {
        group: "",
        resources: &["configmaps"],
        verbs: &["create", "get"],
        reason: "carries a runner spec that is too large for an annotation",
    },
    Rule { group: "events.k8s.io", resources: &["events"], verbs: &["create"], reason: "tells people what happened" },
];

/// Rights in the controller's own namespace.
pub const LEASE: &[Rule] = &[Rule {
    group: "coordination.k8s.io",
    resources: &["leases"],
    verbs: &["create", "get", "update"],
    reason: "elects the replica that works",
}];
