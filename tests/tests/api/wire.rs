//! Requests as they go over the wire, with the answer's code and warnings, which typed clients hide.

use anyhow::Result;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use super::stage::Stage;

/// What the API server said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status code.
    pub(crate) code: u16,
    /// Warning headers.
    pub(crate) warnings: Vec<String>,
    /// The object or the Status.
    pub(crate) body: Value,
}

impl Answer {
    /// The message of a refusal; empty on success.
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// Field and reason of each cause of a refusal.
    pub(crate) fn causes(&self) -> impl Iterator<Item = (&str, &str)> {
        let causes = self.body["details"]["causes"].as_array();
        causes.into_iter().flatten().map(|cause| {
            let word = |name: &str| cause[name].as_str().unwrap_or_default();
            (word("field"), word("message"))
        })
    }
}

/// Sends one request and reads its whole answer.
pub(crate) async fn ask(stage: &Stage<'_>, method: Method, path: &str, object: Option<&Value>) -> Result<Answer> {
    let body = object.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    let response = stage.client.send(request.body(Body::from(body))?).await?;
    let code = response.status().as_u16();
    let headers = response.headers().get_all("Warning");
    let warnings = headers.iter().map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned()).collect();
    let bytes = response.into_body().collect().await?.to_bytes();
    // Paths that nobody serves answer with nothing or with plain text.
    let body = if code == 404 { serde_json::from_slice(&bytes).ok() } else { Some(serde_json::from_slice(&bytes)?) };
    let body = body.unwrap_or_default();
    Ok(Answer { code, warnings, body })
}
