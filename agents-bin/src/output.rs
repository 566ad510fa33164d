//! The one way of every command to standard output and standard error.
//!
//! All of a text is written, however long its reader takes. A reader that has gone away (`| head`) has seen enough:
//! the stream is quiet from then on and the command goes on. Anything else that keeps a stream from taking a text is
//! remembered, told on the other stream at the end, and no success.

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
};

use agents_core::hidden::visible_lines;
use agents_runtime::pipes;

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output: results.
    Out,
    /// Standard error: everything said beside them.
    Err,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "standard output",
            Self::Err => "standard error",
        }
    }

    fn state(self) -> MutexGuard<'static, State> {
        static OUT: Mutex<State> = Mutex::new(State::Open);
        static ERR: Mutex<State> = Mutex::new(State::Open);
        // A text is written under the lock, so that no two mix.
        match self {
            Self::Out => OUT.lock(),
            Self::Err => ERR.lock(),
        }
        .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(self) -> bool {
        match self {
            Self::Out => io::stdout().is_terminal(),
            Self::Err => io::stderr().is_terminal(),
        }
    }

    /// Whether it is a terminal that can move its cursor.
    pub(crate) fn is_drawable(self) -> bool {
        self.is_terminal() && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
    }

    /// Whether text for it may be coloured.
    pub(crate) fn is_coloured(self) -> bool {
        self.is_drawable() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// What became of a stream.
#[derive(Debug)]
enum State {
    Open,
    /// Nobody reads it any more.
    Unread,
    /// It took a text not or not whole.
    Failed(io::Error),
}

/// Writes a text, whole. Waits for its reader.
pub(crate) fn write(stream: Stream, text: &str) {
    write_bytes(stream, text.as_bytes());
}

/// Writes a text and ends its line.
pub(crate) fn line(stream: Stream, text: &str) {
    write(stream, &format!("{text}\n"));
}

fn write_bytes(stream: Stream, bytes: &[u8]) {
    let mut state = stream.state();
    if matches!(*state, State::Unread) {
        return;
    }
    let written = match stream {
        Stream::Out => pipes::write_all(io::stdout(), bytes),
        Stream::Err => pipes::write_all(io::stderr(), bytes),
    };
    match (written, &*state) {
        (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => *state = State::Unread,
        // A disk that was full may have room again, and what is lost stays lost: the first cause is told.
        (Err(error), State::Open) => *state = State::Failed(error),
        (Ok(()) | Err(_), _) => {}
    }
}

/// Prints an error with its causes and a hint.
pub(crate) fn explain(error: &anyhow::Error, hint: Option<&str>) {
    line(Stream::Err, &format!("error: {}", visible_lines(&error.to_string())));
    for cause in error.chain().skip(1) {
        line(Stream::Err, &format!("  because: {}", visible_lines(&cause.to_string())));
    }
    if let Some(hint) = hint {
        line(Stream::Err, &format!("hint: {hint}"));
    }
}

/// The exit code of a command that wanted to end with `code`: `if_unsaid` when it could not say all it had to say.
pub(crate) fn end(code: ExitCode, if_unsaid: u8) -> ExitCode {
    let mut unsaid = false;
    for (stream, other) in [(Stream::Out, Stream::Err), (Stream::Err, Stream::Out)] {
        let problem = match &*stream.state() {
            State::Failed(error) => format!("error: {} did not take everything: {error}", stream.name()),
            State::Open | State::Unread => continue,
        };
        unsaid = true;
        // Standard output belongs to results, which a program may read.
        if other == Stream::Err || other.is_terminal() {
            line(other, &problem);
        }
    }
    if unsaid && code == ExitCode::SUCCESS { ExitCode::from(if_unsaid) } else { code }
}

/// The program's own log, on standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_bytes(Stream::Err, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
