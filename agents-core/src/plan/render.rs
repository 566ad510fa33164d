//! The provider's templates with the values of one run: which names are in scope, and what the templates became.
//!
//! One renderer serves the controller's check and the runner's rendering.

use serde::Serialize;

use super::{RunnerSpec, runner_spec::ProviderSpec};
use crate::template::{Renderer, TemplateError};

/// Largest number of bytes all renderings of one plan may have together.
pub const MAX_RENDERED_TOTAL: usize = 4 * 1024 * 1024;
/// Names the oldest manifests use without giving them a value; they render empty when absent.
pub(super) const WELL_KNOWN_INPUTS: &[&str] = &["repository", "issueNumber", "base", "head", "stage"];
/// See [`WELL_KNOWN_INPUTS`].
const WELL_KNOWN_PAYLOADS: &[&str] = &["rawEventB64", "eventBodyB64", "promptJson"];

/// What a provider's templates became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// Arguments, without the program.
    pub args: Vec<String>,
    /// Variables, in the order of their names.
    pub env: Vec<(String, String)>,
    /// Files as (path, content), in the order they were declared.
    pub files: Vec<(String, String)>,
    /// What rendering took of [`MAX_COST`](crate::template::MAX_COST), in bytes that were touched: the same each time.
    pub cost: u64,
}

/// Renders every template of a provider with the values of `spec`.
///
/// # Errors
/// All templates that fail, not only the first; of those that cost too much together only the one for which too little
/// was left.
pub fn render_provider(provider: &ProviderSpec, spec: &RunnerSpec) -> Result<Rendered, Vec<TemplateError>> {
    let ProviderSpec { binary: _, args_template, env_template, input_files, usage: _ } = provider;
    let renderer = Renderer::new(&scope(spec));
    let mut errors = Vec::new();
    let mut left = MAX_RENDERED_TOTAL;
    let mut text_of = |name: String, source: &str| {
        // The template for which too little was left has been named.
        if renderer.budget().is_over() {
            return String::new();
        }
        let text = renderer.render(&name, source).and_then(|text| {
            let Some(rest) = left.checked_sub(text.len()) else {
                let problem = format!("all templates together render more than {MAX_RENDERED_TOTAL} bytes");
                return Err(TemplateError::limit(&name, problem));
            };
            left = rest;
            Ok(text)
        });
        text.unwrap_or_else(|error| {
            errors.push(error);
            String::new()
        })
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
        cost: 0,
    };
    if errors.is_empty() { Ok(Rendered { cost: renderer.budget().spent(), ..all }) } else { Err(errors) }
}

/// The names in scope of one run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Scope {
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

/// The names in scope of one run.
pub(super) fn scope(spec: &RunnerSpec) -> Scope {
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
    Scope {
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

    #[test]
    fn well_known_names_render_empty() {
        let renderer = Renderer::new(&scope(&spec(&[], "do it")));
        let render = |source: &str| renderer.render("t", source);
        assert_eq!(render("[{{ inputs.stage }}]").unwrap(), "[]");
        assert_eq!(render("{{ inputs.stage | default('main') }}").unwrap(), "main");
        assert_eq!(render("[{{ payloads.promptJson }}]").unwrap(), "[]");
    }

    proptest! {
        #[test]
        fn a_value_arrives_byte_for_byte(value in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{#|#\\}| secrets |\\$HOME|\\PC|\\n){0,40}") {
            let spec = spec(&[("v", &value)], &value);
            let renderer = Renderer::new(&scope(&spec));
            prop_assert_eq!(&renderer.render("t", "{{ inputs.v }}").unwrap(), &value);
            prop_assert_eq!(renderer.render("t", "<{{ implementation.text }}>").unwrap(), format!("<{value}>"));
        }
    }
}
