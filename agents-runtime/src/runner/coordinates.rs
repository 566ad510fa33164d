//! Which repository addresses, refs and folders may reach the git command line. Pure.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use agents_core::api::agent_run::GitCoordinates;
use thiserror::Error;

/// Transports git may use, as `GIT_ALLOW_PROTOCOL` wants them.
pub(super) const ALLOWED_PROTOCOLS: &str = "https:http:ssh:git:file";

/// Where AWS serves the metadata of a machine over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Coordinates that are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum CoordinatesError {
    /// The address.
    #[error("`git.url`: {0}")]
    Url(&'static str),
    /// The ref.
    #[error("`git.ref`: {0}")]
    Reference(&'static str),
    /// The folder.
    #[error("`git.path`: {0}")]
    Path(&'static str),
}

/// Coordinates that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coordinates {
    /// Address for git.
    pub url: String,
    /// Address for reports: without user and password.
    pub public_url: String,
    /// What to check out.
    pub reference: Option<String>,
    /// Components of the folder inside the repository.
    pub folder: Vec<String>,
}

/// Checks all three.
///
/// # Errors
/// The first that is not allowed; its value is not repeated, because it may hold a credential.
pub(super) fn check(git: &GitCoordinates) -> Result<Coordinates, CoordinatesError> {
    let GitCoordinates { url, reference, path } = git;
    let public_url = check_url(url).map_err(CoordinatesError::Url)?;
    if let Some(reference) = reference {
        check_reference(reference).map_err(CoordinatesError::Reference)?;
    }
    let folder = check_path(path.as_deref().unwrap_or_default()).map_err(CoordinatesError::Path)?;
    Ok(Coordinates { url: url.clone(), public_url, reference: reference.clone(), folder })
}

/// Returns the address without user and password.
fn check_url(url: &str) -> Result<String, &'static str> {
    if url.is_empty() || url.len() > 2048 {
        return Err("is empty or longer than 2048 bytes");
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("contains white space or a control character");
    }
    if url.starts_with('-') {
        return Err("begins with `-`");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return check_scp(url);
    };
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, p)| (a, p));
    match scheme {
        "file" if authority.is_empty() || authority == "localhost" => {
            if path.is_empty() {
                return Err("names no path");
            }
            return Ok(url.to_owned());
        }
        "file" => return Err("`file://` names a host"),
        "https" | "http" | "ssh" | "git" => {}
        _ => return Err("is not `https://`, `http://`, `ssh://`, `git://`, `file://` or `user@host:path`"),
    }
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    if user.contains(':') {
        return Err("contains a password; give credentials as a secret");
    }
    if user.starts_with('-') {
        return Err("its user begins with `-`");
    }
    check_host(host)?;
    Ok(format!("{scheme}://{host}/{path}"))
}

fn check_scp(url: &str) -> Result<String, &'static str> {
    const FORM: &str = "is not `https://`, `http://`, `ssh://`, `git://`, `file://` or `user@host:path`";
    let (authority, path) = url.split_once(':').ok_or(FORM)?;
    let (user, host) = authority.split_once('@').ok_or(FORM)?;
    // `ext::command` and its like name a helper program.
    if path.is_empty() || path.starts_with([':', '-']) || user.is_empty() || authority.contains('/') {
        return Err(FORM);
    }
    check_host(host)?;
    Ok(format!("{host}:{path}"))
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if name.is_empty() {
        return Err("names no host");
    }
    if name.starts_with('-') {
        return Err("its host begins with `-`");
    }
    // A zone says which interface; the address is what counts.
    let address = name.split('%').next().unwrap_or_default();
    let link_local = match IpAddr::from_str(address) {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address == METADATA_V6
                || address.to_ipv4_mapped().is_some_and(|inner| inner.is_link_local())
        }
        Err(_) if is_number(address) => return Err("its host is a number that is not a dotted address"),
        Err(_) => name.trim_end_matches('.').eq_ignore_ascii_case("metadata.google.internal"),
    };
    if link_local {
        return Err("its host is a link-local or metadata address");
    }
    Ok(())
}

/// Whether resolvers read a name as an address in another spelling, such as `2852039166` or `169.254.43518`.
fn is_number(name: &str) -> bool {
    let label = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hexadecimal = label.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    hexadecimal || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The rules of `git check-ref-format`, and no leading `-`.
fn check_reference(reference: &str) -> Result<(), &'static str> {
    if reference.is_empty() || reference.len() > 256 {
        return Err("is empty or longer than 256 bytes");
    }
    if reference.starts_with(['-', '+', '/']) {
        return Err("begins with `-`, `+` or `/`");
    }
    if reference.chars().any(|c| c.is_control() || c.is_whitespace() || ":^~?*[\\".contains(c)) {
        return Err("contains a character no ref may have");
    }
    if reference == "@" || reference.contains("..") || reference.contains("@{") || reference.contains("//") {
        return Err("contains `..`, `@{` or `//`");
    }
    if reference.ends_with(['/', '.']) {
        return Err("ends with `/` or `.`");
    }
    let bad_part = |part: &str| {
        part.starts_with('.')
            || std::path::Path::new(part).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("lock"))
    };
    if reference.split('/').any(bad_part) {
        return Err("has a component that begins with `.` or ends with `.lock`");
    }
    Ok(())
}

fn check_path(path: &str) -> Result<Vec<String>, &'static str> {
    if path.len() > 1024 {
        return Err("is longer than 1024 bytes");
    }
    if path.starts_with('/') {
        return Err("is absolute; it is relative to the repository");
    }
    if path.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    let parts: Vec<String> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
    if parts.iter().any(|part| part == "..") {
        return Err("contains `..`");
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_run_programs_or_carry_passwords_are_refused() {
        for url in [
            "",
            "ext::sh -c id",
            "ext::sh",
            "fd::3",
            "/srv/repo",
            "../repo",
            "--upload-pack=x",
            "-c",
            "C:\\repo",
            "https://u:secret@host/x",
            "ssh://-oProxyCommand=x/y",
            "ssh://u@-oProxyCommand/y",
            "ssh://-u@host/y",
            "u@-oProxyCommand=x:y",
            "file://host/x",
            "file://",
            "https:///x",
            "ftp://host/x",
            "https://host/a b",
            "https://host/a\nb",
            "http://169.254.169.254/latest",
            "http://[fe80::1]/x",
            "http://[::ffff:169.254.1.1]/x",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0XA9.0xfe.0xa9.0xfe/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://169.254.169.254./",
            "http://a.b.1/",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[fd00:ec2::254]/latest",
            "http://[FD00:0EC2:0::254]:80/latest",
            "u@2852039166:x",
            "https://metadata.google.internal/x",
            "u@host::x",
            "u@host:-x",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
        for (url, public) in [
            ("https://example.com/a.git", "https://example.com/a.git"),
            ("https://user@example.com:8443/a", "https://example.com:8443/a"),
            ("ssh://git@example.com/a", "ssh://example.com/a"),
            ("git@example.com:org/a.git", "example.com:org/a.git"),
            ("file:///srv/a", "file:///srv/a"),
            ("git://10.0.0.1/a", "git://10.0.0.1/a"),
            ("http://10.0.0.1:8080/a", "http://10.0.0.1:8080/a"),
            ("http://[fd00:ec2::253]/a", "http://[fd00:ec2::253]/a"),
            ("https://0xcafe.example/a", "https://0xcafe.example/a"),
            ("https://1.example.2nd/a", "https://1.example.2nd/a"),
        ] {
            assert_eq!(check_url(url).as_deref(), Ok(public));
        }
    }

    #[test]
    fn refs_that_are_options_or_expressions_are_refused() {
        for reference in [
            "",
            "--upload-pack=x",
            "-c",
            "a..b",
            "a@{1}",
            "@",
            "+a",
            "a:b",
            "a b",
            "a^",
            "a~1",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "a\x07",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            &"a".repeat(1024),
        ] {
            assert!(check_reference(reference).is_err(), "{reference}");
        }
        for reference in ["main", "feature/x-1", "v1.0", "refs/pull/1/head", "größe", "0a1b2c3"] {
            assert_eq!(check_reference(reference), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn a_folder_stays_inside(path in "(/|\\.|\\.\\.|a|b){0,10}") {
            if let Ok(parts) = check_path(&path) {
                prop_assert!(parts.iter().all(|part| part != ".." && part != "." && !part.is_empty()));
            }
        }
    }
}
