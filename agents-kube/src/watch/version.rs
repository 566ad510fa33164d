//! Resource versions: opaque by contract, ordered within one resource where they are numbers.

use std::fmt;

/// A resource version.
///
/// Versions are compared within one resource only. One that is not a number is equal or unequal, and nothing more: what
/// depends on order treats it as unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// A decimal number, as every known API server writes.
    Number(u64),
    /// Anything else.
    Opaque(Box<str>),
}

impl Version {
    /// Reads a version as sent.
    pub fn parse(text: &str) -> Self {
        match text.parse() {
            // `+1` and `01` are numbers to the parser and other versions to the API server.
            Ok(number) if u64::to_string(&number) == text => Self::Number(number),
            _ => Self::Opaque(text.into()),
        }
    }

    /// Whether this version is `other` or a later one; `None` where that cannot be said.
    pub fn reaches(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Number(own), Self::Number(other)) => Some(own >= other),
            _ if self == other => Some(true),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Opaque(_) => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Opaque(text) => f.write_str(text),
        }
    }
}
