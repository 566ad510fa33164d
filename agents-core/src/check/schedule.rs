//! Schedule.

use super::{Check, Faults};
use crate::{
    api::{Schedule, ScheduleSpec},
    cron::Cron,
    timezone,
};

impl Check for Schedule {
    fn check(spec: &ScheduleSpec, faults: &mut Faults) {
        let ScheduleSpec {
            cron,
            timezone,
            suspend: _,
            concurrency_policy: _,
            starting_deadline_seconds: _,
            successful_runs_history_limit: _,
            failed_runs_history_limit: _,
            engine: _,
            target_ref: _,
        } = spec;
        if let Err(error) = Cron::parse(cron) {
            faults.add("spec.cron", error.to_string());
        }
        zone("spec.timezone", timezone.as_deref(), faults);
    }
}

/// Notes a name that no time zone has.
pub(super) fn zone(at: &str, name: Option<&str>, faults: &mut Faults) {
    if let Some(Err(error)) = name.map(timezone::find) {
        faults.add(at, error.to_string());
    }
}
