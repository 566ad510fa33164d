//! References between the objects of a folder.
//!
//! A reference is known by the name of its field, so a new kind needs a line here only for a new kind of reference.

use std::collections::BTreeSet;

use agents_runtime::manifest::{DEFAULT_NAMESPACE, Rule, strict::closest};
use serde_json::Value;

use super::{Finding, Folder, Item, Severity};

/// What a field of this name refers to.
const KINDS: &[(&str, &str)] = &[
    ("agentRef", "Agent"),
    ("approvalPolicyRef", "ApprovalPolicy"),
    ("budgetRef", "Budget"),
    ("implementationRef", "ImplementationSpec"),
    ("implementationSpecRef", "ImplementationSpec"),
    ("memoryRef", "Memory"),
    ("orchestrationRef", "Orchestration"),
    ("policyRef", "ApprovalPolicy"),
    ("providerRef", "AgentProvider"),
    ("signalRef", "Signal"),
    ("toolRef", "Tool"),
    ("vcsRef", "VersionControlProvider"),
    ("workspaceRef", "Workspace"),
    // These name the kind themselves.
    ("runRef", ""),
    ("targetRef", ""),
];

/// A reference as it was found.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    field: String,
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

/// Looks every reference of `item` up in its folder.
pub(super) fn check(folder: &Folder<'_>, item: &Item<'_>, schema: &Value, findings: &mut Vec<Finding>) {
    let mut references = Vec::new();
    collect("spec", &item.object["spec"], &schema["properties"]["spec"], &mut references);
    for Reference { field, kind, namespace, name } in references {
        let namespace = namespace.unwrap_or(&item.namespace);
        let others: BTreeSet<&str> = folder.names(kind, namespace).collect();
        // One that is there with a fault of its own has been told so.
        if !folder.is_known(kind) || others.contains(name) {
            continue;
        }
        let at = if namespace == DEFAULT_NAMESPACE && item.namespace == DEFAULT_NAMESPACE {
            String::new()
        } else {
            format!(" in the namespace {namespace}")
        };
        let problem = format!("names the {kind} {name:?}, which is not among these manifests{at}");
        let fault = item.document.fault_at(&field, Rule::Reference, problem);
        let near = closest(name, others.iter().copied()).map(|near| format!("did you mean {near}?"));
        // Whoever keeps other objects of the kind here is expected to keep all of them here.
        let (severity, hint) = if others.is_empty() || folder.partial {
            (Severity::Note, near.or(Some("it must be in the cluster".to_owned())))
        } else {
            (Severity::Error, near.or(Some("--partial takes it for one that is in the cluster".to_owned())))
        };
        findings.push(item.finding(severity, fault.with_hint(hint)));
    }
}

fn collect<'a>(at: &str, value: &'a Value, schema: &Value, references: &mut Vec<Reference<'a>>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let field = format!("{at}.{name}");
                let known = KINDS.iter().find(|(known, _)| known == name);
                let Some(schema) = schema["properties"]
                    .get(name)
                    .or_else(|| Some(&schema["additionalProperties"]).filter(|others| others.is_object()))
                else {
                    continue;
                };
                match known {
                    Some((_, kind)) => references.extend(reference(field, kind, member)),
                    None => collect(&field, member, schema, references),
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                collect(&format!("{at}[{n}]"), item, &schema["items"], references);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn reference<'a>(field: String, kind: &'a str, value: &'a Value) -> Option<Reference<'a>> {
    if let Value::String(name) = value {
        return Some(Reference { field, kind, namespace: None, name }).filter(|reference| !reference.kind.is_empty());
    }
    let kind = value["kind"].as_str().unwrap_or(kind);
    let name = value["name"].as_str().filter(|_| !kind.is_empty())?;
    Some(Reference { field: format!("{field}.name"), kind, namespace: value["namespace"].as_str(), name })
}

#[cfg(test)]
mod tests {
    use agents_runtime::manifest::Definitions as _;

    use super::*;
    use crate::lint::Definitions;

    /// References that are not to objects of ours, or that no folder can hold.
    const OTHERS: &[&str] = &[
        "configMapRef",
        "knownHostsConfigMapRef",
        "privateKeySecretRef",
        "resourceRef",
        "runtimeRef",
        "secretRef",
        "storageRef",
        "systemPromptRef",
    ];

    #[test]
    fn every_reference_of_every_kind_is_known() {
        fn walk(schema: &Value, unknown: &mut BTreeSet<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let known = KINDS.iter().any(|(known, _)| known == name) || OTHERS.contains(&name.as_str());
                if name.ends_with("Ref") && !known {
                    unknown.insert(name.clone());
                }
                walk(field, unknown);
            }
            for inner in ["items", "additionalProperties"] {
                if schema[inner].is_object() {
                    walk(&schema[inner], unknown);
                }
            }
        }
        let definitions = Definitions::new();
        let mut unknown = BTreeSet::new();
        for (kind, api_version) in definitions.kinds() {
            walk(&definitions.schema(api_version, kind).unwrap()["properties"]["spec"], &mut unknown);
        }
        assert_eq!(unknown, BTreeSet::new(), "say what they refer to");
    }
}
