//! The controller: every object of our kinds, and what no run wants.

mod agent_run;
mod cached;
mod caches;
mod failed_creates;
pub(crate) mod found;
mod kinds;
mod meanings;
mod notices;
mod pruned;
mod status_write;
mod strays;
mod submitted;
mod unstored;
mod world;

pub(crate) use agent_run::Runs;
pub(crate) use caches::{Asks, Caches};
pub(crate) use failed_creates::FailedCreates;
pub use kinds::Namespaces;
pub(crate) use notices::{Notices, NoticesTask};
pub(crate) use strays::StrayWorld;
pub(crate) use submitted::Submitted;
pub(crate) use unstored::Unrecorded;
pub(crate) use world::ClusterWorld;
