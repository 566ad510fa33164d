//! The definitions as a cluster has them: which are older than this program's, and how these get there without losing
//! what is stored.
//!
//! [`openapi`] may be used with the rights of every authenticated user, [`apply`] needs those on definitions.
//! [`fields`] knows no cluster.

pub mod apply;
pub mod fields;
pub mod openapi;

pub use openapi::{Difference, settled};
