//! Ring 3: the controller as a process against a real API server and the real Job controller; pods are played by hand.

#[path = "api/charts.rs"]
mod charts;
#[path = "api/controller.rs"]
mod controller;
#[path = "api/conversion.rs"]
mod conversion;
#[path = "api/costs.rs"]
mod costs;
#[path = "api/crons.rs"]
mod crons;
#[path = "api/declarations.rs"]
mod declarations;
#[path = "api/definitions.rs"]
mod definitions;
#[path = "api/election.rs"]
mod election;
#[path = "api/endings.rs"]
mod endings;
#[path = "api/fixtures.rs"]
mod fixtures;
#[path = "api/installing.rs"]
mod installing;
#[path = "api/kills.rs"]
mod kills;
#[path = "api/model.rs"]
mod model;
#[path = "api/path.rs"]
mod path;
#[path = "api/quantities.rs"]
mod quantities;
#[path = "api/sizes.rs"]
mod sizes;
#[path = "api/stage.rs"]
mod stage;
#[path = "api/unstored.rs"]
mod unstored;
#[path = "api/waiting.rs"]
mod waiting;
#[path = "api/wire.rs"]
mod wire;

use std::process::ExitCode;

use agents_tests::ring::{self, Case};
use xtask::rings::Ring;

/// Those that wait longest come first.
const CASES: &[Case] = &[
    ("a_job_blocked_by_a_quota_says_so", waiting::a_job_blocked_by_a_quota_says_so),
    ("an_idle_controller_starts_at_once", path::an_idle_controller_starts_at_once),
    ("the_death_of_the_api_server_is_survived", kills::the_death_of_the_api_server_is_survived),
    ("definitions_are_brought_up_to_date", installing::definitions_are_brought_up_to_date),
    ("every_variant_of_values_is_admitted", charts::every_variant_of_values_is_admitted),
    ("one_acts_and_the_other_takes_over", election::one_acts_and_the_other_takes_over),
    ("dear_templates_hold_nobody_up", costs::dear_templates_hold_nobody_up),
    ("a_foreign_job_is_a_conflict", waiting::a_foreign_job_is_a_conflict),
    ("a_forged_job_is_a_conflict_and_not_believed", waiting::a_forged_job_is_a_conflict_and_not_believed),
    ("a_forged_end_ends_the_job", endings::a_forged_end_ends_the_job),
    ("the_model_answers_as_the_server_does", model::the_model_answers_as_the_server_does),
    ("kills_at_any_moment_start_nothing_twice", kills::kills_at_any_moment_start_nothing_twice),
    ("a_kill_at_each_stage_changes_nothing", kills::a_kill_at_each_stage_changes_nothing),
    ("two_controllers_without_a_lease_are_one", kills::two_controllers_without_a_lease_are_one),
    ("random_objects_are_kept_whole", fixtures::random_objects_are_kept_whole),
    ("large_runs_fit_the_memory_limit_of_the_chart", sizes::large_runs_fit_the_memory_limit_of_the_chart),
    ("a_run_costs_three_writes_and_no_read", path::a_run_costs_three_writes_and_no_read),
    ("the_generated_rights_suffice", path::the_generated_rights_suffice),
    ("what_is_missing_is_named_and_awaited", waiting::what_is_missing_is_named_and_awaited),
    ("an_undefined_name_is_an_invalid_spec", waiting::an_undefined_name_is_an_invalid_spec),
    ("a_status_that_is_refused_is_told", unstored::a_status_that_is_refused_is_told_and_its_job_kept),
    ("a_run_without_room_is_invalid", unstored::a_run_without_room_for_its_status_is_an_invalid_spec),
    ("only_listed_accounts_run_and_every_pod_is_bounded", waiting::only_listed_accounts_run_and_every_pod_is_bounded),
    ("the_longest_names_work", sizes::the_longest_names_work),
    ("a_large_spec_travels_in_a_config_map", sizes::a_large_spec_travels_in_a_config_map),
    ("a_cancelled_run_ends_its_pod", endings::a_cancelled_run_ends_its_pod),
    ("a_deleted_run_takes_everything_along", endings::a_deleted_run_takes_everything_along),
    ("each_end_has_its_reason", endings::each_end_has_its_reason),
    ("an_image_that_cannot_be_pulled_is_shown", endings::an_image_that_cannot_be_pulled_is_shown),
    ("a_deadline_is_kept_from_outside", endings::a_deadline_is_kept_from_outside),
    ("a_job_deleted_behind_us_is_lost", endings::a_job_deleted_behind_us_is_lost),
    ("retries_wait_and_end", endings::retries_wait_and_end),
    ("a_delivery_is_judged_once", declarations::a_delivery_is_judged_once),
    ("a_declaration_says_what_is_wrong_with_it", declarations::a_declaration_says_what_is_wrong_with_it),
    ("waiting_ends_as_the_run_did", installing::waiting_ends_as_the_run_did),
    ("people_get_the_kinds_by_their_roles", charts::people_get_the_kinds_by_their_roles),
    ("the_account_of_runs_may_ask_for_nothing", charts::the_account_of_runs_may_ask_for_nothing),
    ("runs_reach_names_and_what_values_allow", charts::runs_reach_names_and_what_values_allow),
    ("meaningless_values_are_refused", charts::meaningless_values_are_refused),
    ("alerts_and_dashboard_name_metrics_that_exist", charts::alerts_and_dashboard_name_metrics_that_exist),
    ("two_versions_are_one_object", conversion::two_versions_are_one_object),
    ("lint_judges_as_the_server_does", fixtures::lint_judges_as_the_server_does),
    ("valid_manifests_are_kept_whole", fixtures::valid_manifests_are_kept_whole),
    ("invalid_manifests_are_refused_by_name", fixtures::invalid_manifests_are_refused_by_name),
    ("every_kind_is_served_and_explained", fixtures::every_kind_is_served_and_explained),
    ("kubectl_knows_the_kinds", definitions::kubectl_knows_the_kinds),
    ("examples_are_admitted", definitions::examples_are_admitted),
    ("a_judged_run_is_immutable", definitions::a_judged_run_is_immutable),
    ("bad_input_is_refused_by_name", definitions::bad_input_is_refused_by_name),
    ("expressions_are_those_of_a_cron_job", crons::expressions_are_those_of_a_cron_job),
    ("time_zones_are_those_of_a_cron_job", crons::time_zones_are_those_of_a_cron_job),
    ("quantities_are_those_of_the_api_server", quantities::quantities_are_those_of_the_api_server),
];

fn main() -> ExitCode {
    ring::run(Ring::Api, 4, stage::prepare, CASES)
}
