//! What a learner knows, as plain data for a file, and back. Names and lengths are checked: a file may be damaged, or
//! of a version with other terms.

use super::super::basis::{Basis, Feature, MOST_TERMS};
use super::super::model::{BANDS, Seen};
use super::super::nnls::Sums;
use super::errors::{Errors, STEPS};
use super::{BINS, Learner};

/// What a learner knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Name of the basis.
    pub basis: String,
    /// Names of its terms, in the order of the sums.
    pub terms: Vec<String>,
    /// Hardware threads of the domain.
    pub threads: u32,
    /// Windows that taught it.
    pub lessons: usize,
    /// Their seconds.
    pub taught: f64,
    /// The long memory: number of the bin and its sums. Bins that were never seen are left out.
    pub bins: Vec<(usize, KeptSums)>,
    /// The short memory.
    pub short: KeptSums,
    /// Errors by band of load. Bands without errors are left out.
    pub errors: Vec<KeptErrors>,
    /// Name of a feature, its lowest and its highest value.
    pub seen: Vec<(String, f64, f64)>,
}

/// Sums of a least-squares problem.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptSums {
    /// Upper triangle of the matrix by rows, of the terms that the basis has.
    pub a: Vec<f64>,
    /// Right side.
    pub b: Vec<f64>,
    /// Sum of the weights.
    pub weight: f64,
}

/// Errors in one band of load.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptErrors {
    /// Number of the band.
    pub band: usize,
    /// Number of the step of the error, and seconds with it. Steps without time are left out.
    pub counts: Vec<(usize, f64)>,
    /// Sum of absolute errors times seconds.
    pub absolute: f64,
    /// Seconds.
    pub time: f64,
}

impl KeptSums {
    fn of(sums: &Sums) -> Self {
        let rows = 0..sums.terms;
        let a = rows.clone().flat_map(|row| (row..sums.terms).map(move |column| sums.entry(row, column)));
        Self { a: a.collect(), b: sums.b[rows].to_vec(), weight: sums.weight }
    }

    fn sums(&self, terms: usize) -> Option<Sums> {
        let numbers = self.a.iter().chain(&self.b).chain([&self.weight]);
        let possible = numbers.clone().all(|number| number.is_finite() && *number >= 0.0);
        if !possible || self.b.len() != terms || self.a.len() != terms * (terms + 1) / 2 {
            return None;
        }
        let mut sums = Sums::new(terms);
        let places = (0..terms).flat_map(|row| (row..terms).map(move |column| (row, column)));
        places.zip(&self.a).for_each(|((row, column), value)| sums.set_entry(row, column, *value));
        sums.b[..terms].copy_from_slice(&self.b);
        sums.weight = self.weight;
        Some(sums)
    }
}

impl Learner {
    /// All that it knows.
    pub fn kept(&self) -> Kept {
        let errors = self.errors.iter().enumerate().filter(|(_, errors)| errors.time > 0.0);
        let bins = self.bins.iter().enumerate().filter_map(|(bin, sums)| Some((bin, KeptSums::of(sums.as_ref()?))));
        Kept {
            basis: self.basis.as_str().to_owned(),
            terms: self.basis.terms().iter().map(|term| term.name.to_owned()).collect(),
            threads: self.threads as u32,
            lessons: self.lessons,
            taught: self.taught,
            bins: bins.collect(),
            short: KeptSums::of(&self.short),
            errors: errors
                .map(|(band, errors)| KeptErrors {
                    band,
                    counts: errors.counts.iter().copied().enumerate().filter(|(_, time)| *time > 0.0).collect(),
                    absolute: errors.absolute,
                    time: errors.time,
                })
                .collect(),
            seen: self.hull.iter().map(|seen| (seen.feature.as_str().to_owned(), seen.low, seen.high)).collect(),
        }
    }

    /// The learner that knows this; `None` where it cannot be true, or is of other terms than this version has.
    pub fn resume(kept: &Kept) -> Option<Self> {
        let basis = Basis::named(&kept.basis)?;
        let (names, number) = (basis.terms().iter().map(|term| term.name), basis.terms().len());
        let possible = |seconds: f64| (0.0..=MOST_SECONDS).contains(&seconds);
        if !names.eq(kept.terms.iter().map(String::as_str)) || number > MOST_TERMS || !possible(kept.taught) {
            return None;
        }
        let mut learner = Self::new(basis, kept.threads);
        (learner.lessons, learner.taught) = (kept.lessons, kept.taught);
        for (bin, sums) in &kept.bins {
            *learner.bins.get_mut(*bin).filter(|_| *bin < BINS)? = Some(Box::new(sums.sums(number)?));
        }
        learner.short = kept.short.sums(number)?;
        for errors in &kept.errors {
            let mut read = Errors { absolute: errors.absolute, time: errors.time, ..Errors::NONE };
            for (step, time) in &errors.counts {
                *read.counts.get_mut(*step).filter(|_| *step < STEPS && possible(*time))? = *time;
            }
            if !possible(errors.time) || !(0.0..=errors.time).contains(&errors.absolute) {
                return None;
            }
            *learner.errors.get_mut(errors.band).filter(|_| errors.band < BANDS.len() - 1)? = read;
        }
        for (name, low, high) in &kept.seen {
            let feature = Feature::named(name)?;
            if !low.is_finite() || !high.is_finite() || low > high {
                return None;
            }
            learner.hull.push(Seen { feature, low: *low, high: *high });
        }
        learner.refresh();
        Some(learner)
    }

    /// Solves now what is otherwise solved after some seconds: what is resumed from a file says the same as what goes
    /// on in memory.
    pub fn refresh(&mut self) {
        (self.unsolved, self.absurd) = (0.0, 0.0);
        if self.taught > 0.0 {
            self.solve();
        }
    }
}

/// A thousand years: more is damage.
const MOST_SECONDS: f64 = 1000.0 * 366.0 * 86_400.0;
