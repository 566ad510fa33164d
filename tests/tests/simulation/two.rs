//! Two and three controllers at once with no election: the same result as one.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use agents_tests::apimodel::{Fault, Rule, Verb, When};

use super::{
    fault::frees_name,
    play::{End, keep_another_release_running, keep_running, named, play, play_clean, simulate},
    workload::{ALL, Workload},
};

/// The end of each undisturbed workload.
pub fn ends(workloads: &[Workload]) -> BTreeMap<&'static str, End> {
    let ends = Mutex::new(BTreeMap::new());
    simulate(workloads.to_vec(), async |workload| {
        let played = play_clean(&workload).await;
        ends.lock().expect("no panic").insert(workload.name, played.end);
        vec![]
    });
    ends.into_inner().expect("no panic")
}

#[test]
fn controllers_without_a_lease_give_the_same_result_as_one() {
    let ends = ends(ALL);
    // The time a request takes decides whose write comes first and who learns of it when.
    let latencies = [0, 7, 900].map(Duration::from_millis);
    let cases: Vec<_> = ALL
        .iter()
        .flat_map(|workload| latencies.map(|latency| (workload, latency, &["a", "b"][..])))
        .chain(ALL.iter().map(|workload| (workload, latencies[1], &["a", "b", "c"][..])))
        .collect();
    simulate(cases, async |(workload, latency, names)| {
        let played = play(workload, 1, |world| {
            world.configure(|settings| settings.latency = latency);
            names.iter().map(|name| keep_running(world, name, false)).collect::<Vec<_>>()
        })
        .await;
        let faults = played.faults_beside(&ends[workload.name]);
        named(|| format!("{}, {latency:?}, {names:?}", workload.name), &faults).into_iter().collect()
    });
}

/// The create of one of them takes its time: what it makes may find its run ended.
#[test]
fn a_slow_create_beside_another_controller_changes_nothing() {
    let ends = ends(ALL);
    let cases: Vec<_> =
        ALL.iter().flat_map(|workload| [3, 9].map(|slow| (workload, Duration::from_secs(slow)))).collect();
    simulate(cases, async |(workload, slow)| {
        let played = play(workload, 1, |world| {
            let create = When::effects().verb(Verb::Create).on("jobs").from("b");
            world.faults(|faults| faults.rule(Rule::new(create, Fault::Delay(slow))));
            ["a", "b"].map(|name| keep_running(world, name, false))
        })
        .await;
        let end = &ends[workload.name];
        let freed = frees_name(workload) || workload.name == "deleted";
        let found = if freed { played.faults_but_a_freed_name(end) } else { played.faults_beside(end) };
        named(|| format!("{}, {slow:?}", workload.name), &found).into_iter().collect()
    });
}

#[test]
fn replicas_with_a_lease_give_the_same_result_as_one() {
    let ends = ends(ALL);
    simulate(ALL.to_vec(), async |workload| {
        let names = ["a", "b"];
        let played = play(&workload, 1, |world| names.map(|name| keep_running(world, name, true))).await;
        let mut faults = played.faults_beside(&ends[workload.name]);
        let active = names.iter().filter(|name| !played.log.from(name).writes().is_empty()).count();
        if active > 1 {
            faults.push("both wrote".to_owned());
        }
        named(|| workload.name.to_owned(), &faults).into_iter().collect()
    });
}

/// Two releases on one namespace have a lease each and do not exclude each other.
#[test]
fn releases_with_a_lease_each_give_the_same_result_as_one() {
    let ends = ends(ALL);
    let latencies = [7, 900].map(Duration::from_millis);
    let cases = ALL.iter().flat_map(|workload| latencies.map(|latency| (workload, latency))).collect();
    simulate(cases, async |(workload, latency)| {
        let names = ["a", "b"];
        let played = play(workload, 1, |world| {
            world.configure(|settings| settings.latency = latency);
            names.map(|name| keep_another_release_running(world, name))
        })
        .await;
        let mut faults = played.faults_beside(&ends[workload.name]);
        if names.iter().any(|name| played.world.object("leases", name).is_none()) {
            faults.push("one of them never led".to_owned());
        }
        named(|| format!("{}, {latency:?}", workload.name), &faults).into_iter().collect()
    });
}
