//! Every kind but AgentRun: whether its spec is right, what it waits for, and whether this version acts on it.
//!
//! | standing | Ready | Accepted | InvalidSpec | Stalled | phase |
//! |---|---|---|---|---|---|
//! | its spec is faulty | False | False | True | True | `Invalid` |
//! | an object it refers to is missing or faulty | False | True | False | False | `Pending` |
//! | the kind is not acted on yet | Unknown | True | False | False | `Pending` |
//! | ready | True | True | False | False | `Ready` |
//! | over, by the rules of its kind | True | True | False | False | of its kind |
//!
//! Of a kind with rules of its own ([`super::rules`]) they say the rest, once the spec is right and everything that it
//! refers to is there; they may find the object faulty too, or wait.
//!
//! The status is handled as JSON, because one function serves every kind: whatever else stands in it is kept.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Plan,
    rules::{Deed, Rules},
};
use crate::{
    api::{
        Kind, Says,
        common::{Condition, ConditionStatus},
    },
    check::{Fault, Reference},
    id::{Id, Key},
    status::{ConditionType, MAX_MESSAGE, Reason, condition, cut},
};

/// What [`Reason::NotActedOn`] says.
const NOT_ACTED_ON: &str = "this version stores and checks this kind and does not act on it yet";

/// Everything a decision about a declaration depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Generation of the spec that was checked.
    pub generation: Option<i64>,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// Whether nothing is decided about it any more ([`Decide::is_over`](super::rules::Decide::is_over)).
    pub over: bool,
    /// What was stored last.
    pub status: Map<String, Value>,
    /// Every fault of its spec.
    pub faults: Vec<Fault>,
    /// Every object it refers to, as it was found.
    pub needs: Vec<Need>,
    /// What its kind is like.
    pub traits: Traits,
}

impl Declaration {
    /// Takes in what is found where each of its references leads, of which nothing is told while it is not known. Answers
    /// whether it is right as far as anybody can tell without the rules of its kind.
    pub fn refer(
        &mut self,
        namespace: &str,
        references: &[Reference],
        referent: impl Fn(&Id) -> Option<Referent>,
    ) -> bool {
        // What is wrong with the spec itself is said whatever it refers to.
        if !self.faults.is_empty() {
            return false;
        }
        for reference in references {
            let found = referent(&Id::new(reference.kind, Key::new(namespace, reference.name.as_str())));
            self.needs.extend(found.map(|found| Need { reference: reference.clone(), found }));
        }
        self.needs.iter().all(|need| need.found == Referent::Right)
    }
}

/// An object that is referred to, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Which object.
    pub reference: Reference,
    /// What was found.
    pub found: Referent,
}

/// What was found where a reference leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referent {
    /// An object without a fault.
    Right,
    /// An object with a fault of its own.
    Faulty,
    /// Nothing.
    Absent,
}

/// What a kind is like, as far as its declarations' status depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// [`Kind::ACTED_ON`].
    pub acted_on: bool,
    /// [`Kind::SAYS`].
    pub says: Says,
}

impl Traits {
    /// Those of `K`.
    pub fn of<K: Kind>() -> Self {
        Self { acted_on: K::ACTED_ON, says: K::SAYS }
    }
}

/// What an object came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It can never become right as it is.
    Invalid(Reason, String),
    /// It waits.
    Waiting(Reason, String),
    /// Its kind is not acted on yet.
    NotActedOn,
    /// It is as it should be.
    Ready,
    /// It is done with, in a phase of its kind.
    Over(&'static str, Reason, String),
}

impl Standing {
    const PHASES: [&str; 3] = ["Invalid", "Pending", "Ready"];

    fn of(declaration: &Declaration) -> Self {
        let Declaration { generation: _, deleting: _, over: _, status: _, faults, needs, traits } = declaration;
        let joined = |texts: Vec<String>| cut(&texts.join("; "), MAX_MESSAGE);
        if !faults.is_empty() {
            let fault = |Fault { field, problem }: &Fault| format!("{field}: {problem}");
            return Self::Invalid(Reason::InvalidSpec, joined(faults.iter().map(fault).collect()));
        }
        let missing: Vec<_> = needs.iter().filter_map(missing).collect();
        if let Some((reason, _)) = missing.first() {
            return Self::Waiting(*reason, joined(missing.into_iter().map(|(_, text)| text).collect()));
        }
        if traits.acted_on { Self::Ready } else { Self::NotActedOn }
    }

    fn phase(&self) -> &'static str {
        let [invalid, pending, ready] = Self::PHASES;
        match self {
            Self::Invalid(..) => invalid,
            Self::Waiting(..) | Self::NotActedOn => pending,
            Self::Ready => ready,
            Self::Over(phase, ..) => phase,
        }
    }

    /// What there is to say of it.
    fn said(&self) -> Option<(Reason, &str)> {
        match self {
            Self::Invalid(reason, message) | Self::Waiting(reason, message) | Self::Over(_, reason, message) => {
                Some((*reason, message.as_str())).filter(|(reason, _)| *reason != Reason::AsExpected)
            }
            Self::NotActedOn => Some((Reason::NotActedOn, NOT_ACTED_ON)),
            Self::Ready => None,
        }
    }

    /// Every condition that is always there, in the order they are stored.
    fn conditions(&self) -> [(ConditionType, ConditionStatus, Reason, &str); 4] {
        use ConditionStatus::{False, True, Unknown};
        let (reason, message) = self.said().unwrap_or((Reason::AsExpected, ""));
        let ready = match self {
            Self::Invalid(..) | Self::Waiting(..) => False,
            Self::NotActedOn => Unknown,
            Self::Ready | Self::Over(..) => True,
        };
        let (accepted, refused) = match self {
            Self::Invalid(..) => ((False, reason, message), (True, reason, message)),
            Self::Waiting(..) | Self::NotActedOn | Self::Ready | Self::Over(..) => {
                ((True, Reason::AsExpected, ""), (False, Reason::AsExpected, ""))
            }
        };
        [
            (ConditionType::Ready, ready, reason, message),
            (ConditionType::Accepted, accepted.0, accepted.1, accepted.2),
            (ConditionType::InvalidSpec, refused.0, refused.1, refused.2),
            (ConditionType::Stalled, refused.0, refused.1, refused.2),
        ]
    }
}

/// What is said of an object that is needed and not right.
fn missing(need: &Need) -> Option<(Reason, String)> {
    let Need { reference: Reference { field, kind, name, absent }, found } = need;
    match found {
        Referent::Right => None,
        Referent::Faulty => Some((Reason::ReferenceUnreadable, format!("{field}: {kind}/{name} is faulty: mend it"))),
        Referent::Absent => Some((*absent, format!("{field}: {kind}/{name} does not exist in this namespace"))),
    }
}

/// Decides what the status of a declaration says, by the rules of its kind where it has some. Nothing is written that is
/// not new.
pub fn decide(declaration: &Declaration, rules: Option<&dyn Rules>, now: Timestamp) -> Plan<Map<String, Value>> {
    if declaration.deleting || declaration.over {
        return Plan::settled();
    }
    let Deed { confirm, standing, fields, after, wake } = match (Standing::of(declaration), rules) {
        (Standing::Ready, Some(rules)) => rules.decide(now),
        (standing, _) => Deed::stands(standing),
    };
    let standing = match standing {
        Some(standing) if confirm.is_nothing() => standing,
        _ => return Plan { confirm, after, wake, ..Plan::settled() },
    };
    let mut status = declaration.status.clone();
    let traits = declaration.traits;
    if let Some(generation) = declaration.generation {
        status.insert("observedGeneration".to_owned(), json!(generation));
    }
    if traits.says >= Says::Phase {
        status.insert("phase".to_owned(), json!(standing.phase()));
    }
    if traits.says >= Says::Reason {
        if let Some((reason, message)) = standing.said() {
            status.insert("reason".to_owned(), json!(reason.as_str()));
            // Whoever reads the columns needs its beginning; the conditions have it whole.
            status.insert("message".to_owned(), json!(cut(message, 1024)));
        } else {
            status.remove("reason");
            status.remove("message");
        }
    }
    for (name, value) in fields {
        match value {
            Some(value) => status.insert(name, value),
            None => status.remove(&name),
        };
    }
    let conditions = conditions(&standing, declaration, now);
    status.insert("conditions".to_owned(), conditions);
    let status = (status != declaration.status).then(|| Box::new(status));
    Plan { status, after, wake, ..Plan::settled() }
}

/// Our conditions, and behind them those of others as they are.
fn conditions(standing: &Standing, declaration: &Declaration, now: Timestamp) -> Value {
    let stored = declaration.status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let previous: Vec<Condition> =
        stored.iter().filter_map(|condition| serde_json::from_value(condition.clone()).ok()).collect();
    let ours = standing.conditions();
    let is_ours = |stored: &&Value| ours.iter().any(|(kind, ..)| stored["type"] == kind.as_str());
    let others = stored.iter().filter(|stored| !is_ours(stored)).cloned();
    ours.into_iter().map(|said| json!(condition(said, declaration.generation, &previous, now))).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        check::Check,
        decide::Confirm,
        kinds::{self, Visitor},
    };

    const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;
    const FULL: Traits = Traits { acted_on: false, says: Says::Phase };

    fn declaration(status: Map<String, Value>) -> Declaration {
        Declaration {
            generation: Some(1),
            deleting: false,
            over: false,
            status,
            faults: vec![],
            needs: vec![],
            traits: FULL,
        }
    }

    fn fault(field: &str, problem: &str) -> Fault {
        Fault { field: field.to_owned(), problem: problem.to_owned() }
    }

    fn need(found: Referent) -> Need {
        let reference =
            Reference { field: "spec.ref", kind: "Thing", name: "x".to_owned(), absent: Reason::ProviderNotFound };
        Need { reference, found }
    }

    fn at(seconds: i64) -> Timestamp {
        EPOCH.checked_add(SignedDuration::from_secs(seconds)).unwrap()
    }

    fn written(declaration: &Declaration, now: Timestamp) -> Map<String, Value> {
        *decide(declaration, None, now).status.expect("a write")
    }

    /// The row of the table above: phase, then `type=status reason` of each condition.
    fn row(declaration: &Declaration) -> String {
        let status = written(declaration, EPOCH);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let conditions = status["conditions"].as_array().unwrap().iter().map(|condition| {
            format!("{}={} {}", text(&condition["type"]), text(&condition["status"]), text(&condition["reason"]))
        });
        std::iter::once(text(&status["phase"])).chain(conditions).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn each_standing_has_its_row() {
        let plain = declaration(Map::new());
        insta::assert_snapshot!(row(&plain), @"Pending, Ready=Unknown NotActedOn, Accepted=True AsExpected, InvalidSpec=False AsExpected, Stalled=False AsExpected");
        let acted = Declaration { traits: Traits { acted_on: true, ..FULL }, ..plain.clone() };
        insta::assert_snapshot!(row(&acted), @"Ready, Ready=True AsExpected, Accepted=True AsExpected, InvalidSpec=False AsExpected, Stalled=False AsExpected");
        let waiting = Declaration { needs: vec![need(Referent::Absent)], ..acted.clone() };
        insta::assert_snapshot!(row(&waiting), @"Pending, Ready=False ProviderNotFound, Accepted=True AsExpected, InvalidSpec=False AsExpected, Stalled=False AsExpected");
        let leaning = Declaration { needs: vec![need(Referent::Right), need(Referent::Faulty)], ..acted.clone() };
        insta::assert_snapshot!(row(&leaning), @"Pending, Ready=False ReferenceUnreadable, Accepted=True AsExpected, InvalidSpec=False AsExpected, Stalled=False AsExpected");
        let invalid = Declaration { faults: vec![fault("spec.a", "is wrong")], ..waiting };
        insta::assert_snapshot!(row(&invalid), @"Invalid, Ready=False InvalidSpec, Accepted=False InvalidSpec, InvalidSpec=True InvalidSpec, Stalled=True InvalidSpec");
    }

    #[test]
    fn every_fault_is_named_and_a_mended_spec_is_cleared() {
        let mut invalid = declaration(Map::new());
        invalid.faults = vec![fault("spec.a", "is wrong"), fault("spec.b[1]", "is worse")];
        let status = written(&invalid, at(0));
        assert_eq!(status["message"], "spec.a: is wrong; spec.b[1]: is worse");
        assert_eq!(status["reason"], "InvalidSpec");
        let mended =
            Declaration { generation: Some(2), traits: Traits { acted_on: true, ..FULL }, ..declaration(status) };
        let status = written(&mended, at(60));
        assert!(!status.contains_key("message") && !status.contains_key("reason"), "{status:?}");
        assert_eq!(status["observedGeneration"], 2);
        assert_eq!(status["conditions"][2]["status"], "False");
        assert_eq!(status["conditions"][2]["message"], "");
        assert_eq!(status["conditions"][2]["lastTransitionTime"], "1970-01-01T00:01:00Z");
    }

    #[test]
    fn many_faults_are_cut_to_the_bound() {
        let mut invalid = declaration(Map::new());
        invalid.faults = (0..2000).map(|n| fault(&format!("spec.items[{n}]"), "ä bad one")).collect();
        let status = written(&invalid, EPOCH);
        for condition in status["conditions"].as_array().unwrap() {
            assert!(condition["message"].as_str().unwrap().len() <= MAX_MESSAGE);
        }
        assert!(status["conditions"][0]["message"].as_str().unwrap().ends_with('…'));
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let theirs = json!({"type": "Unreachable", "status": "True", "odd": [1]});
        let stored = json!({"usedBytes": 7, "phase": "Lost", "conditions": [theirs.clone(), 5]});
        let status = written(&declaration(stored.as_object().unwrap().clone()), EPOCH);
        assert_eq!((&status["usedBytes"], &status["phase"]), (&json!(7), &json!("Pending")));
        assert_eq!(status["conditions"].as_array().unwrap()[4..], [theirs, json!(5)]);
    }

    /// Rules that come to one deed whenever they are asked.
    #[derive(Debug)]
    struct Fixed(Deed);

    impl Rules for Fixed {
        fn decide(&self, _: Timestamp) -> Deed {
            self.0.clone()
        }
    }

    #[test]
    fn the_rules_of_a_kind_say_the_rest_once_everything_is_right() {
        let acted = Declaration { traits: Traits { acted_on: true, ..FULL }, ..declaration(Map::new()) };
        let after = json!({"deliveredAt": "then", "phase": "Odd"});
        let before = json!({"phase": "Odd", "former": 1});
        let over = Standing::Over("Delivered", Reason::AsExpected, String::new());
        let rules = Fixed(Deed { wake: Some(at(9)), ..Deed::stands(over).with(Some(&before), &after) });
        let stored = Declaration { status: json!({"former": 1}).as_object().unwrap().clone(), ..acted.clone() };
        let plan = decide(&stored, Some(&rules), EPOCH);
        let status = *plan.status.expect("a write");
        assert_eq!((&status["phase"], &status["deliveredAt"]), (&json!("Delivered"), &json!("then")));
        assert!(!status.contains_key("former") && !status.contains_key("reason"), "{status:?}");
        assert_eq!((plan.wake, &status["conditions"][0]["status"]), (Some(at(9)), &json!("True")));
        // Neither of a faulty spec nor of one that is not acted on.
        for unready in
            [Declaration { faults: vec![fault("spec", "is wrong")], ..acted.clone() }, declaration(Map::new())]
        {
            assert_eq!(decide(&unready, Some(&rules), EPOCH), decide(&unready, None, EPOCH));
        }
        for nothing in [Deed::waits(), Deed { confirm: Confirm::whole(), ..Deed::stands(Standing::Ready) }] {
            let plan = decide(&acted, Some(&Fixed(nothing.clone())), EPOCH);
            assert_eq!((plan.confirm, plan.status), (nothing.confirm, None));
        }
        let over = Declaration { over: true, ..acted };
        assert_eq!(decide(&over, Some(&rules), EPOCH), Plan::settled());
    }

    #[test]
    fn nothing_is_said_of_what_is_being_deleted() {
        let leaving = Declaration { deleting: true, ..declaration(Map::new()) };
        assert_eq!(decide(&leaving, None, EPOCH), Plan::settled());
    }

    fn declarations() -> impl Strategy<Value = Declaration> {
        let found = prop_oneof![Just(Referent::Right), Just(Referent::Faulty), Just(Referent::Absent)];
        let says = prop_oneof![Just(Says::Conditions), Just(Says::Reason), Just(Says::Phase)];
        let faults = prop::collection::vec(("spec[.][a-z]{1,8}", "\\PC{0,20}"), 0..3);
        (1..4_i64, faults, prop::collection::vec(found, 0..3), any::<bool>(), says).prop_map(
            |(generation, faults, found, acted_on, says)| Declaration {
                generation: Some(generation),
                deleting: false,
                over: false,
                status: Map::new(),
                faults: faults.iter().map(|(field, problem)| fault(field, problem)).collect(),
                needs: found.into_iter().map(need).collect(),
                traits: Traits { acted_on, says },
            },
        )
    }

    proptest! {
        /// Whatever it was before, one write makes it true, and a second look writes nothing.
        #[test]
        fn a_write_settles_it(before in declarations(), after in declarations(), later in 1..100_000_i64) {
            let first = written(&before, EPOCH);
            let mut next = Declaration { status: first.clone(), traits: before.traits, ..after };
            if let Some(second) = decide(&next, None, at(later)).status {
                let of = |status: &Map<String, Value>| -> Vec<Condition> {
                    serde_json::from_value(status["conditions"].clone()).unwrap()
                };
                for (old, new) in of(&first).iter().zip(of(&second)) {
                    let moved = old.status != new.status;
                    prop_assert_eq!(new.last_transition_time, if moved { at(later) } else { EPOCH });
                    prop_assert_eq!(new.observed_generation, next.generation);
                }
                next.status = *second;
            }
            prop_assert_eq!(decide(&next, None, at(2 * later)), Plan::settled());
        }
    }

    /// Every kind takes what is written into its status, and gives it back.
    #[test]
    fn every_kind_keeps_its_conditions() {
        struct Walk;
        impl Visitor for Walk {
            fn visit<K: Kind + Check>(&mut self) {
                let traits = Traits::of::<K>();
                let faults = vec![fault("spec", "is wrong")];
                let status = written(&Declaration { faults, traits, ..declaration(Map::new()) }, EPOCH);
                let typed: K::Status = serde_json::from_value(Value::Object(status.clone())).expect(K::KIND);
                assert_eq!(serde_json::to_value(typed).unwrap(), Value::Object(status), "{}", K::KIND);
            }
        }
        kinds::visit(&mut Walk);
    }

    /// The status of each kind takes what its kind says, and nothing more could be said in it: a phase that freezes the spec
    /// belongs to whoever acts on the object.
    #[test]
    fn every_kind_says_as_much_as_its_status_holds() {
        struct Walk;
        impl Visitor for Walk {
            fn visit<K: Kind + Check>(&mut self) {
                let takes = |field: &str, value: &str| {
                    let status = serde_json::from_value::<K::Status>(json!({ field: value }));
                    let kept = status.and_then(serde_json::to_value);
                    kept.is_ok_and(|kept| kept.get(field).is_some())
                };
                let frozen =
                    K::FROZEN.is_some() || K::RULES.iter().any(|rule| rule.expression.contains("status.phase"));
                let says = if !takes("reason", "NotActedOn") || !takes("message", "-") {
                    Says::Conditions
                } else if frozen || !Standing::PHASES.iter().all(|phase| takes("phase", phase)) {
                    Says::Reason
                } else {
                    Says::Phase
                };
                assert_eq!(K::SAYS, says, "{}", K::KIND);
            }
        }
        kinds::visit(&mut Walk);
    }
}
