//! Learning while a meter measures: one window at a time, predict first, then update. Two memories of sums:
//!
//! - *long*, in bins by regime (load, frequency, instructions per cycle, cache misses), each of which remembers an hour
//!   of its own regime, so that a night at one load does not wash out the rest. It is what is exported, and what stands
//!   in while the meter is away for long.
//! - *short*, the last five minutes, leaning on the long one where they say nothing. It bridges the seconds between the
//!   readings of a slow meter: it tracks the present load, and is no model of other loads.
//!
//! The error that is shown is that of predictions before the window taught anything, by band of load. Which windows can
//! be trusted is for the caller to say: none of a stale reading, of a suspended machine, of changed hardware.

mod errors;
mod kept;
#[cfg(test)]
mod tests;

pub use kept::{Kept, KeptErrors, KeptSums};

use super::basis::{Basis, Feature, MOST_TERMS};
use super::costs::Costs;
use super::model::{BANDS, Form, Held, Interval, Machine, Model, Seen, Training, dot};
use super::nnls::Sums;
use super::samples::Target;
use super::train::RIDGE;
use super::{Features, Predicted};
use errors::{Errors, STEP};

/// Bins of the long memory: 8 of load × 2 of frequency × 2 of instructions per cycle × 2 of cache misses.
pub const BINS: usize = 64;
/// The time that a bin of the long memory remembers, in seconds of its own regime.
const LONG: f64 = 3600.0;
/// Time constant of the short memory in seconds.
const SHORT: f64 = 300.0;
/// What the long memory weighs in the short one, in seconds.
const LEAN: f64 = 30.0;
/// Time between solutions in seconds.
const SOLVE: f64 = 10.0;
/// Before this much time in seconds has taught it, nothing is predicted.
const FIRST: f64 = 60.0;
/// A window that is off by more than this factor is no lesson: what was learned would be lost to one bad reading.
const ABSURD: f64 = 5.0;
/// After so many seconds of such windows in a row the domain is another one, and everything is learned again.
const ANOTHER: f64 = 600.0;

/// Learns the power of one domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    basis: Basis,
    /// Hardware threads of the domain.
    threads: f64,
    /// The long memory; a regime that was never seen has no sums.
    bins: Vec<Option<Box<Sums>>>,
    short: Sums,
    long_weights: Option<[f64; MOST_TERMS]>,
    short_weights: Option<[f64; MOST_TERMS]>,
    /// Windows that taught it, and their seconds.
    lessons: usize,
    taught: f64,
    /// Seconds since the last solution.
    unsolved: f64,
    /// Seconds in a row of windows that were no lesson.
    absurd: f64,
    /// Errors of the long memory, by band of load.
    errors: [Errors; BANDS.len() - 1],
    hull: Vec<Seen>,
}

impl Learner {
    /// A learner of a domain of `threads` hardware threads.
    pub fn new(basis: Basis, threads: u32) -> Self {
        Self {
            basis,
            threads: f64::from(threads.max(1)),
            bins: vec![None; BINS],
            short: Sums::new(basis.terms().len()),
            long_weights: None,
            short_weights: None,
            lessons: 0,
            taught: 0.0,
            unsolved: 0.0,
            absurd: 0.0,
            errors: [Errors::NONE; BANDS.len() - 1],
            hull: Vec::new(),
        }
    }

    /// The basis for the features that are counted.
    pub const fn basis_for(target: Target, counted: bool, ghz: bool) -> Basis {
        match (target, counted, ghz) {
            (_, false, _) => Basis::Time,
            (Target::Dram, true, _) => Basis::Memory,
            (_, true, true) => Basis::Frequency,
            (_, true, false) => Basis::Counters,
        }
    }

    /// A window of `seconds` in which these features ran and the meter saw `watts`. Returns what the short memory said
    /// before, for comparison; `None` where it said nothing yet, or the window is no lesson.
    pub fn observe(&mut self, features: &Features, watts: f64, seconds: f64) -> Option<f64> {
        let possible = watts > 0.0 && watts.is_finite() && seconds > 0.0 && seconds.is_finite();
        let values = self.basis.fill(features, self.threads).filter(|_| possible)?;
        let before = self.track(features);
        if let Some(long) = self.long_weights.map(|weights| dot(&weights, &values)).filter(|long| *long > 0.0) {
            let ratio = watts / long;
            if !(1.0 / ABSURD..=ABSURD).contains(&ratio) {
                self.absurd += seconds;
                if self.absurd >= ANOTHER {
                    *self = Self::new(self.basis, self.threads as u32);
                }
                return None;
            }
            self.absurd = 0.0;
            self.errors[band(features.busy)].add(ratio - 1.0, seconds);
        }
        let terms = self.basis.terms().len();
        let bin = self.bins[bin(features, self.threads)].get_or_insert_with(|| Box::new(Sums::new(terms)));
        bin.add(&values, watts, seconds);
        if bin.weight > LONG {
            bin.scale(LONG / bin.weight);
        }
        self.short.scale((-seconds / SHORT).exp());
        self.short.add(&values, watts, seconds);
        self.see(features);
        self.lessons += 1;
        self.taught += seconds;
        self.unsolved += seconds;
        if self.unsolved >= SOLVE {
            self.unsolved = 0.0;
            self.solve();
        }
        before
    }

    fn solve(&mut self) {
        let mut long = Sums::new(self.basis.terms().len());
        for bin in self.bins.iter().flatten() {
            // Regimes weigh alike, once they were seen for a minute.
            long.add_sums(bin, 1.0 / bin.weight.max(60.0));
        }
        self.long_weights = Some(long.solve(RIDGE));
        let mut short = self.short.clone();
        short.add_sums(&long, LEAN / long.weight.max(f64::EPSILON));
        self.short_weights = Some(short.solve(RIDGE));
    }

    fn see(&mut self, features: &Features) {
        for feature in self.basis.features() {
            let Some(value) = feature.of(features, self.threads) else { continue };
            match self.hull.iter_mut().find(|seen| seen.feature == *feature) {
                Some(seen) => (seen.low, seen.high) = (seen.low.min(value), seen.high.max(value)),
                None => self.hull.push(Seen { feature: *feature, low: value, high: value }),
            }
        }
    }

    /// The power of the present load in watts, where the meter measured some seconds ago: of the short memory.
    pub fn track(&self, features: &Features) -> Option<f64> {
        let weights = self.short_weights.filter(|_| self.taught >= FIRST)?;
        Some(dot(&weights, &self.basis.fill(features, self.threads)?))
    }

    /// The power where these features ran, where the meter is away: of the long memory.
    pub fn predict(&self, features: &Features) -> Option<Predicted> {
        self.form()?.predict(features, self.threads)
    }

    /// Mean absolute error of predictions before the update in percent, for each band of [`BANDS`]; `None` where a
    /// band was not seen.
    pub fn errors_percent(&self) -> [Option<f64>; BANDS.len() - 1] {
        std::array::from_fn(|band| self.errors[band].mean_percent())
    }

    /// Mean absolute error of predictions before the update in percent, over all loads; `None` before the first one.
    pub fn error_percent(&self) -> Option<f64> {
        let (absolute, time) = self.errors.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.absolute, sum.1 + one.time));
        (time > 0.0).then(|| 100.0 * absolute / time)
    }

    /// What work costs where all of it together has these features, by the long memory; `None`: it has not learned
    /// enough, or one of its features is not known.
    pub fn costs(&self, features: &Features) -> Option<Costs> {
        let weights = self.long_weights.filter(|_| self.taught >= FIRST)?;
        Costs::of(self.basis, &weights, features, self.threads)
    }

    /// Its terms.
    pub const fn basis(&self) -> Basis {
        self.basis
    }

    /// Seconds that taught it.
    pub const fn taught(&self) -> f64 {
        self.taught
    }

    /// What it says now, as a form of a model; `None` before it has learned enough.
    pub fn form(&self) -> Option<Form> {
        let weights = self.long_weights.filter(|_| self.taught >= FIRST)?;
        let all = self.errors.iter().fold(Errors::NONE, |mut all, one| {
            all.counts.iter_mut().zip(one.counts).for_each(|(all, one)| *all += one);
            (all.absolute, all.time) = (all.absolute + one.absolute, all.time + one.time);
            all
        });
        // The same mean of a band's errors and of all errors as in training.
        let interval = |(band, errors): (&[f64], &Errors)| {
            let mixed = |q| {
                let own = if errors.time >= FIRST { errors.quantile(q) } else { all.quantile(q) };
                (own + all.quantile(q)) / 2.0
            };
            Interval { from: band[0], to: band[1], low: mixed(0.05) - STEP / 2.0, high: mixed(0.95) + STEP / 2.0 }
        };
        let errors = self.errors.iter().enumerate().filter_map(|(band, errors)| Some((band, errors.mean_percent()?)));
        let worst = errors.max_by(|(_, one), (_, other)| one.total_cmp(other));
        let name = |band: usize| format!("load {:.0} to {:.0} %", 100.0 * BANDS[band], 100.0 * BANDS[band + 1]);
        Some(Form {
            basis: self.basis,
            weights,
            usual_ghz: self
                .hull
                .iter()
                .find(|seen| seen.feature == Feature::Ghz)
                .map(|seen| (seen.low + seen.high) / 2.0),
            hull: self.hull.clone(),
            intervals: BANDS.windows(2).zip(&self.errors).map(interval).collect(),
            held: Held {
                mape_percent: all.mean_percent()?,
                worst_regime: worst.map(|(band, _)| name(band)).unwrap_or_default(),
                worst_regime_percent: worst.map(|(_, percent)| percent).unwrap_or_default(),
            },
        })
    }

    /// The model for other machines of this kind: of the long memory. `None` before it has learned anything.
    pub fn model(&self, name: String, target: Target, machine: Machine, source: String) -> Option<Model> {
        let seen = self.bins.iter().enumerate().filter(|(_, bin)| bin.is_some());
        let training = Training {
            samples: self.lessons,
            seconds: self.taught,
            regimes: seen.map(|(bin, _)| format!("bin {bin}")).collect(),
            source,
            jouled: env!("CARGO_PKG_VERSION").to_owned(),
            ended: None,
        };
        let machine = Machine { threads: self.threads as u32, ..machine };
        Some(Model { name, target, machine, forms: vec![self.form()?], training })
    }

    /// Bytes that it takes, with what it points to.
    pub fn bytes(&self) -> usize {
        let bins = self.bins.capacity() * size_of::<Option<Box<Sums>>>()
            + self.bins.iter().flatten().count() * size_of::<Sums>();
        size_of::<Self>() + bins + self.hull.capacity() * size_of::<Seen>()
    }
}

/// The band of [`BANDS`] of a load.
fn band(busy: f64) -> usize {
    BANDS[1..BANDS.len() - 1].iter().filter(|border| busy >= **border).count()
}

/// The bin of a regime.
fn bin(features: &Features, threads: f64) -> usize {
    let of = |feature: Feature| feature.of(features, threads).unwrap_or_default();
    // Finer at rest, where power changes most.
    let load = ((8.0 * of(Feature::Busy).sqrt()) as usize).min(7);
    let (cycles, instructions, misses) = (of(Feature::Cycles), of(Feature::Instructions), of(Feature::CacheMisses));
    let fast = usize::from(of(Feature::Ghz) > 2.6);
    let efficient = usize::from(instructions > cycles);
    // More than five misses in a thousand instructions.
    let far = usize::from(misses / 1000.0 > 0.005 * instructions);
    load * 8 + fast * 4 + efficient * 2 + far
}
