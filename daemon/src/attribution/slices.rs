//! The usage behind the remainder, in slices of time. The remainder of some time is computed later than the usage of
//! that time is known, by the authority's lag and refresh; slices keep the usage of each time apart until then.

use super::window::{LONGEST_WINDOW, Window};
use crate::model::units::Nanos;
use std::collections::VecDeque;

/// More slices than this are joined in pairs: each holds what every process used.
const MOST: usize = 12;

/// Closed slices, in the order of time.
#[derive(Default)]
pub(super) struct Slices(VecDeque<Slice>);

struct Slice {
    window: Window,
    /// Its end, CLOCK_MONOTONIC. Its beginning is the window's.
    to: Nanos,
}

impl Slices {
    /// Adds a slice that ends at `to`, CLOCK_MONOTONIC.
    pub fn push(&mut self, window: Window, to: Nanos) {
        self.0.push_back(Slice { window, to });
        if self.0.len() > MOST {
            let mut joined = VecDeque::with_capacity(MOST);
            let mut slices = std::mem::take(&mut self.0).into_iter();
            while let Some(mut first) = slices.next() {
                if let Some(second) = slices.next() {
                    first.window.join(second.window);
                    first.to = second.to;
                }
                joined.push_back(first);
            }
            self.0 = joined;
        }
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
