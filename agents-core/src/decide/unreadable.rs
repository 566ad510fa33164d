//! A run that this version cannot read: what its status says of that.
//!
//! Its phase, its attempts and everything else that stands in the status stay as they are, since they may be what cannot
//! be read. Only conditions are touched, and written once per cause and generation.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Effect, Notice, Plan};
use crate::{
    api::common::{Condition, ConditionStatus},
    status::{ConditionType, MAX_MESSAGE, Reason, condition, cut},
};

/// The conditions that are written, in the order of a run's.
const SAID: [(ConditionType, ConditionStatus); 3] = [
    (ConditionType::Ready, ConditionStatus::False),
    (ConditionType::Accepted, ConditionStatus::False),
    (ConditionType::Stalled, ConditionStatus::True),
];

/// A run that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Generation of its spec.
    pub generation: Option<i64>,
    /// What was stored last, as JSON.
    pub status: Map<String, Value>,
    /// Which field cannot be read, and why.
    pub why: String,
}

/// Says in its conditions and in an Event that the run cannot be read. Nothing is written that stands there already.
pub fn decide(run: &Unreadable, now: Timestamp) -> Plan<Map<String, Value>> {
    let Unreadable { generation, status, why } = run;
    let message =
        cut(&format!("this version of the controller cannot read the run, which is left as it is: {why}"), MAX_MESSAGE);
    let stored = status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let previous: Vec<Condition> =
        stored.iter().filter_map(|condition| serde_json::from_value(condition.clone()).ok()).collect();
    let ours =
        SAID.map(|(kind, truth)| condition((kind, truth, Reason::Unreadable, &message), *generation, &previous, now));
    let is_ours = |stored: &&Value| ours.iter().any(|ours| stored["type"] == ours.kind);
    let others = stored.iter().filter(|stored| !is_ours(stored)).cloned();
    let conditions: Value = ours.iter().map(|ours| json!(ours)).chain(others).collect();
    if status.get("conditions") == Some(&conditions) {
        return Plan::settled();
    }
    let mut status = status.clone();
    status.insert("conditions".to_owned(), conditions);
    let told = Effect::Emit(Notice { warning: true, reason: Reason::Unreadable, message });
    Plan { status: Some(Box::new(status)), after: vec![told], ..Plan::settled() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn unreadable(status: Value) -> Unreadable {
        let Value::Object(status) = status else { panic!("a status is an object") };
        Unreadable { generation: Some(3), status, why: "spec.timeoutSeconds: invalid type: string".into() }
    }

    #[test]
    fn only_conditions_change_and_a_second_look_writes_nothing() {
        let custom = json!({"type": "Custom", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-05T10:00:00Z"});
        let run = unreadable(
            json!({"phase": "Running", "attempts": 7, "conditions": [custom, {"type": "Ready", "status": 5}]}),
        );
        let plan = decide(&run, NOW);
        let status = *plan.status.expect("a write");
        assert_eq!((&status["phase"], &status["attempts"]), (&json!("Running"), &json!(7)));
        let said: Vec<_> = status["conditions"].as_array().expect("a list").iter().map(|c| c["type"].clone()).collect();
        assert_eq!(said, ["Ready", "Accepted", "Stalled", "Custom"]);
        assert!(status["conditions"][1]["message"].as_str().expect("text").contains("spec.timeoutSeconds"));
        assert!(matches!(&plan.after[..], [Effect::Emit(Notice { warning: true, reason: Reason::Unreadable, .. })]));
        let again = Unreadable { status: status.clone(), ..run.clone() };
        assert_eq!(decide(&again, Timestamp::from_second(99).expect("a time")), Plan::settled());
        // Another cause, or another spec, is told anew.
        for changed in
            [Unreadable { why: "other".into(), ..again.clone() }, Unreadable { generation: Some(4), ..again }]
        {
            assert!(decide(&changed, NOW).status.is_some());
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_kept_and_settled_after_one_write(
            conditions in proptest::collection::vec("[\\[\\]{}\":,a-zA-Z0-9]{0,20}", 0..4), phase in "[A-Z]{0,5}",
        ) {
            let conditions: Vec<Value> = conditions.iter().map(|text| serde_json::from_str(text).unwrap_or(json!(text))).collect();
            let run = unreadable(json!({"phase": phase, "conditions": conditions}));
            let status = *decide(&run, NOW).status.expect("a write");
            prop_assert_eq!(&status["phase"], &run.status["phase"]);
            prop_assert_eq!(status["conditions"].as_array().unwrap().len(), conditions.len() + 3);
            prop_assert_eq!(decide(&Unreadable { status, ..run }, NOW), Plan::settled());
        }
    }
}
