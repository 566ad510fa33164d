//! The filters whose results can be much larger than what they are given, with a bound on both.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io,
};

use minijinja::{
    Error, ErrorKind, State, Value, filters,
    value::{Kwargs, StringInput},
};
use serde::Serialize;

use super::MAX_RENDERED_BYTES;

/// Detail of the error that says that a bound was passed.
pub(super) const TOO_LARGE: &str = "a filter is given or makes too much";
/// Most lines that `lines` makes: each takes many times the space of an empty line.
const MAX_LINES: usize = 64 * 1024;
/// Most characters that `trim` takes off: it looks at each of them for every character of the text.
const MAX_TRIMMED: usize = 256;
/// Widest indentation of `tojson`.
const MAX_INDENT: usize = 16;

pub(super) fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let asked = match &indent {
        Some(indent) => Some(indent.clone()),
        None => options.peek::<Option<Value>>("indent").ok().flatten(),
    };
    // `true` is two.
    let width = match asked {
        Some(asked) if asked.kind() == minijinja::value::ValueKind::Bool => usize::from(asked.is_true()) * 2,
        Some(asked) => usize::try_from(asked)?,
        None => 0,
    };
    if width > MAX_INDENT {
        return Err(too_large());
    }
    let mut room = Room { left: MAX_RENDERED_BYTES, json: true };
    let written = if width > 0 {
        let spaces = [b' '; MAX_INDENT];
        let formatter = serde_json::ser::PrettyFormatter::with_indent(&spaces[..width]);
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut room, formatter))
    } else {
        serde_json::to_writer(&mut room, value)
    };
    match written {
        Ok(()) => filters::tojson(value, indent, options),
        Err(error) if error.is_io() => Err(too_large()),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, "cannot serialize to JSON")),
    }
}

pub(super) fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let between = match &joiner {
        Some(joiner) => joiner.as_str().len(),
        None => options.peek::<Option<Cow<'_, str>>>("d").ok().flatten().map_or(0, |joiner| joiner.len()),
    };
    let mut room = Room { left: MAX_RENDERED_BYTES, json: false };
    // What cannot be iterated has an error of its own.
    for item in value.try_iter().into_iter().flatten() {
        room.take(between).and_then(|()| write!(room, "{item}")).map_err(|_| too_large())?;
    }
    filters::join(state, value, joiner, attribute, options)
}

pub(super) fn upper(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    bounded(&filters::upper(text(state, value)?))
}

pub(super) fn lower(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    bounded(&filters::lower(text(state, value)?))
}

pub(super) fn trim(state: &State<'_, '_>, value: &Value, chars: Option<Cow<'_, str>>) -> Result<Value, Error> {
    if chars.as_ref().is_some_and(|chars| chars.len() > MAX_TRIMMED) {
        return Err(too_large());
    }
    Ok(filters::trim(text(state, value)?, chars))
}

pub(super) fn lines(value: &Value) -> Result<Value, Error> {
    fits(value)?;
    if value.as_str().is_some_and(|text| text.lines().count() > MAX_LINES) {
        return Err(too_large());
    }
    filters::lines(value)
}

fn text<'a>(state: &State<'_, '_>, value: &'a Value) -> Result<StringInput<'a>, Error> {
    fits(value)?;
    StringInput::new(state, value)
}

fn bounded(value: &Value) -> Result<Value, Error> {
    fits(value).map(|()| value.clone())
}

/// Whether a value as text is small enough.
fn fits(value: &Value) -> Result<(), Error> {
    let mut room = Room { left: MAX_RENDERED_BYTES, json: false };
    match value.as_str() {
        Some(text) => room.take(text.len()),
        None => write!(room, "{value}"),
    }
    .map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, TOO_LARGE)
}

/// Counts what is written and fails when it is too much, so that nothing is made to be measured.
struct Room {
    left: usize,
    /// Whether it is JSON, which the engine writes with more spaces and escapes.
    json: bool,
}

impl Room {
    fn take(&mut self, bytes: usize) -> fmt::Result {
        self.left = self.left.checked_sub(bytes).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl fmt::Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.len())
    }
}

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let cost = |byte: &u8| match byte {
            b'<' | b'>' | b'&' | b'\'' => 6,
            b',' | b':' => 2,
            _ => 1,
        };
        let taken = if self.json { bytes.iter().map(cost).sum() } else { bytes.len() };
        self.take(taken).map_err(|_| io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
