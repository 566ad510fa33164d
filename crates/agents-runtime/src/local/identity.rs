//! Names and uids of objects that no API server named.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
};

/// Longest name of an object.
const MAX_NAME: usize = 253;
/// Characters after a `generateName`, as the API server adds them.
const SUFFIX: usize = 5;
/// The API server's alphabet of generated names.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A uid that no other object has.
pub(super) fn new_uid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
        |_| {
            let (a, b) = (random(), random());
            format!(
                "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                a >> 32,
                a >> 16 & 0xffff,
                a & 0xfff,
                b >> 52,
                b & 0xffff_ffff_ffff
            )
        },
        |uid| uid.trim().to_owned(),
    )
}

/// The standard library seeds each state from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A name that begins with `prefix`; the rest comes from `uid`.
pub(super) fn generated_name(prefix: &str, uid: &str) -> String {
    let kept: String = prefix.chars().take(MAX_NAME - SUFFIX).collect();
    let mut seed = uid.bytes().filter(u8::is_ascii_hexdigit).fold(0_u128, |seed, byte| {
        let digit = u128::from(char::from(byte).to_digit(16).unwrap_or(0));
        (seed << 4) | digit
    });
    let base = ALPHABET.len() as u128;
    let suffix: String = (0..SUFFIX)
        .map(|_| {
            let digit = usize::try_from(seed % base).unwrap_or(0);
            seed /= base;
            char::from(ALPHABET[digit])
        })
        .collect();
    format!("{kept}{suffix}")
}

/// What keeps `name` from being the name of an object: it must be a DNS subdomain, as everywhere in Kubernetes.
pub(super) fn name_problem(name: &str) -> Option<String> {
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_generated_name_is_a_name(prefix in "[a-z0-9][-a-z0-9]{0,300}") {
            let name = generated_name(&prefix, &new_uid());
            prop_assert_eq!(name_problem(&name), None);
        }
    }

    #[test]
    fn two_uids_differ() {
        assert_ne!(new_uid(), new_uid());
        assert_ne!(random(), random());
    }
}
