//! What the commands exit with, once.

use agents_core::api::agent_run::Phase;

/// The answer is no: something differs, is refused, was found, or did not succeed.
pub(crate) const NO: u8 = 1;
/// The question could not be asked: arguments, manifests, folders, kubeconfig, cluster, rights.
pub(crate) const USAGE: u8 = 2;
/// The time is over.
pub(crate) const LATE: u8 = 124;
/// A run was cancelled.
pub(crate) const CANCELLED: u8 = 130;

/// The exit code for a single run that is over: of one that failed its provider's, which exited with that code, or was ended
/// by that signal.
pub(crate) fn of_run(phase: Phase, code: Option<i32>, signal: Option<i32>) -> u8 {
    match phase {
        Phase::Succeeded => 0,
        Phase::Cancelled => CANCELLED,
        Phase::Failed | Phase::Pending | Phase::Running | Phase::Template => {
            let code = code.or(signal.map(|signal| 128_i32.saturating_add(signal)));
            code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(NO)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_failed_ends_as_its_provider_did() {
        assert_eq!(of_run(Phase::Failed, Some(3), None), 3);
        assert_eq!(of_run(Phase::Failed, None, Some(11)), 139);
        assert_eq!(of_run(Phase::Failed, Some(0), None), NO, "an output was missing");
        assert_eq!(of_run(Phase::Failed, Some(256), Some(9)), NO);
        assert_eq!(of_run(Phase::Failed, None, Some(i32::MAX)), NO);
        assert_eq!(of_run(Phase::Failed, None, None), NO);
        assert_eq!(of_run(Phase::Cancelled, Some(3), None), CANCELLED);
        assert_eq!(of_run(Phase::Succeeded, Some(0), None), 0);
    }
}
