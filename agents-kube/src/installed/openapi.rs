//! Which definitions in the cluster lack what this program knows, from the API server's OpenAPI documents: every
//! authenticated user may read these, while definitions need rights that the controller has not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agents_core::{
    api::{Kind, VERSION},
    check::Check,
    kinds::{self, Visitor},
};
use http::{Request, StatusCode};
use kube::{Client, Error};
use serde::Deserialize;
use tokio::time;

use super::fields::Shape;
use crate::crd;

/// Time a document may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Time after which a change of a definition stands in its document.
const PUBLISHED: Duration = Duration::from_secs(5);
/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How many fields are named.
const NAMED: usize = 8;

/// A definition in the cluster that is not what this program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Kind.
    pub kind: &'static str,
    /// API group.
    pub group: &'static str,
    /// Paths of the fields that the cluster's definition lacks; `None` when there is no definition.
    pub missing: Option<Vec<String>>,
}

impl Difference {
    /// Logs it as a warning with what helps.
    pub fn tell(&self) {
        let Self { kind, group, missing } = self;
        match missing {
            None => tracing::warn!(kind, group, "the kind is not installed: run `agents crds apply`"),
            Some(fields) => {
                let named = fields.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = fields.len().saturating_sub(NAMED);
                tracing::warn!(
                    kind, group, fields = %named, more,
                    "the installed definition is older than this program and drops these fields: run `agents crds apply`"
                );
            }
        }
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    components: Components,
}

#[derive(Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(rename = "x-kubernetes-group-version-kind", default)]
    kinds: Vec<GroupVersionKind>,
    #[serde(default)]
    properties: BTreeMap<String, Shape>,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    kind: String,
    version: String,
}

/// The groups of this program's kinds.
#[derive(Default)]
struct Groups(BTreeSet<&'static str>);

impl Visitor for Groups {
    fn visit<K: Kind + Check>(&mut self) {
        self.0.insert(K::GROUP);
    }
}

/// Compares the kinds of one group, one after another: the schemas of all kinds at once would be more than what an idle
/// controller keeps in memory.
struct Comparison {
    group: &'static str,
    installed: BTreeMap<String, Shape>,
    differences: Vec<Difference>,
}

impl Visitor for Comparison {
    fn visit<K: Kind + Check>(&mut self) {
        if K::GROUP != self.group {
            return;
        }
        let missing = self.installed.get(K::KIND).map(|theirs| shape::<K>().beyond(theirs));
        if missing.as_ref().is_none_or(|fields| !fields.is_empty()) {
            self.differences.push(Difference { kind: K::KIND, group: K::GROUP, missing });
        }
    }
}

/// What this program knows of a kind.
fn shape<K: Kind>() -> Shape {
    let definition = crd::crd::<K>();
    // A shape that cannot be read has no fields that could be missing, and there is a test that each can be.
    Shape::deserialize(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).unwrap_or_default()
}

/// Every definition that lacks something, group by group.
///
/// # Errors
/// The API server cannot be reached, or does not give its documents.
pub async fn look(client: &Client) -> Result<Vec<Difference>, Error> {
    let mut groups = Groups::default();
    kinds::visit(&mut groups);
    let mut differences = Vec::new();
    for group in groups.0 {
        let installed = document(client, group).await?;
        let mut comparison = Comparison { group, installed, differences };
        kinds::visit(&mut comparison);
        differences = comparison.differences;
    }
    Ok(differences)
}

/// The kinds of a group; none when the group is not served.
async fn document(client: &Client, group: &str) -> Result<BTreeMap<String, Shape>, Error> {
    let request =
        Request::get(format!("/openapi/v3/apis/{group}/{VERSION}")).body(Vec::new()).map_err(Error::HttpError)?;
    let text = match time::timeout(LIMIT, client.request_text(request)).await {
        Ok(Ok(text)) => text,
        Ok(Err(Error::Api(status))) if status.code == StatusCode::NOT_FOUND.as_u16() => return Ok(BTreeMap::new()),
        Ok(Err(error)) => return Err(error),
        Err(late) => return Err(Error::Service(late.into())),
    };
    let document: Document = serde_json::from_str(&text).map_err(Error::SerdeError)?;
    let of_kind = |component: Component| {
        let Component { kinds, properties } = component;
        let kind = kinds.into_iter().find(|kind| kind.version == VERSION)?.kind;
        Some((kind, Shape::of(properties)))
    };
    Ok(document.components.schemas.into_values().filter_map(of_kind).collect())
}

/// The same as soon as the API server answers, and after what was changed just now is published. It may take for ever.
pub async fn settled(client: &Client) -> Vec<Difference> {
    let mut wait = Duration::from_secs(1);
    let mut seen = false;
    loop {
        match look(client).await {
            Ok(differences) if differences.is_empty() || seen => return differences,
            Ok(_) => {
                seen = true;
                time::sleep(PUBLISHED).await;
            }
            Err(error) => {
                tracing::debug!(%error, "the installed definitions cannot be read");
                time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(MAX_WAIT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_shape() {
        struct Shapes;
        impl Visitor for Shapes {
            fn visit<K: Kind + Check>(&mut self) {
                let beyond = shape::<K>().beyond(&Shape::default());
                assert!(beyond.contains(&"status".to_owned()), "{}: {beyond:?}", K::KIND);
            }
        }
        kinds::visit(&mut Shapes);
    }
}
