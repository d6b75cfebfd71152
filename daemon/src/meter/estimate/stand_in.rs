//! A model that stands in for a meter, as the estimate computes with it: its curve of power by the busy share.

use super::curve::Curve;
use crate::model::domain::PowerInterval;
use crate::model::units::{Microwatts, Nanos};
use crate::power_model::Predicted;
use crate::power_model::stand_in::Chosen;

/// Points of the curve between rest and full load. What the first percents of load wake up saturates there, and between
/// two points the curve is a straight line.
const STEPS: u32 = 200;

/// A model and the curve of it.
pub(super) struct StandIn {
    chosen: Chosen,
    /// For one hardware thread.
    pub curve: Curve,
    /// The threads that it is the model of.
    threads: u64,
}

impl StandIn {
    /// Of so many hardware threads.
    pub fn new(chosen: Chosen, threads: u64) -> Self {
        let threads = threads.max(1);
        let steps = (0..=STEPS).map(|step| f64::from(step) / f64::from(STEPS));
        let curve = Curve::new(steps.map(|busy| chosen.predict(busy).watts / threads as f64));
        Self { chosen, curve, threads }
    }

    /// Power at rest.
    pub fn at_rest(&self) -> Microwatts {
        self.curve.at_rest(self.threads)
    }

    /// How well the power of these threads is known; `None`: no time has passed.
    pub fn interval(&self, busy: Nanos, capacity: Nanos, threads: u64) -> Option<PowerInterval> {
        if capacity == Nanos::ZERO {
            return None;
        }
        let said = self.chosen.predict(busy.0 as f64 / capacity.0 as f64);
        Some(interval(&said, threads as f64 / self.threads as f64))
    }

    /// The model.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }
}

/// Models in words, those of which the same is to be said together.
pub(super) fn described<'a>(all: impl Iterator<Item = &'a Chosen>) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for one in all {
        match groups.iter_mut().find(|(about, _)| *about == one.about()) {
            Some((_, names)) if names.contains(&one.names()) => {}
            Some((_, names)) => names.push(one.names()),
            None => groups.push((one.about(), vec![one.names()])),
        }
    }
    let groups: Vec<String> = groups.iter().map(|(about, names)| format!("{} ({about})", names.join(", "))).collect();
    groups.join(" and ")
}

/// A part of what a model says, as readings carry it.
pub(super) fn interval(Predicted { low, high, extrapolating, .. }: &Predicted, part: f64) -> PowerInterval {
    let microwatts = |watts: f64| Microwatts((watts * part * 1e6).round() as u64);
    PowerInterval { low: microwatts(*low), high: microwatts(*high), extrapolating: *extrapolating }
}

/// Intervals of parts together.
pub(super) fn sum(intervals: impl Iterator<Item = Option<PowerInterval>>) -> Option<PowerInterval> {
    let add = |one: PowerInterval, other: PowerInterval| PowerInterval {
        low: one.low + other.low,
        high: one.high + other.high,
        extrapolating: one.extrapolating || other.extrapolating,
    };
    intervals.reduce(|one, other| Some(add(one?, other?))).flatten()
}
