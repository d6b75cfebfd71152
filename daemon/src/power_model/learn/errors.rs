//! Errors of predictions before the window taught anything.

use super::super::train::weighted_quantile;

/// Time constant of the errors that are shown, in seconds of their band.
const ERRORS: f64 = 7.0 * 86_400.0;
/// Errors are counted in steps of this share of the power, up to ± [`STEPS`] / 2 of them.
pub(super) const STEP: f64 = 0.02;
pub(super) const STEPS: usize = 61;

/// Errors of predictions before the update, in one band of load.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Errors {
    /// Seconds by error: measured power divided by predicted power, less 1.
    pub(super) counts: [f64; STEPS],
    /// Sum of absolute errors times seconds.
    pub(super) absolute: f64,
    /// Seconds.
    pub(super) time: f64,
}

impl Errors {
    pub(super) const NONE: Self = Self { counts: [0.0; STEPS], absolute: 0.0, time: 0.0 };

    pub(super) fn add(&mut self, ratio: f64, seconds: f64) {
        let keep = (-seconds / ERRORS).exp();
        self.counts.iter_mut().for_each(|count| *count *= keep);
        self.absolute *= keep;
        self.time *= keep;
        let middle = (STEPS / 2) as f64;
        let step = (ratio / STEP).round().clamp(-middle, middle) + middle;
        self.counts[step as usize] += seconds;
        // As a share of the measured power, as evaluations are.
        self.absolute += seconds * (1.0 / (1.0 + ratio) - 1.0).abs().min(1.0);
        self.time += seconds;
    }

    pub(super) fn mean_percent(&self) -> Option<f64> {
        (self.time > 0.0).then(|| 100.0 * self.absolute / self.time)
    }

    pub(super) fn quantile(&self, q: f64) -> f64 {
        let middle = (STEPS / 2) as f64;
        let pairs = self.counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
        weighted_quantile(pairs.map(|(step, count)| ((step as f64 - middle) * STEP, *count)).collect(), q)
    }
}
