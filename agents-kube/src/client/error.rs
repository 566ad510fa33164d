//! What a call to the API server came to when it did not succeed: one kind each that callers act upon, and the class
//! that says what the driver does.
//!
//! Texts are for people and may end up in a status: they name fields and objects, never a value that was sent and
//! never a body that was received.

use std::{error::Error as StdError, io, time::Duration};

use agents_runtime::adapter::Class;
use kube::core::Status;
use serde_json::error::Category;

use super::{deadline::Expired, judge::Verdict};

/// Longest text taken from the API server, in characters.
const MAX_TEXT: usize = 512;
/// Longest wait that an answer can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// The object does not exist: said by the API server about the very object that was asked for.
    NotFound,
    /// What the request is for does not exist: the kind is not served, or there is no such namespace.
    NotServed,
    /// A create met an object of the same name.
    AlreadyExists,
    /// The object has changed, or a precondition does not hold.
    Conflict,
    /// Not allowed: permissions, quota, a namespace that is ending.
    Forbidden,
    /// An admission webhook or policy refused, which may be changed.
    Denied,
    /// The API server does not accept the object that was sent, and says so about this object.
    Invalid,
    /// The API server refused for another reason than the object that was sent.
    Refused,
    /// Asked to slow down; nothing was changed.
    TooManyRequests {
        /// How long to wait, at most [`MAX_RETRY_AFTER`].
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
    /// A whole document came that is not the expected object; a write may have taken effect.
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
    /// An error of a kind, classed accordingly: the one table of what is done about a call that failed.
    pub fn new(step: &'static str, kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let class = match kind {
            ApiErrorKind::Conflict => Class::RetryAfter(Duration::ZERO),
            ApiErrorKind::TooManyRequests { retry_after } => Class::RetryAfter(retry_after),
            ApiErrorKind::NotFound
            | ApiErrorKind::AlreadyExists
            | ApiErrorKind::NotServed
            | ApiErrorKind::Forbidden
            | ApiErrorKind::Denied
            | ApiErrorKind::Refused
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

    /// Whether what a cache says of the object is in doubt after a write failed so: it was changed by another, or may
    /// have been by this.
    pub fn leaves_doubt(&self) -> bool {
        matches!(self.kind, ApiErrorKind::Conflict | ApiErrorKind::Ambiguous | ApiErrorKind::Decode)
    }

    /// An answer that is not a success.
    pub(super) fn of_verdict(step: &'static str, verdict: Verdict) -> Self {
        let Verdict { kind, code, wait, status } = verdict;
        let message = match status {
            Some(status) => text_of(kind, code, &status),
            None => format!("status {code} was answered without the API server's explanation"),
        };
        let error = Self::new(step, kind, message);
        match (error.class, wait) {
            (Class::Retry, Some(wait)) => Self { class: Class::RetryAfter(wait), ..error },
            _ => error,
        }
    }

    /// The API server has asked this client to wait, and that time is not over: nothing was sent.
    pub(super) fn held(step: &'static str, left: Duration) -> Self {
        let kind = ApiErrorKind::TooManyRequests { retry_after: left };
        Self::new(step, kind, "the API server asked this client to wait")
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
        Self::unexplained(step, "the API server did not answer in time", mutates)
    }

    /// A document that is not the expected object.
    pub(crate) fn undecodable(step: &'static str, error: &serde_json::Error) -> Self {
        Self::new(step, ApiErrorKind::Decode, decode_text(error))
    }

    /// A success whose body is not the expected object. Only a whole document can be one that this program does not
    /// know; what is cut, or no document at all, may come from anything in between.
    pub(super) fn unread(step: &'static str, error: &serde_json::Error, mutates: bool) -> Self {
        match error.classify() {
            Category::Data => Self::undecodable(step, error),
            Category::Io | Category::Syntax | Category::Eof => {
                Self::unexplained(step, "the answer is no document", mutates)
            }
        }
    }

    /// An answer that says nothing: of a write it is not known whether it has taken effect.
    pub(super) fn unexplained(step: &'static str, message: &str, mutates: bool) -> Self {
        let kind = if mutates { ApiErrorKind::Ambiguous } else { ApiErrorKind::Unavailable };
        Self::new(step, kind, message)
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
        ApiErrorKind::Invalid | ApiErrorKind::Denied | ApiErrorKind::Refused => cut(&without_quotes(&status.message)),
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

/// What a call that failed came to, for people: the API server's own explanation, or what keeps it from giving one.
pub fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if is_page(status) => {
            return format!("what answers is no API server: it sends a page, with status {}", status.code);
        }
        kube::Error::Api(status) if status.message.is_empty() => {
            return format!("the API server answered with status {}", status.code);
        }
        kube::Error::Api(status) => return cut(&status.message),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            return "what answers is no API server: its answer is no object".to_owned();
        }
        kube::Error::Auth(error) => {
            let root = chain(error).last().map(ToString::to_string).unwrap_or_default();
            return format!("credentials cannot be had as the kubeconfig says ({})", cut(&root));
        }
        _ => {}
    }
    let system = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind);
    match system {
        Some(io::ErrorKind::ConnectionRefused) => return "the API server refuses connections".to_owned(),
        Some(io::ErrorKind::TimedOut) => return "the API server does not answer in time".to_owned(),
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            return "there is no way to the address of the API server".to_owned();
        }
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => return "the connection to the API server was cut".to_owned(),
        Some(_) | None => {}
    }
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    let says = |sign: &str| texts.iter().any(|text| text.contains(sign));
    let root = texts.last().map(String::as_str).unwrap_or_default();
    if says("lookup address") || says("dns error") {
        "the name of the API server's host is not known here".to_owned()
    } else if says("invalid peer certificate") {
        format!("the certificate of the API server is not trusted ({})", cut(root))
    } else if says("InvalidContentType") || says("corrupt message") {
        "what answers speaks no TLS".to_owned()
    } else if says("timed out") || says("deadline has elapsed") {
        "the API server does not answer in time".to_owned()
    } else {
        format!("the connection to the API server failed ({})", cut(root))
    }
}

/// Whether what answered is a page of a proxy, or of a login.
pub(crate) fn is_page(status: &Status) -> bool {
    status.message.trim_start().starts_with('<')
}

/// An error and its causes; bounded, so that a cause that names itself ends.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(16)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::json;

    use super::*;
    use crate::client::{
        Target,
        judge::{Asked, judge},
    };

    fn answer(code: u16, status: &serde_json::Value, mutates: bool) -> ApiError {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "code": code, "details": {"name": "j", "group": "batch", "kind": "Job"},
        });
        merge(&mut body, status);
        let asked = Asked { target: &Target::of::<Job>(), namespace: "ns", name: Some("j"), mutates };
        ApiError::of_verdict("try", judge(&asked, code, None, &serde_json::to_vec(&body).unwrap()))
    }

    fn merge(body: &mut serde_json::Value, with: &serde_json::Value) {
        for (key, value) in with.as_object().unwrap() {
            match (body.get_mut(key), value.is_object()) {
                (Some(body), true) => merge(body, value),
                _ => body[key] = value.clone(),
            }
        }
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
        let asked = Asked { target: &Target::of::<Job>(), namespace: "ns", name: Some("j"), mutates: false };
        let page = ApiError::of_verdict("try", judge(&asked, 502, None, b"<html>canary</html>"));
        assert_eq!(page.message, "status 502 was answered without the API server's explanation");
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
    fn what_keeps_from_an_answer_is_said_in_words_of_ours() {
        let service = |error: io::Error| kube::Error::Service(Box::new(error));
        for (error, wanted) in [
            (service(io::ErrorKind::ConnectionRefused.into()), "the API server refuses connections"),
            (service(io::ErrorKind::UnexpectedEof.into()), "the connection to the API server was cut"),
            (
                service(io::Error::other("received corrupt message of type InvalidContentType")),
                "what answers speaks no TLS",
            ),
            (service(io::Error::other("dns error")), "the name of the API server's host is not known here"),
            (
                kube::Error::SerdeError(serde_json::from_str::<u8>("<").unwrap_err()),
                "what answers is no API server: its answer is no object",
            ),
        ] {
            assert_eq!(in_words(&error), wanted);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let error = answer(500, &json!({ "message": "é".repeat(2000) }), false);
        assert_eq!(error.message.chars().count(), MAX_TEXT + 1);
    }
}
