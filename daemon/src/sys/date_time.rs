//! Dates and times of day as text (RFC 3339), by the `time` crate. Reads no clock and knows no time zone of this
//! machine.

use crate::model::units::Nanos;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time since 1970 (CLOCK_REALTIME) in UTC, with milliseconds: `2025-12-31T23:59:59.999Z`.
pub fn rfc3339(realtime: Nanos) -> String {
    // u64 nanoseconds end in 2554, which every calendar has.
    let at = OffsetDateTime::from_unix_timestamp_nanos(realtime.0.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (at.date(), at.time());
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second, milli) = time.as_hms_milli();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z", u8::from(month))
}

/// Reads a date and time (`2024-05-01T12:00:00.5+02:00`) as nanoseconds since 1970. One without an offset is in UTC:
/// some BMCs leave it out. `None`: not a date and time.
pub fn parse(text: &str) -> Option<i128> {
    let parsed =
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
    Some(parsed.ok()?.unix_timestamp_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        assert_eq!(rfc3339(Nanos(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Nanos(951_782_400_000_000_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(Nanos(1_767_225_599_999_000_000)), "2025-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(Nanos(u64::MAX)), "2554-07-21T23:34:33.709Z");
    }

    #[test]
    fn times_are_read_with_and_without_an_offset() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2024-02-29T12:34:56.5+02:00"), Some(1_709_202_896_500_000_000));
        assert_eq!(parse("2000-03-01T00:00:00-01:30"), Some(951_874_200_000_000_000));
        assert_eq!(parse("1970-01-01T00:00:01"), Some(1_000_000_000));
        for bad in [
            "",
            "now",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00+0200",
            "2024-01-01T00:00:00.Zé",
            "2024-01-01T00:00:0éZ",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_time_comes_back_to_the_millisecond(realtime: u64) {
            let milliseconds = i128::from(realtime / 1_000_000);
            prop_assert_eq!(parse(&rfc3339(Nanos(realtime))), Some(milliseconds * 1_000_000));
        }

        #[test]
        fn any_text_is_survived(text: String) {
            let _ = parse(&text);
        }
    }
}
