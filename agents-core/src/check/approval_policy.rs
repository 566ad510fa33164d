//! ApprovalPolicy.

use super::{Check, Faults};
use crate::api::{ApprovalPolicy, ApprovalPolicySpec};

/// Largest CEL expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 4096;

impl Check for ApprovalPolicy {
    fn check(spec: &ApprovalPolicySpec, faults: &mut Faults) {
        let ApprovalPolicySpec {
            mode: _,
            subjects: _,
            approvers: _,
            required: _,
            expires_after_seconds: _,
            checks,
            exceptions,
            default_decision: _,
            extra,
        } = spec;
        for (n, check) in checks.iter().enumerate() {
            expression(&format!("spec.checks[{n}].expression"), &check.expression, faults);
        }
        for (n, exception) in exceptions.iter().enumerate() {
            if let Some(text) = &exception.expression {
                expression(&format!("spec.exceptions[{n}].expression"), text, faults);
            }
        }
        faults.free_form("spec", extra);
    }
}

/// Notes an expression that says nothing or too much.
pub(super) fn expression(at: &str, text: &str, faults: &mut Faults) {
    faults.bytes(at, text, MAX_EXPRESSION_BYTES);
    if text.trim().is_empty() {
        faults.add(at, "says nothing");
    }
}
