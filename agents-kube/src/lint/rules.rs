//! The own rules of kinds that have some, asked of the objects of a folder.

use std::sync::Arc;

use agents_core::{
    api::Meta,
    decide::declaration::Standing,
    id::Id,
    kinds::AnyKind,
    look::{AnyResource, Found, Look, Tag},
};
use agents_runtime::manifest::Rule;
use jiff::Timestamp;

use super::{Finding, Folder, Item, Severity};

/// What can never become right by the rules of its kind, such as a payload that its Signal does not take. A fault of the
/// spec alone has been told by the check.
pub(super) fn check(folder: &Folder<'_>, item: &Item<'_>, findings: &mut Vec<Finding>) {
    let Some(kind) = AnyKind::by_name(item.kind).filter(|kind| kind.has_rules()) else { return };
    let Some(object) = resource(item).filter(|object| kind.faults(&**object).is_empty()) else { return };
    // They are asked of what has everything that it refers to; what lacks something is told where it stands.
    let mut references = kind.references(&*object).into_iter();
    if references.any(|needed| folder.find(needed.kind, &item.namespace, &needed.name).is_none()) {
        return;
    }
    // No moment makes right what is faulty.
    let deed = kind.rules(object, folder).map(|rules| rules.decide(Timestamp::UNIX_EPOCH));
    let Some(Standing::Invalid(_, message)) = deed.and_then(|deed| deed.standing) else { return };
    let (field, problem) = message.split_once(": ").unwrap_or(("spec", &message));
    findings.push(item.finding(Severity::Error, item.document.fault_at(field, Rule::Check, problem)));
}

impl Look for Folder<'_> {
    fn look(&self, Id { kind, key }: &Id) -> Found<AnyResource> {
        let item = self.find(kind, &key.namespace, &key.name);
        item.and_then(resource).map_or(Found::Absent, Found::Object)
    }

    /// What is created first is not known here, and what was before stands in the cluster.
    fn tagged(&self, _: &Tag) -> Vec<Arc<AnyResource>> {
        vec![]
    }
}

/// An object of a folder as its kind; one that is not right is none.
pub(super) fn resource(item: &Item<'_>) -> Option<Arc<AnyResource>> {
    let spec = Some(&item.object["spec"]).filter(|spec| !spec.is_null());
    let texts = |name: &str| serde_json::from_value(item.object["metadata"][name].clone()).unwrap_or_default();
    let metadata = Meta {
        name: item.name.clone(),
        namespace: item.namespace.clone(),
        labels: texts("labels"),
        annotations: texts("annotations"),
        ..Meta::default()
    };
    AnyKind::by_name(item.kind)?.read(metadata, spec.cloned(), None).ok()
}
