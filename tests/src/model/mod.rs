//! A model endpoint that follows a script, so that a published coding agent does real work with no model behind it.
//!
//! [`script`] is the data and its rules, [`wire`] the requests and events of the Responses API, [`answer`] decides what
//! one request gets (no socket, no clock), [`server`] is the only part that listens.

pub mod answer;
pub mod script;
pub mod server;
pub mod wire;

pub use answer::Outcome;
pub use script::Script;
pub use server::{ModelServer, RecordedRequest};
