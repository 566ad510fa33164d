//! The file in which the runner's spec travels: JSON, or base64 of zstd of JSON where it has to be small text. One place
//! writes and reads it, so that both sides stay one format.

use std::{
    cell::RefCell,
    io::{self, Read as _},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zstd::bulk::Compressor;

/// Largest spec, in bytes, before and after decompression.
pub const MAX_SPEC_BYTES: usize = 16 * 1024 * 1024;
/// Annotations are the scarce good, and specs are small: time is not.
const COMPRESSION_LEVEL: i32 = 9;

/// A file that holds no spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecFileError {
    /// It is larger than [`MAX_SPEC_BYTES`].
    #[error("larger than {MAX_SPEC_BYTES} bytes")]
    TooLarge,
    /// It is neither JSON nor base64 of zstd.
    #[error("neither JSON nor base64 of zstd")]
    Encoding(String),
}

/// A compressor that packed more than this holds more memory than a replica at rest should.
const REUSED_UP_TO: usize = 64 * 1024;

thread_local! {
    /// Making one costs more than packing a usual spec does: it asks the processor what it can, which a virtual machine's
    /// host answers.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// `json` as base64 of zstd: what travels in a pod annotation.
///
/// # Errors
/// Compression failed, which memory running out alone brings about.
pub fn encode(json: &[u8]) -> io::Result<String> {
    let mut compressor = match COMPRESSOR.take() {
        Some(compressor) => compressor,
        None => Compressor::new(COMPRESSION_LEVEL)?,
    };
    let packed = STANDARD.encode(compressor.compress(json)?);
    if json.len() <= REUSED_UP_TO {
        COMPRESSOR.set(Some(compressor));
    }
    Ok(packed)
}

/// The JSON in `bytes`, which hold JSON or what [`encode`] made of it. Whether it is JSON is not looked at.
///
/// # Errors
/// Neither of the two, not UTF-8, or too large.
pub fn decode(bytes: &[u8]) -> Result<String, SpecFileError> {
    if bytes.len() > MAX_SPEC_BYTES {
        return Err(SpecFileError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| SpecFileError::Encoding(error.to_string()))?.trim();
    if text.starts_with('{') {
        return Ok(text.to_owned());
    }
    let packed = STANDARD.decode(text).map_err(|error| SpecFileError::Encoding(error.to_string()))?;
    let broken = |error: io::Error| SpecFileError::Encoding(error.to_string());
    let mut decoder = zstd::stream::read::Decoder::new(packed.as_slice()).map_err(broken)?;
    // A frame may announce a window of gigabytes; ours never needs more than the spec's own size.
    decoder.window_log_max(24).map_err(broken)?;
    let mut json = Vec::new();
    decoder.take(MAX_SPEC_BYTES as u64 + 1).read_to_end(&mut json).map_err(broken)?;
    if json.len() > MAX_SPEC_BYTES {
        return Err(SpecFileError::TooLarge);
    }
    String::from_utf8(json).map_err(|error| SpecFileError::Encoding(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_text_that_unpacks_to_much_is_refused() {
        let bomb = encode(" ".repeat(MAX_SPEC_BYTES + 1).as_bytes()).unwrap();
        assert!(bomb.len() < 100_000);
        assert_eq!(decode(bomb.as_bytes()), Err(SpecFileError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in "\\{\\PC{0,300}\\}") {
            prop_assert_eq!(&decode(encode(text.as_bytes()).unwrap().as_bytes()).unwrap(), &text);
            prop_assert_eq!(decode(text.as_bytes()).unwrap(), text);
        }
    }
}
