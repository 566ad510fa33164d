//! OrchestrationRun.

use super::{Check, Faults, values};
use crate::api::{OrchestrationRun, OrchestrationRunSpec, common::Payloads};

impl Check for OrchestrationRun {
    fn check(spec: &OrchestrationRunSpec, faults: &mut Faults) {
        let OrchestrationRunSpec {
            orchestration_ref: _,
            parameters,
            idempotency_key,
            delivery_id,
            timeout_seconds: _,
            suspend: _,
            cancel: _,
            ttl_seconds_after_finished: _,
        } = spec;
        values::check("spec.parameters", parameters, "spec.payloads", &Payloads::new(), faults);
        faults.same(("spec.idempotencyKey", idempotency_key.as_ref()), ("spec.deliveryId", delivery_id.as_ref()));
    }
}
