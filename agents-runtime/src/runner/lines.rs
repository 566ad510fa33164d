//! Cuts a stream into blocks of whole lines. Pure.
//!
//! Two streams written to one log then never mix inside a line, and what is kept in memory is bounded.

/// Longest line, in bytes; a longer one is continued on the next line.
pub(super) const MAX_LINE: usize = 1024 * 1024;

/// The unfinished last line of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes a chunk and hands whole lines, as few blocks as possible, to `write`.
    pub(super) fn push(&mut self, chunk: &[u8], mut write: impl FnMut(&[u8])) {
        let whole = match last_newline(chunk) {
            Some(at) => at + 1,
            None => 0,
        };
        let (lines, rest) = chunk.split_at(whole);
        if !lines.is_empty() {
            if self.pending.is_empty() {
                write(lines);
            } else {
                self.pending.extend_from_slice(lines);
                write(&self.pending);
                self.pending.clear();
            }
        }
        for part in rest.chunks(MAX_LINE) {
            if self.pending.len() + part.len() > MAX_LINE {
                self.pending.push(b'\n');
                write(&self.pending);
                self.pending.clear();
            }
            self.pending.extend_from_slice(part);
        }
    }

    /// Hands over the unfinished line as it is, because nothing has come for a while.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            write(&self.pending);
            self.pending.clear();
        }
    }
}

fn last_newline(chunk: &[u8]) -> Option<usize> {
    memchr::memrchr(b'\n', chunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_without_end_is_handed_over_in_bounded_pieces() {
        let mut lines = Lines::default();
        let mut pieces = Vec::new();
        for _ in 0..40 {
            lines.push(&vec![b'x'; 64 * 1024], |piece| pieces.push(piece.to_vec()));
            assert!(lines.pending.len() <= MAX_LINE);
        }
        lines.flush(|piece| pieces.push(piece.to_vec()));
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE + 1));
        let mut whole = pieces.concat();
        whole.retain(|byte| *byte == b'x');
        assert_eq!(whole.len(), 40 * 64 * 1024);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_every_block_ends_a_line(chunks in proptest::collection::vec("[a\n]{0,10}", 0..20)) {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            for chunk in &chunks {
                lines.push(chunk.as_bytes(), |block| {
                    assert_eq!(block.last(), Some(&b'\n'));
                    out.extend_from_slice(block);
                });
            }
            lines.flush(|block| out.extend_from_slice(block));
            prop_assert_eq!(out, chunks.concat().into_bytes());
        }
    }
}
