//! The lines of a watch, out of the chunks that its answer arrives in.
//!
//! Pure: bytes in, lines out. A line that one chunk holds, which is nearly every one, is a part of that chunk and copied
//! nowhere.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest line: an object of etcd's largest size, escaped, with room.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// A line is longer than any that can be meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes chunks apart.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// What was begun by earlier chunks.
    begun: BytesMut,
    /// What of the last chunk is not looked at yet.
    chunk: Bytes,
}

impl Lines {
    /// Takes the next chunk, once [`Lines::next`] has nothing left.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    /// The next line that is whole, without its end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let end = memchr(b'\n', &self.chunk);
        let length = self.begun.len() + end.unwrap_or(self.chunk.len());
        if length > MAX_LINE {
            return Err(TooLong);
        }
        let Some(end) = end else {
            self.begun.extend_from_slice(&self.chunk);
            // An empty part of it would keep all of it.
            self.chunk = Bytes::new();
            return Ok(None);
        };
        let rest = self.chunk.split_to(end);
        self.chunk.advance(1);
        if self.begun.is_empty() {
            return Ok(Some(rest));
        }
        let mut line = std::mem::take(&mut self.begun);
        line.extend_from_slice(&rest);
        Ok(Some(line.freeze()))
    }
}

/// What one line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`.
    pub(super) kind: &'a str,
    /// The object.
    pub(super) object: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line whatever the order of its members.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Members<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Members { kind, object } = serde_json::from_slice(line)?;
        Ok(Self { kind, object: object.get().as_bytes() })
    }

    /// What the line says if its object is one JSON value and nothing else, which is for the caller to find out: API
    /// servers write the two members in this order and without a space, and so the object is read once and not twice.
    pub(super) fn presumed(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(br#"{"type":""#)?;
        let (kind, rest) = rest.split_at(memchr(b'"', rest)?);
        let object = rest.strip_prefix(br#"","object":"#)?.strip_suffix(b"}")?;
        Some(Self { kind: std::str::from_utf8(kind).ok()?, object })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: impl IntoIterator<Item = Bytes>) -> (Vec<String>, Option<TooLong>) {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk);
            loop {
                match lines.next() {
                    Ok(Some(line)) => found.push(String::from_utf8(line.to_vec()).unwrap()),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    proptest! {
        #[test]
        fn lines_are_the_same_wherever_they_are_cut(
            texts in proptest::collection::vec("[a-zäß{}]{0,9}", 0..6),
            tail in "[a-z]{0,3}",
            cuts in proptest::collection::vec(0_usize..80, 0..8),
        ) {
            let whole = [texts.clone(), vec![tail]].concat().join("\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|cut| Bytes::copy_from_slice(&whole.as_bytes()[cut[0]..cut[1]]));
            prop_assert_eq!(all(chunks), (texts, None));
        }

        #[test]
        fn what_is_presumed_of_a_line_is_what_it_says(kind in "[A-Z]{0,8}", object in "\\{(\"a\":[1-9])?\\}") {
            let line = format!(r#"{{"type":"{kind}","object":{object}}}"#);
            prop_assert_eq!(Line::presumed(line.as_bytes()), Some(Line::read(line.as_bytes()).unwrap()));
        }
    }

    #[test]
    fn a_line_has_a_bound_in_one_chunk_and_in_many() {
        let longest = vec![b'x'; MAX_LINE];
        let one = Bytes::from([longest.clone(), b"\n".to_vec()].concat());
        assert_eq!(all([one]).0.len(), 1);
        let more = Bytes::from([longest.clone(), b"x\n".to_vec()].concat());
        assert_eq!(all([more]), (vec![], Some(TooLong)));
        let pieces = [Bytes::from(longest), Bytes::from_static(b"x")];
        assert_eq!(all(pieces), (vec![], Some(TooLong)));
    }

    #[test]
    fn a_line_of_another_form_is_not_presumed_to_say_anything() {
        for line in [
            r#"{"object":{},"type":"ADDED"}"#,
            r#"{"type": "ADDED","object":{}}"#,
            r#"{"type":"ADDED","object":{}"#.trim_end_matches('}'),
            "",
        ] {
            assert_eq!(Line::presumed(line.as_bytes()), None, "{line}");
        }
    }
}
