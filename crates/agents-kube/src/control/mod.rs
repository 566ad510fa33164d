//! The controllers: one file per kind, holding how its snapshot is gathered and nothing else that differs.

mod agent_run;
mod caches;
mod notices;

pub use agent_run::AgentRunWorld;
pub use caches::{Caches, Namespaces, Ready};
pub use notices::{Notices, NoticesTask};
