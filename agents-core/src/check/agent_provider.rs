//! AgentProvider.

use super::{Check, Faults, values};
use crate::{
    api::{AgentProvider, AgentProviderSpec, agent_provider::Adapter},
    name::is_object_name,
    place,
    plan::runner_spec::ArtifactPaths,
};

impl Check for AgentProvider {
    fn check(spec: &AgentProviderSpec, faults: &mut Faults) {
        let AgentProviderSpec {
            binary,
            args_template,
            env_template,
            input_files,
            secret_env,
            output_artifacts,
            input_schema,
            usage: _,
            resume,
            adapter,
            health: _,
            workload,
        } = spec;
        values::image("spec.workload.image", workload.as_ref().and_then(|workload| workload.image.as_ref()), faults);
        if let Some(resources) = workload.as_ref().and_then(|workload| workload.resources.as_ref()) {
            values::resources("spec.workload.resources", resources, faults);
        }
        values::volumes(
            "spec.workload.volumes",
            workload.as_ref().map(|workload| workload.volumes.as_slice()).unwrap_or_default(),
            faults,
        );
        values::free("spec.inputSchema", input_schema.as_ref(), faults);
        if let Some(Adapter { kind: _, exec: _, others }) = adapter {
            faults.free_form("spec.adapter", others);
        }
        faults.distinct("spec.outputArtifacts", output_artifacts.iter().map(|artifact| &artifact.name));
        if binary.trim().is_empty() || binary.contains('\0') {
            faults.add("spec.binary", "names no program".to_owned());
        }
        let args = args_template.iter().enumerate().map(|(n, text)| (format!("argsTemplate[{n}]"), &text.0));
        let env = env_template.iter().map(|(name, text)| (format!("envTemplate.{name}"), &text.0));
        let files =
            input_files.iter().enumerate().map(|(n, file)| (format!("inputFiles[{n}].content"), &file.content.0));
        let resume = resume.iter().flat_map(|resume| &resume.args_template).enumerate();
        let resume = resume.map(|(n, text)| (format!("resume.argsTemplate[{n}]"), &text.0));
        for (field, text) in args.chain(env).chain(files).chain(resume) {
            values::template_source(&format!("spec.{field}"), text, faults);
        }
        let places =
            place::of_input_files(input_files.iter().map(|file| file.path.as_str()), &ArtifactPaths::default());
        for (n, place) in places.into_iter().enumerate() {
            faults.perhaps(&format!("spec.inputFiles[{n}].path"), place.err().map(|error| error.to_string()));
        }
        for name in env_template.keys() {
            values::variable("spec.envTemplate", name, faults);
        }
        faults.distinct("spec.secretEnv", secret_env.iter().map(|secret| &secret.name));
        for (n, secret) in secret_env.iter().enumerate() {
            values::variable(&format!("spec.secretEnv[{n}].name"), &secret.name, faults);
            if !is_object_name(&secret.secret_name) {
                faults.add(
                    format!("spec.secretEnv[{n}].secretName"),
                    "names no Secret: a name in the run's own namespace, of lower-case letters, digits, `-` and `.`",
                );
            }
            if !is_key(&secret.key) {
                let problem = "names no key of a Secret: letters, digits, `-`, `_` and `.`, and neither `.` nor `..`";
                faults.add(format!("spec.secretEnv[{n}].key"), problem);
            }
        }
    }
}

/// Whether a Secret can have this key.
fn is_key(key: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !key.is_empty() && !matches!(key, "." | "..") && key.chars().all(inner)
}
