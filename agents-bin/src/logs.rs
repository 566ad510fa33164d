//! Logs on standard error: one line per event, whatever stands in it. What others wrote reaches logs as causes and
//! messages, and must not look like lines of ours or give orders to a terminal. So they have no colours either: the
//! escapes of a value could not be told from ours.

use std::{
    env,
    io::{self, Write},
};

use agents_core::hidden::visible;
use anyhow::{Context as _, Result, bail};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::output;

/// The variable that says what is logged.
const VARIABLE: &str = "RUST_LOG";
/// What may be logged of a program or one of its modules.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What is logged, by `RUST_LOG`, or by `unsaid` where that says nothing.
///
/// # Errors
/// It cannot be read. The library takes a word that is no level for the name of a module, and logs nothing else.
pub(crate) fn filter(unsaid: &str) -> Result<EnvFilter> {
    match env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => read(&text),
        Ok(_) | Err(env::VarError::NotPresent) => read(unsaid),
        Err(env::VarError::NotUnicode(_)) => bail!("{VARIABLE} is no text"),
    }
}

fn read(text: &str) -> Result<EnvFilter> {
    let parts: Vec<&str> = parts(text).into_iter().map(str::trim).collect();
    for part in &parts {
        let module = part.find(['[', '=']).map_or("", |end| &part[..end]);
        // A span may have an `=` of its own.
        let level = match part.rsplit_once([']', '=']) {
            Some((_, "")) if part.ends_with(']') => LEVELS[0],
            Some((_, level)) => level,
            None => *part,
        };
        let is_module = module.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'));
        if !is_module || !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            bail!(
                "{VARIABLE}: {part:?} in {text:?} is no level: write {}, or a module and one of them, as in \
                 info,agents_kube=debug",
                LEVELS.join(", ")
            );
        }
    }
    EnvFilter::try_new(parts.join(",")).with_context(|| format!("{VARIABLE}: {text:?} cannot be read"))
}

/// What stands between the commas that are in no brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

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
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for good in ["info", "Info", "info,agents_kube=debug", "off, kube=warn ", "[run{name=a}]=trace,warn", "[run]"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["inof", "agents_kube", "info,agents_kube=debgu", "info,", "agents_kube=", "=", "info agents=debug"]
        {
            let error = read(bad).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("off, error, warn, info, debug, trace"), "{bad}: {error}");
        }
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
