//! Logs on standard error: one line per event, whatever stands in it. What others wrote reaches logs as causes and
//! messages, and must not look like lines of ours or give orders to a terminal. So they have no colours either: the
//! escapes of a value could not be told from ours.

use std::io::{self, Write};

use agents_core::hidden::visible;
use tracing_subscriber::fmt::MakeWriter;

use crate::output;

/// Where an event is written: as one line of standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = Line<output::Log>;

    fn make_writer(&self) -> Self::Writer {
        Line(output::Log)
    }
}

/// Writes each block it is given, which is an event, as one line.
#[derive(Debug)]
pub(crate) struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
        self.0.write_all(format!("{}\n", visible(&text)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Line<Self>;

        fn make_writer(&self) -> Self::Writer {
            Line(self.clone())
        }
    }

    /// What an event with this text becomes.
    fn logged(text: &str) -> String {
        let kept = Kept::default();
        let logs = tracing_subscriber::fmt().with_ansi(false).with_writer(kept.clone()).finish();
        tracing::subscriber::with_default(logs, || tracing::warn!(cause = %text, known = ?text, "it failed: {text}"));
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_and_gives_a_terminal_no_orders() {
        let evil = "x\n2026-01-01T00:00:00Z  INFO agents: all is well\r\u{1b}[2K\u{9b}1A\u{202e}\u{200b}\0";
        let line = logged(evil);
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.ends_with('\n') && line.contains("it failed: x"), "{line:?}");
        for character in ['\r', '\u{1b}', '\u{9b}', '\u{202e}', '\u{200b}', '\0'] {
            assert!(!line.contains(character), "{line:?}");
        }
    }

    #[test]
    fn what_is_harmless_is_logged_as_it_is() {
        assert!(logged("größe 😀 a\tb").contains("it failed: größe 😀 a\tb"));
    }
}
