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
        if let Some(payload) = payload {
            faults.free_form("spec.payload", &payload.0);
        }
        if let Some(schema) = payload_schema {
            faults.free_form("spec.payloadSchema", &schema.0);
            match Schema::read(&schema.0) {
                Ok(schema) => {
                    // What a delivery has that says nothing must be one that is taken.
                    let payload = payload.as_ref().map(|payload| Value::Object(payload.0.clone()));
                    if let Some(Problem { at, text }) = payload.and_then(|payload| schema.problem(&payload)) {
                        faults.add(format!("spec.payload{at}"), format!("{text}, as spec.payloadSchema has it"));
                    }
                }
                Err(Problem { at, text }) => faults.add(format!("spec.payloadSchema{at}"), text),
            }
        }
    }
}
