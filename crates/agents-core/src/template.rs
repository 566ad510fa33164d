//! Strict, single-pass templates: `{{ inputs.repository }}`.
//!
//! One renderer serves the controller's check and the runner's rendering. A value is never parsed again, so text that
//! looks like a template arrives byte for byte. An undefined name is an error with template, line and column.
//! Environment variables, files and secrets are not in scope. Filters are an allow-list; instructions, input and output
//! are bounded.

use std::{fmt, io};

use minijinja::{
    AutoEscape, Environment, ErrorKind, State, UndefinedBehavior, Value, syntax::SyntaxConfig, value::ValueKind,
};
use serde::Serialize;
use thiserror::Error;

use crate::plan::{RunnerSpec, runner_spec::ProviderSpec};

/// Largest rendered text, in bytes.
pub const MAX_RENDERED_BYTES: usize = 1024 * 1024;
/// Largest number of bytes all renderings of one plan may have together.
pub const MAX_RENDERED_TOTAL: usize = 4 * 1024 * 1024;
/// Instructions one rendering may take.
const FUEL: u64 = 100_000;
/// Names the oldest manifests use without giving them a value; they render empty when absent.
const WELL_KNOWN_INPUTS: &[&str] = &["repository", "issueNumber", "base", "head", "stage"];
/// See [`WELL_KNOWN_INPUTS`].
const WELL_KNOWN_PAYLOADS: &[&str] = &["rawEventB64", "eventBodyB64", "promptJson"];

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

/// What a provider's templates became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// Arguments, without the program.
    pub args: Vec<String>,
    /// Variables, in the order of their names.
    pub env: Vec<(String, String)>,
    /// Files as (path, content), in the order they were declared.
    pub files: Vec<(String, String)>,
}

/// Renders every template of a provider with the values of `spec`.
///
/// # Errors
/// All templates that fail, not only the first.
pub fn render_provider(provider: &ProviderSpec, spec: &RunnerSpec) -> Result<Rendered, Vec<TemplateError>> {
    let ProviderSpec { binary: _, args_template, env_template, input_files, usage: _ } = provider;
    let renderer = Renderer::new(spec);
    let mut errors = Vec::new();
    let mut left = MAX_RENDERED_TOTAL;
    let mut text_of = |name: String, source: &str| match renderer.render(&name, source) {
        Ok(text) if text.len() <= left => {
            left -= text.len();
            text
        }
        Ok(_) => {
            let problem = format!("all templates together render more than {MAX_RENDERED_TOTAL} bytes");
            errors.push(TemplateError { template: name, line: 1, column: 0, problem });
            String::new()
        }
        Err(error) => {
            errors.push(error);
            String::new()
        }
    };
    let all = Rendered {
        args: args_template
            .iter()
            .enumerate()
            .map(|(n, text)| text_of(format!("argsTemplate[{n}]"), &text.0))
            .collect(),
        env: env_template
            .iter()
            .map(|(name, text)| (name.clone(), text_of(format!("envTemplate.{name}"), &text.0)))
            .collect(),
        files: input_files
            .iter()
            .enumerate()
            .map(|(n, file)| (file.path.clone(), text_of(format!("inputFiles[{n}].content"), &file.content.0)))
            .collect(),
    };
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

/// The names in scope of one run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    inputs: serde_json::Map<String, serde_json::Value>,
    parameters: serde_json::Map<String, serde_json::Value>,
    payloads: serde_json::Map<String, serde_json::Value>,
    implementation: serde_json::Value,
    run: serde_json::Value,
    agent_run: serde_json::Value,
    agent: serde_json::Value,
    provider: serde_json::Value,
    git: serde_json::Value,
    artifacts: serde_json::Value,
}

/// Renders templates with the values of one run.
pub struct Renderer {
    environment: Environment<'static>,
    scope: Value,
}

impl Renderer {
    /// A renderer over the values of `spec`.
    pub fn new(spec: &RunnerSpec) -> Self {
        let text = |value: &str| serde_json::Value::from(value);
        let mut inputs: serde_json::Map<_, _> =
            WELL_KNOWN_INPUTS.iter().map(|name| ((*name).to_owned(), text(""))).collect();
        inputs.extend(spec.inputs.iter().map(|(name, value)| (name.clone(), text(value))));
        let mut payloads: serde_json::Map<_, _> =
            WELL_KNOWN_PAYLOADS.iter().map(|name| ((*name).to_owned(), text(""))).collect();
        payloads.extend(spec.payloads.iter().map(|(name, value)| (name.clone(), text(value))));
        for (name, value) in &mut payloads {
            if let Some(parameter) = spec.inputs.get(name) {
                *value = text(parameter);
            }
        }
        let run = serde_json::json!({
            "name": spec.run.name, "namespace": spec.run.namespace, "uid": spec.run.uid,
        });
        let implementation = spec.implementation.as_ref().map_or(serde_json::Value::Null, |work| {
            serde_json::json!({
                "name": spec.implementation_name.as_deref().unwrap_or_default(),
                "text": work.text,
                "summary": work.summary.as_deref().unwrap_or_default(),
                "description": work.description.as_deref().unwrap_or_default(),
                "acceptanceCriteria": work.acceptance_criteria,
                "labels": work.labels,
                "source": work.source.as_ref().map(|source| serde_json::json!({
                    "provider": source.provider,
                    "externalId": source.external_id.as_deref().unwrap_or_default(),
                    "url": source.url.as_deref().unwrap_or_default(),
                })),
            })
        });
        let git = spec.git.as_ref().map_or_else(
            || serde_json::json!({"url": "", "ref": "", "path": ""}),
            |git| {
                serde_json::json!({
                    "url": git.url,
                    "ref": git.reference.as_deref().unwrap_or_default(),
                    "path": git.path.as_deref().unwrap_or_default(),
                })
            },
        );
        let scope = Scope {
            parameters: inputs.clone(),
            inputs,
            payloads,
            implementation,
            agent_run: run.clone(),
            run,
            agent: serde_json::json!({ "name": spec.agent.name }),
            provider: serde_json::json!({ "name": spec.provider }),
            git,
            artifacts: serde_json::json!({
                "statusPath": spec.artifacts.status_path, "logPath": spec.artifacts.log_path,
            }),
        };
        Self { environment: environment(), scope: Value::from(minijinja::value::Serde(&scope)) }
    }

    /// Renders one template; `name` says which one it is in an error.
    ///
    /// # Errors
    /// A syntax error, an undefined name, a value that is not text, or a limit that was passed.
    pub fn render(&self, name: &str, source: &str) -> Result<String, TemplateError> {
        let fail = |error: &minijinja::Error| describe(name, source, error);
        // Its name never reaches minijinja: it would choose an escape mode by the ending of the name.
        let template = self.environment.template_from_str(source).map_err(|error| fail(&error))?;
        let mut sink = BoundedSink::default();
        match template.render_captured_to(&self.scope, &mut sink) {
            Ok(_) => String::from_utf8(sink.bytes).map_err(|_| TemplateError {
                template: name.to_owned(),
                line: 1,
                column: 0,
                problem: "the rendered text is not UTF-8".to_owned(),
            }),
            Err(_) if sink.full => Err(TemplateError {
                template: name.to_owned(),
                line: 1,
                column: 0,
                problem: format!("renders more than {MAX_RENDERED_BYTES} bytes"),
            }),
            Err(error) => Err(fail(&error)),
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // Debug output would put variable values into errors.
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(32);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" }).map_err(Into::into),
        ValueKind::None => Err(minijinja::Error::new(ErrorKind::InvalidOperation, "there is no value to print")),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "a list or a map prints only through `tojson`"))
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("default", default_filter);
    environment.add_filter("d", default_filter);
    environment.add_filter("tojson", minijinja::filters::tojson);
    environment.add_filter("trim", minijinja::filters::trim);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("last", minijinja::filters::last);
    environment.add_filter("join", minijinja::filters::join);
    environment.add_filter("lines", minijinja::filters::lines);
    environment.add_test("defined", minijinja::tests::is_defined);
    environment.add_test("undefined", minijinja::tests::is_undefined);
    environment
}

/// `default` with the empty string counted as absent, because declared-optional names are filled in with it.
fn default_filter(_: &State, value: &Value, other: Option<Value>) -> Value {
    if value.is_undefined() || value.is_none() || value.as_str() == Some("") {
        other.unwrap_or_else(|| Value::from(""))
    } else {
        value.clone()
    }
}

fn describe(name: &str, source: &str, error: &minijinja::Error) -> TemplateError {
    // The expression as the template's author wrote it: its text cannot hold a value of the run.
    let expression = error.range().and_then(|range| source.get(range)).map(str::trim).filter(|text| text.len() <= 200);
    let problem = match (error.kind(), expression) {
        (ErrorKind::UndefinedError, Some(expression)) => format!("`{expression}` is not defined"),
        (ErrorKind::UndefinedError, None) => "a name is not defined".to_owned(),
        (ErrorKind::OutOfFuel, _) => format!("takes more than {FUEL} steps"),
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
    };
    let column = error.range().map_or(0, |range| {
        let start = range.start.min(source.len());
        let before = source.get(..start).unwrap_or_default();
        before.rsplit('\n').next().unwrap_or_default().chars().count() + 1
    });
    TemplateError { template: name.to_owned(), line: error.line().unwrap_or(1), column, problem }
}

/// Takes at most [`MAX_RENDERED_BYTES`].
#[derive(Default)]
struct BoundedSink {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for BoundedSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + buf.len() > MAX_RENDERED_BYTES {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::implementation_spec::ImplementationSpecSpec;

    fn spec(inputs: &[(&str, &str)], text: &str) -> RunnerSpec {
        let mut spec: RunnerSpec = serde_json::from_value(serde_json::json!({"provider": "p"})).unwrap();
        spec.inputs = inputs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        spec.implementation = Some(ImplementationSpecSpec { text: text.to_owned(), ..Default::default() });
        spec
    }

    fn render(source: &str) -> Result<String, String> {
        let spec = spec(&[("a", "x"), ("empty", "")], "do it");
        Renderer::new(&spec).render("argsTemplate[0]", source).map_err(|error| error.to_string())
    }

    #[test]
    fn an_undefined_name_is_an_error_with_template_line_and_column() {
        insta::assert_snapshot!(render("one\n  {{ inputs.nope }}").unwrap_err(), @"argsTemplate[0], line 2, column 6: `inputs.nope` is not defined");
        insta::assert_snapshot!(render("{{ secrets }}").unwrap_err(), @"argsTemplate[0], line 1, column 4: `secrets` is not defined");
        insta::assert_snapshot!(render("{{ inputs.a ").unwrap_err(), @"argsTemplate[0], line 1, column 11: syntax error: unexpected end of input, expected end of variable block");
        insta::assert_snapshot!(render("{{ env.HOME }}").unwrap_err(), @"argsTemplate[0], line 1, column 4: `env.HOME` is not defined");
        insta::assert_snapshot!(render("{{ inputs }}").unwrap_err(), @"argsTemplate[0], line 1, column 4: `inputs` is not text; print lists and maps through `tojson`");
        assert!(render("{% include 'x' %}").unwrap_err().contains("syntax error"));
    }

    #[test]
    fn well_known_names_render_empty_and_defaults_apply() {
        assert_eq!(render("[{{ inputs.stage }}]").unwrap(), "[]");
        assert_eq!(render("{{ inputs.stage | default('main') }}").unwrap(), "main");
        assert_eq!(render("{{ inputs.nope | default('d') }}").unwrap(), "d");
        assert_eq!(render("{{ inputs.empty | default('d') }}").unwrap(), "d");
        assert_eq!(render("{{ inputs.a == 'x' }} {{ 1 }}\n").unwrap(), "true 1\n");
        assert_eq!(render("{{ inputs.a | tojson }}").unwrap(), "\"x\"");
    }

    #[test]
    fn work_is_bounded() {
        assert!(
            render("{% for a in [1,2,3,4,5,6,7,8,9,10] %}{{ 'x' * 1000000 }}{% endfor %}")
                .unwrap_err()
                .contains("more than")
        );
        let nested = "{% for a in 'x' * 1000 %}".repeat(4) + &"{% endfor %}".repeat(4);
        assert!(render(&nested).is_err());
    }

    proptest! {
        #[test]
        fn a_value_arrives_byte_for_byte(value in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}| secrets |\\$HOME|\\PC|\\n){0,40}") {
            let spec = spec(&[("v", &value)], &value);
            let renderer = Renderer::new(&spec);
            prop_assert_eq!(&renderer.render("t", "{{ inputs.v }}").unwrap(), &value);
            prop_assert_eq!(renderer.render("t", "<{{ implementation.text }}>").unwrap(), format!("<{value}>"));
        }

        #[test]
        fn no_source_makes_it_panic(source in "\\PC{0,200}") {
            let _ = render(&source);
        }
    }
}
