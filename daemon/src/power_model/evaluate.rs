//! How wrong a model is: on samples that it was not trained on, or by leaving a part of the samples out of the
//! training, each part once. Samples of one kind of work are alike, so what is left out is always a whole kind: a
//! random choice of samples flatters a model by 1.2 to 1.9 times.

use super::model::Model;
use super::samples::{self, Sample, Target};
use super::train::{self, About, TrainError, weighted_quantile};
use std::collections::{BTreeMap, BTreeSet};

/// What is left out of the training together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveOut {
    /// One regime: `stress@2000`. Samples at rest (`idle`) are spread over the parts, as every machine is seen at rest.
    Regime,
    /// The same, and all samples at rest as one regime: what is said of a machine that was never seen at rest.
    EveryRegime,
    /// One kind of work at all its frequencies: `stress`. Samples at rest are spread.
    Workload,
    /// All work at one frequency. Samples without a frequency are spread.
    Frequency,
}

impl LeaveOut {
    /// The part that each sample is in.
    fn parts<'a>(self, samples: &[&'a Sample]) -> Vec<&'a str> {
        let of = |sample: &'a Sample| match self {
            Self::Regime => (!sample.is_idle()).then_some(sample.regime.as_str()),
            Self::EveryRegime => Some(sample.regime.as_str()),
            Self::Workload => (!sample.is_idle()).then(|| sample.workload()),
            Self::Frequency => samples::megahertz(&sample.regime).and_then(|_| Some(sample.regime.rsplit_once('@')?.1)),
        };
        let names: BTreeSet<&str> = samples.iter().filter_map(|sample| of(sample)).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let mut turn = names.iter().cycle();
        samples.iter().map(|sample| of(sample).or_else(|| turn.next().copied()).unwrap_or("idle")).collect()
    }
}

/// The result of an evaluation. Errors are of the prediction against the measured power, in percent of the latter.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Number of samples that were compared.
    pub samples: usize,
    /// Mean absolute error.
    pub mape_percent: f64,
    /// Mean error: above 0 where the model says too much.
    pub bias_percent: f64,
    /// The 95 % quantile of absolute errors.
    pub p95_percent: f64,
    /// Share of samples whose measured power was within the 90 % interval.
    pub coverage_percent: f64,
    /// The regime with the largest mean absolute error.
    pub worst_regime: String,
    /// That error.
    pub worst_regime_percent: f64,
    /// Share of that regime's samples within the interval.
    pub worst_regime_coverage_percent: f64,
}

/// Why nothing can be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluateError {
    /// No sample can be compared.
    #[error("no sample has both a power of the target {0} above 0 W and the features that the model needs ({1})")]
    NoSamples(Target, String),
    /// Nothing can be left out.
    #[error("there is one {0} only ({1}): nothing is left to train on when it is left out")]
    OnePart(&'static str, String),
    /// A model cannot be trained on what is left.
    #[error("without {part}: {error}")]
    Train {
        /// What was left out.
        part: String,
        /// Why.
        error: TrainError,
    },
}

/// One sample with what a model said of it.
struct Compared<'a> {
    regime: &'a str,
    /// Predicted power divided by measured power, less 1.
    error: f64,
    covered: bool,
}

fn compare<'a>(model: &Model, sample: &'a Sample, target: Target) -> Option<Compared<'a>> {
    let watts = sample.watts(target).filter(|watts| *watts > 0.0)?;
    let predicted = model.predict(&sample.features(f64::from(model.machine.threads))?)?;
    Some(Compared {
        regime: &sample.regime,
        error: predicted.watts / watts - 1.0,
        covered: (predicted.low..=predicted.high).contains(&watts),
    })
}

/// Compares a model with samples.
///
/// # Errors
/// Where no sample can be compared.
pub fn of_model(model: &Model, samples: &[Sample], target: Target) -> Result<Evaluation, EvaluateError> {
    let compared: Vec<_> = samples.iter().filter_map(|sample| compare(model, sample, target)).collect();
    let needs = || {
        let names = model
            .forms
            .iter()
            .map(|form| form.basis.features().iter().map(|feature| feature.as_str()).collect::<Vec<_>>().join(", "));
        names.collect::<Vec<_>>().join("; or ")
    };
    summary(&compared).ok_or_else(|| EvaluateError::NoSamples(target, needs()))
}

/// Trains on all parts but one and compares with that one, for each part.
///
/// # Errors
/// Where there is one part only, or the others have too little to train on.
pub fn leave_out(
    samples: &[Sample],
    target: Target,
    about: &About,
    leave_out: LeaveOut,
) -> Result<Evaluation, EvaluateError> {
    let usable: Vec<&Sample> = samples.iter().filter(|sample| train::is_usable(sample, target)).collect();
    // The number of threads is of the machine and no matter of what is left out.
    let mut about = about.clone();
    if about.machine.threads == 0 {
        about.machine.threads = samples::threads(samples.iter()).unwrap_or_default() as u32;
    }
    let parts = leave_out.parts(&usable);
    let names: BTreeSet<&str> = parts.iter().copied().collect();
    if let Some(only) = names.first().filter(|_| names.len() == 1) {
        let what = match leave_out {
            LeaveOut::Regime | LeaveOut::EveryRegime => "regime",
            LeaveOut::Workload => "workload",
            LeaveOut::Frequency => "frequency",
        };
        return Err(EvaluateError::OnePart(what, (*only).to_owned()));
    }
    let mut compared = Vec::with_capacity(usable.len());
    for name in names {
        let others: Vec<&Sample> =
            usable.iter().zip(&parts).filter(|(_, part)| **part != name).map(|(sample, _)| *sample).collect();
        let model = train::train(&others, target, &about)
            .map_err(|error| EvaluateError::Train { part: name.to_owned(), error })?;
        let own = usable.iter().zip(&parts).filter(|(_, part)| **part == name);
        compared.extend(own.filter_map(|(sample, _)| compare(&model, sample, target)));
    }
    summary(&compared).ok_or_else(|| EvaluateError::NoSamples(target, "busy".to_owned()))
}

fn summary(compared: &[Compared<'_>]) -> Option<Evaluation> {
    if compared.is_empty() {
        return None;
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        100.0 * sum / count
    };
    let share = |covered: bool| if covered { 1.0 } else { 0.0 };
    let mut by_regime: BTreeMap<&str, Vec<&Compared<'_>>> = BTreeMap::new();
    compared.iter().for_each(|one| by_regime.entry(one.regime).or_default().push(one));
    let (worst, worst_percent) = by_regime
        .iter()
        .map(|(name, own)| (*name, mean(&mut own.iter().map(|one| one.error.abs()))))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let errors = compared.iter().map(|one| (one.error.abs(), 1.0)).collect();
    Some(Evaluation {
        samples: compared.len(),
        mape_percent: mean(&mut compared.iter().map(|one| one.error.abs())),
        bias_percent: mean(&mut compared.iter().map(|one| one.error)),
        p95_percent: 100.0 * weighted_quantile(errors, 0.95),
        coverage_percent: mean(&mut compared.iter().map(|one| share(one.covered))),
        worst_regime: worst.to_owned(),
        worst_regime_percent: worst_percent,
        worst_regime_coverage_percent: mean(&mut by_regime[worst].iter().map(|one| share(one.covered))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(regime: &str, busy: f64, watts: f64) -> Sample {
        let regime = regime.to_owned();
        Sample { regime, seconds: 2.0, busy: Some(busy), platform: Some(watts), ..Sample::default() }
    }

    /// Straight lines; `odd` draws 20 % more than the others say.
    fn samples() -> Vec<Sample> {
        let watts = |busy: f64| 40.0 + 10.0 * busy;
        let steps = || (1..=40).map(|step| f64::from(step) / 10.0);
        let of = |regime: &str, factor: f64| -> Vec<Sample> {
            steps().map(|busy| sample(regime, busy, factor * watts(busy))).collect()
        };
        [of("one", 1.0), of("two", 1.0), of("three", 1.0), of("odd", 1.2), of("idle", 1.0)].concat()
    }

    #[test]
    fn what_was_left_out_is_judged_by_the_others() {
        let samples = samples();
        let found = leave_out(&samples, Target::Platform, &About::default(), LeaveOut::Regime).unwrap();
        assert_eq!((found.samples, found.worst_regime.as_str()), (200, "odd"));
        assert!((14.0..17.5).contains(&found.worst_regime_percent), "1/1.2 of its power: {found:?}");
        assert!(found.worst_regime_coverage_percent < 50.0, "{found:?}");
        assert!(found.mape_percent > 3.0 && found.mape_percent < 8.0, "{found:?}");
        let every = leave_out(&samples, Target::Platform, &About::default(), LeaveOut::EveryRegime).unwrap();
        assert_eq!(every.samples, 200);
    }

    #[test]
    fn a_model_is_compared_with_other_samples() {
        let all = samples();
        let some: Vec<&Sample> = all.iter().filter(|sample| sample.regime != "odd").collect();
        let model = train::train(&some, Target::Platform, &About::default()).unwrap();
        let odd: Vec<Sample> = all.iter().filter(|sample| sample.regime == "odd").cloned().collect();
        let found = of_model(&model, &odd, Target::Platform).unwrap();
        assert!((found.bias_percent + 16.7).abs() < 1.0, "{found:?}");
        assert_eq!(found.coverage_percent, found.worst_regime_coverage_percent);
        assert!(of_model(&model, &odd, Target::Dram).unwrap_err().to_string().starts_with("no sample has both"));
    }

    #[test]
    fn one_part_cannot_be_left_out() {
        let samples: Vec<Sample> = samples().into_iter().filter(|sample| sample.regime == "one").collect();
        let why = |leave| leave_out(&samples, Target::Platform, &About::default(), leave).unwrap_err().to_string();
        assert!(why(LeaveOut::Regime).starts_with("there is one regime only (one)"));
        assert!(why(LeaveOut::Frequency).starts_with("there is one frequency only"));
    }
}
