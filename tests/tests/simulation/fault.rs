//! The API server refuses, throttles, loses answers, says nothing; watches break, lag and lie.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use agents_tests::apimodel::{CrashAt, Fault, Rule, Verb, WatchFault, WatchRule, When, Words, World};

use super::{
    play::{keep_running, named, play, play_clean, simulate},
    two::ends,
    workload::{ALL, HAPPY, SECOND, Workload, named as workload_named},
};

/// What disturbs the statuses of declarations: a fault at the n-th of their writes, or several controllers.
pub struct Disturbance {
    fault: Option<(usize, Fault)>,
    pub controllers: &'static [&'static str],
    pub lease: bool,
}

impl Disturbance {
    /// One controller that nothing disturbs.
    pub fn none() -> Self {
        Self { fault: None, controllers: &["a"], lease: false }
    }

    /// Every fault and crash at each of the first `writes`, two and three controllers, and two with a lease.
    pub fn all(writes: usize) -> Vec<Self> {
        let crashes = [CrashAt::Before, CrashAt::Inside, CrashAt::After].map(Fault::Crash);
        let faults: Vec<_> = write_faults().into_iter().chain(crashes).collect();
        let at = |write| faults.iter().map(move |fault| Some((write, fault.clone())));
        let faulty = (1..=writes).flat_map(at).map(|fault| (fault, &["a"][..], false));
        let several = [(None, &["a", "b"][..], false), (None, &["a", "b", "c"], false), (None, &["a", "b"], true)];
        let all = faulty.chain(several);
        all.map(|(fault, controllers, lease)| Self { fault, controllers, lease }).collect()
    }

    /// Lets it happen in `world`.
    pub fn begin(&self, world: &World) {
        if let Some((write, fault)) = &self.fault {
            world.faults(|faults| faults.rule(Rule::new(When::verdicts(), fault.clone()).nth(*write)));
        }
    }

    /// What is wrong with an end beside the one that was wanted.
    pub fn found<T: PartialEq + Debug>(&self, world: &World, end: &T, wanted: &T) -> Vec<String> {
        let mut found = Vec::new();
        if end != wanted {
            found.push(format!("another end: {end:#?}"));
        }
        if self.fault.is_some() && world.faults(|faults| faults.struck()) != 1 {
            found.push("the fault did not strike".to_owned());
        }
        found
    }

    /// The same under its name.
    pub fn named(&self, found: &[String]) -> Vec<String> {
        named(|| format!("{:?} {:?}", self.fault, self.controllers), found).into_iter().collect()
    }
}

/// Everything that can become of a write.
pub fn write_faults() -> Vec<Fault> {
    let seconds = Duration::from_secs;
    vec![
        Fault::Reject(409),
        Fault::Reject(500),
        Fault::Reject(503),
        Fault::Reject(504),
        // In another's words none of these says that anything is wrong with what was sent.
        Fault::Refuse(400, Words::Html),
        Fault::Refuse(400, Words::OfAnother),
        Fault::Refuse(403, Words::Html),
        Fault::Refuse(403, Words::OfAnother),
        Fault::Refuse(413, Words::Nothing),
        Fault::Refuse(413, Words::OfAnother),
        Fault::Refuse(422, Words::Cut),
        Fault::Refuse(422, Words::OfAnother),
        Fault::Refuse(404, Words::Html),
        Fault::Throttle(None),
        Fault::Throttle(Some("7".to_owned())),
        Fault::Throttle(Some("soon".to_owned())),
        Fault::CommitThenReject(500),
        Fault::CommitThenReject(503),
        Fault::CommitThenReject(504),
        Fault::DropBeforeCommit,
        Fault::CommitThenDrop,
        Fault::CommitLate(seconds(3)),
        Fault::CommitLate(seconds(20)),
        Fault::Delay(seconds(4)),
        Fault::DelayResponse(seconds(15)),
        Fault::Blackhole,
        Fault::CommitThenBlackhole,
        Fault::TruncatedBody,
    ]
}

/// Number of writes of an undisturbed workload, Events apart.
async fn count(workload: &Workload) -> usize {
    play_clean(workload).await.log.from("a").writes().len()
}

/// Whether the Job of its first attempt is deleted while others may still be about to create it.
pub fn frees_name(workload: &Workload) -> bool {
    ["cancelled", "cancelled without heeding it", "the job vanishes"].contains(&workload.name)
}

#[test]
fn whatever_becomes_of_a_write_the_result_is_the_same() {
    let ends = ends(ALL);
    let counts = std::sync::Mutex::new(Vec::new());
    simulate(ALL.iter().collect(), async |workload| {
        let writes = count(workload).await;
        counts.lock().expect("no panic").push((workload, writes));
        vec![]
    });
    let mut counts = counts.into_inner().expect("no panic");
    counts.sort_by_key(|(workload, _)| workload.name);
    let faults = write_faults();
    let mut cases = Vec::new();
    for (at, (workload, writes)) in counts.into_iter().enumerate() {
        let every = ["happy", "failed and tried again", "cancelled"].contains(&workload.name);
        for write in 1..=writes {
            for (n, fault) in faults.iter().enumerate() {
                let late = write == 1 && frees_name(workload) && matches!(fault, Fault::CommitLate(_));
                // The others take every sixth fault, each write a different sixth; of the refusals every third is enough,
                // which differ in nothing but their code.
                let share = match fault {
                    _ if !every => 6,
                    Fault::Refuse(..) => 3,
                    _ => 1,
                };
                if late || (n + write + at) % share == 0 {
                    cases.push((workload, write, fault.clone()));
                }
            }
        }
    }
    simulate(cases, async |(workload, write, fault)| {
        let played = play(workload, 1, |world| {
            world.faults(|faults| faults.rule(Rule::new(When::effects(), fault.clone()).nth(write)));
            keep_running(world, "a", false)
        })
        .await;
        let late = write == 1 && frees_name(workload) && matches!(fault, Fault::CommitLate(_));
        let end = &ends[workload.name];
        let mut found = if late { played.faults_but_a_freed_name(end) } else { played.faults_beside(end) };
        if played.world.faults(|faults| faults.struck()) != 1 {
            found.push("the fault did not strike".to_owned());
        }
        named(|| format!("{}, write {write}, {fault:?}", workload.name), &found).into_iter().collect()
    });
}

/// What the API server itself says about the very object ends a submission for good, and no store of a status.
#[test]
fn only_a_refusal_of_the_object_itself_ends_a_run() {
    let ends = ends(&[HAPPY]);
    let cases: Vec<_> = [400, 413, 422].into_iter().flat_map(|code| [1, 2, 3].map(|write| (code, write))).collect();
    simulate(cases, async |(code, write)| {
        let played = play(&HAPPY, 1, |world| {
            let fault = Fault::Refuse(code, Words::OfTheObject);
            world.faults(|faults| faults.rule(Rule::new(When::effects(), fault).nth(write)));
            keep_running(world, "a", false)
        })
        .await;
        let submits = write == 1;
        let mut found = if submits { played.faults() } else { played.faults_beside(&ends[HAPPY.name]) };
        if submits && (played.end.phase(), played.end.reason()) != ("Failed", "SubmitRejected") {
            found.push(format!("another end: {:?}", played.end.outline()));
        }
        named(|| format!("{code} to write {write}"), &found).into_iter().collect()
    });
}

const WATCHED: [&str; 6] = ["agentruns", "jobs", "pods", "agents", "agentproviders", "implementationspecs"];

#[test]
fn whatever_a_watch_does_the_result_is_the_same() {
    let workloads = ["happy", "failed and tried again", "references come later", "cancelled"];
    let workloads: Vec<Workload> = workloads.iter().map(|name| *workload_named(name)).collect();
    let ends = ends(&workloads);
    let faults = [
        WatchFault::Drop,
        WatchFault::Duplicate,
        WatchFault::SwapWithNext,
        WatchFault::Delay(60 * SECOND),
        WatchFault::Delay(200 * SECOND),
        WatchFault::Disconnect,
        WatchFault::End,
        WatchFault::Gone,
        WatchFault::Garbage,
    ];
    let mut cases = Vec::new();
    for workload in &workloads {
        for resource in WATCHED {
            let events = if matches!(resource, "agentruns" | "jobs" | "pods") { 6 } else { 1 };
            for nth in 1..=events {
                for (n, fault) in faults.into_iter().enumerate() {
                    if workload.name == "happy" || fault == WatchFault::Drop || (n + nth) % 3 == 0 {
                        cases.push((workload, WatchRule { resource, nth, times: 1, fault }));
                    }
                }
            }
        }
    }
    simulate(cases, async |(workload, rule)| {
        let played = play(workload, 1, |world| {
            world.faults(|faults| faults.watch_rule(rule.clone()));
            keep_running(world, "a", false)
        })
        .await;
        let end = &ends[workload.name];
        // A start that nobody was told of is no part of the record.
        let dropped = rule.fault == WatchFault::Drop;
        let found = if dropped { played.faults_in_outline(end) } else { played.faults_beside(end) };
        named(|| format!("{}, {rule:?}", workload.name), &found).into_iter().collect()
    });
}

#[test]
fn a_refused_watch_and_a_compacted_history_are_listed_again() {
    let ends = ends(ALL);
    let mut cases: Vec<(&Workload, Option<&'static str>)> = ALL.iter().map(|workload| (workload, None)).collect();
    for resource in WATCHED {
        for name in ["happy", "references come later"] {
            cases.push((workload_named(name), Some(resource)));
        }
    }
    simulate(cases, async |(workload, refused)| {
        let played = play(workload, 1, |world| {
            match refused {
                Some(resource) => world.faults(|faults| {
                    let rule = Rule::new(When::any().verb(Verb::Watch).on(resource), Fault::Reject(410));
                    faults.rule(rule.times(2));
                }),
                // Every watch breaks at its second event, and what it would go on from is gone.
                None => world.faults(|faults| {
                    for resource in WATCHED {
                        let fault = WatchFault::Disconnect;
                        faults.watch_rule(WatchRule { resource, nth: 2, times: 1, fault });
                    }
                }),
            }
            let compacting = refused.is_none().then(|| {
                let world = std::sync::Arc::clone(world);
                tokio::spawn(async move {
                    loop {
                        tokio::time::sleep(SECOND).await;
                        world.compact();
                    }
                })
            });
            (keep_running(world, "a", false), compacting.map(Aborted))
        })
        .await;
        let found = played.faults_beside(&ends[workload.name]);
        named(|| format!("{}, {refused:?}", workload.name), &found).into_iter().collect()
    });
}

/// Ends its task when dropped.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[test]
fn caches_that_lag_behind_change_nothing() {
    let ends = ends(ALL);
    let lags = [60, 200].map(Duration::from_secs);
    let resources: [&[&'static str]; 4] = [&["agentruns"], &["jobs"], &["pods"], &WATCHED];
    let mut cases = Vec::new();
    for (at, workload) in ALL.iter().enumerate() {
        for (n, resources) in resources.into_iter().enumerate() {
            for (m, lag) in lags.into_iter().enumerate() {
                if workload.name == "happy" || (at + n + m) % 2 == 0 {
                    cases.push((workload, resources, lag));
                }
            }
        }
    }
    simulate(cases, async |(workload, resources, lag)| {
        let played = play(workload, 1, |world| {
            world.faults(|faults| {
                for resource in resources {
                    faults.lag(resource, lag);
                }
            });
            keep_running(world, "a", false)
        })
        .await;
        let found = played.faults_in_outline(&ends[workload.name]);
        named(|| format!("{}, {resources:?} {lag:?} behind", workload.name), &found).into_iter().collect()
    });
}

/// Everything at once, drawn from the seed, under one controller and under two.
#[test]
fn storms_change_nothing() {
    let ends = ends(ALL);
    let cases: Vec<_> = (0..4).flat_map(|round| ALL.iter().map(move |workload| (workload, round))).collect();
    let struck = AtomicUsize::new(0);
    simulate(cases, async |(workload, round)| {
        let played = play(workload, 1, |world| {
            world.configure(|settings| settings.latency = Duration::from_millis(5 + 40 * round));
            world.faults(|faults| {
                for fault in write_faults() {
                    faults.rule(Rule::new(When::any(), fault).nth(1 + usize::try_from(round).unwrap_or(0)).chance(12));
                }
            });
            let names: &[&'static str] = if round % 2 == 0 { &["a"] } else { &["a", "b"] };
            names.iter().map(|name| keep_running(world, name, false)).collect::<Vec<_>>()
        })
        .await;
        let found = played.faults_beside(&ends[workload.name]);
        struck.fetch_add(played.world.faults(|faults| faults.struck()), Ordering::Relaxed);
        named(|| format!("{}, round {round}", workload.name), &found).into_iter().collect()
    });
    let struck = struck.into_inner();
    assert!(struck > 100, "only {struck} faults struck");
}
