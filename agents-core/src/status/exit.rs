//! Exit codes of the runner, by which its container ends.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | the provider exited 0 and every declared output exists |
//! | 64 | the spec cannot be used: not JSON, a field, the digest, a template, a variable, coordinates, too long arguments; a runner inside a runner |
//! | 65 | the provider exited 0, but a declared output is missing |
//! | 69 | preflight: workspace, checkout, an input file's path, the provider's binary |
//! | 70 | the runner failed on its own |
//! | 124 | time ran out |
//! | 143 | the runner was asked to stop |
//! | 128 + n | signal n ended the provider |
//! | other | the provider's own |

/// The spec cannot be used.
pub const BAD_SPEC: i32 = 64;
/// A declared output is missing.
pub const OUTPUT_MISSING: i32 = 65;
/// Preflight failed.
pub const PREFLIGHT: i32 = 69;
/// The runner failed on its own.
pub const INTERNAL: i32 = 70;
/// Time ran out.
pub const DEADLINE: i32 = 124;
/// The runner was asked to stop.
pub const CANCELLED: i32 = 128 + 15;
