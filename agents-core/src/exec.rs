//! What the kernel lets a program be started with: bounds of one argument or variable and of all together.
//!
//! Asked when a run is planned, so that one that can never start costs no attempt, and again by the runner. What the
//! plan cannot know, the image's variables and the values of secrets, has a room of its own.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{
    api::common::EnvVar,
    check::Fault,
    plan::{Rendered, RunnerSpec, runner_spec::ProviderSpec},
    variable::{is_name, is_reserved},
};

/// Largest argument, and largest `NAME=value`, in bytes: Linux takes 128 KiB with the NUL at its end (`MAX_ARG_STRLEN`).
pub const MAX_STRING: usize = 128 * 1024 - 1;
/// What Linux takes of all arguments and variables together where the stack may have the usual 8 MiB, in bytes: a
/// quarter of it (`ARG_MAX`).
pub const MAX_TOTAL: usize = 2 * 1024 * 1024;
/// How much of that is left to what no plan knows: variables of the image or of the shell that starts a local run,
/// values of secrets, and the runner's own variables, in bytes.
pub const MAX_UNPLANNED: usize = 512 * 1024;
/// What is left to the plan: arguments, variables of Agent and provider, parameters, in bytes.
pub const MAX_PLANNED: usize = MAX_TOTAL - MAX_UNPLANNED;

/// What stands before the name of a parameter in its variable.
pub const INPUT_PREFIX: &str = "AGENT_INPUT_";

/// The variable of a parameter.
pub fn input_variable(parameter: &str) -> String {
    let shown = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    INPUT_PREFIX.chars().chain(parameter.chars().map(shown)).collect()
}

/// Parameters whose variable is that of an earlier one, which no provider could read both of: each with what is wrong.
pub fn shared_variables<'a>(parameters: impl IntoIterator<Item = &'a String>) -> Vec<(&'a String, String)> {
    let mut first: BTreeMap<String, &String> = BTreeMap::new();
    let mut shared = Vec::new();
    for parameter in parameters {
        match first.entry(input_variable(parameter)) {
            Entry::Vacant(free) => drop(free.insert(parameter)),
            Entry::Occupied(taken) => {
                let problem = format!("{parameter:?} and {:?} are both the variable {}", taken.get(), taken.key());
                shared.push((parameter, problem));
            }
        }
    }
    shared
}

/// Why a text cannot be an argument.
pub fn argument(text: &str) -> Option<String> {
    if text.contains('\0') {
        return Some("renders a NUL".to_owned());
    }
    let bytes = text.len();
    (bytes > MAX_STRING).then(|| {
        format!(
            "renders {bytes} bytes; the kernel takes at most {MAX_STRING} in one argument: give large text as a file"
        )
    })
}

/// Why a variable cannot be set.
pub fn variable(name: &str, value: &str) -> Option<String> {
    if !is_name(name) {
        return Some(format!("{name:?} is not a variable name"));
    }
    if is_reserved(name) {
        return Some(format!("variable `{name}` is reserved"));
    }
    value_of(name, value)
}

/// Why a variable cannot have a value.
pub fn value_of(name: &str, value: &str) -> Option<String> {
    if value.contains('\0') {
        return Some(format!("the value of `{name}` contains a NUL"));
    }
    let bytes = name.len() + 1 + value.len();
    (bytes > MAX_STRING).then(|| {
        format!(
            "`{name}` and its value have {bytes} bytes; the kernel takes at most {MAX_STRING} in one variable: give \
             large text as a file"
        )
    })
}

/// Everything of a provider's arguments and variables that the kernel would refuse.
pub fn faults(provider: &ProviderSpec, rendered: &Rendered, spec: &RunnerSpec) -> Vec<Fault> {
    let Rendered { args, env, files: _, cost: _ } = rendered;
    let mut faults = Vec::new();
    let mut add = |field: String, problem: Option<String>| {
        faults.extend(problem.map(|problem| Fault { field, problem }));
    };
    for (n, text) in args.iter().enumerate() {
        add(format!("argsTemplate[{n}]"), argument(text));
    }
    for (n, EnvVar { name, value }) in spec.env.iter().enumerate() {
        add(format!("env[{n}]"), variable(name, value));
    }
    for (name, value) in env {
        add(format!("envTemplate.{name}"), variable(name, value));
    }
    for (name, problem) in shared_variables(spec.inputs.keys()) {
        add(format!("inputs.{name}"), Some(problem));
    }
    let planned = planned(&provider.binary, args, env, spec);
    if planned > MAX_PLANNED {
        add(
            "argsTemplate".to_owned(),
            Some(format!(
                "arguments, variables and parameters together have {planned} bytes; at most {MAX_PLANNED}, for the kernel \
                 takes {MAX_TOTAL} with those of the image and of secrets: give large text as a file"
            )),
        );
    }
    faults
}

/// What the planned arguments and variables take, in bytes.
fn planned(binary: &str, args: &[String], env: &[(String, String)], spec: &RunnerSpec) -> usize {
    // The program's path stands there twice.
    let words = [binary, binary].into_iter().chain(args.iter().map(String::as_str)).map(|text| taken(text.len()));
    let mut variables: BTreeMap<&str, usize> =
        spec.env.iter().map(|one| (one.name.as_str(), one.value.len())).collect();
    variables.extend(env.iter().map(|(name, value)| (name.as_str(), value.len())));
    let variables = variables.into_iter().map(|(name, value)| taken(name.len() + 1 + value));
    let inputs = spec.inputs.iter().map(|(name, value)| taken(INPUT_PREFIX.len() + name.len() + 1 + value.len()));
    words.chain(variables).chain(inputs).sum()
}

/// What a text takes: itself, the NUL at its end and a pointer to it.
fn taken(bytes: usize) -> usize {
    bytes.saturating_add(1 + 8)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn spec() -> RunnerSpec {
        serde_json::from_value(serde_json::json!({"provider": "p"})).unwrap()
    }

    fn fields(args: &[usize], env: &[usize], agent: &[usize], inputs: &[usize]) -> Vec<String> {
        let texts = |sizes: &[usize]| sizes.iter().map(|size| "x".repeat(*size)).collect::<Vec<_>>();
        let mut spec = spec();
        spec.env = texts(agent).into_iter().map(|value| EnvVar { name: "A".to_owned(), value }).collect();
        spec.inputs = texts(inputs).into_iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect();
        let rendered = Rendered {
            args: texts(args),
            env: texts(env).into_iter().enumerate().map(|(n, value)| (format!("V{n}"), value)).collect(),
            files: vec![(String::new(), "x".repeat(MAX_TOTAL))],
            cost: 0,
        };
        faults(&ProviderSpec::default(), &rendered, &spec).into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn what_is_too_long_by_itself_names_its_field() {
        assert_eq!(fields(&[MAX_STRING], &[MAX_STRING - 3], &[MAX_STRING - 2], &[]), Vec::<String>::new());
        let over = fields(&[0, MAX_STRING + 1], &[MAX_STRING - 2], &[MAX_STRING - 1], &[]);
        assert_eq!(over, ["argsTemplate[1]", "env[0]", "envTemplate.V0"]);
        assert!(argument("a\0b").is_some() && variable("A", "a\0b").is_some());
        assert!(variable("LD_PRELOAD", "").is_some() && variable("A=B", "").is_some());
    }

    #[test]
    fn parameters_of_one_variable_are_named_both() {
        let names = ["a-b", "a.b", "a_b", "ab", "größe"].map(str::to_owned);
        let shared = shared_variables(&names);
        let both = |name: &str| format!("{name:?} and \"a-b\" are both the variable AGENT_INPUT_A_B");
        assert_eq!(shared, [(&names[1], both("a.b")), (&names[2], both("a_b"))]);
        assert_eq!(input_variable("größe"), "AGENT_INPUT_GR__E");
        let mut spec = spec();
        spec.inputs = [("a-b", ""), ("A_B", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let rendered = Rendered { args: vec![], env: vec![], files: vec![], cost: 0 };
        assert_eq!(faults(&ProviderSpec::default(), &rendered, &spec)[0].field, "inputs.a-b");
    }

    #[test]
    fn what_is_too_long_together_is_one_fault() {
        assert_eq!(fields(&[100_000; 15], &[], &[], &[]), Vec::<String>::new());
        assert_eq!(fields(&[100_000; 16], &[], &[], &[]), ["argsTemplate"]);
        assert_eq!(fields(&[], &[100_000; 16], &[], &[]), ["argsTemplate"]);
        assert_eq!(fields(&[100_000; 14], &[], &[], &[2000; 100]), ["argsTemplate"]);
        // Each costs a pointer too.
        assert_eq!(fields(&vec![0; MAX_PLANNED / 8], &[], &[], &[]), ["argsTemplate"]);
    }

    /// The bounds are this kernel's: what passes starts, with room for what no plan knows.
    #[test]
    fn the_kernel_takes_what_passes_and_refuses_one_byte_more() {
        let start = |args: &[String], unplanned: usize| {
            let mut command = Command::new("/bin/true");
            command.args(args).env_clear();
            command.envs((0..unplanned / 100_000).map(|n| (format!("U{n}"), "x".repeat(100_000))));
            command.status().is_ok()
        };
        assert!(start(&["x".repeat(MAX_STRING)], 0));
        assert!(!start(&["x".repeat(MAX_STRING + 1)], 0));
        assert!(start(&vec!["x".repeat(100_000); 15], MAX_UNPLANNED));
    }

    proptest! {
        #[test]
        fn what_is_planned_grows_with_every_byte(sizes in prop::collection::vec(0usize..200, 0..20), more in 1usize..50) {
            let texts: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let before = planned("b", &texts, &[], &spec());
            let mut longer = texts.clone();
            longer.push("y".repeat(more));
            prop_assert_eq!(planned("b", &longer, &[], &spec()), before + more + 9);
            let env: Vec<_> = texts.iter().enumerate().map(|(n, text)| (format!("{n:02}"), text.clone())).collect();
            prop_assert_eq!(planned("b", &[], &env, &spec()), planned("b", &texts, &[], &spec()) + 3 * texts.len());
        }
    }
}
