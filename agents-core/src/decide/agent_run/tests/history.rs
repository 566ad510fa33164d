//! Histories drawn at random: starts, ends, losses, crashes, refused statuses, long absences and wishes in any order,
//! against a runtime that honours the adapter's guarantees and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::common::ConditionStatus;

/// What happens to a run between two decisions.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Time passes.
    Wait(i64),
    /// The attempt's container starts.
    Start,
    /// The attempt ends with this code.
    Exit(i32),
    /// The attempt's runtime object is deleted by hand.
    Vanish,
    /// The attempt's runtime object is collected, its time after its end being over.
    Collect,
    /// The user cancels.
    Cancel,
    /// The user suspends or resumes.
    Suspend(bool),
    /// From now on statuses are refused, or stored again.
    Refuse(bool),
    /// The engine dies before the decision.
    Restart,
    /// The engine dies after the effects before, before the status is stored.
    CrashBeforeStore,
    /// The engine dies after the status is stored, before the effects after.
    CrashBeforeAfter,
    /// The engine is away for longer than results are kept.
    Away,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (1i64..200).prop_map(Event::Wait),
        3 => Just(Event::Start),
        3 => (0i32..3).prop_map(Event::Exit),
        1 => Just(Event::Vanish),
        2 => Just(Event::Collect),
        1 => Just(Event::Cancel),
        1 => any::<bool>().prop_map(Event::Suspend),
        2 => any::<bool>().prop_map(Event::Refuse),
        1 => Just(Event::Restart),
        1 => Just(Event::CrashBeforeStore),
        1 => Just(Event::CrashBeforeAfter),
        1 => Just(Event::Away),
    ];
    proptest::collection::vec(event, 0..40)
}

/// The runtime, and what an engine remembers of the run.
struct Model {
    snapshot: RunSnapshot,
    now: Timestamp,
    there: BTreeMap<String, Observation>,
    kept: BTreeSet<String>,
    executions: BTreeMap<String, u32>,
    handed_over: Option<i32>,
    unstored: Option<Unstored>,
    refused: bool,
    /// An attempt that no status records was deleted by hand: only the engine's memory is left of it, and the stated
    /// limit is what a crash would lose.
    only_remembered: bool,
    terminal: Option<AgentRunStatus>,
}

impl Model {
    fn new(limit: i32) -> Self {
        let spec = json!({"retryPolicy": {"limit": limit, "backoffSeconds": 7}, "timeoutSeconds": 500});
        Self {
            snapshot: snapshot(&spec),
            now: at(0),
            there: BTreeMap::new(),
            kept: BTreeSet::new(),
            executions: BTreeMap::new(),
            handed_over: None,
            unstored: None,
            refused: false,
            only_remembered: false,
            terminal: None,
        }
    }

    fn name(&self) -> String {
        current_ref(&self.snapshot.run, &self.snapshot.references, &settings()).name.to_string()
    }

    fn attempt(&self) -> i32 {
        current_attempt(self.snapshot.run.status.as_ref())
    }

    fn is_recorded(&self) -> bool {
        self.snapshot.run.status.as_ref().and_then(open_attempt).is_some()
    }

    /// Whether this engine knows that the attempt was handed over.
    fn knows(&self) -> bool {
        self.is_recorded() || self.handed_over == Some(self.attempt())
    }

    /// The engine dies, unless that is what the stated limit is about.
    fn die(&mut self) -> bool {
        if self.only_remembered {
            return false;
        }
        (self.handed_over, self.unstored) = (None, None);
        true
    }

    fn wait(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    fn happen(&mut self, event: Event) {
        let name = self.name();
        let (now, knows) = (self.now, self.knows());
        let run = Arc::make_mut(&mut self.snapshot.run);
        match event {
            Event::Wait(seconds) => self.wait(seconds),
            Event::Start => {
                if let Some(observation @ Observation::Pending { .. }) = self.there.get_mut(&name) {
                    *observation = running(now);
                }
            }
            Event::Exit(code) => {
                if let Some(observation @ Observation::Running { .. }) = self.there.get_mut(&name) {
                    *observation = finished(&self.snapshot, code, now);
                }
            }
            Event::Vanish if knows => {
                self.only_remembered |= self.there.remove(&name).is_some() && !self.is_recorded();
            }
            // A restarted engine looks before anything is collected, or knows that it was away for too long.
            Event::Collect if knows && !self.kept.contains(&name) => {
                if matches!(self.there.get(&name), Some(Observation::Finished(_))) {
                    self.there.remove(&name);
                    // In its time the engine would have kept it, had its status been refused.
                    self.only_remembered |= !self.is_recorded();
                }
            }
            Event::Cancel => run.spec.cancel = Some(true),
            Event::Suspend(suspend) => run.spec.suspend = Some(suspend),
            Event::Refuse(refused) => self.refused = refused,
            Event::Restart => {
                self.die();
            }
            Event::Away => {
                if self.die() {
                    // A leader acts for as long as its last renewal lasts.
                    self.wait(15);
                    self.snapshot.blind_since = Some(self.now);
                    self.wait(100_000);
                    let kept = &self.kept;
                    self.there.retain(|name, _| kept.contains(name));
                }
            }
            Event::Vanish | Event::Collect | Event::CrashBeforeStore | Event::CrashBeforeAfter => {}
        }
    }

    /// Decides, reading consistently what the decision wants to be read so.
    fn decide(&mut self) -> Result<Plan<AgentRunStatus>, TestCaseError> {
        let mut confirmed = Confirm::default();
        loop {
            let name = self.name();
            let observation = self.there.get(&name).cloned().unwrap_or(Observation::Lost);
            if self.is_recorded() {
                self.handed_over = None;
            } else if observation != Observation::Lost {
                self.handed_over = Some(self.attempt());
            }
            let kept = self.kept.contains(&name);
            let key = current_key(&self.snapshot.run);
            let consistent = confirmed.submissions.contains(&key);
            let handed_over = self.handed_over == Some(self.attempt());
            let sighting = Sighting { consistent, kept, handed_over, ..Sighting::cached(observation) };
            self.snapshot.submissions = [(key, sighting)].into();
            self.snapshot.unstored = self.unstored.clone();
            let plan = decide_at(&self.snapshot, self.now);
            prop_assert_eq!(&plan, &decide_at(&self.snapshot, self.now), "the same snapshot gives the same Plan");
            if confirmed.covers(&plan.confirm) {
                return Ok(plan);
            }
            prop_assert!(plan.before.is_empty() && plan.status.is_none() && plan.after.is_empty());
            confirmed = confirmed.and(plan.confirm);
        }
    }

    fn perform(&mut self, effect: &Effect) -> Result<(), TestCaseError> {
        match effect {
            Effect::Submit(submission) => {
                let name = submission.name.to_string();
                if !self.there.contains_key(&name) {
                    *self.executions.entry(name.clone()).or_default() += 1;
                    self.there.insert(name, pending(self.now, None));
                }
                self.handed_over = Some(submission.key.attempt);
            }
            Effect::Cancel { reference, .. } => {
                let attempt = status(&self.snapshot).attempts.last();
                prop_assert!(attempt.unwrap().stopping.is_some(), "the intent is recorded first");
                self.there.remove(reference.name.as_str());
            }
            Effect::Keep { reference } => {
                self.kept.insert(reference.name.to_string());
            }
            Effect::LetGo { reference } => {
                self.kept.remove(reference.name.as_str());
            }
            Effect::Emit(_) => {}
        }
        Ok(())
    }

    /// One pass of the engine's loop, cut short where `event` says so.
    fn reconcile(&mut self, event: Event) -> Result<(), TestCaseError> {
        let plan = self.decide()?;
        for effect in &plan.before {
            let kind = effect.kind();
            prop_assert!(kind != EffectKind::Cancel && kind != EffectKind::LetGo, "{kind:?} comes after the record");
            self.perform(effect)?;
        }
        if matches!(event, Event::CrashBeforeStore) && self.die() {
            return Ok(());
        }
        if plan.status.is_some() {
            if self.refused {
                let times = self.unstored.as_ref().map_or(0, |unstored| unstored.times) + 1;
                self.unstored = Some(Unstored { times, refused: true, message: "refused".into() });
                return Ok(());
            }
            self.unstored = None;
            apply(&mut self.snapshot, &plan);
            self.only_remembered = false;
            self.check_status()?;
        }
        if matches!(event, Event::CrashBeforeAfter) && self.die() {
            return Ok(());
        }
        plan.after.iter().try_for_each(|effect| self.perform(effect))
    }

    fn check_status(&mut self) -> Result<(), TestCaseError> {
        let status = status(&self.snapshot);
        if let Some(was) = &self.terminal {
            prop_assert_eq!(was, status, "a terminal status never changes");
        }
        let phase = status.phase.unwrap();
        if phase.is_terminal() {
            prop_assert!(status.blocked_by.is_empty());
            self.terminal = Some(status.clone());
        } else {
            let started = status.attempts.last().is_some_and(|a| a.started_at.is_some() && a.finished_at.is_none());
            let running = status.reason.as_deref() == Some("Running") || started;
            prop_assert!(running || !status.blocked_by.is_empty(), "nothing waits without a reason: {status:?}");
        }
        let true_of =
            |kind: &str| status.conditions.iter().any(|c| c.kind == kind && c.status == ConditionStatus::True);
        prop_assert_eq!(true_of("Succeeded"), phase == Phase::Succeeded);
        prop_assert_eq!(true_of("Failed"), phase == Phase::Failed);
        prop_assert_eq!(true_of("Cancelled"), phase == Phase::Cancelled);
        prop_assert_eq!(true_of("Blocked"), !status.blocked_by.is_empty(), "{:?}", status);
        Ok(())
    }

    /// What lives once nothing disturbs the engine any more and enough time has passed.
    fn check_end(&mut self) -> Result<(), TestCaseError> {
        for (name, count) in &self.executions {
            prop_assert_eq!(*count, 1, "{} executed more than once", name);
        }
        let current = self.name();
        let live: Vec<_> = self.there.iter().filter(|(_, seen)| seen.is_live()).map(|(name, _)| name.clone()).collect();
        if self.terminal.is_some() {
            prop_assert_eq!(live, Vec::<String>::new(), "something lives of a run that has ended");
            return Ok(());
        }
        // Only what has not started may still live, and only as the attempt that is followed.
        prop_assert!(live.iter().all(|name| *name == current), "{:?} lives beside {}", live, current);
        for name in &live {
            prop_assert!(matches!(self.there[name], Observation::Pending { .. }), "{:?}", self.there[name]);
            prop_assert!(self.is_recorded(), "what lives is recorded by then");
        }
        // A run that has not ended and has nothing alive is held by its user.
        let held = self.snapshot.run.spec.suspend == Some(true);
        prop_assert!(!live.is_empty() || held, "nobody follows {:?}", self.snapshot.run.status);
        // And the end that is left to it, it takes.
        Arc::make_mut(&mut self.snapshot.run).spec.cancel = Some(true);
        for _ in 0..3 {
            self.reconcile(Event::Wait(0))?;
        }
        prop_assert!(self.terminal.is_some(), "{:?}", self.snapshot.run.status);
        prop_assert!(!self.there.values().any(Observation::is_live), "cancelled, and {:?} lives", self.there);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// From any history of starts, ends, losses, crashes, refusals and wishes: no attempt executes twice, terminal phases
    /// stick, nothing waits without a reason, and nothing lives that nobody follows.
    #[test]
    fn every_history_keeps_the_promises(events in events(), limit in 0i32..3) {
        let mut model = Model::new(limit);
        for event in events.into_iter().chain([Event::Refuse(false)]).chain([Event::Wait(1000); 12]) {
            model.happen(event);
            model.reconcile(event)?;
        }
        model.check_end()?;
    }
}
