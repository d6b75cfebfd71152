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
    fn durations() {
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
            let _ = duration(&text);
        }
    }
}
