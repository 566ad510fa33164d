//! Takes known secrets out of a stream of bytes. Pure.
//!
//! What comes out does not depend on how the stream was cut into chunks. Every byte that belongs to an occurrence of a
//! secret is covered, overlapping occurrences included; each covered stretch becomes [`MASK`]. Only bytes that may be
//! the beginning of a secret are held back.

use std::fmt::Write as _;

/// What stands in place of a secret.
pub(super) const MASK: &[u8] = b"***";
/// Shorter values are not redacted: they would be found everywhere.
pub(super) const MIN_SECRET: usize = 6;
/// Longer values are not redacted: the search would hold back too much.
const MAX_SECRET: usize = 64 * 1024;

/// What writers of JSON escape beyond what JSON demands, each with four hexadecimal digits but for the slash:
/// JavaScript and serde nothing; Go what HTML or JavaScript would read; Python all that is not printable ASCII; PHP the
/// slash, with and without the rest.
const ESCAPED: [fn(char) -> bool; 5] =
    [|_| false, is_markup, is_beyond_ascii, |c| c == '/', |c| c == '/' || is_beyond_ascii(c)];

fn is_markup(c: char) -> bool {
    matches!(c, '&' | '<' | '>' | '\u{2028}' | '\u{2029}')
}

fn is_beyond_ascii(c: char) -> bool {
    !matches!(c, ' '..='~')
}

/// Digits of an escape.
#[derive(Debug, Clone, Copy)]
enum Hex {
    Lower,
    Upper,
}

/// `text` as it stands between the quotes of a JSON string.
fn in_json(text: &str, is_escaped: fn(char) -> bool, hex: Hex) -> String {
    let mut json = String::with_capacity(text.len());
    for c in text.chars() {
        let short = match c {
            '"' | '\\' => Some(c),
            '/' if is_escaped(c) => Some(c),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            _ => None,
        };
        if let Some(short) = short {
            json.extend(['\\', short]);
        } else if c < ' ' || is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a text never fails.
                let _ = match hex {
                    Hex::Lower => write!(json, "\\u{unit:04x}"),
                    Hex::Upper => write!(json, "\\u{unit:04X}"),
                };
            }
        } else {
            json.push(c);
        }
    }
    json
}

/// The byte strings to take out.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets {
    values: Vec<Vec<u8>>,
}

impl Secrets {
    /// The forms in which the values may appear: as they are, without surrounding white space, and as writers of JSON
    /// spell them.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let trimmed = value.trim_ascii();
            let mut candidates = vec![value.to_vec(), trimmed.to_vec()];
            // Escapes make a short value long, but not rare.
            if let Ok(text) = std::str::from_utf8(trimmed)
                && trimmed.len() >= MIN_SECRET
            {
                let spellings = ESCAPED.into_iter().flat_map(|escaped| [(escaped, Hex::Lower), (escaped, Hex::Upper)]);
                candidates.extend(spellings.map(|(escaped, hex)| in_json(text, escaped, hex).into_bytes()));
            }
            for candidate in candidates {
                if (MIN_SECRET..=MAX_SECRET).contains(&candidate.len()) && !forms.contains(&candidate) {
                    forms.push(candidate);
                }
            }
        }
        Self { values: forms }
    }

    /// `text` without secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut redactor = Redactor::new(self);
        let mut out = Vec::new();
        redactor.push(text.as_bytes(), &mut out);
        redactor.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Redacts one stream.
#[derive(Debug)]
pub(super) struct Redactor<'a> {
    secrets: &'a Secrets,
    /// Bytes that may be the beginning of a secret.
    held: Vec<u8>,
    /// How many of `held` belong to a secret that began before them.
    covered: usize,
    /// Whether the last byte that left belonged to a secret, so that its mask is already written.
    in_mask: bool,
}

impl<'a> Redactor<'a> {
    /// A redactor at the beginning of a stream.
    pub(super) fn new(secrets: &'a Secrets) -> Self {
        Self { secrets, held: Vec::new(), covered: 0, in_mask: false }
    }

    /// Takes a chunk and appends to `out` what is decided.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.secrets.values.is_empty() {
            out.extend_from_slice(chunk);
            return;
        }
        let mut buffer = std::mem::take(&mut self.held);
        buffer.extend_from_slice(chunk);
        let keep_from = self.undecided(&buffer);
        self.emit(&buffer, keep_from, out);
        self.held = buffer.split_off(keep_from);
    }

    /// Ends the stream: what was held back is no secret.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let buffer = std::mem::take(&mut self.held);
        self.emit(&buffer, buffer.len(), out);
    }

    /// Where the longest ending of `buffer` begins that is a beginning of a secret, but not all of it.
    fn undecided(&self, buffer: &[u8]) -> usize {
        let longest = self
            .secrets
            .values
            .iter()
            .filter_map(|secret| {
                let most = (secret.len() - 1).min(buffer.len());
                (1..=most).rev().find(|&len| secret.starts_with(&buffer[buffer.len() - len..]))
            })
            .max()
            .unwrap_or(0);
        buffer.len() - longest
    }

    fn emit(&mut self, buffer: &[u8], upto: usize, out: &mut Vec<u8>) {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        if self.covered > 0 {
            stretches.push((0, self.covered));
        }
        for secret in &self.secrets.values {
            let mut from = 0;
            while let Some(at) = find(&buffer[from..], secret) {
                stretches.push((from + at, from + at + secret.len()));
                from += at + 1;
            }
        }
        stretches.sort_unstable();
        let mut at = 0;
        self.covered = self.covered.saturating_sub(upto);
        for (begin, end) in stretches {
            let start = begin.max(at);
            let stop = end.min(upto);
            if start < stop {
                if start > at {
                    out.extend_from_slice(&buffer[at..start]);
                    self.in_mask = false;
                }
                if !self.in_mask {
                    out.extend_from_slice(MASK);
                    self.in_mask = true;
                }
                at = stop;
            }
            // One that begins among the held bytes is found again, and they may begin before it.
            if begin < upto && end > upto {
                self.covered = self.covered.max(end - upto);
            }
        }
        if at < upto {
            out.extend_from_slice(&buffer[at..upto]);
            self.in_mask = false;
        }
    }
}

/// First place of `needle`, which is not empty.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: every byte of every occurrence is covered.
    fn by_definition(secrets: &Secrets, text: &[u8]) -> Vec<u8> {
        let mut covered = vec![false; text.len()];
        for secret in &secrets.values {
            for at in 0..text.len() {
                if text[at..].starts_with(secret) {
                    covered[at..at + secret.len()].fill(true);
                }
            }
        }
        let mut out = Vec::new();
        for (n, byte) in text.iter().enumerate() {
            if !covered[n] {
                out.push(*byte);
            } else if n == 0 || !covered[n - 1] {
                out.extend_from_slice(MASK);
            }
        }
        out
    }

    #[test]
    fn forms_of_a_secret_are_known() {
        let secrets = Secrets::new([b"line1\nline2\n".as_slice(), b"short"]);
        assert_eq!(secrets.redact("a line1\nline2 b"), "a *** b");
        assert_eq!(secrets.redact(r#"{"key":"line1\nline2"}"#), r#"{"key":"***"}"#);
        assert_eq!(secrets.redact("short"), "short");
    }

    #[test]
    fn a_secret_is_known_as_every_writer_of_json_spells_it() {
        let secrets = Secrets::new(["k/<&>\u{e9}\u{1f600}\u{2028}\u{1}\"".as_bytes()]);
        for (writer, spelling) in [
            ("JavaScript", "k/<&>\u{e9}\u{1f600}\u{2028}\\u0001\\\""),
            ("Go", "k/\\u003c\\u0026\\u003e\u{e9}\u{1f600}\\u2028\\u0001\\\""),
            ("Go's, upper case", "k/\\u003C\\u0026\\u003E\u{e9}\u{1f600}\\u2028\\u0001\\\""),
            ("Python", "k/<&>\\u00e9\\ud83d\\ude00\\u2028\\u0001\\\""),
            ("Python's, upper case", "k/<&>\\u00E9\\uD83D\\uDE00\\u2028\\u0001\\\""),
            ("PHP", "k\\/<&>\\u00e9\\ud83d\\ude00\\u2028\\u0001\\\""),
            ("PHP that leaves Unicode alone", "k\\/<&>\u{e9}\u{1f600}\u{2028}\\u0001\\\""),
        ] {
            assert_eq!(secrets.redact(&format!("\"{spelling}\"")), "\"***\"", "{writer}");
        }
    }

    #[test]
    fn a_secret_has_few_forms_and_none_twice() {
        assert_eq!(Secrets::new([b"plain-token_123".as_slice(), b"plain-token_123\n"]).values.len(), 2);
        assert_eq!(Secrets::new([b"c2xh/c2g=".as_slice()]).values.len(), 2);
        assert_eq!(Secrets::new(["\u{e9}\u{e9}".as_bytes()]).values.len(), 0, "too short, however it is spelled");
    }

    #[test]
    fn output_is_not_held_back_without_need() {
        let secrets = Secrets::new([b"secret".as_slice()]);
        let mut redactor = Redactor::new(&secrets);
        let mut out = Vec::new();
        redactor.push(b"prompt> ", &mut out);
        assert_eq!(out, b"prompt> ");
        redactor.push(b"se", &mut out);
        assert_eq!(out, b"prompt> ");
        redactor.push(b"e", &mut out);
        assert_eq!(out, b"prompt> see");
    }

    #[test]
    fn a_secret_that_ends_in_its_own_beginning_stays_covered_however_it_comes() {
        let secrets = Secrets::new([b"abbbab".as_slice()]);
        let (mut redactor, mut out) = (Redactor::new(&secrets), Vec::new());
        b"abbbabbbaa".chunks(1).for_each(|byte| redactor.push(byte, &mut out));
        redactor.finish(&mut out);
        assert_eq!(out, b"***bbaa");
    }

    #[test]
    fn a_secret_within_what_is_held_back_covers_its_own_bytes_only() {
        let secrets = Secrets::new([b"aabbbb".as_slice(), b"aaabbbba"]);
        assert_eq!(secrets.redact("caaabbbb"), "ca***");
        assert_eq!(secrets.redact("caaabbbba"), "c***");
    }

    proptest! {
        #[test]
        fn every_spelling_is_json_of_the_value(text in any::<String>()) {
            for escaped in ESCAPED {
                for hex in [Hex::Lower, Hex::Upper] {
                    let read: String = serde_json::from_str(&format!("\"{}\"", in_json(&text, escaped, hex))).unwrap();
                    prop_assert_eq!(&read, &text);
                }
            }
            let json = serde_json::Value::from(text.as_str()).to_string();
            prop_assert_eq!(in_json(&text, |_| false, Hex::Lower), &json[1..json.len() - 1]);
        }

        #[test]
        fn cuts_do_not_matter_and_nothing_of_a_secret_comes_through(
            secrets in proptest::collection::vec("[ab]{6,9}", 0..4),
            text in "[ab]{0,60}",
            cuts in proptest::collection::vec(0usize..8, 0..60),
        ) {
            let secrets = Secrets::new(secrets.iter().map(String::as_bytes));
            let mut redactor = Redactor::new(&secrets);
            let (mut out, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                redactor.push(chunk, &mut out);
                rest = after;
            }
            redactor.push(rest, &mut out);
            redactor.finish(&mut out);
            prop_assert_eq!(&out, &by_definition(&secrets, text.as_bytes()));
            for secret in &secrets.values {
                prop_assert!(find(&out, secret).is_none());
            }
        }
    }
}
