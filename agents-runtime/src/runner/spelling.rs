//! The spellings in which a secret may be printed: as it is, line by line, and as encoders write it. Pure.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

/// Shorter values, and shorter lines of values, are not redacted: they would be found everywhere.
pub(super) const MIN_SECRET: usize = 6;
/// Fewer different bytes make a line a rule or a margin, and no secret.
const MIN_DIFFERENT: usize = 3;
/// At most so much of a beginning is left to a line's end when an encoder wraps its lines.
const MAX_LOST: usize = MIN_SECRET - 1;
/// What remains of an encoding without its beginning must still be rare.
const MIN_REST: usize = 8;

/// A byte string to take out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Spelling {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether line breaks may stand between them, with the white space around.
    pub wraps: bool,
}

/// A way to spell, the most usual first: when there are too many secrets, the last are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is, as a whole.
    Plain,
    /// As it is, with other ends of its lines, and each of its lines alone.
    Lines,
    /// Within JSON.
    Json,
    /// Base64, anywhere within what was encoded.
    Base64,
    /// Within a URL or a form.
    Url,
    /// Two digits for each byte.
    Hex,
}

impl Way {
    /// Every way.
    pub(super) const ALL: [Self; 6] = [Self::Plain, Self::Lines, Self::Json, Self::Base64, Self::Url, Self::Hex];

    /// The spellings of `value`.
    pub(super) fn spell(self, value: &[u8]) -> Vec<Spelling> {
        let Some(whole) = whole(value) else { return Vec::new() };
        let lines = lines(whole);
        let pieces = || std::iter::once(whole).chain(lines.iter().copied());
        match self {
            Self::Plain => vec![exact(whole)],
            Self::Lines if !whole.contains(&b'\n') && lines.is_empty() => Vec::new(),
            Self::Lines => {
                let joined: Vec<&[u8]> = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
                let joined = Spelling { bytes: joined.concat(), wraps: true };
                lines.iter().map(|line| exact(line)).chain([exact(&with_crlf(whole)), joined]).collect()
            }
            Self::Json => pieces().filter_map(|piece| std::str::from_utf8(piece).ok()).flat_map(json).collect(),
            Self::Base64 => pieces().flat_map(base64).collect(),
            Self::Url => {
                let with_crlf = with_crlf(whole);
                pieces().chain([with_crlf.as_slice()]).flat_map(url).collect()
            }
            Self::Hex => pieces().flat_map(hexadecimal).collect(),
        }
    }
}

fn exact(bytes: &[u8]) -> Spelling {
    Spelling { bytes: bytes.to_vec(), wraps: false }
}

/// What counts of a value: without the white space around it, unless too little would be left.
fn whole(value: &[u8]) -> Option<&[u8]> {
    let trimmed = value.trim_ascii();
    let whole = if trimmed.len() < MIN_SECRET && !trimmed.is_empty() { value } else { trimmed };
    (whole.len() >= MIN_SECRET).then_some(whole)
}

/// Lines of a value that has several, as they are or as `\n` between quotes.
fn lines(whole: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    for line in whole.split(|byte| *byte == b'\n') {
        let mut rest = line;
        while let Some(at) = memchr::memmem::find(rest, b"\\n") {
            lines.push(&rest[..at]);
            rest = &rest[at + 2..];
        }
        lines.push(rest);
    }
    if lines.len() < 2 {
        return Vec::new();
    }
    let tells = |line: &&[u8]| {
        let mut seen = [false; 256];
        line.iter().for_each(|byte| seen[usize::from(*byte)] = true);
        line.len() >= MIN_SECRET && seen.iter().filter(|seen| **seen).count() >= MIN_DIFFERENT
    };
    lines.into_iter().map(<[u8]>::trim_ascii).filter(tells).collect()
}

fn with_crlf(whole: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(whole.len());
    for byte in whole {
        if *byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

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

fn json(text: &str) -> impl Iterator<Item = Spelling> {
    let ways = ESCAPED.into_iter().flat_map(|escaped| [(escaped, Hex::Lower), (escaped, Hex::Upper)]);
    ways.map(|(escaped, hex)| exact(in_json(text, escaped, hex).as_bytes()))
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

/// The characters of base64 that say nothing but `piece`, for each of the three places it may have among the bytes
/// that are encoded, in both alphabets.
fn base64(piece: &[u8]) -> Vec<Spelling> {
    let mut spellings = Vec::new();
    for before in 0..3_usize {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(piece);
        let encoded = STANDARD_NO_PAD.encode(&bytes).into_bytes();
        let core = &encoded[(before * 8).div_ceil(6)..bytes.len() * 8 / 6];
        let url_safe = core.iter().map(|c| match c {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        });
        spellings.extend(wrapped(core));
        spellings.extend(wrapped(&url_safe.collect::<Vec<u8>>()));
    }
    spellings
}

/// An encoding that may be wrapped anywhere. A break in its first bytes leaves those to the line before.
fn wrapped(encoded: &[u8]) -> impl Iterator<Item = Spelling> + use<> {
    let rests = (0..=MAX_LOST).map(|lost| encoded.get(lost..).unwrap_or_default().to_vec());
    let is_rare = |(lost, rest): &(usize, Vec<u8>)| *lost == 0 || rest.len() >= MIN_REST;
    let kept: Vec<Vec<u8>> = rests.enumerate().filter(is_rare).map(|(_, rest)| rest).collect();
    kept.into_iter().map(|bytes| Spelling { bytes, wraps: true })
}

/// What encoders of addresses and forms leave as it is beside letters and digits, and whether they write a space as
/// `+`: RFC 3986; Go and Python for forms; browsers and Java; PHP; Python for paths; JavaScript's two functions.
const KEPT: [(&[u8], bool); 7] = [
    (b"-._~", false),
    (b"-._~", true),
    (b"-._*", true),
    (b"-._", true),
    (b"-._~/", false),
    (b"-._~!'()*", false),
    (b"-._~!'()*;,/?:@&=+$#", false),
];

fn url(piece: &[u8]) -> impl Iterator<Item = Spelling> {
    let ways = KEPT.into_iter().flat_map(|kept| [(kept, Hex::Lower), (kept, Hex::Upper)]);
    ways.map(|((kept, plus), hex)| exact(&in_url(piece, kept, plus, hex)))
}

fn in_url(piece: &[u8], kept: &[u8], plus: bool, hex: Hex) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len());
    for byte in piece {
        match byte {
            b' ' if plus => out.push(b'+'),
            byte if byte.is_ascii_alphanumeric() || kept.contains(byte) => out.push(*byte),
            byte => {
                out.push(b'%');
                out.extend(digits(*byte, hex));
            }
        }
    }
    out
}

fn hexadecimal(piece: &[u8]) -> Vec<Spelling> {
    let of = |hex| wrapped(&piece.iter().flat_map(|byte| digits(*byte, hex)).collect::<Vec<u8>>());
    of(Hex::Lower).chain(of(Hex::Upper)).collect()
}

fn digits(byte: u8, hex: Hex) -> [u8; 2] {
    let digits = match hex {
        Hex::Lower => b"0123456789abcdef",
        Hex::Upper => b"0123456789ABCDEF",
    };
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_that_tell_nothing_are_no_lines() {
        let value = b"-----BEGIN KEY-----\r\n  MIIabc123  \n\n{\n==========\nshort\n ghi789jkl";
        let found: Vec<&[u8]> = vec![b"-----BEGIN KEY-----", b"MIIabc123", b"ghi789jkl"];
        assert_eq!(lines(value), found);
        assert_eq!(lines(br"-----BEGIN KEY-----\nMIIabc123\n"), found[..2]);
        assert!(lines(b"one line only").is_empty());
    }

    #[test]
    fn white_space_around_a_value_does_not_count_and_a_short_value_does_not_either() {
        assert_eq!(whole(b" token1\r\n"), Some(b"token1".as_slice()));
        assert_eq!(whole(b"ab    "), Some(b"ab    ".as_slice()));
        assert_eq!((whole(b"ab   "), whole(b"          ")), (None, None));
    }

    proptest! {
        #[test]
        fn every_json_spelling_is_json_of_the_value(text in any::<String>()) {
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
        fn base64_is_known_wherever_the_value_stands(
            before in proptest::collection::vec(any::<u8>(), 0..9),
            value in proptest::collection::vec(any::<u8>(), MIN_SECRET..40),
            after in proptest::collection::vec(any::<u8>(), 0..5),
        ) {
            let encoded = STANDARD_NO_PAD.encode([&before[..], &value, &after].concat());
            let holds = |spelling: &Spelling| memchr::memmem::find(encoded.as_bytes(), &spelling.bytes).is_some();
            let longest = base64(&value).into_iter().filter(holds).map(|found| found.bytes.len()).max();
            // All but what shares a character with its neighbours.
            prop_assert!(longest.is_some_and(|longest| longest * 6 >= value.len() * 8 - 11), "{:?}", longest);
        }
    }
}
