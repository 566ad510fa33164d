//! From bytes to the documents in them, as kubectl reads them: YAML with the scalars of YAML 1.1, streams of JSON, any
//! encoding that names itself. Pure.

use serde::de::IgnoredAny;
use serde_saphyr::Options;

use super::{
    MAX_DOCUMENTS,
    tree::{Node, Place, Tree},
};

/// Why a file cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// For people.
    pub(super) problem: String,
    /// Where.
    pub(super) place: Place,
}

/// The text of a file; a mark of its encoding at its beginning is left out.
pub(super) fn decode(bytes: &[u8]) -> Result<String, Unreadable> {
    let wide = |rest: &[u8], of: fn([u8; 2]) -> u16| {
        let (units, odd) = rest.as_chunks::<2>();
        let text: Result<String, _> = char::decode_utf16(units.iter().map(|unit| of(*unit))).collect();
        text.ok().filter(|_| odd.is_empty())
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => return utf8(rest),
    };
    text.ok_or_else(|| Unreadable {
        problem: "says that it is UTF-16 text and is not".to_owned(),
        place: Place::default(),
    })
}

fn utf8(bytes: &[u8]) -> Result<String, Unreadable> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text.to_owned()),
        Err(error) => error,
    };
    let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count() as u64;
    Err(Unreadable { problem: "is not UTF-8 text".to_owned(), place: Place { line, column: 0 } })
}

/// Every document of a text.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Unreadable> {
    if let Some(parts) = json_parts(text) {
        let mut documents = Vec::new();
        let (mut from, mut lines, mut column) = (0, 0, 0);
        // One more than may be, which is then refused.
        for (at, part) in parts.into_iter().take(MAX_DOCUMENTS + 1) {
            for passed in text[from..at].chars() {
                (lines, column) = if passed == '\n' { (lines + 1, 0) } else { (lines, column + 1) };
            }
            from = at;
            for mut node in yaml(part).map_err(|error| error.moved(lines, column))? {
                shift(&mut node, lines, column);
                documents.push(node);
            }
        }
        return Ok(documents);
    }
    // A mark of the encoding may stand before every document: files are put together with `cat`.
    if text.contains("\n\u{feff}") { yaml(&text.replace("\n\u{feff}", "\n")) } else { yaml(text) }
}

/// The places and texts of several JSON values that follow each other without anything between them.
fn json_parts(text: &str) -> Option<Vec<(usize, &str)>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut parts, mut from) = (Vec::new(), 0);
    while let Some(value) = values.next() {
        value.ok()?;
        let part = &text[from..values.byte_offset()];
        let begin = from + (part.len() - part.trim_start().len());
        parts.push((begin, part.trim_start()));
        from = values.byte_offset();
    }
    // A single one needs no help.
    Some(parts).filter(|parts| parts.len() > 1)
}

fn yaml(text: &str) -> Result<Vec<Node>, Unreadable> {
    let options: Options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let place = error.location().map(|place| Place { line: place.line(), column: place.column() });
        Unreadable { problem: format!("cannot be read: {}", in_our_words(&error)), place: place.unwrap_or_default() }
    })
}

/// What the parser says, without the place, which stands elsewhere, and without advice to programmers.
fn in_our_words(error: &serde_saphyr::Error) -> String {
    let said = error.without_snippet().to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    if let Some(rest) = said.strip_prefix("duplicate mapping key: ") {
        let key = rest.split_once(", set ").map_or(rest, |(key, _)| key);
        return format!("the name {key:?} is given twice");
    }
    if said.starts_with("cannot deserialize null into string") {
        return "a name is empty or null: quote it".to_owned();
    }
    if said.starts_with("non-finite float") {
        return "a number is not finite: quote it, if it is a text".to_owned();
    }
    if said.starts_with("tabs disallowed") {
        return "a tab cannot indent: use spaces".to_owned();
    }
    said.to_owned()
}

impl Unreadable {
    fn moved(mut self, lines: u64, column: u64) -> Self {
        move_place(&mut self.place, lines, column);
        self
    }
}

fn move_place(place: &mut Place, lines: u64, column: u64) {
    if place.line == 1 {
        place.column += column;
    }
    if place.line > 0 {
        place.line += lines;
    }
}

fn shift(node: &mut Node, lines: u64, column: u64) {
    move_place(&mut node.place, lines, column);
    match &mut node.value {
        Tree::List(items) => items.iter_mut().for_each(|item| shift(item, lines, column)),
        Tree::Map(members) => {
            for member in members {
                move_place(&mut member.place, lines, column);
                shift(&mut member.node, lines, column);
            }
        }
        Tree::Null | Tree::Bool(_) | Tree::Integer(_) | Tree::Float(_) | Tree::Text(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Vec<Value> {
        documents(text).unwrap().iter().map(Node::to_json).collect()
    }

    /// What kubectl 1.36 sends for each: goyaml.v2 reads, and a whole number is an integer in JSON.
    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        for (text, wanted) in [
            ("yes", json!(true)),
            ("On", json!(true)),
            ("y", json!(true)),
            ("TRUE", json!(true)),
            ("no", json!(false)),
            ("off", json!(false)),
            ("N", json!(false)),
            ("010", json!(8)),
            ("0o10", json!(8)),
            ("0x10", json!(16)),
            ("0b11", json!(3)),
            ("-010", json!(-8)),
            ("08", json!(8)),
            ("1_000", json!(1000)),
            ("+5", json!(5)),
            ("-0", json!(0)),
            ("1.0", json!(1)),
            ("1.", json!(1)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            ("1.5", json!(1.5)),
            ("~", json!(null)),
            ("Null", json!(null)),
            ("", json!(null)),
            ("\"yes\"", json!("yes")),
            ("'010'", json!("010")),
            ("!!str 5", json!("5")),
            ("!!int \"5\"", json!(5)),
            ("2001-01-01", json!("2001-01-01")),
            ("2001-01-01T00:00:00Z", json!("2001-01-01T00:00:00Z")),
            ("1:30", json!("1:30")),
            ("0.0.0.0", json!("0.0.0.0")),
            ("<<", json!("<<")),
        ] {
            assert_eq!(read(&format!("a: {text}\n")), [json!({ "a": wanted })], "{text:?}");
        }
    }

    #[test]
    fn documents_are_told_apart_as_kubectl_does() {
        let (a, b) = (json!({"a": 1}), json!({"b": 2}));
        for text in [
            "a: 1\n---\nb: 2\n",
            "---\na: 1\n---\n---\n# nothing\n---\nb: 2\n---",
            "a: 1\r\n--- \r\nb: 2\r\n",
            "a: 1\n--- # said\nb: 2\n...\n",
            "\u{feff}a: 1\n---\n\u{feff}b: 2\n",
            "{\"a\": 1}{\"b\": 2}",
            "{\"a\": 1}\n\n{\n\t\"b\": 2\n}\n",
            "{\"a\": 1}\n---\nb: 2\n",
            "%YAML 1.1\n---\na: 1\n---\nb: 2",
        ] {
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            assert_eq!(read(text), [a.clone(), b.clone()], "{text:?}");
        }
        assert_eq!(read("x: &x {a: 1}\ny: {<<: *x, b: 2}\n")[0]["y"], json!({"a": 1, "b": 2}));
        assert_eq!(read("# nothing\n---\n"), Vec::<Value>::new());
    }

    #[test]
    fn encodings_that_name_themselves_are_read() {
        let wide = |of: fn(u16) -> [u8; 2]| "\u{feff}a: \u{e9}\n".encode_utf16().flat_map(of).collect::<Vec<u8>>();
        for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes), "\u{feff}a: \u{e9}\n".as_bytes().to_vec()] {
            assert_eq!(decode(&bytes).unwrap(), "a: \u{e9}\n");
        }
        assert_eq!(decode(b"a\nb\xff\n").unwrap_err().place.line, 2);
        assert!(decode(&[0xff, 0xfe, 0x00]).is_err());
    }

    #[test]
    fn places_of_a_stream_are_those_of_the_file_and_errors_speak_to_people() {
        let nodes = documents("{\"a\": 1}\n {\"b\": {\n \"c\": 2}}\n").unwrap();
        assert_eq!(nodes[1].locate("b"), Place { line: 2, column: 3 });
        assert_eq!(nodes[1].locate("b.c"), Place { line: 3, column: 2 });
        for (text, problem) in [
            ("a: 1\na: 2\n", "cannot be read: the name \"a\" is given twice"),
            ("a: {~: 1}\n", "cannot be read: a name is empty or null: quote it"),
            ("a: .inf\n", "cannot be read: a number is not finite: quote it, if it is a text"),
            ("a: 1e400\n", "cannot be read: a number is not finite: quote it, if it is a text"),
            ("a:\n\tb: 1\n", "cannot be read: a tab cannot indent: use spaces"),
        ] {
            assert_eq!(documents(text).unwrap_err().problem, problem);
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(text) = decode(&bytes) {
                let _ = documents(&text);
            }
        }

        #[test]
        fn a_stream_of_json_is_its_values(values in proptest::collection::vec("[a-z\n{}\"\\\\]{0,6}", 1..5)) {
            let values: Vec<_> = values.into_iter().map(|value| json!({ "v": value })).collect();
            let text = values.iter().map(|value| format!("{value:#}")).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(read(&text), values);
        }
    }
}
