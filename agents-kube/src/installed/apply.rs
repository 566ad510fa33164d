//! How the definitions of this program get into a cluster: planned first, refused where something stored would be lost,
//! then applied by the API server.

use std::{collections::BTreeSet, time::Duration};

use agents_core::api::CATEGORY;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use tokio::time::{self, Instant};

use super::fields::Shape;
use crate::{client::in_words, crd};

/// Who owns the definitions' fields afterwards.
pub const FIELD_MANAGER: &str = "agents-crds";
/// Objects read at once: a page of the largest ones is to arrive in time by a slow line too.
const PAGE: u32 = 20;
/// Time that an answer may take; a page of objects is read whole.
const ANSWER: Duration = Duration::from_secs(30);
/// Time between two looks at a definition.
const LOOK: Duration = Duration::from_millis(200);
/// What the API server fills in.
const FILLED_IN: [&str; 2] = ["conversion", "preserveUnknownFields"];

/// Why definitions were not applied, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The definition cannot be read.
    #[error("failed to read the definition {definition}: {}", in_words(cause))]
    Read {
        /// Its name.
        definition: String,
        /// What the API server said.
        cause: Box<kube::Error>,
    },
    /// The objects of a kind cannot be listed, so nobody knows what they use.
    #[error("failed to list {resource}, of which a field would go: {}", in_words(cause))]
    List {
        /// Plural and group.
        resource: String,
        /// What the API server said.
        cause: Box<kube::Error>,
    },
    /// The API server did not take the definition.
    #[error("failed to apply the definition {definition}: {}", in_words(cause))]
    Write {
        /// Its name.
        definition: String,
        /// What the API server said.
        cause: Box<kube::Error>,
    },
    /// A version that is served would not be any more.
    #[error("{definition} would no longer serve the version {version}")]
    ServedVersion {
        /// Its name.
        definition: String,
        /// The version that is served now.
        version: String,
    },
    /// A field that an object uses would go.
    #[error("{definition} would lose the field {field}, which {object} uses")]
    FieldInUse {
        /// Its name.
        definition: String,
        /// Path from the object's root.
        field: String,
        /// Namespace and name.
        object: String,
    },
    /// The API server does not serve the definition in time.
    #[error("the definition {definition} is not established after {} s: {why}", limit.as_secs())]
    NotEstablished {
        /// Its name.
        definition: String,
        /// How long was waited.
        limit: Duration,
        /// What its conditions say.
        why: String,
    },
    /// The definition cannot be read by this program.
    #[error("the definition {definition} has no schema that can be read")]
    Schema {
        /// Its name.
        definition: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// Whether the answer is no, rather than that nothing could be found out.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ServedVersion { .. } | Self::FieldInUse { .. } => true,
            Self::Read { .. }
            | Self::List { .. }
            | Self::Write { .. }
            | Self::NotEstablished { .. }
            | Self::Schema { .. } => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ServedVersion { .. } => {
                "a newer or another product serves it; use the `agents` of that version, or stop serving it by hand"
            }
            Self::FieldInUse { .. } => {
                "a newer version wrote it; use the `agents` of that version, or take the field out of the object"
            }
            Self::Read { cause, .. } | Self::Write { cause, .. } if forbidden(cause) => {
                "applying definitions takes get, create and patch on customresourcedefinitions, in the whole cluster"
            }
            Self::List { cause, .. } if forbidden(cause) => {
                "whether a field is used takes list on the kind, in all namespaces"
            }
            Self::Read { .. } | Self::List { .. } | Self::Write { .. } => {
                "`kubectl cluster-info` shows whether the cluster of this kubeconfig answers"
            }
            Self::NotEstablished { .. } => {
                "`kubectl describe crd` shows the conditions; a name may be taken by another kind"
            }
            Self::Schema { .. } => "`kubectl get crd --output=yaml` shows it; it is not one of this product",
        }
    }
}

fn forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
}

/// What would become of one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is not there.
    Create,
    /// It is there and says something else.
    Update,
    /// It is there as this program knows it.
    Keep,
}

/// One definition of this program beside that of the cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    ours: Value,
    theirs: Option<Value>,
    /// What differs: `+` is added, `-` goes, `~` changes.
    pub differences: Vec<String>,
}

/// Every definition of this program beside that of the cluster.
///
/// # Errors
/// [`ApplyError::Read`].
pub async fn compare(client: &Client) -> Result<Vec<Plan>, ApplyError> {
    let definitions = definitions(client);
    let mut plans = Vec::new();
    for ours in crd::all() {
        let name = name_of(&ours);
        let found = in_time(definitions.get_opt(&name)).await;
        let found = found.map_err(|cause| ApplyError::Read { definition: name.clone(), cause: Box::new(cause) })?;
        let theirs = match found.map(serde_json::to_value).transpose() {
            Ok(theirs) => theirs,
            Err(source) => return Err(ApplyError::Schema { definition: name, source }),
        };
        let mut differences = Vec::new();
        if let Some(theirs) = &theirs {
            differ(&ours["spec"], &without_filled_in(&theirs["spec"]), "", &mut differences);
        }
        plans.push(Plan { ours, theirs, differences: differences.into_iter().map(|line| readable(&line)).collect() });
    }
    Ok(plans)
}

impl Plan {
    /// Name of the definition.
    pub fn name(&self) -> String {
        name_of(&self.ours)
    }

    /// What [`Plan::write`] would do.
    pub fn action(&self) -> Action {
        match (&self.theirs, self.differences.as_slice()) {
            (None, _) => Action::Create,
            (Some(_), []) => Action::Keep,
            (Some(_), _) => Action::Update,
        }
    }

    /// Whether nothing stored would be lost.
    ///
    /// # Errors
    /// [`ApplyError::ServedVersion`], [`ApplyError::FieldInUse`], or that it could not be found out.
    pub async fn check(&self, client: &Client) -> Result<(), ApplyError> {
        let Some(theirs) = &self.theirs else { return Ok(()) };
        let definition = self.name();
        for (name, version) in versions(theirs).filter(|(_, version)| version["served"] == true) {
            let Some((_, ours)) = versions(&self.ours).find(|(own, ours)| *own == name && ours["served"] == true)
            else {
                return Err(ApplyError::ServedVersion { definition, version: name.to_owned() });
            };
            let shape = |version: &Value| {
                Shape::deserialize(&version["schema"]["openAPIV3Schema"])
                    .map_err(|source| ApplyError::Schema { definition: definition.clone(), source })
            };
            let ours = shape(ours)?;
            if !shape(version)?.beyond(&ours).is_empty() {
                self.unused(client, name, &ours).await?;
            }
        }
        Ok(())
    }

    /// Looks at every object of the kind, page by page.
    async fn unused(&self, client: &Client, version: &str, ours: &Shape) -> Result<(), ApplyError> {
        let word = |path: &str| self.ours.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (group, plural) = (word("/spec/group"), word("/spec/names/plural"));
        let kind = GroupVersionKind::gvk(group, version, word("/spec/names/kind"));
        let objects: Api<DynamicObject> =
            Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural));
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let failed = |cause| ApplyError::List { resource: format!("{plural}.{group}"), cause: Box::new(cause) };
            let page = in_time(objects.list(&params)).await.map_err(failed)?;
            for object in page.items {
                if let Some(field) = ours.lost(&object.data).into_iter().next() {
                    let namespace = object.metadata.namespace.unwrap_or_default();
                    let name = object.metadata.name.unwrap_or_default();
                    let object = format!("{namespace}/{name}");
                    return Err(ApplyError::FieldInUse { definition: self.name(), field, object });
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Applies the definition, or lets the API server say whether it would.
    ///
    /// Fields that Helm or kubectl wrote become ours first: an old rule that nobody gave up would stay beside the new.
    ///
    /// # Errors
    /// [`ApplyError::Write`].
    pub async fn write(&self, client: &Client, dry_run: bool) -> Result<(), ApplyError> {
        let definitions = definitions(client);
        let name = self.name();
        let failed = |cause| ApplyError::Write { definition: name.clone(), cause: Box::new(cause) };
        if let Some(theirs) = self.theirs.as_ref().filter(|_| !dry_run)
            && let Some(owners) =
                taken_over(theirs["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default())
        {
            let version = &theirs["metadata"]["resourceVersion"];
            let patch = json!({ "metadata": { "resourceVersion": version, "managedFields": owners } });
            let params = PatchParams::default();
            let patched = in_time(definitions.patch_metadata(&name, &params, &Patch::Merge(patch))).await;
            patched.map_err(failed)?;
        }
        let params = PatchParams { dry_run, ..PatchParams::apply(FIELD_MANAGER).force() };
        in_time(definitions.patch(&name, &params, &Patch::Apply(&self.ours))).await.map(drop).map_err(failed)
    }

    /// Waits until the API server serves the definition.
    ///
    /// # Errors
    /// [`ApplyError::NotEstablished`].
    pub async fn established(&self, client: &Client, limit: Duration) -> Result<(), ApplyError> {
        let definitions = definitions(client);
        let name = self.name();
        let deadline = Instant::now() + limit;
        let mut why = "it could not be read".to_owned();
        loop {
            if let Ok(found) = time::timeout_at(deadline, definitions.get(&name)).await {
                let found =
                    found.map_err(|cause| ApplyError::Read { definition: name.clone(), cause: Box::new(cause) })?;
                match unmet(&found.data) {
                    None => return Ok(()),
                    Some(unmet) => why = unmet,
                }
            }
            if Instant::now() + LOOK > deadline {
                return Err(ApplyError::NotEstablished { definition: name, limit, why });
            }
            time::sleep(LOOK).await;
        }
    }
}

/// The client sets no limit of its own, and a person waits.
async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    time::timeout(ANSWER, call).await.unwrap_or_else(|late| Err(kube::Error::Service(Box::new(late))))
}

/// What keeps a definition from being served.
fn unmet(definition: &Value) -> Option<String> {
    let conditions = definition["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    ["NamesAccepted", "Established"].into_iter().find_map(|kind| {
        let condition = conditions.iter().find(|condition| condition["type"] == kind);
        match condition {
            Some(condition) if condition["status"] == "True" => None,
            Some(condition) => Some(format!("{kind}: {}", condition["message"].as_str().unwrap_or("not yet"))),
            None => Some(format!("{kind}: not yet")),
        }
    })
}

fn definitions(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions"))
}

fn name_of(definition: &Value) -> String {
    definition["metadata"]["name"].as_str().unwrap_or(CATEGORY).to_owned()
}

fn versions(definition: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.map(|version| (version["name"].as_str().unwrap_or_default(), version))
}

/// The owners of a definition's fields after its spec became ours; `None` when nobody else owns any of it.
fn taken_over(owners: &[Value]) -> Option<Vec<Value>> {
    let is_ours = |owner: &Value| owner["manager"] == FIELD_MANAGER && owner["operation"] == "Apply";
    let mut spec = Value::Object(Map::new());
    let mut kept = Vec::new();
    let mut ours = None;
    let mut taken = false;
    for owner in owners {
        if owner.get("subresource").is_some() {
            kept.push(owner.clone());
            continue;
        }
        if is_ours(owner) {
            ours = Some(owner.clone());
            continue;
        }
        let mut owner = owner.clone();
        let fields = owner["fieldsV1"].as_object_mut();
        if let Some(theirs) = fields.and_then(|fields| fields.remove("f:spec")) {
            unite(&mut spec, theirs);
            taken = true;
        }
        if owner["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()) {
            kept.push(owner);
        }
    }
    let mut ours = ours.unwrap_or_else(|| {
        json!({
            "manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "apiextensions.k8s.io/v1",
            "fieldsType": "FieldsV1", "fieldsV1": {},
        })
    });
    unite(&mut ours["fieldsV1"]["f:spec"], spec);
    kept.push(ours);
    taken.then_some(kept)
}

/// Adds the fields of a set to another.
fn unite(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, fields) in from {
                unite(into.entry(name).or_insert(Value::Null), fields);
            }
        }
        (into, from) => *into = from,
    }
}

fn without_filled_in(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|name, _| !FILLED_IN.contains(&name.as_str()));
    }
    spec
}

/// Collects where two documents differ.
fn differ(ours: &Value, theirs: &Value, path: &str, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (ours.get(name), theirs.get(name)) {
                    (Some(ours), Some(theirs)) => differ(ours, theirs, &path, found),
                    (Some(_), None) => found.push(format!("+ {path}")),
                    (None, _) => found.push(format!("- {path}")),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (n, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                differ(ours, theirs, &format!("{path}[{n}]"), found);
            }
        }
        (ours, theirs) if ours != theirs => found.push(format!("~ {path}")),
        _ => {}
    }
}

/// A path inside a schema as the path of a field.
fn readable(line: &str) -> String {
    line.replace("versions[0].schema.openAPIV3Schema.properties.", "")
        .replace(".properties.", ".")
        .replace(".items.", "[].")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_the_spec_becomes_ours_and_nothing_else() {
        let owner = |manager: &str, operation: &str, fields: Value| json!({ "manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields });
        let mut status = owner("kube-apiserver", "Update", json!({ "f:status": {} }));
        status["subresource"] = json!("status");
        let owners = [
            owner("helm", "Update", json!({ "f:spec": { "f:group": {}, "f:names": { "f:kind": {} } } })),
            owner(
                "kubectl",
                "Apply",
                json!({ "f:metadata": { "f:labels": {} }, "f:spec": { "f:names": { "f:plural": {} } } }),
            ),
            owner(FIELD_MANAGER, "Apply", json!({ "f:spec": { "f:scope": {} } })),
            status.clone(),
        ];
        let after = taken_over(&owners).unwrap();
        let ours = after.iter().find(|owner| owner["manager"] == FIELD_MANAGER).unwrap();
        let all = json!({ "f:spec": { "f:group": {}, "f:names": { "f:kind": {}, "f:plural": {} }, "f:scope": {} } });
        assert_eq!(ours["fieldsV1"], all);
        let kubectl = after.iter().find(|owner| owner["manager"] == "kubectl").unwrap();
        assert_eq!(kubectl["fieldsV1"], json!({ "f:metadata": { "f:labels": {} } }));
        assert!(after.contains(&status));
        assert_eq!(after.len(), 3, "helm owns nothing any more");
        assert_eq!(taken_over(&after), None, "there is nothing left to take");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_not_waited_for() {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let error = compare(&Client::new(silent, "default")).await.unwrap_err();
        assert!(error.to_string().ends_with("the API server does not answer in time"), "{error}");
    }

    #[test]
    fn differences_are_told_as_fields() {
        let schema = |spec: Value| json!({ "scope": "Namespaced", "versions": [{ "schema": { "openAPIV3Schema": { "properties": { "spec": spec } } } }] });
        let ours = schema(json!({ "properties": { "a": { "maxLength": 3 }, "b": {} } }));
        let theirs = schema(json!({ "properties": { "a": { "maxLength": 2 }, "c": {} } }));
        let mut found = Vec::new();
        differ(&ours, &theirs, "", &mut found);
        let found: Vec<String> = found.iter().map(|line| readable(line)).collect();
        assert_eq!(found, ["~ spec.a.maxLength", "+ spec.b", "- spec.c"]);
        let mut none = Vec::new();
        differ(&ours, &ours, "", &mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_definition_is_served_when_both_conditions_say_so() {
        let with = |names: &str, established: &str| {
            json!({ "status": { "conditions": [
                { "type": "NamesAccepted", "status": names, "message": "taken" },
                { "type": "Established", "status": established },
            ] } })
        };
        assert_eq!(unmet(&with("True", "True")), None);
        assert_eq!(unmet(&with("False", "True")).unwrap(), "NamesAccepted: taken");
        assert_eq!(unmet(&json!({})).unwrap(), "NamesAccepted: not yet");
    }
}
