//! Names: validated newtypes, and the deterministic names of what a run starts.
//!
//! A child's name is the record that a restart finds it by, so it depends on nothing but (run, uid, step, iteration,
//! attempt). The readable part is cut to fit; the hash never is.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest name of a child: it also becomes a label value and part of a host name.
pub const MAX_CHILD_NAME: usize = 63;
/// Characters of the hash: 60 bits.
const HASH_LEN: usize = 12;

/// What is submitted once: one attempt of one iteration of one step of one run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubmissionKey {
    /// Uid of the run.
    pub uid: String,
    /// Name of the step; empty for a run without steps.
    pub step: String,
    /// Iteration of the step, from 0.
    pub iteration: i32,
    /// Number of the attempt, from 1.
    pub attempt: i32,
}

impl SubmissionKey {
    /// The key of an attempt of a run without steps.
    pub fn of_attempt(uid: &str, attempt: i32) -> Self {
        Self { uid: uid.to_owned(), step: String::new(), iteration: 0, attempt }
    }
}

/// The deterministic name of what a submission becomes: a DNS label of at most [`MAX_CHILD_NAME`] characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildName(String);

impl ChildName {
    /// The name of the submission `key` of the run `run`.
    pub fn of(run: &str, key: &SubmissionKey) -> Self {
        let SubmissionKey { uid, step, iteration, attempt } = key;
        let (iteration, attempt) = (iteration.to_string(), attempt.to_string());
        Self(readable_with_hash(run, &[uid.as_str(), step.as_str(), iteration.as_str(), attempt.as_str()]))
    }

    /// A name derived from this one, such as that of a ConfigMap beside a Job.
    #[must_use]
    pub fn beside(&self, purpose: &str) -> Self {
        Self(readable_with_hash(&self.0, &[purpose]))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChildName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an object can have this name: a DNS subdomain of at most 253 characters, as everywhere in Kubernetes.
pub fn is_object_name(name: &str) -> bool {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let part = |part: &str| end(part.chars().next()) && end(part.chars().next_back()) && part.chars().all(inner);
    name.len() <= 253 && name.split('.').all(part)
}

/// `value` as a label value: unchanged when it is one, else its readable part and a hash of the whole.
pub fn label_value(value: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let valid = value.len() <= MAX_CHILD_NAME
        && value.chars().all(inner)
        && ends(value.chars().next())
        && ends(value.chars().next_back());
    if valid { value.to_owned() } else { readable_with_hash(value, &[value]) }
}

fn readable_with_hash(text: &str, identity: &[&str]) -> String {
    let mut readable: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(MAX_CHILD_NAME - HASH_LEN - 1)
        .collect();
    let trimmed = readable.trim_matches('-').len();
    if trimmed < readable.len() {
        readable = readable.trim_matches('-').to_owned();
    }
    // A DNS label begins with a letter here, so that every user of the name (a Service, an environment variable) can
    // take it.
    if !readable.starts_with(|c: char| c.is_ascii_lowercase()) {
        readable.insert_str(0, "r-");
        readable.truncate(MAX_CHILD_NAME - HASH_LEN - 1);
        readable = readable.trim_end_matches('-').to_owned();
    }
    format!("{readable}-{}", short_hash(identity))
}

/// Letters and digits without vowels, so that no word appears by chance.
const ALPHABET: &[u8; 32] = b"bcdfghjklmnpqrstvwxz0123456789yu";

fn short_hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(HASH_LEN).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn is_dns_label(name: &str) -> bool {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !name.is_empty()
            && name.len() <= 63
            && name.chars().all(label)
            && !name.starts_with('-')
            && !name.ends_with('-')
    }

    #[test]
    fn two_long_names_alike_in_their_first_200_characters_have_different_children() {
        let (a, b) = ("a".repeat(252) + "1", "a".repeat(252) + "2");
        let (a, b) = (
            ChildName::of(&a, &SubmissionKey::of_attempt("uid-1", 1)),
            ChildName::of(&b, &SubmissionKey::of_attempt("uid-2", 1)),
        );
        assert_ne!(a, b);
        assert!(is_dns_label(a.as_str()));
    }

    #[test]
    fn a_hundred_thousand_submissions_have_as_many_names() {
        let run = "r".repeat(253);
        let names: HashSet<_> = (0..1000)
            .flat_map(|uid| (1..=100).map(move |attempt| SubmissionKey::of_attempt(&format!("uid-{uid}"), attempt)))
            .map(|key| ChildName::of(&run, &key))
            .collect();
        assert_eq!(names.len(), 100_000);
    }

    proptest! {
        #[test]
        fn a_child_is_a_dns_label_and_only_its_key_decides_the_hash(
            run in "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", uid in "[a-f0-9-]{0,36}", step in "[a-z]{0,63}", attempt in 1i32..200,
        ) {
            let key = SubmissionKey { uid, step, iteration: 0, attempt };
            let name = ChildName::of(&run, &key);
            prop_assert!(is_dns_label(name.as_str()), "{}", name);
            prop_assert!(is_dns_label(name.beside("spec").as_str()));
            prop_assert_ne!(name.beside("spec"), name.clone());
            let mut next = key.clone();
            next.attempt += 1;
            prop_assert_ne!(ChildName::of(&run, &next), name);
        }

        #[test]
        fn a_label_value_is_valid(value in "\\PC{0,300}") {
            let label = label_value(&value);
            prop_assert!(label.len() <= 63);
            prop_assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
        }
    }
}
