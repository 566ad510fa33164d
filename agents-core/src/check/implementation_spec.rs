//! ImplementationSpec, on its own and inside a run.

use super::{Check, Faults};
use crate::api::{ImplementationSpec, ImplementationSpecSpec, implementation_spec::MAX_TEXT_BYTES};

impl Check for ImplementationSpec {
    fn check(spec: &ImplementationSpecSpec, faults: &mut Faults) {
        check_work_item("spec", spec, faults);
    }
}

/// Notes every fault of a work item at `at`.
pub(super) fn check_work_item(at: &str, work: &ImplementationSpecSpec, faults: &mut Faults) {
    let ImplementationSpecSpec {
        text,
        summary,
        description,
        acceptance_criteria,
        labels: _,
        source: _,
        contract: _,
        vcs_ref: _,
    } = work;
    faults.bytes(&format!("{at}.text"), text, MAX_TEXT_BYTES);
    if text.trim().is_empty() {
        faults.add(format!("{at}.text"), "says nothing".to_owned());
    }
    if description.as_ref().is_some_and(|text| text.len() > MAX_TEXT_BYTES) {
        faults.add(format!("{at}.description"), format!("more than {MAX_TEXT_BYTES} bytes"));
    }
    if summary.as_ref().is_some_and(|text| text.chars().count() > 256) {
        faults.add(format!("{at}.summary"), "more than 256 characters".to_owned());
    }
    if acceptance_criteria.len() > 50 {
        faults.add(format!("{at}.acceptanceCriteria"), "more than 50".to_owned());
    }
}
