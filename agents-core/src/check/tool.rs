//! Tool.

use super::{Check, Faults, values};
use crate::api::{Tool, ToolSpec, common::FreeForm};

impl Check for Tool {
    fn check(spec: &ToolSpec, faults: &mut Faults) {
        let ToolSpec {
            description: _,
            image,
            command,
            args,
            env,
            working_dir,
            service_account: _,
            resources,
            input_schema,
            output_schema,
            timeout_seconds: _,
            ttl_seconds_after_finished: _,
        } = spec;
        values::image("spec.image", image.as_ref(), faults);
        for (list, templates) in [("command", command), ("args", args)] {
            for (n, template) in templates.iter().enumerate() {
                values::template(&format!("spec.{list}[{n}]"), template, faults);
            }
        }
        for (n, variable) in env.iter().enumerate() {
            values::variable(&format!("spec.env[{n}].name"), &variable.name, faults);
            values::template_source(&format!("spec.env[{n}].value"), &variable.value, faults);
        }
        if working_dir.as_ref().is_some_and(|folder| folder.contains('\0')) {
            faults.add("spec.workingDir", "contains a NUL byte");
        }
        if let Some(resources) = resources {
            values::resources("spec.resources", resources, faults);
        }
        for (field, schema) in [("spec.inputSchema", input_schema), ("spec.outputSchema", output_schema)] {
            if let Some(FreeForm(schema)) = schema {
                faults.free_form(field, schema);
            }
        }
        let takes = input_schema.as_ref().and_then(|FreeForm(schema)| schema.get("type"));
        if takes.is_some_and(|takes| takes != "object") {
            faults.add("spec.inputSchema.type", "parameters are an object");
        }
    }
}
