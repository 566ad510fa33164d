//! The `agent-runner` binary: everything is in the library.

fn main() {
    #[cfg(feature = "mutants")]
    switch_fault();
    // A file as large as a limit allows is an error of a write, and no reason to die.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    let args = std::env::args_os().skip(1).collect();
    std::process::exit(agents_runtime::runner::main(args));
}

/// Switches on the fault that `AGENTS_MUTANT` names; only in what `cargo xtask mutants` builds.
#[cfg(feature = "mutants")]
fn switch_fault() {
    use agents_core::mutant::{Mutant, switch_on};
    let named = std::env::var("AGENTS_MUTANT").ok();
    if let Some(mutant) = named.as_deref().and_then(Mutant::parse) {
        switch_on(mutant);
    }
}
