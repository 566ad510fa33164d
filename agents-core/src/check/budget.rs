//! Budget.

use super::{Check, Faults, schedule, values};
use crate::api::{Budget, BudgetSpec, budget::BudgetLimits};

impl Check for Budget {
    fn check(spec: &BudgetSpec, faults: &mut Faults) {
        let BudgetSpec { period: _, timezone, selector, subjects: _, limits, warn_at_percent: _, unknown_usage: _ } =
            spec;
        schedule::zone("spec.timezone", timezone.as_deref(), faults);
        if selector.as_ref().is_some_and(|one| one.match_labels.is_empty() && one.match_expressions.is_empty()) {
            faults.add("spec.selector", "selects every run there is: name labels, or leave it out");
        }
        let Some(BudgetLimits { tokens, dollars, cpu, memory, gpu, extra }) = limits else { return };
        let known = [("tokens", tokens), ("dollars", dollars), ("cpu", cpu), ("memory", memory), ("gpu", gpu)];
        for (name, amount) in known {
            if let Some(amount) = amount {
                let at = format!("spec.limits.{name}");
                match amount.text() {
                    Some(text) => {
                        values::quantity(&at, &text, faults);
                    }
                    None => faults.add(at, "a number or a quantity"),
                }
            }
        }
        faults.free_form("spec.limits", extra);
    }
}
