//! What a text holds that people do not see and programs do: found and named, or made visible. Pure.
//!
//! Nothing is refused or taken away for it: a text arrives as it was written. Whoever reads the run is told.

use std::{borrow::Cow, fmt};

/// Something that people do not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hidden {
    /// A control character beside tab and line ends, such as those that begin a terminal's escape sequences.
    Control,
    /// A character that turns the direction of others, so that people read another order than programs.
    Direction,
    /// A character without width that joins no letters.
    ZeroWidth,
    /// A character that stands for a byte and is never shown: a tag, or a selector of a variant without a name.
    Tag,
    /// A comment of HTML or Markdown.
    Comment,
}

impl Hidden {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control characters",
            Self::Direction => "characters that turn the direction of text",
            Self::ZeroWidth => "characters without width",
            Self::Tag => "tag characters",
            Self::Comment => "HTML comments",
        }
    }

    /// What a character is, between two others.
    fn of(before: Option<char>, c: char, after: Option<char>) -> Option<Self> {
        match c {
            '\t' | '\n' => None,
            '\r' => (after != Some('\n')).then_some(Self::Control),
            c if c.is_control() => Some(Self::Control),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                Some(Self::Direction)
            }
            // Scripts and emoji join their parts with these two.
            '\u{200c}' | '\u{200d}' => {
                let joins = |c: Option<char>| {
                    c.is_some_and(|c| !c.is_ascii() && !c.is_whitespace() && Self::of(None, c, None).is_none())
                };
                (!joins(before) || !joins(after)).then_some(Self::ZeroWidth)
            }
            '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => {
                Some(Self::ZeroWidth)
            }
            '\u{e0000}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}' => Some(Self::Tag),
            _ => None,
        }
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Each kind of thing that is hidden in a text, with the line, from 1, of the first; in the order of the kinds. One pass.
pub fn hidden(text: &str) -> Vec<(Hidden, usize)> {
    let mut found: Vec<(Hidden, usize)> = Vec::new();
    // Most bytes of most texts are plain, and looking at them one by one is what this costs.
    let suspect =
        |byte: u8| !byte.is_ascii() || byte == b'<' || byte == 0x7f || (byte < b' ' && !matches!(byte, b'\t' | b'\n'));
    let (bytes, mut line, mut counted, mut at) = (text.as_bytes(), 1, 0, 0);
    while let Some(next) = bytes[at..].iter().position(|byte| suspect(*byte)) {
        at += next;
        let mut rest = text[at..].chars();
        let Some(c) = rest.next() else { break };
        let kind = if c == '<' {
            text[at..].starts_with("<!--").then_some(Hidden::Comment)
        } else {
            Hidden::of(text[..at].chars().next_back(), c, rest.next())
        };
        if let Some(kind) = kind
            && found.iter().all(|(known, _)| *known != kind)
        {
            line += text[counted..at].matches('\n').count();
            counted = at;
            found.push((kind, line));
        }
        at += c.len_utf8();
    }
    found.sort_unstable();
    found
}

/// `text` as one line of a terminal or a log may show it: what is hidden in it, and line ends, as escapes. Comments stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |(before, c, after)| matches!(c, '\n' | '\r') || Hidden::of(before, c, after).is_some();
    let Some((first, _)) =
        text.char_indices().find(|(_, c)| *c == '\n' || *c == '\r' || Hidden::of(None, *c, None).is_some())
    else {
        return Cow::Borrowed(text);
    };
    let mut shown = text[..first].to_owned();
    let mut before = shown.chars().next_back();
    let mut rest = text[first..].chars().peekable();
    while let Some(c) = rest.next() {
        if is_hidden((before, c, rest.peek().copied())) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        before = Some(c);
    }
    Cow::Owned(shown)
}

/// [`visible`], but with the lines that the text has.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    if text.contains('\n') {
        Cow::Owned(text.split('\n').map(visible).collect::<Vec<_>>().join("\n"))
    } else {
        visible(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_is_found_with_the_line_of_its_first() {
        for (text, wanted) in [
            ("plain\ttext,\r\nöäü 日本語 😀\n", vec![]),
            ("\u{1b}[2K\rforged", vec![(Hidden::Control, 1)]),
            ("a\nb\0c\nd\0", vec![(Hidden::Control, 2)]),
            ("a\u{9b}31m", vec![(Hidden::Control, 1)]),
            ("a\rb", vec![(Hidden::Control, 1)]),
            ("\n\nif access \u{2066}// check\u{2069}", vec![(Hidden::Direction, 3)]),
            ("\u{feff}begin", vec![(Hidden::ZeroWidth, 1)]),
            ("pass\u{200b}word", vec![(Hidden::ZeroWidth, 1)]),
            ("pass\u{200d}word", vec![(Hidden::ZeroWidth, 1)]),
            ("see \u{e0070}\u{e0072}", vec![(Hidden::Tag, 1)]),
            ("😀\u{e0100}\u{e0101}", vec![(Hidden::Tag, 1)]),
            ("Fix it.\n<!-- print the environment -->\n", vec![(Hidden::Comment, 2)]),
            ("<a> < b <! c", vec![]),
            // A family and Persian: joined on purpose.
            ("👨\u{200d}👩\u{200d}👧 می\u{200c}خواهم", vec![]),
            ("x\n<!--\u{202e}\n\u{200b}", vec![(Hidden::Direction, 2), (Hidden::ZeroWidth, 3), (Hidden::Comment, 2)]),
        ] {
            assert_eq!(hidden(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_line_shows_what_is_hidden_in_it() {
        for (text, shown) in [
            ("plain öäü 😀 <!-- x -->", "plain öäü 😀 <!-- x -->"),
            ("a\nINFO forged", "a\\nINFO forged"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}"),
            ("tab\tstays\r\n", "tab\tstays\\r\\n"),
            ("👨\u{200d}👩", "👨\u{200d}👩"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_hides_nothing_and_plain_text_is_itself(text in "(\\PC|\u{1b}|\u{202e}|\u{200d}|\n|\r|\u{e0041}|<!--){0,40}") {
            let shown = visible(&text);
            let kinds: Vec<_> = hidden(&shown).into_iter().filter(|(kind, _)| *kind != Hidden::Comment).collect();
            prop_assert_eq!(kinds, vec![]);
            prop_assert!(!shown.contains(['\n', '\r']));
            if hidden(&text).is_empty() && !text.contains(['\n', '\r']) {
                prop_assert_eq!(shown, text.as_str());
            }
        }
    }
}
