//! Everything about an attempt that can be decided before anything is touched: texts, variables, files, places. Pure.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use agents_core::{
    api::{agent_provider::UsageParser, agent_run::Output},
    check::Fault,
    exec::{self, MAX_STRING},
    git::{self, Coordinates, CoordinatesError},
    place::{self, InputFileError, RESERVE, SPEC_COPY},
    plan::render_provider,
    plan::{
        RunnerSpec,
        runner_spec::{
            ArtifactPaths, CHECKOUT_DIR, DEFAULT_GRACE_SECONDS, Limits, OUTPUTS_DIR, Observability, ProviderSpec,
        },
    },
    status::Reason,
};
use thiserror::Error;

use super::{
    deliver::Target,
    env::{self, ACTIVE_VARIABLE, EnvError, Layers},
    log::DEFAULT_CAP,
    redact::Secrets,
    roots::{Beneath, NotAllowed, RootMap, beneath},
    spec::Verified,
};

/// The only step of a run without steps.
const ONLY_STEP: &str = "main";

/// A spec that says something that cannot be done.
#[derive(Debug, Error)]
pub(super) enum PrepareError {
    /// Templates that do not render, one per line.
    #[error("{0}")]
    Templates(String),
    /// A variable.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The repository.
    #[error(transparent)]
    Coordinates(#[from] CoordinatesError),
    /// A field.
    #[error("`{field}`: {problem}")]
    Field {
        /// The field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A path of an output.
    #[error("`{field}`: {source}")]
    Path {
        /// The field.
        field: String,
        /// Why.
        #[source]
        source: NotAllowed,
    },
    /// A path of an input file.
    #[error("`{field}`: {source}")]
    InputFile {
        /// The field.
        field: String,
        /// Why.
        #[source]
        source: InputFileError,
    },
}

impl PrepareError {
    /// The reason of the report.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Templates(_) | Self::Env(_) | Self::Coordinates(_) | Self::Field { .. } => Reason::RunnerSpecInvalid,
            Self::Path { .. } | Self::InputFile { .. } => Reason::PathDenied,
        }
    }
}

/// An attempt ready to be executed.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Real places of the two folders.
    pub roots: RootMap,
    /// Status file.
    pub status: Target,
    /// Log.
    pub log: Target,
    /// Largest log, in bytes.
    pub log_cap: u64,
    /// The spec's copy for the provider.
    pub spec_copy: Beneath,
    /// The file that keeps room for the report; it lies beside that copy.
    pub reserve: Beneath,
    /// Folder of declared outputs.
    pub outputs_folder: Beneath,
    /// Declared outputs and where they should be.
    pub outputs: Vec<(Output, Beneath)>,
    /// Program, as it is to be looked up.
    pub program: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Whole environment of the provider.
    pub environment: BTreeMap<OsString, OsString>,
    /// Files to write, with their field.
    pub files: Vec<(String, Beneath, String)>,
    /// Repository to check out, and where.
    pub checkout: Option<(Coordinates, PathBuf)>,
    /// Wall time, in seconds.
    pub timeout_seconds: Option<u64>,
    /// Between TERM and KILL, in seconds.
    pub grace_seconds: u64,
    /// How usage is read.
    pub usage: Option<UsageParser>,
}

/// Real places of the two folders.
///
/// # Errors
/// A place is not an absolute path.
pub(super) fn roots(spec: &RunnerSpec) -> Result<RootMap, PrepareError> {
    RootMap::new(spec.roots.as_ref()).map_err(|name| field(name, "is not an absolute path"))
}

fn field(field: impl Into<String>, problem: impl Into<String>) -> PrepareError {
    PrepareError::Field { field: field.into(), problem: problem.into() }
}

/// Values of the secrets that are there.
pub(super) fn secrets(names: &[String], inherited: &[(OsString, OsString)]) -> Secrets {
    let is_secret = |name: &OsString| names.iter().any(|secret| secret.as_str() == name);
    let values = inherited.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.as_encoded_bytes());
    Secrets::new(&values.collect::<Vec<_>>())
}

/// Decides everything about an attempt.
///
/// # Errors
/// The first thing that cannot be done.
pub(super) fn prepare(verified: &Verified, inherited: Vec<(OsString, OsString)>) -> Result<Prepared, PrepareError> {
    let Verified { spec, provider, digest: _ } = verified;
    let roots = roots(spec)?;
    let target = |name: &str, path: &str| {
        Target::new(path, &roots).map_err(|error| field(format!("artifacts.{name}"), error.to_string()))
    };
    let status = target("statusPath", &spec.artifacts.status_path)?;
    let log = target("logPath", &spec.artifacts.log_path)?;
    if status == log {
        return Err(field("artifacts.logPath", "is the status file too"));
    }
    for (name, path) in [("statusPath", &spec.artifacts.status_path), ("logPath", &spec.artifacts.log_path)] {
        if let Some(other) = place::of_another(path) {
            return Err(field(format!("artifacts.{name}"), format!("collides with {other}")));
        }
    }
    let rendered = render_provider(provider, spec).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        PrepareError::Templates(lines.join("\n"))
    })?;
    if let Some(Fault { field: at, problem }) = exec::faults(provider, &rendered, spec).into_iter().next() {
        return Err(field(at, problem));
    }
    let args: Vec<String> = rendered.args.iter().map(|text| roots.text(text)).collect();
    // The real places may be longer than what they stand for.
    for (n, text) in args.iter().enumerate() {
        if let Some(problem) = exec::argument(text) {
            return Err(field(format!("argsTemplate[{n}]"), problem));
        }
    }
    let checkout = match &spec.git {
        Some(written) => Some((git::check(written)?, PathBuf::from(roots.text(CHECKOUT_DIR)))),
        None => None,
    };
    let environment = env::environment(
        Layers {
            inherited,
            agent: &spec.env,
            provider: &rendered.env,
            secrets: &spec.secret_env,
            ours: ours(spec, &roots, &status.path(), &log.path()),
        },
        &roots,
    )?;
    let own = |path: &str| beneath(path).map_err(|source| PrepareError::Path { field: path.to_owned(), source });
    let spec_copy = own(SPEC_COPY)?;
    let reserve = own(RESERVE)?;
    let outputs_folder = own(OUTPUTS_DIR)?;
    let files = files(rendered.files, &spec.artifacts)?;
    let mut outputs: Vec<(Output, Beneath)> = Vec::new();
    for (n, output) in spec.outputs.iter().enumerate() {
        let place = place::of_output(output)
            .map_err(|source| PrepareError::Path { field: format!("outputs[{n}].path"), source })?;
        outputs.push((output.clone(), place));
    }
    if let Some((n, earlier)) = place::shared_outputs(&spec.outputs).into_iter().next() {
        let problem = format!("is the place of `outputs[{earlier}]`, or one of them lies below the other");
        return Err(field(format!("outputs[{n}].path"), problem));
    }
    let Limits { timeout_seconds, grace_seconds, log_bytes } = spec.limits;
    let ProviderSpec { binary, usage, .. } = provider;
    Ok(Prepared {
        status,
        log,
        log_cap: log_bytes.unwrap_or(DEFAULT_CAP),
        spec_copy,
        reserve,
        outputs_folder,
        outputs,
        program: roots.text(binary),
        args,
        environment,
        files,
        checkout,
        timeout_seconds,
        grace_seconds: grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS),
        usage: usage.as_ref().and_then(|usage| usage.parser),
        roots,
    })
}

/// Input files with their fields and places.
fn files(
    rendered: Vec<(String, String)>,
    artifacts: &ArtifactPaths,
) -> Result<Vec<(String, Beneath, String)>, PrepareError> {
    let places = place::of_input_files(rendered.iter().map(|(path, _)| path.as_str()), artifacts);
    let files = rendered.into_iter().zip(places).enumerate().map(|(n, ((_, content), place))| {
        let field = format!("inputFiles[{n}].path");
        match place {
            Ok(place) => Ok((field, place, content)),
            Err(source) => Err(PrepareError::InputFile { field, source }),
        }
    });
    files.collect()
}

/// The variables every provider gets.
fn ours(spec: &RunnerSpec, roots: &RootMap, status: &Path, log: &Path) -> Vec<(String, String)> {
    let mut ours = env::inputs(&spec.inputs);
    for (_, value) in &mut ours {
        *value = roots.text(value);
    }
    let attempt = spec.run.attempt.to_string();
    let (status, log) = (status.display().to_string(), log.display().to_string());
    let stage = spec.inputs.get("stage").map(String::as_str).unwrap_or_default();
    let pairs = [
        (ACTIVE_VARIABLE, "1"),
        ("AGENT_RUN_NAME", &spec.run.name),
        ("AGENT_RUN_UID", &spec.run.uid),
        ("AGENT_RUN_NAMESPACE", &spec.run.namespace),
        ("AGENT_NAME", &spec.agent.name),
        ("AGENT_PROVIDER", &spec.provider),
        ("AGENT_ATTEMPT", &attempt),
        ("AGENT_IMPLEMENTATION", spec.implementation_name.as_deref().unwrap_or_default()),
        ("AGENT_RUNNER_SPEC_PATH", &roots.text(SPEC_COPY)),
        ("AGENT_STATUS_PATH", &status),
        ("AGENT_LOG_PATH", &log),
        ("AGENT_OUTPUTS_DIR", &roots.text(OUTPUTS_DIR)),
        ("WORKFLOW_NAME", &spec.run.name),
        ("WORKFLOW_UID", &spec.run.uid),
        ("WORKFLOW_NAMESPACE", &spec.run.namespace),
        ("WORKFLOW_STEP", ONLY_STEP),
        ("WORKFLOW_STAGE", stage),
        ("WORKFLOW_ITERATION", "1"),
    ];
    ours.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(Observability { nats_url, graf_base_url }) = &spec.observability {
        for (name, value) in [("NATS_URL", nats_url), ("GRAF_BASE_URL", graf_base_url)] {
            if let Some(value) = value {
                ours.push((name.to_owned(), value.clone()));
            }
        }
    }
    // A value no variable can hold is a value of the spec's author, such as a name with a NUL: an empty one is honest.
    for (_, value) in &mut ours {
        if value.contains('\0') || value.len() >= MAX_STRING - 64 {
            value.clear();
        }
    }
    ours
}
