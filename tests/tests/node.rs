//! Ring 4: the chart installed by Helm, the controller as a Deployment, runs in real pods, a real agent CLI.

#[path = "node/agents.rs"]
mod agents;
#[path = "node/conformance.rs"]
mod conformance;
#[path = "node/endings.rs"]
mod endings;
#[path = "node/install.rs"]
mod install;
#[path = "node/lifecycle.rs"]
mod lifecycle;

use std::process::ExitCode;

use agents_tests::ring::{self, Case};
use xtask::rings::Ring;

/// Those that take longest come first.
const CASES: &[Case] = &[
    ("the_job_adapter_conforms", conformance::the_job_adapter_conforms),
    ("runs_outlive_an_upgrade_and_an_uninstall", lifecycle::runs_outlive_an_upgrade_and_an_uninstall),
    ("helm_test_executes_a_run", lifecycle::helm_test_executes_a_run),
    ("a_run_in_a_restricted_namespace_is_readable_by_kubectl", endings::a_run_is_readable_by_kubectl),
    ("each_ending_has_its_own_reason", endings::each_ending_has_its_own_reason),
    ("a_cancelled_run_leaves_nothing_behind", endings::a_cancelled_run_leaves_nothing_behind),
    ("a_killed_controller_starts_nothing_twice", endings::a_killed_controller_starts_nothing_twice),
    ("a_spec_too_large_for_an_annotation_arrives", endings::a_large_spec_arrives),
    ("codex_commits_in_a_pod_and_its_usage_stands_in_status", agents::codex_commits_in_a_pod),
    ("the_quickstart_runs_in_a_pod", agents::the_quickstart_runs_in_a_pod),
];

fn main() -> ExitCode {
    // One at a time measures one thing at a time, and two cores run no more pods faster.
    ring::run(Ring::Node, 2, install::everything, CASES)
}
