//! Events for people: sent beside the reconcile, dropped rather than waited for.

use std::sync::Arc;

use agents_core::{
    decide::Notice,
    id::{Id, Key},
    plan::digest::sha256,
};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
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
    sender: mpsc::Sender<(String, Value)>,
    instance: Arc<str>,
}

/// Sends what [`Notices`] took.
#[derive(Debug)]
pub(crate) struct NoticesTask {
    receiver: mpsc::Receiver<(String, Value)>,
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
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{}.{hash}", readable.trim_end_matches(['.', '-'])), "namespace": namespace},
            "eventTime": format!("{now:.6}"),
            "reportingController": "agents.proompteng.ai/controller",
            "reportingInstance": &*self.instance,
            "action": "Reconcile",
            "reason": reason.as_str(),
            "note": agents_core::status::cut(message, MAX_NOTE),
            "type": if *warning { "Warning" } else { "Normal" },
            "regarding": {
                "apiVersion": row.api_version,
                "kind": row.kind,
                "name": name,
                "namespace": namespace,
                "uid": uid,
            },
        });
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
