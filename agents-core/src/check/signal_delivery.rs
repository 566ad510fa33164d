//! SignalDelivery.

use super::{Check, Faults};
use crate::api::{SignalDelivery, SignalDeliverySpec};

impl Check for SignalDelivery {
    fn check(spec: &SignalDeliverySpec, faults: &mut Faults) {
        let SignalDeliverySpec { signal_ref: _, delivery_id: _, payload, run_ref: _, decision: _ } = spec;
        if let Some(payload) = payload {
            faults.free_form("spec.payload", &payload.0);
        }
    }
}
