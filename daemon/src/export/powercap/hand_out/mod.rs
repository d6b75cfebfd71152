//! Hands the energy of a domain's readings out evenly over time. A meter is read once a tick, or once an epoch of the
//! host; a reader of the mirror that polls more often would see the power of several polls in one of them, and none in
//! the others. Pure: the caller passes the time. Knows no files.
//!
//! The energy between two readings is a *segment*. It is handed out over a time as long as the one between the
//! readings, one segment after the other. So the power that a reader sees is the mean power between two readings. It is
//! late by the longest of the last times between readings, and one tick ([`HandOut::lag`]). The tick is a reserve for
//! readings that come late.
//!
//! What is handed out is never more than what was measured, and never falls. Where nothing is left, it stands still
//! until the next reading. Whatever was late makes the lag longer; it gets back to its usual length by a pace that
//! differs by [`MOST_TRIM`] at most, never by a burst.

use crate::model::units::{Microjoules, Nanos};
use std::collections::VecDeque;

/// Parts of a million by which the pace may differ from the time that passes.
const MOST_TRIM: i64 = 5_000;
/// The lag is trimmed by its excess over this time: 200 s, so that an excess of 1 s is trimmed by [`MOST_TRIM`].
const TRIM_TIME: i64 = 200_000_000_000;
/// Number of lengths of segments that the usual lag is computed from.
const REMEMBERED: usize = 8;
/// Most segments that wait. Beyond that, later ones are joined.
const MOST_SEGMENTS: usize = 4096;

/// What a snapshot says of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total {
    /// Time of the last reading, CLOCK_MONOTONIC; `None` where there was none.
    pub at: Option<Nanos>,
    /// Energy since the domain's totals began.
    pub energy: Microjoules,
    /// Number of intervals that could not be measured.
    pub gaps: u64,
}

/// Energy between two readings.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Time between the readings, never zero.
    time: Nanos,
    energy: Microjoules,
}

/// The energy of one domain on its way to readers.
#[derive(Debug)]
pub(super) struct HandOut {
    /// Energy of everything before the first segment.
    done: Microjoules,
    /// Not handed out yet, or not all of it. The oldest is first.
    segments: VecDeque<Segment>,
    /// The part of the first segment's time that is over.
    played: Nanos,
    /// Until when everything is computed, CLOCK_MONOTONIC. In the future: nothing is handed out until then.
    until: Nanos,
    last: Total,
    /// When [`Self::last`] last changed, CLOCK_MONOTONIC.
    changed: Nanos,
    /// Lengths of the last segments.
    lengths: VecDeque<Nanos>,
    /// Difference of the pace from the time that passes, in millionths.
    trim: i64,
}

impl HandOut {
    /// Begins at a total: all of it counts as handed out.
    pub fn new(total: Total, now: Nanos) -> Self {
        Self {
            done: total.energy,
            segments: VecDeque::new(),
            played: Nanos::ZERO,
            until: now,
            last: total,
            changed: now,
            lengths: VecDeque::new(),
            trim: 0,
        }
    }

    /// Begins at a total of which `owed` is not handed out yet: it is, evenly over `time`.
    pub fn resume(total: Total, owed: Microjoules, time: Nanos, now: Nanos) -> Self {
        let owed = owed.min(total.energy);
        let segment = Segment { time: time.max(Nanos(1)), energy: owed };
        let segments = (owed > Microjoules::ZERO).then_some(segment).into_iter().collect();
        Self { done: total.energy - owed, segments, ..Self::new(total, now) }
    }

    /// The total that it was last told.
    pub fn total(&self) -> Total {
        self.last
    }

    /// The time over which what is not handed out at `now` will be, CLOCK_MONOTONIC.
    pub fn waits(&mut self, now: Nanos) -> Nanos {
        self.advance(now);
        self.segments.iter().map(|segment| segment.time).sum::<Nanos>() - self.played
    }

    /// The longest of the last times between readings.
    pub fn longest(&self) -> Nanos {
        self.lengths.iter().max().copied().unwrap_or_default()
    }

    /// Takes the total of a snapshot. `tick`: the time between two snapshots.
    pub fn take(&mut self, total: Total, tick: Nanos, now: Nanos) {
        if total.energy < self.last.energy {
            // The totals began again: so does what is handed out.
            *self = Self::new(total, now);
            return;
        }
        self.advance(now);
        if total == self.last {
            return;
        }
        let last = std::mem::replace(&mut self.last, total);
        let since = std::mem::replace(&mut self.changed, now);
        let energy = total.energy - last.energy;
        let time = match (last.at, total.at) {
            (Some(last), Some(at)) if at > last => at - last,
            _ => (now - since).max(tick).max(Nanos(1)),
        };
        let usual = self.lengths.iter().max().map_or(Nanos::ZERO, |longest| *longest + tick);
        // A reading of zero is a segment like any other. A gap is none, nor is a time in which another meter stood in:
        // their energy is not known.
        if energy == Microjoules::ZERO && (last.at == total.at || last.gaps != total.gaps || time > usual) {
            return;
        }
        let read = total.at.filter(|at| *at <= now).unwrap_or(now);
        if self.segments.is_empty() {
            self.until = (read + tick).max(now);
        }
        self.push(Segment { time, energy });
        if self.lengths.len() == REMEMBERED {
            self.lengths.pop_front();
        }
        self.lengths.push_back(time);
        let longest = self.lengths.iter().max().copied().unwrap_or_default();
        self.trim = trim(self.lag(read), longest + tick);
    }

    /// The energy that is handed out at `now`, CLOCK_MONOTONIC.
    pub fn energy(&mut self, now: Nanos) -> Microjoules {
        self.advance(now);
        let part = self
            .segments
            .front()
            .map_or(0, |first| u128::from(first.energy.0) * u128::from(self.played.0) / u128::from(first.time.0));
        self.done + Microjoules(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// Whether there is energy that is not handed out.
    pub fn is_pending(&self) -> bool {
        !self.segments.is_empty()
    }

    /// By how much time what is handed out is behind a reading at `read`, CLOCK_MONOTONIC.
    fn lag(&self, read: Nanos) -> Nanos {
        let waiting = self.segments.iter().map(|segment| segment.time).sum::<Nanos>() - self.played;
        // Played at the time `until`.
        (waiting + self.until) - read
    }

    fn push(&mut self, segment: Segment) {
        let full = self.segments.len() >= MOST_SEGMENTS;
        match self.segments.back_mut() {
            Some(back) if full => {
                back.time += segment.time;
                back.energy += segment.energy;
            }
            _ => self.segments.push_back(segment),
        }
    }

    fn advance(&mut self, now: Nanos) {
        let passed = now - self.until;
        if passed == Nanos::ZERO {
            return;
        }
        self.until = now;
        let pace = 1_000_000_u64.saturating_add_signed(self.trim);
        let mut left =
            u64::try_from(u128::from(passed.0) * u128::from(pace) / 1_000_000).map_or(Nanos(u64::MAX), Nanos);
        while let Some(first) = self.segments.front() {
            let rest = first.time - self.played;
            if left < rest {
                self.played += left;
                return;
            }
            left = left - rest;
            self.done += first.energy;
            self.played = Nanos::ZERO;
            self.segments.pop_front();
        }
    }
}

/// By how many millionths the pace is to differ, for a lag to get to its usual length.
fn trim(lag: Nanos, usual: Nanos) -> i64 {
    let signed = |time: Nanos| i128::from(time.0);
    let excess = (signed(lag) - signed(usual)) * 1_000_000 / i128::from(TRIM_TIME);
    i64::try_from(excess).map_or(MOST_TRIM, |excess| excess.clamp(-MOST_TRIM, MOST_TRIM))
}

#[cfg(test)]
mod tests;
