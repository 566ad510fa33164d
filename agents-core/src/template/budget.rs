//! What the templates of one plan may cost together, counted in bytes.
//!
//! Everything is paid before it is done: a byte that is read or made costs one, more where it is slow; a value and an
//! instruction cost what as many bytes take. So the price of a rendering follows from its templates and its values
//! alone, and whoever admits a plan knows what rendering it again will take.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use minijinja::{Error, ErrorKind, Value, value::ValueKind};

use super::MAX_RENDERED_BYTES;

/// Most that all templates of a plan may cost together, in bytes that are touched.
pub const MAX_COST: u64 = 32 * 1024 * 1024;

/// Detail of the error that says that nothing is left.
pub(super) const SPENT: &str = "the budget is spent";
/// Detail of the error that says that one template prints too much.
pub(super) const PRINTS_TOO_MUCH: &str = "the template prints too much";

/// A value, besides its bytes: to look at, to make, to drop.
pub(super) const VALUE: u64 = 64;
/// How often a key is compared in the largest map that there can be.
pub(super) const LOOKUPS: u64 = 16;

/// What is left for the templates of one plan, or of one object that is checked.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    left: AtomicU64,
    /// Whether something was asked for that was not left.
    over: AtomicBool,
    printed: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_COST)
    }
}

impl Budget {
    pub(super) fn new(most: u64) -> Self {
        Self { most, left: most.into(), over: false.into(), printed: 0.into() }
    }

    /// What has been paid, in bytes; all of it once something was too much.
    pub fn spent(&self) -> u64 {
        self.most.saturating_sub(self.left.load(Ordering::Relaxed))
    }

    /// What was too much, for people.
    pub(super) fn problem(&self) -> String {
        format!("costs too much: all templates together may touch {} bytes", self.most)
    }

    /// Takes `price`, or says that there is not that much: then there is nothing left.
    pub(super) fn take(&self, price: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed).checked_sub(price);
        self.left.store(left.unwrap_or(0), Ordering::Relaxed);
        if left.is_none() {
            self.over.store(true, Ordering::Relaxed);
        }
        left.is_some()
    }

    /// Whether something was too much, which has been said where it was.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn pay(&self, price: u64) -> Result<(), Error> {
        if self.take(price) { Ok(()) } else { Err(Error::new(ErrorKind::InvalidOperation, SPENT)) }
    }

    /// Pays `each` for every one of `count`.
    pub(super) fn pay_each(&self, count: usize, each: u64) -> Result<(), Error> {
        self.pay(bytes(count).saturating_mul(each))
    }

    /// Begins to count what one template prints.
    pub(super) fn begin(&self) {
        self.printed.store(0, Ordering::Relaxed);
    }

    /// Pays for text that is printed, and counts it.
    pub(super) fn print(&self, length: usize) -> Result<(), Error> {
        self.pay_each(length, 1)?;
        let printed = self.printed.load(Ordering::Relaxed).saturating_add(bytes(length));
        self.printed.store(printed, Ordering::Relaxed);
        if printed > bytes(MAX_RENDERED_BYTES) {
            return Err(Error::new(ErrorKind::InvalidOperation, PRINTS_TOO_MUCH));
        }
        Ok(())
    }

    /// Pays for a look at every byte of a value and of all that is in it, `times` times.
    pub(super) fn look_at(&self, value: &Value, times: u64) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return self.pay(VALUE.saturating_add(bytes(text.len()).saturating_mul(times)));
        }
        self.pay(VALUE.saturating_mul(times))?;
        let Some(object) = value.as_object() else { return Ok(()) };
        if value.kind() == ValueKind::Map {
            for (key, member) in object.try_iter_pairs().into_iter().flatten() {
                self.look_at(&key, times)?;
                self.look_at(&member, times)?;
            }
        } else {
            for item in object.try_iter().into_iter().flatten() {
                self.look_at(&item, times)?;
            }
        }
        Ok(())
    }

    /// Pays for the comparison of two values.
    pub(super) fn compare(&self, one: &Value, other: &Value) -> Result<(), Error> {
        match (one.as_str(), other.as_str()) {
            (Some(one), Some(other)) => self.pay_each(one.len().min(other.len()), 1),
            (None, None) if one.as_object().is_some() && other.as_object().is_some() => {
                self.look_at(one, LOOKUPS)?;
                self.look_at(other, LOOKUPS)
            }
            _ => Ok(()),
        }
    }
}

/// A number of bytes as a price.
pub(super) fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Text that is paid while it is written.
pub(super) struct Paid<'a> {
    pub(super) budget: &'a Budget,
    pub(super) text: String,
}

impl fmt::Write for Paid<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.budget.take(VALUE.saturating_add(bytes(text.len()).saturating_mul(2))) {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}
