//! What an answer that is not a success says. Pure: code, header and body in, a verdict out.
//!
//! Between this program and the API server there may be proxies and gateways that answer in their own words. Whatever
//! ends something for good, or lets an object count as absent, is believed only from a Status of the API server that
//! names the object that was asked for; everything else is tried again.

use std::time::Duration;

use kube::core::{Status, response::StatusDetails};
use serde::Deserialize;

use super::{
    Target,
    error::{ApiErrorKind, MAX_RETRY_AFTER},
};

/// Shortest wait after an answer that asks for one: a server that says 0 is still overloaded.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The kind.
    pub(crate) target: &'a Target,
    /// Its namespace; empty for all, and for what has none.
    pub(crate) namespace: &'a str,
    /// The object; `None` for a collection, and for an object without a name of its own.
    pub(crate) name: Option<&'a str>,
    /// Whether it is a write.
    pub(crate) mutates: bool,
}

impl Asked<'_> {
    /// Whether `details` are about what was asked for. An API server names the kind where it judges the object and the
    /// resource where it looks for it.
    fn is_meant_by(&self, details: &StatusDetails) -> bool {
        let Target { kind, plural, group, path: _ } = self.target;
        details.group == **group
            && (details.kind == **kind || details.kind == **plural)
            && self.name.is_none_or(|name| details.name == name)
    }
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// What happened.
    pub(crate) kind: ApiErrorKind,
    /// HTTP status.
    pub(crate) code: u16,
    /// The wait that the answer asks for.
    pub(crate) wait: Option<Duration>,
    /// The API server's own words.
    pub(crate) status: Option<Status>,
}

/// Judges an answer of HTTP status `code` that is not a success. `retry_after` is the header's value in seconds.
pub(crate) fn judge(asked: &Asked<'_>, code: u16, retry_after: Option<u64>, body: &[u8]) -> Verdict {
    let status = read(body).filter(|status| status.code == code);
    judge_status(asked, code, retry_after, status)
}

/// The same for a Status that came in another way, such as inside a watch.
pub(crate) fn judge_status(asked: &Asked<'_>, code: u16, retry_after: Option<u64>, status: Option<Status>) -> Verdict {
    let details = status.as_ref().and_then(|status| status.details.as_ref());
    let seconds = retry_after.or_else(|| details.map(|details| details.retry_after_seconds.into()).filter(|s| *s > 0));
    let wait = seconds.map(|seconds| Duration::from_secs(seconds).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER));
    let kind = match &status {
        Some(status) => said(asked, code, wait, status),
        None => unsaid(asked, code, wait),
    };
    Verdict { kind, code, wait, status }
}

/// Reads a Status, and nothing that only looks like one.
pub(crate) fn read(body: &[u8]) -> Option<Status> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Type {
        kind: String,
        api_version: String,
    }
    let Type { kind, api_version } = serde_json::from_slice(body).ok()?;
    (kind == "Status" && api_version == "v1").then(|| serde_json::from_slice(body).ok())?
}

/// What the API server says.
fn said(asked: &Asked<'_>, code: u16, wait: Option<Duration>, status: &Status) -> ApiErrorKind {
    let meant = status.details.as_ref().is_some_and(|details| asked.is_meant_by(details));
    match (code, status.reason.as_str()) {
        // A webhook's own 429 is about what it was asked, and no wait of the API server.
        (429, _) if is_denial(&status.message) => ApiErrorKind::Denied,
        (401 | 429, _) => unsaid(asked, code, wait),
        (403, _) => ApiErrorKind::Forbidden,
        (404, _) if meant && asked.name.is_some() => ApiErrorKind::NotFound,
        (404, _) => ApiErrorKind::NotServed,
        (409, "AlreadyExists") if meant && asked.mutates => ApiErrorKind::AlreadyExists,
        (409, "AlreadyExists") => ApiErrorKind::Refused,
        (409 | 412, _) => ApiErrorKind::Conflict,
        (410, _) => ApiErrorKind::Gone,
        (400..=407 | 411..=499, _) if is_denial(&status.message) => ApiErrorKind::Denied,
        // Only what was sent can be wrong for good, and only this object.
        (400 | 413 | 422, "BadRequest" | "RequestEntityTooLarge" | "Invalid") if meant && asked.mutates => {
            ApiErrorKind::Invalid
        }
        (400..=407 | 411..=499, _) => ApiErrorKind::Refused,
        // Every failure inside the API server, and a request that timed out there, may come after etcd has stored the
        // write.
        _ => unsaid(asked, code, wait),
    }
}

/// What a status code without a Status says.
fn unsaid(asked: &Asked<'_>, code: u16, wait: Option<Duration>) -> ApiErrorKind {
    match code {
        // Tokens are rotated: the next one may be good. Who is not let in has changed nothing.
        401 => ApiErrorKind::Unavailable,
        // The API server's own word for a kind that it does not know is a line of text.
        404 if asked.name.is_none() && !asked.mutates => ApiErrorKind::NotServed,
        // Its fairness answers so too, before it has looked at the request.
        429 => ApiErrorKind::TooManyRequests { retry_after: wait.unwrap_or(MIN_RETRY_AFTER) },
        _ if asked.mutates => ApiErrorKind::Ambiguous,
        _ => ApiErrorKind::Unavailable,
    }
}

/// Whether an admission webhook or policy refused, whatever the status it answered with, rather than the API server's
/// own validation.
fn is_denial(message: &str) -> bool {
    message.contains("denied the request") || message.contains("denied request")
}

#[cfg(test)]
mod tests {
    use agents_runtime::adapter::Class;
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::{Value, json};

    use super::*;
    use crate::client::ApiError;

    fn status(code: u16, reason: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m",
            "details": {"name": "j", "group": "batch", "kind": "jobs", "retryAfterSeconds": 7},
        });
        change(&mut body);
        serde_json::to_vec(&body).unwrap()
    }

    fn error(code: u16, retry_after: Option<u64>, body: &[u8], mutates: bool) -> ApiError {
        let asked = Asked { target: &Target::of::<Job>(), namespace: "ns", name: Some("j"), mutates };
        ApiError::of_verdict("try", judge(&asked, code, retry_after, body))
    }

    fn answer(code: u16, reason: &str, mutates: bool) -> ApiError {
        error(code, None, &status(code, reason, |_| ()), mutates)
    }

    #[test]
    fn each_answer_has_its_kind_and_class() {
        let retry_after = Duration::from_secs(7);
        let table = [
            (404, "NotFound", ApiErrorKind::NotFound, Class::WaitForChange),
            (409, "AlreadyExists", ApiErrorKind::AlreadyExists, Class::WaitForChange),
            (409, "Conflict", ApiErrorKind::Conflict, Class::RetryAfter(Duration::ZERO)),
            (403, "Forbidden", ApiErrorKind::Forbidden, Class::WaitForChange),
            (401, "Unauthorized", ApiErrorKind::Unavailable, Class::RetryAfter(retry_after)),
            (408, "Timeout", ApiErrorKind::Ambiguous, Class::RetryAfter(retry_after)),
            (422, "Invalid", ApiErrorKind::Invalid, Class::Terminal),
            (400, "BadRequest", ApiErrorKind::Invalid, Class::Terminal),
            (415, "UnsupportedMediaType", ApiErrorKind::Refused, Class::WaitForChange),
            (410, "Expired", ApiErrorKind::Gone, Class::RetryAfter(retry_after)),
            (429, "TooManyRequests", ApiErrorKind::TooManyRequests { retry_after }, Class::RetryAfter(retry_after)),
            (500, "InternalError", ApiErrorKind::Ambiguous, Class::RetryAfter(retry_after)),
            (503, "ServiceUnavailable", ApiErrorKind::Ambiguous, Class::RetryAfter(retry_after)),
            (504, "Timeout", ApiErrorKind::Ambiguous, Class::RetryAfter(retry_after)),
        ];
        for (code, reason, kind, class) in table {
            let error = answer(code, reason, true);
            assert_eq!((error.kind, error.class), (kind, class), "{code} {reason}");
        }
        assert_eq!(answer(504, "Timeout", false).kind, ApiErrorKind::Unavailable, "a read changes nothing");
        assert_eq!(answer(422, "Invalid", false).class, Class::WaitForChange, "a read sends nothing to be wrong");
        let plain = error(503, None, &status(503, "ServiceUnavailable", |body| body["details"] = json!({})), true);
        assert_eq!(plain.class, Class::Retry);
    }

    #[test]
    fn a_policy_that_refuses_is_told_from_a_spec_that_is_wrong() {
        let denied =
            "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.x == \"y\"";
        let policy = status(422, "Invalid", |body| {
            body["message"] = json!(format!("jobs.batch \"j\" is forbidden: {denied}"));
            body["details"]["causes"] = json!([{"message": denied}]);
        });
        let refused = error(422, None, &policy, true);
        assert_eq!((refused.kind, refused.class), (ApiErrorKind::Denied, Class::WaitForChange));
        assert!(refused.message.contains("ValidatingAdmissionPolicy 'p'"), "{refused}");
        let webhook = status(400, "BadRequest", |body| {
            body["message"] = json!("admission webhook \"x.test\" denied the request: no");
            body["details"]["causes"] = json!([{"message": "no", "field": "spec.template"}]);
        });
        assert_eq!(error(400, None, &webhook, true).kind, ApiErrorKind::Denied);
        let busy = status(429, "TooManyRequests", |body| {
            body["message"] = json!("admission webhook \"x.test\" denied the request: too many at once");
        });
        let refused = error(429, Some(60), &busy, true);
        assert_eq!((refused.kind, refused.class), (ApiErrorKind::Denied, Class::WaitForChange), "one tenant's limit");
    }

    #[test]
    fn the_header_wins_over_the_body_and_every_wait_is_bounded() {
        let wait = |seconds| Class::RetryAfter(Duration::from_secs(seconds));
        assert_eq!(error(429, Some(3), b"slow down", false).class, wait(3));
        assert_eq!(error(429, Some(3), &status(429, "TooManyRequests", |_| ()), true).class, wait(3));
        assert_eq!(error(429, Some(0), b"", true).class, wait(1), "no wait at all is no answer to overload");
        assert_eq!(error(429, None, b"", true).class, wait(1));
        assert_eq!(error(503, Some(86_400), b"", true).class, Class::RetryAfter(MAX_RETRY_AFTER));
    }

    /// An object that is not the one that was sent, a namespace, another group, another name.
    #[test]
    fn only_what_is_said_about_the_object_counts_for_good() {
        type Change = fn(&mut Value);
        let others: [Change; 7] = [
            |body| body["details"]["name"] = json!("k"),
            |body| body["details"]["group"] = json!(""),
            |body| body["details"]["kind"] = json!("pods"),
            |body| body["details"] = json!({"name": "ns", "kind": "namespaces"}),
            |body| body["details"] = json!({}),
            |body| body["details"] = json!(null),
            |body| body["kind"] = json!("Error"),
        ];
        for (at, other) in others.into_iter().enumerate() {
            let judged = |code, reason| error(code, None, &status(code, reason, other), true);
            assert_ne!(judged(422, "Invalid").class, Class::Terminal, "{at}");
            assert_ne!(judged(400, "BadRequest").class, Class::Terminal, "{at}");
            assert_ne!(judged(404, "NotFound").kind, ApiErrorKind::NotFound, "{at}");
            assert_ne!(judged(409, "AlreadyExists").kind, ApiErrorKind::AlreadyExists, "{at}");
        }
        let kind = status(422, "Invalid", |body| body["details"]["kind"] = json!("Job"));
        assert_eq!(error(422, None, &kind, true).class, Class::Terminal, "as validation names it");
        let mismatch = status(400, "BadRequest", |_| ());
        assert_ne!(error(422, None, &mismatch, true).class, Class::Terminal, "of another answer");
    }

    #[test]
    fn a_kind_that_is_not_served_is_told_from_an_object_that_is_absent() {
        let listing = Asked { target: &Target::of::<Job>(), namespace: "ns", name: None, mutates: false };
        assert_eq!(judge(&listing, 404, None, b"404 page not found\n").kind, ApiErrorKind::NotServed);
        assert_eq!(error(404, None, b"404 page not found\n", false).kind, ApiErrorKind::Unavailable);
        assert_eq!(error(404, None, b"<html></html>", true).kind, ApiErrorKind::Ambiguous);
        let unserved = status(404, "NotFound", |body| body["details"] = json!({}));
        assert_eq!(error(404, None, &unserved, false).kind, ApiErrorKind::NotServed);
    }
}
