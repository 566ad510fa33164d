//! Finds, decodes and checks the runner's spec.
//!
//! Reads files and the environment, changes nothing. A spec that cannot be used is still searched for what a report
//! needs, so that a refusal reaches the run's status instead of only a log.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use agents_core::{
    plan::{
        RunnerSpec, digest,
        runner_spec::{ProviderSpec, SCHEMA_VERSION},
    },
    status::Reason,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use crate::spec_file::{MAX_SPEC_BYTES, SpecFileError, decode};

/// Names the file of the spec.
pub const SPEC_PATH_VARIABLE: &str = "AGENT_RUNNER_SPEC_PATH";
/// Holds the spec itself.
pub const SPEC_VARIABLE: &str = "AGENT_RUNNER_SPEC";
/// Names the folder of providers that a spec refers to by name.
pub const PROVIDERS_VARIABLE: &str = "AGENT_PROVIDERS_DIR";

/// A spec that cannot be executed.
#[derive(Debug, Error)]
pub enum SpecError {
    /// Neither the argument nor a variable gives one.
    #[error("no runner spec: give a path, `{SPEC_PATH_VARIABLE}` or `{SPEC_VARIABLE}`")]
    Absent,
    /// The file cannot be read.
    #[error("runner spec `{}` cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is too large, or neither JSON nor base64 of zstd of JSON.
    #[error("runner spec is {0}")]
    File(#[from] SpecFileError),
    /// It is not JSON.
    #[error("runner spec is not JSON: {0}")]
    NotJson(String),
    /// A field has the wrong type or a value that is not allowed.
    #[error("runner spec, field `{path}`: {problem}")]
    Field {
        /// Path of the field, such as `inputs.issue`.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The digest differs from the plan's.
    #[error("runner spec, field `planDigest`: the plan says {planned}, this spec is {actual}")]
    Digest {
        /// What the plan says.
        planned: String,
        /// What was computed.
        actual: String,
    },
}

impl SpecError {
    /// The reason of the report.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Digest { .. } => Reason::DigestMismatch,
            Self::Absent | Self::Unreadable { .. } | Self::File(_) | Self::NotJson(_) | Self::Field { .. } => {
                Reason::RunnerSpecInvalid
            }
        }
    }
}

fn field(path: impl Into<String>, problem: impl Into<String>) -> SpecError {
    SpecError::Field { path: path.into(), problem: problem.into() }
}

/// Where a spec may come from, as the process was started.
#[derive(Debug, Default)]
pub struct Sources {
    /// The argument.
    pub argument: Option<PathBuf>,
    /// Value of [`SPEC_PATH_VARIABLE`].
    pub path_variable: Option<OsString>,
    /// Value of [`SPEC_VARIABLE`].
    pub text_variable: Option<OsString>,
    /// Value of [`PROVIDERS_VARIABLE`].
    pub providers: Option<OsString>,
}

impl Sources {
    /// The JSON text of the first source that is given.
    ///
    /// # Errors
    /// No source, or the first one cannot be read or decoded.
    pub fn read(&self) -> Result<String, SpecError> {
        let given = |value: &Option<OsString>| value.clone().filter(|value| !value.is_empty());
        if let Some(path) = self.argument.clone().or_else(|| given(&self.path_variable).map(PathBuf::from)) {
            let bytes = read_bounded(&path)?;
            return Ok(decode(&bytes)?);
        }
        let text = given(&self.text_variable).ok_or(SpecError::Absent)?;
        Ok(decode(text.as_encoded_bytes())?)
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, SpecError> {
    let unreadable = |source| SpecError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_SPEC_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_SPEC_BYTES {
        return Err(SpecFileError::TooLarge.into());
    }
    Ok(bytes)
}

/// A spec whose digest was verified.
#[derive(Debug)]
pub struct Verified {
    /// The spec, with the secret names of a provider that was found elsewhere.
    pub spec: RunnerSpec,
    /// How to invoke the provider, wherever it was found.
    pub provider: ProviderSpec,
    /// The digest that was computed.
    pub digest: String,
}

/// Checks the JSON text of a spec: types, version, digest, provider.
///
/// # Errors
/// The first fault, with the path of its field.
pub fn verify(json: &str, providers: Option<&Path>) -> Result<Verified, SpecError> {
    let value: Value = serde_json::from_str(json).map_err(|error| SpecError::NotJson(not_json(&error)))?;
    let actual = digest::of_runner_spec(&value);
    let mut spec: RunnerSpec = typed(json, "")?;
    if let Some(version) = spec.schema_version.as_deref()
        && version != SCHEMA_VERSION
    {
        return Err(field("schemaVersion", format!("`{version}` is not known here, expected `{SCHEMA_VERSION}`")));
    }
    if let Some(planned) = spec.plan_digest.as_deref()
        && planned != actual
    {
        return Err(SpecError::Digest { planned: planned.to_owned(), actual });
    }
    if spec.provider.is_empty() {
        return Err(field("provider", "is empty"));
    }
    let provider = if let Some(provider) = &spec.provider_spec {
        provider.clone()
    } else {
        let (provider, secrets) = load_provider(&spec.provider, providers)?;
        for SecretName { name } in secrets.secret_env {
            if !spec.secret_env.contains(&name) {
                spec.secret_env.push(name);
            }
        }
        provider
    };
    if provider.binary.is_empty() {
        return Err(field("providerSpec.binary", "is empty"));
    }
    Ok(Verified { spec, provider, digest: actual })
}

fn typed<T: DeserializeOwned>(json: &str, prefix: &str) -> Result<T, SpecError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { prefix.to_owned() } else { format!("{prefix}{path}") };
        let problem = error.into_inner().to_string();
        // A missing member is reported at its parent: its own name is in the text.
        let missing = problem.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        match missing {
            Some(name) if path.is_empty() || path.ends_with('.') => field(format!("{path}{name}"), "is missing"),
            Some(name) => field(format!("{path}.{name}"), "is missing"),
            None => field(path, wrong_type(&problem)),
        }
    })
}

/// Why a text is no JSON, with the place.
fn not_json(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if error.is_eof() {
        return format!("it ends too early, in line {line}, column {column}");
    }
    format!("nothing that is JSON stands in line {line}, column {column}")
}

/// What is said of a value of another type, without the place in a text that nobody reads.
fn wrong_type(problem: &str) -> String {
    let said = problem.split(" at line ").next().unwrap_or(problem);
    let told = said.strip_prefix("invalid type: ").or_else(|| said.strip_prefix("invalid value: "));
    match told.and_then(|told| told.split_once(", expected ")) {
        Some((found, wanted)) => format!("is {}; {} is wanted", in_our_words(found), in_our_words(wanted)),
        None => said.to_owned(),
    }
}

fn in_our_words(of_a_type: &str) -> String {
    let (kind, value) = of_a_type.split_once(' ').unwrap_or((of_a_type, ""));
    match kind {
        "string" => format!("the text {value}"),
        "integer" => format!("the integer {}", value.trim_matches('`')),
        "floating" => format!("the number {}", value.trim_start_matches("point ").trim_matches('`')),
        "boolean" => value.trim_matches('`').to_owned(),
        "sequence" => "a list".to_owned(),
        "map" | "struct" => "a map".to_owned(),
        "a" if value == "string" => "a text".to_owned(),
        "a" if value == "sequence" => "a list".to_owned(),
        _ => of_a_type.to_owned(),
    }
}

/// The secret variables of a provider from a folder, whose names no plan has put into the spec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretNames {
    #[serde(default)]
    secret_env: Vec<SecretName>,
}

/// The values are in the environment already, so where they come from does not matter here.
#[derive(Debug, Deserialize)]
struct SecretName {
    name: String,
}

/// Loads a provider by name: its bare spec or its whole manifest, as JSON or YAML.
fn load_provider(name: &str, folder: Option<&Path>) -> Result<(ProviderSpec, SecretNames), SpecError> {
    let Some(folder) = folder else {
        return Err(field(
            "providerSpec",
            format!("is missing, and `{PROVIDERS_VARIABLE}` does not name a folder that holds `{name}`"),
        ));
    };
    if name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(field("provider", "is not a plain name, so no file is looked up by it"));
    }
    for extension in ["json", "yaml", "yml"] {
        let path = folder.join(format!("{name}.{extension}"));
        if !path.is_file() {
            continue;
        }
        let bytes = read_bounded(&path)?;
        let wrong = |problem: String| field("provider", format!("`{}`: {problem}", path.display()));
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        let value: Value = if extension == "json" {
            serde_json::from_str(text).map_err(|error| wrong(not_json(&error)))?
        } else {
            serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?
        };
        let is_manifest = value.get("kind").is_some();
        let inner = if is_manifest { value.get("spec").cloned().unwrap_or_default() } else { value };
        let inner = inner.to_string();
        let loaded = typed(&inner, "").and_then(|provider| Ok((provider, typed(&inner, "")?)));
        return loaded.map_err(|error| wrong(error.to_string()));
    }
    Err(field(
        "providerSpec",
        format!("is missing, and `{}` holds no `{name}.json` or `{name}.yaml`", folder.display()),
    ))
}

/// What a report needs of a spec that may be wrong anywhere: each member is taken when it has the right type.
pub fn salvage(json: &str) -> RunnerSpec {
    fn member<T: DeserializeOwned>(value: &Value, name: &str) -> Option<T> {
        serde_json::from_value(value.get(name)?.clone()).ok()
    }
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let empty = serde_json::json!({ "provider": "" });
    // The empty spec is well formed, so the fallback of a fallback is never taken.
    let mut spec: RunnerSpec = match serde_json::from_value(empty) {
        Ok(spec) => spec,
        Err(_) => unreachable!("a spec needs nothing but a provider"),
    };
    spec.provider = member(&value, "provider").unwrap_or_default();
    spec.run = member(&value, "run").unwrap_or_default();
    spec.artifacts = member(&value, "artifacts").unwrap_or_default();
    spec.roots = member(&value, "roots");
    spec.secret_env = member(&value, "secretEnv").unwrap_or_default();
    spec
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn error(value: &Value) -> String {
        verify(&value.to_string(), None).unwrap_err().to_string()
    }

    #[test]
    fn a_fault_names_its_field() {
        let provider = json!({"binary": "/bin/sh"});
        for (spec, path) in [
            (json!({"provider": "p", "providerSpec": provider, "inputs": {"issue": 1}}), "inputs.issue"),
            (json!({"provider": "p", "providerSpec": {"binary": 5}}), "providerSpec.binary"),
            (json!({"provider": "p", "providerSpec": {}}), "providerSpec.binary"),
            (json!({"provider": "p"}), "providerSpec"),
            (json!({"providerSpec": provider}), "provider"),
            (json!({"provider": "p", "providerSpec": provider, "schemaVersion": "x/v9"}), "schemaVersion"),
            (json!({"provider": "p", "providerSpec": provider, "planDigest": "sha256:0"}), "planDigest"),
            (json!({"provider": "p", "providerSpec": provider, "outputs": [{}]}), "outputs[0].name"),
        ] {
            let error = error(&spec);
            assert!(error.contains(&format!("field `{path}`")), "{error}");
        }
    }

    #[test]
    fn a_provider_comes_from_a_folder_as_a_bare_spec_or_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bare.json"), r#"{"binary":"/bin/a"}"#).unwrap();
        std::fs::write(
            folder.path().join("whole.yaml"),
            "apiVersion: v\nkind: AgentProvider\nspec:\n  binary: /bin/b\n",
        )
        .unwrap();
        let binary = |name: &str| {
            verify(&json!({ "provider": name }).to_string(), Some(folder.path())).map(|found| found.provider.binary)
        };
        assert_eq!(binary("bare").unwrap(), "/bin/a");
        assert_eq!(binary("whole").unwrap(), "/bin/b");
        assert!(binary("other").unwrap_err().to_string().contains("providerSpec"));
        assert!(binary("../bare").unwrap_err().to_string().contains("plain name"));
    }

    #[test]
    fn secrets_of_a_provider_from_a_folder_are_secrets_of_the_spec() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "apiVersion: v\nkind: AgentProvider\nspec:\n  binary: /bin/b\n  secretEnv:\n  \
                        - {name: TOKEN, secretName: s, key: k}\n  - {name: OTHER, secretName: s, key: o}\n";
        std::fs::write(folder.path().join("whole.yaml"), manifest).unwrap();
        let spec = json!({ "provider": "whole", "secretEnv": ["OTHER"] }).to_string();
        let found = verify(&spec, Some(folder.path())).unwrap();
        assert_eq!(found.spec.secret_env, ["OTHER", "TOKEN"]);
        assert_eq!(found.digest, digest::of_runner_spec(&serde_json::from_str(&spec).unwrap()));
        std::fs::write(folder.path().join("whole.yaml"), manifest.replace("name: TOKEN", "name: 5")).unwrap();
        let error = verify(&spec, Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("secretEnv"), "{error}");
    }

    #[test]
    fn a_broken_spec_still_says_whose_it_is() {
        let spec = salvage(r#"{"provider": "p", "run": {"uid": "u", "attempt": 3}, "inputs": 5, "artifacts": 7}"#);
        assert_eq!((spec.provider.as_str(), spec.run.uid.as_str(), spec.run.attempt), ("p", "u", 3));
        assert_eq!(salvage("not json").provider, "");
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(json) = decode(&bytes) {
                let _ = verify(&json, None);
                let _ = salvage(&json);
            }
        }
    }
}
