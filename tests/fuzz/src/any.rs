//! The target that `AGENTS_FUZZ_TARGET` names, under libFuzzer.

#![no_main]

use std::sync::LazyLock;

use agents_tests::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("AGENTS_FUZZ_TARGET").expect("AGENTS_FUZZ_TARGET names a target");
    TARGETS.iter().find(|target| target.name == name).expect("AGENTS_FUZZ_TARGET names a target")
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
