//! The pure domain of the Agents control plane.
//!
//! Everything here is a function of its arguments: no IO, no clock, no environment, no Kubernetes crates.
//! The rooms follow one run from manifest to finish: [`api`] (what users write) → [`mod@resolve`] (references
//! followed) → [`plan`] (what will be executed, with its digest) → [`policy`] (whether it may) → [`decide`] (what to do
//! now) → [`status`] (what users read). [`mod@check`] and [`normalise`] judge and read what users wrote, with [`cron`], [`timezone`],
//! [`quantity`] and [`graph`]; [`mod@exec`], [`git`], [`image`] and [`place`] know what the runner can do with it;
//! [`template`], [`name`], [`id`], [`marks`], [`variable`] and [`mod@hidden`] serve all of them. [`look`] is how a decision finds what it
//! depends on, [`kept`] says what caches keep of large objects.

pub mod api;
pub mod check;
pub mod cron;
pub mod decide;
pub mod exec;
pub mod git;
pub mod graph;
pub mod hidden;
pub mod id;
pub mod image;
pub mod kept;
pub mod kinds;
pub mod look;
pub mod marks;
pub mod mutant;
pub mod name;
pub mod normalise;
pub mod place;
pub mod plan;
pub mod policy;
pub mod quantity;
pub mod report;
pub mod resolve;
pub mod runtime;
pub mod schema;
pub mod status;
pub mod template;
pub mod timezone;
pub mod variable;
