//! The plan of a resolved run: the runner's JSON, the pod and the digest over both.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{
    bounds::{Bounds, EPHEMERAL_STORAGE, RUNNER_VOLUME},
    digest,
    pod::{ContainerPlan, EnvPlan, EnvSource, MountPlan, NOBODY, PodPlan, SPEC_FILE, VolumePlan, VolumeSource},
    render::render_provider,
    runner_spec::{
        AgentIdentity, ArtifactPaths, DEFAULT_GRACE_SECONDS, HOME, Limits, ProviderSpec, RunIdentity, RunnerSpec,
        SCHEMA_VERSION, WORKSPACE,
    },
};
use crate::{check::Fault, exec, resolve::Resolved, status::Reason, template::TemplateError};

/// Path of the runner in every container.
pub const RUNNER_PATH: &str = "/usr/local/bin/agent-runner";
/// Folder of the runner's spec in the container.
pub const SPEC_DIR: &str = "/agents/spec";
/// Name of the container of the runner.
pub const CONTAINER: &str = "agent";
/// Name of the container that brings the runner along.
pub const INSTALL_CONTAINER: &str = "install-runner";
const INSTALL_DIR: &str = "/agents/bin";
const HOME_DIR: &str = "/home/agent";

/// What the engine fills in where nobody said anything. Not covered by the digest, so that a new default does not
/// invalidate what was approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Image of a provider that names none.
    pub image: String,
    /// Image that brings the runner along.
    pub runner_image: String,
    /// Service account of a run that names none.
    pub service_account: String,
    /// Time between TERM and KILL, in seconds.
    pub grace_seconds: u64,
    /// What a run's pod may use.
    pub bounds: Bounds,
}

impl Defaults {
    /// Stands for "whatever the engine's default is" when the digest is computed.
    fn unsaid() -> Self {
        Self {
            image: String::new(),
            runner_image: String::new(),
            service_account: String::new(),
            grace_seconds: DEFAULT_GRACE_SECONDS,
            bounds: Bounds::none(),
        }
    }
}

/// What will be executed.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionPlan {
    /// The runner's input, with attempt 1 and no time limit: the attempt's own are filled in at submission.
    pub spec: RunnerSpec,
    /// The pod.
    pub pod: PodPlan,
    /// `sha256:` over templates, values and the pod.
    pub digest: String,
}

/// A plan that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Templates of the provider cannot be rendered with this run's values.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Templates(Vec<TemplateError>),
    /// No program can be started with what they became.
    #[error("{}", .0.iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect::<Vec<_>>().join("; "))]
    Unstartable(Vec<Fault>),
}

impl PlanError {
    /// Why, in one word: [`Reason::TemplateLimit`] when that is so of one of the templates.
    pub fn reason(&self) -> Reason {
        let limit = match self {
            Self::Templates(errors) => errors.iter().any(|error| error.reason == Reason::TemplateLimit),
            Self::Unstartable(_) => false,
        };
        if limit { Reason::TemplateLimit } else { Reason::InvalidSpec }
    }
}

/// Plans a resolved run.
///
/// # Errors
/// Every template that cannot be rendered with the run's values, or everything that the kernel would refuse of what they
/// became.
pub fn plan(resolved: &Resolved, defaults: &Defaults) -> Result<ExecutionPlan, PlanError> {
    plan_with(resolved, defaults, pod_of(resolved, defaults))
}

/// The same where [`pod_of`] these was made before.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(resolved: &Resolved, defaults: &Defaults, pod: PodPlan) -> Result<ExecutionPlan, PlanError> {
    let mut spec = runner_spec(resolved);
    if let Some(provider) = &spec.provider_spec {
        // A throw-away rendering: the runner's own is the real one.
        let rendered = render_provider(provider, &spec).map_err(PlanError::Templates)?;
        let faults = exec::faults(provider, &rendered, &spec);
        if !faults.is_empty() {
            return Err(PlanError::Unstartable(faults));
        }
    }
    let canonical = pod_of(resolved, &Defaults::unsaid());
    spec.pod_digest = Some(digest::of_json(&json(&canonical)));
    let digest = digest::of_runner_spec(&json(&spec));
    spec.plan_digest = Some(digest.clone());
    spec.limits.grace_seconds = Some(defaults.grace_seconds).filter(|grace| *grace != DEFAULT_GRACE_SECONDS);
    Ok(ExecutionPlan { spec, pod, digest })
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    // Plain data with text keys has a JSON form.
    serde_json::to_value(value).unwrap_or_default()
}

fn runner_spec(resolved: &Resolved) -> RunnerSpec {
    let provider = &resolved.provider_spec;
    RunnerSpec {
        schema_version: Some(SCHEMA_VERSION.to_owned()),
        provider: resolved.provider.clone(),
        inputs: resolved.inputs.clone(),
        payloads: resolved.payloads.clone(),
        provider_spec: Some(ProviderSpec {
            binary: provider.binary.clone(),
            args_template: provider.args_template.clone(),
            env_template: provider.env_template.clone(),
            input_files: provider.input_files.clone(),
            usage: provider.usage.clone(),
        }),
        implementation: Some(resolved.implementation.clone()),
        implementation_name: resolved.implementation_name.clone(),
        run: RunIdentity {
            name: resolved.run.clone(),
            namespace: resolved.namespace.clone(),
            uid: resolved.uid.clone(),
            attempt: 1,
        },
        agent: AgentIdentity { name: resolved.agent.clone() },
        git: resolved.git.clone(),
        outputs: resolved.outputs.clone(),
        env: resolved.env.clone(),
        secret_env: resolved.secret_env.iter().map(|secret| secret.name.clone()).collect(),
        limits: Limits::default(),
        artifacts: ArtifactPaths::default(),
        roots: None,
        observability: None,
        pod_digest: None,
        plan_digest: None,
    }
}

/// The pod of a resolved run, which rests on nothing that is rendered.
pub fn pod_of(resolved: &Resolved, defaults: &Defaults) -> PodPlan {
    let mount = |volume: &str, path: &str| MountPlan {
        volume: volume.to_owned(),
        path: path.to_owned(),
        sub_path: None,
        read_only: false,
    };
    let mut mounts = vec![
        mount("workspace", WORKSPACE),
        mount("home", HOME_DIR),
        mount("tmp", "/tmp"),
        MountPlan { read_only: true, ..mount("runner-spec", SPEC_DIR) },
        // One file, so that the rest of the image's folder stays visible.
        MountPlan { sub_path: Some("agent-runner".to_owned()), read_only: true, ..mount("runner", RUNNER_PATH) },
    ];
    let mut volumes = vec!["workspace", "home", "tmp", "runner"];
    let below_home = |path: &str| path == HOME || path.starts_with("/root/");
    if resolved.provider_spec.input_files.iter().any(|file| below_home(&file.path)) {
        mounts.push(mount("root", HOME));
        volumes.push("root");
    }
    let value = |name: &str, value: &str| EnvPlan { name: name.to_owned(), source: EnvSource::Value(value.to_owned()) };
    let mut env = vec![value("HOME", HOME_DIR), value("AGENT_RUNNER_SPEC_PATH", &format!("{SPEC_DIR}/{SPEC_FILE}"))];
    env.extend(resolved.secret_env.iter().map(|secret| EnvPlan {
        name: secret.name.clone(),
        source: EnvSource::Secret {
            secret: secret.secret_name.clone(),
            key: secret.key.clone(),
            optional: secret.optional.unwrap_or(false),
        },
    }));
    let Bounds { agent, installer, volume_size } = &defaults.bounds;
    let (mut requests, mut limits) = (resolved.requests.clone(), resolved.limits.clone());
    let says_storage = requests.contains_key(EPHEMERAL_STORAGE) || limits.contains_key(EPHEMERAL_STORAGE);
    agent.fill(&mut requests, &mut limits);
    let said = if says_storage { limits.get(EPHEMERAL_STORAGE).cloned() } else { None };
    let size_of = |volume: &str| {
        let default = volume_size.as_ref()?;
        Some(if volume == "runner" {
            RUNNER_VOLUME.to_owned()
        } else {
            said.clone().unwrap_or_else(|| default.to_string())
        })
    };
    let (mut installer_requests, mut installer_limits) = (BTreeMap::new(), BTreeMap::new());
    installer.fill(&mut installer_requests, &mut installer_limits);
    PodPlan {
        service_account: resolved.service_account.clone().unwrap_or_else(|| defaults.service_account.clone()),
        init_containers: vec![ContainerPlan {
            name: INSTALL_CONTAINER.to_owned(),
            image: defaults.runner_image.clone(),
            command: vec![RUNNER_PATH.to_owned(), "install".to_owned(), format!("{INSTALL_DIR}/agent-runner")],
            env: vec![],
            requests: installer_requests,
            limits: installer_limits,
            mounts: vec![mount("runner", INSTALL_DIR)],
            read_only_root: true,
        }],
        container: ContainerPlan {
            name: CONTAINER.to_owned(),
            image: resolved.image.clone().unwrap_or_else(|| defaults.image.clone()),
            command: vec![RUNNER_PATH.to_owned()],
            env,
            requests,
            limits,
            mounts,
            read_only_root: false,
        },
        volumes: volumes
            .into_iter()
            .map(|name| VolumePlan {
                name: name.to_owned(),
                source: VolumeSource::Scratch { size_limit: size_of(name) },
            })
            .chain([VolumePlan { name: "runner-spec".to_owned(), source: VolumeSource::RunnerSpec }])
            .collect(),
        run_as: NOBODY,
        // The kubelet must not kill the runner while it gives the provider its own grace.
        grace_seconds: i64::try_from(defaults.grace_seconds).unwrap_or(i64::MAX).saturating_add(10),
    }
}

#[cfg(test)]
mod tests;
