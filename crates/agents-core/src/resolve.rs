//! References followed: run + agent + provider + work item → [`Resolved`], or everything that is missing, or everything
//! that can never become right.
//!
//! Byte limits stand here, because CEL counts characters and the local engine has no API server in front of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{
        Agent, AgentProvider, AgentRun, ImplementationSpec, Kind, Resource,
        agent_provider::{AgentProviderSpec, SecretEnv},
        agent_run::{GitCoordinates, Output},
        common::{
            EnvVar, MAX_PARAMETER_BYTES, MAX_PARAMETER_NAME, MAX_PARAMETERS, MAX_PAYLOAD_BYTES, MAX_TEMPLATE_BYTES,
            Parameters, Payloads, Resources, RuntimeKind,
        },
        implementation_spec::{ImplementationSpecSpec, MAX_TEXT_BYTES},
    },
    plan::variables::{is_name, is_reserved},
    status::Reason,
};

/// Wait before the second attempt when nothing else is said, in seconds.
pub const DEFAULT_BACKOFF_SECONDS: i64 = 10;

/// What a look-up of a referenced object found.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Found<T> {
    /// The object.
    Object(T),
    /// No such object.
    #[default]
    Absent,
    /// An object that cannot be read as its kind; the text says why.
    Unreadable(String),
}

/// The objects a run refers to, as the caller found them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct References {
    /// The Agent named by `spec.agentRef`.
    pub agent: Found<Resource<Agent>>,
    /// The AgentProvider named by that Agent.
    pub provider: Found<Resource<AgentProvider>>,
    /// The ImplementationSpec named by the run; not looked up when the work item is inline.
    pub implementation: Found<Resource<ImplementationSpec>>,
}

/// A run with everything it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Name of the run.
    pub run: String,
    /// Namespace of the run.
    pub namespace: String,
    /// Uid of the run.
    pub uid: String,
    /// Name of the Agent.
    pub agent: String,
    /// Name of the AgentProvider.
    pub provider: String,
    /// The provider.
    pub provider_spec: AgentProviderSpec,
    /// Name of the ImplementationSpec; absent for an inline one.
    pub implementation_name: Option<String>,
    /// The work item.
    pub implementation: ImplementationSpecSpec,
    /// Parameters, after defaults.
    pub inputs: BTreeMap<String, String>,
    /// Payloads, after defaults.
    pub payloads: BTreeMap<String, String>,
    /// Variables of the Agent.
    pub env: Vec<EnvVar>,
    /// Repository to check out.
    pub git: Option<GitCoordinates>,
    /// Files that must exist for success.
    pub outputs: Vec<Output>,
    /// Runtime, when the run or its Agent names one.
    pub runtime: Option<RuntimeKind>,
    /// Image, when anything names one.
    pub image: Option<String>,
    /// Service account, when anything names one.
    pub service_account: Option<String>,
    /// Resources: requests and limits by name.
    pub requests: BTreeMap<String, String>,
    /// See `requests`.
    pub limits: BTreeMap<String, String>,
    /// Variables taken from Secrets.
    pub secret_env: Vec<SecretEnv>,
    /// Wall time from the first start over all attempts, in seconds.
    pub timeout_seconds: Option<i64>,
    /// Attempts besides the first.
    pub retry_limit: i32,
    /// Wait before the second attempt, in seconds.
    pub backoff_seconds: i64,
    /// Things that deserve attention and stop nothing.
    pub warnings: Vec<String>,
}

/// An object that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Why the run waits, in one word.
    pub reason: Reason,
    /// The object, as `Kind/name`.
    pub object: String,
    /// Why, for people.
    pub message: String,
    /// What must happen.
    pub unblocked_by: String,
}

/// A fault of the spec itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Field path from the object's root, such as `spec.outputs[1].path`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a run could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// Everything that is missing; it may appear.
    Missing(Vec<Missing>),
    /// Everything that can never become right.
    Invalid(Vec<Fault>),
}

/// Faults of a run's own spec, independent of any other object.
pub fn check_run(run: &Resource<AgentRun>) -> Vec<Fault> {
    let spec = &run.spec;
    let mut faults = Vec::new();
    let mut fault = |field: &str, problem: String| {
        faults.push(Fault { field: field.to_owned(), problem });
    };
    match (&spec.implementation_spec_ref, &spec.implementation_ref) {
        (Some(a), Some(b)) if a != b => fault(
            "spec.implementationRef",
            format!("names {:?} while spec.implementationSpecRef names {:?}: give one of them", b.name, a.name),
        ),
        (None, None) if spec.implementation.is_none() => fault(
            "spec.implementationSpecRef",
            "a run needs a work item: give implementationSpecRef, or implementation.inline".to_owned(),
        ),
        _ => {}
    }
    if let Some(work) = &spec.implementation {
        check_work_item("spec.implementation.inline", &work.inline, &mut fault);
    }
    check_values("spec.parameters", &spec.parameters, &spec.payloads, &mut fault);
    let mut names = BTreeSet::new();
    for (n, output) in spec.outputs.iter().enumerate() {
        let Output { name, path } = output;
        if !names.insert(name) {
            fault(&format!("spec.outputs[{n}].name"), format!("{name:?} is declared twice"));
        }
        if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
            fault(&format!("spec.outputs[{n}].name"), "an output's name is one path segment".to_owned());
        }
        if let Some(path) = path
            && (path.contains('\0') || path.split('/').any(|part| part == ".."))
        {
            fault(&format!("spec.outputs[{n}].path"), "a path without `..`, below the workspace".to_owned());
        }
        if let Some(path) = path
            && path.starts_with('/')
            && !path.starts_with("/workspace/")
        {
            fault(&format!("spec.outputs[{n}].path"), "an absolute path lies below /workspace".to_owned());
        }
    }
    if spec.runtime.as_ref().and_then(|runtime| runtime.kind) == Some(RuntimeKind::Process)
        && spec.runtime.as_ref().is_some_and(|runtime| runtime.job.is_some())
    {
        fault("spec.runtime.job", "settings of another runtime than runtime.type names".to_owned());
    }
    faults
}

fn check_work_item(at: &str, work: &ImplementationSpecSpec, fault: &mut impl FnMut(&str, String)) {
    let ImplementationSpecSpec { text, summary, description, acceptance_criteria, labels: _, source: _ } = work;
    if text.len() > MAX_TEXT_BYTES {
        fault(&format!("{at}.text"), format!("{} bytes; at most {MAX_TEXT_BYTES}", text.len()));
    }
    if text.trim().is_empty() {
        fault(&format!("{at}.text"), "says nothing".to_owned());
    }
    if description.as_ref().is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
        fault(&format!("{at}.description"), format!("more than {MAX_TEXT_BYTES} bytes"));
    }
    if summary.as_ref().is_some_and(|text| text.chars().count() > 256) {
        fault(&format!("{at}.summary"), "more than 256 characters".to_owned());
    }
    if acceptance_criteria.len() > 50 {
        fault(&format!("{at}.acceptanceCriteria"), "more than 50".to_owned());
    }
}

fn check_values(at: &str, parameters: &Parameters, payloads: &Payloads, fault: &mut impl FnMut(&str, String)) {
    if parameters.len() > MAX_PARAMETERS {
        fault(at, format!("{} entries; at most {MAX_PARAMETERS}", parameters.len()));
    }
    for (name, value) in parameters {
        if name.is_empty() || name.chars().count() > MAX_PARAMETER_NAME {
            fault(at, format!("a name has 1 to {MAX_PARAMETER_NAME} characters"));
        }
        let bytes = value.0.as_str().len();
        if bytes > MAX_PARAMETER_BYTES {
            fault(&format!("{at}.{name}"), format!("{bytes} bytes; at most {MAX_PARAMETER_BYTES}: use a payload"));
        }
        if value.0.as_str().contains('\0') {
            fault(&format!("{at}.{name}"), "contains a NUL byte".to_owned());
        }
    }
    for (name, value) in payloads {
        if value.0.len() > MAX_PAYLOAD_BYTES {
            fault(&format!("spec.payloads.{name}"), format!("more than {MAX_PAYLOAD_BYTES} bytes"));
        }
    }
}

/// Follows every reference of a run.
///
/// # Errors
/// Faults of the run's own spec come before missing objects: they cannot be cured by waiting.
#[expect(clippy::too_many_lines, reason = "one precedence table, read from top to bottom")]
pub fn resolve(run: &Resource<AgentRun>, references: &References) -> Result<Resolved, Unresolved> {
    let faults = check_run(run);
    if !faults.is_empty() {
        return Err(Unresolved::Invalid(faults));
    }
    let spec = &run.spec;
    let mut missing = Vec::new();
    let agent = want::<Agent>(&references.agent, &spec.agent_ref.name, Reason::AgentNotFound, &mut missing);
    let provider = agent.and_then(|agent| {
        let name = &agent.spec.provider_ref.name;
        want::<AgentProvider>(&references.provider, name, Reason::ProviderNotFound, &mut missing)
    });
    let work_ref = spec.implementation_spec_ref.as_ref().or(spec.implementation_ref.as_ref());
    let mut warnings = Vec::new();
    let work = match (&spec.implementation, work_ref) {
        (Some(inline), reference) => {
            if let Some(reference) = reference {
                warnings.push(format!(
                    "spec.implementation.inline wins over the ImplementationSpec {:?}, which is not read",
                    reference.name
                ));
            }
            Some((None, &inline.inline))
        }
        (None, Some(reference)) => {
            want(&references.implementation, &reference.name, Reason::ImplementationNotFound, &mut missing)
                .map(|found| (Some(reference.name.clone()), &found.spec))
        }
        // `check_run` has refused a run without a work item.
        (None, None) => None,
    };
    let (Some(agent), Some(provider), Some((implementation_name, implementation))) = (agent, provider, work) else {
        return Err(Unresolved::Missing(missing));
    };
    let mut faults = Vec::new();
    let mut fault = |field: &str, problem: String| {
        faults.push(Fault { field: field.to_owned(), problem });
    };
    let of_agent = format!("Agent/{}", agent.metadata.name);
    let of_provider = format!("AgentProvider/{}", provider.metadata.name);
    check_values(&format!("{of_agent} spec.inputs"), &agent.spec.inputs, &agent.spec.payloads, &mut fault);
    check_provider(&of_provider, &provider.spec, &mut fault);
    for (n, variable) in agent.spec.env.iter().enumerate() {
        check_variable(&format!("{of_agent} spec.env[{n}].name"), &variable.name, &mut fault);
    }
    if let Some(name) = &implementation_name {
        check_work_item(&format!("ImplementationSpec/{name} spec"), implementation, &mut fault);
    }
    if !faults.is_empty() {
        // Another object's fault can be mended there, so the run waits.
        let missing = faults.into_iter().map(|Fault { field, problem }| unreadable(&field, &problem)).collect();
        return Err(Unresolved::Missing(missing));
    }
    let mut inputs = texts(&agent.spec.inputs);
    inputs.extend(texts(&spec.parameters));
    let mut payloads: BTreeMap<_, _> = agent.spec.payloads.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    payloads.extend(spec.payloads.iter().map(|(k, v)| (k.clone(), v.0.clone())));
    let run_job = spec.runtime.as_ref().and_then(|runtime| runtime.job.as_ref());
    let agent_job = agent.spec.runtime.as_ref().and_then(|runtime| runtime.job.as_ref());
    let run_workload = spec.workload.as_ref();
    let provider_workload = provider.spec.workload.as_ref();
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let layers = [
        provider_workload.and_then(|workload| workload.resources.as_ref()),
        agent.spec.resources.as_ref(),
        run_workload.and_then(|workload| workload.resources.as_ref()),
    ];
    for layer in layers.into_iter().flatten() {
        add_resources(layer, &mut requests, &mut limits);
    }
    let retry = spec.retry_policy.unwrap_or_default();
    let defaults = agent.spec.defaults.unwrap_or_default();
    Ok(Resolved {
        run: run.metadata.name.clone(),
        namespace: run.metadata.namespace.clone(),
        uid: run.metadata.uid.clone(),
        agent: agent.metadata.name.clone(),
        provider: provider.metadata.name.clone(),
        provider_spec: provider.spec.clone(),
        implementation_name,
        implementation: implementation.clone(),
        inputs,
        payloads,
        env: agent.spec.env.clone(),
        git: spec
            .execution
            .as_ref()
            .and_then(|execution| execution.coordinates.as_ref())
            .and_then(|coordinates| coordinates.git.clone()),
        outputs: spec.outputs.clone(),
        runtime: [&spec.runtime, &agent.spec.runtime]
            .into_iter()
            .find_map(|runtime| runtime.as_ref().and_then(|runtime| runtime.kind)),
        image: run_workload
            .and_then(|workload| workload.image.clone())
            .or_else(|| run_job.and_then(|job| job.image.clone()))
            .or_else(|| agent_job.and_then(|job| job.image.clone()))
            .or_else(|| provider_workload.and_then(|workload| workload.image.clone())),
        service_account: [run_job, agent_job].into_iter().flatten().find_map(|job| job.service_account.clone()),
        requests,
        limits,
        secret_env: provider.spec.secret_env.clone(),
        timeout_seconds: spec.timeout_seconds.or(defaults.timeout_seconds),
        retry_limit: retry.limit.or(defaults.retry_limit).unwrap_or(0).clamp(0, 100),
        backoff_seconds: retry.backoff_seconds.unwrap_or(DEFAULT_BACKOFF_SECONDS).max(0),
        warnings,
    })
}

fn texts(parameters: &Parameters) -> BTreeMap<String, String> {
    parameters.iter().map(|(name, value)| (name.clone(), value.0.as_str().to_owned())).collect()
}

fn want<'a, K: Kind>(
    found: &'a Found<Resource<K>>,
    name: &str,
    reason: Reason,
    missing: &mut Vec<Missing>,
) -> Option<&'a Resource<K>> {
    let object = format!("{}/{name}", K::KIND);
    match found {
        Found::Object(object) => Some(object),
        Found::Absent => {
            missing.push(Missing {
                reason,
                message: format!("{object} does not exist in this namespace"),
                unblocked_by: format!("create {object}"),
                object,
            });
            None
        }
        Found::Unreadable(why) => {
            missing.push(unreadable(&object, why));
            None
        }
    }
}

fn unreadable(object: &str, why: &str) -> Missing {
    Missing {
        reason: Reason::ReferenceUnreadable,
        object: object.split(' ').next().unwrap_or(object).to_owned(),
        message: format!("{object}: {why}"),
        unblocked_by: format!("mend {object}"),
    }
}

fn check_provider(at: &str, provider: &AgentProviderSpec, fault: &mut impl FnMut(&str, String)) {
    let AgentProviderSpec { binary, args_template, env_template, input_files, secret_env, usage: _, workload: _ } =
        provider;
    if binary.trim().is_empty() || binary.contains('\0') {
        fault(&format!("{at} spec.binary"), "names no program".to_owned());
    }
    let args = args_template.iter().enumerate().map(|(n, text)| (format!("argsTemplate[{n}]"), &text.0));
    let env = env_template.iter().map(|(name, text)| (format!("envTemplate.{name}"), &text.0));
    let files = input_files.iter().enumerate().map(|(n, file)| (format!("inputFiles[{n}].content"), &file.content.0));
    for (field, text) in args.chain(env).chain(files) {
        if text.len() > MAX_TEMPLATE_BYTES {
            fault(&format!("{at} spec.{field}"), format!("{} bytes; at most {MAX_TEMPLATE_BYTES}", text.len()));
        }
    }
    for (n, file) in input_files.iter().enumerate() {
        let inside = file.path.starts_with("/workspace/") || file.path.starts_with("/root/");
        if !inside || file.path.split('/').any(|part| part == "..") || file.path.contains('\0') {
            fault(
                &format!("{at} spec.inputFiles[{n}].path"),
                "a path below /workspace or /root, without `..`".to_owned(),
            );
        }
    }
    for name in env_template.keys() {
        check_variable(&format!("{at} spec.envTemplate"), name, fault);
    }
    let mut names = BTreeSet::new();
    for (n, secret) in secret_env.iter().enumerate() {
        check_variable(&format!("{at} spec.secretEnv[{n}].name"), &secret.name, fault);
        if !names.insert(&secret.name) {
            fault(&format!("{at} spec.secretEnv[{n}].name"), format!("{:?} is declared twice", secret.name));
        }
    }
}

fn check_variable(at: &str, name: &str, fault: &mut impl FnMut(&str, String)) {
    if !is_name(name) {
        fault(at, format!("{name:?} is not a variable name"));
    } else if is_reserved(name) {
        fault(at, format!("the variable {name} is reserved"));
    }
}

/// Lays one spelling of resources over what is there: `cpu`, `memory` and `ephemeral` are request and limit in one.
fn add_resources(from: &Resources, requests: &mut BTreeMap<String, String>, limits: &mut BTreeMap<String, String>) {
    let Resources { requests: asked, limits: bounds, cpu, memory, ephemeral } = from;
    for (name, value) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", ephemeral)] {
        if let Some(value) = value {
            requests.insert(name.to_owned(), value.as_str().to_owned());
            limits.insert(name.to_owned(), value.as_str().to_owned());
        }
    }
    requests.extend(asked.iter().map(|(name, value)| (name.clone(), value.as_str().to_owned())));
    limits.extend(bounds.iter().map(|(name, value)| (name.clone(), value.as_str().to_owned())));
}

#[cfg(test)]
mod tests;
