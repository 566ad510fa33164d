//! What the rings above unit tests share.

pub mod agents;
pub mod api_server;
pub mod apimodel;
pub mod audit;
pub mod controller;
pub mod fixtures;
pub mod fuzz;
pub mod hand_kubelet;
pub mod model;
pub mod mutant;
pub mod product;
pub mod ring;
pub mod schema;

/// The programs in the README compile, and the small one runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
