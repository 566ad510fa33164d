//! The filters that templates may use, each with a bound on what it is given and what it makes, and paid by its bytes.

use std::{borrow::Cow, io, sync::Arc};

use minijinja::{
    Environment, Error, ErrorKind, State, Value, filters,
    value::{Kwargs, StringInput, ValueKind},
};
use serde::Serialize;

use super::{
    MAX_RENDERED_BYTES,
    budget::{Budget, SPENT, VALUE, bytes},
    operators,
};

/// Detail of the error that says that a bound was passed.
pub(super) const TOO_LARGE: &str = "a filter is given or makes too much";
/// Most lines that `lines` makes: each takes many times the space of an empty line.
const MAX_LINES: usize = 64 * 1024;
/// Widest indentation of `tojson`.
const MAX_INDENT: usize = 16;
/// Price of a byte that becomes JSON, or of which the case is changed.
const TRANSFORMED: u64 = 8;
/// Price, besides, of one of a character beyond ASCII: its case stands in tables, and may depend on those around it.
const BEYOND_ASCII: u64 = 32;
/// Price of a byte that is escaped where the template asks for that: it becomes up to six.
pub(super) const ESCAPED: usize = 8;

/// Gives the environment every filter, each paid from `budget`.
pub(super) fn add_to(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    for name in ["default", "d"] {
        environment.add_filter(name, default_filter);
    }
    environment.add_filter("first", filters::first);
    let b = Arc::clone(budget);
    environment.add_filter("last", move |value: Value| {
        if value.kind() == ValueKind::Seq {
            return value.get_item(&Value::from(-1));
        }
        // Others are turned around for it.
        if value.as_str().is_none() {
            b.pay_each(value.len().unwrap_or(0), VALUE)?;
        }
        filters::last(value)
    });
    let b = Arc::clone(budget);
    environment.add_filter("length", move |value: &Value| {
        b.pay_each(value.as_str().map_or(0, str::len), 1)?;
        filters::length(value)
    });
    let b = Arc::clone(budget);
    environment.add_filter("tojson", move |value: &Value, indent: Option<Value>, options: Kwargs| {
        tojson(&b, value, indent, options)
    });
    for (name, change) in [("lower", filters::lower as fn(StringInput<'_>) -> Value), ("upper", filters::upper)] {
        let b = Arc::clone(budget);
        environment.add_filter(name, move |state: &State<'_, '_>, value: &Value| {
            let text = text(state, &b, value, TRANSFORMED)?;
            let beyond = text.as_str().map_or(0, |text| text.bytes().filter(|byte| !byte.is_ascii()).count());
            b.pay_each(beyond, BEYOND_ASCII)?;
            let changed = change(StringInput::new(state, &text)?);
            fits(&changed).map(|()| changed.clone())
        });
    }
    let b = Arc::clone(budget);
    environment.add_filter("trim", move |state: &State<'_, '_>, value: &Value| {
        let text = text(state, &b, value, 4)?;
        Ok(filters::trim(StringInput::new(state, &text)?, None))
    });
    let b = Arc::clone(budget);
    environment.add_filter("lines", move |value: &Value| lines(&b, value));
    let b = Arc::clone(budget);
    environment.add_filter(
        "join",
        move |state: &mut State<'_, '_>,
              value: &Value,
              joiner: Option<Value>,
              attribute: Option<&str>,
              options: Kwargs| { join(&b, state, value, joiner, attribute, options) },
    );
}

/// `default` with the empty string counted as absent, because declared-optional names are filled in with it.
fn default_filter(_: &State<'_, '_>, value: &Value, other: Option<Value>) -> Value {
    if value.is_undefined() || value.is_none() || value.as_str() == Some("") {
        other.unwrap_or_else(|| Value::from(""))
    } else {
        value.clone()
    }
}

fn tojson(budget: &Budget, value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let asked = match &indent {
        Some(indent) => Some(indent.clone()),
        None => options.peek::<Option<Value>>("indent").ok().flatten(),
    };
    // `true` is two.
    let width = match asked {
        Some(asked) if asked.kind() == ValueKind::Bool => usize::from(asked.is_true()) * 2,
        Some(asked) => usize::try_from(asked)?,
        None => 0,
    };
    if width > MAX_INDENT {
        return Err(too_large());
    }
    let mut room = Room { left: MAX_RENDERED_BYTES, budget };
    let written = if width > 0 {
        let spaces = [b' '; MAX_INDENT];
        let formatter = serde_json::ser::PrettyFormatter::with_indent(&spaces[..width]);
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut room, formatter))
    } else {
        serde_json::to_writer(&mut room, value)
    };
    match written {
        Ok(()) => filters::tojson(value, indent, options),
        Err(_) if budget.is_over() => Err(spent()),
        Err(error) if error.is_io() => Err(too_large()),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, "cannot serialize to JSON")),
    }
}

fn join(
    budget: &Budget,
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<Value>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let asked = joiner.or_else(|| options.peek::<Option<Value>>("d").ok().flatten());
    let joiner = asked.map(|joiner| text(state, budget, &joiner, 1)).transpose()?;
    let between = joiner.as_ref().and_then(Value::as_str).map_or(0, str::len);
    let price = match state.auto_escape() {
        minijinja::AutoEscape::None => 2,
        _ => bytes(ESCAPED),
    };
    let mut left = MAX_RENDERED_BYTES;
    if let Some(text) = value.as_str() {
        budget.pay_each(text.len(), 1)?;
    }
    // What cannot be iterated has an error of its own.
    for item in value.try_iter().into_iter().flatten() {
        budget.pay(VALUE)?;
        let text = match item.as_str() {
            Some(text) => text.len(),
            None => text(state, budget, &item, 1)?.as_str().map_or(0, str::len),
        };
        left = left.checked_sub(text.saturating_add(between)).ok_or_else(too_large)?;
        budget.pay_each(text.saturating_add(between), price)?;
    }
    let joiner = joiner.as_ref().map(|joiner| StringInput::new(state, joiner)).transpose()?;
    filters::join(state, value, joiner, attribute, options)
}

fn lines(budget: &Budget, value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        fits(value)?;
        budget.pay_each(text.len(), 4)?;
        let lines = text.lines().count();
        if lines > MAX_LINES {
            return Err(too_large());
        }
        budget.pay_each(lines, VALUE * 2)?;
    }
    filters::lines(value)
}

/// A value as text of at most as many bytes as a template may print, paid with `price` for each.
fn text(state: &State<'_, '_>, budget: &Budget, value: &Value, price: u64) -> Result<Value, Error> {
    let text = match operators::text(state, budget, value)? {
        Cow::Borrowed(_) => value.clone(),
        Cow::Owned(text) => Value::from(text),
    };
    fits(&text)?;
    budget.pay_each(text.as_str().map_or(0, str::len), price)?;
    Ok(text)
}

fn fits(text: &Value) -> Result<(), Error> {
    if text.as_str().is_some_and(|text| text.len() > MAX_RENDERED_BYTES) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, TOO_LARGE)
}

fn spent() -> Error {
    Error::new(ErrorKind::InvalidOperation, SPENT)
}

/// Counts and pays the JSON that the engine will write, with its spaces and escapes, before it is made.
struct Room<'a> {
    left: usize,
    budget: &'a Budget,
}

impl io::Write for Room<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let room = |byte: &u8| match byte {
            b'<' | b'>' | b'&' | b'\'' => 6,
            b',' | b':' => 2,
            _ => 1,
        };
        let taken: usize = text.iter().map(room).sum();
        let left = self.left.checked_sub(taken).filter(|_| self.budget.take(bytes(taken).saturating_mul(TRANSFORMED)));
        self.left = left.ok_or(io::ErrorKind::StorageFull)?;
        Ok(text.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
