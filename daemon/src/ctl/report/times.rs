//! Times as people give them to `--from` and `--to`: dates, words and ages. Pure: the clock and the calendar are given.

use crate::history::local::Calendar;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use std::ops::Range;

/// What [`parse`] reads, for help and messages.
pub const WORDS: &str = "now, today, yesterday, this-month, last-month, this-year, last-year, a date (2026-01-31, or a \
                         month 2026-01), a date and time (2026-01-31T14:00, with Z or an offset where it is not local), \
                         or an age (90m, 24h, 7d)";

/// The time that a text means, as its first second and the second after its last: for `yesterday` the whole day, for a
/// time of day the time alone. `now`: seconds since 1970.
///
/// # Errors
/// Where the text is none of [`WORDS`].
pub fn parse(text: &str, calendar: &Calendar, now: i64) -> Result<Range<i64>, String> {
    let today = calendar.day(now);
    let month = calendar.month(now);
    let year = |date: Date| {
        let first = date.first_of_year();
        let next = Date::new(date.year() + 1, 1, 1).map_or(now, |next| calendar.start(next));
        calendar.start(first)..next
    };
    let this = calendar.zoned(now).date();
    let last = |date: Result<Date, _>| date.unwrap_or(this);
    Ok(match text {
        "now" => now..now,
        "today" => today,
        "yesterday" => calendar.day(today.start - 1),
        "this-month" => month,
        "last-month" => calendar.month(month.start - 1),
        "this-year" => year(this),
        "last-year" => year(last(Date::new(this.year() - 1, 1, 1))),
        _ => return other(text, calendar, now).ok_or_else(|| format!("{text:?} is no time: {WORDS}")),
    })
}

fn other(text: &str, calendar: &Calendar, now: i64) -> Option<Range<i64>> {
    if let Some(age) = age(text) {
        return Some(now.checked_sub(age)?..now.checked_sub(age)?);
    }
    // Without this, the civil parsers would take the local part of a time with an offset.
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_second()..at.as_second());
    }
    let has_time = text.contains([':', 'T', ' ']);
    if has_time {
        let at: DateTime = text.parse().ok()?;
        let at = calendar.at(at)?;
        return Some(at..at);
    }
    if let Ok(date) = text.parse::<Date>() {
        return Some(calendar.day(calendar.start(date)));
    }
    let date: Date = format!("{text}-01").parse().ok()?;
    (text.len() == 7).then(|| calendar.month(calendar.start(date)))
}

/// `90m`, `24h`, `7d` in seconds.
fn age(text: &str) -> Option<i64> {
    let unit = match text.chars().last()? {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse::<i64>().ok()?.checked_mul(unit) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-28 14:30 in UTC.
    const NOW: i64 = 1_795_876_200;

    fn utc(text: &str) -> Range<i64> {
        parse(text, &Calendar::utc(), NOW).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn words_and_dates_mean_whole_days_and_months() {
        let (day, midnight) = (86_400, NOW - 52_200);
        assert_eq!(utc("today"), midnight..midnight + day);
        assert_eq!(utc("yesterday"), midnight - day..midnight);
        assert_eq!(utc("2026-11-27"), utc("yesterday"));
        assert_eq!(utc("this-month"), midnight - 27 * day..midnight + 3 * day);
        assert_eq!((utc("last-month"), utc("last-month").end), (utc("2026-10"), utc("this-month").start));
        assert_eq!(
            (utc("last-year").end, utc("this-year").end - utc("this-year").start),
            (utc("2026-01-01").start, 365 * day)
        );
    }

    #[test]
    fn times_of_day_and_ages_are_moments() {
        assert_eq!(utc("2026-11-28T14:30"), NOW..NOW);
        assert_eq!(utc("2026-11-28 14:30:05"), NOW + 5..NOW + 5);
        assert_eq!(utc("2026-11-28T15:30+01:00"), NOW..NOW);
        assert_eq!(utc("24h"), NOW - 86_400..NOW - 86_400);
        assert_eq!(utc("90m").start, NOW - 5_400);
        let Ok(berlin) = Calendar::named("Europe/Berlin") else { return };
        assert_eq!(parse("2026-11-28T15:30", &berlin, NOW), Ok(NOW..NOW));
        assert_eq!(parse("2026-11-28", &berlin, NOW).map(|day| day.start), Ok(NOW - 52_200 - 3_600));
    }

    #[test]
    fn all_times_are_from_the_first_to_the_last_date() {
        for first in ["-009999-01-01", "0001-01-01", "1970-01-01"] {
            for last in ["9999-12-31", "9999-12", "9998-12-31", "now"] {
                assert!(utc(first).start <= 0 && utc(last).end >= NOW, "{first} to {last}");
            }
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_is_wanted() {
        let year = "99999999999999999999d";
        for text in ["", "tomorrow", "2026-13-01", "2026-1", "h", "-3h", "1.5h", "2026-02-30", "25:00", year, "ü"] {
            let why = parse(text, &Calendar::utc(), NOW).unwrap_err();
            assert!(why.contains("last-month"), "{text}: {why}");
        }
    }
}
