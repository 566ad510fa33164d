//! Reads tokens and the conversation's id out of a provider's standard output. Pure.
//!
//! The output is whatever the provider prints: a line that is not what the parser expects is skipped, never an error.

use agents_core::api::{agent_provider::UsageParser, common::Usage};
use serde::Deserialize;

/// Longest line that is looked at, in bytes.
const MAX_LINE: usize = 1024 * 1024;
/// Most conversations that are told apart; further ones count as the last.
const MAX_CONVERSATIONS: usize = 256;
/// Longest conversation id.
const MAX_CONVERSATION: usize = 256;

/// What was read so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Sum over all conversations.
    pub usage: Option<Usage>,
    /// Id of the last conversation.
    pub conversation: Option<String>,
}

/// Reads one stream.
#[derive(Debug)]
pub(super) struct UsageReader {
    parser: UsageParser,
    line: Vec<u8>,
    /// The current line is too long and is skipped up to its end.
    skipping: bool,
    /// Newest usage of each conversation, the last one last.
    conversations: Vec<(String, Option<Usage>)>,
}

impl UsageReader {
    /// A reader at the beginning of a stream.
    pub(super) fn new(parser: UsageParser) -> Self {
        Self { parser, line: Vec::new(), skipping: false, conversations: Vec::new() }
    }

    /// Takes a chunk.
    pub(super) fn push(&mut self, mut chunk: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            self.append(&chunk[..end]);
            self.end_of_line();
            chunk = &chunk[end + 1..];
        }
        self.append(chunk);
    }

    /// Ends the stream.
    pub(super) fn finish(mut self) -> Found {
        self.end_of_line();
        let usages = self.conversations.iter().filter_map(|(_, usage)| *usage);
        Found {
            usage: usages.reduce(Usage::plus),
            conversation: self.conversations.pop().map(|(id, _)| id).filter(|id| !id.is_empty()),
        }
    }

    fn append(&mut self, part: &[u8]) {
        if self.skipping {
            return;
        }
        if self.line.len() + part.len() > MAX_LINE {
            self.skipping = true;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(part);
        }
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !std::mem::take(&mut self.skipping)
            && let Some(json) = undecorated(&line)
        {
            match self.parser {
                UsageParser::CodexJson => self.codex(json),
            }
        }
        // Its memory serves the next line.
        self.line = line;
        self.line.clear();
    }

    /// The usage of a turn is that of its conversation so far, earlier turns included, also when the conversation was
    /// resumed: the newest figure of each conversation counts.
    fn codex(&mut self, json: &[u8]) {
        match serde_json::from_slice(json) {
            Ok(CodexLine::ThreadStarted { thread_id }) => self.enter(thread_id),
            Ok(CodexLine::TurnCompleted { usage }) => {
                let count = |tokens: Option<i64>| tokens.filter(|tokens| *tokens >= 0);
                let so_far = Usage {
                    input_tokens: count(usage.input),
                    output_tokens: count(usage.output),
                    cached_tokens: count(usage.cached),
                    dollars: None,
                    cpu_seconds: None,
                };
                match self.conversations.last_mut() {
                    Some((_, usage)) => *usage = Some(so_far),
                    None => self.conversations.push((String::new(), Some(so_far))),
                }
            }
            Ok(CodexLine::Other) | Err(_) => {}
        }
    }

    fn enter(&mut self, id: String) {
        let is_id = !id.is_empty() && id.len() <= MAX_CONVERSATION && !id.chars().any(char::is_control);
        if !is_id {
            return;
        }
        if let Some(known) = self.conversations.iter().position(|(known, _)| *known == id) {
            let conversation = self.conversations.remove(known);
            self.conversations.push(conversation);
        } else if self.conversations.len() < MAX_CONVERSATIONS {
            self.conversations.push((id, None));
        }
    }
}

/// The JSON object of a line as a terminal would show it: without colours, titles and byte order marks around it, and
/// without what a carriage return has overwritten.
fn undecorated(line: &[u8]) -> Option<&[u8]> {
    let mut rest = after_decoration(line);
    while !rest.starts_with(b"{") {
        let overwritten = memchr::memchr(b'\r', rest)?;
        rest = after_decoration(&rest[overwritten + 1..]);
    }
    let end = memchr::memrchr(b'}', rest)? + 1;
    after_decoration(&rest[end..]).is_empty().then(|| &rest[..end])
}

/// What follows white space and control sequences.
fn after_decoration(mut text: &[u8]) -> &[u8] {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    loop {
        let length = match text {
            [0x1b, b'[', rest @ ..] => 2 + rest.iter().take_while(|byte| matches!(byte, 0x20..=0x3f)).count() + 1,
            // A title or a link: up to BEL or ESC \, of which the last is a sequence of its own.
            [0x1b, b']', rest @ ..] => 2 + rest.iter().take_while(|byte| !matches!(byte, 0x07 | 0x1b)).count(),
            [0x1b, rest @ ..] => 1 + rest.iter().take_while(|byte| matches!(byte, 0x20..=0x2f)).count() + 1,
            [0..=0x20 | 0x7f, ..] => 1,
            _ if text.starts_with(MARK) => MARK.len(),
            _ => return text,
        };
        text = &text[length.min(text.len())..];
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum CodexLine {
    #[serde(rename = "thread.started")]
    ThreadStarted { thread_id: String },
    #[serde(rename = "turn.completed")]
    TurnCompleted { usage: CodexUsage },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct CodexUsage {
    #[serde(rename = "input_tokens")]
    input: Option<i64>,
    #[serde(rename = "cached_input_tokens")]
    cached: Option<i64>,
    #[serde(rename = "output_tokens")]
    output: Option<i64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRANSCRIPT: &str = concat!(
        "starting\n",
        r#"{"type":"thread.started","thread_id":"0199-a"}"#,
        "\n",
        r#"{"type":"turn.started"}"#,
        "\n",
        r#"{"type":"item.completed","item":{"id":"i","type":"agent_message","text":"turn.completed"}}"#,
        "\n",
        r#"{"type":"turn.completed","usage":{"input_tokens":100,"cached_input_tokens":40,"output_tokens":7,"new":1}}"#,
        "\n",
        "{\"type\":\"turn.completed\",\"usage\":\"wrong\"}\n{broken\n",
        r#"{"type":"turn.completed","usage":{"input_tokens":111,"cached_input_tokens":45,"output_tokens":10}}"#,
    );

    fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Found {
        let mut reader = UsageReader::new(UsageParser::CodexJson);
        for chunk in chunks {
            reader.push(chunk);
        }
        reader.finish()
    }

    fn figures(found: &Found) -> (Option<i64>, Option<i64>, Option<i64>) {
        let usage = found.usage.unwrap();
        (usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    }

    #[test]
    fn the_newest_figure_of_a_conversation_counts_and_other_lines_are_skipped() {
        let found = read([TRANSCRIPT.as_bytes()]);
        assert_eq!(figures(&found), (Some(111), Some(45), Some(10)));
        assert_eq!(found.conversation.as_deref(), Some("0199-a"));
        assert_eq!(read([b"no json at all\n".as_slice()]), Found::default());
    }

    #[test]
    fn conversations_are_summed() {
        let other = TRANSCRIPT.replace("0199-a", "0199-b");
        let found = read([TRANSCRIPT, "\n", &other, "\n", TRANSCRIPT].map(str::as_bytes));
        assert_eq!(figures(&found), (Some(222), Some(90), Some(20)));
        assert_eq!(found.conversation.as_deref(), Some("0199-a"));
    }

    #[test]
    fn what_a_real_codex_printed_is_read() {
        let first = include_str!("../../../tests/transcripts/codex/success.jsonl");
        let resumed = include_str!("../../../tests/transcripts/codex/resumed.jsonl");
        let failed = include_str!("../../../tests/transcripts/codex/quota.jsonl");
        assert_eq!(figures(&read([first.as_bytes()])), (Some(3900), Some(2500), Some(120)));
        // The same conversation: its figures grow, they are not added.
        assert_eq!(figures(&read([first, resumed].map(str::as_bytes))), (Some(5400), Some(3900), Some(130)));
        let failed = read([failed.as_bytes()]);
        assert!(failed.usage.is_none() && failed.conversation.is_some());
    }

    #[test]
    fn what_a_terminal_adds_to_a_line_does_not_hide_it() {
        let plain = read([TRANSCRIPT.as_bytes()]);
        assert!(plain.usage.is_some());
        for (before, after) in [
            ("", "\r"),
            ("  \t", "  "),
            ("\u{feff}", ""),
            ("\x1b[2K\r", "\x1b[0m"),
            ("\x1b[1;32m", "\x1b[0m\x1b[K\r"),
            ("\x1b]0;a title {}\x07", ""),
            ("\x1b]8;;https://example.com/{\x1b\\", "\x1b]8;;\x1b\\"),
            ("\x1b(B\x1b7\x1b[?25h", "\x1b8"),
            ("working... 50%\rworking... 100%\r", ""),
            ("\x1b[33mworking\x1b[0m\r\x1b[K", "\x1b[0m"),
        ] {
            let lines: Vec<String> = TRANSCRIPT.lines().map(|line| format!("{before}{line}{after}\n")).collect();
            let text = lines.concat();
            assert_eq!(read([text.as_bytes()]), plain, "{before:?} {after:?}");
        }
        let quoted: Vec<String> = TRANSCRIPT.lines().map(|line| format!("log: {line}\n{line} and more\n")).collect();
        assert_eq!(read([quoted.concat().as_bytes()]), Found::default());
    }

    #[test]
    fn a_line_without_end_is_skipped_and_the_next_is_read() {
        let long = vec![b'{'; 3 * MAX_LINE];
        let found = read([long.as_slice(), b"\n", TRANSCRIPT.as_bytes()]);
        assert!(found.usage.is_some());
    }

    #[test]
    fn absurd_figures_neither_overflow_nor_subtract() {
        let line = format!(
            "{{\"type\":\"turn.completed\",\"usage\":{{\"input_tokens\":{},\"output_tokens\":-5}}}}\n",
            i64::MAX
        );
        let start = |id: u8| format!("{{\"type\":\"thread.started\",\"thread_id\":\"{id}\"}}\n{line}");
        let usage = read([start(1).as_bytes(), start(2).as_bytes()]).usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(i64::MAX), None));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(
            proptest::sample::select(b"\x1b[](B8;?0mK\x07\r {}\\a\xef\xbb\xbf".to_vec()), 0..40)
        ) {
            if let Some(json) = undecorated(&line) {
                prop_assert_eq!((json.first(), json.last()), (Some(&b'{'), Some(&b'}')));
            }
        }

        #[test]
        fn cuts_do_not_matter(size in 1usize..50) {
            prop_assert_eq!(read(TRANSCRIPT.as_bytes().chunks(size)), read([TRANSCRIPT.as_bytes()]));
        }
    }
}
