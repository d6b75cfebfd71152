//! Converts a sensor's time by the BMC's clock to CLOCK_MONOTONIC. Uses only differences of the BMC's clock, which
//! may be years off.

use crate::model::units::Nanos;

/// Greatest plausible age of a reading, ns. An older time comes from another clock than `Date`.
const OLDEST: i128 = 300 * SECOND;
/// `Date` has whole seconds, and responses take time to arrive. A change of the offset beyond this (ns) means that
/// the BMC's clock was set.
const CLOCK_SET: i128 = 2 * SECOND;
const SECOND: i128 = 1_000_000_000;

/// The offset of a BMC's clock from CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// CLOCK_MONOTONIC − the BMC's clock, ns: the smallest that was seen, as latency makes it larger.
    offset: Option<i128>,
}

impl Clock {
    /// Takes the `Date` (seconds since 1970) of a response that was received at `received` (CLOCK_MONOTONIC).
    pub(super) fn observe(&mut self, date: Option<u64>, received: Nanos) {
        self.offset = date.map(|date| {
            let offset = i128::from(received.0) - i128::from(date) * SECOND;
            match self.offset {
                Some(known) if (known - offset).abs() <= CLOCK_SET => known.min(offset),
                _ => offset,
            }
        });
    }

    /// A sensor's time (ns since 1970 by the BMC's clock) on CLOCK_MONOTONIC. `None` where the age at `received` is
    /// not plausible.
    pub(super) fn monotonic(&self, sensor_time: i128, received: Nanos) -> Option<Nanos> {
        let age = i128::from(received.0) - (sensor_time + self.offset?);
        // `Date` is rounded down to the second, so a fresh reading may seem to be in the future.
        if !(-SECOND - SECOND / 2..=OLDEST).contains(&age) {
            return None;
        }
        u64::try_from(age.max(0)).ok().map(|age| received - Nanos(age))
    }
}

/// Reads an ISO 8601 duration as Redfish has it (`PT10S`, `PT1M0.5S`, `P1DT1H`). `None` where it is not one, or
/// longer than 11 days.
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
    fn a_clock_that_is_years_off_still_gives_ages() {
        let mut clock = Clock::default();
        let answered = Nanos(1000 * Nanos::SECOND.0);
        let year_2000 = 946_684_800;
        clock.observe(Some(year_2000), answered);
        let read = (i128::from(year_2000) - 7) * SECOND;
        assert_eq!(clock.monotonic(read, answered), Some(Nanos(993 * Nanos::SECOND.0)));
        // From another clock than the one of `Date`.
        assert_eq!(clock.monotonic(1_700_000_000 * SECOND, answered), None);
        assert_eq!(clock.monotonic(0, answered), None);
        // The BMC's clock was set.
        let later = Nanos(1010 * Nanos::SECOND.0);
        clock.observe(Some(1_700_000_010), later);
        assert_eq!(clock.monotonic(1_700_000_007 * SECOND, later), Some(Nanos(1007 * Nanos::SECOND.0)));
        clock.observe(None, later);
        assert_eq!(clock.monotonic(1_700_000_007 * SECOND, later), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = duration(&text);
        }
    }
}
