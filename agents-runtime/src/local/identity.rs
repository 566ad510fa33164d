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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::name_problem;

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
