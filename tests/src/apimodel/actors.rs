//! The control plane's own actors, stepped by time: each does what is due and says when it is due next.

use std::{collections::BTreeMap, time::Duration};

use super::{
    garbage,
    jobs::{Admission, JobController},
    judge::Judge,
    kubelet::Kubelet,
    outcome::Outcome,
    store::{Moment, Store},
    world::Settings,
};

/// The earliest of the times at which something is due.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Due(pub(super) Option<Duration>);

impl Due {
    /// Whether `at` has come; if not, it is remembered.
    pub(super) fn reached(&mut self, at: Duration, now: Moment) -> bool {
        if at <= now.boot {
            return true;
        }
        self.0 = Some(self.0.map_or(at, |had| had.min(at)));
        false
    }
}

#[derive(Debug, Default)]
pub(super) struct Actors {
    jobs: JobController,
    kubelet: Kubelet,
}

impl Actors {
    pub(super) fn step(
        &mut self,
        store: &mut Store,
        judge: &mut Judge,
        outcomes: &BTreeMap<String, Vec<Outcome>>,
        settings: &Settings,
        now: Moment,
    ) -> Option<Duration> {
        let mut due = Due::default();
        let admission = Admission { quota: settings.pod_quota, mirror: settings.mirror };
        self.jobs.step(store, admission, now, &mut due);
        self.kubelet.step(store, judge, outcomes, now, &mut due);
        if settings.garbage {
            garbage::collect(store, now);
        }
        due.0
    }
}
