//! The workloads: each a cluster's first state, what its pods do, and a story that acts when it sees its cue.

use std::{sync::Arc, time::Duration};

use agents_core::{
    name::{ChildName, SubmissionKey},
    plan::digest::sha256,
};
use agents_kube::AgentRun;
use agents_tests::apimodel::{Outcome, When, World};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

pub const SECOND: Duration = Duration::from_secs(1);
/// The value of the Secret that every provider is given: nothing but its Secret may ever say it.
pub const CANARY: &str = "sk-canary-3c9f1e";
/// Name of the run in every workload.
pub const RUN: &str = "run";

/// What happens beside the controllers; ends when nothing more comes from outside.
type Story = fn(Arc<World>) -> BoxFuture<'static, ()>;

/// One story, told the same whatever disturbs it.
#[derive(Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    /// Fields of the run's spec besides its references.
    spec: fn() -> Value,
    outcomes: fn() -> Vec<Outcome>,
    /// Whether the Agent, its provider and the work item are there from the start.
    references: bool,
    /// Before any controller runs.
    setup: fn(&World),
    story: Story,
}

impl Workload {
    const fn new(name: &'static str, outcomes: fn() -> Vec<Outcome>) -> Self {
        Self { name, spec: || json!({}), outcomes, references: true, setup: |_| {}, story: |_| Box::pin(async {}) }
    }

    /// A world in its first state.
    pub fn world(&self, seed: u64) -> Arc<World> {
        agents_tests::mutant::switch_named_on();
        let world = Arc::new(World::new(seed));
        world.run_actors();
        world.canary(CANARY);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "provider-key"},
            "data": {"token": STANDARD.encode(CANARY)},
        });
        world.apply(&secret.to_string());
        world.outcomes(RUN, (self.outcomes)());
        if self.references {
            apply_references(&world, &["Agent", "AgentProvider", "ImplementationSpec"]);
        }
        apply_run(&world, (self.spec)());
        (self.setup)(&world);
        world
    }

    pub async fn tell(&self, world: &Arc<World>) {
        (self.story)(Arc::clone(world)).await;
    }
}

/// All of them.
pub const ALL: &[Workload] = &[
    HAPPY,
    RETRY,
    Workload::new("failed for good", || vec![Outcome::Exit { code: 3, after: Duration::from_secs(5) }]),
    Workload { spec: || json!({"timeoutSeconds": 30}), ..Workload::new("timeout", || vec![Outcome::Hang]) },
    Workload {
        story: |world| {
            Box::pin(async move {
                phase_seen(&world, "Running").await;
                apply_run(&world, json!({"cancel": true}));
            })
        },
        ..Workload::new("cancelled", || vec![Outcome::Hang])
    },
    Workload {
        story: |world| {
            Box::pin(async move {
                phase_seen(&world, "Running").await;
                apply_run(&world, json!({"cancel": true}));
            })
        },
        ..Workload::new("cancelled without heeding it", || vec![Outcome::IgnoreTerm])
    },
    Workload {
        spec: || json!({"suspend": true}),
        story: |world| {
            Box::pin(async move {
                reason_seen(&world, "Suspended").await;
                apply_run(&world, json!({"suspend": true, "cancel": true}));
            })
        },
        ..Workload::new("cancelled before its start", Vec::new)
    },
    Workload {
        story: |world| {
            Box::pin(async move {
                phase_seen(&world, "Running").await;
                delete_run(&world, &DeleteParams::background()).await;
            })
        },
        ..Workload::new("deleted", || vec![Outcome::Hang])
    },
    Workload {
        story: |world| {
            Box::pin(async move {
                phase_seen(&world, "Running").await;
                delete_run(&world, &DeleteParams::foreground()).await;
            })
        },
        ..Workload::new("deleted in the foreground", || vec![Outcome::IgnoreTerm])
    },
    Workload {
        references: false,
        story: |world| {
            Box::pin(async move {
                reason_seen(&world, "AgentNotFound").await;
                for kind in ["ImplementationSpec", "Agent", "AgentProvider"] {
                    tokio::time::sleep(20 * SECOND).await;
                    apply_references(&world, &[kind]);
                }
            })
        },
        ..Workload::new("references come later", || vec![Outcome::default()])
    },
    Workload {
        setup: |world| {
            world.apply(&format!(
                "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {}, labels: {{agents.proompteng.ai/run-uid: other, \
                 agents.proompteng.ai/attempt: '1'}}}}, spec: {{suspend: true, template: {{spec: {{restartPolicy: Never, \
                 containers: [{{name: agent, image: i}}]}}}}}}}}",
                job_name(world, 1)
            ));
        },
        story: |world| {
            Box::pin(async move {
                reason_seen(&world, "Conflict").await;
                tokio::time::sleep(40 * SECOND).await;
                delete_job(&world, 1).await;
            })
        },
        ..Workload::new("the name is taken", || vec![Outcome::default()])
    },
    Workload::new("the image cannot be pulled", || vec![Outcome::ImagePullFailure]),
    Workload {
        spec: || json!({"retryPolicy": {"limit": 1, "backoffSeconds": 30}}),
        story: |world| {
            Box::pin(async move {
                phase_seen(&world, "Running").await;
                delete_job(&world, 1).await;
            })
        },
        ..Workload::new("the job vanishes", || vec![Outcome::Hang, Outcome::default()])
    },
    Workload::new("the report is lost", || vec![Outcome::NoReport { code: 0, after: Duration::from_secs(5) }]),
    Workload { spec: large, ..Workload::new("large", || vec![Outcome::default()]) },
    Workload {
        setup: |world| refuse(world, When::any().on("agentruns").status(true), 403),
        story: |world| {
            Box::pin(async move {
                let ended = |world: &World| world.objects("jobs").iter().any(job_finished);
                world.until(3600 * SECOND, ended).await;
                tokio::time::sleep(10 * SECOND).await;
                accept(&world);
            })
        },
        ..Workload::new("the status is refused for a while", || vec![Outcome::default()])
    },
];

/// The shortest one.
pub const HAPPY: Workload = Workload::new("happy", || vec![Outcome::default()]);

/// The shortest one, before there is an Agent.
pub const BARE: Workload =
    Workload { references: false, ..Workload::new("nothing to refer to", || vec![Outcome::default()]) };

/// Fails once and succeeds then.
pub const RETRY: Workload = Workload {
    spec: || json!({"retryPolicy": {"limit": 2, "backoffSeconds": 20}}),
    ..Workload::new("failed and tried again", || {
        vec![Outcome::Exit { code: 1, after: Duration::from_secs(5) }, Outcome::default()]
    })
};

/// From now on `when` is refused with this HTTP status.
pub fn refuse(world: &World, when: When, code: u16) {
    world.configure(|settings| settings.denied.push((when, code)));
}

/// Nothing is refused any more.
pub fn accept(world: &World) {
    world.configure(|settings| settings.denied.clear());
}

/// Whether a Job has ended.
pub fn job_finished(job: &Value) -> bool {
    job["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
        matches!(condition["type"].as_str(), Some("Complete" | "Failed")) && condition["status"] == "True"
    })
}

/// The workload of that name.
pub fn named(name: &str) -> &'static Workload {
    ALL.iter().find(|workload| workload.name == name).expect("a workload of that name")
}

/// A spec too large for an annotation, so that it needs an object of its own. Compression gains nothing on it.
fn large() -> Value {
    let noise = |part: usize| -> String { (0..1600).map(|n| sha256(format!("{part}/{n}").as_bytes())).collect() };
    json!({"payloads": {"a": noise(1), "b": noise(2), "c": noise(3), "d": noise(4)}})
}

/// Stores the run with these fields in its spec besides its references.
pub fn apply_run(world: &World, spec: Value) {
    let mut whole = json!({"agentRef": {"name": "agent"}, "implementationSpecRef": {"name": "work"}});
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    let object = json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", "metadata": {"name": RUN}, "spec": whole,
    });
    world.apply(&object.to_string());
}

pub fn apply_references(world: &World, kinds: &[&str]) {
    for kind in kinds {
        let (name, spec) = match *kind {
            "Agent" => ("agent", json!({"providerRef": {"name": "provider"}})),
            "AgentProvider" => {
                let token = json!({"name": "TOKEN", "secretName": "provider-key", "key": "token"});
                ("provider", json!({"binary": "sh", "argsTemplate": ["-c", "true"], "secretEnv": [token]}))
            }
            _ => ("work", json!({"text": "do it"})),
        };
        let api = "agents.proompteng.ai/v1alpha1";
        let object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec});
        world.apply(&object.to_string());
    }
}

pub async fn phase_seen(world: &World, phase: &str) {
    // A story that waits in vain leaves its run where it is, which its end shows.
    world.until(3600 * SECOND, |world| world.phase(RUN) == phase).await;
}

pub async fn reason_seen(world: &World, reason: &str) {
    let seen = |world: &World| world.object("agentruns", RUN).is_some_and(|run| run["status"]["reason"] == reason);
    world.until(3600 * SECOND, seen).await;
}

pub async fn delete_run(world: &World, how: &DeleteParams) {
    let runs: Api<AgentRun> = Api::default_namespaced(world.admin());
    runs.delete(RUN, how).await.expect("the run is there");
}

pub async fn delete_job(world: &World, attempt: i32) {
    let jobs: Api<Job> = Api::default_namespaced(world.admin());
    // An attempt that ended by itself meanwhile has one too.
    let _ = jobs.delete(&job_name(world, attempt), &DeleteParams::foreground().grace_period(0)).await;
}

/// Name of the Job of an attempt.
pub fn job_name(world: &World, attempt: i32) -> String {
    let run = world.object("agentruns", RUN).expect("the run is there");
    let uid = run["metadata"]["uid"].as_str().expect("a uid");
    ChildName::of(RUN, &SubmissionKey::of_attempt(uid, attempt)).to_string()
}
