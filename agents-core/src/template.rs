//! Strict, single-pass templates: `{{ inputs.repository }}`.
//!
//! One renderer serves the controller's check and the runner's rendering. A value is never parsed again, so text that
//! looks like a template arrives byte for byte. An undefined name is an error with template, line and column.
//! Environment variables, files and secrets are not in scope. Filters are an allow-list; instructions, input and output
//! are bounded, and a source that could take much memory or stack is refused before it is compiled.

mod filters;
mod guard;

use std::{fmt, io};

use minijinja::{
    AutoEscape, Environment, ErrorKind, State, Template, UndefinedBehavior, Value, syntax::SyntaxConfig,
    value::ValueKind,
};
use serde::Serialize;
use thiserror::Error;

/// Largest rendered text, in bytes.
pub const MAX_RENDERED_BYTES: usize = 1024 * 1024;
/// Instructions one rendering may take.
const FUEL: u64 = 100_000;
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

/// Notes whether a template can be read at all, whatever names are in scope.
///
/// # Errors
/// A syntax error.
pub fn parse(name: &str, source: &str) -> Result<(), TemplateError> {
    compile(&environment(), name, source).map(drop)
}

/// Compiles a source that the guard lets through; nothing else may compile one.
pub(crate) fn compile<'a>(
    environment: &'a Environment<'_>,
    name: &str,
    source: &'a str,
) -> Result<Template<'a, 'a>, TemplateError> {
    guard::check(name, source)?;
    // Its name never reaches minijinja: it would choose an escape mode by the ending of the name.
    environment.template_from_str(source).map_err(|error| describe(name, source, &error))
}

/// Renders templates with the values of one run.
pub struct Renderer {
    environment: Environment<'static>,
    scope: Value,
}

impl Renderer {
    /// A renderer over the names that `scope` has.
    pub fn new(scope: &impl Serialize) -> Self {
        Self { environment: environment(), scope: Value::from(minijinja::value::Serde(scope)) }
    }

    /// Renders one template; `name` says which one it is in an error.
    ///
    /// # Errors
    /// A syntax error, an undefined name, a value that is not text, or a limit that was passed.
    pub fn render(&self, name: &str, source: &str) -> Result<String, TemplateError> {
        let fail = |error: &minijinja::Error| describe(name, source, error);
        let template = compile(&self.environment, name, source)?;
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

pub(crate) fn environment() -> Environment<'static> {
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
    environment.add_filter("tojson", filters::tojson);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("last", minijinja::filters::last);
    environment.add_filter("join", filters::join);
    environment.add_filter("lines", filters::lines);
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

pub(crate) fn describe(name: &str, source: &str, error: &minijinja::Error) -> TemplateError {
    // The expression as the template's author wrote it: its text cannot hold a value of the run.
    let expression = error.range().and_then(|range| source.get(range)).map(str::trim).filter(|text| text.len() <= 200);
    let problem = match (error.kind(), expression) {
        (_, expression) if error.detail() == Some(filters::TOO_LARGE) => {
            expression.map_or_else(|| filters::TOO_LARGE.to_owned(), |it| format!("{} in `{it}`", filters::TOO_LARGE))
        }
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
pub(crate) struct BoundedSink {
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

    fn render(source: &str) -> Result<String, String> {
        let scope = serde_json::json!({"inputs": {"a": "x", "empty": ""}});
        Renderer::new(&scope).render("argsTemplate[0]", source).map_err(|error| error.to_string())
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
    fn defaults_apply() {
        assert_eq!(render("{{ inputs.nope | default('d') }}").unwrap(), "d");
        assert_eq!(render("{{ inputs.empty | default('d') }}").unwrap(), "d");
        assert_eq!(render("{{ inputs.a == 'x' }} {{ 1 }}\n").unwrap(), "true 1\n");
        assert_eq!(render("{{ inputs.a | tojson }}").unwrap(), "\"x\"");
    }

    #[test]
    fn a_template_is_read_without_its_names() {
        assert_eq!(parse("t", "{{ whatever.it.is }}"), Ok(()));
        assert_eq!(
            parse("t", "{{ a ").unwrap_err().to_string(),
            render("{{ a ").unwrap_err().replace("argsTemplate[0]", "t")
        );
    }

    #[test]
    fn work_is_bounded() {
        let long = "x".repeat(100_000);
        let many = format!("{{% for a in [1,2,3,4,5,6,7,8,9,10,11] %}}{long}{{% endfor %}}");
        assert!(render(&many).unwrap_err().contains("more than"));
        let nested = "{% for a in 'xxxxxxxxxxxxxxxxxxxx' %}".repeat(4) + &"{% endfor %}".repeat(4);
        assert!(render(&nested).unwrap_err().contains("steps"));
    }

    #[test]
    fn a_filter_makes_no_more_than_a_template_may() {
        let scope = serde_json::json!({"t": "\"<x\n".repeat(20_000), "list": vec!["a"; 2000]});
        let render = |source: &str| Renderer::new(&scope).render("t", source).map(|text| text.len());
        for source in [
            "{{ t | join(t) }}",
            "{{ list | join(t) }}",
            "{{ list | join(d=t) }}",
            "{{ t | tojson | tojson | tojson | tojson | tojson | tojson }}",
            "{{ [t, t, t, t, t, t] | tojson }}",
            "{{ t | tojson(999999999) }}",
            "{{ t | tojson(indent=999999999) }}",
            "{{ t | trim(t) }}",
            "{{ (t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t) | upper }}",
            "{{ (t ~ t ~ t ~ t) | lines | length }}",
        ] {
            let error = render(source).unwrap_err().to_string();
            assert!(error.contains(filters::TOO_LARGE), "{source}: {error}");
        }
        assert_eq!(render("{{ list | join(', ') }}"), Ok(3 * 2000 - 2));
        assert_eq!(render("{{ list | tojson | length }}").map(|_| ()), Ok(()));
        assert_eq!(render("{{ t | lines | length }}"), Ok("20000".len()));
        let scope = serde_json::json!({"a": {"b": ["c"]}});
        let json = Renderer::new(&scope).render("t", "{{ a | tojson(indent=true) }} {{ ' x ' | trim | upper }}");
        assert_eq!(json.unwrap(), "{\n  \"b\": [\n    \"c\"\n  ]\n} X");
    }

    proptest! {
        #[test]
        fn no_source_makes_it_panic(source in "\\PC{0,200}") {
            let _ = render(&source);
        }
    }
}
