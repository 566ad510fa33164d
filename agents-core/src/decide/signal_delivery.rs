//! SignalDelivery: judged once, by its Signal and by the other deliveries of its id; then it never changes.
//!
//! | payload | another of the id | phase | reason |
//! |---|---|---|---|
//! | not as `payloadSchema` has it | none before it | `Invalid` | `PayloadRejected` |
//! | right | none before it | `Delivered` | |
//! | any | delivered before, saying the same | `Duplicate` | `Duplicate` |
//! | any | delivered before, saying something else | `Invalid` | `Conflict` |
//! | any | before it, and not judged yet | as it was | |
//!
//! *Before* is the time of creation, then the uid; what is delivered comes before everything that is not.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Confirm, Effect, Notice,
    declaration::Standing,
    rules::{Decide, Deed, Gather, Rules},
};
use crate::{
    api::{Resource, Signal, SignalDelivery, SignalDeliveryStatus},
    kept::{self, content},
    look::{Found, Look},
    schema::{Problem, Schema},
    status::{MAX_MESSAGE, Reason, cut},
};

/// Tag of a delivery: the name of its Signal.
pub(super) const TO_SIGNAL: &str = "signal";
/// Tag of a delivery: its Signal and its id.
const OF_ID: &str = "deliveryId";

/// Phases that are of this kind alone.
const DELIVERED: &str = "Delivered";
const DUPLICATE: &str = "Duplicate";

impl Decide for SignalDelivery {
    const GATHER: Option<Gather<Self>> = Some(gather);
    const EXCLUSIVE: bool = true;

    fn tags(delivery: &Resource<Self>) -> Vec<(&'static str, String)> {
        let Some(signal) = &delivery.spec.signal_ref else { return vec![] };
        let to_signal = (TO_SIGNAL, signal.name.clone());
        [to_signal].into_iter().chain(id_of(delivery).map(|id| (OF_ID, id))).collect()
    }

    fn is_over(delivery: &Resource<Self>) -> bool {
        let Some(status) = &delivery.status else { return false };
        let judged = [Reason::PayloadRejected, Reason::Conflict].map(|reason| Some(reason.as_str()));
        matches!(status.phase.as_deref(), Some(DELIVERED | DUPLICATE)) || judged.contains(&status.reason.as_deref())
    }
}

/// Its Signal and its id; no Signal's name has a slash.
fn id_of(delivery: &Resource<SignalDelivery>) -> Option<String> {
    let (signal, id) = (delivery.spec.signal_ref.as_ref()?, delivery.spec.delivery_id.as_ref()?);
    Some(format!("{}/{id}", signal.name))
}

fn is_delivered(delivery: &Resource<SignalDelivery>) -> bool {
    delivery.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some(DELIVERED))
}

fn gather(delivery: Arc<Resource<SignalDelivery>>, look: &dyn Look) -> Box<dyn Rules> {
    let namespace = &delivery.metadata.namespace;
    let signal = delivery.spec.signal_ref.as_ref().map(|signal| look.find::<Signal>(namespace, &signal.name));
    let mut others = id_of(&delivery).map(|id| look.all::<SignalDelivery>(namespace, OF_ID, &id)).unwrap_or_default();
    others.retain(|other| other.metadata.uid != delivery.metadata.uid);
    Box::new(Arrived { delivery, signal: signal.unwrap_or_default(), others })
}

/// A delivery that is not judged yet.
#[derive(Debug)]
struct Arrived {
    delivery: Arc<Resource<SignalDelivery>>,
    signal: Found<Resource<Signal>>,
    /// The other deliveries of its id.
    others: Vec<Arc<Resource<SignalDelivery>>>,
}

impl Arrived {
    /// Which of the others comes before it.
    fn first(&self) -> Option<&Resource<SignalDelivery>> {
        let age = |delivery: &Resource<SignalDelivery>| {
            (!is_delivered(delivery), delivery.metadata.creation_timestamp, delivery.metadata.uid.clone())
        };
        let own = age(&self.delivery);
        // What is never going to be judged holds nobody up.
        let counts = |other: &&Arc<Resource<SignalDelivery>>| {
            let is_judged = other.metadata.deletion_timestamp.is_none() && other.spec.decision.is_none();
            is_delivered(other) || is_judged && kept::faults(other).is_empty() && !SignalDelivery::is_over(other)
        };
        let others = self.others.iter().filter(counts).filter(|other| age(other) < own);
        others.min_by_key(|other| age(other)).map(AsRef::as_ref)
    }

    fn refused(reason: Reason, message: &str) -> Deed {
        let message = cut(message, MAX_MESSAGE);
        let notice = Notice { warning: true, reason, message: cut(&message, 1024) };
        Deed { after: vec![Effect::Emit(notice)], ..Deed::stands(Standing::Invalid(reason, message)) }
    }
}

impl Rules for Arrived {
    fn decide(&self, now: Timestamp) -> Deed {
        let Self { delivery, signal, others: _ } = self;
        if delivery.spec.decision.is_some() {
            return Deed::stands(Standing::NotActedOn);
        }
        let signal = match signal {
            Found::Object(signal) => signal,
            // Both are told as what the reference leads to before anything is asked here.
            Found::Absent => return Deed::waits(),
            Found::Unreadable(why) => return Deed::stands(Standing::Waiting(Reason::ReferenceUnreadable, why.clone())),
        };
        if let Some(first) = self.first() {
            let name = &first.metadata.name;
            return match (is_delivered(first), content(first) == content(delivery)) {
                (false, _) => Deed::waits(),
                (true, true) => {
                    let message = format!("SignalDelivery/{name} has this deliveryId, says the same and was delivered");
                    Deed::stands(Standing::Over(DUPLICATE, Reason::Duplicate, message))
                }
                (true, false) => {
                    let problem = format!("SignalDelivery/{name} was delivered with this id and says something else");
                    Self::refused(Reason::Conflict, &format!("spec.deliveryId: {problem}"))
                }
            };
        }
        if let Some(schema) = &signal.spec.payload_schema {
            if delivery.metadata.left_out.is_some() {
                return Deed::confirm(Confirm::whole());
            }
            let payload = delivery.spec.payload.as_ref().or(signal.spec.payload.as_ref());
            let payload = Value::Object(payload.map(|payload| payload.0.clone()).unwrap_or_default());
            match Schema::read(&schema.0).map(|schema| schema.problem(&payload)) {
                Ok(None) => {}
                Ok(Some(Problem { at, text })) => {
                    let name = format!("Signal/{}", signal.metadata.name);
                    return Self::refused(
                        Reason::PayloadRejected,
                        &format!("spec.payload{at}: {text} (spec.payloadSchema of {name})"),
                    );
                }
                // Its Signal is told so, and mended there.
                Err(Problem { at, text }) => {
                    let message = format!("spec.signalRef: spec.payloadSchema{at} of the Signal: {text}");
                    return Deed::stands(Standing::Waiting(Reason::ReferenceUnreadable, message));
                }
            }
        }
        let before = delivery.status.as_ref();
        let status = SignalDeliveryStatus { delivered_at: Some(now), ..before.cloned().unwrap_or_default() };
        Deed::stands(Standing::Over(DELIVERED, Reason::AsExpected, String::new())).with(before, &status)
    }
}
