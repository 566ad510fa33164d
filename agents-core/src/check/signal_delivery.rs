//! SignalDelivery.

use super::{Check, Faults, Reference};
use crate::{
    api::{Kind, Signal, SignalDelivery, SignalDeliverySpec, common::NameRef},
    status::Reason,
};

impl Check for SignalDelivery {
    fn check(spec: &SignalDeliverySpec, faults: &mut Faults) {
        let SignalDeliverySpec { signal_ref: _, delivery_id: _, payload, run_ref: _, decision: _ } = spec;
        if let Some(payload) = payload {
            faults.free_form("spec.payload", &payload.0);
        }
    }

    fn references(spec: &SignalDeliverySpec) -> Vec<Reference> {
        let signal = |NameRef { name }: &NameRef| Reference {
            field: "spec.signalRef",
            kind: Signal::KIND,
            name: name.clone(),
            absent: Reason::SignalNotFound,
        };
        spec.signal_ref.iter().map(signal).collect()
    }
}
