//! Service accounts: whichever way a run comes to have one, the operator's rules judge it before anything starts.

use serde_json::{Value, json};

use super::*;

fn allowing(entries: &[&str]) -> Settings {
    let mut settings = settings();
    for entry in entries {
        settings.policy.service_accounts.allow(entry).unwrap();
    }
    settings
}

/// A run whose Agent and provider say this besides.
fn with(run: &Value, agent: &Value, provider: &Value) -> RunSnapshot {
    let mut snapshot = snapshot(run);
    let mut whole = [json!({"providerRef": {"name": "shell"}}), json!({"binary": "sh"})];
    for (whole, more) in whole.iter_mut().zip([agent, provider]) {
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    snapshot.references.agent = Found::Object(Arc::new(object::<Agent>("writer", &whole[0])));
    snapshot.references.provider = Found::Object(Arc::new(object::<AgentProvider>("shell", &whole[1])));
    snapshot
}

/// Every place that can name an account, and the field a denial names.
fn places(account: &str) -> Vec<(RunSnapshot, &'static str)> {
    let none = json!({});
    let job = json!({"job": {"serviceAccount": account}});
    let other = json!({"job": {"serviceAccountName": account}});
    let config = json!({"type": "job", "config": {"serviceAccount": account}});
    let workload = json!({"workload": {"serviceAccountName": account}});
    vec![
        (with(&json!({"runtime": job}), &none, &none), "spec.runtime.job.serviceAccount"),
        (with(&json!({"runtime": other}), &none, &none), "spec.runtime.job.serviceAccount"),
        (with(&json!({"runtime": config}), &none, &none), "spec.runtime.job.serviceAccount"),
        (with(&json!({"runtimeOverrides": job}), &none, &none), "spec.runtimeOverrides.job.serviceAccount"),
        (with(&json!({"runtimeOverrides": other}), &none, &none), "spec.runtimeOverrides.job.serviceAccount"),
        (with(&none, &json!({"runtime": job}), &none), "Agent/writer spec.runtime.job.serviceAccount"),
        (with(&none, &json!({"runtime": config}), &none), "Agent/writer spec.runtime.job.serviceAccount"),
        (with(&none, &none, &workload), "AgentProvider/shell spec.workload.serviceAccountName"),
    ]
}

#[test]
fn an_account_that_is_not_allowed_holds_the_run_wherever_it_is_named() {
    for account in ["admin", "", "default", "agents-run.", "Agents-Run", "\u{0430}gents-run", "agents-controller"] {
        for (mut snapshot, field) in places(account) {
            let plan = decide(&snapshot, &allowing(&["builder", "elsewhere/admin"]), &[], at(1));
            assert_eq!((plan.before.len(), plan.wake), (0, None), "{account:?} at {field}");
            apply(&mut snapshot, &plan);
            let status = status(&snapshot);
            assert_eq!(status.phase, Some(Phase::Pending));
            let [blocked] = &status.blocked_by[..] else { panic!("{status:?}") };
            assert_eq!(blocked.reason, "ServiceAccountNotAllowed", "{account:?} at {field}");
            assert!(
                blocked.message.starts_with(&format!("{field} names the service account {account:?}")),
                "{blocked:?}"
            );
            assert!(blocked.unblocked_by.contains("--allowed-service-accounts"), "{blocked:?}");
            assert_eq!(status.attempts, []);
        }
    }
}

#[test]
fn the_default_account_and_those_listed_start() {
    for (account, entries) in [("agents-run", &[][..]), ("builder", &["builder"]), ("builder", &["ns/builder"])] {
        for (snapshot, field) in places(account) {
            let plan = decide(&snapshot, &allowing(entries), &[], at(1));
            let [Effect::Submit(submission)] = &plan.before[..] else { panic!("{field}: {plan:?}") };
            assert_eq!(submission.pod.service_account, account);
        }
    }
    let plan = decide_at(&snapshot(&json!({})), at(1));
    let [Effect::Submit(submission)] = &plan.before[..] else { panic!("{plan:?}") };
    assert_eq!(submission.pod.service_account, "agents-run");
}

#[test]
fn a_run_that_was_held_goes_on_once_its_account_is_listed() {
    for (mut snapshot, field) in places("builder") {
        let plan = decide(&snapshot, &allowing(&[]), &[], at(1));
        apply(&mut snapshot, &plan);
        let plan = decide(&snapshot, &allowing(&["builder"]), &[], at(60));
        assert_eq!(kinds(&plan.before), [EffectKind::Submit], "{field}");
    }
}

#[test]
fn the_account_that_wins_is_the_one_that_is_judged() {
    let of = |account: &str| json!({"job": {"serviceAccount": account}});
    let workload = json!({"workload": {"serviceAccountName": "admin"}});
    let hidden = with(&json!({"runtimeOverrides": of("builder")}), &json!({"runtime": of("admin")}), &workload);
    assert_eq!(kinds(&decide(&hidden, &allowing(&["builder"]), &[], at(1)).before), [EffectKind::Submit]);
    let shown = with(&json!({"runtimeOverrides": of("admin")}), &json!({"runtime": of("builder")}), &json!({}));
    assert_eq!(decide(&shown, &allowing(&["builder"]), &[], at(1)).before, []);
}

#[test]
fn a_process_has_no_account_to_judge() {
    let local =
        Settings { only_runtime: Some(RuntimeKind::Process), runtimes: [RuntimeKind::Process].into(), ..allowing(&[]) };
    for (snapshot, field) in places("admin") {
        assert_eq!(kinds(&decide(&snapshot, &local, &[], at(1)).before), [EffectKind::Submit], "{field}");
    }
}

#[test]
fn a_wish_to_stop_needs_no_permission() {
    let (mut snapshot, _) = places("admin").remove(0);
    Arc::make_mut(&mut snapshot.run).spec.cancel = Some(true);
    current_mut(&mut snapshot).consistent = true;
    let plan = decide_at(&snapshot, at(1));
    apply(&mut snapshot, &plan);
    assert_eq!(status(&snapshot).phase, Some(Phase::Cancelled));
}
