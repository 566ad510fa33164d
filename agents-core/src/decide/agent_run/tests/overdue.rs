//! Nodes that do not say that an attempt has ended.

use serde_json::json;

use super::*;
use crate::runtime::Overdue;

/// A run whose attempt runs since 0, whose end was due at 100 and was not heard of.
fn overdue(spec: &serde_json::Value) -> RunSnapshot {
    let mut s = snapshot(spec);
    current_mut(&mut s).observation = running(at(0));
    apply_now(&mut s, at(0));
    current_mut(&mut s).overdue = Some(Overdue { since: at(100), node: "worker-3".into() });
    s
}

fn retried() -> serde_json::Value {
    json!({"retryPolicy": {"limit": 3}})
}

fn blocked(snapshot: &RunSnapshot) -> String {
    let [entry] = &status(snapshot).blocked_by[..] else { panic!("{:?}", status(snapshot)) };
    format!("{} {}: {}", entry.reason, entry.message, entry.unblocked_by)
}

#[test]
fn it_is_told_once_the_node_is_late_and_nothing_else_is_done() {
    let mut s = overdue(&retried());
    assert_eq!(decide_at(&s, at(130)), Plan { wake: Some(at(160)), ..Plan::settled() });
    let plan = apply_now(&mut s, at(160));
    assert_eq!((kinds(&plan.before), kinds(&plan.after), plan.wake), (vec![], vec![], None));
    assert_eq!(status(&s).phase, Some(Phase::Running));
    insta::assert_snapshot!(blocked(&s), @"NodeUnreachable node worker-3 has not said that the attempt ended, which was due at 2027-01-15T08:01:40Z; it may still run there, so no other attempt is started: an answer of the node, or its deletion or the taint node.kubernetes.io/out-of-service once it is off; spec.cancel ends the run without");
    assert_eq!(decide_at(&s, at(1_000_000)), Plan::settled(), "for as long as it takes");
    // It answers.
    current_mut(&mut s).overdue = None;
    current_mut(&mut s).observation = finished(&s, 0, at(90));
    apply_now(&mut s, at(1_000_001));
    assert_eq!((status(&s).phase, status(&s).blocked_by.len()), (Some(Phase::Succeeded), 0));
}

#[test]
fn a_run_that_no_attempt_follows_ends_without_the_node_once_force_has_had_its_time() {
    let mut s = overdue(&retried());
    Arc::make_mut(&mut s.run).spec.cancel = Some(true);
    apply_now(&mut s, at(200));
    current_mut(&mut s).observation = Observation::Stopping;
    for now in [230, 260, 400, 559] {
        let plan = apply_now(&mut s, at(now));
        let forced = now >= 260;
        assert_eq!(plan.after.len(), usize::from(forced), "{now}: it is asked again");
        assert!(plan.wake.is_some_and(|wake| wake <= at(now + 30)), "{now}");
    }
    let said = blocked(&s);
    assert!(said.contains("the run ends without one at 2027-01-15T08:09:20Z"), "{said}");
    assert_eq!(decide_at(&s, at(560)), Plan::confirm(the_submission(&s)), "it may have ended just now");
    apply_now(&mut s, at(560));
    insta::assert_snapshot!(summary(&s), @"Cancelled Cancelled [] cancelled by spec.cancel; node worker-3 has not said that it ended, and it may still run there");
}

#[test]
fn an_attempt_that_another_would_follow_is_not_given_up() {
    let ended_for = |spec: &serde_json::Value, cancelled: bool| {
        let mut s = snapshot(spec);
        current_mut(&mut s).observation = pending(at(0), Some((Reason::ImagePullFailed, "no such image")));
        apply_now(&mut s, at(0));
        apply_now(&mut s, at(700));
        assert_eq!(status(&s).attempts[0].stopping.as_ref().unwrap().reason, "ImagePullFailed");
        current_mut(&mut s).overdue = Some(Overdue { since: at(731), node: "worker-3".into() });
        current_mut(&mut s).observation = Observation::Stopping;
        Arc::make_mut(&mut s.run).spec.cancel = cancelled.then_some(true);
        apply_now(&mut s, at(100_000));
        (status(&s).phase.unwrap(), status(&s).attempts[0].finished_at.is_some())
    };
    assert_eq!(ended_for(&retried(), false), (Phase::Pending, false), "two of them would run");
    assert_eq!(ended_for(&retried(), true), (Phase::Cancelled, true));
    assert_eq!(ended_for(&json!({}), false), (Phase::Failed, true), "it was the last");
}

/// An end that could not even be asked for, for want of a right, is no node's silence.
#[test]
fn an_attempt_whose_end_is_not_due_is_never_given_up() {
    let mut s = overdue(&retried());
    current_mut(&mut s).overdue = None;
    Arc::make_mut(&mut s.run).spec.cancel = Some(true);
    apply_now(&mut s, at(200));
    for now in [1_000, 100_000] {
        assert_eq!(kinds(&apply_now(&mut s, at(now)).after), [EffectKind::Cancel]);
        assert_eq!(status(&s).phase, Some(Phase::Running));
    }
}
