//! The system prompt, given in place or read from an object.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a system prompt is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SystemPromptRef {
    /// `Secret` or `ConfigMap`, in the run's namespace.
    pub kind: PromptSource,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the object.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A kind of object that holds system prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PromptSource {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}
