//! Which repository addresses, refs and folders may reach the git command line.
//!
//! One judge for all who ask: the check of a run, its plan, and the runner before it starts git. It judges what is
//! written. What a name resolves to, and where a server sends git on to, is known only to who connects.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

use crate::api::agent_run::GitCoordinates;

/// Transports git may use, as `GIT_ALLOW_PROTOCOL` wants them.
pub const ALLOWED_PROTOCOLS: &str = "https:http:ssh:git:file";

/// Where clouds serve the metadata of a machine besides link-local addresses: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// The same over IPv6: AWS.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// Names of the same.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "metadata"];

const METADATA: &str = "its host is a link-local or metadata address";
const FORM: &str = "is not `https://`, `http://`, `ssh://`, `git://`, `file://` or `user@host:path`";
const USERINFO: &str = "names a user, a token or a password before the host; take it out and give it as a secret: name it in \
                        the provider's `secretEnv` and let a git credential helper of the image, or one named by \
                        `GIT_CONFIG_GLOBAL`, answer with it";

/// Coordinates that are not allowed. The value is not repeated, because it may hold a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("`git.{field}`: {problem}")]
pub struct CoordinatesError {
    /// `url`, `ref` or `path`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Coordinates that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinates {
    /// Address for git.
    pub url: String,
    /// Address for reports: without a user.
    pub public_url: String,
    /// What to check out.
    pub reference: Option<String>,
    /// Components of the folder inside the repository.
    pub folder: Vec<String>,
}

/// Checks all three.
///
/// # Errors
/// The first that is not allowed.
pub fn check(git: &GitCoordinates) -> Result<Coordinates, CoordinatesError> {
    let GitCoordinates { url, reference, path } = git;
    let of = |field| move |problem| CoordinatesError { field, problem };
    let public_url = check_url(url).map_err(of("url"))?;
    if let Some(reference) = reference {
        check_reference(reference).map_err(of("ref"))?;
    }
    let folder = check_path(path.as_deref().unwrap_or_default()).map_err(of("path"))?;
    Ok(Coordinates { url: url.clone(), public_url, reference: reference.clone(), folder })
}

/// Everything that [`check`] refuses.
pub fn problems(git: &GitCoordinates) -> Vec<CoordinatesError> {
    let GitCoordinates { url, reference, path } = git;
    [
        ("url", check_url(url).err()),
        ("ref", reference.as_deref().and_then(|reference| check_reference(reference).err())),
        ("path", path.as_deref().and_then(|path| check_path(path).err())),
    ]
    .into_iter()
    .filter_map(|(field, problem)| problem.map(|problem| CoordinatesError { field, problem }))
    .collect()
}

/// Whether a repository is named by a path, as only manifests of local runs may: `.`, `..`, `./…`, `../…` or absolute.
pub fn is_path(url: &str) -> bool {
    url == "." || url == ".." || url.starts_with("./") || url.starts_with("../") || url.starts_with('/')
}

/// Returns the address without its user.
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
    if is_path(url) {
        return Err("is a path, which means a repository only to `agents run`");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return check_scp(url);
    };
    // Git and curl end the authority at any of the three.
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |end| rest.split_at(end));
    let user = match scheme {
        "file" if authority.is_empty() || authority == "localhost" => {
            return if path.len() > 1 { Ok(url.to_owned()) } else { Err("names no path") };
        }
        "file" => return Err("`file://` names a host"),
        "https" | "http" if authority.contains('@') => return Err(USERINFO),
        "git" if authority.contains('@') => return Err("`git://` knows no users"),
        "https" | "http" | "git" | "ssh" => authority.rsplit_once('@').map(|(user, _)| user),
        _ => return Err(FORM),
    };
    if let Some(user) = user {
        check_user(user)?;
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    check_host(host)?;
    Ok(format!("{scheme}://{host}{path}"))
}

/// Looks at the user of an address over SSH.
fn check_user(user: &str) -> Result<(), &'static str> {
    if user.contains(':') {
        return Err("contains a password; give a key as a secret");
    }
    if user.is_empty() || user.starts_with('-') {
        return Err("its user is empty or begins with `-`");
    }
    Ok(())
}

/// Looks at `user@host:path` and `user@[host:port]:path`.
fn check_scp(url: &str) -> Result<String, &'static str> {
    let (user, rest) = url.split_once('@').ok_or(FORM)?;
    // `ext::command` and its like name a helper program.
    if user.contains([':', '/']) {
        return Err(FORM);
    }
    check_user(user)?;
    let (host, path) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once("]:").ok_or(FORM)?,
        None => rest.split_once(':').ok_or(FORM)?,
    };
    if path.is_empty() || path.starts_with([':', '-']) || host.contains(['/', '[', ']']) {
        return Err(FORM);
    }
    match Ipv6Addr::from_str(host) {
        Ok(address) => check_address(IpAddr::V6(address))?,
        Err(_) => check_host(host)?,
    }
    Ok(if rest.starts_with('[') { format!("[{host}]:{path}") } else { format!("{host}:{path}") })
}

/// Looks at `host`, `host:port`, `[address]` and `[address]:port`.
fn check_host(host: &str) -> Result<(), &'static str> {
    let port = if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.split_once(']').ok_or("its host has no closing `]`")?;
        // A zone says which interface; the address is what counts.
        let address = Ipv6Addr::from_str(name.split('%').next().unwrap_or_default());
        check_address(IpAddr::V6(address.map_err(|_| "its host in brackets is no IPv6 address")?))?;
        if port.is_empty() { None } else { Some(port.strip_prefix(':').unwrap_or("?")) }
    } else {
        let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        check_name(name)?;
        port
    };
    match port {
        None | Some("") => Ok(()),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok() => Ok(()),
        Some(_) => Err("its port is no number up to 65535"),
    }
}

/// Looks at a host that is not in brackets.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("names no host");
    }
    if name.starts_with('-') || name.len() > 253 {
        return Err("its host begins with `-` or is longer than 253 bytes");
    }
    // Others are decoded or mapped before the name is looked up, so that `%31`, `１` and `。` become digits and dots.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(
            "its host has other characters than letters, digits, `-`, `_` and `.`; write an international name \
                    as `xn--…`",
        );
    }
    match IpAddr::from_str(name) {
        Ok(address) => check_address(address),
        Err(_) if is_number(name) => Err("its host is a number that is not a dotted address"),
        Err(_) if METADATA_NAMES.iter().any(|known| name.trim_end_matches('.').eq_ignore_ascii_case(known)) => {
            Err(METADATA)
        }
        Err(_) => Ok(()),
    }
}

fn check_address(address: IpAddr) -> Result<(), &'static str> {
    let inner = match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => embedded(address),
    };
    let of_v4 = inner.is_some_and(|inner| inner.is_link_local() || METADATA_V4.contains(&inner));
    let of_v6 = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || address == METADATA_V6,
    };
    if of_v4 || of_v6 { Err(METADATA) } else { Ok(()) }
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, translated (NAT64) or tunnelled (6to4).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
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
mod tests;
