//! Carbon and cost of an interval of history: the node's, and those of series, which are stored only where the factors
//! do not say them.

use super::{Slot, Values, ZonePart, add_at};
use crate::model::footprint;
use serde::{Deserialize, Serialize};

/// Carbon or cost of the node, in billionths of the unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AmountPart {
    /// What is measured: `co2e_location`, `co2e_market` or `cost`.
    pub measure: String,
    /// What it is in: `gCO2e`, or a currency.
    pub unit: String,
    /// The factor, in millionths of the unit by kWh, where it was the same for all energy of the interval. Amounts of
    /// entities are then their energy times this, and are not stored.
    pub uniform: Option<i64>,
    /// Of the idle energy.
    pub idle: i64,
    /// Of the energy of work, the unattributed part included.
    pub active: i64,
    /// The unattributed part of `active`.
    pub unattributed: i64,
    /// Where the factors came from.
    pub sources: Vec<AmountSource>,
    /// The node's energy for which there was no factor, in µJ.
    pub uncounted: u64,
}

/// The part of an amount that one source of factors gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmountSource {
    /// Its name.
    pub source: String,
    /// Whether a source that is configured before it had no value.
    pub fallback: bool,
    /// The node's energy, in µJ.
    pub energy: u64,
    /// The amount, in billionths of the unit.
    pub amount: i64,
}

/// Most sources of an interval. The energy of further sources is added to the last one, `others`.
pub const SOURCES_MAX: usize = 12;
const OTHERS: &str = "others";

impl AmountPart {
    /// All of it.
    pub const fn total(&self) -> i64 {
        self.idle.saturating_add(self.active)
    }

    /// The factor that amounts of entities are near to, in millionths of the unit by kWh.
    pub fn rate(&self, energy: i64) -> i64 {
        self.uniform.unwrap_or_else(|| footprint::mean(self.total(), energy))
    }

    /// Adds the sums of another interval. The factor stays.
    pub fn add(&mut self, other: &Self) {
        self.idle = self.idle.saturating_add(other.idle);
        self.active = self.active.saturating_add(other.active);
        self.unattributed = self.unattributed.saturating_add(other.unattributed);
        self.uncounted = self.uncounted.saturating_add(other.uncounted);
        other.sources.iter().for_each(|source| self.add_source(source));
    }

    /// Whether both are of the same measure in the same unit.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.measure, &self.unit) == (&other.measure, &other.unit)
    }

    /// Adds how much is by a source.
    pub fn add_source(&mut self, one: &AmountSource) {
        let is_it = |known: &&mut AmountSource| (&known.source, known.fallback) == (&one.source, one.fallback);
        if let Some(known) = self.sources.iter_mut().find(is_it) {
            known.energy = known.energy.saturating_add(one.energy);
            known.amount = known.amount.saturating_add(one.amount);
        } else if self.sources.len() < SOURCES_MAX || one.source == OTHERS {
            self.sources.push(one.clone());
        } else {
            self.add_source(&AmountSource { source: OTHERS.into(), ..one.clone() });
        }
    }
}

impl Slot {
    /// A row's energy in these zones: dynamic and idle.
    fn billed_row(zones: &[ZonePart], row: &[i64]) -> [i64; 2] {
        let mut sum = [0_i64; 2];
        for (pair, _) in row.chunks(2).zip(zones).filter(|(_, part)| part.billed) {
            for (sum, value) in sum.iter_mut().zip(pair) {
                *sum = sum.saturating_add(*value);
            }
        }
        sum
    }

    /// What amounts of a row are near to: its energy times the factors. Exactly so where factors are uniform.
    pub fn expected(zones: &[ZonePart], rates: &[i64], row: &[i64]) -> Values {
        let energy = Self::billed_row(zones, row);
        rates.iter().flat_map(|rate| energy.map(|energy| footprint::nano(energy, *rate))).collect()
    }

    /// The factors that amounts of entities are near to, in the order of [`Slot::amounts`].
    pub fn rates(zones: &[ZonePart], amounts: &[AmountPart]) -> Vec<i64> {
        let energy = ZonePart::billed_total(zones);
        amounts.iter().map(|part| part.rate(i64::try_from(energy).unwrap_or(i64::MAX))).collect()
    }

    /// Computes all amounts of uniform factors from the energies. Those of a kind's series and rest are its energy
    /// times the factor, to the last digit.
    pub fn apply_uniform(&mut self) {
        let energy = self.billed();
        for (at, part) in self.amounts.iter_mut().enumerate() {
            let Some(rate) = part.uniform else { continue };
            let of = |energy: crate::model::units::Microjoules| {
                footprint::nano(i64::try_from(energy.0).unwrap_or(i64::MAX), rate)
            };
            part.idle = of(energy.idle);
            part.unattributed = of(energy.unattributed);
            part.active = part.unattributed.saturating_add(of(energy.active - energy.unattributed));
            let total = part.total();
            if let [source] = &mut *part.sources {
                (source.energy, source.amount) = (energy.total.0.saturating_sub(part.uncounted), total);
            }
            for kind in self.kinds.values_mut() {
                let mut left = Self::billed_row(&self.zones, &kind.sum()).map(|energy| footprint::nano(energy, rate));
                let columns = at * 2..at * 2 + 2;
                for (id, row) in &kind.rows {
                    let amounts = kind.amounts.entry(*id).or_default();
                    amounts.resize(amounts.len().max(columns.end), 0);
                    let energy = Self::billed_row(&self.zones, row);
                    for ((to, energy), left) in amounts[columns.clone()].iter_mut().zip(energy).zip(&mut left) {
                        *to = footprint::nano(energy, rate);
                        *left = left.saturating_sub(*to);
                    }
                }
                kind.amounts_rest.resize(kind.amounts_rest.len().max(columns.end), 0);
                kind.amounts_rest[columns].copy_from_slice(&left);
            }
        }
    }

    /// Adds amounts of `other`, whose energy was added already.
    pub(super) fn add_amounts(&mut self, other: &Self) {
        if self.amounts.is_empty() && other.amounts.is_empty() {
            return;
        }
        let before = self.billed().total.0.saturating_sub(other.billed().total.0);
        // What only one of both has was not counted in the other.
        for part in self.amounts.iter_mut().filter(|part| !other.amounts.iter().any(|one| one.is_of(part))) {
            part.uncounted = part.uncounted.saturating_add(other.billed().total.0);
            part.uniform = part.uniform.filter(|_| other.billed().total.0 == 0);
        }
        let mut places = Vec::new();
        for part in &other.amounts {
            let at = match self.amounts.iter().position(|one| one.is_of(part)) {
                Some(at) => {
                    let to = &mut self.amounts[at];
                    if to.uniform != part.uniform {
                        to.uniform = None;
                    }
                    to.add(part);
                    at
                }
                None => {
                    let uniform = part.uniform.filter(|_| before == 0);
                    let uncounted = part.uncounted.saturating_add(before);
                    self.amounts.push(AmountPart { uniform, uncounted, ..part.clone() });
                    self.amounts.len() - 1
                }
            };
            places.push(at);
        }
        let columns = self.amounts.len() * 2;
        for (name, part) in &other.kinds {
            let to = self.kinds.entry(name.clone()).or_default();
            add_at(&mut to.amounts_rest, &part.amounts_rest, &places, columns);
            for (id, row) in &part.amounts {
                add_at(to.amounts.entry(*id).or_default(), row, &places, columns);
            }
        }
        self.apply_uniform();
    }
}
