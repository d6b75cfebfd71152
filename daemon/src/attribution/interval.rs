//! Computes the energy between two readings of a domain, or finds that the interval is a gap. Pure. Attributes nothing.

use super::plausibility::Pace;
use crate::model::domain::{Domain, Reading};
use crate::model::units::{Microjoules, Microwatts, Nanos};

/// If CLOCK_BOOTTIME advanced more than this (10 ms) relative to CLOCK_MONOTONIC, the machine was suspended. A smaller
/// difference is the time between the reads of the two clocks.
const SUSPEND: Nanos = Nanos(10_000_000);
/// The machine was suspended in between.
pub(super) const SUSPENDED: &str = "the machine was suspended";
/// A counter fell, and has not wrapped.
pub(super) const RESET: &str = "the counter was reset";
/// A counter rose by more than is possible.
pub(super) const JUMPED: &str = "more energy than the domain can draw: the counter was reset or jumped";
/// A power was read too long ago: it may have changed in between, unobserved.
pub(super) const TOO_OLD: &str = "the last reading is too old";

/// The last good reading of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReading {
    /// Time of the reading, CLOCK_MONOTONIC.
    pub at: Nanos,
    /// CLOCK_BOOTTIME − CLOCK_MONOTONIC at that time. Grows by the length of each suspend.
    pub suspended: Nanos,
    /// The counter, total or power that was read.
    pub reading: Reading,
}

/// The time between the last good reading of a domain and a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interval {
    /// The first reading: there is no interval yet.
    First,
    /// The domain drew `energy` in `time`.
    Energy {
        /// Energy between the two readings.
        energy: Microjoules,
        /// Time between the two readings, CLOCK_MONOTONIC.
        time: Nanos,
    },
    /// The energy in `time` is unknown.
    Gap {
        /// Time between the two readings, CLOCK_MONOTONIC.
        time: Nanos,
        /// The reason, in words for the domain's error.
        why: &'static str,
    },
}

/// The energy of `domain` between the readings `last` and `new`. `carry` is the fraction of a microjoule, in units of
/// 1/(2·10⁹) µJ, that the integration of a gauge carries to the next interval.
///
/// A counter that fell has wrapped once, if its range is known and the result is plausible. Otherwise it was reset.
pub fn interval(domain: &Domain, last: Option<&LastReading>, new: &LastReading, carry: &mut u64) -> Interval {
    interval_up_to(domain, last, new, carry, Pace::default().longest_gauge(domain))
}

/// The same, where a power is integrated over at most `longest`.
pub(super) fn interval_up_to(
    domain: &Domain,
    last: Option<&LastReading>,
    new: &LastReading,
    carry: &mut u64,
    longest: Nanos,
) -> Interval {
    let Some(last) = last else { return Interval::First };
    let time = new.at - last.at;
    if time == Nanos::ZERO {
        return Interval::Gap { time, why: "two readings at one time" };
    }
    if new.suspended - last.suspended > SUSPEND {
        return Interval::Gap { time, why: SUSPENDED };
    }
    let energy = match (last.reading, new.reading) {
        (Reading::Counter { total: old, .. }, Reading::Counter { total: now, wraps_at }) => {
            if now >= old {
                now - old
            } else {
                match wraps_at.filter(|range| range.0 > 0 && old <= *range) {
                    Some(range) => range - old + now,
                    None => return Interval::Gap { time, why: RESET },
                }
            }
        }
        (Reading::Gauge { power: old }, Reading::Gauge { power: now }) => {
            if time > longest {
                return Interval::Gap { time, why: TOO_OLD };
            }
            trapezoid(old, now, time, carry)
        }
        (Reading::Total { total: old, since: before }, Reading::Total { total: now, since }) => {
            if before != since {
                return Interval::Gap { time, why: "the counter began anew" };
            }
            if now < old {
                return Interval::Gap { time, why: RESET };
            }
            now - old
        }
        _ => return Interval::Gap { time, why: "the meter changed its kind of reading" },
    };
    if energy > most(domain, time) {
        return Interval::Gap { time, why: JUMPED };
    }
    Interval::Energy { energy, time }
}

/// Whether a counter that fell began at zero in `time` since the last reading, as that of a driver that was loaded
/// again.
pub(super) fn began_at_zero(domain: &Domain, last: &LastReading, new: &LastReading, time: Nanos) -> bool {
    match (last.reading, new.reading) {
        (Reading::Counter { total: old, .. }, Reading::Counter { total: now, .. })
        | (Reading::Total { total: old, .. }, Reading::Total { total: now, .. }) => {
            now < old && now <= most(domain, time)
        }
        _ => false,
    }
}

/// Whether the time of a reading is accounted for already, because the reading is repeated or late. A total with
/// another beginning (`since`) always counts as new.
pub fn accounted(last: &LastReading, new: &LastReading) -> bool {
    let other_beginning = match (last.reading, new.reading) {
        (Reading::Total { since: before, .. }, Reading::Total { since, .. }) => before != since,
        _ => false,
    };
    new.at <= last.at && !other_beginning
}

/// Whether the energy since `reading` can be computed from the next reading, `time` later without readings in between:
/// the counter cannot have wrapped more than once.
pub fn provable(domain: &Domain, reading: &Reading, time: Nanos) -> bool {
    match reading {
        Reading::Counter { wraps_at: Some(range), .. } => most(domain, time) < *range,
        Reading::Counter { wraps_at: None, .. } | Reading::Total { .. } => true,
        Reading::Gauge { .. } | Reading::Standby => false,
    }
}

/// Most energy that the domain can draw in `time`, with a margin of 2 J for the coarsest counters (psys of Sapphire
/// Rapids counts whole joules).
fn most(domain: &Domain, time: Nanos) -> Microjoules {
    domain.max_power.for_time(time) + Microjoules(2_000_000)
}

/// Energy between two power readings, by the trapezoidal rule. The fraction of a microjoule is kept in `carry`.
fn trapezoid(old: Microwatts, now: Microwatts, time: Nanos, carry: &mut u64) -> Microjoules {
    const DIVISOR: u128 = 2 * 1_000_000_000;
    let product = (u128::from(old.0) + u128::from(now.0)) * u128::from(time.0) + u128::from(*carry);
    *carry = (product % DIVISOR) as u64;
    Microjoules(u64::try_from(product / DIVISOR).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::domain::{Scope, Zone};
    use crate::model::source::PackageId;
    use proptest::prelude::*;

    fn domain() -> Domain {
        let scope = Scope::Package(PackageId(0));
        Domain {
            billed: true,
            continuous: true,
            max_power: Microwatts(1_000_000_000),
            ..Domain::measured("rapl/package-0", "rapl-powercap", Zone::Package, scope, "/x".into())
        }
    }

    fn counter(at_s: u64, total: u64, wraps_at: Option<u64>) -> LastReading {
        let reading = Reading::Counter { total: Microjoules(total), wraps_at: wraps_at.map(Microjoules) };
        LastReading { at: Nanos(at_s * 1_000_000_000), suspended: Nanos(0), reading }
    }

    fn between(a: LastReading, b: LastReading) -> Interval {
        interval(&domain(), Some(&a), &b, &mut 0)
    }

    #[test]
    fn plain_and_wrapped() {
        let range = Some(262_143_328_850);
        assert_eq!(interval(&domain(), None, &counter(1, 5, range), &mut 0), Interval::First);
        assert_eq!(
            between(counter(1, 5, range), counter(2, 105, range)),
            Interval::Energy { energy: Microjoules(100), time: Nanos::SECOND }
        );
        assert_eq!(
            between(counter(1, 262_143_328_800, range), counter(2, 50, range)),
            Interval::Energy { energy: Microjoules(100), time: Nanos::SECOND }
        );
    }

    #[test]
    fn resets_are_gaps_not_wraps() {
        assert!(matches!(between(counter(1, 100, None), counter(2, 5, None)), Interval::Gap { .. }));
        // A reset from 200 kJ to 0 would look like 62 kJ in one second.
        assert!(matches!(
            between(counter(1, 200_000_000_000, Some(262_143_328_850)), counter(2, 5, Some(262_143_328_850))),
            Interval::Gap { .. }
        ));
    }

    #[test]
    fn another_beginning_is_a_gap_however_high_its_total() {
        let total = |at_s: u64, total, since| LastReading {
            reading: Reading::Total { total: Microjoules(total), since },
            ..counter(at_s, 0, None)
        };
        assert_eq!(
            between(total(1, 5, 7), total(2, 9, 7)),
            Interval::Energy { energy: Microjoules(4), time: Nanos::SECOND }
        );
        assert_eq!(
            between(total(1, 5, 7), total(2, 9, 8)),
            Interval::Gap { time: Nanos::SECOND, why: "the counter began anew" }
        );
        assert_eq!(
            between(total(1, 9, 7), total(2, 5, 7)),
            Interval::Gap { time: Nanos::SECOND, why: "the counter was reset" }
        );
    }

    #[test]
    fn suspend_is_a_gap() {
        let mut after = counter(2, 105, None);
        after.suspended = Nanos(3_600_000_000_000);
        assert_eq!(
            between(counter(1, 5, None), after),
            Interval::Gap { time: Nanos::SECOND, why: "the machine was suspended" }
        );
    }

    #[test]
    fn gauges_are_integrated_without_loss() {
        let gauge = |at: u64, power: u64| LastReading {
            at: Nanos(at),
            suspended: Nanos(0),
            reading: Reading::Gauge { power: Microwatts(power) },
        };
        let (mut carry, mut sum) = (0, 0);
        for step in 0..1000u64 {
            let Interval::Energy { energy, .. } =
                interval(&domain(), Some(&gauge(step * 333, 777)), &gauge(step * 333 + 333, 777), &mut carry)
            else {
                panic!("a gauge gives energy")
            };
            sum += energy.0;
        }
        assert_eq!(sum, 777 * 333 * 1000 / 1_000_000_000);
        assert!(matches!(
            interval(&domain(), Some(&gauge(0, 1)), &gauge(200_000_000_000, 1), &mut 0),
            Interval::Gap { .. }
        ));
    }

    fn steps() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec(0u64..900_000_000, 1..50)
    }

    proptest! {
        #[test]
        fn never_panics_and_never_implausible(a: u64, b: u64, range: Option<u64>, dt in 0u64..10_000) {
            if let Interval::Energy { energy, time } = between(counter(1, a, range), counter(1 + dt, b, range)) {
                prop_assert!(energy <= most(&domain(), time));
            }
        }

        #[test]
        fn a_wrapping_counter_loses_nothing(steps in steps(), range in 1_000_000_000u64..5_000_000_000) {
            let (mut truth, mut raw, mut seen) = (0u64, 0u64, 0u64);
            let mut last = counter(0, 0, Some(range));
            for (index, step) in steps.iter().enumerate() {
                truth += step;
                raw += step;
                if raw > range { raw -= range; }
                let new = counter(index as u64 + 1, raw, Some(range));
                if let Interval::Energy { energy, .. } = interval(&domain(), Some(&last), &new, &mut 0) {
                    seen += energy.0;
                }
                last = new;
            }
            prop_assert_eq!(seen, truth);
        }
    }
}
