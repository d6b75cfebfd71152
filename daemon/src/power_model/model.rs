//! A trained model: weights of a basis, what it has seen (its hull), and how wrong it was on work that it had not seen
//! (its intervals). The file format is `file`; training is `train`.

use super::basis::{Basis, Feature, MOST_TERMS};
use super::samples::Target;
use super::{Features, Predicted};
use crate::model::units::Nanos;

/// Borders of the bands of load (busy share) that have an interval each: near rest, half load, high load.
pub const BANDS: [f64; 4] = [0.0, 0.1, 0.4, 1.0];
/// A feature this much above what was seen is still inside.
const TOLERANCE: f64 = 1.1;
/// A busy share this far below the lowest seen one is still inside.
const REST_TOLERANCE: f64 = 0.02;
/// Half-width of the interval at a load below all that was seen, as a share of the power: what straight lines through
/// 10 to 30 % of load say of the power at rest is 1.6 times too high on servers of 2015 to 2020 (SPECpower).
const REST_DOUBT: f64 = 0.4;
/// The interval is at most this many times as wide as inside of the hull.
const WIDEST: f64 = 5.0;

/// The machine that a model is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// `model name` of /proc/cpuinfo; empty: not known.
    pub processor: String,
    /// Processor packages; `None`: not known.
    pub packages: Option<u32>,
    /// Hardware threads of all packages.
    pub threads: u32,
    /// Memory in GiB; `None`: not known.
    pub memory_gib: Option<f64>,
}

/// Relative error of a model in one band of load, on work that it had not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Busy share from which it is valid.
    pub from: f64,
    /// Busy share up to which it is valid.
    pub to: f64,
    /// Lower end: measured power divided by predicted power, less 1; the 5 % quantile.
    pub low: f64,
    /// Upper end: the 95 % quantile.
    pub high: f64,
}

/// What a feature was in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// The feature, of one hardware thread.
    pub feature: Feature,
    /// The lowest value.
    pub low: f64,
    /// The highest value.
    pub high: f64,
}

/// How wrong the model was on regimes that were left out of its training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// Mean absolute error in percent: of the mean of regimes.
    pub mape_percent: f64,
    /// The regime with the largest error.
    pub worst_regime: String,
    /// Its mean absolute error in percent.
    pub worst_regime_percent: f64,
}

/// A model for one set of features. A model has several, for machines that count less than others.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// Its terms.
    pub basis: Basis,
    /// Watts for each term, none negative; those beyond the basis are 0.
    pub weights: [f64; MOST_TERMS],
    /// The frequency in GHz that is taken where none is known, for a basis that needs one: the median of training.
    pub usual_ghz: Option<f64>,
    /// What it has seen.
    pub hull: Vec<Seen>,
    /// Its error by band of load, in the order of [`BANDS`].
    pub intervals: Vec<Interval>,
    /// Its error on regimes that were left out.
    pub held: Held,
}

/// What a model was trained on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// Number of samples.
    pub samples: usize,
    /// Their time in seconds.
    pub seconds: f64,
    /// What ran, sorted.
    pub regimes: Vec<String>,
    /// Name of the file or the meter that the samples are from.
    pub source: String,
    /// Version of jouled that trained it.
    pub jouled: String,
    /// When its training ended, CLOCK_REALTIME; `None`: not known.
    pub ended: Option<Nanos>,
}

/// A model of the power of one domain of a class of machines.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Whose power.
    pub target: Target,
    /// The machine that it is of.
    pub machine: Machine,
    /// The best one first.
    pub forms: Vec<Form>,
    /// What it was trained on.
    pub training: Training,
}

impl Model {
    /// The power where these features ran; `None` where none of its forms can do with them.
    pub fn predict(&self, features: &Features) -> Option<Predicted> {
        let threads = f64::from(self.machine.threads);
        self.forms.iter().find_map(|form| form.predict(features, threads))
    }

    /// The part of so many of its threads: of a VM on such a machine, at the VM's own load. `rest`: with its part of
    /// the power of the machine at rest. `None`: nothing is left of the model.
    pub fn part(&self, threads: u32, rest: bool) -> Option<Self> {
        // Terms are the means over threads, so weights go by the number of threads.
        let part = f64::from(threads) / f64::from(self.machine.threads);
        let mut model = self.clone();
        model.machine.threads = threads;
        // A VM has no packages and no memory modules of its own.
        (model.machine.packages, model.machine.memory_gib) = (None, None);
        for form in &mut model.forms {
            form.weights.iter_mut().for_each(|weight| *weight *= part);
            if !rest {
                form.weights[0] = 0.0;
            }
        }
        model.forms.retain(|form| form.weights.iter().any(|weight| *weight > 0.0));
        (threads > 0 && !model.forms.is_empty()).then_some(model)
    }
}

impl Form {
    /// The features with what this form takes where a frequency is not known.
    fn completed(&self, features: &Features) -> Features {
        Features { ghz: features.ghz.or(self.usual_ghz), ..*features }
    }

    /// The power where these features ran on a machine of `threads` threads; `None` where it needs another feature.
    pub fn predict(&self, features: &Features, threads: f64) -> Option<Predicted> {
        let features = self.completed(features);
        let values = self.basis.fill(&features, threads)?;
        let watts = dot(&self.weights, &values);
        let busy = features.busy.clamp(0.0, 1.0);
        let interval = self.intervals.iter().find(|interval| busy < interval.to).or(self.intervals.last())?;
        let (wider, at_rest) = self.outside(&features, threads);
        let doubt = if at_rest { REST_DOUBT } else { 0.0 };
        // The interval contains the prediction, also where the model was always wrong in one direction.
        let (low, high) = (interval.low.min(0.0) * wider, interval.high.max(0.0) * wider);
        Some(Predicted {
            watts,
            low: (watts * (1.0 + low.min(-doubt))).max(0.0),
            high: watts * (1.0 + high.max(doubt)),
            extrapolating: wider > 1.0 || at_rest,
        })
    }

    /// How many times wider the interval is than inside of the hull, and whether the load is below all that was seen.
    fn outside(&self, features: &Features, threads: f64) -> (f64, bool) {
        let (mut wider, mut at_rest) = (1.0_f64, false);
        for seen in &self.hull {
            let Some(value) = seen.feature.of(features, threads) else { continue };
            if value > seen.high * TOLERANCE && value > f64::EPSILON {
                wider = wider.max(if seen.high > 0.0 { value / seen.high } else { WIDEST });
            }
            match seen.feature {
                Feature::Ghz if value < seen.low / TOLERANCE => wider = wider.max(seen.low / value.max(f64::EPSILON)),
                Feature::Busy => at_rest |= value < seen.low - REST_TOLERANCE,
                _ => {}
            }
        }
        (wider.min(WIDEST), at_rest)
    }
}

/// Σ weights·values.
pub fn dot(weights: &[f64; MOST_TERMS], values: &[f64; MOST_TERMS]) -> f64 {
    weights.iter().zip(values).map(|(weight, value)| weight * value).sum()
}
