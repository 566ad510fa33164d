//! The status of everything but runs: true after one write for each change, whatever disturbs it, and left alone then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agents_core::{
    decide::rules::Decide,
    kinds::{self, Visitor},
};
use agents_tests::apimodel::{Fault, RESOURCES, Rule, Verb, When, World};
use serde_json::{Value, json};

use super::{
    fault::Disturbance,
    play::{keep_whole_running, simulate},
    workload::{HAPPY, SECOND, apply_references, phase_seen},
};

fn apply(world: &World, kind: &str, name: &str, spec: &Value) {
    let api = "agents.proompteng.ai/v1alpha1";
    world.apply(&json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string());
}

/// Truth, reason and message of a condition, if the present spec was judged.
fn said(world: &World, plural: &str, name: &str, condition: &str) -> Option<[String; 3]> {
    let object = world.object(plural, name)?;
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array()?;
    let found =
        conditions.iter().find(|entry| entry["type"] == condition && entry["observedGeneration"] == *generation)?;
    Some(["status", "reason", "message"].map(|field| found[field].as_str().unwrap_or_default().to_owned()))
}

async fn becomes(world: &World, (plural, name): (&str, &str), condition: &str, truth: &str, reason: &str) -> String {
    let holds = |world: &World| said(world, plural, name, condition).is_some_and(|said| said[..2] == [truth, reason]);
    let last = || world.object(plural, name).map(|object| object["status"].clone());
    assert!(world.until(60 * SECOND, holds).await, "{name} should be {condition}={truth} {reason}: {:#?}", last());
    said(world, plural, name, condition).map(|[_, _, message]| message).unwrap_or_default()
}

/// The status of every declaration, without times.
fn verdicts(world: &World) -> BTreeMap<String, Value> {
    fn timeless(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = fields.iter().filter(|(field, _)| *field != "lastTransitionTime");
                kept.map(|(field, value)| (field.clone(), timeless(value))).collect()
            }
            Value::Array(items) => items.iter().map(timeless).collect(),
            other => other.clone(),
        }
    }
    let declared = RESOURCES.iter().filter(|resource| resource.is_declaration());
    let objects = declared.flat_map(|resource| {
        world.objects(resource.plural).into_iter().map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            (format!("{}/{name}", resource.plural), timeless(&object["status"]))
        })
    });
    objects.collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_costs_one_write_and_a_settled_world_none() {
    let world = Arc::new(World::new(1));
    apply_references(&world, &["Agent", "AgentProvider", "ImplementationSpec"]);
    let _controller = keep_whole_running(&world, "a", false);
    for object in [("agents", "agent"), ("agentproviders", "provider"), ("implementationspecs", "work")] {
        becomes(&world, object, "Ready", "True", "AsExpected").await;
    }
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(world.log().verdicts().len(), 3, "{:#?}", world.log().verdicts());
    assert!(world.log().gets().is_empty());
    apply(&world, "ImplementationSpec", "work", &json!({"text": "do it well"}));
    becomes(&world, ("implementationspecs", "work"), "Ready", "True", "AsExpected").await;
    apply(&world, "ImplementationSpec", "work", &json!({"text": "  "}));
    let message = becomes(&world, ("implementationspecs", "work"), "InvalidSpec", "True", "InvalidSpec").await;
    assert!(message.contains("spec.text: says nothing"), "{message}");
    assert_eq!(said(&world, "implementationspecs", "work", "Stalled").expect("a condition")[0], "True");
    apply(&world, "ImplementationSpec", "work", &json!({"text": "do it"}));
    becomes(&world, ("implementationspecs", "work"), "InvalidSpec", "False", "AsExpected").await;
    becomes(&world, ("implementationspecs", "work"), "Ready", "True", "AsExpected").await;
    let before = world.log().verdicts().len();
    assert_eq!(before, 6, "{:#?}", world.log().verdicts());
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(world.log().verdicts().len(), before);
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_judged_again_when_its_provider_changes() {
    let world = Arc::new(World::new(1));
    apply_references(&world, &["Agent"]);
    let _controller = keep_whole_running(&world, "a", false);
    let agent = ("agents", "agent");
    let message = becomes(&world, agent, "Ready", "False", "ProviderNotFound").await;
    assert_eq!(message, "spec.providerRef: AgentProvider/provider does not exist in this namespace");
    apply(&world, "AgentProvider", "provider", &json!({"binary": "sh", "argsTemplate": ["{{ a"]}));
    becomes(&world, agent, "Ready", "False", "ReferenceUnreadable").await;
    let message = becomes(&world, ("agentproviders", "provider"), "InvalidSpec", "True", "InvalidSpec").await;
    assert!(message.starts_with("spec.argsTemplate[0]: line 1"), "{message}");
    apply_references(&world, &["AgentProvider"]);
    becomes(&world, agent, "Ready", "True", "AsExpected").await;
    becomes(&world, ("agentproviders", "provider"), "Ready", "True", "AsExpected").await;
    let providers: kube::Api<agents_kube::AgentProvider> = kube::Api::default_namespaced(world.admin());
    providers.delete("provider", &kube::api::DeleteParams::default()).await.expect("the provider is there");
    becomes(&world, agent, "Ready", "False", "ProviderNotFound").await;
    // An object that does not fit its kind is no longer there for nobody to see.
    apply(&world, "AgentProvider", "provider", &json!({"binary": 7}));
    let message = becomes(&world, ("agentproviders", "provider"), "InvalidSpec", "True", "InvalidSpec").await;
    assert!(message.starts_with("spec.binary: invalid type"), "{message}");
    becomes(&world, agent, "Ready", "False", "ReferenceUnreadable").await;
    assert_eq!(said(&world, "agents", "agent", "Accepted").expect("a condition")[0], "True");
}

/// Whatever the list of kinds holds: judged once, with what is generic about it.
#[tokio::test(start_paused = true)]
async fn every_kind_is_judged_once() {
    struct Examples(Vec<(&'static str, bool, &'static str)>, BTreeSet<&'static str>);
    impl Visitor for Examples {
        fn visit<K: Decide>(&mut self) {
            self.0.push((K::PLURAL, K::ACTED_ON, K::EXAMPLE));
            if K::GATHER.is_some() {
                self.1.insert(K::PLURAL);
            }
        }
    }
    let mut examples = Examples(Vec::new(), BTreeSet::new());
    kinds::visit(&mut examples);
    let world = Arc::new(World::new(1));
    for (plural, _, example) in examples.0.iter().filter(|(plural, ..)| *plural != "agentruns") {
        let stored = world.apply(example);
        assert!(!stored.is_empty(), "{plural} has an example");
    }
    let _controller = keep_whole_running(&world, "a", false);
    tokio::time::sleep(60 * SECOND).await;
    for (plural, acted_on, _) in examples.0.iter().filter(|(plural, ..)| *plural != "agentruns") {
        for object in world.objects(plural) {
            let name = object["metadata"]["name"].as_str().expect("a name");
            assert_eq!(
                object["status"]["observedGeneration"], object["metadata"]["generation"],
                "{plural}: {object:#}"
            );
            assert_eq!(said(&world, plural, name, "Accepted").expect("a condition")[0], "True", "{plural}: {object:#}");
            let [ready, reason, _] = said(&world, plural, name, "Ready").expect("a condition");
            assert_eq!(ready == "Unknown" && reason == "NotActedOn", !acted_on, "{plural}: {object:#}");
        }
    }
    // What more is said of the others belongs to their own rules.
    for (plural, ..) in examples.0.iter().filter(|(plural, ..)| *plural != "agentruns" && !examples.1.contains(plural))
    {
        assert_eq!(world.log().of(plural).verdicts().len(), world.objects(plural).len(), "one write each: {plural}");
    }
    let judged = world.log().verdicts().len();
    tokio::time::sleep(3600 * SECOND).await;
    assert_eq!(world.log().verdicts().len(), judged);
}

/// What changes while a controller works, and what its declarations come to.
async fn story(world: &Arc<World>, names: &[&'static str], lease: bool) -> BTreeMap<String, Value> {
    apply_references(world, &["Agent", "ImplementationSpec"]);
    let _controllers: Vec<_> = names.iter().map(|name| keep_whole_running(world, name, lease)).collect();
    tokio::time::sleep(20 * SECOND).await;
    apply(world, "AgentProvider", "provider", &json!({"binary": " "}));
    tokio::time::sleep(20 * SECOND).await;
    apply_references(world, &["AgentProvider"]);
    world.settle(3600 * SECOND).await;
    verdicts(world)
}

#[test]
fn whatever_becomes_of_a_write_the_status_is_true_in_the_end() {
    let clean = std::sync::Mutex::new(BTreeMap::new());
    simulate(vec![()], async |()| {
        let world = Arc::new(World::new(1));
        *clean.lock().expect("no panic") = story(&world, &["a"], false).await;
        vec![]
    });
    let clean = clean.into_inner().expect("no panic");
    assert_eq!(clean.len(), 3);
    simulate(Disturbance::all(5), async |disturbance| {
        let world = Arc::new(World::new(1));
        disturbance.begin(&world);
        let (names, lease) = (disturbance.controllers, disturbance.lease);
        let end = story(&world, names, lease).await;
        let mut found = disturbance.found(&world, &end, &clean);
        if lease {
            let log = world.log();
            let listed = names.iter().filter(|name| !log.from(name).of("tools").lists().is_empty()).count();
            let wrote = names.iter().filter(|name| !log.from(name).verdicts().is_empty()).count();
            if (listed, wrote) != (1, 1) {
                found.push(format!("{listed} watched what only the leader judges, {wrote} wrote"));
            }
        }
        disturbance.named(&found)
    });
}

/// A definition that is missing is looked for now and then; runs and all other kinds do not wait for it.
#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_installed_holds_up_nothing() {
    let world = HAPPY.world(1);
    apply(&world, "Memory", "notes", &json!({"type": "postgres", "connection": {"secretRef": {"name": "s"}}}));
    world.faults(|faults| {
        let lists = When::any().verb(Verb::List).on("memories");
        faults.rule(Rule::new(lists, Fault::Reject(404)).forever());
    });
    let _controller = keep_whole_running(&world, "a", false);
    phase_seen(&world, "Succeeded").await;
    becomes(&world, ("agents", "agent"), "Ready", "True", "AsExpected").await;
    tokio::time::sleep(1200 * SECOND).await;
    let looked = world.log().of("memories").lists().len();
    assert!((20..=45).contains(&looked), "looked {looked} times in twenty minutes");
    assert_eq!(said(&world, "memories", "notes", "Ready"), None);
    world.faults(|faults| faults.clear());
    becomes(&world, ("memories", "notes"), "Ready", "Unknown", "NotActedOn").await;
    world.check();
}
