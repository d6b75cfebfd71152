//! Energy over time, from the totals that snapshots have. Pure. Over a time that could not be measured it says nothing.

use crate::model::snapshot::DomainView;

/// The totals of one domain at its readings.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    points: Vec<Point>,
    /// Gaps of the domain at the last point.
    gaps: u64,
    /// Its last reading failed: what is between the last point and the next is not known.
    broken: bool,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    /// CLOCK_MONOTONIC, seconds.
    at: f64,
    joules: f64,
    /// The energy since the point before is known.
    joined: bool,
}

impl Curve {
    /// Adds what a snapshot has of the domain, where that is new.
    pub fn see(&mut self, view: &DomainView) {
        if view.past || !view.error.is_empty() {
            self.broken = true;
            return;
        }
        let Some(at) = view.read_at.map(|at| at.seconds()) else { return };
        if self.points.last().is_some_and(|last| at <= last.at) {
            return;
        }
        self.add(at, view.energy.total.joules(), !self.broken && view.gaps == self.gaps);
        (self.gaps, self.broken) = (view.gaps, false);
    }

    /// Adds a point, later than the last one. `joined`: the energy between both is known.
    pub fn add(&mut self, at: f64, joules: f64, joined: bool) {
        self.points.push(Point { at, joules, joined });
    }

    /// What is not known from now on, until the next point.
    pub const fn interrupt(&mut self) {
        self.broken = true;
    }

    /// The times of its first and its last point.
    pub fn span(&self) -> Option<(f64, f64)> {
        Some((self.points.first()?.at, self.points.last()?.at))
    }

    /// Times between two points whose energy is known.
    pub fn windows(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.points.windows(2).filter(|pair| pair[1].joined).map(|pair| (pair[0].at, pair[1].at))
    }

    /// The energy between two times, in joules. Between two points it flows evenly. `None`: it is not known.
    pub fn energy(&self, from: f64, to: f64) -> Option<f64> {
        let first = self.points.partition_point(|point| point.at <= from);
        let last = self.points.partition_point(|point| point.at < to);
        if first == 0 || last >= self.points.len() || to < from {
            return None;
        }
        if !self.points[first..=last].iter().all(|point| point.joined) {
            return None;
        }
        Some(self.total(last, to) - self.total(first, from))
    }

    /// The total at a time between the points `next - 1` and `next`.
    fn total(&self, next: usize, at: f64) -> f64 {
        let (old, new) = (self.points[next - 1], self.points[next]);
        let part = (at - old.at) / (new.at - old.at);
        old.joules + (new.joules - old.joules) * part
    }
}

/// The energy of several domains together.
pub fn sum(curves: &[Curve], from: f64, to: f64) -> Option<f64> {
    curves.iter().map(|curve| curve.energy(from, to)).sum()
}
