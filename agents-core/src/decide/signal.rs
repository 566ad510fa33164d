//! Signal: when it occurred last, told at most once a minute however often it does.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    declaration::Standing,
    rules::{Decide, Deed, Gather, Rules},
    signal_delivery::TO_SIGNAL,
};
use crate::{
    api::{Resource, Signal, SignalDelivery, SignalStatus},
    look::Look,
    status::{after, seconds},
};

/// Time between two writes of `lastDeliveryAt`, in seconds.
const COALESCED_SECONDS: i64 = 60;

impl Decide for Signal {
    const GATHER: Option<Gather<Self>> = Some(gather);
}

fn gather(signal: Arc<Resource<Signal>>, look: &dyn Look) -> Box<dyn Rules> {
    let deliveries = look.all::<SignalDelivery>(&signal.metadata.namespace, TO_SIGNAL, &signal.metadata.name);
    let delivered = deliveries.iter().filter_map(|delivery| delivery.status.as_ref()?.delivered_at);
    Box::new(Occurred { latest: delivered.max(), signal })
}

/// A Signal and its last delivery.
#[derive(Debug)]
struct Occurred {
    signal: Arc<Resource<Signal>>,
    latest: Option<Timestamp>,
}

impl Rules for Occurred {
    fn decide(&self, now: Timestamp) -> Deed {
        let before = self.signal.status.as_ref();
        let ready = Deed::stands(Standing::Ready);
        let told = before.and_then(|status| status.last_delivery_at);
        let Some(latest) = self.latest.filter(|latest| told.is_none_or(|told| told < *latest)) else { return ready };
        let again = told.map(|told| after(told, seconds(COALESCED_SECONDS))).filter(|again| now < *again);
        if again.is_some() {
            return Deed { wake: again, ..ready };
        }
        let status = SignalStatus { last_delivery_at: Some(latest), ..before.cloned().unwrap_or_default() };
        ready.with(before, &status)
    }
}
