//! A request as the model reads it, and the record kept of it.

use std::{collections::BTreeMap, time::Duration};

use http::Method;
use serde_json::Value;

use super::resource::{self, Target};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read a collection.
    List,
    /// Follow a collection.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// Outside the resources, such as `/version`.
    Other,
}

impl Verb {
    /// Whether it writes.
    pub fn mutates(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection => true,
            Self::Get | Self::List | Self::Watch | Self::Other => false,
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What it does.
    pub verb: Verb,
    /// Its path.
    pub path: String,
    /// What the path names; `None` for paths outside the resources.
    pub target: Option<Target>,
    /// Name of the object; of a create the one in the body.
    pub name: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) metadata_only: bool,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn read(parts: &http::request::Parts, body: Vec<u8>) -> Self {
        let path = parts.uri.path().to_owned();
        let query = resource::parse_query(parts.uri.query().unwrap_or_default());
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let target = resource::parse_path(&path);
        let watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match (&target, &parts.method) {
            (None, _) => Verb::Other,
            (Some(target), method) => match (method, target.name.is_some()) {
                (&Method::GET, true) => Verb::Get,
                (&Method::GET, false) if watch => Verb::Watch,
                (&Method::GET, false) => Verb::List,
                (&Method::POST, false) => Verb::Create,
                (&Method::PUT, true) => Verb::Update,
                (&Method::PATCH, true) => Verb::Patch,
                (&Method::DELETE, true) => Verb::Delete,
                (&Method::DELETE, false) => Verb::DeleteCollection,
                _ => Verb::Other,
            },
        };
        let name = target.as_ref().and_then(|target| target.name.clone()).or_else(|| {
            let object: Value = serde_json::from_slice(&body).ok()?;
            object["metadata"]["name"].as_str().map(str::to_owned)
        });
        Self {
            verb,
            path,
            target,
            name,
            query,
            content_type: header(http::header::CONTENT_TYPE).to_owned(),
            metadata_only: header(http::header::ACCEPT).contains("as=PartialObjectMetadata"),
            body,
        }
    }

    pub(super) fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.param("dryRun") == "All"
    }

    /// The body of a PATCH in JSON; null of everything else.
    pub(super) fn patch(&self) -> Value {
        let body = Some(&self.body).filter(|_| self.verb == Verb::Patch);
        body.and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    /// Plural of the resource; empty outside the resources.
    pub fn plural(&self) -> &'static str {
        self.target.as_ref().map_or("", |target| target.resource.plural)
    }

    /// Whether it goes to `/status`.
    pub fn is_status(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.subresource.is_some())
    }

    /// Whether it writes something other than a lease, an event or the status of a declaration.
    pub fn is_effect(&self) -> bool {
        self.is_write() && self.target.as_ref().is_some_and(|target| !target.resource.is_chatter())
    }

    /// Whether it writes something other than a lease or the status of a declaration.
    pub fn is_write(&self) -> bool {
        self.verb.mutates() && self.plural() != "leases" && !self.is_verdict()
    }

    /// Whether it writes the status of a declaration, which no run depends on.
    pub fn is_verdict(&self) -> bool {
        self.verb.mutates()
            && self.is_status()
            && self.target.as_ref().is_some_and(|target| target.resource.is_declaration())
    }
}

/// The record of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When it arrived, since the world began.
    pub at: Duration,
    /// Who sent it.
    pub client: String,
    /// What it does.
    pub verb: Verb,
    /// Its path.
    pub path: String,
    /// Its query, as `key=value` in order.
    pub query: Vec<String>,
    /// Plural of the resource.
    pub resource: &'static str,
    /// Name of the object.
    pub name: Option<String>,
    /// Whether it goes to `/status`.
    pub status: bool,
    /// Whether it writes something other than a lease, an event or the status of a declaration.
    pub effect: bool,
    /// Whether it writes the status of a declaration.
    pub verdict: bool,
    /// The body of a PATCH in JSON; null of everything else.
    pub patch: Value,
    /// HTTP status answered; `None` when no answer was sent.
    pub code: Option<u16>,
    /// The fault that struck it.
    pub fault: Option<super::Fault>,
}

/// The records of a world's requests, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Log(pub Vec<Record>);

impl Log {
    fn only(&self, keep: impl Fn(&Record) -> bool) -> Self {
        Self(self.0.iter().filter(|record| keep(record)).cloned().collect())
    }

    /// Writes, leases, events and the status of declarations excepted.
    #[must_use]
    pub fn writes(&self) -> Self {
        self.only(|record| record.effect)
    }

    /// Writes of the status of declarations.
    #[must_use]
    pub fn verdicts(&self) -> Self {
        self.only(|record| record.verdict)
    }

    /// Reads of single objects, the reads that a run should not need.
    #[must_use]
    pub fn gets(&self) -> Self {
        self.only(|record| record.verb == Verb::Get && !matches!(record.resource, "leases" | "events"))
    }

    /// Reads of collections.
    #[must_use]
    pub fn lists(&self) -> Self {
        self.only(|record| record.verb == Verb::List)
    }

    /// Requests of one resource.
    #[must_use]
    pub fn of(&self, resource: &str) -> Self {
        self.only(|record| record.resource == resource)
    }

    /// Requests of one client.
    #[must_use]
    pub fn from(&self, client: &str) -> Self {
        self.only(|record| record.client == client)
    }

    /// Requests that arrived at `at` or later.
    #[must_use]
    pub fn since(&self, at: Duration) -> Self {
        self.only(|record| record.at >= at)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
