//! CustomResourceDefinitions from the [`Kind`] trait, as JSON values: the typed form would print integer bounds as
//! floats.

use agents_core::{
    api::{CATEGORY, Column, Frozen, Kind, Rule},
    check::Check,
    kinds::{self, Visitor},
};
use kube_core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::{
    JsonSchema, Schema,
    generate::SchemaSettings,
    transform::{AddNullable, RecursiveTransform},
};
use serde_json::{Map, Value, json};

/// The CustomResourceDefinitions of every kind.
pub fn all() -> Vec<Value> {
    struct Definitions(Vec<Value>);
    impl Visitor for Definitions {
        fn visit<K: Kind + Check>(&mut self) {
            self.0.push(crd::<K>());
        }
    }
    let mut definitions = Definitions(Vec::new());
    kinds::visit(&mut definitions);
    definitions.0
}

/// The CustomResourceDefinition of a kind: namespaced, one served and stored version, a status subresource.
///
/// The schema is structural and carries every bound of the Rust types; the API server refuses what the types refuse.
pub fn crd<K: Kind>() -> Value {
    definition::<K>(&[version::<K>(true)])
}

/// One served version of a kind, from the types of `K`; exactly one version of a definition is the stored one.
pub fn version<K: Kind>(stored: bool) -> Value {
    let mut columns: Vec<Value> = K::COLUMNS.iter().map(column).collect();
    columns.push(json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }));
    let mut version = json!({
        "name": K::VERSION,
        "served": true,
        "storage": stored,
        "subresources": { "status": {} },
        "additionalPrinterColumns": columns,
        "schema": { "openAPIV3Schema": root::<K>() },
    });
    if !K::SELECTABLE.is_empty() {
        let fields: Vec<Value> = K::SELECTABLE.iter().map(|path| json!({ "jsonPath": path })).collect();
        version["selectableFields"] = fields.into();
    }
    version
}

/// The CustomResourceDefinition that serves `versions`, each made by [`version`], under the names of `K`.
///
/// Versions are converted by their name alone: a field means the same in each of them, or is in one of them only.
pub fn definition<K: Kind>(versions: &[Value]) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{}", K::PLURAL, K::GROUP) },
        "spec": {
            "group": K::GROUP,
            "names": {
                "kind": K::KIND,
                "listKind": format!("{}List", K::KIND),
                "plural": K::PLURAL,
                "singular": K::SINGULAR,
                "shortNames": K::SHORT_NAMES,
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

/// The schema of the whole object.
fn root<K: Kind>() -> Value {
    let mut root = json!({
        "type": "object",
        "description": K::DESCRIPTION,
        "properties": { "spec": part::<K::Spec>(), "status": part::<K::Status>() },
    });
    if let Some(phase) = K::FIRST_PHASE {
        // The inner default applies only where there is a status, and a new object has none.
        let status = &mut root["properties"]["status"];
        status["default"] = json!({});
        status["properties"]["phase"]["default"] = json!(phase);
    }
    if !K::SPEC_OPTIONAL {
        root["required"] = json!(["spec"]);
    }
    // The API server makes a map of all fields for each field that a rule names, at every level, and evaluates every rule on
    // every write: what looks at the spec alone stands there.
    let (of_spec, of_root): (Vec<&Rule>, Vec<&Rule>) = K::RULES.iter().partition(|rule| is_of_spec(rule.expression));
    let rules = of_root.into_iter().map(rule).chain(K::FROZEN.as_ref().map(frozen)).collect::<Vec<_>>();
    if !rules.is_empty() {
        root["x-kubernetes-validations"] = rules.into();
    }
    if !of_spec.is_empty() {
        root["properties"]["spec"]["x-kubernetes-validations"] = of_spec.into_iter().map(rule_of_spec).collect();
    }
    root
}

/// Whether a rule on the root looks at nothing but the members of the spec.
fn is_of_spec(expression: &str) -> bool {
    let members = |name: &str| expression.matches(&format!("{name}.")).count();
    members("self") == members("self.spec") && members("oldSelf") == members("oldSelf.spec")
}

/// The same rule on the spec.
fn rule_of_spec(rule: &Rule) -> Value {
    let Rule { field, expression, message } = *rule;
    let expression = expression.replace("self.spec.", "self.").replace("oldSelf.spec.", "oldSelf.");
    let mut made = json!({ "rule": expression, "message": message });
    if let Some(field) = field.strip_prefix(".spec").filter(|field| !field.is_empty()) {
        made["fieldPath"] = json!(field);
    }
    made
}

/// One rule for all of them: each rule has its price on every write, and nearly every write is one of the status, which
/// changes no spec and nearly always the phase.
fn frozen(frozen: &Frozen) -> Value {
    let Frozen { fields, unless, message } = *frozen;
    let same = |field: &&str| {
        let [new, old] = ["self", "oldSelf"].map(|object| format!("{object}.spec.{field}"));
        format!("has({new}) == has({old}) && (!has({new}) || {new} == {old})")
    };
    let [phase_now, phase_before] = ["self", "oldSelf"].map(|it| format!("has({it}.status) && has({it}.status.phase)"));
    let of_status = format!("({phase_now} && {phase_before} && self.status.phase != oldSelf.status.phase)");
    let all: Vec<String> = fields.iter().map(same).collect();
    let changed: Vec<String> = fields.iter().map(|field| format!("({} ? '' : '{field} ')", same(field))).collect();
    json!({
        "rule": format!("{of_status} || {unless} || ({})", all.join(" && ")),
        "message": format!("spec {message}"),
        "messageExpression": format!("{} + '{message}'", changed.join(" + ")),
        "fieldPath": ".spec",
    })
}

fn column(column: &Column) -> Value {
    let Column { name, path, kind, wide } = *column;
    let mut out = json!({ "name": name, "type": kind, "jsonPath": path });
    if wide {
        // Columns of priority 0 are shown always, all others with `-o wide`.
        out["priority"] = json!(1);
    }
    out
}

fn rule(rule: &Rule) -> Value {
    let Rule { field, expression, message } = *rule;
    json!({ "rule": expression, "message": message, "fieldPath": field })
}

/// The structural schema of one part of an object.
fn part<T: JsonSchema>() -> Value {
    let schema = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(RecursiveTransform(describe_the_field))
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator()
        .into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    tidy(&mut schema);
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("title");
    }
    schema
}

/// Of an optional enum, keeps what is said of the field: the rewriter would put what is said of the type in its place.
fn describe_the_field(schema: &mut Schema) {
    if schema.get("description").is_none() {
        return;
    }
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        for branch in branches.iter_mut().filter_map(Value::as_object_mut) {
            branch.remove("description");
        }
    }
}

/// Removes what the API server does not know or would take amiss: `nullable` (null has no meaning in any field of ours),
/// formats it does not define, branches of int-or-string, defaults. Prints whole bounds as integers.
fn tidy(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    schema.remove("nullable");
    schema.remove("default");
    schema.remove("examples");
    schema.remove("example");
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
        schema.remove("format");
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        schema.remove("anyOf");
        schema.remove("type");
    }
    for bound in ["minimum", "maximum"] {
        if let Some(value) = schema.get_mut(bound) {
            whole(value);
        }
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
    for child in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(child) {
            tidy(child);
        }
    }
    drop_null_variant(schema);
}

/// The formats of the API server that our types produce.
const FORMATS: &[&str] = &["int32", "int64", "double", "date-time", "byte"];

/// An optional enum may still list `null` among its values.
fn drop_null_variant(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "bounds that are not exact integers of 53 bits keep their form"
)]
fn whole(value: &mut Value) {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if let Some(number) = value.as_f64()
        && !value.is_i64()
        && number.fract() == 0.0
        && number.abs() <= EXACT
    {
        *value = json!(number as i64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agents_core::{api::AgentRun, report::Report};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::core::cel::Validator;

    use super::*;

    fn schema(crd: &Value) -> &Value {
        &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    /// Calls `visit` with every schema node and its path.
    fn walk(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, node);
        if let Some(properties) = node["properties"].as_object() {
            for (name, child) in properties {
                walk(&format!("{path}.{name}"), child, visit);
            }
        }
        for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            if node[key].is_object() {
                walk(&format!("{path}{suffix}"), &node[key], visit);
            }
        }
    }

    #[test]
    fn every_string_list_and_map_is_bounded() {
        let mut unbounded = Vec::new();
        for crd in all() {
            walk(crd["metadata"]["name"].as_str().unwrap(), schema(&crd), &mut |path, node| {
                let missing = if node["x-kubernetes-int-or-string"] == json!(true) {
                    node["maxLength"].is_null()
                } else if node["x-kubernetes-preserve-unknown-fields"] == json!(true) {
                    false
                } else {
                    match node["type"].as_str() {
                        Some("string") => {
                            node["maxLength"].is_null() && node["enum"].is_null() && node["format"] != "date-time"
                        }
                        Some("array") => node["maxItems"].is_null(),
                        Some("object") => {
                            !node["additionalProperties"].is_null() && node["maxProperties"].is_null()
                                || node["additionalProperties"].is_null() && node["properties"].is_null()
                        }
                        Some("integer" | "boolean" | "number") => false,
                        _ => true,
                    }
                };
                if missing {
                    unbounded.push(path.to_owned());
                }
            });
        }
        assert_eq!(unbounded, Vec::<String>::new());
    }

    #[test]
    fn schemas_hold_only_what_the_api_server_accepts() {
        for crd in all() {
            let name = crd["metadata"]["name"].as_str().unwrap();
            walk(name, schema(&crd), &mut |path, node| {
                for banned in ["nullable", "$ref", "const", "oneOf", "anyOf", "allOf", "examples"] {
                    assert!(node[banned].is_null(), "{path} has {banned}");
                }
                // What is filled in by itself hides what a user wrote; only the first phase is.
                let first_phase = match path {
                    "agentruns.agents.proompteng.ai.status" => json!({}),
                    "agentruns.agents.proompteng.ai.status.phase" => json!("Pending"),
                    _ => Value::Null,
                };
                assert_eq!(node["default"], first_phase, "{path}");
                if let Some(format) = node["format"].as_str() {
                    assert!(FORMATS.contains(&format), "{path} has format {format}");
                }
                for bound in ["minimum", "maximum"] {
                    assert!(node[bound].is_null() || node[bound].is_i64(), "{path}: {bound} is {}", node[bound]);
                }
                assert!(
                    node["properties"].is_null() || node["additionalProperties"].is_null(),
                    "{path} has both properties and additionalProperties"
                );
            });
            let typed: CustomResourceDefinition = serde_json::from_value(crd.clone()).unwrap();
            assert_eq!(typed.spec.names.plural, crd["spec"]["names"]["plural"]);
        }
    }

    /// The API server evaluates each of them on every write, those of the status too.
    #[test]
    fn each_write_pays_for_few_rules() {
        let count = |schema: &Value| schema["x-kubernetes-validations"].as_array().map_or(0, Vec::len);
        let counts = |crd: &Value| {
            let root = schema(crd);
            let name = crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
            format!("{name}: {} on the object, {} on its spec", count(root), count(&root["properties"]["spec"]))
        };
        let all: Vec<String> =
            all().iter().map(counts).filter(|line| !line.contains(": 0 on the object, 0 ")).collect();
        insta::assert_snapshot!(all.join("\n"));
        // What is left on the object of a run costs nothing more when the phase has changed.
        let run = crd::<AgentRun>();
        let rule = &schema(&run)["x-kubernetes-validations"][0]["rule"];
        let first = rule.as_str().and_then(|rule| rule.split(" || ").next()).unwrap_or_default();
        assert!(first.ends_with("self.status.phase != oldSelf.status.phase)"), "{first}");
    }

    #[test]
    fn conditions_are_a_map_by_type() {
        for crd in all() {
            let conditions = &schema(&crd)["properties"]["status"]["properties"]["conditions"];
            assert_eq!(conditions["x-kubernetes-list-type"], "map", "{}", crd["metadata"]["name"]);
            assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        }
    }

    #[test]
    fn definitions_are_small() {
        for crd in all() {
            let bytes = serde_json::to_vec(&crd).unwrap().len();
            assert!(bytes <= 256 * 1024, "{}: {bytes} bytes", crd["metadata"]["name"]);
        }
    }

    #[test]
    fn a_report_of_any_size_fits_the_status() {
        fn too_much(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
            let length = match value {
                Value::String(text) => schema["maxLength"].as_u64().zip(u64::try_from(text.chars().count()).ok()),
                Value::Array(items) => schema["maxItems"].as_u64().zip(u64::try_from(items.len()).ok()),
                _ => None,
            };
            if let Some((most, length)) = length.filter(|(most, length)| length > most) {
                found.push(format!("{at}: {length} of at most {most}"));
            }
            for (name, member) in value.as_object().into_iter().flatten() {
                too_much(&schema["properties"][name], member, &format!("{at}.{name}"), found);
            }
            for item in value.as_array().into_iter().flatten() {
                too_much(&schema["items"], item, at, found);
            }
        }
        let long = "ü".repeat(3000);
        let output = json!({"name": long, "path": long, "sizeBytes": 1, "checksum": long});
        let vcs = json!({
            "repository": long, "provider": long, "baseBranch": long, "headBranch": long, "branch": long,
            "baseCommit": long, "headCommit": long, "commits": 1,
        });
        let report: Report = serde_json::from_value(json!({
            "schemaVersion": "1", "status": "failed", "provider": long, "runUid": "u", "attempt": 1, "planDigest": long,
            "finishedAt": "2026-01-01T00:00:00Z", "error": long, "conversation": long, "vcs": vcs,
            "outputs": vec![output; 60],
        }))
        .unwrap();
        let Report { provider, plan_digest, error, conversation, vcs, outputs, .. } = report.bounded();
        let status = json!({
            "planDigest": plan_digest, "vcs": vcs, "outputs": outputs,
            "runner": {"provider": provider, "conversation": conversation, "error": error},
        });
        let mut found = Vec::new();
        too_much(&schema(&crd::<AgentRun>())["properties"]["status"], &status, "status", &mut found);
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(status["outputs"].as_array().unwrap().len(), 50);
    }

    #[test]
    fn no_name_means_two_things() {
        let mut meanings: BTreeMap<String, String> = BTreeMap::new();
        for crd in all() {
            let names = &crd["spec"]["names"];
            let own = names["plural"].as_str().unwrap();
            let mut spoken: Vec<&str> = vec![own, names["singular"].as_str().unwrap()];
            spoken.extend(names["shortNames"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()));
            for name in spoken {
                let other = meanings.insert(name.to_owned(), own.to_owned());
                assert_eq!(other, None, "{name} means {own} and another kind");
            }
            assert_eq!(names["categories"], json!([CATEGORY]));
        }
        assert!(!meanings.contains_key(CATEGORY), "kubectl expands the category first");
    }

    fn run(phase: Option<&str>, change: impl FnOnce(&mut Value)) -> Value {
        let mut run = json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun",
            "metadata": { "name": "r" },
            "spec": { "agentRef": { "name": "a" }, "implementationSpecRef": { "name": "w" }, "parameters": { "k": "v" }, "timeoutSeconds": 60 },
        });
        if let Some(phase) = phase {
            run["status"] = json!({ "phase": phase });
        }
        change(&mut run["spec"]);
        run
    }

    /// The message of the refusal, if the update is refused.
    fn update(old: &Value, new: &Value) -> Option<String> {
        let crd = crd::<AgentRun>();
        Validator::new().validate(schema(&crd), new, Some(old)).err().map(|errors| errors.to_string())
    }

    /// What the rules do is shown on a real API server.
    #[test]
    fn every_field_of_a_run_is_free_or_immutable() {
        let free = ["suspend", "cancel", "ttlSecondsAfterFinished"];
        let crd = crd::<AgentRun>();
        for field in schema(&crd)["properties"]["spec"]["properties"].as_object().unwrap().keys() {
            let at = format!(".spec.{field}");
            let fixed = AgentRun::FROZEN.is_some_and(|frozen| frozen.fields.contains(&field.as_str()));
            assert_ne!(fixed, free.contains(&field.as_str()), "{at}");
        }
    }

    #[test]
    fn suspend_is_free_and_cancel_is_final() {
        let with = |field: &'static str, value: bool| run(Some("Running"), move |spec| spec[field] = json!(value));
        let plain = run(Some("Running"), |_| ());
        assert_eq!(update(&plain, &with("suspend", true)), None);
        assert_eq!(update(&with("suspend", true), &with("suspend", false)), None);
        assert_eq!(update(&with("suspend", true), &plain), None);
        assert_eq!(update(&plain, &with("cancel", true)), None);
        assert_eq!(update(&with("cancel", false), &with("cancel", true)), None);
        for back in [with("cancel", false), plain] {
            let refused = update(&with("cancel", true), &back);
            assert!(refused.is_some_and(|text| text.contains("cancel cannot be taken back")));
        }
    }
}
