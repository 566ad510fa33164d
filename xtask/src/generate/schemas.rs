//! JSON Schemas for editors, from the definitions.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::Artefact;

const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// A schema per kind, and one for files with several kinds.
///
/// # Errors
/// A definition without the names it must have.
pub(super) fn artefacts() -> Result<Vec<Artefact>> {
    let mut all = Vec::new();
    let mut choices = Vec::new();
    let mut kinds = Vec::new();
    for definition in agents_kube::crd::all() {
        let names = &definition["spec"]["names"];
        let (kind, singular) = (&names["kind"], names["singular"].as_str().context("a definition without a singular")?);
        let version = &definition["spec"]["versions"][0];
        let group = definition["spec"]["group"].as_str().context("a definition without a group")?;
        let api_version = format!("{group}/{}", version["name"].as_str().context("a version without a name")?);
        let file = format!("{singular}.json");
        let mut schema = plain(&version["schema"]["openAPIV3Schema"]);
        schema["$schema"] = DIALECT.into();
        schema["title"] = kind.clone();
        schema["required"] = std::iter::once("apiVersion")
            .chain(["kind", "metadata"])
            .map(Value::from)
            .chain(schema["required"].as_array().into_iter().flatten().cloned())
            .collect();
        schema["properties"]["apiVersion"] = json!({ "const": api_version });
        schema["properties"]["kind"] = json!({ "const": kind });
        schema["properties"]["metadata"] = metadata();
        choices.push(json!({
            "if": { "properties": { "kind": { "const": kind }, "apiVersion": { "const": api_version } } },
            "then": { "$ref": file },
        }));
        kinds.push(kind.clone());
        all.push(artefact(&file, &schema));
    }
    let every = json!({
        "$schema": DIALECT,
        "title": "Any kind",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": { "kind": { "type": "string", "examples": kinds } },
        "allOf": choices,
    });
    all.push(artefact("all.json", &every));
    Ok(all)
}

fn artefact(file: &str, schema: &Value) -> Artefact {
    Artefact { path: format!("docs/schemas/{file}"), text: format!("{schema:#}\n") }
}

fn metadata() -> Value {
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 253 },
            "generateName": { "type": "string" },
            "namespace": { "type": "string", "maxLength": 63 },
            "labels": texts,
            "annotations": texts,
        },
        "anyOf": [{ "required": ["name"] }, { "required": ["generateName"] }],
    })
}

/// The schema in the words that editors know; objects refuse names nobody knows, as the API server does when strict.
fn plain(schema: &Value) -> Value {
    let mut out = Map::new();
    let Some(members) = schema.as_object() else { return schema.clone() };
    for (word, value) in members {
        match word.as_str() {
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                out.insert(word.clone(), fields.map(|(name, field)| (name.clone(), plain(field))).collect());
            }
            "items" | "additionalProperties" => {
                out.insert(word.clone(), plain(value));
            }
            "x-kubernetes-int-or-string" => {
                out.insert("type".to_owned(), json!(["integer", "string"]));
            }
            // Ranges say more than the width of a number.
            "format" if value != "date-time" => {}
            extension if extension.starts_with("x-kubernetes-") => {}
            _ => {
                out.insert(word.clone(), value.clone());
            }
        }
    }
    let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if out.contains_key("properties") && !keeps && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".to_owned(), false.into());
    }
    out.into()
}
