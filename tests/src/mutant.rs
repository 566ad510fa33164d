//! Which fault of `agents_core::mutant` the tests of this process run with: none, but below `cargo xtask mutants`.

/// Names the fault; read by what `cargo xtask mutants` builds and by nothing else.
pub const VARIABLE: &str = "AGENTS_MUTANT";

/// Switches on the fault that [`VARIABLE`] names.
///
/// # Panics
/// On a name that no fault has: a run without the fault that was meant would prove nothing.
#[cfg(feature = "mutants")]
pub fn switch_named_on() {
    use agents_core::mutant::{Mutant, switch_on};
    if let Ok(name) = std::env::var(VARIABLE) {
        switch_on(Mutant::parse(&name).unwrap_or_else(|| panic!("{VARIABLE}: no fault is named {name}")));
    }
}

/// Does nothing: this program has no faults to switch on.
#[cfg(not(feature = "mutants"))]
pub fn switch_named_on() {}
