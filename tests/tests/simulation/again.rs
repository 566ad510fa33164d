//! The same again: a run of the same name right after its deletion, and one failure for hours.

use std::{collections::BTreeSet, time::Duration};

use agents_tests::apimodel::{Fault, Outcome, Rule, Verb, When};
use kube::api::DeleteParams;
use serde_json::json;

use super::{
    play::{End, keep_running},
    workload::{HAPPY, RUN, SECOND, apply_run, delete_run, phase_seen},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_run_made_anew_under_its_name_has_a_job_of_its_own_and_the_old_one_ends() {
    for how in [DeleteParams::background(), DeleteParams::foreground()] {
        let world = HAPPY.world(1);
        world.outcomes(RUN, vec![Outcome::Hang]);
        let _controller = keep_running(&world, "a", true);
        phase_seen(&world, "Running").await;
        let uid = |world: &agents_tests::apimodel::World| {
            world.object("agentruns", RUN).and_then(|run| run["metadata"]["uid"].as_str().map(str::to_owned))
        };
        let first = uid(&world).expect("a uid");
        let old: BTreeSet<_> = End::of(&world).live_jobs.into_iter().collect();
        assert_eq!(old.len(), 1);
        world.outcomes(RUN, vec![Outcome::default()]);
        delete_run(&world, &how).await;
        // At the first moment at which the name is free.
        assert!(world.until(600 * SECOND, |world| uid(world).is_none()).await, "the run goes");
        apply_run(&world, json!({}));
        let second = uid(&world).expect("a uid");
        assert_ne!(first, second);
        assert!(world.until_terminal(600 * SECOND).await, "stuck: {:?}", End::of(&world));
        world.settle(HOUR).await;
        let end = End::of(&world);
        assert_eq!((end.phase(), end.reason()), ("Succeeded", "Completed"), "{how:?}");
        assert!(end.live_jobs.is_empty(), "{:?}", end.live_jobs);
        let job = world.object("agentruns", RUN).expect("the run")["status"]["runtimeRef"]["name"].clone();
        assert!(!old.contains(job.as_str().expect("a name")), "{job} is the old run's");
        assert_eq!((world.jobs_of(&first, 1), world.jobs_of(&second, 1)), (1, 1));
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn one_failure_for_hours_is_told_once_and_costs_few_writes() {
    let world = HAPPY.world(1);
    world.faults(|faults| {
        faults.rule(Rule::new(When::any().verb(Verb::Create).on("jobs"), Fault::Reject(403)).forever());
    });
    let _controller = keep_running(&world, "a", true);
    tokio::time::sleep(3 * HOUR).await;
    let log = world.log().from("a");
    let tried = log.writes().of("jobs").len();
    assert!((100..=400).contains(&tried), "tried {tried} times in three hours");
    assert!(log.of("events").len() <= 3, "{} events of one failure", log.of("events").len());
    assert!(log.writes().of("agentruns").len() <= 3, "{:#?}", log.writes().of("agentruns"));
    world.faults(agents_tests::apimodel::Faults::clear);
    assert!(world.until_terminal(HOUR).await);
    assert_eq!(world.phase(RUN), "Succeeded");
}
