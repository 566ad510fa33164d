//! Where a text may be cut. Pure.

/// Longest line that is passed on as one, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;

/// End of a piece of a longer line: the line goes on in the next one.
pub const CONTINUED: &str = " [the line goes on]";

/// Where `bytes` can be cut so that at most `max` of them come before and no character of UTF-8 is divided. Bytes that
/// are no UTF-8 are cut anywhere.
pub fn cut_at(bytes: &[u8], max: usize) -> usize {
    if bytes.len() <= max {
        return bytes.len();
    }
    // A character has at most four bytes, so its first is among the last three before the cut or at it.
    let first = (max.saturating_sub(3)..=max).rev().find(|at| bytes.get(*at).is_some_and(|byte| !is_inner(*byte)));
    first.filter(|at| *at > 0).unwrap_or(max)
}

/// Where the first whole character of `bytes` begins, when they are the end of a longer text.
pub fn first_whole(bytes: &[u8]) -> usize {
    bytes.iter().take(3).take_while(|byte| is_inner(**byte)).count()
}

/// How many bytes at the end of `bytes` are the beginning of a character whose rest is not there.
pub fn unfinished(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    let Some(at) = (from..bytes.len()).rev().find(|at| !is_inner(bytes[*at])) else { return 0 };
    let length = match bytes[at] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let has = bytes.len() - at;
    if has < length { has } else { 0 }
}

/// Whether it is a byte of a character besides its first.
fn is_inner(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_cut_between_characters(text in "[a\u{e9}\u{20ac}\u{1f600}]{0,12}", max in 4usize..40) {
            let at = cut_at(text.as_bytes(), max);
            prop_assert!(at <= max && text.is_char_boundary(at), "{text:?} at {at}");
            prop_assert!(at + 4 > max.min(text.len()));
        }

        #[test]
        fn the_rest_of_a_cut_character_is_seen_from_either_side(text in "[a\u{e9}\u{20ac}\u{1f600}]{1,12}", at in 0usize..48) {
            let at = at.min(text.len());
            let (before, after) = text.as_bytes().split_at(at);
            let whole = before.len() - unfinished(before);
            prop_assert!(text.is_char_boundary(whole) && at - whole < 4);
            prop_assert_eq!(text.is_char_boundary(at), unfinished(before) == 0);
            prop_assert!(text.is_char_boundary(at + first_whole(after)));
        }

        #[test]
        fn anything_is_cut_somewhere(bytes in proptest::collection::vec(any::<u8>(), 0..20), max in 1usize..20) {
            let at = cut_at(&bytes, max);
            prop_assert!(at <= max && (at > 0 || bytes.is_empty()));
            prop_assert!(unfinished(&bytes) <= 3 && first_whole(&bytes) <= 3);
        }
    }
}
