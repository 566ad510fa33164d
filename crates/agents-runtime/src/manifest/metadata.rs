//! The part of an object's metadata that a person writes.

use std::collections::BTreeMap;

use super::{
    Document, ManifestFault, Rule,
    strict::nearest,
    tree::{Member, Node, Place, Tree},
};

/// Longest name of an object.
const MAX_NAME: usize = 253;
/// Longest namespace.
const MAX_NAMESPACE: usize = 63;
/// Metadata that is read.
const KNOWN: [&str; 5] = ["name", "generateName", "namespace", "labels", "annotations"];
/// Metadata that a server wrote and that means nothing here.
const OF_A_SERVER: [&str; 10] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// What a person writes about an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Its name; absent where it is generated.
    pub name: Option<String>,
    /// What a generated name begins with; absent where there is a name.
    pub generate_name: Option<String>,
    /// Where name or prefix stand.
    pub place: Place,
    /// Its namespace, when it names one.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Document {
    /// The document's metadata; every fault of it goes to `faults`.
    pub fn metadata(&self, faults: &mut Vec<ManifestFault>) -> Option<Metadata> {
        let before = faults.len();
        let Some(node) = self.node.get("metadata") else {
            faults.push(self.fault(self.node.place, "metadata", Rule::Metadata, "is missing"));
            return None;
        };
        let Tree::Map(members) = &node.value else {
            let problem = format!("is {}; a map is wanted", node.value.describe());
            faults.push(self.fault(node.place, "metadata", Rule::Metadata, problem));
            return None;
        };
        let mut metadata = Metadata::default();
        let mut text = BTreeMap::new();
        for Member { name, place, node } in members {
            let field = format!("metadata.{name}");
            match name.as_str() {
                "labels" => metadata.labels = self.texts(node, &field, faults),
                "annotations" => metadata.annotations = self.texts(node, &field, faults),
                known if KNOWN.contains(&known) => match &node.value {
                    Tree::Text(value) => {
                        text.insert(known, (value.as_str(), node.place));
                    }
                    Tree::Null => {}
                    other => {
                        let problem = format!("is {}; a text is wanted", other.describe());
                        let fault = self.fault(node.place, &field, Rule::Metadata, problem);
                        faults.push(fault.with_hint(Some("quote it".to_owned())));
                    }
                },
                server if OF_A_SERVER.contains(&server) => {}
                unknown => {
                    let hint = nearest(unknown, KNOWN.into_iter());
                    let fault = self.fault(*place, &field, Rule::Metadata, "is not a known field");
                    faults.push(fault.with_hint(Some(hint)));
                }
            }
        }
        if let Some((namespace, place)) = text.get("namespace") {
            let short = namespace.len() <= MAX_NAMESPACE && !namespace.contains('.');
            if !short || name_problem(namespace).is_some() {
                let problem = format!("{namespace:?} is not the name of a namespace");
                faults.push(self.fault(*place, "metadata.namespace", Rule::Metadata, problem));
            }
            metadata.namespace = Some((*namespace).to_owned());
        }
        match (text.get("name"), text.get("generateName")) {
            (Some((name, place)), _) if !name.is_empty() => {
                if let Some(problem) = name_problem(name) {
                    faults.push(self.fault(*place, "metadata.name", Rule::Metadata, problem));
                }
                metadata.name = Some((*name).to_owned());
                metadata.place = *place;
            }
            (_, Some((prefix, place))) => {
                // The server adds letters, so a prefix may end in what no name ends in.
                let cut: String = prefix.chars().take(MAX_NAME - 1).collect();
                if let Some(problem) = name_problem(&format!("{cut}x")) {
                    faults.push(self.fault(*place, "metadata.generateName", Rule::Metadata, problem));
                }
                metadata.generate_name = Some((*prefix).to_owned());
                metadata.place = *place;
            }
            _ => {
                // A name of a wrong type has its own fault already.
                if faults.len() == before {
                    faults.push(self.fault(node.place, "metadata.name", Rule::Metadata, "is missing"));
                }
                return None;
            }
        }
        (faults.len() == before).then_some(metadata)
    }

    /// A map of texts.
    pub fn texts(&self, node: &Node, field: &str, faults: &mut Vec<ManifestFault>) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match &node.value {
            Tree::Map(members) => {
                for Member { name, place: _, node } in members {
                    if let Tree::Text(value) = &node.value {
                        texts.insert(name.clone(), value.clone());
                    } else {
                        let problem = format!("is {}; a text is wanted", node.value.describe());
                        let fault = self.fault(node.place, &format!("{field}[{name:?}]"), Rule::Type, problem);
                        faults.push(fault.with_hint(Some("quote it".to_owned())));
                    }
                }
            }
            Tree::Null => {}
            other => {
                let problem = format!("is {}; a map of texts is wanted", other.describe());
                faults.push(self.fault(node.place, field, Rule::Type, problem));
            }
        }
        texts
    }
}

/// What keeps `name` from being the name of an object: it must be a DNS subdomain, as everywhere in Kubernetes.
pub fn name_problem(name: &str) -> Option<String> {
    if name.len() > MAX_NAME {
        return Some(format!("has {} characters; at most {MAX_NAME}", name.len()));
    }
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let part = |part: &str| end(part.chars().next()) && end(part.chars().next_back()) && part.chars().all(inner);
    (!name.split('.').all(part)).then(|| {
        format!("{name:?} is not a name: lower-case letters, digits, `-` and `.`, with a letter or digit at both ends")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for good in ["a", "a-b.c", "1", &"a".repeat(253)] {
            assert_eq!(name_problem(good), None, "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a/b", "../a", "a b", "ä", &"a".repeat(254)] {
            assert!(name_problem(bad).is_some(), "{bad}");
        }
    }
}
