//! Training from samples: weights of several bases, the choice between them by their error on regimes that were left
//! out, and intervals from those errors.
//!
//! - Errors are relative (each sample is divided by its power): on the nx12 measurements that alone cut the error by a
//!   third against plain least squares.
//! - All regimes weigh the same, however many samples they have: a night at one load does not decide.
//! - A sample that is far off (by more than eight times the usual error) weighs less (iterated weights).
//!   Measurements have samples whose power and use are not of one time; they would pull the fit. The bound is wide, so
//!   that a workload of its own kind is no outlier.
//! - A basis is chosen by its mean error over regimes that it was not trained on, never by its error on all samples.

use super::basis::{Basis, Feature, MOST_TERMS};
use super::model::{BANDS, Form, Held, Interval, Machine, Model, Seen, Training, dot};
use super::nnls::Sums;
use super::samples::{self, Sample, Target};
use std::collections::{BTreeMap, BTreeSet};

/// See [`Sums::solve`]. On the data sets 3·10⁻⁴ to 3·10⁻³ differ by a tenth of a percent.
pub const RIDGE: f64 = 3e-4;
/// A relative error of more than this many times the usual one weighs less.
const FAR: f64 = 8.0;
/// Rounds of the robust fit: bounds, in usual errors. The first rounds find the bulk of the samples, wherever the bad
/// ones pull; the last ones give all samples but the bad ones their full weight.
const ROUNDS: [f64; 7] = [1.0, 1.0, 1.0, 1.0, FAR, FAR, FAR];
/// The least samples of a band of load that has an interval of its own, and its least number of workloads.
const BAND_SAMPLES: usize = 50;
const BAND_WORKLOADS: usize = 3;

/// Why nothing can be trained.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// No sample has what is needed.
    #[error("no sample has both a busy time and a power of the target {0} above 0 W")]
    NoSamples(Target),
    /// The number of threads cannot be seen.
    #[error("no sample has a busy time, so the number of threads is not known: give --threads")]
    NoThreads,
    /// One kind of work only.
    #[error("all samples are of one regime ({0}): two are needed at least, else nothing tells the error on other work")]
    OneRegime(String),
}

/// What training needs to know beside the samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// The model's name.
    pub name: String,
    /// The machine; its number of threads counts where it is not 0, else it is taken from the samples.
    pub machine: Machine,
    /// Name of the file or meter.
    pub source: String,
}

/// Trains a model of `target`.
///
/// # Errors
/// Where the samples have too little for it.
pub fn train(samples: &[&Sample], target: Target, about: &About) -> Result<Model, TrainError> {
    let usable: Vec<&Sample> = samples.iter().copied().filter(|sample| is_usable(sample, target)).collect();
    if usable.is_empty() {
        return Err(TrainError::NoSamples(target));
    }
    let threads = match about.machine.threads {
        0 => samples::threads(usable.iter().copied()).ok_or(TrainError::NoThreads)?,
        threads => f64::from(threads),
    };
    let regimes: Vec<String> = {
        let names: BTreeSet<&str> = usable.iter().map(|sample| sample.regime.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    };
    if let [only] = regimes.as_slice() {
        return Err(TrainError::OneRegime(only.clone()));
    }
    let usual_ghz = median(usable.iter().filter_map(|sample| sample.ghz).collect());
    let mut forms: Vec<Form> =
        candidates(target).iter().filter_map(|basis| fit(&usable, target, *basis, threads, usual_ghz)).collect();
    forms.sort_by(|one, other| one.held.mape_percent.total_cmp(&other.held.mape_percent));
    // The best, and what a machine can use that counts nothing.
    let best = forms.first().map(|form| form.basis);
    forms.retain(|form| Some(form.basis) == best || form.basis == Basis::Time);
    // A worse form that needs more than the best one is of no use.
    forms.truncate(if best == Some(Basis::Time) { 1 } else { 2 });
    if forms.is_empty() {
        return Err(TrainError::NoSamples(target));
    }
    let training = Training {
        samples: usable.len(),
        seconds: usable.iter().map(|sample| sample.seconds).sum(),
        regimes,
        source: about.source.clone(),
        jouled: env!("CARGO_PKG_VERSION").to_owned(),
        // Samples do not say when they were taken: the caller knows the time.
        ended: None,
    };
    let machine = Machine { threads: threads as u32, ..about.machine.clone() };
    Ok(Model { name: about.name.clone(), target, machine, forms, training })
}

/// Whether a sample can teach the power of `target`, or be compared with it.
pub fn is_usable(sample: &Sample, target: Target) -> bool {
    sample.busy.is_some() && sample.watts(target).is_some_and(|watts| watts > 0.0)
}

/// The bases that are tried.
const fn candidates(target: Target) -> &'static [Basis] {
    match target {
        Target::Package | Target::Platform => &[Basis::Time, Basis::Cycles, Basis::Counters, Basis::Frequency],
        Target::Dram => &[Basis::Memory, Basis::Time],
    }
}

/// One sample as a row of the problem.
struct Row<'a> {
    sample: &'a Sample,
    values: [f64; MOST_TERMS],
    watts: f64,
    busy: f64,
    /// Its weight, so that regimes weigh the same.
    balance: f64,
    /// Its weight after the robust rounds.
    weight: f64,
}

/// A relative error on work that was left out of the fit.
struct Residual<'a> {
    /// Measured power divided by predicted power, less 1.
    ratio: f64,
    /// Predicted power divided by measured power, less 1.
    error: f64,
    busy: f64,
    sample: &'a Sample,
}

/// A form with this basis; `None` where too few samples have what it needs.
fn fit(samples: &[&Sample], target: Target, basis: Basis, threads: f64, usual_ghz: Option<f64>) -> Option<Form> {
    let needs_ghz = basis.features().contains(&Feature::Ghz);
    let ghz = if needs_ghz { Some(usual_ghz?) } else { None };
    let mut rows: Vec<Row<'_>> = samples
        .iter()
        .filter_map(|sample| {
            let mut features = sample.features(threads)?;
            features.ghz = features.ghz.or(ghz);
            let values = basis.fill(&features, threads)?;
            let watts = sample.watts(target)?;
            Some(Row { sample, values, watts, busy: features.busy, balance: 0.0, weight: 0.0 })
        })
        .collect();
    // Where counters are missing in most samples, a model of the others would be of another kind of work.
    if rows.len() < samples.len().div_ceil(2) {
        return None;
    }
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    rows.iter().for_each(|row| *counts.entry(row.sample.regime.as_str()).or_default() += 1.0);
    if counts.len() < 2 {
        return None;
    }
    let each = rows.len() as f64 / counts.len() as f64;
    for row in &mut rows {
        row.balance = each / counts[row.sample.regime.as_str()];
        row.weight = row.balance;
    }
    let mut weights = total(&rows, basis).solve(RIDGE);
    for far in ROUNDS {
        reweigh(&mut rows, &weights, far);
        weights = total(&rows, basis).solve(RIDGE);
    }
    let residuals = left_out(&rows, basis);
    if residuals.is_empty() {
        return None;
    }
    let hull = basis.features().iter().filter_map(|feature| seen(&rows, *feature, threads, ghz)).collect();
    let intervals = intervals(&residuals);
    let held = held(&residuals);
    Some(Form { basis, weights, usual_ghz: ghz, hull, intervals, held })
}

fn total(rows: &[Row<'_>], basis: Basis) -> Sums {
    let mut sums = Sums::new(basis.terms().len());
    rows.iter().for_each(|row| sums.add(&row.values, row.watts, row.weight));
    sums
}

/// A sample that is off by more than `far` times the usual error weighs less, by the square: a sample that is far off
/// has next to no influence, also one of little power, whose relative error is large.
fn reweigh(rows: &mut [Row<'_>], weights: &[f64; MOST_TERMS], far: f64) {
    let off: Vec<f64> = rows.iter().map(|row| (dot(weights, &row.values) / row.watts - 1.0).abs()).collect();
    let pairs = off.iter().zip(rows.iter()).map(|(off, row)| (*off, row.balance)).collect();
    // The median absolute deviation of a normal distribution is σ / 1.4826. At least a thousandth: meters have steps.
    let bound = far * (1.4826 * weighted_quantile(pairs, 0.5)).max(1e-3);
    for (row, off) in rows.iter_mut().zip(off) {
        row.weight = row.balance * (bound / off.max(f64::EPSILON)).min(1.0).powi(2);
    }
}

/// Errors on regimes that were left out: each regime once, with the weights of the others.
fn left_out<'a>(rows: &[Row<'a>], basis: Basis) -> Vec<Residual<'a>> {
    let all = total(rows, basis);
    let mut regimes: BTreeMap<&str, Vec<&Row<'a>>> = BTreeMap::new();
    rows.iter().for_each(|row| regimes.entry(row.sample.regime.as_str()).or_default().push(row));
    let mut residuals = Vec::with_capacity(rows.len());
    for members in regimes.values() {
        let mut others = all.clone();
        let mut own = Sums::new(all.terms);
        members.iter().for_each(|row| own.add(&row.values, row.watts, row.weight));
        others.add_sums(&own, -1.0);
        let weights = others.solve(RIDGE);
        residuals.extend(members.iter().filter_map(|row| {
            let predicted = dot(&weights, &row.values);
            (predicted > 0.0).then(|| Residual {
                ratio: row.watts / predicted - 1.0,
                error: predicted / row.watts - 1.0,
                busy: row.busy,
                sample: row.sample,
            })
        }));
    }
    residuals
}

/// 5 % and 95 % quantiles of the errors, all workloads weighing the same: the mean of those of the band of load and of
/// those of all samples. Those of the band alone are of few workloads, and too narrow for the next one; those of all
/// samples alone are too wide at rest and too narrow where memory is loaded.
fn intervals(residuals: &[Residual<'_>]) -> Vec<Interval> {
    let everything: Vec<&Residual<'_>> = residuals.iter().collect();
    let all = quantiles(&everything);
    let band = |band: &[f64]| {
        let (from, to) = (band[0], band[1]);
        let is_in = |residual: &&&Residual<'_>| residual.busy >= from && (residual.busy < to || to >= 1.0);
        let inside: Vec<&Residual<'_>> = everything.iter().filter(is_in).copied().collect();
        let workloads: BTreeSet<&str> = inside.iter().map(|residual| residual.sample.workload()).collect();
        let enough = inside.len() >= BAND_SAMPLES && workloads.len() >= BAND_WORKLOADS;
        let own = if enough { quantiles(&inside) } else { all };
        Interval { from, to, low: (own.0 + all.0) / 2.0, high: (own.1 + all.1) / 2.0 }
    };
    BANDS.windows(2).map(band).collect()
}

fn quantiles(residuals: &[&Residual<'_>]) -> (f64, f64) {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    residuals.iter().for_each(|residual| *counts.entry(residual.sample.workload()).or_default() += 1.0);
    let weighted = |residual: &&Residual<'_>| (residual.ratio, 1.0 / counts[residual.sample.workload()]);
    let pairs: Vec<(f64, f64)> = residuals.iter().map(weighted).collect();
    (weighted_quantile(pairs.clone(), 0.05), weighted_quantile(pairs, 0.95))
}

/// The error on what was left out, each regime weighing the same.
fn held(residuals: &[Residual<'_>]) -> Held {
    let mut by_regime: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for residual in residuals {
        let (sum, count) = by_regime.entry(residual.sample.regime.as_str()).or_default();
        *sum += residual.error.abs();
        *count += 1.0;
    }
    let means: Vec<(&str, f64)> =
        by_regime.into_iter().map(|(name, (sum, count))| (name, 100.0 * sum / count)).collect();
    let worst = means.iter().max_by(|(_, one), (_, other)| one.total_cmp(other)).copied().unwrap_or_default();
    Held {
        mape_percent: means.iter().map(|(_, mean)| mean).sum::<f64>() / means.len().max(1) as f64,
        worst_regime: worst.0.to_owned(),
        worst_regime_percent: worst.1,
    }
}

fn seen(rows: &[Row<'_>], feature: Feature, threads: f64, ghz: Option<f64>) -> Option<Seen> {
    let value = |row: &Row<'_>| {
        let mut features = row.sample.features(threads)?;
        features.ghz = features.ghz.or(ghz);
        feature.of(&features, threads)
    };
    let values = rows.iter().filter_map(value);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), one| (low.min(one), high.max(one)));
    low.is_finite().then_some(Seen { feature, low, high })
}

/// The quantile `q` of values with weights, linear between them; 0 of nothing.
pub fn weighted_quantile(mut pairs: Vec<(f64, f64)>, q: f64) -> f64 {
    pairs.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let all: f64 = pairs.iter().map(|(_, weight)| weight).sum();
    let (mut sum, mut before) = (0.0, None);
    for (value, weight) in &pairs {
        // The middle of the weight of each value is its place.
        let place = (sum + weight / 2.0) / all;
        if place >= q {
            return match before {
                Some((earlier, at)) if place > at => earlier + (value - earlier) * (q - at) / (place - at),
                _ => *value,
            };
        }
        sum += weight;
        before = Some((*value, place));
    }
    before.map_or(0.0, |(value, _)| value)
}

fn median(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| weighted_quantile(values.into_iter().map(|value| (value, 1.0)).collect(), 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of 8 threads: 30 W at rest, a wake-up step of 20 W, and 60 W by load.
    fn watts(busy: f64) -> f64 {
        30.0 + 20.0 * busy / (busy + 0.05) + 60.0 * busy
    }

    fn sample(regime: &str, busy: f64, watts: f64) -> Sample {
        let regime = regime.to_owned();
        Sample { regime, seconds: 2.0, busy: Some(8.0 * busy), platform: Some(watts), ..Sample::default() }
    }

    fn samples() -> Vec<Sample> {
        let of = |regime: usize, step: usize| {
            let busy = (0.02 + 0.05 * step as f64 + 0.013 * regime as f64).min(1.0);
            sample(&format!("work{regime}"), busy, watts(busy) * (1.0 + 0.01 * ((step % 3) as f64 - 1.0)))
        };
        (0..5).flat_map(|regime| (0..20).map(move |step| of(regime, step))).collect()
    }

    fn trained(samples: &[Sample]) -> Model {
        let about = About { machine: Machine { threads: 8, ..Machine::default() }, ..About::default() };
        train(&samples.iter().collect::<Vec<_>>(), Target::Platform, &about).unwrap()
    }

    fn at(model: &Model, busy: f64) -> super::super::Predicted {
        model.predict(&super::super::Features { busy, ..Default::default() }).unwrap()
    }

    #[test]
    fn a_bent_power_is_learned_with_a_small_error() {
        let model = trained(&samples());
        assert_eq!(model.forms.len(), 1, "nothing is counted: {:?}", model.forms);
        for busy in [0.03, 0.1, 0.5, 0.9] {
            let predicted = at(&model, busy);
            assert!((predicted.watts / watts(busy) - 1.0).abs() < 0.02, "{busy}: {predicted:?}");
            assert!(predicted.low <= watts(busy) && watts(busy) <= predicted.high && !predicted.extrapolating);
        }
        assert!(model.forms[0].weights.iter().all(|weight| *weight >= 0.0));
        assert_eq!((model.training.samples, model.training.seconds, model.training.regimes.len()), (100, 200.0, 5));
    }

    #[test]
    fn bad_samples_do_not_pull_the_fit() {
        let mut bad = samples();
        // Power and use of different moments: the power of rest at full load.
        bad.extend((0..3).map(|_| sample("work1", 1.0, 30.0)));
        let (clean, pulled) = (at(&trained(&samples()), 1.0), at(&trained(&bad), 1.0));
        assert!((pulled.watts / clean.watts - 1.0).abs() < 0.08, "{clean:?} {pulled:?}");
    }

    #[test]
    fn a_load_that_was_never_seen_is_said_and_its_interval_is_wide() {
        let busy_only: Vec<Sample> = samples().into_iter().filter(|sample| sample.busy > Some(2.4)).collect();
        let model = trained(&busy_only);
        let (rest, inside) = (at(&model, 0.01), at(&model, 0.5));
        assert!(rest.extrapolating && !inside.extrapolating);
        assert!(rest.high / rest.watts >= 1.4 && rest.low / rest.watts <= 0.6, "{rest:?}");
        // At rest the constant is not traded for a term that merely saturates.
        assert!(rest.watts > 20.0, "{rest:?}");
    }

    #[test]
    fn what_is_too_little_is_an_error() {
        let of = |samples: &[Sample], target| {
            train(&samples.iter().collect::<Vec<_>>(), target, &About::default()).unwrap_err().to_string()
        };
        assert!(of(&samples(), Target::Dram).starts_with("no sample has both"));
        assert!(of(&samples()[..20], Target::Platform).starts_with("all samples are of one regime (work0)"));
        assert!(of(&[], Target::Platform).starts_with("no sample"));
    }

    #[test]
    fn quantiles_are_those_of_the_weights() {
        let q = |pairs: &[(f64, f64)], q| weighted_quantile(pairs.to_vec(), q);
        assert_eq!(q(&[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)], 0.5), 2.0);
        assert!((q(&[(1.0, 1.0), (2.0, 8.0), (3.0, 1.0)], 0.9) - 2.888_888_9).abs() < 1e-6);
        assert_eq!(q(&[], 0.5), 0.0);
        assert_eq!(q(&[(4.0, 2.0)], 0.05), 4.0);
    }
}
