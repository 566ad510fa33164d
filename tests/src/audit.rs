//! The API server's audit log: who asked for what, and when.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::Value;
use xtask::cluster::Cluster;

/// One request, as audited.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The user.
    pub who: String,
    /// The verb.
    pub verb: String,
    /// The resource, with its subresource after a slash.
    pub resource: String,
    /// The object's name.
    pub name: String,
    /// The answer's code.
    pub code: u64,
    /// When the server had received it.
    pub received: Timestamp,
    /// When the server had answered it.
    pub answered: Timestamp,
}

impl Asked {
    /// Whether it was meant to change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list")
    }

    /// Verb and resource.
    pub fn what(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }
}

/// The end of the log as it is now: every request answered before is in front of it.
///
/// # Errors
/// There is no log.
pub fn mark(cluster: &Cluster) -> Result<u64> {
    Ok(std::fs::metadata(cluster.audit_log())?.len())
}

/// What was asked of the API server in a namespace since `mark`, watches apart.
///
/// # Errors
/// The log cannot be read.
pub fn asked_since(cluster: &Cluster, mark: u64, namespace: &str) -> Result<Vec<Asked>> {
    let mut file = File::open(cluster.audit_log())?;
    file.seek(SeekFrom::Start(mark))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| event["stage"] == "ResponseComplete" && event["verb"] != "watch")
        .filter(|event| event["objectRef"]["namespace"] == namespace)
        .map(|event| {
            let word = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let time = |field: &'static str| {
                let time = event[field].as_str().unwrap_or_default();
                time.parse().with_context(|| format!("the time {field} of an audited request: {time:?}"))
            };
            let resource = [word("/objectRef/resource"), word("/objectRef/subresource")].join("/");
            Ok(Asked {
                who: word("/user/username").to_owned(),
                verb: word("/verb").to_owned(),
                resource: resource.trim_end_matches('/').to_owned(),
                name: word("/objectRef/name").to_owned(),
                code: event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
                received: time("requestReceivedTimestamp")?,
                answered: time("stageTimestamp")?,
            })
        })
        .collect()
}
