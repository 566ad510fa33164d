//! Faults that a test can switch on, to see that the suite finds them.
//!
//! Only the feature `mutants` gives them a switch, and only `cargo xtask mutants` builds with it. Without the feature
//! [`is_on`] is always false and the faults are no part of the program. A fault belongs at the line whose promise it
//! breaks; its row in `xtask/src/mutants.rs` names the tests that must then fail.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// An attempt whose record could not be stored is submitted again.
    ResubmitsUnrecorded = 1,
    /// What lives of a run that has ended is left alone.
    LeavesTheEndedAlive,
    /// After a time without a leader only first attempts are doubted.
    DoubtsFirstAttemptsOnly,
    /// What was found under a submission's name is adopted by its owner alone.
    AdoptsByOwner,
    /// A provider whose first process has ended gets no more of its grace.
    CutsTheGrace,
    /// A report is believed whoever wrote it.
    BelievesAnyReport,
}

impl Mutant {
    /// Every fault.
    pub const ALL: [Self; 6] = [
        Self::ResubmitsUnrecorded,
        Self::LeavesTheEndedAlive,
        Self::DoubtsFirstAttemptsOnly,
        Self::AdoptsByOwner,
        Self::CutsTheGrace,
        Self::BelievesAnyReport,
    ];

    /// By its name, as `Debug` writes it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    }
}

#[cfg(feature = "mutants")]
static ON: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches one fault on, for the whole process and for good.
#[cfg(feature = "mutants")]
pub fn switch_on(mutant: Mutant) {
    ON.store(mutant as u8, std::sync::atomic::Ordering::Relaxed);
}

/// Whether this fault is switched on.
#[cfg(feature = "mutants")]
pub fn is_on(mutant: Mutant) -> bool {
    ON.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether this fault is switched on: it never is without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
pub const fn is_on(_: Mutant) -> bool {
    false
}
