//! The idle floor of a domain: its power at zero load, learned from its power against its utilisation. Pure. Which
//! windows teach it is in `lessons`.

use crate::model::snapshot::{IdleFloor, IdleFrom};
use crate::model::units::{Microwatts, Nanos};

/// Number of bins: equal ranges of utilisation with sums of their own, so that a long time at one load does not
/// outweigh the observations at other loads.
const BINS: usize = 32;
/// The time that one observation of full weight covers, in seconds: see `lessons`.
const LESSON: f64 = 10.0;
/// Time for which a range remembers while it gains observations, in seconds: older ones fade exponentially. A floor
/// that changed, or was learned wrong, is right again after some minutes.
const MEMORY: f64 = 600.0;
/// Time for which a range remembers while it gains none, in seconds: 24 h.
const LONG_MEMORY: f64 = 86_400.0;
/// A range with a smaller weight has not seen enough to bound the floor or to judge an observation.
const ENOUGH: f64 = 3.0;
/// A range with a smaller weight is not one of the loads seen.
const SOME: f64 = 0.5;
/// The weight of an observation is 1 / (this + utilisation): power is not quite linear in load, and the intercept is at
/// zero load.
const NEAR_ZERO: f64 = 0.05;
/// Loads that differ by less than this are one load: a line through them says nothing about zero load. Accounting of
/// CPU time is late by up to one clock tick (10 ms) per CPU.
const LEAST_SPAN: f64 = 0.02;
/// What is left of the weight of a range when the domain behaves differently there for good.
const AFTER_A_CHANGE: f64 = 0.02;

/// Sums for a weighted straight line through (utilisation, watts).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Weight of the observations, 1 for each [`LESSON`]; older ones count less.
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
    fn add(&mut self, u: f64, p: f64, weight: f64) {
        self.add_weighted(&Self { n: 1.0, u, p, uu: u * u, up: u * p, pp: p * p }, weight);
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

    fn mean_power(&self) -> f64 {
        self.p / self.n
    }
}

/// Learns the idle floor of one domain: the intercept of power against utilisation. On a machine that is never at rest,
/// that is lower than the lowest power seen. Until enough different loads were seen, the floor is the prior's: full
/// power times the ratio of idle to full power of processors of this kind.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleModel {
    /// Idle over full power of this kind of processor.
    pub prior_ratio: f64,
    /// A floor from the configuration or from the model behind an estimate. It replaces the learned one.
    pub known: Option<(Microwatts, IdleFrom)>,
    /// Sums by bin, a range of utilisation.
    pub bins: Vec<Sums>,
}

impl IdleModel {
    /// A model without observations. `known` is a floor from the configuration, or from the model behind an estimate:
    /// it is returned as it is, whatever is observed.
    pub fn new(prior_ratio: f64, known: Option<(Microwatts, IdleFrom)>) -> Self {
        Self { prior_ratio: prior_ratio.clamp(0.01, 0.99), known, bins: vec![Sums::default(); BINS] }
    }

    /// Takes over the observations of an earlier model. The prior and a given floor of this model stay.
    pub fn learn_from(&mut self, earlier: Self) {
        if earlier.bins.len() == BINS {
            self.bins = earlier.bins;
            // Releases before 0.1.0 counted each window, up to 300.
            for bin in self.bins.iter_mut().filter(|bin| bin.n > MEMORY / LESSON) {
                bin.scale(MEMORY / LESSON / bin.n);
            }
        }
    }

    /// Whether it has seen nothing yet.
    pub fn is_empty(&self) -> bool {
        self.bins.iter().all(|bin| bin.n <= 0.0)
    }

    /// Adds an observation: the mean power of some `time`, and the utilisation (0 to 1) in it.
    pub fn observe(&mut self, utilisation: f64, power: Microwatts, time: Nanos) {
        let (u, p, seconds) = (utilisation.clamp(0.0, 1.0), power.watts(), time.seconds());
        let at = range(u);
        for (index, bin) in self.bins.iter_mut().enumerate() {
            bin.scale((-seconds / if index == at { MEMORY } else { LONG_MEMORY }).exp());
        }
        // A window of minutes is one observation, however long.
        self.bins[at].add(u, p, (seconds / LESSON).min(1.0));
    }

    /// By how many watts an observation is off what this load drew before, where it cannot be a part of the usual
    /// scatter; `None`: it fits, or too little is known of this load.
    pub fn contradiction(&self, utilisation: f64, power: Microwatts) -> Option<f64> {
        let bin = &self.bins[range(utilisation.clamp(0.0, 1.0))];
        if bin.n < ENOUGH {
            return None;
        }
        let mean = bin.mean_power();
        let deviation = (bin.pp / bin.n - mean * mean).max(0.0).sqrt();
        let off = power.watts() - mean;
        (off.abs() > 4.0 * deviation + 0.05 * mean).then_some(off)
    }

    /// The domain behaves differently at this load for good: what was learned of it before counts little from now on.
    pub fn doubt(&mut self, utilisation: f64) {
        self.bins[range(utilisation.clamp(0.0, 1.0))].scale(AFTER_A_CHANGE);
    }

    /// The idle floor as of the last observation. `None` before the first observation, unless a floor is given.
    pub fn floor(&self) -> Option<IdleFloor> {
        if let Some((power, from)) = self.known {
            return Some(IdleFloor { power, uncertainty: Microwatts::ZERO, from });
        }
        let (prior, prior_error) = self.prior()?;
        let (power, error, from) = match self.line(prior) {
            Some((intercept, error)) => {
                // Two independent opinions, each weighed by the inverse of its variance.
                let (a, b) = (1.0 / error.powi(2).max(1e-12), 1.0 / prior_error.powi(2).max(1e-12));
                let from = if a >= b { IdleFrom::Learned } else { IdleFrom::Prior };
                ((intercept * a + prior * b) / (a + b), (a + b).sqrt().recip(), from)
            }
            None => (prior, prior_error, IdleFrom::Prior),
        };
        let microwatts = |watts: f64| Microwatts((watts.max(0.0) * 1e6).round() as u64);
        Some(IdleFloor { power: microwatts(power.min(self.least_power())), uncertainty: microwatts(error), from })
    }

    /// The lowest mean power of any load, in watts: no floor is above it. The mean and not the minimum, so that a
    /// single low window does not bound the floor.
    fn least_power(&self) -> f64 {
        let enough = self.bins.iter().filter(|bin| bin.n >= ENOUGH).map(Sums::mean_power).fold(f64::INFINITY, f64::min);
        if enough.is_finite() { enough } else { self.sums(|_| 1.0).map_or(0.0, |all| all.mean_power()) }
    }

    /// The prior in watts and its error, from the ratio r alone: with P = full·(r + u·(1−r)), idle is P·r / (r +
    /// u·(1−r)). The error is assumed to equal the dynamic power that this implies: small if the machine was nearly at
    /// rest, large if it was busy.
    fn prior(&self) -> Option<(f64, f64)> {
        let all = self.sums(|_| 1.0)?;
        let (u, p, r) = (all.u / all.n, all.mean_power(), self.prior_ratio);
        let idle = p * r / (r + u * (1.0 - r));
        Some((idle, (p - idle).max(0.02 * p)))
    }

    /// Intercept in watts of the weighted line through the observations, and its error. `None` where all loads were
    /// alike.
    fn line(&self, prior: f64) -> Option<(f64, f64)> {
        let s = self.sums(|u| 1.0 / (NEAR_ZERO + u))?;
        let (mean_u, mean_p) = (s.u / s.n, s.mean_power());
        let suu = s.uu - s.n * mean_u * mean_u;
        let sup = s.up - s.n * mean_u * mean_p;
        let spp = s.pp - s.n * mean_p * mean_p;
        let count: f64 = self.bins.iter().map(|bin| bin.n).sum();
        let spread = (suu / s.n).max(0.0).sqrt();
        if count < ENOUGH || spread < 1e-3 {
            return None;
        }
        // Power does not fall with load: of a falling line only the mean is taken.
        let slope = (sup / suu).max(0.0);
        let scale = count / s.n;
        let residual = ((spp - slope * sup).max(0.0) * scale / (count - 2.0)).max(0.0);
        let noise = (residual * (1.0 / count + mean_u * mean_u / (suu * scale))).sqrt().max(1e-4 * mean_p);
        let intercept = (mean_p - slope * mean_u).max(0.0);
        let bend = self.extrapolation(intercept, prior)?;
        // Not hypot: that of today's glibc is newer than the glibc of EL 9, and these are watts.
        Some((intercept, (noise * noise + bend * bend).sqrt()))
    }

    /// Error of the intercept in watts because the line is extrapolated from the loads seen to zero load. A power
    /// curve bends: the effect of the bend grows with the square of the lowest load seen. It also grows with the
    /// ratio of the distance to zero load and the distance between the loads seen: a line through loads that are
    /// nearly alike has any slope. The slope is the steeper one of the line's and the prior's. `None`: the loads seen
    /// are alike.
    fn extrapolation(&self, intercept: f64, prior: f64) -> Option<f64> {
        let seen = || self.bins.iter().filter(|bin| bin.n >= SOME).map(|bin| bin.u / bin.n);
        let (lowest, highest) = (seen().reduce(f64::min)?, seen().reduce(f64::max)?);
        let span = highest - lowest;
        if span < LEAST_SPAN {
            return None;
        }
        let all = self.sums(|_| 1.0)?;
        let (u, p) = (all.u / all.n, all.mean_power());
        let slope = if u > 0.0 { (p - intercept.min(prior)).max(0.0) / u } else { 0.0 };
        Some(slope * lowest * lowest * (1.0 + lowest / span))
    }

    fn sums(&self, weight: impl Fn(f64) -> f64) -> Option<Sums> {
        let mut all = Sums::default();
        for bin in self.bins.iter().filter(|bin| bin.n > 0.0) {
            all.add_weighted(bin, weight(bin.u / bin.n));
        }
        (all.n > 0.0).then_some(all)
    }
}

fn range(utilisation: f64) -> usize {
    ((utilisation * BINS as f64) as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One lesson.
    const TEN: Nanos = Nanos(10 * Nanos::SECOND.0);

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
        model.observe(1.0, watts(100.0), TEN);
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
            model.observe(u, watts(30.0 + 70.0 * u), TEN);
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
            model.observe(u, watts(20.0 + 60.0 * (0.95 + 0.2 * (u - 0.95))), TEN);
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
            model.observe(u, watts(20.0 + 50.0 * u + 4.0 * noise), TEN);
        }
        assert!((model.floor().unwrap().power.watts() - 20.0).abs() < 0.5);
    }

    #[test]
    fn a_long_full_load_forgets_nothing() {
        let mut model = IdleModel::new(0.5, None);
        for step in 0..100 {
            let u = f64::from(step % 10) / 10.0;
            model.observe(u, watts(30.0 + 70.0 * u), TEN);
        }
        for _ in 0..10_000 {
            model.observe(1.0, watts(100.0), TEN);
        }
        assert!((model.floor().unwrap().power.watts() - 30.0).abs() < 0.5);
    }

    #[test]
    fn not_above_the_mean_power_of_any_load() {
        let mut model = IdleModel::new(0.9, None);
        for step in 0..20 {
            let u = if step % 2 == 0 { 0.1 } else { 0.9 };
            model.observe(u, watts(10.0 + 100.0 * u), TEN);
        }
        assert!(model.floor().unwrap().power.watts() <= 20.01);
        let mut one = IdleModel::new(0.9, None);
        one.observe(0.5, watts(50.0), TEN);
        assert!(one.floor().unwrap().power <= watts(50.0));
    }

    #[test]
    fn readers_of_one_full_machine_agree_on_the_prior() {
        // Two niced processes keep both CPUs of a 20 W + 60 W machine busy. Each reader sees another noise in the load.
        let floors: Vec<f64> = [0.0, 0.005, 0.015, 0.03]
            .into_iter()
            .flat_map(|noise| [1_u64, 7, 23].map(|seed| (noise, seed)))
            .map(|(noise, seed)| {
                let (mut model, mut state) = (IdleModel::new(0.25, None), seed);
                for _ in 0..120 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let random = (state >> 33) as f64 / f64::from(1u32 << 31);
                    model.observe(1.0 - noise * random, watts(80.0 + random - 0.5), TEN);
                }
                let floor = model.floor().unwrap();
                assert_eq!(floor.from, IdleFrom::Prior);
                assert!((floor.power.watts() - 20.0).abs() < floor.uncertainty.watts());
                floor.power.watts()
            })
            .collect();
        assert!(floors.iter().all(|floor| (floor - 20.0).abs() < 1.0), "{floors:?}");
    }

    #[test]
    fn a_half_busy_machine_whose_load_is_accounted_late_does_not_take_its_power_for_idle() {
        let (mut model, mut state) = (IdleModel::new(0.3, None), 5_u64);
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let late = ((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5) * 0.1;
            model.observe(0.5 + late, watts(41.0), TEN);
        }
        let floor = model.floor().unwrap();
        assert!(floor.power.watts() < 26.0, "{floor:?}");
    }

    #[test]
    fn wrong_power_is_forgotten_within_minutes() {
        let mut model = IdleModel::new(0.3, None);
        // An hour of a meter that says a tenth.
        for step in 0..360 {
            let u = f64::from(step % 10) / 10.0;
            model.observe(u, watts(3.0 + 7.0 * u), TEN);
        }
        for step in 0..90 {
            let u = f64::from(step % 10) / 10.0;
            if model.contradiction(u, watts(30.0 + 70.0 * u)).is_some() {
                model.doubt(u);
            }
            model.observe(u, watts(30.0 + 70.0 * u), TEN);
        }
        assert!((model.floor().unwrap().power.watts() - 30.0).abs() < 1.5, "{:?}", model.floor());
    }
}
