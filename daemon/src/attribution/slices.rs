//! The usage behind the remainder, in slices of time. The remainder of some time is computed later than the usage of
//! that time is known, by the authority's lag and refresh; slices keep the usage of each time apart until then.

use super::window::{LONGEST_WINDOW, Window};
use crate::model::units::Nanos;
use std::collections::VecDeque;

/// Where there are more slices than this, two are joined: each holds what every process used.
const MOST: usize = 12;
/// Most charges of processes in all slices together. Beyond them, the slice with the most keeps half of its processes,
/// those with the most weight; what the others used is kept by cgroup alone.
const MOST_CHARGES: usize = 32_768;

/// Closed slices, in the order of time.
#[derive(Default)]
pub(super) struct Slices(VecDeque<Slice>);

struct Slice {
    window: Window,
    /// Its end, CLOCK_MONOTONIC. Its beginning is the window's.
    to: Nanos,
}

impl Slices {
    /// Adds a slice that ends at `to`, CLOCK_MONOTONIC. Where there are too many, the oldest two neighbours are joined
    /// that are at most a quarter of all together: the newest stay short, so that a window can end where the load is
    /// steady. Were the oldest joined without that limit, none of them would ever be older than a long lag.
    pub fn push(&mut self, mut window: Window, to: Nanos) {
        window.seal();
        self.0.push_back(Slice { window, to });
        if self.0.len() > MOST {
            self.join_two(to);
        }
        self.limit_charges();
    }

    /// Joins two neighbours, see [`Slices::push`].
    fn join_two(&mut self, to: Nanos) {
        let quarter = Nanos(self.0.front().map_or(0, |oldest| (to - oldest.window.since).0 / 4));
        let together = || {
            let pairs = self.0.iter().zip(self.0.iter().skip(1)).enumerate();
            pairs.map(|(at, (first, second))| (at, second.to - first.window.since))
        };
        let joined = together().find(|(_, length)| *length <= quarter);
        let (at, _) = joined.or_else(|| together().min_by_key(|(_, length)| *length)).unwrap_or_default();
        if let Some(second) = self.0.remove(at + 1)
            && let Some(first) = self.0.get_mut(at)
        {
            first.window.join(second.window);
            first.window.seal();
            first.to = second.to;
        }
    }

    fn limit_charges(&mut self) {
        let mut all: usize = self.0.iter().map(|slice| slice.window.processes()).sum();
        while all > MOST_CHARGES
            && let Some(largest) = self.0.iter_mut().max_by_key(|slice| slice.window.processes())
        {
            let before = largest.window.processes();
            largest.window.fold(before / 2);
            largest.window.seal();
            all -= before - before / 2;
        }
    }

    /// Number of charges of processes in all slices.
    #[cfg(test)]
    pub fn processes(&self) -> usize {
        self.0.iter().map(|slice| slice.window.processes()).sum()
    }

    /// The ends of all slices, CLOCK_MONOTONIC, the latest first.
    pub fn ends(&self) -> impl Iterator<Item = Nanos> {
        self.0.iter().rev().map(|slice| slice.to)
    }

    /// Removes all slices that end up to `to`, and returns them as one window with its length. `None`: there are none.
    pub fn take(&mut self, to: Nanos) -> Option<(Window, Nanos)> {
        let count = self.0.partition_point(|slice| slice.to <= to);
        let mut taken = self.0.drain(..count);
        let Slice { mut window, to: mut end } = taken.next()?;
        let begin = window.since;
        for slice in taken {
            window.join(slice.window);
            end = slice.to;
        }
        Some((window, end - begin))
    }

    /// Gives up slices that began more than [`LONGEST_WINDOW`] ago: the usage of their time is not known any more.
    /// Returns whether there were any.
    pub fn limit(&mut self, now: Nanos) -> bool {
        let count = self.0.partition_point(|slice| now - slice.window.since > LONGEST_WINDOW);
        self.0.drain(..count);
        if count > 0
            && let Some(oldest) = self.0.front_mut()
        {
            oldest.window.incomplete = true;
        }
        count > 0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tick at which the oldest slice began.
    pub fn oldest_tick(&self) -> Option<u64> {
        self.0.front().map(|slice| slice.window.from)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Nanos {
        Nanos(seconds * Nanos::SECOND.0)
    }

    /// A slice for each second from 1 on; the busy time of each is its second.
    fn pushed(slices: &mut Slices, second: u64) {
        let mut window = Window::open(second, seconds(second - 1), false);
        window.used.on_cpu = Nanos(second);
        slices.push(window, seconds(second));
    }

    #[test]
    fn of_slices_that_wait_for_long_the_oldest_stay_short_enough_and_the_newest_short() {
        let mut slices = Slices::default();
        for second in 1..=240 {
            pushed(&mut slices, second);
            let mut ends: Vec<u64> = slices.ends().map(|end| end.0 / Nanos::SECOND.0).collect();
            ends.reverse();
            assert!(ends.len() <= MOST && ends.last() == Some(&second));
            // Whatever the lag, something is older than it soon.
            assert!(ends[0] <= second.div_ceil(4).max(1), "{second} s: {ends:?}");
            assert!(ends.len() < 4 || second - ends[ends.len() - 4] <= 3 + second / 24, "{second} s: {ends:?}");
        }
        let (window, length) = slices.take(seconds(240)).unwrap();
        assert_eq!((window.used.on_cpu, length), (Nanos(240 * 241 / 2), seconds(240)));
        assert!(slices.is_empty());
    }

    proptest! {
        #[test]
        fn no_use_is_lost_and_none_is_taken_twice(takes in proptest::collection::vec(0_u64..70, 1..200)) {
            let (mut slices, mut taken, mut all) = (Slices::default(), 0, 0);
            for (second, behind) in (1..).zip(takes) {
                pushed(&mut slices, second);
                all += second;
                let before = slices.ends().last();
                if let Some((window, length)) = slices.take(seconds(second.saturating_sub(behind))) {
                    taken += window.used.on_cpu.0;
                    prop_assert!(length > Nanos::ZERO && before.is_some());
                }
                prop_assert!(slices.0.len() <= MOST);
            }
            let rest = slices.take(Nanos(u64::MAX)).map_or(0, |(window, _)| window.used.on_cpu.0);
            prop_assert_eq!(taken + rest, all);
        }
    }
}
