//! Power by the busy share, and its energy: in integers, so that nothing is lost between reads.

use crate::model::units::{Microjoules, Microwatts, Nanos};

/// One microjoule in µW·ns.
const MICROJOULE: u128 = 1_000_000_000;

/// Power of one hardware thread's part at busy shares of equal distance from 0 to 1, with straight lines between them.
/// It does not fall.
pub(super) struct Curve(Vec<u64>);

impl Curve {
    /// From watts at those shares: at least two. A lower value after a higher one counts as the higher one.
    pub(super) fn new(watts: impl IntoIterator<Item = f64>) -> Self {
        let mut most = 0;
        let points = watts.into_iter().map(|watts| {
            most = most.max((watts * 1e6).round() as u64);
            most
        });
        Self(points.collect())
    }

    /// Power at rest of so many threads.
    pub(super) fn at_rest(&self, threads: u64) -> Microwatts {
        Microwatts(self.0.first().copied().unwrap_or_default().saturating_mul(threads))
    }

    /// Energy in µW·ns of `busy` in the time `capacity` of all threads together.
    fn energy(&self, busy: Nanos, capacity: Nanos) -> u128 {
        let (busy, capacity) = (u128::from(busy.0.min(capacity.0)), u128::from(capacity.0));
        let segments = self.0.len().saturating_sub(1) as u128;
        // Of the segments up to this busy share, the last one; at full load the last of all.
        let at = (busy * segments).checked_div(capacity).unwrap_or_default().min(segments.saturating_sub(1));
        let point = |at: u128| u128::from(self.0.get(at as usize).copied().unwrap_or_default());
        let (from, to) = (point(at), point(at + 1).max(point(at)));
        from * capacity + (to - from) * (busy * segments - at * capacity)
    }
}

/// Energy over many reads.
#[derive(Clone, Copy, Default)]
pub(super) struct Energy {
    total: Microjoules,
    /// Energy below one microjoule, in µW·ns.
    remainder: u128,
}

impl Energy {
    /// All energy up to now.
    pub(super) fn total(&self) -> Microjoules {
        self.total
    }

    /// Adds the energy of `busy` in the time `capacity` of all threads together, and keeps the part below a microjoule.
    pub(super) fn add(&mut self, curve: &Curve, busy: Nanos, capacity: Nanos) {
        let energy = curve.energy(busy, capacity) + self.remainder;
        self.total += Microjoules(u64::try_from(energy / MICROJOULE).unwrap_or(u64::MAX));
        self.remainder = energy % MICROJOULE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn points_and_between_them() {
        let curve = Curve::new([1.0, 3.0, 4.0]);
        let at = |percent: u64| curve.energy(Nanos(percent * 10_000_000), Nanos(1_000_000_000)) / MICROJOULE;
        assert_eq!([0, 25, 50, 75, 100].map(at), [1_000_000, 2_000_000, 3_000_000, 3_500_000, 4_000_000]);
        assert_eq!(curve.energy(Nanos(5), Nanos::ZERO), 0);
        assert_eq!(curve.at_rest(3), Microwatts(3_000_000));
    }

    proptest! {
        /// However the time is divided into reads, at one load the sum is the closed form of the whole, to the
        /// microjoule.
        #[test]
        fn energy_of_a_steady_load_does_not_depend_on_the_reads(
            spans in proptest::collection::vec(1u64..3_000_000_000, 1..60),
            watts in proptest::collection::vec(0.0..9.0f64, 2..12),
            percent in 0u64..=100,
            threads in 1u64..300,
        ) {
            let (curve, mut energy, mut whole) = (Curve::new(watts), Energy::default(), 0);
            for span in spans {
                let last = energy.total();
                energy.add(&curve, Nanos(span * percent * threads), Nanos(span * 100 * threads));
                prop_assert!(energy.total() >= last);
                whole += span;
            }
            let exact = curve.energy(Nanos(whole * percent * threads), Nanos(whole * 100 * threads));
            prop_assert_eq!(u128::from(energy.total().0), exact / MICROJOULE);
        }

        /// On a straight line also the division into loads does not matter.
        #[test]
        fn energy_on_a_straight_line_does_not_depend_on_the_reads(
            steps in proptest::collection::vec((1u64..3_000_000_000, 0u64..=100), 1..60),
            idle in 0u64..3_000_000,
            dynamic in 0u64..9_000_000,
            threads in 1u64..300,
        ) {
            let curve = Curve(vec![idle, idle + dynamic]);
            let (mut energy, mut time, mut busy) = (Energy::default(), 0u128, 0u128);
            for (span, percent) in steps {
                let used = span * threads / 100 * percent;
                energy.add(&curve, Nanos(used), Nanos(span * threads));
                time += u128::from(span * threads);
                busy += u128::from(used);
            }
            let exact = (u128::from(idle) * time + u128::from(dynamic) * busy) / MICROJOULE;
            prop_assert_eq!(u128::from(energy.total().0), exact);
        }

        #[test]
        fn power_does_not_fall_with_load(watts in proptest::collection::vec(0.0..9.0f64, 2..12), busy in 0u64..1000) {
            let curve = Curve::new(watts);
            let capacity = Nanos(1000);
            prop_assert!(curve.energy(Nanos(busy), capacity) <= curve.energy(Nanos(busy + 1), capacity));
        }
    }
}
