//! Shares by what work costs: the weights of a window's use by the learned model of its domain, and whether that model
//! is better than the counter that stands for it otherwise. Computes no energy: see `split`.

use super::learned::Learned;
use super::settle::ClosedWindow;
use super::window::DomainState;
use crate::model::billing::{SharedBy, Weights};
use crate::model::domain::Zone;
use crate::model::units::Nanos;
use crate::model::usage::Used;
use crate::power_model::Features;
use crate::power_model::costs::Costs;

/// Time constant of the errors that are compared, in seconds.
const ERRORS: f64 = 3600.0;
/// Time constant of the straight line, in seconds: a day.
const LINE: f64 = 86_400.0;
/// Time in seconds for which both have to be known before the model may be taken.
const ENOUGH: f64 = 600.0;
/// The model is taken once its error is below this part of the other's, and given up once it is above it: shares do not
/// go back and forth between two that are as good.
const CLEARLY: f64 = 0.9;
/// Weights are counted in nanojoules of the model.
const UNITS: f64 = 1e9;

/// How well a domain's model, and a straight line through the counter that energy is shared by without it, say its
/// power before each lesson teaches them. That line is what shares by a counter amount to: rest, and as much for each
/// cycle.
#[derive(Clone, Debug, Default)]
pub(super) struct Rivals {
    /// Sums of a weighted straight line of relative errors: 1, x, xx, y, xy, each over y squared.
    line: [f64; 5],
    /// Sums of absolute relative errors times seconds, of the model and of the line; and seconds.
    errors: [f64; 3],
    better: bool,
}

impl Rivals {
    /// A lesson, before it teaches the model.
    pub fn compare(&mut self, learned: &Learned, zone: Zone, features: &Features, watts: f64, time: Nanos) {
        let x = match zone {
            Zone::Dram => features.cache_misses,
            _ => features.cycles,
        };
        let (Some(x), Some(model)) = (x, learned.by_counters.as_ref()) else { return };
        if watts <= 0.0 || !watts.is_finite() || !x.is_finite() {
            return;
        }
        // Of 10^9 a second: sums of squares of numbers of like size.
        let (x, seconds) = (x / 1e9, time.seconds());
        let said = model.predict(features).map(|said| said.watts);
        if let (Some(model), Some(line)) = (said, self.line(x)) {
            let fade = (-seconds / ERRORS).exp();
            self.errors.iter_mut().for_each(|sum| *sum *= fade);
            let off = |said: f64| (said / watts - 1.0).abs().min(1.0) * seconds;
            for (sum, one) in self.errors.iter_mut().zip([off(model), off(line), seconds]) {
                *sum += one;
            }
            let [model, line, known] = self.errors;
            self.better = known >= ENOUGH && if self.better { model < line } else { model < CLEARLY * line };
        }
        let (fade, weight) = ((-seconds / LINE).exp(), seconds / (watts * watts));
        for (sum, one) in self.line.iter_mut().zip([1.0, x, x * x, watts, x * watts]) {
            *sum = *sum * fade + weight * one;
        }
    }

    /// Watts by the line; `None` before it has seen anything.
    fn line(&self, x: f64) -> Option<f64> {
        let [n, sx, sxx, sy, sxy] = self.line;
        if n <= 0.0 {
            return None;
        }
        let spread = sxx - sx * sx / n;
        // All lessons were alike: the mean.
        let slope = if spread > 1e-9 * sxx { ((sxy - sx * sy / n) / spread).max(0.0) } else { 0.0 };
        Some((sy - slope * sx) / n + slope * x)
    }

    /// Whether the model's error is smaller.
    pub fn model_is_better(&self) -> bool {
        self.better
    }
}

/// Weights by what work costs.
pub(super) struct Costed {
    /// In the order of the charges.
    pub charges: Vec<u64>,
    /// Of use that cannot be attributed.
    pub lost: u64,
}

impl DomainState {
    /// Weights of a window by the domain's learned model; `None` where it is not to be used, or says nothing of this
    /// window.
    pub fn costed(&self, weights: Weights, closed: &ClosedWindow<'_>) -> Option<Costed> {
        match weights {
            Weights::Cycles | Weights::Time => return None,
            Weights::Auto if !self.rivals.model_is_better() => return None,
            Weights::Auto | Weights::Model => {}
        }
        // Shares by a rule, or of a part of the use, are no shares by features.
        if self.shared_by_rule() || closed.time == Nanos::ZERO || closed.by == SharedBy::Time {
            return None;
        }
        let features = closed.observed()?.features();
        let costs = self.learned.as_ref()?.by_counters.as_ref()?.costs(&features)?;
        costed(&costs, closed)
    }

    fn shared_by_rule(&self) -> bool {
        self.shares_estimated
    }
}

/// The weights; `None` where no work costs anything by the model.
fn costed(costs: &Costs, closed: &ClosedWindow<'_>) -> Option<Costed> {
    let joules = |used: &Used| {
        let (cycles, instructions, misses) = (used.cycles as f64, used.instructions as f64, used.cache_misses as f64);
        costs.joules(used.on_cpu.seconds(), cycles, instructions, misses)
    };
    let mut charged = Used::default();
    closed.charges.iter().for_each(|(charge, _)| charged.add(&charge.used));
    let all = closed.used;
    let lost = Used {
        on_cpu: all.on_cpu - charged.on_cpu,
        cycles: all.cycles.saturating_sub(charged.cycles),
        instructions: all.instructions.saturating_sub(charged.instructions),
        cache_misses: all.cache_misses.saturating_sub(charged.cache_misses),
    };
    // What work wakes up goes to all by the counter that stands for it.
    let by_use: f64 = closed.charges.iter().map(|(_, weight)| *weight as f64).sum::<f64>() + closed.lost as f64;
    let woken = if by_use > 0.0 { costs.wake_up * closed.time.seconds() / by_use } else { 0.0 };
    let weight = |used: &Used, by_use: u64| (UNITS * (joules(used) + woken * by_use as f64)).max(0.0).round() as u64;
    let charges: Vec<u64> = closed.charges.iter().map(|(charge, by_use)| weight(&charge.used, *by_use)).collect();
    let lost = if closed.lost > 0 { weight(&lost, closed.lost) } else { 0 };
    let any = lost > 0 || charges.iter().any(|weight| *weight > 0);
    any.then_some(Costed { charges, lost })
}
