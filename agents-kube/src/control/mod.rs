//! The controller: every object of our kinds, and what no run wants.

mod agent_run;
mod cached;
mod caches;
mod failed_creates;
pub mod found;
mod kinds;
mod links;
mod meanings;
mod notices;
mod pruned;
mod status_write;
mod strays;
mod submitted;
mod unstored;
mod world;

pub use agent_run::Runs;
pub use cached::Cached;
pub use caches::{Asks, Caches, Ready};
pub use failed_creates::FailedCreates;
pub use kinds::{Kinds, Namespaces};
pub use notices::{Notices, NoticesTask};
pub use strays::{Id as StrayId, StrayWorld};
pub use submitted::Submitted;
pub use unstored::Unrecorded;
pub use world::ClusterWorld;
