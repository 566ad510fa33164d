//! What git says of a remote that is not as it should be, and what its traces tell of it. Pure.

use agents_core::status::cut;

/// Most names that are listed.
const MAX_NAMES: usize = 10;
/// Longest address or ref out of a trace, in bytes.
const MAX_TRACED: usize = 1024;

/// Whether git's words mean that the server answered with a redirect, which is not followed.
pub(super) fn is_redirect(problem: &str) -> bool {
    problem.split_once("returned error: 30").is_some_and(|(_, rest)| rest.starts_with(['1', '2', '3', '7', '8']))
}

/// Whether git's words mean that the server asked for a user or password and nothing here answers.
pub(super) fn wants_credentials(problem: &str) -> bool {
    problem.contains("could not read Username for") || problem.contains("could not read Password for")
}

/// Whether a remote broke off because it lacks what its commits name.
pub(super) fn is_incomplete(problem: &str) -> bool {
    ["possible repository corruption on the remote side", "promisor remote", "lazy fetching disabled"]
        .iter()
        .any(|sign| problem.contains(sign))
}

/// Whether a git server has answered, by a trace of HTTP: its answer has a type of its own.
pub(super) fn speaks_git(trace: &str) -> bool {
    received(trace, "content-type").any(|kind| kind.eq_ignore_ascii_case("application/x-git-upload-pack-advertisement"))
}

/// The repository that the last redirect in a trace of HTTP points to, without user, password and query: those may be
/// credentials.
pub(super) fn redirect_target(trace: &str) -> Option<String> {
    let location = received(trace, "location").next_back()?;
    let address = location.split(['?', '#']).next().unwrap_or_default();
    let address =
        ["/info/refs", "/git-upload-pack"].iter().find_map(|end| address.strip_suffix(end)).unwrap_or(address);
    let public = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) =
                rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
        }
        None => address.to_owned(),
    };
    (!public.is_empty()).then(|| cut(&public, MAX_TRACED))
}

/// The values of a header in all answers that a trace of HTTP tells of.
fn received<'a>(trace: &'a str, header: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
    trace.lines().filter_map(move |line| {
        let (name, value) = line.split_once("Recv header: ")?.1.split_once(':')?;
        name.eq_ignore_ascii_case(header).then(|| value.trim())
    })
}

/// The ref that a remote's HEAD names though it is not there, out of a trace of packets. Only newer servers say it.
pub(super) fn unborn_head(trace: &str) -> Option<String> {
    let target = trace.lines().find_map(|line| line.split_once("unborn HEAD symref-target:"))?.1.trim();
    (!target.is_empty()).then(|| cut(target, MAX_TRACED))
}

/// Names in a sentence.
pub(super) fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| format!("`{}`", cut(name, 256))).collect();
    let shown = shown.join(", ");
    match names.len().checked_sub(MAX_NAMES) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_known_by_its_number() {
        let says = |number: u16| {
            is_redirect(&format!("fatal: unable to access 'http://h/x/': The requested URL returned error: {number}"))
        };
        assert!([301, 302, 303, 307, 308].into_iter().all(says));
        assert!(![200, 300, 304, 401, 404, 500].into_iter().any(says));
    }

    #[test]
    fn where_a_redirect_points_is_told_without_credentials() {
        for (header, target) in [
            ("Location: https://h/new.git/info/refs?service=git-upload-pack", Some("https://h/new.git")),
            ("location: https://u:pw@h:8443/new/git-upload-pack?token=x#y", Some("https://h:8443/new")),
            ("location: /new.git/info/refs?service=git-upload-pack", Some("/new.git")),
            ("Location: https://u@h", Some("https://h")),
            ("Location: ", None),
            ("Content-Location: https://h/other", None),
        ] {
            let trace = format!("1 http.c:684  <= Recv header: HTTP/2 301\n1 http.c:684  <= Recv header: {header}\n");
            assert_eq!(redirect_target(&trace).as_deref(), target, "{header}");
        }
    }

    #[test]
    fn few_names_are_listed() {
        let names: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(list(&names[..2]), "`0`, `1`");
        assert!(list(&names).ends_with("`9` and 2 more"));
    }
}
