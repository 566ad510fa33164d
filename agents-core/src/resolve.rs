//! References followed: run + agent + provider + work item → [`Resolved`], or everything that is missing, or everything
//! that can never become right.

mod references;
pub mod terms;
mod unsupported;

use std::collections::BTreeMap;

pub use self::references::References;
use self::{references::work_ref, terms::Terms, unsupported::Unsupported};
use crate::{
    api::{
        Agent, AgentProvider, AgentRun, ImplementationSpec, Kind, Resource,
        agent_provider::{AgentProviderSpec, SecretEnv},
        agent_run::{GitCoordinates, Output},
        common::{EnvVar, Parameters, Resources},
        implementation_spec::ImplementationSpecSpec,
        runtime::JobRuntime,
    },
    check::{self, Check, Fault, Faults},
    git, kept,
    look::Found,
    normalise,
    quantity::Quantity,
    status::Reason,
};

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
    /// How long it may take, how often it is tried and on what.
    pub terms: Terms,
    /// Image, when anything names one.
    pub image: Option<String>,
    /// Service account, when anything names one.
    pub service_account: Option<String>,
    /// The field that names it.
    pub service_account_at: Option<String>,
    /// Resources: requests and limits by name.
    pub requests: BTreeMap<String, String>,
    /// See `requests`.
    pub limits: BTreeMap<String, String>,
    /// Variables taken from Secrets.
    pub secret_env: Vec<SecretEnv>,
    /// What is said twice, and which one counts.
    pub ambiguous: Vec<String>,
    /// What is given and not used, without making it another run.
    pub left_out: Vec<String>,
    /// Fields that ask for something this version does not carry out and without which the run would be another one.
    pub unsupported: Vec<String>,
    /// The same, of settings that only a pod has.
    pub unsupported_in_pods: Vec<String>,
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

/// Why a run could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// Everything that is missing; it may appear.
    Missing(Vec<Missing>),
    /// Everything that can never become right.
    Invalid(Vec<Fault>),
}

/// Follows every reference of a run.
///
/// # Errors
/// Faults of the run's own spec come before missing objects: they cannot be cured by waiting.
pub fn resolve(run: &Resource<AgentRun>, references: &References) -> Result<Resolved, Unresolved> {
    let spec = &run.spec;
    let git = spec.execution.as_ref().and_then(|execution| execution.coordinates.as_ref()?.git.as_ref());
    sound(run, git)?;
    let mut missing = Vec::new();
    let agent = want::<Agent>(&references.agent, &spec.agent_ref.name, Reason::AgentNotFound, &mut missing);
    let provider = agent.and_then(|agent| {
        let name = &agent.spec.provider_ref.name;
        want::<AgentProvider>(&references.provider, name, Reason::ProviderNotFound, &mut missing)
    });
    let mut ambiguous = Vec::new();
    let work = match (&spec.implementation, work_ref(spec)) {
        (Some(inline), reference) => {
            if let Some(reference) = reference {
                ambiguous.push(format!(
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
        // The check has refused a run without a work item.
        (None, None) => None,
    };
    let (Some(agent), Some(provider), Some((implementation_name, implementation))) = (agent, provider, work) else {
        return Err(Unresolved::Missing(missing));
    };
    let mut faults = faults_of::<Agent>(agent);
    faults.extend(faults_of::<AgentProvider>(provider));
    if let (Some(_), Found::Object(work)) = (&implementation_name, &references.implementation) {
        faults.extend(faults_of::<ImplementationSpec>(work));
    }
    if !faults.is_empty() {
        // Another object's fault can be mended there, so the run waits.
        let missing = faults.into_iter().map(|(object, fault)| unreadable(&object, &fault)).collect();
        return Err(Unresolved::Missing(missing));
    }
    let mut inputs = texts(&agent.spec.inputs);
    inputs.extend(texts(&spec.parameters));
    let mut payloads: BTreeMap<_, _> = agent.spec.payloads.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    payloads.extend(spec.payloads.iter().map(|(k, v)| (k.clone(), v.0.clone())));
    let mut left_out = Vec::new();
    let (job, named_at) = job_settings(run, agent, &mut left_out);
    let run_workload = spec.workload.as_ref();
    let provider_workload = provider.spec.workload.as_ref();
    let of_provider = provider_workload.and_then(|workload| workload.service_account_name.clone());
    let at_provider = || format!("AgentProvider/{} spec.workload.serviceAccountName", provider.metadata.name);
    let service_account_at = named_at.or_else(|| of_provider.is_some().then(at_provider));
    let service_account = job.service_account.clone().or(of_provider);
    let of_provider = provider_workload.and_then(|workload| workload.resources.as_ref());
    let of_run = run_workload.and_then(|workload| workload.resources.as_ref());
    let (requests, limits) = resources([of_provider, agent.spec.resources.as_ref(), job.resources.as_ref(), of_run]);
    within_limits(&requests, &limits, run, agent, provider)?;
    let mut unsupported = unsupported(run, agent, provider, implementation_name.as_deref(), implementation);
    unsupported.job(&job);
    left_out.append(&mut unsupported.warnings);
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
        git: git.cloned(),
        outputs: spec.outputs.clone(),
        terms: Terms::of(run, Some(agent)),
        image: run_workload
            .and_then(|workload| workload.image.clone())
            .or(job.image)
            .or_else(|| provider_workload.and_then(|workload| workload.image.clone())),
        service_account,
        service_account_at,
        requests,
        limits,
        secret_env: provider.spec.secret_env.clone(),
        ambiguous,
        left_out,
        unsupported: unsupported.needed,
        unsupported_in_pods: unsupported.needed_in_pods,
    })
}

/// Refuses a run whose own spec can never become right.
fn sound(run: &Resource<AgentRun>, git: Option<&GitCoordinates>) -> Result<(), Unresolved> {
    let mut faults = kept::faults(run);
    // Who knows what a path means has made an address of it before.
    if let Some(named) = git.filter(|named| git::is_path(&named.url)) {
        faults.extend(check::address_fault(named));
    }
    if faults.is_empty() { Ok(()) } else { Err(Unresolved::Invalid(faults)) }
}

fn unsupported(
    run: &Resource<AgentRun>,
    agent: &Resource<Agent>,
    provider: &Resource<AgentProvider>,
    work_name: Option<&str>,
    work: &ImplementationSpecSpec,
) -> Unsupported {
    let mut unsupported = Unsupported::default();
    unsupported.run(&run.spec);
    unsupported.agent(&format!("Agent/{}", agent.metadata.name), &agent.spec);
    unsupported.provider(&format!("AgentProvider/{}", provider.metadata.name), &provider.spec);
    let of_work = work_name
        .map_or_else(|| "spec.implementation.inline".to_owned(), |name| format!("ImplementationSpec/{name} spec"));
    unsupported.work_item(&of_work, work);
    unsupported
}

/// The settings of the run's Jobs: its overrides over its runtime over its Agent's, field by field; and which field names
/// their service account.
fn job_settings(
    run: &Resource<AgentRun>,
    agent: &Resource<Agent>,
    left_out: &mut Vec<String>,
) -> (JobRuntime, Option<String>) {
    // The checks have refused contradictions.
    let mut known = Faults::default();
    let mut layers = vec![("spec.runtimeOverrides", overrides(run, &mut known))];
    let of_agent = format!("Agent/{} spec.runtime", agent.metadata.name);
    for (at, runtime) in [("spec.runtime", &run.spec.runtime), (&of_agent, &agent.spec.runtime)] {
        if let Some(runtime) = runtime {
            let settings = normalise::runtime(at, runtime, &mut known);
            left_out.extend(settings.unknown.iter().map(|key| format!("{key} is not known and not used")));
            layers.push((at, settings.job));
        }
    }
    let named = layers.iter().find(|(_, job)| job.service_account.is_some());
    let named_at = named.map(|(at, _)| format!("{at}.job.serviceAccount"));
    let job = layers.into_iter().map(|(_, job)| job).reduce(normalise::over).unwrap_or_default();
    (job, named_at)
}

fn overrides(run: &Resource<AgentRun>, known: &mut Faults) -> JobRuntime {
    let mut overrides =
        run.spec.runtime_overrides.as_ref().and_then(|overrides| overrides.job.clone()).unwrap_or_default();
    normalise::service_account("spec.runtimeOverrides", &mut overrides, known);
    overrides
}

/// What the run itself says of its Jobs.
fn job_of_run(run: &Resource<AgentRun>) -> JobRuntime {
    let mut known = Faults::default();
    let overrides = overrides(run, &mut known);
    match &run.spec.runtime {
        Some(runtime) => normalise::over(overrides, normalise::runtime("spec.runtime", runtime, &mut known).job),
        None => overrides,
    }
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
            missing.push(mend(object, why));
            None
        }
    }
}

fn unreadable(object: &str, Fault { field, problem }: &Fault) -> Missing {
    mend(object.to_owned(), &format!("{field}: {problem}"))
}

fn mend(object: String, why: &str) -> Missing {
    Missing {
        reason: Reason::ReferenceUnreadable,
        message: format!("{object} {why}"),
        unblocked_by: format!("mend {object}"),
        object,
    }
}

/// The faults of a referenced object, each with the object as `Kind/name`.
fn faults_of<K: Check>(object: &Resource<K>) -> Vec<(String, Fault)> {
    let name = format!("{}/{}", K::KIND, object.metadata.name);
    kept::faults(object).into_iter().map(|fault| (name.clone(), fault)).collect()
}

/// Requests and limits of all layers, the later ones winning.
fn resources<'a>(
    layers: impl IntoIterator<Item = Option<&'a Resources>>,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for layer in layers.into_iter().flatten() {
        add_resources(layer, &mut requests, &mut limits);
    }
    (requests, limits)
}

/// Requests that are above their limit, with both: each layer may be sound and one layer's request still pass another's
/// limit.
fn above_limits<'a>(
    requests: &'a BTreeMap<String, String>,
    limits: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    let amount = |text: &String| text.parse::<Quantity>().ok();
    requests.iter().filter_map(move |(name, asked)| {
        let limit = limits.get(name)?;
        (amount(asked)? > amount(limit)?).then_some((name.as_str(), asked.as_str(), limit.as_str()))
    })
}

/// Refuses requests above their limit: for good where the run itself says both, and until somebody mends the Agent or the
/// provider where one of the two is theirs.
fn within_limits(
    requests: &BTreeMap<String, String>,
    limits: &BTreeMap<String, String>,
    run: &Resource<AgentRun>,
    agent: &Resource<Agent>,
    provider: &Resource<AgentProvider>,
) -> Result<(), Unresolved> {
    let above: Vec<_> = above_limits(requests, limits).collect();
    // Of a copy in part the run's layers are not known.
    if above.is_empty() || run.metadata.left_out.is_some() {
        return Ok(());
    }
    let of_workload = run.spec.workload.as_ref().and_then(|workload| workload.resources.as_ref());
    let (asked_by_run, bounded_by_run) = resources([job_of_run(run).resources.as_ref(), of_workload]);
    let problem = |(name, asked, limit): (&str, &str, &str)| {
        format!(
            "{asked} of {name}, more than {limit} of limits.{name}: with the resources of AgentProvider, Agent and run \
             together"
        )
    };
    let at = |name: &str| format!("spec.workload.resources.requests.{name}");
    let (of_run, of_others): (Vec<_>, Vec<_>) = above.into_iter().partition(|(name, asked, limit)| {
        asked_by_run.get(*name).is_some_and(|own| own == asked)
            && bounded_by_run.get(*name).is_some_and(|own| own == limit)
    });
    if !of_run.is_empty() {
        let faults = of_run.into_iter().map(|above| Fault { field: at(above.0), problem: problem(above) });
        return Err(Unresolved::Invalid(faults.collect()));
    }
    let says = |layer: Option<&Resources>, name: &str| {
        let (requests, limits) = resources([layer]);
        requests.contains_key(name) || limits.contains_key(name)
    };
    let missing = of_others.into_iter().map(|above| {
        let of_provider = provider.spec.workload.as_ref().and_then(|workload| workload.resources.as_ref());
        // Where both say something, the Agent's is what counts.
        let only_provider = says(of_provider, above.0) && !agent_says(agent, |layer| says(layer, above.0));
        let object = if only_provider {
            format!("AgentProvider/{}", provider.metadata.name)
        } else {
            format!("Agent/{}", agent.metadata.name)
        };
        mend(object, &format!("does not go with the run: {}: {}", at(above.0), problem(above)))
    });
    Err(Unresolved::Missing(missing.collect()))
}

/// Whether one of the places where an Agent can give resources does.
fn agent_says(agent: &Resource<Agent>, says: impl Fn(Option<&Resources>) -> bool) -> bool {
    let runtime = agent.spec.runtime.as_ref().map(|runtime| {
        let mut known = Faults::default();
        normalise::runtime("spec.runtime", runtime, &mut known).job
    });
    says(agent.spec.resources.as_ref()) || says(runtime.and_then(|job| job.resources).as_ref())
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
