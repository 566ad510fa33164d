//! When an expression fires next, in a time zone with its jumps.
//!
//! A fixed time that does not exist fires at the first minute that does; one that comes twice fires the first time
//! only. An expression whose hours are all hours means every such minute of real time: it fires in both of two equal
//! hours, and makes nothing up for an hour that does not exist.

use jiff::{
    SignedDuration, Timestamp, ToSpan as _,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

use super::{Calendar, Cron, Fires};

/// Longest wait for a date: the 29th of February across a century that has no leap day.
const MOST_DAYS: i32 = 366 * 8 + 2;
/// How far from a jump of the clock civil times may be out of order; a zone has left out whole days.
const NEAR_A_JUMP: SignedDuration = SignedDuration::from_hours(26);
const ALL_HOURS: u64 = (1 << 24) - 1;

impl Cron {
    /// The first time after `after` at which it fires in `zone`; `@every` counts from `anchor`.
    ///
    /// `None` only at the end of representable time.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone, anchor: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Fires::Calendar(calendar) => calendar.next_after(after, zone),
            Fires::Every(every) => {
                let step = i128::try_from(every.as_nanos()).ok()?;
                let passed = after.as_nanosecond() - anchor.as_nanosecond();
                let ticks = if passed < 0 { 1 } else { passed / step + 1 };
                Timestamp::from_nanosecond(anchor.as_nanosecond().checked_add(ticks.checked_mul(step)?)?).ok()
            }
        }
    }
}

impl Calendar {
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let civil = zone.to_datetime(after);
        let jumps = |from: Timestamp, to: Timestamp| {
            zone.following(from).take_while(|jump| jump.timestamp() <= to).next().is_some()
        };
        let (before, beyond) = (after.saturating_sub(NEAR_A_JUMP).ok()?, after.saturating_add(NEAR_A_JUMP).ok()?);
        if !jumps(before, beyond) {
            return self.first_after(after, civil, zone);
        }
        // Near a jump the order of civil times is not the order of their moments.
        let until = civil.checked_add(NEAR_A_JUMP).ok()?;
        let near = self
            .minutes_from(civil.checked_sub(NEAR_A_JUMP).ok()?)
            .take_while(|minute| *minute <= until)
            .flat_map(|minute| self.moments(minute, zone))
            .filter(|moment| *moment > after)
            .min();
        near.or_else(|| self.first_after(after, until, zone))
    }

    fn first_after(&self, after: Timestamp, from: DateTime, zone: &TimeZone) -> Option<Timestamp> {
        self.minutes_from(from).flat_map(|minute| self.moments(minute, zone)).find(|moment| *moment > after)
    }

    /// The minutes of the wall clock from `from` on, `from` included.
    fn minutes_from(&self, from: DateTime) -> impl Iterator<Item = DateTime> {
        let Self { minutes, hours, .. } = *self;
        (0..=MOST_DAYS)
            .map_while(move |days| from.date().checked_add(days.days()).ok())
            .filter(|date| self.has(*date))
            .flat_map(move |date| {
                values(hours).flat_map(move |hour| values(minutes).map(move |minute| date.at(hour, minute, 0, 0)))
            })
            .filter(move |minute| *minute >= from)
    }

    fn has(&self, date: Date) -> bool {
        let day = self.days & (1 << date.day()) != 0;
        let weekday = self.weekdays & (1 << date.weekday().to_sunday_zero_offset()) != 0;
        let right_day = if self.both_days { day && weekday } else { day || weekday };
        right_day && self.months & (1 << date.month()) != 0
    }

    /// The moments at which the wall clock's `minute` fires: one, or two, or none.
    fn moments(&self, minute: DateTime, zone: &TimeZone) -> impl Iterator<Item = Timestamp> + use<> {
        let real_time = self.hours == ALL_HOURS;
        let moments = match zone.to_ambiguous_timestamp(minute).offset() {
            AmbiguousOffset::Unambiguous { offset } => [offset.to_timestamp(minute).ok(), None],
            AmbiguousOffset::Fold { before, after } => {
                [before.to_timestamp(minute).ok(), after.to_timestamp(minute).ok().filter(|_| real_time)]
            }
            AmbiguousOffset::Gap { .. } if real_time => [None, None],
            AmbiguousOffset::Gap { before, .. } => {
                let late = before.to_timestamp(minute).ok().and_then(|late| late.checked_add(1.second()).ok());
                [late.and_then(|late| zone.preceding(late).next()).map(|jump| jump.timestamp()), None]
            }
        };
        moments.into_iter().flatten()
    }
}

/// The values whose bits are set, ascending.
fn values(bits: u64) -> impl Iterator<Item = i8> {
    (0..60_i8).filter(move |value| bits & (1 << value) != 0)
}
