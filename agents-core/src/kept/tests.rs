//! A copy leads to the plan of the whole, or asks for it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{Agent, AgentProvider, runtime::RuntimeKind},
    decide::{
        Confirm, Plan,
        agent_run::{MAX_OBJECT_BYTES, RunSnapshot, Settings, decide},
    },
    look::Found,
    plan::Defaults,
    resolve::References,
    runtime::{Finish, Hindrance, Observation},
    status::Reason,
};

const T0: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn object<K: Kind>(name: &str, spec: &Value) -> Resource<K> {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": T0},
        "spec": spec,
    }))
    .expect("an object")
}

fn settings() -> Settings {
    Settings {
        defaults: Defaults {
            image: "agent:1".into(),
            runner_image: "agents:1".into(),
            service_account: "agents-run".into(),
            grace_seconds: 30,
            bounds: crate::plan::Bounds::default(),
        },
        default_runtime: RuntimeKind::Job,
        only_runtime: None,
        runtimes: [RuntimeKind::Job].into(),
        start_limit_seconds: 600,
        max_object_bytes: Some(MAX_OBJECT_BYTES),
        policy: crate::policy::Rules::default(),
    }
}

/// Large runs: sound ones, ones that can never be right, and ones that ask for what is not carried out.
fn spec() -> impl Strategy<Value = Value> {
    let payload = prop_oneof![Just("x".repeat(20_000)), Just("y".repeat(140_000))];
    let extra = prop_oneof![
        3 => Just(json!({})),
        1 => Just(json!({"outputs": [{"name": "a"}, {"name": "a"}]})),
        1 => Just(json!({"outputs": [{"name": "when"}]})),
        1 => Just(json!({"secrets": ["s"]})),
        1 => Just(json!({"goal": {"objective": "all of it"}})),
        1 => Just(json!({"workload": {"image": "other:1"}})),
        1 => Just(json!({"workload": {"resources": {"limits": {"cpu": "4"}}}})),
        1 => Just(json!({"runtimeOverrides": {"job": {"resources": {"limits": {"cpu": "4"}}}}})),
        1 => Just(json!({"runtime": {"type": "temporal"}})),
        1 => Just(json!({"runtime": {"type": "job", "config": {"colour": "red"}}})),
        1 => Just(json!({"implementation": {"inline": {"text": "{{ not rendered }}".repeat(2_000)}}})),
    ];
    (payload, extra, 0..3, any::<bool>()).prop_map(|(payload, extra, limit, suspend)| {
        let mut spec = json!({
            "agentRef": {"name": "writer"},
            "implementationSpecRef": {"name": "task"},
            "payloads": {"large": payload},
            "retryPolicy": {"limit": limit, "backoffSeconds": 7},
            "timeoutSeconds": 500,
            "suspend": suspend,
        });
        for (name, value) in extra.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        spec
    })
}

fn observation() -> impl Strategy<Value = Observation> {
    let uid = || Some("job-uid".to_owned());
    let cause = Hindrance { reason: Reason::ImagePullFailed, message: "no such image".into(), since: T0 };
    let finish = |exit: i32, cause: Option<Reason>| {
        Observation::Finished(Box::new(Finish {
            submitted_at: Some(T0),
            started_at: Some(T0),
            finished_at: T0,
            uid: Some("job-uid".into()),
            exit_code: Some(exit),
            cause: cause.map(|reason| (reason, "so it was".into())),
            report: None,
        }))
    };
    prop_oneof![
        3 => Just(Observation::Lost),
        1 => Just(Observation::Pending { submitted_at: T0, uid: uid(), cause: None }),
        1 => Just(Observation::Pending { submitted_at: T0, uid: uid(), cause: Some(cause) }),
        1 => Just(Observation::Running { submitted_at: T0, started_at: T0, uid: uid() }),
        1 => Just(Observation::Stopping),
        1 => Just(finish(0, None)),
        1 => Just(finish(1, Some(Reason::Evicted))),
    ]
}

/// One look at a run: what is observed, whether that is consistent and the run proven, and whether its agent is there.
#[derive(Debug, Clone)]
struct Look {
    observation: Observation,
    certain: (bool, bool),
    agent: bool,
    later: i64,
    cancel: bool,
}

fn look() -> impl Strategy<Value = Look> {
    (observation(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.8), 0_i64..400, prop::bool::weighted(0.1))
        .prop_map(|(observation, consistent, proven, agent, later, cancel)| Look {
            observation,
            certain: (consistent, proven),
            agent,
            later,
            cancel,
        })
}

/// The copy of a run, and what a cache takes for it.
fn kept<K: Kind>(object: &Resource<K>) -> Resource<K> {
    K::kept(object).unwrap_or_else(|| object.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_leads_to_the_plan_of_the_whole_or_asks_for_it(
        spec in spec(),
        work in prop_oneof![Just(10_usize), Just(60_000)],
        narrow in any::<bool>(),
        looks in prop::collection::vec(look(), 1..8),
    ) {
        let mut run: Resource<AgentRun> = object("run-1", &spec);
        let mut agent = json!({"providerRef": {"name": "shell"}});
        let arguments = json!(["-c", "{{ implementation.text }}", "{{ payloads.large }}"]);
        let mut provider = json!({"binary": "sh", "argsTemplate": arguments});
        // What goes with each other only where the run says more.
        if narrow {
            agent["resources"] = json!({"limits": {"cpu": "2"}});
            provider["workload"] = json!({"resources": {"requests": {"cpu": "3"}}});
        }
        let agent = Arc::new(object::<Agent>("writer", &agent));
        let provider = Arc::new(object::<AgentProvider>("shell", &provider));
        let work = object::<ImplementationSpec>("task", &json!({"text": "w".repeat(work)}));
        let mut now = T0;
        for Look { observation, certain: (consistent, proven), agent: is_there, later, cancel } in looks {
            now = now.checked_add(SignedDuration::from_secs(later)).expect("a time");
            run.spec.cancel = run.spec.cancel.or(cancel.then_some(true));
            let snapshot = |run: Resource<AgentRun>, work: Resource<ImplementationSpec>| {
                let references = References {
                    agent: if is_there { Found::Object(Arc::clone(&agent)) } else { Found::Absent },
                    provider: if is_there { Found::Object(Arc::clone(&provider)) } else { Found::Absent },
                    implementation: Found::Object(Arc::new(work)),
                };
                let mut snapshot = RunSnapshot::certain(Arc::new(run), references, observation.clone());
                snapshot.object_proven = proven;
                snapshot.submissions.values_mut().for_each(|sighting| sighting.consistent = consistent);
                snapshot
            };
            let whole = decide(&snapshot(run.clone(), work.clone()), &settings(), &[], now);
            prop_assert!(!whole.confirm.whole, "nothing is left out");
            let of_copy = decide(&snapshot(kept(&run), kept(&work)), &settings(), &[], now);
            if of_copy.confirm.whole {
                prop_assert_eq!(of_copy, Plan::confirm(Confirm::whole()));
                // What has been planned, or cannot be planned now, costs no read.
                let planned = run.status.as_ref().is_some_and(|status| status.plan_digest.is_some());
                let live = !matches!(observation, Observation::Lost);
                prop_assert!(!(planned && live), "a run under way is not read again");
                prop_assert!(is_there || live, "a run that waits for its agent is not read");
            } else if of_copy.confirm == whole.confirm {
                // A run that is held is planned later, so that what is wrong with its plan is told later.
                let held = of_copy.status.as_ref().is_some_and(|status| {
                    status.blocked_by.iter().any(|entry| ["Suspended", "Backoff"].contains(&entry.reason.as_str()))
                });
                if !held {
                    prop_assert_eq!(&of_copy, &whole);
                }
            }
            if let Some(status) = whole.status {
                run.status = Some(*status);
            }
        }
    }

    #[test]
    fn a_copy_is_small_and_knows_what_was_judged(spec in spec()) {
        let run: Resource<AgentRun> = object("run-1", &spec);
        let copy = kept(&run);
        prop_assert!(stored_bytes(&copy.spec) <= KEPT_WHOLE / 2, "{}", stored_bytes(&copy.spec));
        let left_out = copy.metadata.left_out.as_ref().expect("something is left out");
        prop_assert_eq!(left_out.bytes, serde_json::to_string(&run.spec).expect("JSON").len());
        prop_assert_eq!(faults(&copy), faults(&run));
        prop_assert_eq!(spec_hash(&copy), spec_hash(&run));
        prop_assert!(AgentRun::kept(&copy).is_none(), "a copy is not copied again");
    }
}

/// The run says what lets the Agent and the provider go with each other, where its copy does not know it.
#[test]
fn what_a_copy_does_not_say_is_not_held_against_the_run() {
    let resources = |kind: &str, cpu: &str| json!({"resources": {kind: {"cpu": cpu}}});
    let agent = json!({"providerRef": {"name": "shell"}, "resources": {"limits": {"cpu": "2"}}});
    let provider = json!({"binary": "sh", "workload": resources("requests", "3")});
    let decided = |run: &Resource<AgentRun>| {
        let references = References {
            agent: Found::Object(Arc::new(object::<Agent>("writer", &agent))),
            provider: Found::Object(Arc::new(object::<AgentProvider>("shell", &provider))),
            implementation: Found::Object(Arc::new(object("task", &json!({"text": "work"})))),
        };
        let snapshot = RunSnapshot::certain(Arc::new(kept(run)), references, Observation::Lost);
        decide(&snapshot, &settings(), &[], T0)
    };
    let spec = json!({
        "agentRef": {"name": "writer"}, "implementationSpecRef": {"name": "task"},
        "payloads": {"large": "x".repeat(20_000)}, "workload": resources("limits", "4"),
    });
    let run: Resource<AgentRun> = object("run-1", &spec);
    assert!(kept(&run).spec.workload.is_none());
    assert_eq!(decided(&run), Plan::confirm(Confirm::whole()));
}

#[test]
fn usual_objects_are_kept_whole() {
    let spec = json!({"agentRef": {"name": "a"}, "implementation": {"inline": {"text": "t".repeat(6_000)}}});
    assert!(AgentRun::kept(&object("r", &spec)).is_none());
    assert!(ImplementationSpec::kept(&object("w", &json!({"text": "t".repeat(6_000)}))).is_none());
}
