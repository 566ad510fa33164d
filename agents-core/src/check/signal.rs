//! Signal.

use super::{Check, Faults};
use crate::api::{Signal, SignalSpec};

impl Check for Signal {
    fn check(spec: &SignalSpec, faults: &mut Faults) {
        let SignalSpec { channel: _, description: _, payload, payload_schema, extra } = spec;
        faults.free_form("spec", extra);
        if let Some(payload) = payload {
            faults.free_form("spec.payload", &payload.0);
        }
        if let Some(schema) = payload_schema {
            faults.free_form("spec.payloadSchema", &schema.0);
        }
    }
}
