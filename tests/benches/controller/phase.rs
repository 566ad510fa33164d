//! One load and what the audit log says of it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use agents_core::name::{ChildName, SubmissionKey};
use agents_tests::audit::Asked;
use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use crate::{
    Figure, Gate, Target, Unit,
    load::{Made, Shape},
};

pub(crate) struct Phase {
    /// By name of the Job.
    moments: BTreeMap<String, Moments>,
    /// Of the controller.
    cpu: Duration,
    asked: Vec<Asked>,
    /// The controller's name in the audit log.
    ours: String,
}

/// Requests beside the work: Events and the lease.
pub(crate) fn is_bookkeeping(asked: &Asked) -> bool {
    matches!(asked.resource.as_str(), "events" | "leases")
}

/// A proof of the cache's age: at most one in 30 s while a run is undecided, however many there are.
fn is_proof(asked: &Asked) -> bool {
    asked.what() == "list agentruns"
}

/// A start that takes longer is told in status, which is one write more.
const QUIET_START: f64 = 9_000.0;
/// Time between two proofs, in seconds.
const PROOF_EVERY: f64 = 30.0;

/// The moments of one run.
#[derive(Debug, Default)]
struct Moments {
    created: Option<Timestamp>,
    submitted: Option<Timestamp>,
    /// The pod's container runs.
    started: Option<Timestamp>,
    told_running: Option<Timestamp>,
    /// The pod's container has ended.
    ended: Option<Timestamp>,
    told_end: Option<Timestamp>,
    done: Option<Timestamp>,
    writes: u32,
}

impl Moments {
    fn is_slow(&self) -> bool {
        match (self.submitted, self.started) {
            (Some(submitted), Some(started)) => milliseconds(submitted, started) > QUIET_START,
            _ => false,
        }
    }
}

impl Phase {
    pub(crate) fn of(made: &[Made], cpu: Duration, asked: Vec<Asked>, ours: &str) -> Result<Self> {
        let moments = moments(made, &asked, ours)?;
        Ok(Self { moments, cpu, asked, ours: ours.to_owned() })
    }

    pub(crate) fn figures(&self, shape: Shape) -> Result<Vec<Figure>> {
        let count = whole(self.moments.len());
        let took = self.took()?;
        let (middle, high) = match shape {
            Shape::OneByOne | Shape::Rate(_) => (Some(4.0), Some(20.0)),
            Shape::AtOnce => (None, None),
        };
        let mut figures = self.counts()?;
        figures.extend(self.submitted()?.figures(SUBMIT, middle, high));
        figures.extend(self.started()?.figures(START, None, None));
        figures.extend(self.ended()?.figures(END, None, None));
        figures.push(
            Figure::new("cpu", "CPU of the controller", self.cpu_of_a_run(), Unit::MillisecondsPerRun)
                .target(Target::AtMost(1.0), Gate::No),
        );
        figures.push(Figure::new("span", "first creation to last end", took, Unit::Seconds));
        if shape == Shape::AtOnce {
            figures.push(Figure::new("rate", "runs ended", count / took, Unit::PerSecond));
        }
        Ok(figures)
    }

    /// CPU of the controller for one run, in milliseconds.
    pub(crate) fn cpu_of_a_run(&self) -> f64 {
        self.cpu.as_secs_f64() * 1000.0 / whole(self.moments.len())
    }

    /// The same of runs that are not alone under the controller: what they wait, not what it costs.
    pub(crate) fn figures_beside_others(&self) -> Result<Vec<Figure>> {
        let mut figures = self.counts()?;
        figures.extend(self.submitted()?.figures(SUBMIT, None, None));
        figures.extend(self.started()?.figures(START, None, None));
        figures.extend(self.ended()?.figures(END, None, None));
        let cpu = self.cpu.as_secs_f64() * 1000.0 / self.took()?;
        figures.push(Figure::new("cpu", "CPU of the controller, for all of them", cpu, Unit::MillisecondsPerSecond));
        Ok(figures)
    }

    /// What gates.
    fn counts(&self) -> Result<Vec<Figure>> {
        let count = whole(self.moments.len());
        let ours = || self.asked.iter().filter(|asked| asked.who == self.ours);
        let work = || ours().filter(|asked| !is_bookkeeping(asked) && !is_proof(asked));
        let per_run = |requests: usize| whole(requests) / count;
        let writes = work().filter(|asked| asked.is_write()).count();
        let reads = work().filter(|asked| !asked.is_write()).count();
        let refused = work().filter(|asked| asked.code >= 400).count();
        let proofs = ours().filter(|asked| is_proof(asked)).count();
        let slow = self.moments.values().filter(|run| run.is_slow()).count();
        let wrong = self.moments.values().filter(|run| !run.is_slow() && run.writes != 3).count();
        Ok(vec![
            Figure::new("writes", "writes", per_run(writes), Unit::PerRun)
                .target(Target::Between(3.0, 3.0 + per_run(slow)), Gate::Yes),
            Figure::new("reads", "reads", per_run(reads), Unit::PerRun).target(Target::Exactly(0.0), Gate::Yes),
            Figure::new("notThree", "runs with another number of writes than 3", whole(wrong), Unit::Count)
                .target(Target::Exactly(0.0), Gate::Yes),
            Figure::new("slow", "runs that were slow to start: 4 writes", whole(slow), Unit::Count),
            Figure::new("refused", "requests refused", whole(refused), Unit::Count)
                .target(Target::Exactly(0.0), Gate::Yes),
            Figure::new("proofs", "reads that prove the cache's age, in all", whole(proofs), Unit::Count)
                .target(Target::AtMost((self.took()? / PROOF_EVERY).floor() + 1.0), Gate::Yes),
            Figure::new("events", "Events", per_run(self.of_kind("events")), Unit::PerRun),
            Figure::new("leases", "requests for the lease, in all", whole(self.of_kind("leases")), Unit::Count),
        ])
    }

    /// From the first creation to the last end, in seconds.
    fn took(&self) -> Result<f64> {
        let first = self.moments.values().filter_map(|run| run.created).min();
        let last = self.moments.values().filter_map(|run| run.done).max();
        Ok(milliseconds(first.context("no run was made")?, last.context("no run has ended")?) / 1000.0)
    }

    /// From the answer to a run's creation to the receipt of its Job.
    pub(crate) fn submitted(&self) -> Result<Spread> {
        self.spread(|run| (run.created, run.submitted))
    }

    /// From the answer to the start of a run's pod to the receipt of the status that says so.
    pub(crate) fn started(&self) -> Result<Spread> {
        self.spread(|run| (run.started, run.told_running))
    }

    /// The same of its end.
    pub(crate) fn ended(&self) -> Result<Spread> {
        self.spread(|run| (run.ended, run.told_end))
    }

    fn spread(&self, of: fn(&Moments) -> (Option<Timestamp>, Option<Timestamp>)) -> Result<Spread> {
        Spread::of(self.moments.values().map(|run| match of(run) {
            (Some(from), Some(to)) => Some(milliseconds(from, to)),
            _ => None,
        }))
    }

    /// Requests of the controller for one kind of bookkeeping.
    fn of_kind(&self, resource: &str) -> usize {
        self.asked.iter().filter(|asked| asked.who == self.ours && asked.resource == resource).count()
    }
}

/// By name of the Job.
fn moments(made: &[Made], asked: &[Asked], ours: &str) -> Result<BTreeMap<String, Moments>> {
    let jobs: HashMap<&str, String> = made
        .iter()
        .map(|Made { name, uid }| (name.as_str(), ChildName::of(name, &SubmissionKey::of_attempt(uid, 1)).to_string()))
        .collect();
    let mut moments: BTreeMap<String, Moments> = jobs.values().map(|job| (job.clone(), Moments::default())).collect();
    // They are logged by their ends, and a watch can tell of a change before the answer to it is logged.
    let mut asked: Vec<_> = asked.iter().collect();
    asked.sort_by_key(|asked| asked.received);
    for asked in asked {
        let job = match asked.resource.as_str() {
            "agentruns" | "agentruns/status" => jobs.get(asked.name.as_str()).map(String::as_str),
            "jobs" => Some(asked.name.as_str()),
            // The Job controller adds five characters.
            "pods" | "pods/status" => asked.name.rsplit_once('-').map(|(job, _)| job),
            _ => None,
        };
        let Some(run) = job.and_then(|job| moments.get_mut(job)) else { continue };
        let ours = asked.who == ours;
        run.writes += u32::from(ours && asked.is_write());
        match (asked.verb.as_str(), asked.resource.as_str(), ours) {
            ("create", "agentruns", false) => run.created = Some(asked.answered),
            ("create", "jobs", true) => run.submitted = run.submitted.or(Some(asked.received)),
            // The kubelet by hand patches a pod twice; the Job controller patches no status.
            ("patch", "pods/status", false) if run.started.is_none() => run.started = Some(asked.answered),
            ("patch", "pods/status", false) => run.ended = Some(asked.answered),
            ("update", "agentruns/status", true) => {
                if run.started.is_some() {
                    run.told_running = run.told_running.or(Some(asked.received));
                }
                (run.told_end, run.done) = (Some(asked.received), Some(asked.answered));
            }
            _ => {}
        }
    }
    for (job, run) in &moments {
        ensure!(run.submitted.is_some() && run.done.is_some(), "the audit log lacks moments of {job}: {run:?}");
    }
    Ok(moments)
}

type Words = [(&'static str, &'static str); 4];

const SUBMIT: Words = [
    ("submitP50", "run stored to Job received, p50"),
    ("submitP90", "run stored to Job received, p90"),
    ("submitP99", "run stored to Job received, p99"),
    ("submitMax", "run stored to Job received, most"),
];
const START: Words = [
    ("startP50", "pod's start stored to status received, p50"),
    ("startP90", "pod's start stored to status received, p90"),
    ("startP99", "pod's start stored to status received, p99"),
    ("startMax", "pod's start stored to status received, most"),
];
const END: Words = [
    ("endP50", "pod's end stored to status received, p50"),
    ("endP90", "pod's end stored to status received, p90"),
    ("endP99", "pod's end stored to status received, p99"),
    ("endMax", "pod's end stored to status received, most"),
];

/// Sorted milliseconds.
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    fn of(spans: impl Iterator<Item = Option<f64>>) -> Result<Self> {
        let mut spans = spans.collect::<Option<Vec<_>>>().context("a run lacks a moment in the audit log")?;
        spans.sort_by(f64::total_cmp);
        Ok(Self(spans))
    }

    /// The smallest value that so many of a hundred do not exceed.
    pub(crate) fn at(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    fn figures(&self, words: Words, middle: Option<f64>, high: Option<f64>) -> Vec<Figure> {
        let targets = [middle, None, high, None];
        words
            .into_iter()
            .zip([50, 90, 99, 100])
            .zip(targets)
            .map(|(((key, what), percent), target)| {
                let figure = Figure::new(key, what, self.at(percent), Unit::Milliseconds);
                match target {
                    Some(most) => figure.target(Target::AtMost(most), Gate::No),
                    None => figure,
                }
            })
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
pub(crate) fn whole(count: usize) -> f64 {
    count as f64
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
