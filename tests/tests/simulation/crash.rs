//! The controller dies before, inside and after every write of every workload, Events included.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use agents_core::decide::EffectKind;
use agents_tests::apimodel::{CrashAt, CrashPoint, Fault, Log, Record, Rule, Verb, When};
use serde_json::Value;

use super::{
    play::{End, keep_running, named, play, play_clean, simulate},
    workload::{ALL, HAPPY, RETRY, Workload},
};

const POSITIONS: [CrashAt; 3] = [CrashAt::Before, CrashAt::Inside, CrashAt::After];

/// What a write of the controller is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Effect(EffectKind),
    Status,
}

/// Which effect's write this is. A new effect fails to compile here until its writes are known.
fn performs(kind: EffectKind, record: &Record) -> bool {
    match kind {
        EffectKind::Submit => record.verb == Verb::Create && matches!(record.resource, "jobs" | "configmaps"),
        EffectKind::Cancel => record.verb == Verb::Delete && matches!(record.resource, "jobs" | "pods"),
        EffectKind::Keep => record.verb == Verb::Patch && ttl(record).is_some_and(Value::is_null),
        EffectKind::LetGo => record.verb == Verb::Patch && ttl(record).is_some_and(Value::is_number),
        EffectKind::Emit => record.verb == Verb::Create && record.resource == "events",
    }
}

fn ttl(record: &Record) -> Option<&Value> {
    record.patch.pointer("/spec/ttlSecondsAfterFinished").filter(|_| record.resource == "jobs")
}

fn part(record: &Record) -> Part {
    let effect = EffectKind::ALL.into_iter().find(|kind| performs(*kind, record));
    match effect {
        Some(kind) => Part::Effect(kind),
        None if record.resource == "agentruns" && record.status => Part::Status,
        None => panic!("a write of no known effect: {record:?}"),
    }
}

/// Every write but those of leases and of the status of declarations.
fn writes(log: &Log) -> Vec<Record> {
    let of_controller = |record: &&Record| {
        record.client == "a" && record.verb.mutates() && record.resource != "leases" && !record.verdict
    };
    log.0.iter().filter(of_controller).cloned().collect()
}

fn crashes(log: &Log) -> impl Iterator<Item = (&Record, CrashAt)> {
    log.0.iter().filter_map(|record| match record.fault {
        Some(Fault::Crash(at)) => Some((record, at)),
        _ => None,
    })
}

async fn crash_at(workload: &Workload, rules: Vec<Rule>, lease: bool) -> super::play::Played {
    play(workload, 1, |world| {
        world.faults(|faults| rules.into_iter().for_each(|rule| faults.rule(rule)));
        keep_running(world, "a", lease)
    })
    .await
}

/// The end of each undisturbed workload and how many writes it takes.
fn clean_ends(workloads: &[Workload]) -> BTreeMap<&'static str, (End, usize)> {
    let ends = Mutex::new(BTreeMap::new());
    simulate(workloads.to_vec(), async |workload| {
        let played = play_clean(&workload).await;
        let count = writes(&played.log).len();
        assert!(count > 0, "{}: nothing to crash around", workload.name);
        ends.lock().expect("no panic").insert(workload.name, (played.end, count));
        vec![]
    });
    ends.into_inner().expect("no panic")
}

#[test]
fn a_crash_around_any_write_of_any_workload_changes_nothing() {
    let ends = clean_ends(ALL);
    let points = |workload: &Workload| CrashPoint::all(ends[workload.name].1).collect::<Vec<_>>();
    let cases: Vec<_> =
        ALL.iter().flat_map(|workload| points(workload).into_iter().map(move |point| (workload, point))).collect();
    let covered = Mutex::new(BTreeSet::new());
    simulate(cases, async |(workload, point)| {
        let played = crash_at(workload, vec![point.rule_among(When::writes())], false).await;
        let mut faults = played.faults_beside(&ends[workload.name].0);
        let crashed: Vec<_> = crashes(&played.log).map(|(record, at)| (part(record), at)).collect();
        if crashed.len() != 1 {
            faults.push(format!("crashed {} times", crashed.len()));
        }
        covered.lock().expect("no panic").extend(crashed);
        named(|| format!("{}, {point:?}", workload.name), &faults).into_iter().collect()
    });
    let covered = covered.into_inner().expect("no panic");
    let parts = EffectKind::ALL.map(Part::Effect).into_iter().chain([Part::Status]);
    for part in parts {
        for at in POSITIONS {
            assert!(covered.contains(&(part, at)), "no crash {at:?} of {part:?} was tried");
        }
    }
}

#[test]
fn a_crash_under_a_lease_changes_nothing_either() {
    let ends = clean_ends(ALL);
    let mut cases = Vec::new();
    for (at, workload) in ALL.iter().enumerate() {
        let whole = [HAPPY.name, RETRY.name].contains(&workload.name);
        for (n, point) in CrashPoint::all(ends[workload.name].1).enumerate() {
            // Of the others every fourth, so that each write and each position is met in some of them.
            if whole || (n + at) % 4 == 0 {
                cases.push((workload, point));
            }
        }
    }
    simulate(cases, async |(workload, point)| {
        let played = crash_at(workload, vec![point.rule_among(When::writes())], true).await;
        let faults = played.faults_beside(&ends[workload.name].0);
        named(|| format!("{}, {point:?}", workload.name), &faults).into_iter().collect()
    });
}

/// Events apart, whose loss needs no recovery.
#[test]
fn two_crashes_change_nothing() {
    let workloads = [HAPPY, RETRY];
    let ends = clean_ends(&workloads);
    let mut cases = Vec::new();
    for (workload, count) in [(HAPPY, 3), (RETRY, 6)] {
        // Rules count every write, those of the first life included; the second crash strikes a write that follows.
        for first in CrashPoint::all(count) {
            for later in 1..=count + 1 - first.write {
                for at in POSITIONS {
                    cases.push((workload, [first, CrashPoint { write: first.write + later, at }]));
                }
            }
        }
    }
    simulate(cases, async |(workload, points)| {
        let played = crash_at(&workload, points.iter().map(|point| point.rule()).collect(), false).await;
        let faults = played.faults_beside(&ends[workload.name].0);
        named(|| format!("{}, {points:?}", workload.name), &faults).into_iter().collect()
    });
}

/// Progress is made by what is stored alone: no life gets further than one write.
#[test]
fn a_controller_that_dies_after_each_write_still_finishes() {
    let ends = clean_ends(ALL);
    simulate(ALL.to_vec(), async |workload| {
        let played = play(&workload, 1, |world| {
            let rule = Rule::new(When::writes(), Fault::Crash(CrashAt::After)).times(20);
            world.faults(|faults| faults.rule(rule));
            keep_running(world, "a", false)
        })
        .await;
        let faults = played.faults_beside(&ends[workload.name].0);
        named(|| workload.name.to_owned(), &faults).into_iter().collect()
    });
}
