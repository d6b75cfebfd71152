//! How often a meter gives readings, learned from the readings themselves: patience with a meter follows its own
//! period. Pure.

use crate::model::domain::Domain;
use crate::model::units::Nanos;
use std::collections::VecDeque;

/// Number of recent intervals whose median is the period.
const INTERVALS: usize = 5;
/// Longest interval over which a power is integrated, of a meter whose period is not known to be longer. In a longer
/// one the power may have changed in between, unobserved.
const GAUGE_AGE: Nanos = Nanos(120 * Nanos::SECOND.0);
/// The same for a meter with a long period: two periods of a meter that has a new power every 15 minutes.
const SLOWEST: Nanos = Nanos(1800 * Nanos::SECOND.0);
/// Periods for which a meter may be late.
const LATE: u64 = 4;

/// The times of a domain's readings.
#[derive(Clone, Debug, Default)]
pub(in crate::attribution) struct Pace {
    /// The last reading; `None`: a read failed since, so the next interval says nothing of the meter's period.
    last: Option<Nanos>,
    intervals: VecDeque<Nanos>,
}

impl Pace {
    /// Notes a reading taken at `at`, CLOCK_MONOTONIC.
    pub(super) fn reading(&mut self, at: Nanos) {
        if let Some(last) = self.last.replace(at).filter(|last| *last < at) {
            self.intervals.push_back(at - last);
            self.intervals.drain(..self.intervals.len().saturating_sub(INTERVALS));
        }
    }

    /// Notes a read that failed, or a meter that stands by.
    pub(super) fn interrupt(&mut self) {
        self.last = None;
    }

    /// Time between two readings: the median of the last intervals; zero where none is known.
    pub(super) fn period(&self) -> Nanos {
        let mut sorted: Vec<Nanos> = self.intervals.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// Time for which the meter may be silent now without being late: zero after a failed read.
    pub(super) fn quiet(&self) -> Nanos {
        self.last.map_or(Nanos::ZERO, |_| self.period())
    }

    /// Longest interval over which a power of the domain is integrated.
    pub(in crate::attribution) fn longest_gauge(&self, domain: &Domain) -> Nanos {
        let stated = Nanos(domain.refresh.unwrap_or_default().0.saturating_mul(3));
        GAUGE_AGE.max(stated).max(Nanos(self.period().0.saturating_mul(LATE)).min(SLOWEST))
    }

    /// Time for which a domain may show nothing while its scope is busy, and at least `least`.
    pub(super) fn patience(&self, domain: &Domain, least: Nanos) -> Nanos {
        let period = domain.refresh.unwrap_or_default().max(self.period());
        Nanos(period.0.saturating_mul(LATE)).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_is_no_period_and_one_long_silence_changes_none() {
        let (mut pace, at) = (Pace::default(), |second: u64| Nanos(second * Nanos::SECOND.0));
        [0, 900, 1800].into_iter().for_each(|second| pace.reading(at(second)));
        assert_eq!((pace.period(), pace.quiet()), (at(900), at(900)));
        pace.interrupt();
        assert_eq!((pace.period(), pace.quiet()), (at(900), Nanos::ZERO));
        pace.reading(at(90_000));
        assert_eq!(pace.period(), at(900));
        let mut quick = Pace::default();
        (0..9).chain([700]).for_each(|second| quick.reading(at(second)));
        assert_eq!(quick.period(), at(1));
    }
}
