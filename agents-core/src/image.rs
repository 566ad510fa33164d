//! References of container images: whether a node's runtime could read one at all.
//!
//! The grammar is the one of the registries' own library (`distribution/reference`): `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
//! What is accepted may still not exist; what is refused would never be pulled.

/// Longest name, host and path together, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// Why no image can be named so.
pub fn problem(reference: &str) -> Option<&'static str> {
    let (named, digest) = match reference.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (reference, None),
    };
    // A colon before the last `/` belongs to the host.
    let (name, tag) = match named.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (named, None),
    };
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (Some(first), rest),
        _ => (None, name),
    };
    if name.is_empty() {
        return Some("names no image");
    }
    if name.len() > MAX_NAME {
        return Some("its name is longer than 255 bytes");
    }
    if host.is_some_and(|host| !is_host(host)) {
        return Some("its registry is no HOST or HOST:PORT");
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("its name has capital letters; names of images are in lower case");
    }
    if !path.split('/').all(is_component) {
        return Some(
            "its name is no path of lower-case letters, digits, and single `.`, `_`, `__` or `-` between them",
        );
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Some(
            "its tag is empty, longer than 128 bytes or has other characters than letters, digits, `_`, `.`, `-`",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Some("its digest is not as sha256:… with 64 hexadecimal digits");
    }
    None
}

/// Whether the first part of a name is a registry and not a folder of the default one.
fn is_host_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let in_brackets = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    named && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Letters and digits with one separator between them: a dot, one or two underscores, any number of dashes.
fn is_component(component: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<u8>| byte.is_some_and(is_inner);
    let mut separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends(component.bytes().next())
        && ends(component.bytes().next_back())
        && separators
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, digits)) = digest.split_once(':') else { return false };
    let wanted = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    digits.len() == wanted && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_registries_hold_is_accepted() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for reference in [
            "busybox",
            "library/busybox:1.36",
            "ghcr.io/proompteng/agents:v0.1.0-rc.1",
            "localhost/a",
            "localhost:5000/a/b__c/d-e.f:_x",
            "registry.example:443/a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "Registry.Example/a",
            "REGISTRY/a",
            "10.0.0.1:5000/a",
            "[2001:db8::1]:5000/a",
            "a--b/c---d:Tag",
            "kind-registry/x",
            &digest,
            &format!("a:{}", "t".repeat(128)),
        ] {
            assert_eq!(problem(reference), None, "{reference}");
        }
    }

    #[test]
    fn what_no_runtime_could_read_is_refused() {
        for reference in [
            "",
            " ",
            "a b",
            " a",
            "a ",
            "a\n",
            "Busybox",
            "ghcr.io/Proompteng/agents",
            "../a",
            "a/../b",
            "./a",
            "/a",
            "a/",
            "a//b",
            "a:",
            "a:b:c",
            "a:tag/b:",
            "a:-x",
            "a:é",
            "é",
            "a@",
            "a@sha256:0",
            "a@md5:0123456789abcdef0123456789abcdef",
            "a@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
            "https://example.com/a",
            "docker://a",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "a.-b",
            "host:port/a",
            "-host.example/a",
            "host..example/a",
            "[::1/a",
            "[x]/a",
            "user@host/a",
            "{{ inputs.image }}",
            "$(IMAGE)",
            "a\0",
            &"a".repeat(256),
            &"a/".repeat(2048),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(problem(reference).is_some(), "{reference:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_no_surprise_in_it(reference in "[aA1._/:@\\[\\]% \\n-]{0,12}|\\PC{0,20}") {
            if problem(&reference).is_none() {
                prop_assert!(reference.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!reference.contains("..") && !reference.contains("//") && !reference.starts_with('/'));
            }
        }
    }
}
