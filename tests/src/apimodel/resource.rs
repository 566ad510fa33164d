//! Which resources the model serves, their traits as the real API server has them, and how a URL names one.

use std::{collections::BTreeMap, sync::LazyLock};

use agents_core::{
    api::{AgentRun, Kind, VERSION},
    check::Check,
    kinds::{self, Visitor},
};

/// A served resource and the behaviours in which resources differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version in the path.
    pub version: &'static str,
    /// Lower-case plural.
    pub plural: &'static str,
    /// Kind, in CamelCase.
    pub kind: &'static str,
    /// Whether `/status` exists and main writes ignore status.
    pub status: bool,
    /// Whether `metadata.generation` is kept.
    pub generation: bool,
    /// Whether a PUT without resourceVersion is taken.
    pub unconditional: bool,
    /// Whether a PUT creates.
    pub create_on_update: bool,
    /// Phase of an object whose status says none: a default of its definition.
    pub phase: Option<&'static str>,
    /// Whether it comes from a CRD: strategic patches are refused and `/status` ignores metadata.
    pub custom: bool,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether users declare it, rather than run it.
    pub fn is_declaration(&self) -> bool {
        self.custom && self.kind != AgentRun::KIND
    }

    /// Whether a settled world may still write it.
    pub fn is_chatter(&self) -> bool {
        matches!(self.plural, "leases" | "events")
    }
}

const fn builtin(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource {
        group,
        version: "v1",
        plural,
        kind,
        status: false,
        generation: false,
        unconditional: true,
        create_on_update: false,
        phase: None,
        custom: false,
    }
}

/// Every kind of the product.
struct Custom(Vec<Resource>);

impl Visitor for Custom {
    fn visit<K: Kind + Check>(&mut self) {
        self.0.push(Resource {
            group: K::GROUP,
            version: VERSION,
            plural: K::PLURAL,
            kind: K::KIND,
            status: true,
            generation: true,
            unconditional: false,
            create_on_update: false,
            phase: K::FIRST_PHASE,
            custom: true,
        });
    }
}

/// Everything served.
pub static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let mut custom = Custom(Vec::new());
    kinds::visit(&mut custom);
    BUILTIN.iter().copied().chain(custom.0).collect()
});

const BUILTIN: &[Resource] = &[
    Resource { status: true, generation: true, ..builtin("", "pods", "Pod") },
    builtin("", "configmaps", "ConfigMap"),
    builtin("", "secrets", "Secret"),
    Resource { create_on_update: true, ..builtin("", "events", "Event") },
    Resource { create_on_update: true, ..builtin("events.k8s.io", "events", "Event") },
    Resource { status: true, generation: true, ..builtin("batch", "jobs", "Job") },
    Resource { unconditional: false, create_on_update: true, ..builtin("coordination.k8s.io", "leases", "Lease") },
];

/// The resource of a kind, whatever its group.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
}

/// The resource with this plural; of the two kinds of events the core one.
pub fn of_plural(plural: &str) -> &'static Resource {
    RESOURCES
        .iter()
        .find(|resource| resource.plural == plural)
        .unwrap_or_else(|| panic!("the model serves no {plural}"))
}

/// What a request's path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub resource: &'static Resource,
    /// The namespace; absent over all namespaces.
    pub namespace: Option<String>,
    /// The object; absent for the collection.
    pub name: Option<String>,
    /// `status` or another subresource.
    pub subresource: Option<String>,
}

/// Reads a path; `None` when the model serves nothing there.
pub fn parse_path(path: &str) -> Option<Target> {
    let mut parts = path.trim_matches('/').split('/').map(decode);
    let (group, version) = match parts.next()?.as_str() {
        "api" => (String::new(), parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut first = parts.next()?;
    let mut namespace = None;
    if first == "namespaces" {
        namespace = Some(parts.next()?);
        first = parts.next()?;
    }
    let resource = RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == first)?;
    let name = parts.next();
    let subresource = parts.next();
    match &subresource {
        Some(sub) if sub != "status" || !resource.status => return None,
        Some(_) | None => {}
    }
    if parts.next().is_some() || (name.is_some() && namespace.is_none()) {
        return None;
    }
    Some(Target { resource, namespace, name, subresource })
}

/// Reads a query string; of a repeated key the last value counts.
pub fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => out.push(u8::try_from(high * 16 + low).unwrap_or(b'?')),
            _ => out.push(b'%'),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
