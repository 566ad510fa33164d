//! Where the values of secret variables come from. Values pass through memory and the runner's environment only; they
//! are never written to a file and never printed.

use std::{ffi::OsString, fmt};

use agents_core::api::agent_provider::SecretEnv;

/// A secret value; its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(OsString);

impl SecretValue {
    /// Wraps a value.
    pub fn new(value: impl Into<OsString>) -> Self {
        Self(value.into())
    }

    /// The value itself.
    pub fn reveal(&self) -> &OsString {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// Answers which value a secret variable has.
pub trait SecretSource: Send + Sync + fmt::Debug {
    /// The value for `wanted` in `namespace`; `None` when there is none.
    fn value(&self, namespace: &str, wanted: &SecretEnv) -> Option<SecretValue>;

    /// Why there is none, for people.
    fn why_none(&self, _namespace: &str, wanted: &SecretEnv) -> String {
        format!("there is no key {:?} of a Secret {:?}", wanted.key, wanted.secret_name)
    }
}

/// Knows no secret.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn value(&self, _: &str, _: &SecretEnv) -> Option<SecretValue> {
        None
    }
}
