//! The time that a meter gives with a value, by its own clock, on CLOCK_MONOTONIC. A clock that is wrong is noticed,
//! and then the time of arrival is used. Pure.

use crate::model::source::Stamp;
use crate::model::units::Nanos;

/// A value that is older says nothing of now.
const OLDEST: i128 = 60 * SECOND;
/// A time may be this much in the future: clocks differ, and `Date` has whole seconds.
const AHEAD: i128 = 3 * SECOND;
/// A value that stays for longer is missed, and for longer than so many times as usual.
const LONGEST_STILL: Nanos = Nanos(45 * Nanos::SECOND.0);
const STILL: u64 = 2;
const SECOND: i128 = 1_000_000_000;

/// The times of one value of a meter.
#[derive(Clone, Debug, Default)]
pub struct OwnTime {
    /// The last time by the meter's clock, ns since 1970, and when it arrived, CLOCK_MONOTONIC.
    last: Option<(i128, Nanos)>,
    /// Time between the last two values, by the meter's clock.
    usual: Nanos,
    /// By how much the meter's clock is off, where that is too much.
    off: Option<i128>,
}

/// What a time says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The value was measured at this time, CLOCK_MONOTONIC.
    New(Nanos),
    /// It is the same value as before.
    Repeated,
    /// The value is of so long ago.
    Stale(Nanos),
}

impl OwnTime {
    /// The moment of a value that arrived at `now`. `time`: by the meter's clock, ns since 1970; `None`: it gives none.
    /// `date`: the meter's clock at the answer, seconds since 1970.
    pub fn moment(&mut self, time: Option<i128>, date: Option<u64>, now: Stamp) -> Moment {
        let Some(time) = time else { return Moment::New(now.monotonic) };
        let clock = date.map_or(i128::from(now.realtime.0), |date| i128::from(date) * SECOND);
        let age = clock - time;
        if let Some((last, arrived)) = self.last
            && last == time
        {
            let still = now.monotonic - arrived;
            let longest = LONGEST_STILL.max(Nanos(self.usual.0.saturating_mul(STILL)));
            return if still > longest { Moment::Stale(still) } else { Moment::Repeated };
        }
        let before = self.last.replace((time, now.monotonic));
        if let Some((last, _)) = before
            && time > last
        {
            self.usual = Nanos(u64::try_from(time - last).unwrap_or(u64::MAX)).min(Nanos(3600 * Nanos::SECOND.0));
        }
        if (-AHEAD..=OLDEST).contains(&age) {
            self.off = None;
            let age = Nanos(u64::try_from(age).unwrap_or_default());
            return Moment::New(now.monotonic - age);
        }
        if before.is_none() && age > 0 {
            // Of long ago, or by a clock that is slow: the next one shows which.
            self.last = Some((time, now.monotonic));
            return Moment::Repeated;
        }
        self.off = Some(age);
        Moment::New(now.monotonic)
    }

    /// One line for the operator, where the meter's clock is wrong.
    pub fn note(&self) -> Option<String> {
        let seconds = self.off? / SECOND;
        let (seconds, word) = if seconds < 0 { (-seconds, "fast") } else { (seconds, "slow") };
        Some(format!("its clock is {seconds} s {word}: values count from when they arrive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(second: u64) -> Stamp {
        let monotonic = Nanos(second * Nanos::SECOND.0);
        Stamp { monotonic, boottime: monotonic, realtime: Nanos((1_700_000_000 + second) * Nanos::SECOND.0) }
    }

    fn time(second: i128) -> Option<i128> {
        Some((1_700_000_000 + second) * SECOND)
    }

    fn new(second: u64) -> Moment {
        Moment::New(Nanos(second * Nanos::SECOND.0))
    }

    #[test]
    fn a_value_counts_once_and_from_its_own_time() {
        let mut own = OwnTime::default();
        assert_eq!(own.moment(time(98), None, stamp(100)), new(98));
        assert_eq!(own.moment(time(98), None, stamp(105)), Moment::Repeated);
        assert_eq!(own.moment(time(108), None, stamp(110)), new(108));
        assert_eq!(own.note(), None);
        assert!(matches!(own.moment(time(108), None, stamp(160)), Moment::Stale(_)));
        // Without a time of its own: when it arrives.
        assert_eq!(own.moment(None, None, stamp(170)), new(170));
    }

    #[test]
    fn a_value_that_comes_rarely_is_stale_after_two_of_its_periods() {
        let mut own = OwnTime::default();
        own.moment(time(0), None, stamp(1));
        own.moment(time(120), None, stamp(121));
        assert_eq!(own.moment(time(120), None, stamp(300)), Moment::Repeated);
        assert!(matches!(own.moment(time(120), None, stamp(362)), Moment::Stale(_)));
    }

    #[test]
    fn a_wrong_clock_is_noticed_and_not_used() {
        for (off, word) in [(-7200, "7200 s slow"), (7200, "7200 s fast")] {
            let mut own = OwnTime::default();
            let first = own.moment(time(100 + off), None, stamp(100));
            assert_eq!(first, if off < 0 { Moment::Repeated } else { new(100) }, "{off}");
            assert_eq!(own.moment(time(110 + off), None, stamp(110)), new(110));
            assert!(own.note().unwrap().contains(word), "{:?}", own.note());
            assert_eq!(own.moment(time(110 + off), None, stamp(115)), Moment::Repeated);
            // The clock is set.
            assert_eq!(own.moment(time(119), None, stamp(120)), new(119));
            assert_eq!(own.note(), None);
        }
        // The answer says what the meter's clock shows.
        let mut own = OwnTime::default();
        assert_eq!(own.moment(time(-7203), Some(1_700_000_000 - 7200), stamp(100)), new(97));
    }

    #[test]
    fn a_value_of_long_ago_is_none_when_jouled_starts() {
        let mut own = OwnTime::default();
        assert_eq!(own.moment(time(-1000), None, stamp(100)), Moment::Repeated);
        assert!(matches!(own.moment(time(-1000), None, stamp(150)), Moment::Stale(_)));
    }
}
