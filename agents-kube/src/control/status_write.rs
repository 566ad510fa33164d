//! What a write of a status sends. Pure.

use serde::Serialize;

use crate::watch::Identity;

/// The whole status of one state of an object. The spec is not sent: a write of status keeps the stored one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body<'a, S> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    status: &'a S,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_version: &'a str,
}

/// `status` for the object in the state `of`.
pub(super) fn body<'a, S: Serialize>(
    api_version: &'a str,
    kind: &'a str,
    of: Identity<'a>,
    status: &'a S,
) -> Body<'a, S> {
    let Identity { namespace, name, uid, resource_version } = of;
    Body { api_version, kind, metadata: Metadata { name, namespace, uid, resource_version }, status }
}
