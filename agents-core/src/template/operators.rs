//! The operators of the engine as filters that pay for what they touch.
//!
//! [`super::metered`] puts them in the place of the engine's own instructions. Their names are signs, so that no
//! template can name them. They answer as the engine does; lists that the engine would join or cut again with every
//! look at them are made once.

use std::{borrow::Cow, fmt::Write as _, sync::Arc};

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Enumerator, Object, ObjectExt as _, ObjectRepr, Rest, StringInput, Tuple, ValueKind},
};

use super::budget::{Budget, LOOKUPS, Paid, SPENT, VALUE, bytes};

/// Pays what a stretch of instructions costs whatever its values are.
pub(super) const PAY: &str = "$";
/// The same of a stretch that prints text of the template.
pub(super) const PAY_AND_PRINT: &str = "$$";
/// Pays for the first look at what is iterated.
pub(super) const OPEN: &str = "->";
pub(super) const CONCAT: &str = "~";
pub(super) const ADD: &str = "+";
pub(super) const IN: &str = "in?";
pub(super) const ITEM: &str = "[]";
pub(super) const SLICE: &str = "[:]";
pub(super) const MAP: &str = "{}";
pub(super) const CYCLE: &str = ".cycle()";
pub(super) const CHANGED: &str = ".changed()";

/// Price of one step through a list.
const ITEM_OF_A_LIST: u64 = 32;

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    NotIn,
}

impl Comparison {
    pub(super) const ALL: [Self; 8] =
        [Self::Eq, Self::Ne, Self::Lt, Self::Lte, Self::Gt, Self::Gte, Self::In, Self::NotIn];

    /// Name of the filter that answers with the result.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::In => IN,
            Self::NotIn => "!in?",
        }
    }

    /// Name of the filter that answers with the result and the right side, for `a < b < c`.
    pub(super) fn in_chain(self) -> &'static str {
        match self {
            Self::Eq => "==,",
            Self::Ne => "!=,",
            Self::Lt => "<,",
            Self::Lte => "<=,",
            Self::Gt => ">,",
            Self::Gte => ">=,",
            Self::In => "in?,",
            Self::NotIn => "!in?,",
        }
    }

    fn holds(self, state: &State<'_, '_>, budget: &Budget, left: &Value, right: &Value) -> Result<bool, Error> {
        defined(state, left)?;
        defined(state, right)?;
        if !matches!(self, Self::In | Self::NotIn) {
            budget.compare(left, right)?;
        }
        Ok(match self {
            Self::Eq => left == right,
            Self::Ne => left != right,
            Self::Lt => left < right,
            Self::Lte => left <= right,
            Self::Gt => left > right,
            Self::Gte => left >= right,
            Self::In => contains(budget, right, left)?,
            Self::NotIn => !contains(budget, right, left)?,
        })
    }
}

/// Gives the environment every operator, each paid from `budget`.
pub(super) fn add_to(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    let b = Arc::clone(budget);
    environment.add_filter(PAY, move |price: u64| b.pay(price).map(|()| true));
    let b = Arc::clone(budget);
    environment.add_filter(PAY_AND_PRINT, move |price: u64, printed: usize| {
        b.pay(price)?;
        b.print(printed).map(|()| true)
    });
    let b = Arc::clone(budget);
    environment.add_filter(OPEN, move |value: &Value| open(&b, value));
    let b = Arc::clone(budget);
    environment.add_filter(CONCAT, move |state: &State<'_, '_>, one: &Value, other: &Value| {
        let (one, other) = (text(state, &b, one)?, text(state, &b, other)?);
        b.pay_each(one.len().saturating_add(other.len()), 2)?;
        Ok(Value::from([one, other].concat()))
    });
    let b = Arc::clone(budget);
    environment.add_filter(ADD, move |one: &Value, other: &Value| add(&b, one, other));
    let b = Arc::clone(budget);
    environment.add_filter(ITEM, move |parent: &Value, key: &Value| item(&b, parent, key));
    let b = Arc::clone(budget);
    environment.add_filter(SLICE, move |value: &Value, start: &Value, end: &Value, step: &Value| {
        slice(&b, value, start, end, step)
    });
    let b = Arc::clone(budget);
    environment.add_filter(MAP, move |members: Rest<Value>| map(&b, &members));
    let b = Arc::clone(budget);
    environment.add_filter(CYCLE, move |state: &mut State<'_, '_>, receiver: &Value, args: Rest<Value>| {
        // The engine divides by their number.
        if args.is_empty() {
            return Err(Error::new(ErrorKind::MissingArgument, "`cycle` takes values"));
        }
        b.pay_each(args.len(), VALUE)?;
        receiver.call_method(state, "cycle", &args)
    });
    let b = Arc::clone(budget);
    environment.add_filter(CHANGED, move |state: &mut State<'_, '_>, receiver: &Value, args: Rest<Value>| {
        args.iter().try_for_each(|value| b.look_at(value, LOOKUPS))?;
        receiver.call_method(state, "changed", &args)
    });
    for comparison in Comparison::ALL {
        let b = Arc::clone(budget);
        environment.add_filter(comparison.name(), move |state: &State<'_, '_>, one: &Value, other: &Value| {
            comparison.holds(state, &b, one, other)
        });
        let b = Arc::clone(budget);
        environment.add_filter(comparison.in_chain(), move |state: &State<'_, '_>, one: &Value, other: &Value| {
            comparison.holds(state, &b, one, other).map(|holds| vec![Value::from(holds), other.clone()])
        });
    }
}

/// Fails as the engine does for a value that is not defined; what a missing `else` leaves is defined enough for it.
fn defined(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_undefined() { StringInput::new(state, value).map(drop) } else { Ok(()) }
}

/// A value as text. Text itself is not paid here: what is done with it is.
pub(super) fn text<'a>(state: &State<'_, '_>, budget: &Budget, value: &'a Value) -> Result<Cow<'a, str>, Error> {
    defined(state, value)?;
    written(budget, value)
}

fn written<'a>(budget: &Budget, value: &'a Value) -> Result<Cow<'a, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    let mut paid = Paid { budget, text: String::new() };
    write!(paid, "{value}").map_err(|_| Error::new(ErrorKind::InvalidOperation, SPENT))?;
    Ok(Cow::Owned(paid.text))
}

/// Characters are counted before they are iterated, and a list is put on the stack as a whole when it is unpacked.
fn open(budget: &Budget, value: &Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => budget.pay_each(text.len(), 1)?,
        None => budget.pay_each(value.len().unwrap_or(0), 1)?,
    }
    Ok(value.clone())
}

fn add(budget: &Budget, one: &Value, other: &Value) -> Result<Value, Error> {
    let impossible = || Error::new(ErrorKind::InvalidOperation, "these values cannot be added");
    if let (Some(one), Some(other)) = (one.as_str(), other.as_str()) {
        budget.pay_each(one.len().saturating_add(other.len()), 2)?;
        return Ok(Value::from([one, other].concat()));
    }
    if is_list(one) && is_list(other) {
        if one.is_tuple() != other.is_tuple() {
            return Err(impossible());
        }
        let mut items = collect(budget, one)?;
        items.append(&mut collect(budget, other)?);
        return Ok(if one.is_tuple() { Value::from(Tuple::from(items)) } else { Made::of(items) });
    }
    let is_float = |value: &Value| value.is_number() && !value.is_integer();
    let sum = if is_float(one) || is_float(other) {
        // A truth is a number for the engine, but not for the conversion of its values.
        let number = |value: &Value| match value.kind() {
            ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
            _ => f64::try_from(value.clone()).ok(),
        };
        number(one).zip(number(other)).map(|(one, other)| Value::from(one + other))
    } else {
        let number = |value: &Value| i128::try_from(value.clone()).ok();
        number(one)
            .zip(number(other))
            .and_then(|(one, other)| one.checked_add(other))
            .map(|sum| i64::try_from(sum).map_or_else(|_| Value::from(sum), Value::from))
    };
    sum.ok_or_else(impossible)
}

/// A sum of lists, or a part of one. The engine does not take it for a list but for something to iterate, which is
/// greater than every list.
#[derive(Debug)]
struct Made(Vec<Value>);

impl Made {
    fn of(items: Vec<Value>) -> Value {
        Value::from_object(Self(items))
    }
}

impl Object for Made {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| Box::new(this.0.iter().cloned()))
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn collect(budget: &Budget, list: &Value) -> Result<Vec<Value>, Error> {
    budget.pay_each(list.len().unwrap_or(0), VALUE)?;
    Ok(list.try_iter()?.collect())
}

fn contains(budget: &Budget, container: &Value, value: &Value) -> Result<bool, Error> {
    if container.is_undefined() {
        return Ok(false);
    }
    if let Some(text) = container.as_str() {
        let wanted = written(budget, value)?;
        budget.pay_each(text.len().saturating_add(wanted.len()), 4)?;
        return Ok(text.contains(&*wanted));
    }
    let impossible = || Error::new(ErrorKind::InvalidOperation, "nothing can be in this value");
    let object = container.as_object().ok_or_else(impossible)?;
    match container.kind() {
        ValueKind::Map => {
            budget.look_at(value, LOOKUPS)?;
            Ok(object.get_value(value).is_some())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in object.try_iter().into_iter().flatten() {
                budget.pay(ITEM_OF_A_LIST)?;
                budget.compare(&item, value)?;
                if item == *value {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

fn item(budget: &Budget, parent: &Value, key: &Value) -> Result<Value, Error> {
    match parent.as_str() {
        Some(text) => budget.pay_each(text.len(), 2)?,
        None => budget.look_at(key, LOOKUPS)?,
    }
    // What is no list is gone through from its beginning.
    if parent.kind() == ValueKind::Iterable {
        budget.pay_each(parent.len().unwrap_or(0), ITEM_OF_A_LIST)?;
    }
    parent.get_item(key)
}

fn slice(budget: &Budget, value: &Value, start: &Value, end: &Value, step: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    if !step.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "a slice with a step is not available"));
    }
    let bound = |bound: &Value| {
        if bound.is_none() { Ok(None) } else { i64::try_from(bound.clone()).map(Some) }
    };
    let (start, end) = (bound(start)?.unwrap_or(0), bound(end)?);
    let range = |length: usize| {
        let at = |bound: i64| match usize::try_from(bound) {
            Ok(bound) => bound.min(length),
            Err(_) => length.saturating_sub(usize::try_from(bound.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        let start = at(start);
        (start, end.map_or(length, at).saturating_sub(start))
    };
    if let Some(text) = value.as_str() {
        budget.pay_each(text.len(), 4)?;
        let (start, count) = range(text.chars().count());
        return Ok(Value::from(text.chars().skip(start).take(count).collect::<String>()));
    }
    if value.is_none() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    if !is_list(value) {
        return Err(Error::new(ErrorKind::InvalidOperation, "this value cannot be cut"));
    }
    let mut items = collect(budget, value)?;
    let (start, count) = range(items.len());
    let items: Vec<Value> = items.drain(start..).take(count).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Made::of(items) })
}

fn map(budget: &Budget, members: &[Value]) -> Result<Value, Error> {
    for key in members.iter().step_by(2) {
        budget.pay(VALUE * 2)?;
        budget.look_at(key, LOOKUPS)?;
    }
    let pairs = members.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    Ok(Value::from_pairs(pairs))
}

/// Pays for a name that is looked for among `names` in each of `frames`.
pub(super) fn lookup(name: &str, frames: usize, names: usize) -> u64 {
    let once =
        u64::from(usize::BITS - names.leading_zeros()).saturating_add(1).saturating_mul(4 + bytes(name.len()) / 8);
    once.saturating_mul(bytes(frames).saturating_add(1))
}
