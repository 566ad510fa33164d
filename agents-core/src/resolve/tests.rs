//! References followed and layers laid over each other, from manifests.

use proptest::{option, prelude::*};
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn object<K: Kind>(name: &str, spec: &Value) -> Resource<K> {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
}

/// Which layers say something, and what they say.
#[derive(Debug, Clone)]
struct Layers {
    provider: Option<String>,
    agent: Option<String>,
    run: Option<String>,
}

impl Layers {
    fn winner(&self) -> Option<&String> {
        self.run.as_ref().or(self.agent.as_ref()).or(self.provider.as_ref())
    }
}

fn layers(of: &'static str) -> impl Strategy<Value = Layers> {
    let said = move || option::of(of);
    (said(), said(), said()).prop_map(|(provider, agent, run)| Layers { provider, agent, run })
}

proptest! {
    #[test]
    fn the_run_wins_over_its_agent_and_the_agent_over_the_provider(image in layers("[a-z]{1,8}"), memory in layers("[1-9][0-9]{0,3}Mi"), input in layers("[a-z]{1,8}")) {
        let mut provider = json!({"binary": "b", "workload": {"resources": {}}});
        let mut agent = json!({"providerRef": {"name": "p"}, "inputs": {}, "resources": {}, "runtime": {"job": {}}});
        let mut run = json!({
            "agentRef": {"name": "a"}, "implementation": {"inline": {"text": "t"}},
            "parameters": {}, "workload": {"resources": {}},
        });
        if let Some(image) = &image.provider { provider["workload"]["image"] = image.as_str().into(); }
        if let Some(image) = &image.agent { agent["runtime"]["job"]["image"] = image.as_str().into(); }
        if let Some(image) = &image.run { run["workload"]["image"] = image.as_str().into(); }
        if let Some(memory) = &memory.provider { provider["workload"]["resources"]["memory"] = memory.as_str().into(); }
        if let Some(memory) = &memory.agent { agent["resources"]["memory"] = memory.as_str().into(); }
        if let Some(memory) = &memory.run { run["workload"]["resources"]["memory"] = memory.as_str().into(); }
        // A provider has no parameters.
        if let Some(input) = &input.agent { agent["inputs"]["k"] = input.as_str().into(); }
        if let Some(input) = &input.run { run["parameters"]["k"] = input.as_str().into(); }
        let references = References {
            agent: Found::Object(Arc::new(object("a", &agent))),
            provider: Found::Object(Arc::new(object("p", &provider))),
            implementation: Found::Absent,
        };
        let resolved = resolve(&object("r", &run), &references).unwrap();
        prop_assert_eq!(resolved.image.as_ref(), image.winner());
        prop_assert_eq!(resolved.requests.get("memory"), memory.winner());
        prop_assert_eq!(resolved.limits.get("memory"), memory.winner());
        prop_assert_eq!(resolved.inputs.get("k"), input.run.as_ref().or(input.agent.as_ref()));
    }

    #[test]
    fn exactly_what_is_absent_is_named(agent in any::<bool>(), provider in any::<bool>(), work in any::<bool>()) {
        let found = |there: bool, name: &str| if there { Some(name.to_owned()) } else { None };
        let references = References {
            agent: if agent { Found::Object(Arc::new(object("a", &json!({"providerRef": {"name": "p"}})))) } else { Found::Absent },
            provider: if provider { Found::Object(Arc::new(object("p", &json!({"binary": "b"})))) } else { Found::Absent },
            implementation: if work { Found::Object(Arc::new(object("w", &json!({"text": "t"})))) } else { Found::Absent },
        };
        let run = object("r", &json!({"agentRef": {"name": "a"}, "implementationRef": {"name": "w"}}));
        let named: Vec<_> = match resolve(&run, &references) {
            Ok(_) => vec![],
            Err(Unresolved::Missing(missing)) => missing.into_iter().map(|missing| missing.object).collect(),
            Err(Unresolved::Invalid(faults)) => return Err(TestCaseError::fail(format!("{faults:?}"))),
        };
        // Which provider is wanted is known only from the agent.
        let expected: Vec<_> = [
            found(!agent, "Agent/a"),
            found(agent && !provider, "AgentProvider/p"),
            found(!work, "ImplementationSpec/w"),
        ].into_iter().flatten().collect();
        prop_assert_eq!(named, expected);
    }

    #[test]
    fn a_value_is_refused_by_its_bytes_and_named(name in "[a-z]{1,10}", bytes in 2000usize..2100, wide in any::<bool>()) {
        // A two-byte character counts twice here and once for the API server.
        let value = if wide { "é".repeat(bytes / 2) } else { "e".repeat(bytes) };
        let mut spec = json!({"agentRef": {"name": "a"}, "implementation": {"inline": {"text": "t"}}});
        spec["parameters"] = json!({name.clone(): value});
        let faults = crate::check::faults::<AgentRun>(&object::<AgentRun>("r", &spec).spec);
        prop_assert_eq!(faults.iter().any(|fault| fault.field == format!("spec.parameters.{name}")), value.len() > crate::api::common::MAX_PARAMETER_BYTES);
    }
}

#[test]
fn an_inline_work_item_wins_over_a_reference_with_a_warning() {
    let references = References {
        agent: Found::Object(Arc::new(object("a", &json!({"providerRef": {"name": "p"}})))),
        provider: Found::Object(Arc::new(object("p", &json!({"binary": "b"})))),
        implementation: Found::Absent,
    };
    let spec = json!({
        "agentRef": {"name": "a"}, "implementationSpecRef": {"name": "w"}, "implementation": {"inline": {"text": "inline"}},
    });
    let resolved = resolve(&object("r", &spec), &references).unwrap();
    assert_eq!(resolved.implementation.text, "inline");
    assert_eq!(resolved.ambiguous.len(), 1);
}

/// What is said of a request above a limit, and whether it is for good. The texts are requests and limits of `cpu` by
/// provider, Agent and run.
fn contradiction(provider: [&str; 2], agent: [&str; 2], run: [&str; 2], overrides: [&str; 2]) -> Option<String> {
    let layer = |[asked, limit]: [&str; 2]| {
        let mut resources = json!({});
        for (name, value) in [("requests", asked), ("limits", limit)] {
            if !value.is_empty() {
                resources[name] = json!({"cpu": value});
            }
        }
        resources
    };
    let references = References {
        agent: Found::Object(Arc::new(object("a", &json!({"providerRef": {"name": "p"}, "resources": layer(agent)})))),
        provider: Found::Object(Arc::new(object(
            "p",
            &json!({"binary": "b", "workload": {"resources": layer(provider)}}),
        ))),
        implementation: Found::Absent,
    };
    let run = json!({
        "agentRef": {"name": "a"}, "implementation": {"inline": {"text": "t"}}, "workload": {"resources": layer(run)},
        "runtimeOverrides": {"job": {"resources": layer(overrides)}},
    });
    match resolve(&object("r", &run), &references) {
        Ok(_) => None,
        Err(Unresolved::Invalid(faults)) => Some(format!("for good: {}: {}", faults[0].field, faults[0].problem)),
        Err(Unresolved::Missing(missing)) => Some(format!("{}: {}", missing[0].unblocked_by, missing[0].message)),
    }
}

#[test]
fn a_request_above_a_limit_is_for_good_only_where_the_run_says_both() {
    let none = ["", ""];
    assert_eq!(contradiction(none, ["", "1500m"], ["1500m", ""], none), None);
    let above = "spec.workload.resources.requests.cpu: 2 of cpu, more than 1500m of limits.cpu: with the resources of \
                 AgentProvider, Agent and run together";
    let table = [
        (none, ["", "1500m"], ["2", ""], none, format!("mend Agent/a: Agent/a does not go with the run: {above}")),
        (none, ["2", ""], ["", "1500m"], none, format!("mend Agent/a: Agent/a does not go with the run: {above}")),
        (
            ["2", ""],
            none,
            ["", "1500m"],
            none,
            format!("mend AgentProvider/p: AgentProvider/p does not go with the run: {above}"),
        ),
        (["2", ""], ["", "1500m"], none, none, format!("mend Agent/a: Agent/a does not go with the run: {above}")),
        (["1", "1"], none, ["2", ""], ["", "1500m"], format!("for good: {above}")),
        (none, ["", "3"], ["2", ""], ["", "1500m"], format!("for good: {above}")),
    ];
    for (provider, agent, run, overrides, expected) in table {
        let found = contradiction(provider, agent, run, overrides);
        assert_eq!(found, Some(expected), "{provider:?} {agent:?} {run:?} {overrides:?}");
    }
}
