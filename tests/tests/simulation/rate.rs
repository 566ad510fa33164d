//! Whatever a call is answered with, and for however long: nothing is repeated without a wait.

use std::time::Duration;

use agents_tests::apimodel::{Fault, Record, Rule, Verb, When, Words};

use super::{
    play::{keep_running, named, simulate},
    workload::{HAPPY, SECOND, Workload, named as workload_named},
};

/// Requests of one call in a minute at most. A key that fails is looked at about a dozen times in its first minute, a
/// watch opened or a list begun about twice as often; a lease is read and written every 750 ms.
const MOST: usize = 45;
const MOST_OF_A_LEASE: usize = 85;

/// How a call can be answered for ever.
fn answers() -> Vec<Fault> {
    let mut answers = vec![
        Fault::Reject(403),
        Fault::Reject(409),
        Fault::Reject(410),
        Fault::Reject(503),
        Fault::Throttle(Some("0".to_owned())),
        Fault::DropBeforeCommit,
        Fault::TruncatedBody,
        Fault::Refuse(404, Words::Html),
        Fault::Refuse(404, Words::OfAnother),
    ];
    answers.extend([404, 409, 422].map(|code| Fault::Refuse(code, Words::OfTheObject)));
    answers
}

/// The calls of a controller, each with a workload that makes it.
fn calls() -> Vec<(Verb, &'static str, &'static Workload)> {
    let (cancelled, large) = (workload_named("cancelled"), workload_named("large"));
    let mut calls = vec![
        (Verb::Get, "leases", &HAPPY),
        (Verb::Create, "leases", &HAPPY),
        (Verb::Update, "leases", &HAPPY),
        (Verb::Update, "agentruns", &HAPPY),
        (Verb::Create, "jobs", &HAPPY),
        (Verb::Create, "events", &HAPPY),
        (Verb::Delete, "jobs", cancelled),
        (Verb::Create, "configmaps", large),
    ];
    for resource in ["agentruns", "jobs", "agents"] {
        calls.extend([(Verb::List, resource, &HAPPY), (Verb::Watch, resource, &HAPPY)]);
    }
    calls
}

/// The most of `times` that fall into one minute.
fn most_in_a_minute(times: &[Duration]) -> usize {
    let within = |from: &Duration| times.iter().filter(|&at| (*from..*from + 60 * SECOND).contains(at)).count();
    times.iter().map(within).max().unwrap_or_default()
}

#[test]
fn no_error_is_answered_with_a_flood() {
    let mut cases = Vec::new();
    for (at, call) in calls().into_iter().enumerate() {
        for (n, answer) in answers().into_iter().enumerate() {
            // Where calls are alike every second answer is enough, each call with another half.
            if matches!(call, (_, "leases", _) | (Verb::Create, ..)) || (at + n) % 2 == 0 {
                cases.push((call, answer));
            }
        }
    }
    simulate(cases, async |((verb, resource, workload), answer)| {
        let world = workload.world(1);
        // Without it a flood would stop the simulated time.
        world.configure(|settings| settings.latency = SECOND / 50);
        world.faults(|faults| faults.rule(Rule::new(When::any().verb(verb).on(resource), answer.clone()).forever()));
        let controller = keep_running(&world, "a", true);
        let _ = tokio::time::timeout(30 * SECOND, workload.tell(&world)).await;
        tokio::time::sleep(90 * SECOND).await;
        drop(controller);
        world.stop_actors();
        let log = world.log().from("a");
        let mut found = Vec::new();
        if !log.0.iter().any(|record| record.fault.is_some()) {
            found.push("the call was never made".to_owned());
        }
        let of = |wanted: &Record| {
            let same = |record: &&Record| (record.verb, record.resource) == (wanted.verb, wanted.resource);
            log.0.iter().filter(same).map(|record| record.at).collect::<Vec<_>>()
        };
        let mut seen: Vec<(Verb, &str)> = Vec::new();
        for record in &log.0 {
            if seen.contains(&(record.verb, record.resource)) {
                continue;
            }
            seen.push((record.verb, record.resource));
            let bound = if record.resource == "leases" { MOST_OF_A_LEASE } else { MOST };
            let most = most_in_a_minute(&of(record));
            if most > bound {
                found.push(format!("{most} times {:?} {} in a minute", record.verb, record.resource));
            }
        }
        named(|| format!("{verb:?} {resource} answered with {answer:?}"), &found).into_iter().collect()
    });
}
