//! Cron expressions, in the language of Kubernetes' CronJob: five fields, or a word that begins with `@`.
//!
//! Written here rather than taken from a library because the language is a contract: what this room accepts, an API
//! server accepts as a CronJob's schedule (a case against a real one compares them), and both fire at the same minutes.
//! Cron libraries know other languages: seconds, years, `L`, `W`, `#`, Sunday as 7.
//!
//! Refused although a CronJob takes it, each with its own [`CronError`]: what never fires, what would be read as
//! something else than it says, and blanks that are no plain spaces.

mod next;

use std::time::Duration;

/// Longest expression, in bytes.
pub const MAX_CRON_BYTES: usize = 256;

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Longer than [`MAX_CRON_BYTES`].
    #[error("{0} bytes; at most {MAX_CRON_BYTES}")]
    Long(usize),
    /// A blank that looks like a space and is none, as pasted texts have them.
    #[error("{0:?} between the fields: write plain spaces")]
    Blank(char),
    /// Not five fields.
    #[error("{0} fields; cron has five: minute, hour, day of month, month, day of week")]
    FieldCount(usize),
    /// One field is wrong.
    #[error("{part:?} is no {field}: {problem}")]
    Part {
        /// Name of the field.
        field: &'static str,
        /// The list element.
        part: String,
        /// What is wrong with it.
        problem: PartProblem,
    },
    /// A word that begins with `@` and has no meaning.
    #[error("{0:?} is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every DURATION")]
    Word(String),
    /// `@every` without a duration.
    #[error("{0:?} is no duration such as 90m or 1h30m")]
    Duration(String),
    /// The zone of a schedule has a field of its own.
    #[error("a time zone does not belong into the expression: give it in timezone")]
    Zone,
    /// A CronJob takes it and fires each second.
    #[error("@every needs at least one second")]
    TooOften,
    /// A CronJob takes it and never fires.
    #[error("no date is ever like that, so it never fires")]
    Never,
}

/// What is wrong with one element of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartProblem {
    /// Neither a number nor a name.
    #[error("neither a number nor a name that it has")]
    NotANumber,
    /// A number outside the field.
    #[error("from {0} to {1} is allowed")]
    OutOfRange(u32, u32),
    /// A range whose end lies before its start.
    #[error("the range ends before it starts")]
    Reversed,
    /// More than one `-` or `/`.
    #[error("one range and one step at most")]
    Nested,
    /// A step of zero.
    #[error("a step is at least 1")]
    ZeroStep,
    /// A CronJob takes it and drops the end of the range.
    #[error("a star is a whole range already")]
    StarRange,
}

/// When something fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron(Fires);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fires {
    /// At minutes of the calendar.
    Calendar(Calendar),
    /// Again and again after the same time, at least a second.
    Every(Duration),
}

/// Minutes of the calendar; each field is a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether one of the two kinds of day was left open. Then a date must fit both, else either.
    both_days: bool,
}

/// A field: its name, its bounds, the names of its values from the lowest on.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[] };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[] };
const DAY: Field = Field { name: "day of month", low: 1, high: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAY: Field =
    Field { name: "day of week", low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is none, or it can never fire.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > MAX_CRON_BYTES {
            return Err(CronError::Long(text.len()));
        }
        let plain = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c');
        if let Some(blank) = text.chars().find(|c| c.is_whitespace() && !plain(*c)) {
            return Err(CronError::Blank(blank));
        }
        if text.contains("TZ") {
            return Err(CronError::Zone);
        }
        if text.starts_with('@') {
            return word(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else { return Err(CronError::FieldCount(fields.len())) };
        let (minutes, _) = MINUTE.read(minute)?;
        let (hours, _) = HOUR.read(hour)?;
        let (days, any_day) = DAY.read(day)?;
        let (months, _) = MONTH.read(month)?;
        let (weekdays, any_weekday) = WEEKDAY.read(weekday)?;
        let calendar = Calendar { minutes, hours, days, months, weekdays, both_days: any_day || any_weekday };
        if calendar.comes() { Ok(Self(Fires::Calendar(calendar))) } else { Err(CronError::Never) }
    }
}

impl Calendar {
    /// Whether any date is like that.
    fn comes(&self) -> bool {
        let Self { minutes, hours, days, months, weekdays, both_days } = *self;
        let some_date = (1..=12).any(|month| {
            let longest = match month {
                2 => 29,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            months & (1 << month) != 0 && (1..=longest).any(|day| days & (1 << day) != 0)
        });
        // A day left open has every bit, so that a date that fits the other one fits both some day.
        let some_day = if both_days { some_date && weekdays != 0 } else { some_date || (weekdays != 0 && months != 0) };
        minutes != 0 && hours != 0 && some_day
    }
}

impl Field {
    /// The values that the text of a field means, as bits, and whether it leaves the field open.
    fn read(&self, text: &str) -> Result<(u64, bool), CronError> {
        let (mut bits, mut open) = (0, false);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (more, star) = self.part(part).map_err(|problem| CronError::Part {
                field: self.name,
                part: part.to_owned(),
                problem,
            })?;
            bits |= more;
            open |= star;
        }
        Ok((bits, open))
    }

    fn part(&self, part: &str) -> Result<(u64, bool), PartProblem> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((_, step)) if step.contains('/') => return Err(PartProblem::Nested),
            Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| PartProblem::NotANumber)?)),
        };
        let (from, to) = match range.split_once('-') {
            None => (range, None),
            Some(("*" | "?", _)) => return Err(PartProblem::StarRange),
            Some((_, to)) if to.contains('-') => return Err(PartProblem::Nested),
            Some((from, to)) => (from, Some(to)),
        };
        let star = matches!(from, "*" | "?");
        let low = if star { self.low } else { self.value(from)? };
        let high = match to {
            Some(to) => self.value(to)?,
            // `5/10` means from 5 on, in steps of 10.
            None if star || step.is_some() => self.high,
            None => low,
        };
        if low < self.low || high > self.high {
            return Err(PartProblem::OutOfRange(self.low, self.high));
        }
        if low > high {
            // The start alone may be beyond the field, as in `70/5`.
            return Err(if low > self.high {
                PartProblem::OutOfRange(self.low, self.high)
            } else {
                PartProblem::Reversed
            });
        }
        let step = step.unwrap_or(1);
        let every = usize::try_from(step).ok().filter(|step| *step > 0).ok_or(PartProblem::ZeroStep)?;
        Ok(((low..=high).step_by(every).fold(0, |bits, value| bits | 1 << value), star && step == 1))
    }

    fn value(&self, text: &str) -> Result<u32, PartProblem> {
        match (self.low..).zip(self.names).find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            Some((value, _)) => Ok(value),
            None => text.parse().map_err(|_| PartProblem::NotANumber),
        }
    }
}

fn word(text: &str) -> Result<Cron, CronError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let written = text.strip_prefix("@every ").ok_or_else(|| CronError::Word(text.to_owned()))?;
            let nanoseconds = duration(written).ok_or_else(|| CronError::Duration(written.to_owned()))?;
            let every = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0);
            if every == 0 {
                return Err(CronError::TooOften);
            }
            return Ok(Cron(Fires::Every(Duration::from_secs(every))));
        }
    };
    Cron::parse(fields)
}

/// Nanoseconds of a duration as Go writes it: numbers with units, such as `1h30m` or `-1.5h`.
fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60 * 1_000_000_000),
        ("h", 3_600 * 1_000_000_000),
    ];
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (whole, fraction) = match rest[..number].split_once('.') {
            None => (&rest[..number], ""),
            Some((_, fraction)) if fraction.contains('.') => return None,
            Some(parts) => parts,
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == &rest[..unit])?;
        rest = &rest[unit..];
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*nanoseconds)?)?;
        let mut place = *nanoseconds;
        for digit in fraction.bytes() {
            place /= 10;
            total = total.checked_add(place.checked_mul(i64::from(digit - b'0'))?)?;
        }
    }
    total.checked_mul(sign)
}

#[cfg(test)]
mod tests;
