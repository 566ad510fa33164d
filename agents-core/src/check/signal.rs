//! Signal.

use serde_json::Value;

use super::{Check, Faults};
use crate::{
    api::{Signal, SignalSpec},
    schema::{Problem, Schema},
};

impl Check for Signal {
    fn check(spec: &SignalSpec, faults: &mut Faults) {
        let SignalSpec { channel: _, description: _, payload, payload_schema, extra } = spec;
        faults.free_form("spec", extra);
        let payload = payload.as_ref().filter(|payload| faults.free_form("spec.payload", &payload.0));
        // What is too large to be kept is too large to be looked at.
        if let Some(schema) = payload_schema.as_ref().filter(|schema| faults.free_form("spec.payloadSchema", &schema.0))
        {
            match Schema::read(&schema.0) {
                Ok(schema) => {
                    // What a delivery has that says nothing must be one that is taken.
                    let payload = payload.map(|payload| Value::Object(payload.0.clone()));
                    if let Some(Problem { at, text }) = payload.and_then(|payload| schema.problem(&payload)) {
                        faults.add(format!("spec.payload{at}"), format!("{text}, as spec.payloadSchema has it"));
                    }
                }
                Err(Problem { at, text }) => faults.add(format!("spec.payloadSchema{at}"), text),
            }
        }
    }
}
