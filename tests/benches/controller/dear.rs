//! Runs whose templates cost as much as they can: one that is refused for it, and the dearest that is admitted.

use std::time::Duration;

use agents_core::plan::{RunnerSpec, render_provider};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::load::{End, Wanted};

/// The longest payload, with room for what the API server counts otherwise.
const PAYLOAD: usize = 127 * 1024;
/// Templates that a provider may have.
const TEMPLATES: usize = 250;

/// Which dear run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dear {
    /// A template of 1.4 KiB that reads a payload of 127 KiB some 50 000 times: minutes of CPU, if nobody counted.
    Refused,
    /// As many templates as the budget has room for, of those that take longest for their price and fit into one object
    /// (`cargo xtask bench templates`).
    Admitted,
}

impl Dear {
    pub(crate) const ALL: [Self; 2] = [Self::Refused, Self::Admitted];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Admitted => "admitted",
        }
    }

    /// The provider and the Agent of such runs.
    pub(crate) fn objects(self, namespace: &str) -> Result<[Value; 2]> {
        let templates = match self {
            Self::Refused => vec![refused()],
            Self::Admitted => most_admitted()?,
        };
        let named = json!({"name": self.name(), "namespace": namespace});
        let api_version = "agents.proompteng.ai/v1alpha1";
        Ok([
            json!({
                "apiVersion": api_version, "kind": "AgentProvider", "metadata": named,
                "spec": {"binary": "/bin/true", "argsTemplate": templates},
            }),
            json!({
                "apiVersion": api_version, "kind": "Agent", "metadata": named,
                "spec": {"providerRef": {"name": self.name()}},
            }),
        ])
    }

    pub(crate) fn run(self, prefix: &str, at: Duration) -> Wanted {
        let spec = json!({
            "agentRef": {"name": self.name()}, "implementation": {"inline": {"text": "say hello"}},
            "parameters": {"a": "x"}, "payloads": {"t": payload()},
        });
        let end = match self {
            Self::Refused => End::TemplateLimit,
            Self::Admitted => End::Succeeded,
        };
        Wanted { name: format!("{prefix}-{}", self.name()), at, spec, end }
    }
}

fn payload() -> String {
    let line = "ab <cd>\n";
    line.repeat(PAYLOAD / line.len())
}

fn refused() -> String {
    let (y, z) = ("y".repeat(43), "z".repeat(44));
    let work = "{% if (payloads.t | tojson) == '' %}{% endif %}".repeat(26);
    format!("{{% for i in '{y}' %}}{{% for j in '{z}' %}}{work}{{% endfor %}}{{% endfor %}}")
}

fn most_admitted() -> Result<Vec<String>> {
    let tag = format!("{{% set a = {}inputs.a %}}", "not ".repeat(180));
    let template = tag.repeat(4096 / tag.len());
    let of = |count: usize| vec![template.clone(); count];
    let (mut admitted, mut too_many) = (0, TEMPLATES);
    while admitted + 1 < too_many {
        let middle = usize::midpoint(admitted, too_many);
        if is_admitted(&of(middle))? {
            admitted = middle;
        } else {
            too_many = middle;
        }
    }
    ensure!(admitted > 0 && too_many < TEMPLATES, "{admitted} templates are admitted: nothing dear");
    Ok(of(admitted))
}

fn is_admitted(templates: &[String]) -> Result<bool> {
    let spec = json!({
        "provider": "admitted", "inputs": {"a": "x"}, "payloads": {"t": payload()},
        "providerSpec": {"binary": "/bin/true", "argsTemplate": templates},
    });
    let spec: RunnerSpec = serde_json::from_value(spec)?;
    Ok(render_provider(spec.provider_spec.as_ref().context("it has a provider")?, &spec).is_ok())
}
