//! Takes known secrets out of a stream of bytes. Pure.
//!
//! What comes out does not depend on how the stream was cut into chunks. Every byte that belongs to an occurrence of a
//! spelling of a secret is covered, overlapping occurrences included; each covered stretch becomes [`MASK`]. Only bytes
//! that may be the beginning of a spelling are held back.
//!
//! A secret of several lines has hundreds of spellings, so they are not searched one by one: what begins at a place of
//! the stream is looked up by its first bytes, which costs the same for one secret and for many.

use std::collections::{HashMap, HashSet};

use super::spelling::{MIN_SECRET, Spelling, Way};

/// What stands in place of a secret.
pub(super) const MASK: &[u8] = b"***";
/// Longer spellings are not searched for: the search would hold back too much.
const MAX_SPELLING: usize = 256 * 1024;
/// Bytes of all spellings together, with [`ENTRY`] for each; beyond that only the values as they are are searched for.
const MAX_TOTAL: usize = 4 * 1024 * 1024;
/// What one spelling costs beside its bytes.
const ENTRY: usize = 64;
/// Longest line break with the white space around it, in bytes.
const MAX_BREAK: usize = 256;

/// The byte strings to take out.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets {
    /// In the order of their beginnings.
    spellings: Vec<Spelling>,
    /// Which of them begin with these [`MIN_SECRET`] bytes.
    index: HashMap<u64, std::ops::Range<usize>>,
    /// Which beginnings there may be: a bit for each hash. It answers for nearly every place of the stream.
    filter: Vec<u64>,
    /// Their beginnings of fewer bytes, told apart by [`key`].
    beginnings: HashSet<u64>,
}

/// Fewer than eight bytes as one number; a leading 1 tells lengths apart.
fn key(bytes: &[u8]) -> u64 {
    bytes.iter().fold(1, |key, byte| (key << 8) | u64::from(*byte))
}

/// The place of a beginning in a filter of `words` words.
fn bit(key: u64, words: usize) -> (usize, u64) {
    let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    // Below the number of words, which is far below what a place in memory can be.
    let word = usize::try_from(hash >> 6).unwrap_or_default() & (words - 1);
    (word, 1 << (hash & 63))
}

/// How a spelling fits a place of the stream.
enum Fit {
    Not,
    /// As far as the stream goes.
    Begins,
    /// Up to there.
    Whole(usize),
}

/// What is known of a stretch of the stream.
#[derive(Default)]
struct Scan {
    /// Occurrences.
    stretches: Vec<(usize, usize)>,
    /// Where the first beginning is of which the stream does not yet tell whether it is an occurrence.
    undecided: Option<usize>,
}

impl Secrets {
    /// The spellings of the values.
    pub(super) fn new(values: &[&[u8]]) -> Self {
        let mut spellings: HashSet<Spelling> = HashSet::new();
        let mut total = 0;
        for way in Way::ALL {
            for value in values {
                if way != Way::Plain && total >= MAX_TOTAL - ENTRY {
                    break;
                }
                for spelling in way.spell(value) {
                    let cost = spelling.bytes.len() + ENTRY;
                    let is_sought = (MIN_SECRET..=MAX_SPELLING).contains(&spelling.bytes.len())
                        && (way == Way::Plain || total + cost <= MAX_TOTAL);
                    if is_sought && spellings.insert(spelling) {
                        total += cost;
                    }
                }
            }
        }
        let mut spellings: Vec<Spelling> = spellings.into_iter().collect();
        spellings.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
        let mut secrets = Self { spellings, ..Self::default() };
        // So wide that one place in dozens is looked up in vain, and small enough for a processor's cache.
        secrets.filter = vec![0; secrets.spellings.len().next_power_of_two().clamp(64, 16 * 1024)];
        for (n, Spelling { bytes, wraps: _ }) in secrets.spellings.iter().enumerate() {
            let begin = key(&bytes[..MIN_SECRET]);
            secrets.index.entry(begin).or_insert(n..n).end = n + 1;
            let (word, bit) = bit(begin, secrets.filter.len());
            secrets.filter[word] |= bit;
            secrets.beginnings.extend((1..MIN_SECRET).map(|length| key(&bytes[..length])));
        }
        secrets
    }

    /// `text` without secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut redactor = Redactor::new(self);
        let mut out = Vec::new();
        redactor.push(text.as_bytes(), &mut out);
        redactor.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn scan(&self, buffer: &[u8]) -> Scan {
        let mut scan = Scan::default();
        let mut begin = 1;
        for (n, byte) in buffer.iter().enumerate() {
            // As `key` of the last bytes: the leading 1 moves out and is set again.
            begin = ((begin << 8) | u64::from(*byte)) & ((1 << (8 * MIN_SECRET)) - 1) | (1 << (8 * MIN_SECRET));
            let Some(at) = (n + 1).checked_sub(MIN_SECRET) else { continue };
            let (word, bit) = bit(begin, self.filter.len());
            if self.filter[word] & bit == 0 {
                continue;
            }
            for spelling in self.index.get(&begin).cloned().into_iter().flat_map(|range| &self.spellings[range]) {
                match fit(spelling, buffer, at) {
                    Fit::Not => {}
                    Fit::Begins => scan.undecided = scan.undecided.or(Some(at)),
                    Fit::Whole(end) => scan.stretches.push((at, end)),
                }
            }
        }
        // Too near the end to be looked up.
        let last = buffer.len().saturating_sub(MIN_SECRET - 1);
        let begins = (last..buffer.len()).find(|at| self.beginnings.contains(&key(&buffer[*at..])));
        scan.undecided = scan.undecided.or(begins);
        scan
    }
}

/// How `spelling`, whose first [`MIN_SECRET`] bytes are there, fits what begins at `at`.
fn fit(spelling: &Spelling, buffer: &[u8], at: usize) -> Fit {
    let Spelling { bytes, wraps } = spelling;
    let mut at = at + MIN_SECRET;
    let mut rest = &bytes[MIN_SECRET..];
    while let Some((first, more)) = rest.split_first() {
        match buffer.get(at) {
            None => return Fit::Begins,
            Some(byte) if byte == first => {
                at += 1;
                rest = more;
            }
            Some(_) if *wraps => match line_break(&buffer[at..]) {
                None => return Fit::Begins,
                Some(0) => return Fit::Not,
                Some(length) => at += length,
            },
            Some(_) => return Fit::Not,
        }
    }
    Fit::Whole(at)
}

/// Length of the line break at the beginning of `text` with all white space around it, as it is or as within JSON; 0
/// when there is none, nothing when `text` ends before that is clear.
fn line_break(text: &[u8]) -> Option<usize> {
    let (mut length, mut breaks) = (0, false);
    loop {
        let (more, is_break) = match (text.get(length)?, text.get(length + 1)) {
            (b'\n', _) => (1, true),
            (b' ' | b'\t' | b'\r', _) => (1, false),
            (b'\\', None) => return None,
            (b'\\', Some(b'n')) => (2, true),
            (b'\\', Some(b'r' | b't')) => (2, false),
            _ => return Some(if breaks { length } else { 0 }),
        };
        length += more;
        breaks |= is_break;
        if length > MAX_BREAK {
            return Some(0);
        }
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
        if self.secrets.spellings.is_empty() {
            out.extend_from_slice(chunk);
            return;
        }
        let mut buffer = std::mem::take(&mut self.held);
        buffer.extend_from_slice(chunk);
        let Scan { stretches, undecided } = self.secrets.scan(&buffer);
        let keep_from = undecided.unwrap_or(buffer.len());
        self.emit(&buffer, stretches, keep_from, out);
        self.held = buffer.split_off(keep_from);
    }

    /// Ends the stream: what was held back is no secret, but may hold one.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let buffer = std::mem::take(&mut self.held);
        if !buffer.is_empty() {
            let stretches = self.secrets.scan(&buffer).stretches;
            self.emit(&buffer, stretches, buffer.len(), out);
        }
    }

    fn emit(&mut self, buffer: &[u8], mut stretches: Vec<(usize, usize)>, upto: usize, out: &mut Vec<u8>) {
        if self.covered > 0 {
            stretches.push((0, self.covered));
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

#[cfg(test)]
mod tests {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    use proptest::prelude::*;

    use super::*;

    /// The definition: every byte of every occurrence is covered.
    fn by_definition(secrets: &Secrets, text: &[u8]) -> Vec<u8> {
        let mut covered = vec![false; text.len()];
        for spelling in &secrets.spellings {
            for at in 0..text.len() {
                if let Some(end) = occurs(spelling, text, at) {
                    covered[at..end].fill(true);
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

    fn occurs(spelling: &Spelling, text: &[u8], at: usize) -> Option<usize> {
        if !text[at..].starts_with(&spelling.bytes[..MIN_SECRET]) {
            return None;
        }
        let mut end = at + MIN_SECRET;
        for byte in &spelling.bytes[MIN_SECRET..] {
            if text.get(end) != Some(byte) && spelling.wraps {
                let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
                let space = text[end..].iter().take_while(is_space).count();
                if text[end..end + space].contains(&b'\n') {
                    end += space;
                }
            }
            if text.get(end) != Some(byte) {
                return None;
            }
            end += 1;
        }
        Some(end)
    }

    fn in_chunks<'a>(secrets: &Secrets, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut redactor, mut out) = (Redactor::new(secrets), Vec::new());
        for chunk in chunks {
            redactor.push(chunk, &mut out);
        }
        redactor.finish(&mut out);
        out
    }

    /// Whether so many bytes of `secret` in a row are in `text`.
    fn shows(text: &[u8], secret: &[u8], bytes: usize) -> bool {
        secret.windows(bytes).any(|window| memchr::memmem::find(text, window).is_some())
    }

    const KEY: &str = "-----BEGIN TEST KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0123456789\n\
                       YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo9876543210\nrest\n-----END TEST KEY-----\n";

    #[test]
    fn forms_of_a_secret_are_known() {
        let secrets = Secrets::new(&[b"line1\nline2\n".as_slice(), b"short"]);
        assert_eq!(secrets.redact("a line1\nline2 b"), "a *** b");
        assert_eq!(secrets.redact("a line1\r\n\tline2 b"), "a line1\r\n\tline2 b", "lines of five bytes");
        assert_eq!(secrets.redact("a line1\r\nline2 b"), "a *** b");
        assert_eq!(secrets.redact(r#"{"key":"line1\nline2"}"#), r#"{"key":"***"}"#);
        assert_eq!(secrets.redact("short"), "short");
    }

    #[test]
    fn a_secret_is_known_as_every_writer_of_json_spells_it() {
        let secrets = Secrets::new(&["k/<&>\u{e9}\u{1f600}\u{2028}\u{1}\"".as_bytes()]);
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
    fn a_key_of_several_lines_is_known_however_it_is_printed() {
        let secrets = Secrets::new(&[KEY.as_bytes()]);
        let each = |print: &dyn Fn(&str) -> String| KEY.lines().map(print).collect::<String>();
        let wrapped = |text: &str, columns: usize, end: &str| {
            let lines: Vec<_> = text.as_bytes().chunks(columns).map(String::from_utf8_lossy).collect();
            lines.join(end)
        };
        let encoded = |before: &str| STANDARD.encode(format!("{before}{KEY}"));
        let mut printed = vec![
            KEY.to_owned(),
            each(&|line| format!("  | {line} \r\n")),
            each(&|line| format!("{}\n", STANDARD.encode(line))),
            each(&|line| format!("key: {}\n", STANDARD.encode(format!("- {line}")))),
            serde_json::to_string(KEY).unwrap(),
            serde_json::to_string(&each(&|line| format!("\t{line}\r\n"))).unwrap(),
            wrapped(KEY.trim_end(), 40, "\n"),
        ];
        for before in ["", "a", "ab", "name:"] {
            for columns in [1000, 76, 64, 77, 41] {
                let text = wrapped(&encoded(before), columns, "\n");
                printed.push(serde_json::to_string(&text).unwrap());
                printed.push(wrapped(&encoded(before), columns, "\r\n      "));
                printed.push(text);
            }
        }
        for text in printed {
            let out = secrets.redact(&text);
            for secret in KEY.lines().filter(|line| line.len() >= MIN_SECRET) {
                assert!(!shows(out.as_bytes(), secret.as_bytes(), 6), "{text}\n{out}");
            }
            for before in ["", "a", "ab"] {
                assert!(!shows(out.as_bytes(), &encoded(before).as_bytes()[4..], 8), "{text}\n{out}");
            }
        }
    }

    #[test]
    fn a_secret_is_known_in_addresses_and_forms() {
        let secrets = Secrets::new(&[b"p&s/w rd+\xc3\xa9~'x".as_slice()]);
        for (writer, spelling) in [
            ("encodeURIComponent", "p%26s%2Fw%20rd%2B%C3%A9~'x"),
            ("encodeURI", "p&s/w%20rd+%C3%A9~'x"),
            ("URLSearchParams", "p%26s%2Fw+rd%2B%C3%A9%7E%27x"),
            ("Python's quote", "p%26s/w%20rd%2B%C3%A9~%27x"),
            ("Go's QueryEscape", "p%26s%2Fw+rd%2B%C3%A9~%27x"),
            ("PHP's urlencode", "p%26s%2Fw+rd%2B%C3%A9%7E%27x"),
            ("curl, lower case", "p%26s%2fw%20rd%2b%c3%a9~%27x"),
        ] {
            assert_eq!(secrets.redact(&format!("?a={spelling}&b")), "?a=***&b", "{writer}");
        }
        assert_eq!(secrets.redact("70267 3 702673 2f77207264"), "70267 3 702673 2f77207264");
        assert_eq!(secrets.redact("7026732f77207264\n2bc3a97e2778"), "***");
    }

    #[test]
    fn a_secret_has_few_forms_and_none_twice() {
        let count = |values: &[&[u8]]| Secrets::new(values).spellings.len();
        let one = count(&[b"plain-token_123"]);
        assert!(one <= 32, "{one}");
        assert_eq!(count(&[b"plain-token_123", b"plain-token_123\n"]), one);
        assert!(count(&[b"k/<&>\xc3\xa9 \"+"]) <= 1 + 10 + 14 + 48);
        assert_eq!(count(&["\u{e9}\u{e9}".as_bytes()]), 0, "too short, however it is spelled");
        // As many as an environment can hold, and more: the rarest are left out, and the values themselves never.
        let lines = |n: usize| {
            (0..6000).map(|line| format!("{:x}\n", n * 8000 + line + 0x100_0000)).collect::<Vec<_>>().concat()
        };
        let values: Vec<String> = (0..8).map(lines).collect();
        let secrets = Secrets::new(&values.iter().map(String::as_bytes).collect::<Vec<_>>());
        let total: usize = secrets.spellings.iter().map(|spelling| spelling.bytes.len() + ENTRY).sum();
        assert!(total <= MAX_TOTAL, "{total}");
        assert!(values.iter().all(|value| secrets.redact(value) == "***\n"));
    }

    #[test]
    fn output_is_not_held_back_without_need() {
        let secrets = Secrets::new(&[b"secret".as_slice(), KEY.as_bytes()]);
        let mut redactor = Redactor::new(&secrets);
        let mut out = Vec::new();
        redactor.push(b"prompt> ", &mut out);
        assert_eq!(out, b"prompt> ");
        redactor.push(b"se", &mut out);
        assert_eq!(out, b"prompt> ");
        redactor.push(b"e", &mut out);
        assert_eq!(out, b"prompt> see");
        // A line that ends as a secret begins: a break within its first bytes is none.
        redactor.push(b" secr\n", &mut out);
        assert_eq!(out, b"prompt> see secr\n");
    }

    #[test]
    fn a_secret_that_ends_in_its_own_beginning_stays_covered_however_it_comes() {
        let secrets = Secrets::new(&[b"abbbab".as_slice()]);
        assert_eq!(in_chunks(&secrets, b"abbbabbbaa".chunks(1)), b"***bbaa");
    }

    #[test]
    fn a_secret_within_what_is_held_back_covers_its_own_bytes_only() {
        let secrets = Secrets::new(&[b"aabbbb".as_slice(), b"aaabbbba"]);
        assert_eq!(secrets.redact("caaabbbb"), "ca***");
        assert_eq!(secrets.redact("caaabbbba"), "c***");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_nothing_of_a_secret_comes_through(
            secrets in proptest::collection::vec("[ab]{6,9}|[ab]{4,7}\n[ab]{3,7}", 0..4),
            text in "([ab]{1,9}[ \r]{0,2}\n?){0,12}",
            cuts in proptest::collection::vec(0usize..8, 0..60),
        ) {
            let secrets = Secrets::new(&secrets.iter().map(String::as_bytes).collect::<Vec<_>>());
            let (mut chunks, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            let out = in_chunks(&secrets, chunks);
            prop_assert_eq!(&out, &by_definition(&secrets, text.as_bytes()));
            for Spelling { bytes, wraps: _ } in &secrets.spellings {
                prop_assert!(memchr::memmem::find(&out, bytes).is_none());
            }
        }

        #[test]
        fn however_lines_are_encoded_and_cut_nothing_of_them_can_be_read(
            lines in proptest::collection::vec("[A-Za-z0-9+/=]{16,70}", 1..5),
            before in "[ -~]{0,9}",
            columns in 20usize..90,
            size in 1usize..90,
        ) {
            let value = lines.join("\n");
            let secrets = Secrets::new(&[value.as_bytes()]);
            let wrap = |text: &str| text.as_bytes().chunks(columns).collect::<Vec<_>>().join(&b'\n');
            for encoded in [STANDARD.encode(format!("{before}{value}\n")), URL_SAFE_NO_PAD.encode(format!("{before}{value}"))] {
                let text = [b"begin ", wrap(&encoded).as_slice(), b" end"].concat();
                let out = in_chunks(&secrets, text.chunks(size));
                // A character is shared with what stands before, and at most five stand before a break.
                let inner = &encoded.as_bytes()[(before.len() * 8).div_ceil(6)..encoded.len() - 4];
                prop_assert!(!shows(&out, inner, 6), "{}", String::from_utf8_lossy(&out));
                prop_assert!(out.starts_with(b"begin ") && out.ends_with(b" end"));
            }
            for end in ["\n", "\r\n", " \r\n    ", "\\n"] {
                let text = format!("> {}", lines.join(end));
                let out = in_chunks(&secrets, text.as_bytes().chunks(size));
                prop_assert!(lines.iter().all(|line| !shows(&out, line.as_bytes(), 6)));
            }
        }
    }
}
