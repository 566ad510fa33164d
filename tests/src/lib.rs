//! What the rings above unit tests share.

pub mod agents;
pub mod apimodel;
pub mod hand_kubelet;
pub mod model;
pub mod product;
pub mod ring;
