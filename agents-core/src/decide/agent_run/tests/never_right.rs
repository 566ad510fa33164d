//! What can never be right costs no attempt: it is found when the run is resolved or planned.

use serde_json::{Value, json};

use super::*;
use crate::exec::{MAX_PLANNED, MAX_STRING};

fn spec(more: &Value) -> Value {
    let mut spec = json!({"retryPolicy": {"limit": 3}});
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

/// The message with which a run ends that nothing was started for.
#[track_caller]
fn ends_without_an_attempt(mut snapshot: RunSnapshot) -> String {
    let plan = decide_at(&snapshot, at(1));
    assert_eq!(plan, Plan::confirm(both(&snapshot)), "an end for good is judged on proven facts");
    current_mut(&mut snapshot).consistent = true;
    let plan = decide_at(&snapshot, at(1));
    assert_eq!(plan.before, []);
    apply(&mut snapshot, &plan);
    let status = status(&snapshot);
    assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Failed), Some("InvalidSpec")), "{status:?}");
    assert_eq!((status.attempt, status.attempts.len()), (None, 0));
    status.message.clone().unwrap()
}

#[test]
fn a_repository_that_git_may_never_get_is_an_invalid_spec() {
    for (git, field) in [
        (json!({"url": "https://example.com/a", "ref": "main~2"}), "ref"),
        (json!({"url": "https://example.com/a", "ref": "@{u}"}), "ref"),
        (json!({"url": "https://example.com/a", "ref": "+a:b"}), "ref"),
        (json!({"url": "https://example.com/a", "path": "../x"}), "path"),
        (json!({"url": "https://example.com/a", "path": "/x"}), "path"),
        (json!({"url": "ext::sh -c id"}), "url"),
        (json!({"url": "ftp://example.com/a"}), "url"),
        (json!({"url": "https://169.254.169.254/a"}), "url"),
        (json!({"url": "http://[::ffff:a9fe:a9fe]/a"}), "url"),
        (json!({"url": "http://hunter2@example.com/a"}), "url"),
        (json!({"url": "https://user:hunter2@example.com/a"}), "url"),
        (json!({"url": "ssh://git:hunter2@example.com/a"}), "url"),
        // What `agents run` makes an address of means nothing to a controller.
        (json!({"url": "."}), "url"),
        (json!({"url": "/srv/repository"}), "url"),
    ] {
        let message = ends_without_an_attempt(snapshot(&spec(&json!({"execution": {"coordinates": {"git": git}}}))));
        assert!(message.starts_with(&format!("spec.execution.coordinates.git.{field}: ")), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let git = json!({"url": "git@example.com:a/b", "ref": "HEAD", "path": "a/b"});
    let sound = snapshot(&spec(&json!({"execution": {"coordinates": {"git": git}}})));
    assert_eq!(kinds(&decide_at(&sound, at(1)).before), [EffectKind::Submit]);
}

#[test]
fn arguments_that_no_kernel_takes_are_an_invalid_spec() {
    let with = |args: usize, size: usize| {
        let mut snapshot = snapshot(&spec(&json!({})));
        let provider = json!({"binary": "sh", "argsTemplate": vec!["{{ implementation.text }}"; args]});
        snapshot.references.provider = Found::Object(Arc::new(object::<AgentProvider>("shell", &provider)));
        let work = json!({"text": "x".repeat(size)});
        snapshot.references.implementation = Found::Object(Arc::new(object::<ImplementationSpec>("task", &work)));
        snapshot
    };
    let message = ends_without_an_attempt(with(1, MAX_STRING + 1));
    assert!(message.starts_with("AgentProvider/shell: argsTemplate[0]: renders 131072 bytes; "), "{message}");
    let message = ends_without_an_attempt(with(20, 120_000));
    assert!(message.contains("argsTemplate: ") && message.contains(&MAX_PLANNED.to_string()), "{message}");
    for (args, size) in [(1, MAX_STRING), (13, 120_000)] {
        assert_eq!(kinds(&decide_at(&with(args, size), at(1)).before), [EffectKind::Submit], "{args} of {size}");
    }
}

#[test]
fn a_pod_that_could_not_be_made_is_an_invalid_spec() {
    for (workload, field) in [
        (json!({"image": "ghcr.io/Example/agent"}), "image"),
        (json!({"image": "../agent"}), "image"),
        (json!({"image": "a/".repeat(500) + "a"}), "image"),
        (json!({"resources": {"memory": "-1Gi"}}), "resources.memory"),
        (json!({"resources": {"limits": {"cpu": 0}}}), "resources.limits.cpu"),
        (json!({"resources": {"cpu": "0"}}), "resources.cpu"),
        (json!({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}), "resources.requests.cpu"),
        (json!({"resources": {"limits": {"memory": "1e19"}}}), "resources.limits.memory"),
        (json!({"resources": {"limits": {"nvidia.com/gpu": "1.5"}}}), "resources.limits.nvidia.com/gpu"),
    ] {
        let message = ends_without_an_attempt(snapshot(&spec(&json!({"workload": workload}))));
        assert!(message.starts_with(&format!("spec.workload.{field}: ")), "{message}");
        assert!(message.len() < 300, "{message}");
    }
    let large =
        json!({"image": "agent", "resources": {"memory": "1e9", "limits": {"cpu": "1e6", "nvidia.com/gpu": 1000}}});
    let plan = decide_at(&snapshot(&spec(&json!({"workload": large}))), at(1));
    let [Effect::Submit(submission)] = &plan.before[..] else { panic!("{plan:?}") };
    assert_eq!(submission.pod.container.limits["memory"], "1e9");
}

#[test]
fn a_run_whose_second_attempt_cannot_start_any_more_waits_for_the_provider() {
    let mut snapshot = snapshot(&spec(&json!({})));
    current_mut(&mut snapshot).observation = running(at(0));
    let plan = decide_at(&snapshot, at(1));
    apply(&mut snapshot, &plan);
    current_mut(&mut snapshot).observation = finished(&snapshot, 1, at(5));
    let plan = decide_at(&snapshot, at(5));
    apply(&mut snapshot, &plan);
    let provider = json!({"binary": "sh", "argsTemplate": ["{{ implementation.text }}\u{0}"]});
    snapshot.references.provider = Found::Object(Arc::new(object::<AgentProvider>("shell", &provider)));
    current_mut(&mut snapshot).observation = Observation::Lost;
    current_mut(&mut snapshot).consistent = true;
    let plan = decide_at(&snapshot, at(60));
    assert_eq!(plan.before, []);
    apply(&mut snapshot, &plan);
    let [blocked] = &status(&snapshot).blocked_by[..] else { panic!("{:?}", status(&snapshot)) };
    assert_eq!(blocked.reason, "ReferenceUnreadable");
    assert!(blocked.message.contains("argsTemplate[0]: renders a NUL"), "{}", blocked.message);
}

#[test]
fn what_is_wrong_with_an_agent_or_a_provider_is_waited_for() {
    let large = "x".repeat(MAX_STRING);
    for (agent, provider, field) in [
        (json!({"env": [{"name": "A", "value": large}]}), json!({}), "spec.env[0].value"),
        (json!({"env": [{"name": "A", "value": "a\u{0}b"}]}), json!({}), "spec.env[0].value"),
        (
            json!({}),
            json!({"inputFiles": [{"path": "/workspace/.agent/log.txt", "content": ""}]}),
            "spec.inputFiles[0].path",
        ),
        (json!({}), json!({"inputFiles": [{"path": "/workspace/.", "content": ""}]}), "spec.inputFiles[0].path"),
    ] {
        let mut snapshot = snapshot(&spec(&json!({})));
        let mut whole = [json!({"providerRef": {"name": "shell"}}), json!({"binary": "sh"})];
        for (whole, more) in whole.iter_mut().zip([agent, provider]) {
            whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        snapshot.references.agent = Found::Object(Arc::new(object::<Agent>("writer", &whole[0])));
        snapshot.references.provider = Found::Object(Arc::new(object::<AgentProvider>("shell", &whole[1])));
        let plan = decide_at(&snapshot, at(1));
        assert_eq!(plan.before, []);
        apply(&mut snapshot, &plan);
        let [blocked] = &status(&snapshot).blocked_by[..] else { panic!("{:?}", status(&snapshot)) };
        assert_eq!(blocked.reason, "ReferenceUnreadable");
        assert!(blocked.message.contains(field), "{}", blocked.message);
    }
}
