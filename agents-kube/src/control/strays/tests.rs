//! What is found and what its run says, and what is done about it.

use serde_json::json;

use super::*;

const UID: &str = "5d0c6c0e-3b0e-4f7e-9a53-7f2f8f6f1a01";
const GRACE: u64 = 30;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn stray(attempt: i32, ending: Option<Ending>) -> Stray {
    let reference = reference("team-a", "nightly", UID, attempt, "job-1").expect("an attempt");
    Stray { reference, run: "nightly".into(), attempt, has_job: true, is_record: false, ending }
}

fn snapshot(stray: Stray, said: Option<Said>) -> Snapshot {
    Snapshot { id: Id::Job(stray.job()), stray, not_before: at(100), said }
}

#[test]
fn nobody_is_asked_before_the_wait_for_races_is_over_and_nothing_is_done_before_the_answer() {
    let found = snapshot(stray(1, None), None);
    let waits = decide(&found, GRACE, at(99));
    assert_eq!(waits, Plan { wake: Some(at(100)), ..Plan::settled() });
    assert_eq!(
        decide(&found, GRACE, at(100)),
        Plan::confirm(Confirm::object().and(Confirm::submission(found.stray.submission())))
    );
}

#[test]
fn only_what_its_run_does_not_want_is_ended_and_by_force_only_once_its_time_is_over() {
    let goes_on = |attempt| Said::GoesOn { attempt };
    let endings = [None, Some(Ending::Since(at(10))), Some(Ending::Unknown)];
    for ending in endings {
        for said in [goes_on(Some(1)), goes_on(Some(2)), goes_on(None)] {
            let plan = decide(&snapshot(stray(2, ending), Some(said)), GRACE, at(100));
            assert_eq!(plan, Plan { wake: Some(at(400)), ..Plan::settled() });
        }
        for said in [Said::Gone, Said::Ended, goes_on(Some(3))] {
            let plan = decide(&snapshot(stray(2, ending), Some(said.clone())), GRACE, at(100));
            let (grace_seconds, wake) = if ending.is_none() { (GRACE, 160) } else { (0, 400) };
            let cancel = Effect::Cancel { reference: stray(2, ending).reference, grace_seconds };
            assert_eq!(plan, Plan { after: vec![cancel], wake: Some(at(wake)), ..Plan::settled() }, "{said:?}");
        }
    }
}

#[test]
fn a_record_is_let_go_once_its_run_does_not_want_the_attempt_any_more() {
    let record = |said| snapshot(Stray { is_record: true, ..stray(2, None) }, said);
    assert_eq!(decide(&record(None), GRACE, at(99)).wake, Some(at(100)), "it is being let go, as a rule");
    assert_eq!(decide(&record(None), GRACE, at(100)), Plan::confirm(Confirm::object()));
    for said in [Some(1), Some(2), None].map(|attempt| Said::GoesOn { attempt }) {
        assert_eq!(decide(&record(Some(said)), GRACE, at(100)), Plan { wake: Some(at(400)), ..Plan::settled() });
    }
    for said in [Said::Gone, Said::Ended, Said::GoesOn { attempt: Some(3) }] {
        let let_go = Effect::LetGo { reference: stray(2, None).reference };
        let plan = decide(&record(Some(said)), GRACE, at(100));
        assert_eq!(plan, Plan { after: vec![let_go], wake: Some(at(400)), ..Plan::settled() });
    }
}

#[test]
fn a_run_that_can_hardly_be_read_still_says_whether_it_has_ended() {
    let said = |uid: &str, status: Value| {
        let run: RunView = serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": 7, "status": status}))
            .expect("it is named");
        run.said(UID)
    };
    let goes_on = |attempt| Said::GoesOn { attempt };
    let table = [
        (said("another", json!({"phase": "Running"})), Said::Gone),
        (said(UID, json!(null)), goes_on(Some(1))),
        (said(UID, json!({"phase": "Succeeded"})), Said::Ended),
        (said(UID, json!({"phase": "Failed", "attempts": "none"})), Said::Ended),
        (said(UID, json!({"phase": "Cancelled"})), Said::Ended),
        (said(UID, json!({"phase": "Running", "attempts": [{"number": 2}]})), goes_on(Some(2))),
        (
            said(UID, json!({"phase": "Running", "attempts": [{"number": 2, "finishedAt": "2026-01-05T10:00:00Z"}]})),
            goes_on(Some(3)),
        ),
        (said(UID, json!({"phase": 7, "attempts": [{"number": "two"}]})), goes_on(None)),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_job_under_another_name_or_of_another_group_is_no_stray() {
    let name = reference("team-a", "nightly", UID, 1, "job-1").expect("an attempt").name;
    let job = |name: &str, group: &str, attempt: &str| -> JobView {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "team-a", "name": name, "uid": "job-1", "creationTimestamp": "2026-01-05T10:00:00Z",
                "labels": {"agents.proompteng.ai/attempt": attempt},
                "ownerReferences": [{
                    "apiVersion": format!("{group}/v1alpha1"), "kind": "AgentRun", "name": "nightly", "uid": UID,
                    "controller": true,
                }],
            },
        }))
        .expect("it is a Job")
    };
    let ours = "agents.proompteng.ai";
    let found = Stray::of_job(&job(name.as_str(), ours, "1"), &[]).expect("ours, and it lives");
    assert_eq!(found, stray(1, None));
    for stranger in [job("other", ours, "1"), job(name.as_str(), "evil.example", "1"), job(name.as_str(), ours, "2")] {
        assert_eq!(Stray::of_job(&stranger, &[]), None, "{stranger:?}");
    }
}
