//! When a BMC's sensor was read, on this machine's clock. Takes a BMC's clock for differences only: it may be years off.

use crate::model::units::Nanos;

/// A reading that is older than this has its time from a clock that is wrong.
const OLDEST: i128 = 300 * SECOND;
/// `Date` has whole seconds, and answers take a moment: an offset that moves further is a clock that was set.
const SET: i128 = 2 * SECOND;
const SECOND: i128 = 1_000_000_000;

/// A BMC's clock against CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// CLOCK_MONOTONIC − the BMC's clock, ns: the least seen, as what is late makes it larger.
    offset: Option<i128>,
}

impl Clock {
    /// An answer came at `answered`, with this `Date`.
    pub(super) fn saw(&mut self, date: Option<u64>, answered: Nanos) {
        self.offset = date.map(|date| {
            let offset = i128::from(answered.0) - i128::from(date) * SECOND;
            match self.offset {
                Some(known) if (known - offset).abs() <= SET => known.min(offset),
                _ => offset,
            }
        });
    }

    /// When a sensor was read that the BMC says was read at `time` (ns since 1970 by its clock); `None` where that cannot be true.
    pub(super) fn at(&self, time: i128, answered: Nanos) -> Option<Nanos> {
        let age = i128::from(answered.0) - (time + self.offset?);
        // `Date` is cut to the second, so that a fresh reading may seem to be of the next one.
        if !(-SECOND - SECOND / 2..=OLDEST).contains(&age) {
            return None;
        }
        u64::try_from(age.max(0)).ok().map(|age| answered - Nanos(age))
    }
}

/// Reads a Redfish date and time (`2024-05-01T12:00:00.5+02:00`) as nanoseconds since 1970.
pub(super) fn date_time(text: &str) -> Option<i128> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let mark = |at: usize, mark: &[u8]| text.as_bytes().get(at).is_some_and(|byte| mark.contains(byte));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let marks = mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":");
    let ranges = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !marks || !ranges {
        return None;
    }
    let rest = &text[19..];
    let digits = rest.strip_prefix('.').map_or(0, |rest| 1 + rest.bytes().take_while(u8::is_ascii_digit).count());
    let fraction: String = rest.get(1..digits).unwrap_or_default().chars().chain("000000000".chars()).take(9).collect();
    let zone = rest.get(digits..)?;
    let offset = match zone {
        "" | "Z" | "z" => 0,
        _ => {
            let at = 19 + digits;
            let sign = if mark(at, b"+") { 1 } else { -1 };
            let known = mark(at, b"+-") && mark(at + 3, b":") && text.len() == at + 6;
            known.then_some(())?;
            sign * (number(at + 1, at + 3)? * 3600 + number(at + 4, at + 6)? * 60)
        }
    };
    // Days from the civil calendar, with years that begin in March: a leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 1
            - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * SECOND + fraction.parse::<i128>().ok()?)
}

/// Reads a Redfish duration (`PT10S`, `PT1M0.5S`); `None` for what is longer than days.
pub(super) fn duration(text: &str) -> Option<Nanos> {
    let (days, time) = text.strip_prefix('P')?.split_once('T')?;
    let mut seconds = match days {
        "" => 0.0,
        days => days.strip_suffix('D')?.parse::<f64>().ok()? * 86_400.0,
    };
    let mut number = String::new();
    for c in time.chars() {
        let unit = match c {
            'H' => 3600.0,
            'M' => 60.0,
            'S' => 1.0,
            c if c.is_ascii_digit() || c == '.' => {
                number.push(c);
                continue;
            }
            _ => return None,
        };
        seconds += std::mem::take(&mut number).parse::<f64>().ok()? * unit;
    }
    (number.is_empty() && seconds > 0.0 && seconds < 1e6).then_some(Nanos((seconds * 1e9) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_and_durations() {
        assert_eq!(date_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(date_time("2024-02-29T12:34:56.5+02:00"), Some(1_709_202_896_500_000_000));
        assert_eq!(date_time("2000-03-01T00:00:00-01:30"), Some(951_874_200_000_000_000));
        for bad in [
            "",
            "now",
            "2024-13-01T00:00:00Z",
            "2024-01-01T00:00:00+0200",
            "2024-01-01T00:00:00.Zé",
            "2024-01-01T00:00:0éZ",
        ] {
            assert_eq!(date_time(bad), None, "{bad}");
        }
        assert_eq!(duration("PT10S"), Some(Nanos(10 * Nanos::SECOND.0)));
        assert_eq!(duration("PT1M0.5S"), Some(Nanos(60_500_000_000)));
        assert_eq!(duration("P1DT1H"), Some(Nanos(90_000 * Nanos::SECOND.0)));
        for bad in ["", "P", "PT", "PTS", "10", "PT10", "P1Y", "PT-1S", "PT1e9S"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_is_years_off_gives_ages_all_the_same() {
        let mut clock = Clock::default();
        let answered = Nanos(1000 * Nanos::SECOND.0);
        let year_2000 = 946_684_800;
        clock.saw(Some(year_2000), answered);
        let read = (i128::from(year_2000) - 7) * SECOND;
        assert_eq!(clock.at(read, answered), Some(Nanos(993 * Nanos::SECOND.0)));
        // Of another clock than the one that `Date` is of.
        assert_eq!(clock.at(1_700_000_000 * SECOND, answered), None);
        assert_eq!(clock.at(0, answered), None);
        // Set while jouled runs.
        let later = Nanos(1010 * Nanos::SECOND.0);
        clock.saw(Some(1_700_000_010), later);
        assert_eq!(clock.at(1_700_000_007 * SECOND, later), Some(Nanos(1007 * Nanos::SECOND.0)));
        clock.saw(None, later);
        assert_eq!(clock.at(1_700_000_007 * SECOND, later), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text: String) {
            let _ = (date_time(&text), duration(&text));
        }
    }
}
