//! The exit code that says what a report says.

use super::{Ended, Report};
use crate::status::{Reason, exit::INTERNAL};

/// The exit code that goes with a report; never 0 unless the attempt succeeded.
pub fn code(report: &Report) -> i32 {
    if report.status == Ended::Succeeded {
        return 0;
    }
    let Some(reason) = report.known_reason() else { return INTERNAL };
    let own = match reason {
        Reason::ProviderExited => report.exit_code.filter(|code| *code != 0),
        Reason::ProviderSignaled => report.signal.map(|signal| 128 + signal),
        other => other.exit_code(),
    };
    own.unwrap_or(INTERNAL)
}
