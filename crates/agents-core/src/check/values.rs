//! What several kinds hold: parameters, payloads, names of variables.

use super::Faults;
use crate::{
    api::common::{
        FreeForm, MAX_PARAMETER_BYTES, MAX_PARAMETER_NAME, MAX_PARAMETERS, MAX_PAYLOAD_BYTES, Parameters, Payloads,
    },
    variable::{is_name, is_reserved},
};

/// Notes every fault of the parameters at `at` and the payloads at `payloads_at`.
pub(super) fn check(at: &str, parameters: &Parameters, payloads_at: &str, payloads: &Payloads, faults: &mut Faults) {
    if parameters.len() > MAX_PARAMETERS {
        faults.add(at, format!("{} entries; at most {MAX_PARAMETERS}", parameters.len()));
    }
    for (name, value) in parameters {
        if name.is_empty() || name.chars().count() > MAX_PARAMETER_NAME {
            faults.add(at, format!("a name has 1 to {MAX_PARAMETER_NAME} characters"));
        }
        let bytes = value.0.as_str().len();
        if bytes > MAX_PARAMETER_BYTES {
            faults.add(format!("{at}.{name}"), format!("{bytes} bytes; at most {MAX_PARAMETER_BYTES}: use a payload"));
        }
        if value.0.as_str().contains('\0') {
            faults.add(format!("{at}.{name}"), "contains a NUL byte".to_owned());
        }
    }
    for (name, value) in payloads {
        if value.0.len() > MAX_PAYLOAD_BYTES {
            faults.add(format!("{payloads_at}.{name}"), format!("more than {MAX_PAYLOAD_BYTES} bytes"));
        }
    }
}

/// Notes a free-form object that is too large.
pub(super) fn free(at: &str, written: Option<&FreeForm>, faults: &mut Faults) {
    faults.free_form(at, written.into_iter().flat_map(|FreeForm(written)| written));
}

/// Notes a name that a variable cannot have.
pub(super) fn variable(at: &str, name: &str, faults: &mut Faults) {
    if !is_name(name) {
        faults.add(at, format!("{name:?} is not a variable name"));
    } else if is_reserved(name) {
        faults.add(at, format!("the variable {name} is reserved"));
    }
}
