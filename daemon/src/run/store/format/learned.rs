//! What was learned of the power of a domain, as it is written: bases, terms and features by their names.

use super::fields::Float;
use crate::attribution::learned;
use crate::model::units::Nanos;
use crate::power_model::learn;
use crate::power_model::model::Machine;
use serde::{Deserialize, Serialize};

/// The models of one domain.
#[derive(Serialize, Deserialize)]
pub struct Learned {
    pub processor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<u32>,
    pub threads: u32,
    pub by_time: Learner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_counters: Option<Learner>,
    /// Time of the last lesson since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taught_at_ns: Option<u64>,
}

/// One model.
#[derive(Serialize, Deserialize)]
pub struct Learner {
    pub basis: String,
    /// Names of the terms that the sums are of, in their order.
    pub terms: Vec<String>,
    #[serde(default)]
    pub lessons: usize,
    pub taught_s: Float,
    /// The long memory.
    pub regimes: Vec<Regime>,
    /// The short memory.
    pub recent: Sums,
    pub errors: Vec<Errors>,
    pub seen: Vec<Seen>,
}

#[derive(Serialize, Deserialize)]
pub struct Regime {
    pub regime: usize,
    pub sums: Sums,
}

/// Sums of least squares: the upper triangle of the matrix by rows, the right side, and the sum of weights in seconds.
#[derive(Serialize, Deserialize)]
pub struct Sums {
    pub a: Vec<Float>,
    pub b: Vec<Float>,
    pub weight_s: Float,
}

/// Errors in one band of load: seconds by step of the error.
#[derive(Serialize, Deserialize)]
pub struct Errors {
    pub band: usize,
    pub steps: Vec<(usize, Float)>,
    pub absolute_s: Float,
    pub time_s: Float,
}

/// The range of a feature.
#[derive(Serialize, Deserialize)]
pub struct Seen {
    pub feature: String,
    pub low: Float,
    pub high: Float,
}

impl Learned {
    pub fn of(learned: &learned::Learned) -> Self {
        let Machine { processor, packages, threads, .. } = &learned.machine;
        Self {
            processor: processor.clone(),
            packages: *packages,
            threads: *threads,
            by_time: Learner::of(learned.by_time.kept()),
            by_counters: learned.by_counters.as_ref().map(|learner| Learner::of(learner.kept())),
            taught_at_ns: learned.taught_at().map(|at| at.0),
        }
    }

    /// `None`: it cannot be true, or is of terms that this version does not have.
    pub fn learned(&self) -> Option<learned::Learned> {
        let Self { processor, packages, threads, by_time, by_counters, taught_at_ns } = self;
        let machine =
            Machine { processor: processor.clone(), packages: *packages, threads: *threads, memory_gib: None };
        let resume = |learner: &Learner| learn::Learner::resume(&learner.kept(*threads));
        let by_counters = match by_counters {
            Some(learner) => Some(resume(learner)?),
            None => None,
        };
        Some(learned::Learned::of(machine, resume(by_time)?, by_counters, taught_at_ns.map(Nanos)))
    }
}

impl Learner {
    fn of(kept: learn::Kept) -> Self {
        let errors = kept.errors.into_iter().map(|one| Errors {
            band: one.band,
            steps: one.counts.into_iter().map(|(step, time)| (step, Float(time))).collect(),
            absolute_s: Float(one.absolute),
            time_s: Float(one.time),
        });
        let seen = kept.seen.into_iter();
        Self {
            basis: kept.basis,
            terms: kept.terms,
            lessons: kept.lessons,
            taught_s: Float(kept.taught),
            regimes: kept.bins.into_iter().map(|(regime, sums)| Regime { regime, sums: Sums::of(sums) }).collect(),
            recent: Sums::of(kept.short),
            errors: errors.collect(),
            seen: seen.map(|(feature, low, high)| Seen { feature, low: Float(low), high: Float(high) }).collect(),
        }
    }

    fn kept(&self, threads: u32) -> learn::Kept {
        let errors = self.errors.iter().map(|one| learn::KeptErrors {
            band: one.band,
            counts: one.steps.iter().map(|(step, time)| (*step, time.0)).collect(),
            absolute: one.absolute_s.0,
            time: one.time_s.0,
        });
        learn::Kept {
            basis: self.basis.clone(),
            terms: self.terms.clone(),
            threads,
            lessons: self.lessons,
            taught: self.taught_s.0,
            bins: self.regimes.iter().map(|one| (one.regime, one.sums.kept())).collect(),
            short: self.recent.kept(),
            errors: errors.collect(),
            seen: self.seen.iter().map(|seen| (seen.feature.clone(), seen.low.0, seen.high.0)).collect(),
        }
    }
}

impl Sums {
    fn of(sums: learn::KeptSums) -> Self {
        let floats = |numbers: Vec<f64>| numbers.into_iter().map(Float).collect();
        Self { a: floats(sums.a), b: floats(sums.b), weight_s: Float(sums.weight) }
    }

    fn kept(&self) -> learn::KeptSums {
        let numbers = |floats: &[Float]| floats.iter().map(|float| float.0).collect();
        learn::KeptSums { a: numbers(&self.a), b: numbers(&self.b), weight: self.weight_s.0 }
    }
}
