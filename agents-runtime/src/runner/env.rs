//! The environment of the provider, layer over layer. Pure.
//!
//! Later wins: what the runner inherited, the Agent's variables, the provider's templates, secrets, ours. Two
//! exceptions: a non-empty `WORKFLOW_*` of the provider's templates wins over ours, and `AGENT_*` is never anybody
//! else's.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use agents_core::{api::common::EnvVar, exec};
use thiserror::Error;

use super::roots::RootMap;

/// Set for the provider, so that a runner started inside a runner can refuse.
pub(super) const ACTIVE_VARIABLE: &str = "AGENT_RUNNER_ACTIVE";

/// Inherited variables the provider does not get, because they are ours to be read once.
const NOT_INHERITED: &[&str] = &["AGENT_RUNNER_SPEC", "AGENT_TERMINATION_PATH"];

/// Variables that turn git to another repository than the one it stands in, as a hook or an alias hands them down: those
/// of `git rev-parse --local-env-vars`, and of what a server sets while it receives. `GIT_CONFIG_COUNT` is not among
/// them: it is how a configuration is given without a file.
pub(super) const OF_ANOTHER_REPOSITORY: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// A variable that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{field}`: {problem}")]
pub(super) struct EnvError {
    /// Where it was given.
    field: String,
    /// What is wrong with it.
    problem: String,
}

fn check(field: &str, name: &str, value: &str) -> Result<(), EnvError> {
    match exec::variable(name, value) {
        None => Ok(()),
        Some(problem) => Err(EnvError { field: field.to_owned(), problem }),
    }
}

/// What the layers are made of.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    /// What the runner inherited.
    pub inherited: Vec<(OsString, OsString)>,
    /// The Agent's variables.
    pub agent: &'a [EnvVar],
    /// The provider's rendered variables.
    pub provider: &'a [(String, String)],
    /// Names of inherited variables that are secrets.
    pub secrets: &'a [String],
    /// Ours.
    pub ours: Vec<(String, String)>,
}

/// The environment of the provider.
///
/// # Errors
/// The first variable of the Agent or the provider that is not allowed.
pub(super) fn environment(layers: Layers<'_>, roots: &RootMap) -> Result<BTreeMap<OsString, OsString>, EnvError> {
    let Layers { inherited, agent, provider, secrets, ours } = layers;
    let is_secret = |name: &OsStr| secrets.iter().any(|secret| OsStr::new(secret) == name);
    let secret_layer: Vec<(OsString, OsString)> =
        inherited.iter().filter(|(name, _)| is_secret(name)).cloned().collect();
    let mut environment: BTreeMap<OsString, OsString> = inherited
        .into_iter()
        .filter(|(name, _)| {
            !NOT_INHERITED.iter().chain(OF_ANOTHER_REPOSITORY).any(|left_out| OsStr::new(left_out) == name)
        })
        .collect();
    for (n, EnvVar { name, value }) in agent.iter().enumerate() {
        let value = roots.text(value);
        check(&format!("env[{n}]"), name, &value)?;
        environment.insert(name.into(), value.into());
    }
    for (name, value) in provider {
        let value = roots.text(value);
        check(&format!("envTemplate.{name}"), name, &value)?;
        environment.insert(name.into(), value.into());
    }
    for name in secrets {
        check("secretEnv", name, "")?;
    }
    environment.extend(secret_layer);
    for (name, value) in ours {
        let kept =
            name.starts_with("WORKFLOW_") && provider.iter().any(|(given, value)| *given == name && !value.is_empty());
        if !kept {
            environment.insert(name.into(), value.into());
        }
    }
    Ok(environment)
}

/// Parameters as variables, which the check has found to be different ones. A value no variable can hold is left out.
pub(super) fn inputs(inputs: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let variables = inputs.iter().map(|(key, value)| (exec::input_variable(key), value.clone()));
    variables.filter(|(name, value)| exec::value_of(name, value).is_none()).collect()
}

#[cfg(test)]
mod tests {
    use agents_core::exec::MAX_STRING;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    fn build(
        inherited: &[(&str, &str)],
        agent: &[(&str, &str)],
        provider: &[(&str, &str)],
        secrets: &[&str],
        ours: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>, EnvError> {
        let agent: Vec<EnvVar> = pairs(agent).into_iter().map(|(name, value)| EnvVar { name, value }).collect();
        let secrets: Vec<String> = secrets.iter().map(|name| (*name).to_owned()).collect();
        let layers = Layers {
            inherited: pairs(inherited).into_iter().map(|(a, b)| (a.into(), b.into())).collect(),
            agent: &agent,
            provider: &pairs(provider),
            secrets: &secrets,
            ours: pairs(ours),
        };
        let built = environment(layers, &RootMap::new(None).unwrap())?;
        Ok(built.into_iter().map(|(a, b)| (a.into_string().unwrap(), b.into_string().unwrap())).collect())
    }

    #[test]
    fn later_layers_win() {
        let built = build(
            &[("A", "image"), ("B", "image"), ("C", "image"), ("S", "secret"), ("D", "image"), ("GIT_DIR", "x")],
            &[("B", "agent"), ("C", "agent"), ("S", "agent")],
            &[("C", "provider"), ("S", "provider"), ("WORKFLOW_STAGE", "mine"), ("WORKFLOW_STEP", "")],
            &["S", "ABSENT"],
            &[("D", "ours"), ("WORKFLOW_STAGE", "ours"), ("WORKFLOW_STEP", "ours")],
        )
        .unwrap();
        let expected = [
            ("A", "image"),
            ("B", "agent"),
            ("C", "provider"),
            ("D", "ours"),
            ("S", "secret"),
            ("WORKFLOW_STAGE", "mine"),
            ("WORKFLOW_STEP", "ours"),
        ];
        assert_eq!(built.into_iter().collect::<Vec<_>>(), pairs(&expected));
    }

    #[test]
    fn reserved_and_impossible_names_are_refused_wherever_they_are_given() {
        for name in ["AGENT_RUN_UID", "LD_PRELOAD", "BASH_ENV", "NODE_OPTIONS", "", "A=B", "A\nB", "A\0"] {
            assert!(build(&[], &[(name, "x")], &[], &[], &[]).is_err(), "{name:?}");
            assert!(build(&[], &[], &[(name, "x")], &[], &[]).is_err(), "{name:?}");
            assert!(build(&[], &[], &[], &[name], &[]).is_err(), "{name:?}");
        }
        assert!(build(&[], &[("A", "\0")], &[], &[], &[]).is_err());
        assert!(build(&[], &[("A", &"x".repeat(MAX_STRING))], &[], &[], &[]).is_err());
        assert!(build(&[], &[("PATH", "/bin")], &[("HOME", "/root")], &[], &[]).is_ok());
    }

    #[test]
    fn parameters_are_exported_unless_no_variable_can_hold_them() {
        let long = "x".repeat(MAX_STRING);
        let given = pairs(&[("issue-number", "1"), ("größe", "3"), ("nul", "a\0b"), ("long", &long)]);
        assert_eq!(
            inputs(&given.into_iter().collect()),
            pairs(&[("AGENT_INPUT_GR__E", "3"), ("AGENT_INPUT_ISSUE_NUMBER", "1")])
        );
    }
}
