//! Templates: each alone, against what the provider says it reads, and rendered with the values of every run whose
//! objects are all at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agents_core::{
    api::{AgentProvider, AgentRun, Kind, Resource, runtime::RuntimeKind},
    check::{self, Fault},
    decide::agent_run::no_room,
    git,
    plan::{self, Bounds, Defaults, PlanError, look},
    resolve::{References, Resolved, Unresolved, resolve},
    template::TemplateError,
};
use agents_runtime::manifest::{ManifestFault, Rule, strict::closest};
use serde_json::Value;

use super::{Finding, Folder, Item, Severity, rules::resource};

/// Looks at every template of a provider.
pub(super) fn provider(item: &Item<'_>, findings: &mut Vec<Finding>) {
    let schema = &item.object["spec"]["inputSchema"];
    let declared: Option<BTreeSet<&str>> =
        schema["properties"].as_object().map(|properties| properties.keys().map(String::as_str).collect());
    for (field, text) in texts(&item.object["spec"]) {
        let looked = look(&field, text);
        // A syntax error may have been told by the check.
        let told = |fault: &ManifestFault| {
            let mut of_item = findings.iter().filter(|finding| finding.object == item.to_string());
            of_item.any(|finding| finding.fault.field == fault.field && finding.fault.rule == Rule::Check)
        };
        let new: Vec<_> =
            looked.errors.iter().map(|error| template_fault(item, error)).filter(|one| !told(one)).collect();
        findings.extend(new.into_iter().map(|fault| item.finding(Severity::Error, fault)));
        let undeclared = declared
            .iter()
            .flat_map(|declared| looked.inputs.iter().filter(|input| !declared.contains(input.as_str())));
        for input in undeclared {
            let problem = format!("reads inputs.{input}, which spec.inputSchema does not declare");
            let fault = item.document.fault_at(&format!("spec.{field}"), Rule::Input, problem);
            let hint = format!("add it to spec.inputSchema.properties, or leave {input} out");
            findings.push(item.finding(Severity::Error, fault.with_hint(Some(hint))));
        }
    }
}

/// Every template of a provider, by its path below `spec`.
fn texts(spec: &Value) -> Vec<(String, &str)> {
    let mut all = Vec::new();
    for base in ["", "adapter.exec.", "resume."] {
        let holder = base.split('.').filter(|step| !step.is_empty()).fold(spec, |value, step| &value[step]);
        for (n, text) in holder["argsTemplate"].as_array().into_iter().flatten().enumerate() {
            all.extend(text.as_str().map(|text| (format!("{base}argsTemplate[{n}]"), text)));
        }
        for (name, text) in holder["envTemplate"].as_object().into_iter().flatten() {
            all.extend(text.as_str().map(|text| (format!("{base}envTemplate.{name}"), text)));
        }
        for (n, file) in holder["inputFiles"].as_array().into_iter().flatten().enumerate() {
            all.extend(file["content"].as_str().map(|text| (format!("{base}inputFiles[{n}].content"), text)));
        }
    }
    all
}

fn template_fault(item: &Item<'_>, error: &TemplateError) -> ManifestFault {
    let TemplateError { template, line, column, problem, reason: _ } = error;
    let at = if *column > 0 { format!("line {line}, column {column} of the template: ") } else { String::new() };
    item.document.fault_at(&format!("spec.{template}"), Rule::Template, format!("{at}{problem}"))
}

/// Plans every run of the folder whose Agent, provider and work item are in it and have no fault.
pub(super) fn runs(folder: &Folder<'_>, findings: &mut Vec<Finding>) {
    for item in folder.items.iter().filter(|item| item.kind == AgentRun::KIND) {
        let run = resource(item).and_then(|run| run.downcast::<Resource<AgentRun>>().ok());
        let Some(mut run) = run.map(Arc::unwrap_or_clone) else { continue };
        if let Some(problem) = no_room(&run) {
            let problem = problem.strip_prefix("spec: ").unwrap_or(&problem).to_owned();
            findings.push(item.finding(Severity::Error, item.document.fault_at("spec", Rule::Check, problem)));
        }
        place_repository(item, &mut run, findings);
        let references = References::of(&run, folder);
        // What is missing is told where it stands, as a reference, and what has a fault by itself.
        let Some(provider) = references.provider.object() else { continue };
        let Some(provider_item) = folder.find(AgentProvider::KIND, &item.namespace, &provider.metadata.name) else {
            continue;
        };
        match resolve(&run, &references) {
            Ok(resolved) => {
                planned(item, provider_item, &resolved, findings);
                held(item, &run, &resolved, findings);
            }
            Err(Unresolved::Invalid(faults)) => invalid(item, faults, findings),
            // Told where it stands, as a reference.
            Err(Unresolved::Missing(_)) => {}
        }
    }
}

/// Turns a repository given by a path into an address, as `agents run` does, and says that nobody else would.
fn place_repository(item: &Item<'_>, run: &mut Resource<AgentRun>, findings: &mut Vec<Finding>) {
    let coordinates = run.spec.execution.as_mut().and_then(|execution| execution.coordinates.as_mut());
    let Some(written) = coordinates.and_then(|coordinates| coordinates.git.as_mut()) else { return };
    if git::is_path(&written.url)
        && let Some(Fault { field, problem }) = check::address_fault(written)
    {
        findings.push(item.finding(Severity::Note, item.document.fault_at(&field, Rule::Check, problem)));
        "file:///repository".clone_into(&mut written.url);
    }
}

/// What is wrong with a run and those it refers to together; the check has told what is wrong with the run alone.
fn invalid(item: &Item<'_>, faults: Vec<Fault>, findings: &mut Vec<Finding>) {
    let object = item.to_string();
    for Fault { field, problem } in faults {
        if findings.iter().any(|finding| finding.object == object && finding.fault.problem == problem) {
            continue;
        }
        findings.push(item.finding(Severity::Error, item.document.fault_at(&field, Rule::Check, problem)));
    }
}

fn planned(item: &Item<'_>, provider: &Item<'_>, resolved: &Resolved, findings: &mut Vec<Finding>) {
    match plan::plan(resolved, &defaults()) {
        Ok(_) => {}
        Err(PlanError::Unstartable(faults)) => {
            for Fault { field, problem } in faults {
                let problem = format!("{provider} cannot be started with this run's values: {field}: {problem}");
                let fault = item.document.fault_at("spec", Rule::Check, problem);
                findings.push(item.finding(Severity::Error, fault));
            }
        }
        Err(PlanError::Templates(errors)) => {
            for TemplateError { template, line, column, problem, reason: _ } in errors {
                let already = findings.iter().any(|finding| {
                    finding.object == provider.to_string() && finding.fault.field == format!("spec.{template}")
                });
                // A template that fails for every run has been told at the provider.
                if already {
                    continue;
                }
                let problem = format!(
                    "{provider} cannot be rendered with this run's values: {template}, line {line}, column {column}: {problem}"
                );
                let hint = Some("give the value in spec.parameters, or a default in the template".to_owned());
                let fault = item.document.fault_at("spec.parameters", Rule::Template, problem).with_hint(hint);
                findings.push(item.finding(Severity::Error, fault));
            }
        }
    }
    inputs(item, provider, &resolved.inputs, findings);
    for warning in resolved.ambiguous.iter().chain(&resolved.left_out) {
        let fault = item.document.fault_at("spec", Rule::Check, warning.clone());
        findings.push(item.finding(Severity::Note, fault));
    }
}

/// What would keep the run waiting for as long as it stands there. A later version may carry it out, so it is no error.
fn held(item: &Item<'_>, run: &Resource<AgentRun>, resolved: &Resolved, findings: &mut Vec<Finding>) {
    let mut note = |field: &str, problem: String, hint: &str| {
        // What another object asks for stands in none of the run's fields.
        let field = if field.starts_with("spec.") { field } else { "spec" };
        let fault = item.document.fault_at(field, Rule::Support, problem).with_hint(Some(hint.to_owned()));
        findings.push(item.finding(Severity::Note, fault));
    };
    for field in &resolved.unsupported {
        let problem = format!("this version does not carry out {field}: the run waits with the reason NotSupported");
        note(field, problem, "leave it out");
    }
    for field in &resolved.unsupported_in_pods {
        let problem = format!(
            "a cluster with this version does not carry out {field}: the run waits there with the reason NotSupported"
        );
        note(field, problem, "leave it out; `agents run` has no pod and starts it");
    }
    let runtime = resolved.terms.runtime.filter(|kind| !matches!(kind, RuntimeKind::Job | RuntimeKind::Workflow));
    if let Some(runtime) = runtime {
        let own = run.spec.runtime.as_ref().is_some_and(|runtime| runtime.kind.is_some());
        let (field, whose) = if own { ("spec.runtime.type", "") } else { ("spec.agentRef", " of its Agent") };
        let problem = format!(
            "the controller has no adapter for the runtime {runtime}{whose}, unless a program that embeds it brings one: \
             the run waits there with the reason RuntimeNotConfigured"
        );
        let known = RuntimeKind::KNOWN;
        let near = match runtime {
            RuntimeKind::Other(name) => closest(name.as_str(), known.iter().map(RuntimeKind::as_str)),
            _ => None,
        };
        let hint = near.map(|near| format!("did you mean {near}?"));
        note(field, problem, hint.as_deref().unwrap_or("`job` is what a cluster executes"));
    }
}

/// What a controller would fill in; templates do not see it.
fn defaults() -> Defaults {
    Defaults {
        image: String::new(),
        runner_image: String::new(),
        service_account: String::new(),
        grace_seconds: 30,
        bounds: Bounds::none(),
    }
}

/// The names of a run's inputs against the provider's `inputSchema`.
fn inputs(item: &Item<'_>, provider: &Item<'_>, given: &BTreeMap<String, String>, findings: &mut Vec<Finding>) {
    let schema = &provider.object["spec"]["inputSchema"];
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !given.contains_key(name) {
            let problem = format!("the input {name} is missing, which {provider} requires");
            let hint = Some("give it in spec.parameters, or in the Agent's spec.inputs".to_owned());
            let fault = item.document.fault_at("spec.parameters", Rule::Input, problem).with_hint(hint);
            findings.push(item.finding(Severity::Error, fault));
        }
    }
    if schema["additionalProperties"] == false {
        let known = schema["properties"].as_object();
        for name in given.keys().filter(|name| known.is_none_or(|known| !known.contains_key(*name))) {
            let problem = format!("the input {name} is not one that {provider} takes");
            let fault = item.document.fault_at(&format!("spec.parameters.{name}"), Rule::Input, problem);
            findings.push(item.finding(Severity::Error, fault));
        }
    }
}
