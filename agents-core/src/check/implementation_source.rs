//! ImplementationSource.

use super::{Check, Faults, values};
use crate::api::{ImplementationSource, ImplementationSourceSpec};

impl Check for ImplementationSource {
    fn check(spec: &ImplementationSourceSpec, faults: &mut Faults) {
        let ImplementationSourceSpec {
            provider: _,
            auth: _,
            api_base_url: _,
            webhook: _,
            poll: _,
            scope: _,
            mapping,
            on_closed: _,
            report_back: _,
        } = spec;
        for (name, template) in mapping {
            values::template(&format!("spec.mapping.{name}"), template, faults);
        }
    }
}
