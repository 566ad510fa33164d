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
/// Longest value of a label, and longest name in the key of a label or an annotation.
const MAX_LABEL: usize = 63;
/// Most bytes of all annotations together, keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;
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
                "labels" => {
                    metadata.labels = self.texts(node, &field, faults);
                    self.keys(node, &field, label_problem, faults);
                }
                "annotations" => {
                    metadata.annotations = self.texts(node, &field, faults);
                    self.keys(node, &field, |_| None, faults);
                    let bytes: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
                    if bytes > MAX_ANNOTATIONS {
                        let problem = format!("have {bytes} bytes together; at most {MAX_ANNOTATIONS}");
                        faults.push(self.fault(node.place, &field, Rule::Metadata, problem));
                    }
                }
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

    /// Notes every key of a map that no label or annotation can have, and what `wrong` says of a value.
    fn keys(&self, node: &Node, field: &str, wrong: fn(&str) -> Option<String>, faults: &mut Vec<ManifestFault>) {
        let Tree::Map(members) = &node.value else { return };
        for Member { name, place, node } in members {
            let field = format!("{field}[{name:?}]");
            if let Some(problem) = key_problem(name) {
                faults.push(self.fault(*place, &field, Rule::Metadata, problem));
            }
            if let Tree::Text(value) = &node.value
                && let Some(problem) = wrong(value)
            {
                faults.push(self.fault(node.place, &field, Rule::Metadata, problem));
            }
        }
    }

    /// A map of texts.
    pub fn texts(&self, node: &Node, field: &str, faults: &mut Vec<ManifestFault>) -> BTreeMap<String, String> {
        self.texts_as(node, field, Tree::describe, faults)
    }

    /// A map of texts that nobody may read in a fault.
    pub fn secret_texts(&self, node: &Node, field: &str, faults: &mut Vec<ManifestFault>) -> BTreeMap<String, String> {
        self.texts_as(node, field, |value| value.kind().to_owned(), faults)
    }

    fn texts_as(
        &self,
        node: &Node,
        field: &str,
        describe: fn(&Tree) -> String,
        faults: &mut Vec<ManifestFault>,
    ) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match &node.value {
            Tree::Map(members) => {
                for Member { name, place: _, node } in members {
                    if let Tree::Text(value) = &node.value {
                        texts.insert(name.clone(), value.clone());
                    } else {
                        let problem = format!("is {}; a text is wanted", describe(&node.value));
                        let fault = self.fault(node.place, &format!("{field}[{name:?}]"), Rule::Type, problem);
                        faults.push(fault.with_hint(Some("quote it".to_owned())));
                    }
                }
            }
            Tree::Null => {}
            other => {
                let problem = format!("is {}; a map of texts is wanted", describe(other));
                faults.push(self.fault(node.place, field, Rule::Type, problem));
            }
        }
        texts
    }
}

/// What keeps `key` from being the key of a label or an annotation: `name`, or `domain/name`.
fn key_problem(key: &str) -> Option<String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if let Some(prefix) = prefix
        && name_problem(prefix).is_some()
    {
        return Some(format!("is no key: {prefix:?} before the `/` is not a domain of at most {MAX_NAME} characters"));
    }
    (!is_label(name)).then(|| format!("is no key: {name:?} is not a name; {LABEL_FORM}"))
}

/// What keeps `value` from being the value of a label.
fn label_problem(value: &str) -> Option<String> {
    (!value.is_empty() && !is_label(value)).then(|| format!("is not the value of a label: {LABEL_FORM}"))
}

const LABEL_FORM: &str = "at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends";

fn is_label(text: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL
        && end(text.chars().next())
        && end(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
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
    use crate::manifest::{Source, read};

    /// The faults of the metadata that `text` has under its name.
    fn faults(text: &str) -> Vec<String> {
        let text = format!("kind: K\nmetadata:\n  name: a\n{text}");
        let source = Source::Text { name: "m.yaml".to_owned(), folder: std::path::PathBuf::new(), text };
        let read = read(&[source]).unwrap();
        let mut faults = read.faults;
        let metadata = read.documents[0].metadata(&mut faults);
        assert_eq!(metadata.is_some(), faults.is_empty());
        faults.iter().map(|fault| format!("{} {}", fault.field, fault.problem)).collect()
    }

    #[test]
    fn labels_and_annotations_are_as_a_server_takes_them() {
        let long = "a".repeat(63);
        let domain = "a".repeat(253);
        let good = format!(
            "  labels: {{app: Not.ok_1, example.com/x: '', {long}: {long}, {domain}/a: b}}\n  \
             annotations: {{a.b/C_d: 'any text!', empty: ''}}"
        );
        assert_eq!(faults(&good), Vec::<String>::new());
        for (text, field, problem) in [
            ("labels: {app: 'not ok!'}", "metadata.labels[\"app\"]", "not the value of a label"),
            (&format!("labels: {{app: {long}a}}"), "metadata.labels[\"app\"]", "at most 63"),
            ("labels: {app: a-}", "metadata.labels[\"app\"]", "both ends"),
            ("labels: {'a b': c}", "metadata.labels[\"a b\"]", "is no key"),
            ("labels: {'': c}", "metadata.labels[\"\"]", "is no key"),
            ("labels: {Example.com/a: c}", "metadata.labels[\"Example.com/a\"]", "not a domain"),
            ("labels: {a/b/c: d}", "metadata.labels[\"a/b/c\"]", "not a domain"),
            ("labels: {/a: d}", "metadata.labels[\"/a\"]", "not a domain"),
            ("labels: {a/: d}", "metadata.labels[\"a/\"]", "is no key"),
            (&format!("labels: {{{domain}a/b: d}}"), "metadata.labels", "not a domain"),
            (&format!("annotations: {{{long}a: d}}"), "metadata.annotations", "at most 63"),
            (&format!("annotations: {{a: {}}}", "x".repeat(MAX_ANNOTATIONS)), "metadata.annotations", "262145 bytes"),
        ] {
            let found = faults(&format!("  {text}"));
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(field) && found[0].contains(problem), "{found:?}");
        }
    }

    #[test]
    fn a_fault_of_a_secret_says_nothing_of_its_value() {
        let text = "kind: Secret\nstringData: {pin: 271828, ratio: 2.71828, flag: true}\ndata: hunter2";
        let source =
            Source::Text { name: "m.yaml".to_owned(), folder: std::path::PathBuf::new(), text: text.to_owned() };
        let read = read(&[source]).unwrap();
        let document = &read.documents[0];
        let mut faults = Vec::new();
        for field in ["stringData", "data"] {
            document.secret_texts(document.node.get(field).unwrap(), field, &mut faults);
        }
        let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4);
        let told = told.join("\n");
        assert!(told.contains("is an integer; a text is wanted"), "{told}");
        assert!(told.contains("is a text; a map of texts is wanted"), "{told}");
        for secret in ["271828", "2.7", "true", "hunter2"] {
            assert!(!told.contains(secret), "{told}");
        }
    }

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
