//! Cuts a stream into blocks of whole lines. Pure.
//!
//! Two streams written to one log then never mix inside a line, and what is kept in memory is bounded.

use crate::lines::{CONTINUED, MAX_LINE, cut_at, unfinished};

/// The unfinished last line of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes a chunk and hands whole lines, as few blocks as possible, to `write`. A line longer than [`MAX_LINE`] goes
    /// on in the next one, which [`CONTINUED`] says.
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
                // The first line may end one that is already as long as one may be.
                let end = memchr::memchr(b'\n', lines).unwrap_or(0);
                self.extend(&lines[..end], &mut write);
                self.pending.extend_from_slice(&lines[end..]);
                write(&self.pending);
                self.pending.clear();
            }
        }
        self.extend(rest, &mut write);
    }

    /// Appends a part of one line.
    fn extend(&mut self, part: &[u8], mut write: impl FnMut(&[u8])) {
        self.pending.extend_from_slice(part);
        while self.pending.len() > MAX_LINE {
            let rest = self.pending.split_off(cut_at(&self.pending, MAX_LINE));
            self.pending.extend_from_slice(CONTINUED.as_bytes());
            self.pending.push(b'\n');
            write(&self.pending);
            self.pending = rest;
        }
    }

    /// Hands over the unfinished line as it is, because nothing has come for a while; half a character waits for its
    /// other half.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&[u8])) {
        let rest = self.pending.split_off(self.pending.len() - unfinished(&self.pending));
        if !self.pending.is_empty() {
            write(&self.pending);
        }
        self.pending = rest;
    }

    /// Hands over whatever is left at the end.
    pub(super) fn finish(mut self, mut write: impl FnMut(&[u8])) {
        self.flush(&mut write);
        if !self.pending.is_empty() {
            write(&self.pending);
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
        lines.finish(|piece| pieces.push(piece.to_vec()));
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE + CONTINUED.len() + 1));
        let mut whole = pieces.concat();
        whole.retain(|byte| *byte == b'x');
        assert_eq!(whole.len(), 40 * 64 * 1024);
    }

    #[test]
    fn a_line_of_the_longest_length_is_one_and_a_longer_one_is_cut_between_characters() {
        let pushed = |text: &str| {
            let (mut lines, mut out) = (Lines::default(), Vec::new());
            for chunk in text.as_bytes().chunks(64 * 1024) {
                lines.push(chunk, |piece| out.extend_from_slice(piece));
            }
            lines.finish(|piece| out.extend_from_slice(piece));
            String::from_utf8(out).unwrap()
        };
        let longest = format!("{}\n", "x".repeat(MAX_LINE));
        assert_eq!(pushed(&longest), longest);
        let longer = format!("x{}\nnext\n", "\u{20ac}".repeat(MAX_LINE / 3 * 2));
        let marked = pushed(&longer);
        assert!(marked.contains(&format!("\u{20ac}{CONTINUED}\n\u{20ac}")));
        assert_eq!(marked.replace(&format!("{CONTINUED}\n"), ""), longer);
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
            lines.finish(|block| out.extend_from_slice(block));
            prop_assert_eq!(out, chunks.concat().into_bytes());
        }

        #[test]
        fn no_block_ends_inside_a_character(text in "[a\u{e9}\u{1f600}\n]{0,30}", sizes in proptest::collection::vec(1usize..5, 1..40)) {
            let (mut lines, mut left) = (Lines::default(), text.as_bytes());
            let mut blocks = Vec::new();
            for size in sizes.into_iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (chunk, rest) = left.split_at(size.min(left.len()));
                lines.push(chunk, |block| blocks.push(block.to_vec()));
                lines.flush(|block| blocks.push(block.to_vec()));
                left = rest;
            }
            lines.finish(|block| blocks.push(block.to_vec()));
            prop_assert!(blocks.iter().all(|block| std::str::from_utf8(block).is_ok()));
            prop_assert_eq!(blocks.concat(), text.into_bytes());
        }
    }
}
