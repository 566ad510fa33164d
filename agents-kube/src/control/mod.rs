//! The controllers: AgentRun's, and one for all kinds whose status says only whether they are right.

mod agent_run;
mod caches;
mod declaration;
mod declared;
mod failed_creates;
pub mod found;
mod meanings;
mod notices;
mod pruned;
mod status_write;
mod strays;
mod submitted;
mod unreadable;
mod unstored;

pub use agent_run::AgentRunWorld;
pub use caches::{Asks, Caches, Namespaces, Ready};
pub use declaration::{DeclarationWorld, Snapshot as DeclarationSnapshot};
pub use declared::Id;
pub use failed_creates::FailedCreates;
pub use notices::{Notices, NoticesTask, Regarding};
pub use pruned::Pruned;
pub use strays::{Id as StrayId, StrayWorld};
pub use submitted::Submitted;
pub use unreadable::UnreadableWorld;
pub use unstored::Unrecorded;
