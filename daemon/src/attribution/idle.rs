//! The idle floor of a domain: its power at zero load, learned from its power against its utilisation. Pure.

use crate::model::snapshot::{IdleFloor, IdleFrom};
use crate::model::units::Microwatts;

/// Number of bins: equal ranges of utilisation with sums of their own, so that a long time at one load does not
/// outweigh the observations at other loads.
const BINS: usize = 32;
/// Number of observations that a bin remembers. The weight of older ones decays exponentially.
const MEMORY: f64 = 300.0;
/// The weight of an observation is 1 / (this + utilisation). Power is not quite linear in load, so observations near
/// zero load tell most about the intercept.
const NEAR_ZERO: f64 = 0.05;

/// Sums for a weighted straight line through (utilisation, watts).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Number of observations; older ones count less.
    pub n: f64,
    /// Sum of utilisations, each 0 to 1.
    pub u: f64,
    /// Sum of powers, in watts.
    pub p: f64,
    /// Sum of squares of utilisation.
    pub uu: f64,
    /// Sum of products of utilisation and watts.
    pub up: f64,
    /// Sum of squares of watts.
    pub pp: f64,
}

impl Sums {
    fn observe(&mut self, u: f64, p: f64) {
        if self.n >= MEMORY {
            self.scale(1.0 - 1.0 / MEMORY);
        }
        self.n += 1.0;
        self.u += u;
        self.p += p;
        self.uu += u * u;
        self.up += u * p;
        self.pp += p * p;
    }

    fn scale(&mut self, by: f64) {
        for sum in [&mut self.n, &mut self.u, &mut self.p, &mut self.uu, &mut self.up, &mut self.pp] {
            *sum *= by;
        }
    }

    fn add_weighted(&mut self, other: &Self, weight: f64) {
        self.n += weight * other.n;
        self.u += weight * other.u;
        self.p += weight * other.p;
        self.uu += weight * other.uu;
        self.up += weight * other.up;
        self.pp += weight * other.pp;
    }
}

/// Learns the idle floor of one domain: the intercept of power against utilisation. On a machine that is never at rest,
/// the intercept is lower than the lowest observed power. Until enough different loads were observed, the prior
/// dominates: full power times the ratio of idle to full power of processors of this kind.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleModel {
    /// Idle over full power of this kind of processor.
    pub prior_ratio: f64,
    /// A floor from the configuration or from the model behind an estimate. It replaces the learned one.
    pub known: Option<(Microwatts, IdleFrom)>,
    /// Sums by bin, a range of utilisation.
    pub bins: Vec<Sums>,
    /// Lowest power seen, in watts.
    pub lowest: Option<f64>,
}

impl IdleModel {
    /// A model without observations. `known` is a floor from the configuration, or from the model behind an estimate:
    /// it is returned as it is, whatever is observed.
    pub fn new(prior_ratio: f64, known: Option<(Microwatts, IdleFrom)>) -> Self {
        Self { prior_ratio: prior_ratio.clamp(0.01, 0.99), known, bins: vec![Sums::default(); BINS], lowest: None }
    }

    /// Takes over the observations of an earlier model. The prior and a given floor of this model stay.
    pub fn learn_from(&mut self, earlier: Self) {
        if earlier.bins.len() == BINS {
            self.bins = earlier.bins;
            self.lowest = earlier.lowest;
        }
    }

    /// Adds an observation: the mean power of a window and the utilisation (0 to 1) in it.
    pub fn observe(&mut self, utilisation: f64, power: Microwatts) {
        let (u, p) = (utilisation.clamp(0.0, 1.0), power.watts());
        let bin = ((u * BINS as f64) as usize).min(BINS - 1);
        self.bins[bin].observe(u, p);
        // The bound rises by 1e-4 of its distance to each observed power, so that one low reading does not bound the
        // floor for ever.
        self.lowest = Some(self.lowest.map_or(p, |low| if p < low { p } else { low + (p - low) * 1e-4 }));
    }

    /// The idle floor as of the last observation. `None` before the first observation, unless a floor is given.
    pub fn floor(&self) -> Option<IdleFloor> {
        if let Some((power, from)) = self.known {
            return Some(IdleFloor { power, uncertainty: Microwatts::ZERO, from });
        }
        let lowest = self.lowest?;
        let (prior, prior_error) = self.prior()?;
        let (power, error, from) = match self.line() {
            Some((intercept, noise)) => {
                let bend = self.extrapolation(intercept, prior);
                // Not `hypot`: a build against a recent glibc would need a symbol version that EL 9 lacks. Watts cannot
                // overflow here.
                let error = (noise * noise + bend * bend).sqrt();
                // The mean of line and prior, each weighted by the inverse of its variance.
                let (a, b) = (1.0 / error.powi(2).max(1e-12), 1.0 / prior_error.powi(2).max(1e-12));
                let from = if a >= b { IdleFrom::Learned } else { IdleFrom::Prior };
                ((intercept * a + prior * b) / (a + b), (a + b).sqrt().recip(), from)
            }
            None => (prior, prior_error, IdleFrom::Prior),
        };
        let microwatts = |watts: f64| Microwatts((watts.max(0.0) * 1e6).round() as u64);
        Some(IdleFloor { power: microwatts(power.min(lowest)), uncertainty: microwatts(error), from })
    }

    /// The prior in watts and its error, from the ratio r alone: with P = full·(r + u·(1−r)), idle is P·r / (r +
    /// u·(1−r)). The error is assumed to equal the dynamic power that this implies: small if the machine was nearly at
    /// rest, large if it was busy.
    fn prior(&self) -> Option<(f64, f64)> {
        let all = self.sums(|_| 1.0)?;
        let (u, p, r) = (all.u / all.n, all.p / all.n, self.prior_ratio);
        let idle = p * r / (r + u * (1.0 - r));
        Some((idle, (p - idle).max(0.02 * p)))
    }

    /// Intercept in watts and standard error of the weighted line through the observations. `None` if all loads were
    /// alike, or if power fell with load.
    fn line(&self) -> Option<(f64, f64)> {
        let s = self.sums(|u| 1.0 / (NEAR_ZERO + u))?;
        let (mean_u, mean_p) = (s.u / s.n, s.p / s.n);
        let suu = s.uu - s.n * mean_u * mean_u;
        let sup = s.up - s.n * mean_u * mean_p;
        let spp = s.pp - s.n * mean_p * mean_p;
        let count: f64 = self.bins.iter().map(|bin| bin.n).sum();
        let spread = (suu / s.n).max(0.0).sqrt();
        if count < 3.0 || spread < 1e-3 {
            return None;
        }
        let slope = sup / suu;
        let scale = count / s.n;
        let residual = ((spp - slope * sup).max(0.0) * scale / (count - 2.0)).max(0.0);
        let error = (residual * (1.0 / count + mean_u * mean_u / (suu * scale))).sqrt();
        // Power does not fall with load: a falling line is noise, and is not used.
        (slope >= 0.0).then_some((mean_p - slope * mean_u, error.max(1e-4 * mean_p)))
    }

    /// Error of the intercept in watts that comes from extrapolation to zero load. The power curve is not straight, and
    /// the effect of its curvature grows with the square of the lowest observed load. The slope is the steeper one of
    /// the line's and the prior's.
    fn extrapolation(&self, intercept: f64, prior: f64) -> f64 {
        let lowest = self.bins.iter().find(|bin| bin.n >= 3.0).map_or(1.0, |bin| bin.u / bin.n);
        let Some(all) = self.sums(|_| 1.0) else { return 0.0 };
        let (u, p) = (all.u / all.n, all.p / all.n);
        if u > 0.0 { (p - intercept.min(prior)).max(0.0) / u * lowest * lowest } else { 0.0 }
    }

    fn sums(&self, weight: impl Fn(f64) -> f64) -> Option<Sums> {
        let mut all = Sums::default();
        for bin in self.bins.iter().filter(|bin| bin.n > 0.0) {
            all.add_weighted(bin, weight(bin.u / bin.n));
        }
        (all.n > 0.0).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watts(watts: f64) -> Microwatts {
        Microwatts((watts * 1e6) as u64)
    }

    #[test]
    fn nothing_seen_nothing_said() {
        assert_eq!(IdleModel::new(0.2, None).floor(), None);
        assert_eq!(IdleModel::new(0.2, Some((watts(7.0), IdleFrom::Configured))).floor().unwrap().power, watts(7.0));
    }

    #[test]
    fn first_tick_uses_the_prior_and_says_so() {
        let mut model = IdleModel::new(0.25, None);
        model.observe(1.0, watts(100.0));
        let floor = model.floor().unwrap();
        assert_eq!(floor.from, IdleFrom::Prior);
        assert!((floor.power.watts() - 25.0).abs() < 0.01);
        assert!(floor.uncertainty.watts() > 50.0);
    }

    #[test]
    fn learns_the_intercept_though_never_at_rest() {
        let mut model = IdleModel::new(0.5, None);
        for step in 0..200 {
            let u = 0.2 + 0.7 * f64::from(step % 20) / 20.0;
            model.observe(u, watts(30.0 + 70.0 * u));
        }
        let floor = model.floor().unwrap();
        assert_eq!(floor.from, IdleFrom::Learned);
        assert!((floor.power.watts() - 30.0).abs() < 0.5, "{floor:?}");
        assert!((floor.power.watts() - 30.0).abs() < floor.uncertainty.watts(), "{floor:?}");
        assert!(floor.uncertainty.watts() < 4.0, "{floor:?}");
    }

    #[test]
    fn a_machine_that_was_never_near_rest_is_not_sure() {
        let mut model = IdleModel::new(0.3, None);
        for step in 0..600 {
            // Always between 90 % and 100 %, with a meter that does not follow so closely.
            let u = 0.9 + 0.1 * f64::from(step % 7) / 7.0;
            model.observe(u, watts(20.0 + 60.0 * (0.95 + 0.2 * (u - 0.95))));
        }
        let floor = model.floor().unwrap();
        assert!((floor.power.watts() - 20.0).abs() < floor.uncertainty.watts(), "{floor:?}");
    }

    #[test]
    fn noise_is_averaged_out() {
        let mut model = IdleModel::new(0.5, None);
        let mut state = 1u64;
        for step in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let noise = (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5;
            let u = 0.1 + 0.5 * f64::from(step % 40) / 40.0;
            model.observe(u, watts(20.0 + 50.0 * u + 4.0 * noise));
        }
        assert!((model.floor().unwrap().power.watts() - 20.0).abs() < 0.5);
    }

    #[test]
    fn a_long_full_load_forgets_nothing() {
        let mut model = IdleModel::new(0.5, None);
        for step in 0..100 {
            let u = f64::from(step % 10) / 10.0;
            model.observe(u, watts(30.0 + 70.0 * u));
        }
        for _ in 0..10_000 {
            model.observe(1.0, watts(100.0));
        }
        assert!((model.floor().unwrap().power.watts() - 30.0).abs() < 0.5);
    }

    #[test]
    fn never_above_the_lowest_power_seen() {
        let mut model = IdleModel::new(0.9, None);
        model.observe(0.5, watts(50.0));
        model.observe(0.5, watts(10.0));
        assert!(model.floor().unwrap().power <= watts(10.0));
    }
}
