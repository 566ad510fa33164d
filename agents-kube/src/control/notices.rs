//! Events for people: sent beside the reconcile, dropped rather than waited for.

use std::{fmt, sync::Arc};

use agents_core::{
    decide::Notice,
    id::{Id, Key},
    plan::digest::sha256,
};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use serde::{Serialize, de::IgnoredAny};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

use super::cached::ROWS;
use crate::client::{ApiErrorKind, Calls, Target};

/// Events that may wait to be sent.
const WAITING: usize = 1024;
/// Longest note that the API server takes, in bytes.
const MAX_NOTE: usize = 1024;

/// Takes Events without waiting.
#[derive(Debug, Clone)]
pub(crate) struct Notices {
    sender: mpsc::Sender<(String, Box<RawValue>)>,
    instance: Arc<str>,
}

/// Sends what [`Notices`] took.
#[derive(Debug)]
pub(crate) struct NoticesTask {
    receiver: mpsc::Receiver<(String, Box<RawValue>)>,
    calls: Calls,
}

/// The object that something is told about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Regarding<'a> {
    /// Which one.
    pub(super) id: &'a Id,
    /// Its uid.
    pub(super) uid: &'a str,
}

/// An Event, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    event_time: fmt::Arguments<'a>,
    reporting_controller: &'a str,
    reporting_instance: &'a str,
    action: &'a str,
    reason: &'a str,
    note: &'a str,
    #[serde(rename = "type")]
    kind_of_event: &'a str,
    regarding: Reference<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: fmt::Arguments<'a>,
    namespace: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference<'a> {
    api_version: &'a str,
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

impl Notices {
    /// A pair of hands: one takes, the other sends.
    pub(crate) fn new(calls: Calls, identity: &str) -> (Self, NoticesTask) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, instance: identity.into() }, NoticesTask { receiver, calls })
    }

    /// Tells `notice` about an object, unless too many wait already.
    pub(super) fn tell(&self, regarding: &Regarding<'_>, notice: &Notice, now: Timestamp) {
        let Notice { warning, reason, message } = notice;
        let Regarding { id, uid } = *regarding;
        let Key { namespace, name } = &id.key;
        let Some(row) = ROWS.get(id.kind) else { return };
        // The name follows from what is told, so that telling it again after a crash is one Event.
        let identity = format!("{uid}/{reason}/{message}");
        let hash = &sha256(identity.as_bytes())["sha256:".len()..][..16];
        let readable: String = name.chars().take(200).collect();
        let readable = readable.trim_end_matches(['.', '-']);
        let event = Body {
            api_version: "events.k8s.io/v1",
            kind: "Event",
            metadata: Metadata { name: format_args!("{readable}.{hash}"), namespace },
            event_time: format_args!("{now:.6}"),
            reporting_controller: "agents.proompteng.ai/controller",
            reporting_instance: &self.instance,
            action: "Reconcile",
            reason: reason.as_str(),
            note: &agents_core::status::cut(message, MAX_NOTE),
            kind_of_event: if *warning { "Warning" } else { "Normal" },
            regarding: Reference { api_version: &row.api_version, kind: row.any.name, name, namespace, uid },
        };
        // Texts alone: there is nothing that JSON has no form for.
        let Ok(event) = to_raw_value(&event) else { return };
        if self.sender.try_send((namespace.clone(), event)).is_err() {
            tracing::debug!(object = %id, %reason, "an event was dropped");
        }
    }
}

impl NoticesTask {
    /// Sends until every [`Notices`] is gone.
    pub(crate) async fn run(mut self) {
        while let Some((namespace, event)) = self.receiver.recv().await {
            let sent =
                self.calls.create::<IgnoredAny>(&Target::of::<Event>(), "create an event", &namespace, &event).await;
            match sent {
                Ok(IgnoredAny) => {}
                Err(error) if error.kind == ApiErrorKind::AlreadyExists => {}
                Err(error) => tracing::debug!(%error, "an event was not stored"),
            }
        }
    }
}
