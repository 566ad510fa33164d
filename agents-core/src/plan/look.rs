//! What can be said of a provider's template without the values of any run.

use std::{collections::BTreeSet, fmt, sync::Arc};

use minijinja::{
    ErrorKind, Value,
    value::{Object, ObjectRepr},
};

use super::render::WELL_KNOWN_INPUTS;
use crate::{
    status::Reason,
    template::{self, Renderer, TemplateError},
};

/// The names at the root of a provider's templates.
pub const ROOTS: &[&str] =
    &["agent", "agentRun", "artifacts", "git", "implementation", "inputs", "parameters", "payloads", "provider", "run"];

/// What a template reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// Inputs, under whichever root; those that the oldest manifests use without a value left out.
    pub inputs: BTreeSet<String>,
    /// Syntax errors, roots and filters that do not exist.
    pub errors: Vec<TemplateError>,
}

/// Looks at one template; `name` says which one it is in an error.
pub fn look(name: &str, source: &str) -> Looked {
    let renderer = Renderer::over(Value::from_object(Anything));
    let said = match renderer.try_out(name, source) {
        Ok(said) => said,
        Err(error) => return Looked { inputs: BTreeSet::new(), errors: vec![error] },
    };
    let (roots, paths) = template::names(source);
    let mut looked = Looked::default();
    for root in roots {
        if !ROOTS.contains(&root.as_str()) {
            let (line, column) = place_of(source, &root);
            let problem = format!("`{root}` is not defined: the roots are {}", ROOTS.join(", "));
            let reason = Reason::InvalidSpec;
            looked.errors.push(TemplateError { template: name.to_owned(), line, column, problem, reason });
        }
    }
    looked.errors.sort_by_key(|error| (error.line, error.column));
    for path in paths {
        let mut steps = path.split('.');
        if let (Some("inputs" | "parameters"), Some(input)) = (steps.next(), steps.next())
            && !WELL_KNOWN_INPUTS.contains(&input)
        {
            looked.inputs.insert(input.to_owned());
        }
    }
    // Filters and tests are looked up when they are used. Whatever else such a rendering says is about its values.
    if let Some((kind, error)) = said
        && matches!(kind, ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction)
    {
        looked.errors.push(error);
    }
    looked
}

/// A value that has every member and prints as nothing.
#[derive(Debug)]
struct Anything;

impl Object for Anything {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_object(Self))
    }
    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Line and column of the first use of `name`, from 1.
fn place_of(source: &str, name: &str) -> (usize, usize) {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let found = source.match_indices(name).find(|(at, _)| {
        let before = source[..*at].chars().next_back();
        let after = source[*at + name.len()..].chars().next();
        !before.is_some_and(inside) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    });
    let before = found.map_or("", |(at, _)| &source[..at]);
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{RunnerSpec, render::scope};

    fn errors(source: &str) -> Vec<String> {
        look("t", source).errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_roots_are_the_names_in_scope() {
        let spec: RunnerSpec = serde_json::from_value(serde_json::json!({"provider": "p"})).unwrap();
        let scope = serde_json::to_value(scope(&spec)).unwrap();
        let mut names: Vec<&str> = scope.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ROOTS);
    }

    #[test]
    fn what_is_wrong_for_every_run_is_found_without_one() {
        let none: Vec<String> = vec![];
        assert_eq!(errors("{{ inputs.a }} {% for x in implementation.labels %}{{ x }}{% endfor %}"), none);
        assert_eq!(
            errors("a\n {{ secrets.x }}"),
            [format!("t, line 2, column 5: `secrets` is not defined: the roots are {}", ROOTS.join(", "))]
        );
        assert!(errors("{{ inputs.a ").concat().contains("syntax error"));
        assert_eq!(errors("{{ 'a' | shell }}"), ["t, line 1, column 10: unknown filter in `shell`"]);
        assert_eq!(errors("{{ inputs.a | shell }}"), ["t, line 1, column 15: unknown filter in `shell`"]);
        assert_eq!(
            errors("{{ inputs.a | trim('/') }}"),
            ["t, line 1, column 15: `trim` takes off white space only: it has no argument"]
        );
        let costly = "{% for a in inputs.a %}{% endfor %}".to_owned() + &"{{ 'x' }}".repeat(501);
        assert_eq!(look("t", &costly).errors[0].reason, Reason::TemplateLimit);
    }

    #[test]
    fn inputs_are_found_under_both_names() {
        let looked = look("t", "{{ inputs.a }}{{ parameters.b | default('x') }}{{ inputs.stage }}{{ payloads.c }}");
        assert_eq!(looked.inputs, ["a", "b"].map(str::to_owned).into());
    }
}
