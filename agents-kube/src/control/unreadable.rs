//! Runs that cannot be read as runs: their conditions and an Event say so. Nothing else is done about them.
//!
//! The run is read once more as JSON, to name the field and to lay what is written over the status as it is stored.

use std::sync::Arc;

use agents_core::{
    api::{AgentRun, Kind, Resource},
    decide::{
        Confirm, Effect, Plan, Refusal,
        unreadable::{Unreadable, decide},
    },
};
use agents_runtime::driver::{Failure, World};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use super::{
    agent_run::{may_act, of_api},
    caches::Caches,
    notices::{Notices, Regarding},
    status_write,
};
use crate::{
    client::{ApiErrorKind, Calls, OrAbsent, Target, decode_text},
    lease::Tenure,
    object,
    watch::{Identity, Key, Slot},
};

/// A run as it is stored, without its spec.
#[derive(Debug, Deserialize)]
struct Stored {
    metadata: StoredMeta,
    #[serde(default)]
    status: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMeta {
    uid: String,
    resource_version: String,
    generation: Option<i64>,
}

/// The first field that cannot be read, and why, without its value; none when the run can be read.
fn unreadable(stored: &Value) -> Option<String> {
    let error = serde_path_to_error::deserialize::<_, Resource<AgentRun>>(stored).err()?;
    // A position in a text is another one after each write.
    let path = error.path().to_string();
    Some(format!("{path}: {}", decode_text(error.inner())))
}

/// A run that cannot be read, and which one it is.
#[derive(Debug)]
pub struct Snapshot {
    key: Key,
    uid: String,
    resource_version: String,
    run: Unreadable,
}

/// Runs that cannot be read.
#[derive(Debug)]
pub struct UnreadableWorld {
    calls: Calls,
    caches: Arc<Caches>,
    tenure: Option<Tenure>,
    notices: Notices,
}

impl UnreadableWorld {
    /// What `caches` cannot read, told by `notices`.
    pub fn new(calls: Calls, caches: Arc<Caches>, tenure: Option<Tenure>, notices: Notices) -> Self {
        Self { calls, caches, tenure, notices }
    }
}

#[async_trait]
impl World for UnreadableWorld {
    type Key = Key;
    type Snapshot = Snapshot;
    type Status = Map<String, Value>;

    async fn gather(&self, key: &Key, _: Confirm) -> Result<Option<Snapshot>, Failure> {
        let Some(Slot::Unreadable(_)) = self.caches.runs.get(key) else { return Ok(None) };
        let step = "read the run that cannot be read";
        let stored = self.calls.get::<Value>(&Target::of::<object::AgentRun>(), step, &key.namespace, &key.name).await;
        let Some(stored) = stored.or_absent().map_err(of_api)? else { return Ok(None) };
        let (Some(why), Ok(stored)) = (unreadable(&stored), Stored::deserialize(&stored)) else { return Ok(None) };
        let Stored { metadata: StoredMeta { uid, resource_version, generation }, status } = stored;
        let status = match status {
            Value::Object(status) => status,
            _ => Map::new(),
        };
        let run = Unreadable { generation, status, why };
        Ok(Some(Snapshot { key: key.clone(), uid, resource_version, run }))
    }

    fn decide(&self, snapshot: &Snapshot, _: Option<&Refusal>, now: Timestamp) -> Plan<Map<String, Value>> {
        decide(&snapshot.run, now)
    }

    async fn perform(&self, snapshot: &Snapshot, effect: &Effect) -> Result<(), Failure> {
        match effect {
            Effect::Emit(notice) => {
                let Snapshot { key: Key { namespace, name }, uid, .. } = snapshot;
                self.notices.tell(&Regarding { namespace, name, uid }, notice, self.now());
                Ok(())
            }
            Effect::Submit(_) | Effect::Cancel { .. } | Effect::Keep { .. } | Effect::LetGo { .. } => Ok(()),
        }
    }

    async fn store(&self, snapshot: &Snapshot, status: &Map<String, Value>) -> Result<(), Failure> {
        may_act(self.tenure.as_ref())?;
        let Snapshot { key, uid, resource_version, run: _ } = snapshot;
        let of = Identity { namespace: &key.namespace, name: &key.name, uid, resource_version };
        let body = status_write::body(&object::AgentRun::api_version(), AgentRun::KIND, of, status);
        let target = Target::of::<object::AgentRun>();
        let step = "say that the run cannot be read";
        let stored = self.calls.replace_status::<IgnoredAny>(&target, step, &key.namespace, &key.name, &body).await;
        match stored {
            Ok(IgnoredAny) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            // What stands in it is refused by the definition that is installed now: the Event must do.
            Err(error) if error.kind == ApiErrorKind::Invalid => {
                tracing::warn!(run = %key, %error, "a run that cannot be read takes no condition");
                Ok(())
            }
            Err(error) => Err(of_api(error)),
        }
    }

    fn now(&self) -> Timestamp {
        self.calls.clock().now()
    }
}
