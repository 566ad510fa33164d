//! The controllers: AgentRun's, and one for all kinds whose status says only whether they are right.

mod agent_run;
mod caches;
mod declaration;
mod declared;
mod notices;
mod strays;
mod unstored;

pub use agent_run::AgentRunWorld;
pub use caches::{Caches, Namespaces, Ready};
pub use declaration::{DeclarationWorld, Snapshot as DeclarationSnapshot};
pub use declared::Id;
pub use notices::{Notices, NoticesTask};
pub use strays::{Id as StrayId, StrayWorld};
pub use unstored::Unrecorded;
