use jiff::{Timestamp, Unit, tz::TimeZone};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::timezone;

fn problem(text: &str) -> String {
    Cron::parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_named() {
    for (text, said) in [
        ("", "0 fields; cron has five: minute, hour, day of month, month, day of week"),
        ("* * * * * *", "6 fields; cron has five: minute, hour, day of month, month, day of week"),
        ("60 * * * *", "\"60\" is no minute: from 0 to 59 is allowed"),
        ("* 24/2 * * *", "\"24/2\" is no hour: from 0 to 23 is allowed"),
        ("* * 0 * *", "\"0\" is no day of month: from 1 to 31 is allowed"),
        ("* * * jun-jan *", "\"jun-jan\" is no month: the range ends before it starts"),
        ("* * * * 7", "\"7\" is no day of week: from 0 to 6 is allowed"),
        ("* * * * 5L", "\"5L\" is no day of week: neither a number nor a name that it has"),
        ("*/0 * * * *", "\"*/0\" is no minute: a step is at least 1"),
        ("1-2-3 * * * *", "\"1-2-3\" is no minute: one range and one step at most"),
        ("1/2/3 * * * *", "\"1/2/3\" is no minute: one range and one step at most"),
        ("*-5 * * * *", "\"*-5\" is no minute: a star is a whole range already"),
        ("-5 * * * *", "\"-5\" is no minute: neither a number nor a name that it has"),
        ("0\u{a0}0 * * *", "'\\u{a0}' between the fields: write plain spaces"),
        ("0 0 30 2 *", "no date is ever like that, so it never fires"),
        ("0 0 31 4,6,9,11 *", "no date is ever like that, so it never fires"),
        (", * * * *", "no date is ever like that, so it never fires"),
        (
            "@dayly",
            "\"@dayly\" is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every DURATION",
        ),
        ("@every day", "\"day\" is no duration such as 90m or 1h30m"),
        ("@every -1h", "@every needs at least one second"),
        ("TZ=UTC 0 0 * * *", "a time zone does not belong into the expression: give it in timezone"),
    ] {
        assert_eq!(problem(text), said, "{text}");
    }
    assert_eq!(Cron::parse(&"1,".repeat(200)), Err(CronError::Long(400)));
}

#[test]
fn one_meaning_has_many_spellings() {
    for (one, other) in [
        ("0 0 * * 0", "@weekly"),
        ("0 0 1 1 *", "@annually"),
        ("0 0 * * SUN", "00 0 ? * sun"),
        ("5/10 * * * *", "5-59/10 * * * *"),
        ("1,,2, * * * *", "1-2 * * * *"),
        (" 0\t0 * * 1-5 ", "0 0 * * mon-fri"),
        ("@every 90m", "@every 1h30m0.5s"),
        ("@every 1.5h", "@every 5400s"),
    ] {
        assert_eq!(Cron::parse(one).unwrap(), Cron::parse(other).unwrap(), "{one} and {other}");
    }
    // A step is a choice: two days that were chosen mean either, an open one means the other.
    assert_ne!(Cron::parse("0 0 */2 * 1").unwrap(), Cron::parse("0 0 1-31/2 1-12 *").unwrap());
}

fn next(text: &str, zone: &str, after: &str) -> String {
    let zone = timezone::find(zone).unwrap();
    let after = after.parse().unwrap();
    Cron::parse(text).unwrap().next_after(after, &zone, after).unwrap().to_zoned(zone).datetime().to_string()
}

#[test]
fn jumps_of_the_clock_lose_nothing_and_repeat_nothing() {
    // 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
    let zone = "Europe/Berlin";
    assert_eq!(next("30 2 * * *", zone, "2026-03-28T01:30:00Z"), "2026-03-29T03:00:00");
    assert_eq!(next("30 2 * * *", zone, "2026-03-29T01:00:00Z"), "2026-03-30T02:30:00");
    assert_eq!(next("15,45 2 * * *", zone, "2026-03-29T00:59:59Z"), "2026-03-29T03:00:00");
    assert_eq!(next("15,45 2 * * *", zone, "2026-03-29T01:00:00Z"), "2026-03-30T02:15:00");
    assert_eq!(next("30 * * * *", zone, "2026-03-29T00:30:00Z"), "2026-03-29T03:30:00");
    assert_eq!(next("30 2 * * *", zone, "2026-10-24T00:30:00Z"), "2026-10-25T02:30:00");
    assert_eq!(next("30 2 * * *", zone, "2026-10-25T00:30:00Z"), "2026-10-26T02:30:00");
    let hourly = Cron::parse("30 * * * *").unwrap();
    let berlin = timezone::find(zone).unwrap();
    let mut at: Timestamp = "2026-10-25T00:00:00Z".parse().unwrap();
    for expected in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"] {
        at = hourly.next_after(at, &berlin, at).unwrap();
        assert_eq!(at.to_string(), expected);
    }
    // A whole day was left out.
    assert_eq!(next("0 12 30 * *", "Pacific/Apia", "2011-12-01T00:00:00Z"), "2011-12-31T00:00:00");
}

#[test]
fn rare_dates_are_waited_for() {
    assert_eq!(next("0 0 29 2 *", "UTC", "1896-03-01T00:00:00Z"), "1904-02-29T00:00:00");
    assert_eq!(next("0 0 31 12 ?", "UTC", "2026-12-31T00:00:00Z"), "2027-12-31T00:00:00");
    // Friday or the 13th.
    assert_eq!(next("0 0 13 * fri", "UTC", "2026-11-07T00:00:00Z"), "2026-11-13T00:00:00");
    assert_eq!(next("0 0 13 * fri", "UTC", "2026-12-11T12:00:00Z"), "2026-12-13T00:00:00");
}

#[test]
fn every_counts_from_its_anchor() {
    let every = Cron::parse("@every 90m").unwrap();
    let anchor: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    for (after, expected) in [
        ("2025-12-31T00:00:00Z", "2026-01-01T01:40:00Z"),
        ("2026-01-01T00:10:00Z", "2026-01-01T01:40:00Z"),
        ("2026-01-01T01:39:59Z", "2026-01-01T01:40:00Z"),
        ("2026-01-01T01:40:00Z", "2026-01-01T03:10:00Z"),
    ] {
        let next = every.next_after(after.parse().unwrap(), &TimeZone::UTC, anchor).unwrap();
        assert_eq!(next.to_string(), expected);
    }
}

fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        2 => Just("*".to_owned()),
        1 => (1..=high).prop_map(|step| format!("*/{step}")),
        2 => (low..=high).prop_map(|value| value.to_string()),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ];
    vec(part, 1..3).prop_map(|parts| parts.join(","))
}

fn expression() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6))
        .prop_map(|(a, b, c, d, e)| [a, b, c, d, e].join(" "))
}

/// Whether `text` has the minute at `moment`, read field by field from the text.
fn has(text: &str, moment: &jiff::Zoned) -> bool {
    let fields: Vec<&str> = text.split(' ').collect();
    let holds = |field: &str, low: i8, value: i8| {
        field.split(',').any(|part| {
            let (range, step) = part.split_once('/').unwrap_or((part, "1"));
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (low, i8::MAX),
                Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
                None => (range.parse().unwrap(), range.parse().unwrap()),
            };
            (from..=to).contains(&value) && (value - from) % step.parse::<i8>().unwrap() == 0
        })
    };
    let open = |field: &str| field.split(',').any(|part| part == "*" || part == "*/1");
    let day = holds(fields[2], 1, moment.day());
    let weekday = holds(fields[4], 0, moment.weekday().to_sunday_zero_offset());
    let right_day = if open(fields[2]) || open(fields[4]) { day && weekday } else { day || weekday };
    holds(fields[0], 0, moment.minute())
        && holds(fields[1], 0, moment.hour())
        && holds(fields[3], 1, moment.month())
        && right_day
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        let _ = Cron::parse(&text);
    }

    #[test]
    fn durations_are_read_or_refused(text in "[-+]?([0-9]{0,20}(\\.[0-9]{0,20})?(ns|us|ms|s|m|h|µs|x)?){0,4}") {
        let _ = Cron::parse(&format!("@every {text}"));
    }

    /// Far from a jump of the clock the next time is the first minute that the text has.
    #[test]
    fn the_next_time_is_the_first_that_fits(text in expression(), hours in 0..200_000_i64) {
        let Ok(cron) = Cron::parse(&text) else { return Ok(()) };
        let after = Timestamp::from_second(1_700_000_000 + hours * 3600 + 17).unwrap();
        let next = cron.next_after(after, &TimeZone::UTC, after).unwrap();
        prop_assert!(next > after);
        let at = next.to_zoned(TimeZone::UTC);
        prop_assert!(has(&text, &at) && at.second() == 0, "{at}");
        let mut minute = after.round(Unit::Minute).unwrap().to_zoned(TimeZone::UTC);
        for _ in 0..4000 {
            if minute.timestamp() > after && minute < at {
                prop_assert!(!has(&text, &minute), "{minute} comes before {at}");
            }
            minute = minute.checked_add(jiff::Span::new().minutes(1)).unwrap();
        }
    }

    /// Around jumps nothing is skipped, repeated or out of order.
    #[test]
    fn each_day_fires_once_whatever_the_clock_does(
        hour in 0..24_u8, minute in 0..60_u8, start in 1_600_000_000..1_900_000_000_i64,
        zone in select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Antarctica/Troll"]),
    ) {
        let cron = Cron::parse(&format!("{minute} {hour} * * *")).unwrap();
        let zone = timezone::find(zone).unwrap();
        let mut at = Timestamp::from_second(start).unwrap();
        at = cron.next_after(at, &zone, at).unwrap();
        for _ in 0..400 {
            let next = cron.next_after(at, &zone, at).unwrap();
            let (before, now) = (zone.to_datetime(at).date(), zone.to_datetime(next).date());
            prop_assert_eq!(now, before.tomorrow().unwrap());
            at = next;
        }
    }

    /// Every hour means every hour of real time.
    #[test]
    fn an_hourly_expression_fires_each_real_hour(minute in 0..60_u8, start in 1_600_000_000..1_900_000_000_i64) {
        let cron = Cron::parse(&format!("{minute} * * * *")).unwrap();
        let zone = timezone::find("America/New_York").unwrap();
        let mut at = Timestamp::from_second(start).unwrap();
        at = cron.next_after(at, &zone, at).unwrap();
        for _ in 0..400 {
            let next = cron.next_after(at, &zone, at).unwrap();
            prop_assert_eq!(next.as_second() - at.as_second(), 3600);
            at = next;
        }
    }
}
