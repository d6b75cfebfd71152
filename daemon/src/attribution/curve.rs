//! A domain's energy over time: its totals at each reading, interpolated linearly between readings. The remainder and
//! the comparison of meters need it, as meters are read at different times. Knows no domain.

use crate::model::units::{Microjoules, Nanos};
use std::collections::VecDeque;

/// Number of recent intervals between changes of the value, from which the refresh is computed.
const CHANGES: usize = 8;
/// Longest refresh. A value that is the same for longer means a steady load, not a slow meter.
pub(super) const LONGEST_REFRESH: Nanos = Nanos(60 * Nanos::SECOND.0);

/// Cumulative energy over time.
#[derive(Default)]
pub(super) struct Curve {
    points: VecDeque<Point>,
    /// Recent intervals between changes of the value, [`CHANGES`] at most.
    changes: VecDeque<Nanos>,
    changed_at: Option<Nanos>,
    /// The end of the last gap.
    broken_at: Option<Nanos>,
}

struct Point {
    at: Nanos,
    total: Microjoules,
}

impl Curve {
    /// Adds the total at `at`, CLOCK_MONOTONIC. `broken`: there is a gap before it, whose energy the total lacks.
    /// `changed`: the value of the meter differs from the previous one.
    pub fn push(&mut self, at: Nanos, total: Microjoules, broken: bool, changed: bool) {
        if self.points.back().is_some_and(|last| last.at >= at) {
            return;
        }
        if changed {
            if let Some(before) = self.changed_at {
                self.changes.push_back((at - before).min(LONGEST_REFRESH));
                self.changes.drain(..self.changes.len().saturating_sub(CHANGES));
            }
            self.changed_at = Some(at);
        }
        if broken {
            self.broken_at = Some(at);
        }
        self.points.push_back(Point { at, total });
    }

    /// The time of the last total.
    pub fn last_at(&self) -> Option<Nanos> {
        self.points.back().map(|point| point.at)
    }

    /// The time of the first total that is kept.
    pub fn first_at(&self) -> Option<Nanos> {
        self.points.front().map(|point| point.at)
    }

    /// The end of the last gap, where the curve reaches back to it.
    pub fn broken_at(&self) -> Option<Nanos> {
        self.broken_at.filter(|at| self.first_at().is_some_and(|first| first <= *at))
    }

    /// The energy between two times; `None` where the later one is after the last total.
    pub fn between(&self, from: Nanos, to: Nanos) -> Option<Microjoules> {
        Some(self.total(to)? - self.total(from)?)
    }

    /// The energy between two times, with zero for the time after the last total.
    pub fn known(&self, from: Nanos, to: Nanos) -> Microjoules {
        let last = self.last_at().unwrap_or_default();
        self.between(from.min(last), to.min(last)).unwrap_or_default()
    }

    /// The total at a time. Before the first point: the first total. `None` after the last point.
    fn total(&self, at: Nanos) -> Option<Microjoules> {
        let after = self.points.partition_point(|point| point.at < at);
        let next = self.points.get(after)?;
        let Some(before) = after.checked_sub(1).and_then(|index| self.points.get(index)) else {
            return Some(next.total);
        };
        let (part, whole) = (u128::from((at - before.at).0), u128::from((next.at - before.at).0));
        let gained = u128::from((next.total - before.total).0) * part / whole.max(1);
        Some(before.total + Microjoules(u64::try_from(gained).unwrap_or(u64::MAX)))
    }

    /// Time between two new values of the meter: the shortest recent interval between changes (a steady load makes them
    /// longer), and at least the longest recent interval between reads.
    pub fn refresh(&self) -> Nanos {
        let read = self
            .points
            .iter()
            .rev()
            .zip(self.points.iter().rev().skip(1))
            .map(|(b, a)| b.at - a.at)
            .take(CHANGES)
            .max();
        self.changes.iter().min().copied().unwrap_or_default().max(read.unwrap_or_default())
    }

    /// Drops the points that are only needed for times before `from`.
    pub fn forget(&mut self, from: Nanos) {
        let keep = self.points.partition_point(|point| point.at <= from).saturating_sub(1);
        self.points.drain(..keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(u64, u64)]) -> Curve {
        let mut curve = Curve::default();
        points.iter().for_each(|(at, total)| curve.push(Nanos(*at), Microjoules(*total), false, true));
        curve
    }

    #[test]
    fn between_two_readings_there_is_a_straight_line() {
        let curve = curve(&[(10, 100), (20, 200), (30, 260)]);
        let total = |at| curve.total(Nanos(at)).map(|total| total.0);
        assert_eq!([5, 10, 15, 20, 25, 30].map(total), [100, 100, 150, 200, 230, 260].map(Some));
        assert_eq!(total(31), None);
        assert_eq!(Curve::default().total(Nanos(0)), None);
    }

    #[test]
    fn what_is_forgotten_changes_no_later_total() {
        let mut curve = curve(&[(10, 100), (20, 200), (30, 260)]);
        curve.forget(Nanos(25));
        assert_eq!(curve.total(Nanos(25)), Some(Microjoules(230)));
        assert_eq!(curve.points.len(), 2);
    }

    #[test]
    fn a_break_begins_it_anew() {
        let mut curve = curve(&[(10, 100), (20, 200)]);
        assert_eq!((curve.first_at(), curve.broken_at()), (Some(Nanos(10)), None));
        curve.push(Nanos(50), Microjoules(200), true, true);
        assert_eq!(curve.broken_at(), Some(Nanos(50)));
    }

    #[test]
    fn how_often_there_is_something_new() {
        let mut curve = Curve::default();
        let second = Nanos::SECOND.0;
        // Read every 10 s; new every 60 s.
        for step in 0..40u64 {
            curve.push(Nanos(step * 10 * second), Microjoules(step), false, step % 6 == 0);
        }
        assert_eq!(curve.refresh(), Nanos(60 * second));
        let mut steady = Curve::default();
        (0..9u64).for_each(|step| steady.push(Nanos(step * second), Microjoules(step), false, step == 0));
        assert_eq!(steady.refresh(), Nanos(second));
    }
}
