//! The one world of the controller: an object of any kind, by its id.
//!
//! Its cache says what there is, its kind's rules say what to do, and its status goes back the same way. What is only of
//! runs is behind [`Runs`].

use std::sync::Arc;

use agents_core::{
    api::{AgentRun, AgentRunStatus, Kind},
    decide::{
        Confirm, Effect, Plan, Refusal,
        agent_run::RunSnapshot,
        declaration,
        unreadable::{self, Unreadable},
    },
    id::Id,
    status::Reason,
};
use agents_runtime::{
    adapter::Class,
    driver::{Failure, World},
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    agent_run::Runs,
    cached::Cached,
    kinds::{Declared, Kept, Kinds},
    notices::{Notices, Regarding},
    status_write,
};
use crate::{
    client::{ApiError, ApiErrorKind, Calls},
    lease::Tenure,
    watch::Identity,
};

/// Every object as the Kubernetes API knows it.
#[derive(Debug)]
pub(crate) struct ClusterWorld {
    /// Calls of this controller.
    pub calls: Calls,
    /// What is watched.
    pub kinds: Arc<Kinds>,
    /// What is only of runs.
    pub runs: Runs,
    /// The right to act, when there is an election.
    pub tenure: Option<Tenure>,
    /// Events.
    pub notices: Notices,
}

/// An object and everything that a decision about it depends on.
#[derive(Debug)]
pub(crate) struct Snapshot {
    id: Id,
    uid: String,
    resource_version: String,
    facts: Facts,
}

#[derive(Debug)]
enum Facts {
    /// A run.
    Run(Box<RunSnapshot>),
    /// An object that cannot be read as its kind.
    Unreadable(Unreadable),
    /// An object that is not executed.
    Declared(Box<Declared>),
}

/// What is stored.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Status {
    /// Of a run.
    Run(Box<AgentRunStatus>),
    /// Of any other object.
    Fields(Map<String, Value>),
}

impl ClusterWorld {
    /// Replaces the whole status, if the object is still the one of the snapshot.
    async fn replace(
        &self,
        kept: &Kept,
        snapshot: &Snapshot,
        status: &Status,
    ) -> Result<Option<Arc<Cached>>, ApiError> {
        let Snapshot { id: Id { kind, key }, uid, resource_version, facts: _ } = snapshot;
        let began = self.calls.clock().boot();
        let of = Identity { namespace: &key.namespace, name: &key.name, uid, resource_version };
        let body = status_write::body(&kept.row.api_version, kind, of, status);
        let step = "store the status";
        let target = &kept.row.target;
        match self.calls.replace_status::<Cached>(target, step, &key.namespace, &key.name, &body).await {
            Ok(stored) => Ok(Some(kept.watch.wrote(stored, Some(resource_version), began))),
            // Deleted meanwhile: there is nothing left to be true about.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => {
                if error.leaves_doubt() {
                    kept.watch.doubt(key.clone());
                }
                Err(error)
            }
        }
    }

    fn gone(&self, id: &Id) {
        self.kinds.forget(id);
        if id.kind == AgentRun::KIND {
            self.runs.forget(&id.key);
        }
    }
}

#[async_trait]
impl World for ClusterWorld {
    type Key = Id;
    type Snapshot = Snapshot;
    type Status = Status;

    async fn gather(&self, id: &Id, confirm: &Confirm) -> Result<Option<Snapshot>, Failure> {
        let Some(kept) = self.kinds.get(id.kind) else { return Ok(None) };
        let Some((object, proven)) = kept.read(&self.calls, &id.key, confirm).await? else {
            self.gone(id);
            return Ok(None);
        };
        let facts = if let Some(unreadable) = object.unreadable() {
            self.gone(id);
            Some(Facts::Unreadable(unreadable))
        } else if let Some(run) = object.object::<AgentRun>() {
            let snapshot = self.runs.gather(run, proven, confirm).await?;
            snapshot.map(|snapshot| Facts::Run(Box::new(snapshot)))
        } else {
            self.kinds.declared(&object).map(|declared| Facts::Declared(Box::new(declared)))
        };
        let (uid, resource_version) = (object.uid().to_owned(), object.resource_version().to_owned());
        Ok(facts.map(|facts| Snapshot { id: id.clone(), uid, resource_version, facts }))
    }

    fn decide(&self, snapshot: &Snapshot, refused: &[Refusal], now: Timestamp) -> Plan<Status> {
        match &snapshot.facts {
            Facts::Run(run) => self.runs.decide(run, refused, now).map(|status| Status::Run(Box::new(status))),
            Facts::Unreadable(object) => unreadable::decide(object, now).map(Status::Fields),
            Facts::Declared(declared) => {
                declaration::decide(&declared.declaration, declared.rules.as_deref(), now).map(Status::Fields)
            }
        }
    }

    async fn perform(&self, snapshot: &Snapshot, effect: &Effect) -> Result<(), Failure> {
        may_act(self.tenure.as_ref())?;
        if let Effect::Emit(notice) = effect {
            let Snapshot { id, uid, .. } = snapshot;
            tracing::info!(
                object.kind = id.kind, object.namespace = id.key.namespace, object.name = id.key.name, object.uid = uid,
                reason = %notice.reason, message = notice.message, "told"
            );
            self.notices.tell(&Regarding { id, uid }, notice, self.now());
            return Ok(());
        }
        match &snapshot.facts {
            Facts::Run(run) => self.runs.perform(run, effect).await,
            Facts::Unreadable(_) | Facts::Declared(_) => Err(Failure::unknown_effect(&snapshot.id, effect)),
        }
    }

    async fn store(&self, snapshot: &Snapshot, status: &Status) -> Result<(), Failure> {
        may_act(self.tenure.as_ref())?;
        let Snapshot { id: id @ Id { kind, key }, .. } = snapshot;
        let Some(kept) = self.kinds.get(kind) else { return Ok(()) };
        let same = match &snapshot.facts {
            Facts::Run(facts) => kept.pruned.is_the_same(status, facts.run.status.as_ref()),
            Facts::Unreadable(Unreadable { status: stored, .. }) => kept.pruned.is_the_same(status, Some(stored)),
            Facts::Declared(declared) => kept.pruned.is_the_same(status, Some(&declared.declaration.status)),
        };
        if same {
            if let Status::Run(_) = status {
                self.runs.stands(key);
            }
            return Ok(());
        }
        // What this replica stored of the others meanwhile is in the cache before the lock is free again.
        let _alone = if kept.row.any.exclusive { Some(kept.alone.lock().await) } else { None };
        may_act(self.tenure.as_ref())?;
        if let Facts::Declared(declared) = &snapshot.facts
            && kept.row.any.exclusive
            && !self.kinds.is_as_decided(declared)
        {
            return Err(Failure::stale("store the status"));
        }
        match (self.replace(kept, snapshot, status).await, status) {
            (Ok(Some(stored)), Status::Run(sent)) => {
                self.runs.stored(key, sent);
                let run = stored.object::<AgentRun>();
                kept.pruned.learn(&**sent, run.as_ref().and_then(|run| run.status.as_ref()));
                Ok(())
            }
            (Ok(Some(stored)), Status::Fields(sent)) => {
                // An object that could not be read may be one that can now, whose status is elsewhere.
                if let Some(declaration) = stored.declaration() {
                    kept.pruned.learn(sent, Some(&declaration.status));
                }
                Ok(())
            }
            (Ok(None), Status::Run(_)) => {
                self.runs.submitted.forget(key);
                Ok(())
            }
            (Ok(None), Status::Fields(_)) => Ok(()),
            (Err(error), Status::Run(_)) => {
                self.runs.unstored(key, &error);
                Err(of_api(error))
            }
            (Err(error), Status::Fields(_)) => match &snapshot.facts {
                // What stands in it is refused by the definition that is installed now: the Event must do.
                Facts::Unreadable(_) if error.kind == ApiErrorKind::Invalid => {
                    tracing::warn!(object = %id, %error, "an object that cannot be read takes no condition");
                    Ok(())
                }
                Facts::Run(_) | Facts::Unreadable(_) | Facts::Declared(_) => Err(of_api(error)),
            },
        }
    }

    fn now(&self) -> Timestamp {
        self.calls.clock().now()
    }
}

/// A leader whose time is over leaves the rest to the next one.
pub(super) fn may_act(tenure: Option<&Tenure>) -> Result<(), Failure> {
    if tenure.is_none_or(Tenure::may_act) {
        return Ok(());
    }
    Err(Failure {
        step: "act",
        class: Class::Retry,
        reason: Reason::RuntimeUnavailable,
        message: "the lease has run out".to_owned(),
        source: None,
    })
}

pub(super) fn of_api(error: ApiError) -> Failure {
    Failure {
        step: error.step,
        class: error.class,
        reason: Reason::RuntimeUnavailable,
        message: error.message.clone(),
        source: Some(Box::new(error)),
    }
}
