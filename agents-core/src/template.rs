//! Strict, single-pass templates: `{{ inputs.repository }}`.
//!
//! One renderer serves the controller's check and the runner's rendering. A value is never parsed again, so text that
//! looks like a template arrives byte for byte. An undefined name is an error with template, line and column.
//! Environment variables, files and secrets are not in scope. Filters are an allow-list. A source that could take much
//! memory or stack is refused before it is compiled; reading, compiling and rendering are paid in bytes from one
//! [`Budget`], which all templates of a plan share.

mod budget;
mod filters;
mod guard;
mod metered;
mod operators;

use std::{collections::BTreeMap, fmt, sync::Arc};

use minijinja::{
    AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value,
    machinery::{self, Instructions},
    value::ValueKind,
};
use serde::Serialize;
use thiserror::Error;

pub use self::budget::{Budget, MAX_COST};
use self::metered::{NotCompiled, Refused};
use crate::status::Reason;

/// Largest rendered text, in bytes.
pub const MAX_RENDERED_BYTES: usize = 1024 * 1024;

/// A template that cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct TemplateError {
    /// Which template, as a field path such as `argsTemplate[2]`.
    pub template: String,
    /// Line in the template, from 1.
    pub line: usize,
    /// Column in the line, from 1; 0 when it is not known.
    pub column: usize,
    /// What is wrong, without any value.
    pub problem: String,
    /// [`Reason::TemplateLimit`] for what is too large, too deep or costs too much, else [`Reason::InvalidSpec`].
    pub reason: Reason,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.template, self.line)?;
        if self.column > 0 {
            write!(f, ", column {}", self.column)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl TemplateError {
    /// An error of a template as a whole, for what it would take.
    pub(crate) fn limit(name: &str, problem: String) -> Self {
        Self { template: name.to_owned(), line: 1, column: 0, problem, reason: Reason::TemplateLimit }
    }

    /// An error at a place of the source, given in bytes.
    fn at(name: &str, source: &str, at: usize, problem: String, reason: Reason) -> Self {
        let before = source.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { template: name.to_owned(), line, column, problem, reason }
    }
}

/// Notes whether a template can be read at all, whatever names are in scope, and pays for it.
///
/// # Errors
/// A syntax error, something that is not available, or more than `budget` has left.
pub fn parse(name: &str, source: &str, budget: &Budget) -> Result<(), TemplateError> {
    compile(name, source, budget).map(drop)
}

/// Compiles a source that the guard lets through; nothing else may compile one.
fn compile<'a>(name: &str, source: &'a str, budget: &Budget) -> Result<Instructions<'a>, TemplateError> {
    guard::check(name, source, budget)?;
    // Its name never reaches minijinja: it would choose an escape mode by the ending of the name.
    metered::compile(source).map_err(|error| match error {
        NotCompiled::Engine(error) => describe(name, source, budget, &error),
        NotCompiled::Refused(Refused { at, problem }) => {
            TemplateError::at(name, source, at, problem.to_owned(), Reason::InvalidSpec)
        }
    })
}

/// Renders the templates of one plan with the values of one run.
pub struct Renderer {
    environment: Environment<'static>,
    budget: Arc<Budget>,
    scope: Value,
}

impl Renderer {
    /// A renderer over the names that `scope` has.
    pub fn new(scope: &impl Serialize) -> Self {
        Self::over(Value::from(minijinja::value::Serde(scope)))
    }

    /// A renderer over one value, with a budget of its own.
    pub(crate) fn over(scope: Value) -> Self {
        let budget = Arc::new(Budget::default());
        Self { environment: environment(&budget), budget, scope }
    }

    /// What is left for further templates.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Renders one template; `name` says which one it is in an error.
    ///
    /// # Errors
    /// A syntax error, an undefined name, a value that is not text, or a limit that was passed.
    pub fn render(&self, name: &str, source: &str) -> Result<String, TemplateError> {
        let program = compile(name, source, &self.budget)?;
        self.run(&program).map_err(|error| describe(name, source, &self.budget, &error))
    }

    /// Renders one template only to see what the engine says of it, if anything.
    pub(crate) fn try_out(
        &self,
        name: &str,
        source: &str,
    ) -> Result<Option<(ErrorKind, TemplateError)>, TemplateError> {
        let program = compile(name, source, &self.budget)?;
        let said = self.run(&program).err();
        Ok(said.map(|error| (error.kind(), describe(name, source, &self.budget, &error))))
    }

    fn run(&self, program: &Instructions<'_>) -> Result<String, minijinja::Error> {
        self.budget.begin();
        let mut text = String::new();
        let blocks = BTreeMap::new();
        let mut output = machinery::make_string_output(&mut text);
        machinery::eval(&self.environment, program, self.scope.clone(), &blocks, &mut output, AutoEscape::None)?;
        drop(output);
        Ok(text)
    }
}

/// The names at the root of a source and what it reads of them, as paths; of one that the guard lets through.
pub(crate) fn names(source: &str) -> (Vec<String>, Vec<String>) {
    let mut environment = Environment::empty();
    environment.set_syntax(metered::syntax());
    let names =
        |template: &minijinja::Template<'_, '_>, nested| template.undeclared_variables(nested).into_iter().collect();
    // What cannot be compiled has been told.
    environment
        .template_from_str(source)
        .map(|template| (names(&template, false), names(&template, true)))
        .unwrap_or_default()
}

fn environment(budget: &Arc<Budget>) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Debug output would put variable values into errors.
    environment.set_debug(false);
    environment.set_recursion_limit(32);
    let printed = Arc::clone(budget);
    environment.set_formatter(move |out, state, value| match value.kind() {
        ValueKind::Bool => {
            let text = if value.is_true() { "true" } else { "false" };
            printed.print(text.len())?;
            out.write_str(text).map_err(Into::into)
        }
        ValueKind::None => Err(minijinja::Error::new(ErrorKind::InvalidOperation, "there is no value to print")),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "a list or a map prints only through `tojson`"))
        }
        ValueKind::Number => {
            let text = value.to_string();
            printed.print(text.len())?;
            out.write_str(&text).map_err(Into::into)
        }
        _ => {
            let length = value.as_str().map_or(0, str::len);
            let escaped = if *state.auto_escape() == AutoEscape::None { 1 } else { filters::ESCAPED };
            printed.print(length.saturating_mul(escaped))?;
            minijinja::escape_formatter(out, state, value)
        }
    });
    filters::add_to(&mut environment, budget);
    operators::add_to(&mut environment, budget);
    environment.add_test("defined", minijinja::tests::is_defined);
    environment.add_test("undefined", minijinja::tests::is_undefined);
    environment
}

fn describe(name: &str, source: &str, budget: &Budget, error: &minijinja::Error) -> TemplateError {
    // The expression as the template's author wrote it: its text cannot hold a value of the run.
    let expression = error.range().and_then(|range| source.get(range)).map(str::trim).filter(|text| text.len() <= 200);
    let column = error.range().map_or(0, |range| {
        let start = range.start.min(source.len());
        let before = source.get(..start).unwrap_or_default();
        before.rsplit('\n').next().unwrap_or_default().chars().count() + 1
    });
    let limit = match error.detail() {
        Some(budget::SPENT) => Some(budget.problem()),
        Some(budget::PRINTS_TOO_MUCH) => {
            return TemplateError::limit(name, format!("renders more than {MAX_RENDERED_BYTES} bytes"));
        }
        Some(filters::TOO_LARGE) => {
            let it = expression.map_or_else(String::new, |it| format!(" in `{it}`"));
            Some(format!("{}{it}", filters::TOO_LARGE))
        }
        _ => None,
    };
    let reason = if limit.is_some() { Reason::TemplateLimit } else { Reason::InvalidSpec };
    let problem = limit.unwrap_or_else(|| match (error.kind(), expression) {
        (ErrorKind::UndefinedError, Some(expression)) => format!("`{expression}` is not defined"),
        (ErrorKind::UndefinedError, None) => "a name is not defined".to_owned(),
        (ErrorKind::SyntaxError, _) => match error.detail() {
            Some(detail) => format!("syntax error: {detail}"),
            None => "syntax error".to_owned(),
        },
        (ErrorKind::UnknownFilter, Some(expression)) => format!("unknown filter in `{expression}`"),
        (ErrorKind::InvalidOperation, Some(expression)) => {
            format!("`{expression}` is not text; print lists and maps through `tojson`")
        }
        (kind, Some(expression)) => format!("{kind} in `{expression}`"),
        (kind, None) => kind.to_string(),
    });
    TemplateError { template: name.to_owned(), line: error.line().unwrap_or(1), column, problem, reason }
}

#[cfg(test)]
mod tests;
