//! The table of a submission, row by row, through `decide`.

use std::fmt::Write as _;

use super::*;

/// A name, and how it comes to be.
type Case = (&'static str, fn(&mut RunSnapshot));

/// What is recorded of the attempt.
const COLUMNS: [Case; 4] = [
    ("nothing", |_| {}),
    ("handed over here", |s| current_mut(s).handed_over = true),
    ("under way", |s| {
        current_mut(s).observation = running(at(0));
        apply_now(s, at(0));
    }),
    ("being ended", |s| {
        current_mut(s).observation = running(at(0));
        apply_now(s, at(0));
        set_spec(s, |spec| spec.cancel = Some(true));
        apply_now(s, at(1));
        set_spec(s, |spec| spec.cancel = None);
    }),
];

/// What is seen of it.
const ROWS: [Case; 9] = [
    ("in doubt", |s| {
        current_mut(s).in_doubt = Some("whose is it?".into());
        current_mut(s).observation = running(at(0));
    }),
    ("nothing, by a cache", |s| current_mut(s).observation = Observation::Lost),
    ("nothing, by its runtime", |s| {
        current_mut(s).observation = Observation::Lost;
        current_mut(s).consistent = true;
    }),
    ("its end without a word, by a cache", |s| current_mut(s).observation = without_a_word()),
    ("its end without a word, by its runtime", |s| {
        current_mut(s).observation = without_a_word();
        current_mut(s).consistent = true;
    }),
    ("its end, with a report", |s| current_mut(s).observation = finished(s, 0, at(9))),
    ("that it waits", |s| current_mut(s).observation = pending(at(0), Some((Reason::Unschedulable, "0/3 nodes")))),
    ("that it runs", |s| current_mut(s).observation = running(at(0))),
    ("that it runs, and should not", |s| {
        current_mut(s).observation = running(at(0));
        set_spec(s, |spec| spec.cancel = Some(true));
    }),
];

fn without_a_word() -> Observation {
    Observation::Finished(Box::new(Finish {
        submitted_at: Some(at(0)),
        started_at: Some(at(0)),
        finished_at: at(9),
        uid: None,
        exit_code: None,
        cause: None,
        report: None,
    }))
}

fn set_spec(snapshot: &mut RunSnapshot, change: fn(&mut AgentRunSpec)) {
    change(&mut Arc::make_mut(&mut snapshot.run).spec);
}

/// A Plan in a few words.
fn in_words(plan: &Plan<AgentRunStatus>) -> String {
    let Plan { confirm, before, status, after, wake: _ } = plan;
    let Confirm { object, submissions, whole } = confirm;
    let asked = [(*object, "the run"), (!submissions.is_empty(), "the submission"), (*whole, "all")];
    let asked = asked.iter().filter(|(asked, _)| *asked).map(|(_, what)| format!("ask for {what}"));
    let effects = |effects: &[Effect]| -> Vec<String> {
        kinds(effects).iter().filter(|kind| **kind != EffectKind::Emit).map(|kind| format!("{kind:?}")).collect()
    };
    let stored = status.as_deref().map(|status| {
        let last = status.attempts.last().and_then(|last| last.finished_at.map(|_| last.reason.clone())).flatten();
        match (last, status.phase.expect("each status says one")) {
            (Some(reason), phase) => format!("{phase:?}, the attempt ended: {reason}"),
            (None, phase) => format!("{phase:?}"),
        }
    });
    let words: Vec<String> = asked.chain(effects(before)).chain(stored).chain(effects(after)).collect();
    if words.is_empty() { "-".to_owned() } else { words.join("; ") }
}

#[test]
fn each_row_says_what_comes_next() {
    let mut table = String::new();
    for (seen, see) in ROWS {
        writeln!(table, "{seen}:").unwrap();
        for (recorded, record) in COLUMNS {
            let mut s = snapshot(&json!({}));
            record(&mut s);
            current_mut(&mut s).consistent = false;
            see(&mut s);
            writeln!(table, "  {recorded}: {}", in_words(&decide_at(&s, at(10)))).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}
