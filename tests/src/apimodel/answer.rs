//! Refusals as the API server words them: `metav1.Status` with code and reason.

use serde_json::{Value, json};

use super::{
    request::{Request, Verb},
    resource::Resource,
};

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Value of a `Retry-After` header, sent as it is.
    pub retry_after: Option<String>,
    reason: &'static str,
    message: String,
    details: Value,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, retry_after: None, reason, message: message.into(), details: json!({}) }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({"name": name, "group": resource.group, "kind": resource.plural});
        self
    }

    /// The same about the object that a request is for.
    pub(super) fn of(mut self, request: &Request) -> Self {
        let Some(target) = &request.target else { return self };
        if self.code == 409 && request.verb == Verb::Create {
            self.reason = "AlreadyExists";
        }
        self.about(target.resource, request.name.as_deref().unwrap_or_default())
    }

    /// The same about the namespace that a request is for.
    pub(super) fn of_namespace(mut self, request: &Request) -> Self {
        let namespace = request.target.as_ref().and_then(|target| target.namespace.as_deref());
        self.details = json!({"name": namespace, "kind": "namespaces"});
        self
    }

    /// The same by an admission webhook that judges what a request is for.
    pub(super) fn by_webhook(mut self, request: &Request) -> Self {
        self.message = format!("admission webhook \"tenant.test\" denied the request: {}", self.message);
        self.of(request)
    }

    /// The refusal a fault script asks for.
    pub fn scripted(code: u16) -> Self {
        let (reason, message) = match code {
            400 => ("BadRequest", "scripted"),
            403 => ("Forbidden", "scripted"),
            404 => ("NotFound", "scripted"),
            409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
            410 => ("Expired", "too old resource version"),
            413 => ("RequestEntityTooLarge", "scripted"),
            422 => ("Invalid", "scripted"),
            429 => ("TooManyRequests", "too many requests, please try again later"),
            500 => ("InternalError", "an error on the server has prevented the request from succeeding"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the server was unable to return a response in the time allotted"),
            _ => ("Unknown", "scripted"),
        };
        Self::new(code, reason, message)
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.qualified())).about(resource, name)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "", "404 page not found")
    }

    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.qualified()))
            .about(resource, name)
    }

    pub(super) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified()),
        )
        .about(resource, name)
    }

    pub(super) fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(super) fn invalid(resource: &Resource, name: &str, why: &str) -> Self {
        Self::new(422, "Invalid", format!("{} \"{name}\" is invalid: {why}", resource.kind)).about(resource, name)
    }

    pub(super) fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", why)
    }

    /// An error of the storage that nothing maps to a reason.
    pub(super) fn unmapped(why: impl Into<String>) -> Self {
        Self::new(500, "", why)
    }

    /// The answer to a request whose body is longer than the API server reads.
    pub(super) fn body_too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    pub(super) fn unprocessable() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request")
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(super) fn unsupported_media_type(got: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - accepted media types do not include {got}"),
        )
    }

    /// 410, in both its forms.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The answer to a version the server has not reached yet.
    pub(super) fn too_large_version(asked: u64, current: u64) -> Self {
        let mut refusal = Self::new(504, "Timeout", format!("Too large resource version: {asked}, current: {current}"));
        refusal.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        refusal
    }

    /// As the body of a response, or the object of an ERROR event.
    pub fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code,
        })
    }
}
