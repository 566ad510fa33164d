//! What a call to the API server came to when it did not succeed: one kind each that callers act upon, and the class
//! that says what the driver does.
//!
//! Texts are for people and may end up in a status: they name fields and objects, never a value that was sent and
//! never a body that was received.

use std::{error::Error as StdError, io, time::Duration};

use agents_runtime::adapter::Class;
use kube::core::Status;

use super::deadline::Expired;

/// Longest text taken from the API server, in characters.
const MAX_TEXT: usize = 512;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// The object, or the kind itself, does not exist.
    NotFound,
    /// A create met an object of the same name.
    AlreadyExists,
    /// The object has changed, or a precondition does not hold.
    Conflict,
    /// Not allowed: permissions, quota, a namespace that is ending.
    Forbidden,
    /// An admission webhook or policy refused, which may be changed.
    Denied,
    /// The API server does not accept what was sent.
    Invalid,
    /// Asked to slow down.
    TooManyRequests {
        /// How long to wait.
        retry_after: Duration,
    },
    /// A write may or may not have taken effect; the object is stale until it is read consistently.
    Ambiguous,
    /// The resource version or the continue token is too old.
    Gone,
    /// The API server cannot be reached or failed; nothing was changed.
    Unavailable,
    /// The deadline passed before anything was sent.
    NotSent,
    /// An answer came and cannot be read; a write has taken effect.
    Decode,
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}: {message}")]
pub struct ApiError {
    /// What was tried, such as `create the job`.
    pub step: &'static str,
    /// What happened.
    pub kind: ApiErrorKind,
    /// What the driver does about it.
    pub class: Class,
    /// For people, without secrets.
    pub message: String,
}

impl ApiError {
    /// An error of a kind, classed accordingly.
    pub fn new(step: &'static str, kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let class = match kind {
            ApiErrorKind::Conflict => Class::RetryAfter(Duration::ZERO),
            ApiErrorKind::TooManyRequests { retry_after } => Class::RetryAfter(retry_after),
            ApiErrorKind::NotFound
            | ApiErrorKind::AlreadyExists
            | ApiErrorKind::Forbidden
            | ApiErrorKind::Denied
            | ApiErrorKind::Decode => Class::WaitForChange,
            ApiErrorKind::Invalid => Class::Terminal,
            ApiErrorKind::Ambiguous | ApiErrorKind::Gone | ApiErrorKind::Unavailable | ApiErrorKind::NotSent => {
                Class::Retry
            }
        };
        Self { step, kind, class, message: message.into() }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == ApiErrorKind::NotFound
    }

    /// An answer of the API server that is not a success.
    ///
    /// `retry_after` is the header's value in seconds. The body is read as a Status only.
    pub(crate) fn of_answer(
        step: &'static str,
        code: u16,
        retry_after: Option<u64>,
        body: &[u8],
        mutates: bool,
    ) -> Self {
        match serde_json::from_slice::<Status>(body) {
            Ok(status) => Self::of_status(step, code, retry_after, &status, mutates),
            Err(_) => Self::new(
                step,
                kind_of(code, "", retry_after, mutates),
                format!("the API server answered with status {code}"),
            ),
        }
    }

    /// A Status object, from an answer or from inside a watch.
    pub(crate) fn of_status(
        step: &'static str,
        code: u16,
        retry_after: Option<u64>,
        status: &Status,
        mutates: bool,
    ) -> Self {
        let seconds = retry_after.or_else(|| {
            let details = status.details.as_ref()?;
            (details.retry_after_seconds > 0).then_some(u64::from(details.retry_after_seconds))
        });
        let kind = match kind_of(code, &status.reason, seconds, mutates) {
            ApiErrorKind::Invalid if is_denial(&status.message) => ApiErrorKind::Denied,
            kind => kind,
        };
        Self::new(step, kind, text_of(kind, code, status))
    }

    /// A call that ended without an answer.
    pub(crate) fn of_transport(step: &'static str, error: &kube::Error, mutates: bool) -> Self {
        let expired = chain(error).find_map(|cause| cause.downcast_ref::<Expired>());
        let refused = chain(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused);
        let unsent = refused || matches!(error, kube::Error::Auth(_) | kube::Error::BuildRequest(_));
        match expired {
            Some(Expired::Unsent) => Self::new(step, ApiErrorKind::NotSent, Expired::Unsent.to_string()),
            Some(Expired::Unanswered) => Self::unanswered(step, mutates),
            None if refused => Self::new(step, ApiErrorKind::Unavailable, "the API server refuses connections"),
            None if mutates && !unsent => Self::new(
                step,
                ApiErrorKind::Ambiguous,
                "the connection to the API server failed before an answer came",
            ),
            None => Self::new(step, ApiErrorKind::Unavailable, "the connection to the API server failed"),
        }
    }

    /// A call whose deadline passed after it was sent.
    pub(crate) fn unanswered(step: &'static str, mutates: bool) -> Self {
        let kind = if mutates { ApiErrorKind::Ambiguous } else { ApiErrorKind::Unavailable };
        Self::new(step, kind, "the API server did not answer in time")
    }

    /// An answer that cannot be read.
    pub(crate) fn undecodable(step: &'static str, error: &serde_json::Error) -> Self {
        Self::new(step, ApiErrorKind::Decode, decode_text(error))
    }
}

/// `None` instead of an error where the object does not exist.
pub trait OrAbsent<T> {
    /// Turns [`ApiErrorKind::NotFound`] into `None`.
    fn or_absent(self) -> Result<Option<T>, ApiError>;
}

impl<T> OrAbsent<T> for Result<T, ApiError> {
    fn or_absent(self) -> Result<Option<T>, ApiError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn kind_of(code: u16, reason: &str, retry_after: Option<u64>, mutates: bool) -> ApiErrorKind {
    match code {
        403 => ApiErrorKind::Forbidden,
        // Tokens are rotated: the next one may be good. Who is not let in has changed nothing.
        401 => ApiErrorKind::Unavailable,
        404 => ApiErrorKind::NotFound,
        409 if reason == "AlreadyExists" => ApiErrorKind::AlreadyExists,
        409 | 412 => ApiErrorKind::Conflict,
        410 => ApiErrorKind::Gone,
        429 => ApiErrorKind::TooManyRequests { retry_after: Duration::from_secs(retry_after.unwrap_or(1)) },
        400..=407 | 409..=499 => ApiErrorKind::Invalid,
        // Every failure inside the API server, and a request that timed out there, may come after etcd has stored the
        // write.
        _ if mutates => ApiErrorKind::Ambiguous,
        _ => ApiErrorKind::Unavailable,
    }
}

/// Whether an admission webhook or policy refused, whatever the status it answered with, rather than the API server's
/// own validation.
fn is_denial(message: &str) -> bool {
    message.contains("denied the request") || message.contains("denied request")
}

fn text_of(kind: ApiErrorKind, code: u16, status: &Status) -> String {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    if kind == ApiErrorKind::Invalid && !causes.is_empty() {
        let causes: Vec<String> = causes
            .iter()
            .map(|cause| {
                let text = without_value(&cause.message);
                let text = if text.is_empty() { cause.reason.as_str() } else { text };
                if cause.field.is_empty() || cause.field == "<nil>" {
                    text.to_owned()
                } else {
                    format!("{}: {text}", cause.field)
                }
            })
            .collect();
        return cut(&causes.join("; "));
    }
    if status.message.is_empty() {
        return format!("the API server answered with status {code}");
    }
    match kind {
        // These texts can quote what was sent.
        ApiErrorKind::Invalid | ApiErrorKind::Denied => cut(&without_quotes(&status.message)),
        _ => cut(&status.message),
    }
}

/// The explanation behind a field's value: `Invalid value: "s3cret": must be short` says `must be short`.
fn without_value(message: &str) -> &str {
    let Some((kind, rest)) = message.split_once(": ") else {
        return message;
    };
    if !["Invalid value", "Unsupported value", "Duplicate value", "Too long", "Too many"].contains(&kind) {
        return if message.contains('"') { "" } else { message };
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        return match rest.split_once(": ") {
            // A structure: where it ends cannot be told.
            _ if rest.contains(['"', '{', '[']) => "",
            // A number, or no value at all.
            Some((_, explanation)) => explanation,
            None => rest,
        };
    };
    let mut escaped = false;
    for (at, character) in quoted.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                return quoted.get(at + 1..).and_then(|rest| rest.strip_prefix(": ")).unwrap_or("");
            }
            _ => (),
        }
    }
    ""
}

/// Replaces everything between double quotes.
fn without_quotes(message: &str) -> String {
    let mut out = String::new();
    let (mut inside, mut escaped) = (false, false);
    for character in message.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => {
                if !inside {
                    out.push_str("\"…\"");
                }
                inside = !inside;
            }
            _ if inside => (),
            other => out.push(other),
        }
    }
    out
}

/// What is wrong with a document, without its values.
pub(crate) fn decode_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = match text.split_once("unknown variant `") {
        Some((before, after)) => {
            let after = after.split_once('`').map_or("", |(_, after)| after);
            format!("{before}unknown variant{after}")
        }
        None => text,
    };
    cut(&without_quotes(&text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// An error and its causes; bounded, so that a cause that names itself ends.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(16)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, status: &serde_json::Value, mutates: bool) -> ApiError {
        ApiError::of_answer("try", code, None, &serde_json::to_vec(status).unwrap(), mutates)
    }

    #[test]
    fn each_answer_has_its_kind_and_class() {
        let retry_after = Duration::from_secs(7);
        let table = [
            (404, "NotFound", ApiErrorKind::NotFound, Class::WaitForChange),
            (409, "AlreadyExists", ApiErrorKind::AlreadyExists, Class::WaitForChange),
            (409, "Conflict", ApiErrorKind::Conflict, Class::RetryAfter(Duration::ZERO)),
            (403, "Forbidden", ApiErrorKind::Forbidden, Class::WaitForChange),
            (401, "Unauthorized", ApiErrorKind::Unavailable, Class::Retry),
            (408, "Timeout", ApiErrorKind::Ambiguous, Class::Retry),
            (422, "Invalid", ApiErrorKind::Invalid, Class::Terminal),
            (400, "BadRequest", ApiErrorKind::Invalid, Class::Terminal),
            (410, "Expired", ApiErrorKind::Gone, Class::Retry),
            (429, "TooManyRequests", ApiErrorKind::TooManyRequests { retry_after }, Class::RetryAfter(retry_after)),
            (500, "InternalError", ApiErrorKind::Ambiguous, Class::Retry),
            (503, "ServiceUnavailable", ApiErrorKind::Ambiguous, Class::Retry),
            (504, "Timeout", ApiErrorKind::Ambiguous, Class::Retry),
        ];
        for (code, reason, kind, class) in table {
            let body = json!({ "code": code, "reason": reason, "message": "m", "details": { "retryAfterSeconds": 7 } });
            let error = answer(code, &body, true);
            assert_eq!((error.kind, error.class), (kind, class), "{code} {reason}");
        }
        let read = answer(504, &json!({ "message": "m" }), false);
        assert_eq!(read.kind, ApiErrorKind::Unavailable, "a read changes nothing");
    }

    #[test]
    fn a_policy_that_refuses_is_told_from_a_spec_that_is_wrong() {
        let denied =
            "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.x == \"y\"";
        let policy = json!({
            "code": 422, "reason": "Invalid", "message": format!("jobs.batch \"j\" is forbidden: {denied}"),
            "details": {"causes": [{"message": denied}]},
        });
        let error = answer(422, &policy, true);
        assert_eq!((error.kind, error.class), (ApiErrorKind::Denied, Class::WaitForChange));
        assert!(error.message.contains("ValidatingAdmissionPolicy 'p'"), "{error}");
        let webhook = json!({
            "code": 400, "reason": "BadRequest", "message": "admission webhook \"x.test\" denied the request: no",
            "details": {"causes": [{"message": "no", "field": "spec.template"}]},
        });
        assert_eq!(answer(400, &webhook, true).kind, ApiErrorKind::Denied);
    }

    #[test]
    fn the_header_wins_over_the_body() {
        let error = ApiError::of_answer("try", 429, Some(3), b"slow down", false);
        assert_eq!(error.class, Class::RetryAfter(Duration::from_secs(3)));
    }

    #[test]
    fn texts_name_fields_and_never_values() {
        let error = answer(
            422,
            &json!({
                "message": "Job.batch \"j\" is invalid: [spec.env[0].value: Invalid value: \"canary\": must be short]",
                "reason": "Invalid",
                "details": { "causes": [
                    { "field": "spec.env[0].value", "reason": "FieldValueInvalid",
                      "message": "Invalid value: \"can\\\"ary: x\": must be short" },
                    { "field": "spec.kind", "reason": "FieldValueNotSupported",
                      "message": "Unsupported value: \"canary\": supported values: \"a\"" },
                    { "field": "spec.list", "reason": "FieldValueInvalid",
                      "message": "Invalid value: [canary]: must be empty" },
                    { "field": "spec.seconds", "reason": "FieldValueInvalid",
                      "message": "Invalid value: 31: should be less" },
                    { "field": "<nil>", "reason": "FieldValueInvalid",
                      "message": "Invalid value: spec is immutable" },
                    { "field": "spec.image", "reason": "FieldValueRequired", "message": "Required value" },
                ] },
            }),
            true,
        );
        assert_eq!(
            error.to_string(),
            "failed to try: spec.env[0].value: must be short; spec.kind: supported values: \"a\"; \
             spec.list: FieldValueInvalid; spec.seconds: should be less; spec is immutable; spec.image: Required value"
        );
        let bad = answer(400, &json!({ "message": "parsing time \"canary\" as \"2006\": cannot parse" }), true);
        assert_eq!(bad.message, "parsing time \"…\" as \"…\": cannot parse");
        let page = ApiError::of_answer("try", 502, None, b"<html>canary</html>", false);
        assert_eq!(page.message, "the API server answered with status 502");
    }

    #[test]
    fn a_document_that_does_not_fit_is_described_without_its_values() {
        #[derive(Debug, serde::Deserialize)]
        enum Word {
            Known,
        }
        let error = serde_json::from_str::<Word>("\"canary\"").unwrap_err();
        assert_eq!(decode_text(&error), "unknown variant, expected `Known` at line 1 column 8");
        let error = serde_json::from_str::<Vec<u8>>("\"canary\"").unwrap_err();
        assert!(!decode_text(&error).contains("canary"));
        assert!(matches!(serde_json::from_str("\"Known\""), Ok(Word::Known)));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let error = answer(500, &json!({ "message": "é".repeat(2000) }), false);
        assert_eq!(error.message.chars().count(), MAX_TEXT + 1);
    }
}
