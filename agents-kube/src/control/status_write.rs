//! What a write of a status sends. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::watch::Identity;

/// The whole status of one state of an object. The spec is not sent: a write of status keeps the stored one.
pub(super) fn body(api_version: &str, kind: &str, of: Identity<'_>, status: &impl Serialize) -> Value {
    let Identity { namespace, name, uid, resource_version } = of;
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid,
            "resourceVersion": (!resource_version.is_empty()).then_some(resource_version),
        },
        "status": status,
    })
}
