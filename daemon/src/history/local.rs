//! The local calendar: when the hour, day and month of a time begin and end, by this machine's time zone, summer time
//! included. Reads the zone from the system (TZ, /etc/localtime); UTC where there is none.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ZonedDateTime};
use std::ops::Range;

/// The first and last second that every zone has, in seconds since 1970. -9999-01-02 and 9999-12-28 in UTC.
const LIMITS: (i64, i64) = (-377_705_023_201, 253_402_207_200 - 2 * 86_400);

/// The calendar of a time zone. Times are in seconds since 1970 (UTC).
#[derive(Clone, Debug)]
pub struct Calendar(TimeZone);

impl Calendar {
    /// That of this machine.
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    /// That of a zone of the time zone database: `Europe/Berlin`.
    ///
    /// # Errors
    /// Where the database has no such zone.
    pub fn named(zone: &str) -> Result<Self, jiff::Error> {
        TimeZone::get(zone).map(Self)
    }

    /// UTC.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Name of the zone, for people.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("local time")
    }

    /// The hour of a time, by the offset of that time: in the night in which clocks are set back, two hours have the
    /// same name and are two.
    pub fn hour(&self, at: i64) -> Range<i64> {
        let zoned = self.zoned(at);
        let (at, offset) = (zoned.timestamp().as_second(), i64::from(zoned.offset().seconds()));
        let start = (at + offset).div_euclid(3600) * 3600 - offset;
        start..start + 3600
    }

    /// The day of a time, which may have 23 or 25 hours.
    pub fn day(&self, at: i64) -> Range<i64> {
        let date = self.zoned(at).date();
        self.start(date)..self.start(date.tomorrow().unwrap_or(date))
    }

    /// The month of a time.
    pub fn month(&self, at: i64) -> Range<i64> {
        let first = self.zoned(at).date().first_of_month();
        let next = first.checked_add(Span::new().months(1)).map_or(LIMITS.1, |next| self.start(next));
        self.start(first)..next
    }

    /// The first second of a date. Of dates that no calendar has, the first or last second that there is.
    pub fn start(&self, date: Date) -> i64 {
        let (first, last) = LIMITS;
        self.at(date.at(0, 0, 0, 0)).unwrap_or(if date.year() < 1970 { first } else { last })
    }

    /// A date and time of day of this calendar. `None`: out of its range.
    pub fn at(&self, time: DateTime) -> Option<i64> {
        Some(self.0.to_ambiguous_zoned_datetime(time).compatible().ok()?.timestamp().as_second())
    }

    /// A time on this calendar. Times that no calendar has are taken to be its first or last ones.
    pub fn zoned(&self, at: i64) -> ZonedDateTime {
        let at = Timestamp::from_second(at.clamp(LIMITS.0, LIMITS.1)).unwrap_or(Timestamp::UNIX_EPOCH);
        at.to_zoned_datetime(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Option<Calendar> {
        let berlin = Calendar::named("Europe/Berlin").ok();
        if berlin.is_none() {
            println!("skipped: no time zone database");
        }
        berlin
    }

    fn at(calendar: &Calendar, text: &str) -> i64 {
        let civil: DateTime = text.parse().unwrap();
        calendar.at(civil).unwrap()
    }

    #[test]
    fn times_out_of_range_are_the_first_or_last_ones() {
        let limits = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second() - 2 * 86_400);
        assert_eq!(LIMITS, limits);
        let utc = Calendar::utc();
        assert_eq!(utc.start(Date::constant(9999, 12, 31)), LIMITS.1, "and not 1970");
        assert_eq!(utc.start(Date::constant(-9999, 1, 1)), LIMITS.0);
        for at in [i64::MIN, LIMITS.0, LIMITS.1, i64::MAX] {
            let (day, month) = (utc.day(at), utc.month(at));
            assert!(day.start < day.end && month.start < month.end, "{at}: {day:?} {month:?}");
        }
    }

    #[test]
    fn days_are_as_long_as_the_local_clock_makes_them() {
        let Some(berlin) = berlin() else { return };
        let hours = |text: &str| {
            let day = berlin.day(at(&berlin, text));
            (day.end - day.start) / 3600
        };
        assert_eq!(
            [
                hours("2026-03-28T12:00"),
                hours("2026-03-29T12:00"),
                hours("2026-10-25T00:00"),
                hours("2026-10-25T23:59")
            ],
            [24, 23, 25, 25]
        );
        let night = berlin.start(Date::constant(2026, 10, 25));
        // 02:30 comes twice.
        let (first, second) = (night + 9_000, night + 12_600);
        assert_eq!(berlin.hour(first), night + 7_200..night + 10_800);
        assert_eq!(berlin.hour(second), night + 10_800..night + 14_400);
    }

    #[test]
    fn hours_follow_zones_with_half_an_hour() {
        let Ok(kolkata) = Calendar::named("Asia/Kolkata") else { return };
        let day = kolkata.day(1_000_000_000);
        assert_eq!((day.start.rem_euclid(3600), kolkata.hour(day.start).start), (1_800, day.start));
        assert_eq!(kolkata.hour(day.end - 1).end, day.end);
    }

    #[test]
    fn months_end_where_the_next_begins() {
        let Some(berlin) = berlin() else { return };
        let january = berlin.month(at(&berlin, "2026-01-31T23:59"));
        assert_eq!(january.end, at(&berlin, "2026-02-01T00:00"));
        assert_eq!(berlin.month(january.end).start, january.end);
    }

    #[test]
    fn no_time_panics() {
        for calendar in [Calendar::utc(), Calendar::system()] {
            for at in [i64::MIN, -1, 0, 1 << 40, i64::MAX] {
                let _ = (calendar.hour(at), calendar.day(at), calendar.month(at));
            }
        }
    }
}
