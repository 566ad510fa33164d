//! Finds the declared outputs and computes their checksums.
//!
//! Runs when every process of the provider has ended, so nothing changes while it is read. Regular files only, and no
//! link is followed on the way: an output is what the provider wrote, not what it pointed at.

use std::io::Read;

use agents_core::{
    api::agent_run::{Output, OutputStatus},
    plan::digest::hexadecimal,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    folder::{FileError, open_regular},
    roots::{Beneath, RootMap},
};

/// Largest output, in bytes.
pub(super) const MAX_OUTPUT_BYTES: u64 = 1024 * 1024 * 1024;

/// A declared output that is not there or cannot be one.
#[derive(Debug, Error)]
pub(super) enum OutputError {
    /// Nothing is there.
    #[error("output `{name}`: `{path}` does not exist")]
    Absent {
        /// Name of the output.
        name: String,
        /// Where it should be.
        path: String,
    },
    /// What is there is no readable regular file.
    #[error("output `{name}`: {source}")]
    Unusable {
        /// Name of the output.
        name: String,
        /// Why.
        #[source]
        source: FileError,
    },
    /// It is larger than [`MAX_OUTPUT_BYTES`].
    #[error("output `{name}`: `{path}` is larger than {MAX_OUTPUT_BYTES} bytes")]
    TooLarge {
        /// Name of the output.
        name: String,
        /// Where it is.
        path: String,
    },
}

/// Reads one output.
///
/// # Errors
/// It is absent, not a regular file, or too large.
pub(super) fn collect(output: &Output, place: &Beneath, roots: &RootMap) -> Result<OutputStatus, OutputError> {
    let (name, path) = (output.name.clone(), place.logical());
    let file = open_regular(roots.place(place.root), &place.components).map_err(|source| {
        if source.is_absent() {
            OutputError::Absent { name: name.clone(), path: path.clone() }
        } else {
            OutputError::Unusable { name: name.clone(), source }
        }
    })?;
    let unreadable =
        |source| OutputError::Unusable { name: name.clone(), source: FileError::Io { path: path.clone(), source } };
    // A sparse file claims a size without having it: refuse before reading.
    if file.metadata().map_err(unreadable)?.len() > MAX_OUTPUT_BYTES {
        return Err(OutputError::TooLarge { name, path });
    }
    let mut file = file.take(MAX_OUTPUT_BYTES);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut size: i64 = 0;
    loop {
        let length = file.read(&mut chunk).map_err(unreadable)?;
        if length == 0 {
            break;
        }
        hash.update(&chunk[..length]);
        size += i64::try_from(length).unwrap_or_default();
    }
    let checksum = format!("sha256:{}", hexadecimal(&hash.finalize()));
    Ok(OutputStatus { name, path, size_bytes: size, checksum })
}
