//! What several kinds hold: parameters, payloads, names of variables, quantities.

use std::collections::BTreeMap;

use super::Faults;
use crate::{
    api::{
        common::{
            FreeForm, MAX_PARAMETER_BYTES, MAX_PARAMETER_NAME, MAX_PARAMETERS, MAX_PAYLOAD_BYTES, MAX_TEMPLATE_BYTES,
            Parameters, Payloads, Resources, Scalar, TemplateText,
        },
        workload::Volume,
    },
    exec, image,
    quantity::Quantity,
    variable::{is_name, is_reserved},
};

/// Kubernetes takes a limit of nothing for none, which would lift every default.
const NO_BOUND: &str = "0 is no amount: leave it out for the default";

/// Notes every fault of the parameters at `at` and the payloads at `payloads_at`.
pub(super) fn check(at: &str, parameters: &Parameters, payloads_at: &str, payloads: &Payloads, faults: &mut Faults) {
    if parameters.len() > MAX_PARAMETERS {
        faults.add(at, format!("{} entries; at most {MAX_PARAMETERS}", parameters.len()));
    }
    for (name, value) in parameters {
        if name.is_empty() || name.chars().count() > MAX_PARAMETER_NAME {
            faults.add(at, format!("a name has 1 to {MAX_PARAMETER_NAME} characters"));
        }
        let bytes = value.0.as_str().len();
        if bytes > MAX_PARAMETER_BYTES {
            faults.add(format!("{at}.{name}"), format!("{bytes} bytes; at most {MAX_PARAMETER_BYTES}: use a payload"));
        }
        if value.0.as_str().contains('\0') {
            faults.add(format!("{at}.{name}"), "contains a NUL byte".to_owned());
        }
    }
    for (name, value) in payloads {
        if value.0.len() > MAX_PAYLOAD_BYTES {
            faults.add(format!("{payloads_at}.{name}"), format!("more than {MAX_PAYLOAD_BYTES} bytes"));
        }
    }
}

/// Notes parameters of a run that could not both be variables.
pub(super) fn exported(at: &str, parameters: &Parameters, faults: &mut Faults) {
    for (name, problem) in exec::shared_variables(parameters.keys()) {
        faults.add(format!("{at}.{name}"), problem);
    }
}

/// Notes a free-form object that is too large.
pub(super) fn free(at: &str, written: Option<&FreeForm>, faults: &mut Faults) {
    faults.free_form(at, written.into_iter().flat_map(|FreeForm(written)| written));
}

/// Notes volumes whose size is no quantity, or no bound.
pub(super) fn volumes(at: &str, volumes: &[Volume], faults: &mut Faults) {
    for (n, volume) in volumes.iter().enumerate() {
        let field = format!("{at}[{n}].sizeLimit");
        if let Some(Scalar(size)) = &volume.size_limit
            && quantity(&field, size, faults).is_some_and(Quantity::is_zero)
        {
            faults.add(field, NO_BOUND);
        }
    }
}

/// Notes an image that no runtime could pull.
pub(super) fn image(at: &str, reference: Option<&String>, faults: &mut Faults) {
    // Its value is not repeated: it may have thousands of characters.
    faults.perhaps(at, reference.and_then(|reference| image::problem(reference)).map(str::to_owned));
}

/// Notes a name that a variable cannot have.
pub(super) fn variable(at: &str, name: &str, faults: &mut Faults) {
    if !is_name(name) {
        faults.add(at, format!("{name:?} is not a variable name"));
    } else if is_reserved(name) {
        faults.add(at, format!("the variable {name} is reserved"));
    }
}

/// Notes a template that is too large or cannot be read.
pub(super) fn template(at: &str, text: &TemplateText, faults: &mut Faults) {
    template_source(at, &text.0, faults);
}

/// The same of a template that stands in a field of plain text.
pub(super) fn template_source(at: &str, source: &str, faults: &mut Faults) {
    faults.bytes(at, source, MAX_TEMPLATE_BYTES);
    faults.template(at, source);
}

/// Notes a text that is no quantity, or a negative one; answers with the others.
pub(super) fn quantity(at: &str, text: &str, faults: &mut Faults) -> Option<Quantity> {
    match text.parse::<Quantity>() {
        Err(error) => {
            faults.add(at, format!("{text:?}: {error}"));
            None
        }
        Ok(quantity) if quantity.is_negative() => {
            faults.add(at, format!("{text:?} is negative"));
            None
        }
        Ok(quantity) => Some(quantity),
    }
}

/// Notes every fault of the resources at `at`: what no pod could be created with.
pub(super) fn resources(at: &str, resources: &Resources, faults: &mut Faults) {
    let Resources { requests, limits, cpu, memory, ephemeral } = resources;
    let asked = amounts(&format!("{at}.requests"), requests, faults);
    let bounds = amounts(&format!("{at}.limits"), limits, faults);
    for (name, (field, most)) in &bounds {
        if let Some((asked_at, least)) = asked.get(name)
            && least > most
        {
            faults.add(asked_at, format!("{least} of {name}, more than {most} of {field}"));
        }
    }
    for (_, (field, amount)) in asked.iter().chain(&bounds).filter(|(name, _)| !is_extended(name)) {
        if amount.is_zero() {
            faults.add(field, NO_BOUND);
        }
    }
    for (name, (field, amount)) in asked.iter().chain(&bounds) {
        if is_extended(name) && !amount.is_whole() {
            faults.add(field, format!("{amount} of {name}, which is counted in whole numbers"));
        }
    }
    for (name, (field, amount)) in asked.iter().filter(|(name, _)| is_extended(name)) {
        if bounds.get(name).is_none_or(|(_, bound)| bound != amount) {
            faults.add(field, format!("{name} cannot be overcommitted: its request is its limit"));
        }
    }
    for (spelling, name, value) in
        [("cpu", "cpu", cpu), ("memory", "memory", memory), ("ephemeral", "ephemeral-storage", ephemeral)]
    {
        let spelling = format!("{at}.{spelling}");
        let amount = value.as_ref().and_then(|value| quantity(&spelling, value.as_str(), faults));
        if amount.is_some_and(Quantity::is_zero) {
            faults.add(&spelling, NO_BOUND);
        }
        for other in [&asked, &bounds] {
            if let Some((field, other)) = other.get(name) {
                faults.same((field, Some(other)), (&spelling, amount.as_ref()));
            }
        }
    }
}

/// The readable amounts by resource name, each with its field.
fn amounts<'a>(
    at: &str,
    written: &'a BTreeMap<String, Scalar>,
    faults: &mut Faults,
) -> BTreeMap<&'a str, (String, Quantity)> {
    let mut amounts = BTreeMap::new();
    for (name, value) in written {
        let field = format!("{at}.{name}");
        if !is_resource(name) {
            faults.add(
                &field,
                "no resource: cpu, memory, ephemeral-storage, hugepages-<size>, or a name with a domain such as \
                 example.com/gpu",
            );
        }
        if let Some(amount) = quantity(&field, value.as_str(), faults) {
            amounts.insert(name.as_str(), (field, amount));
        }
    }
    amounts
}

/// Whether a container can ask for it.
fn is_resource(name: &str) -> bool {
    if let Some(size) = name.strip_prefix("hugepages-") {
        return size.parse::<Quantity>().is_ok_and(|size| !size.is_zero() && !size.is_negative());
    }
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_extended(name)
}

/// Whether it is counted by somebody else than Kubernetes: `domain/name`.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, name)| {
        let label = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        let edges = |name: &str, at: fn(&str) -> Option<char>| at(name).is_some_and(|c| c.is_ascii_alphanumeric());
        domain.len() <= 253
            && domain.split('.').all(label)
            && name.len() <= 63
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && edges(name, |name| name.chars().next())
            && edges(name, |name| name.chars().next_back())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fields(written: Value) -> Vec<String> {
        let mut faults = Faults::default();
        resources("r", &serde_json::from_value(written).unwrap(), &mut faults);
        faults.into_vec().into_iter().map(|fault| fault.field).collect()
    }

    /// Reading the templates of one object is bounded for all of them together, and told once.
    #[test]
    fn templates_that_cost_too_much_to_read_are_told_once() {
        let dear = format!("{{{{ inputs.a{} }}}}", " + 1".repeat(95)).repeat(100);
        let mut faults = Faults::default();
        for n in 0..256 {
            template_source(&format!("spec.argsTemplate[{n}]"), &dear, &mut faults);
        }
        let found = faults.into_vec();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].problem.contains("costs too much"), "{found:?}");
        assert_ne!(found[0].field, "spec.argsTemplate[0]");
    }

    #[test]
    fn resources_that_a_pod_can_have_have_no_fault() {
        for good in [
            json!({}),
            json!({"cpu": 1, "memory": "2Gi", "ephemeral": "1G"}),
            json!({"requests": {"cpu": "500m"}, "limits": {"cpu": 1, "memory": "1Gi", "hugepages-2Mi": "4Mi"}}),
            json!({"cpu": "1", "requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}),
            json!({"limits": {"nvidia.com/gpu": 1}}),
            json!({"limits": {"nvidia.com/gpu": 0}}),
            // As the API server reads it: a billion bytes.
            json!({"memory": "1e9", "cpu": "1e3"}),
            json!({"limits": {"nvidia.com/gpu": 9_007_199_254_740_991i64, "memory": "9E"}}),
            json!({"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "1"}}),
        ] {
            assert_eq!(fields(good.clone()), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn resources_that_no_pod_can_have_name_the_field() {
        for (bad, field) in [
            (json!({"cpu": "lots"}), "r.cpu"),
            (json!({"cpu": 0}), "r.cpu"),
            (json!({"memory": "-0"}), "r.memory"),
            (json!({"memory": "0Gi"}), "r.memory"),
            (json!({"limits": {"cpu": "0m"}}), "r.limits.cpu"),
            (json!({"limits": {"memory": "0e9"}}), "r.limits.memory"),
            (json!({"requests": {"ephemeral-storage": 0}}), "r.requests.ephemeral-storage"),
            (json!({"requests": {"cpu": "-1"}}), "r.requests.cpu"),
            (json!({"limits": {"cpu": "-1m"}}), "r.limits.cpu"),
            (json!({"limits": {"memory": "1e19"}}), "r.limits.memory"),
            (json!({"limits": {"nvidia.com/gpu": "10E"}}), "r.limits.nvidia.com/gpu"),
            (json!({"memory": "-1Gi"}), "r.memory"),
            (json!({"ephemeral": "1GB"}), "r.ephemeral"),
            (json!({"requests": {"memory": "1 Gi"}}), "r.requests.memory"),
            (json!({"limits": {"gpu": 1}}), "r.limits.gpu"),
            (json!({"limits": {"hugepages-": 1}}), "r.limits.hugepages-"),
            (json!({"limits": {"Example.com/gpu": 1}}), "r.limits.Example.com/gpu"),
            (json!({"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}), "r.requests.cpu"),
            (json!({"cpu": 2, "limits": {"cpu": 1}}), "r.cpu"),
            (json!({"memory": "1Gi", "requests": {"memory": "1G"}}), "r.memory"),
            (json!({"requests": {"nvidia.com/gpu": 1}}), "r.requests.nvidia.com/gpu"),
            (json!({"limits": {"nvidia.com/gpu": "500m"}}), "r.limits.nvidia.com/gpu"),
        ] {
            assert_eq!(fields(bad.clone()), [field], "{bad}");
        }
    }
}
