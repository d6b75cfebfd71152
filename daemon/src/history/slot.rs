//! What an interval of history holds: energy of the node by zone, and what each series was charged in it. Intervals
//! are added up to longer ones, and their parts stay exact: integers of microjoules.

use crate::model::domain::NodeEnergy;
use crate::model::footprint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Number of a series in the database. Never used for another series.
pub type SeriesId = u64;

/// Energy in µJ by column: two for each zone, dynamic before idle, in the order of [`Slot::zones`].
pub type Values = Vec<i64>;

/// An interval of history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Begin, in seconds since 1970 (UTC), on a boundary of the local clock.
    pub from: i64,
    /// End, in seconds since 1970 (UTC).
    pub until: i64,
    /// How long jouled measured in it, in ms of CLOCK_BOOTTIME.
    pub observed_ms: u64,
    /// How long the node's energy was measured, and how: by the worst zone among those that are added up.
    pub quality_ms: Spans,
    /// Energy of the node by zone.
    pub zones: Vec<ZonePart>,
    /// What entities were charged, by kind.
    pub kinds: BTreeMap<String, KindPart>,
    /// Carbon and cost of the node.
    pub amounts: Vec<AmountPart>,
}

/// The node's energy in one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonePart {
    /// Name of the zone: `package`.
    pub zone: String,
    /// Whether it is one of the zones that are added up to the node's energy.
    pub billed: bool,
    /// The node's energy.
    pub energy: NodeEnergy,
    /// The part of the total in µJ that meters measured.
    pub measured: u64,
    /// The part of the total in µJ that was derived from meters.
    pub derived: u64,
    /// The part of the total in µJ that was estimated.
    pub estimated: u64,
    /// How long its energy was not measured although jouled ran, in ms.
    pub missing_ms: u64,
    /// How long it was measured, and how.
    #[serde(default, skip_serializing_if = "Spans::is_empty")]
    pub quality_ms: Spans,
}

/// How long energy was measured, derived and estimated, in ms. Resolution: a minute, which is as its worst part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spans {
    /// The time that this is about. What the other three lack of it was not measured. Intervals of versions before have
    /// 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub of: u64,
    /// Measured by meters. May be longer than `of`: a counter that was read again covers the time before.
    #[serde(skip_serializing_if = "is_zero")]
    pub measured: u64,
    /// Derived from meters.
    #[serde(skip_serializing_if = "is_zero")]
    pub derived: u64,
    /// Estimated by a model.
    #[serde(skip_serializing_if = "is_zero")]
    pub estimated: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Spans {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds those of another interval.
    pub const fn add(&mut self, other: &Self) {
        self.of = self.of.saturating_add(other.of);
        self.measured = self.measured.saturating_add(other.measured);
        self.derived = self.derived.saturating_add(other.derived);
        self.estimated = self.estimated.saturating_add(other.estimated);
    }
}

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

/// How much of an amount is by one source of factors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmountSource {
    /// Its name.
    pub source: String,
    /// Whether it stood in for the source that is configured before it.
    pub fallback: bool,
    /// The node's energy, in µJ.
    pub energy: u64,
    /// The amount, in billionths of the unit.
    pub amount: i64,
}

/// Most sources of an interval that are told apart; the energy of others is added to the last one, `others`.
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

    fn is_of(&self, other: &Self) -> bool {
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

/// What entities of one kind were charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindPart {
    /// By series.
    pub rows: BTreeMap<SeriesId, Values>,
    /// Entities without a row: those that had no series of their own, and small ones that were added up to save space.
    /// Negative where an entity got its series later than its energy: that energy is then in its row.
    pub rest: Values,
    /// Amounts by series, in billionths of the units: two for each of [`Slot::amounts`], dynamic before idle. A series
    /// with energy has them wherever the slot has amounts.
    pub amounts: BTreeMap<SeriesId, Values>,
    /// Amounts of `rest`.
    pub amounts_rest: Values,
}

impl KindPart {
    /// All that the kind was charged, by column.
    pub fn sum(&self) -> Values {
        let mut sum = self.rest.clone();
        self.rows.values().for_each(|row| add(&mut sum, row));
        sum
    }

    /// Keeps the `count` series with the most energy; what the others were charged is added to the rest.
    pub fn keep_largest(&mut self, count: usize) {
        if self.rows.len() <= count {
            return;
        }
        let size = |row: &Values| row.iter().copied().map(i64::unsigned_abs).max().unwrap_or_default();
        let mut by_size: Vec<(u64, SeriesId)> = self.rows.iter().map(|(id, row)| (size(row), *id)).collect();
        by_size.sort_unstable_by(|one, other| other.cmp(one));
        for (_, id) in by_size.drain(count..) {
            if let Some(row) = self.rows.remove(&id) {
                add(&mut self.rest, &row);
            }
            if let Some(amounts) = self.amounts.remove(&id) {
                add(&mut self.amounts_rest, &amounts);
            }
        }
    }
}

fn add(to: &mut Values, values: &[i64]) {
    if to.len() < values.len() {
        to.resize(values.len(), 0);
    }
    for (to, value) in to.iter_mut().zip(values) {
        *to = to.saturating_add(*value);
    }
}

impl Slot {
    /// An interval without energy.
    pub fn empty(from: i64, until: i64) -> Self {
        Self { from, until, ..Self::default() }
    }

    /// The position of a zone, which is added where there is none of this name.
    pub fn zone_index(&mut self, name: &str, billed: bool) -> usize {
        if let Some(at) = self.zones.iter().position(|part| part.zone == name) {
            return at;
        }
        self.zones.push(ZonePart { zone: name.to_owned(), billed, ..ZonePart::default() });
        self.zones.len() - 1
    }

    /// Adds what another interval holds to this one. The limits of this one stay.
    pub fn add(&mut self, other: &Self) {
        self.observed_ms = self.observed_ms.saturating_add(other.observed_ms);
        self.quality_ms.add(&other.quality_ms);
        let places: Vec<usize> = other.zones.iter().map(|part| self.zone_index(&part.zone, part.billed)).collect();
        for (part, at) in other.zones.iter().zip(&places) {
            let to = &mut self.zones[*at];
            to.energy += part.energy;
            to.measured = to.measured.saturating_add(part.measured);
            to.derived = to.derived.saturating_add(part.derived);
            to.estimated = to.estimated.saturating_add(part.estimated);
            to.missing_ms = to.missing_ms.saturating_add(part.missing_ms);
            to.quality_ms.add(&part.quality_ms);
            // What was billed once stays in the sum.
            to.billed |= part.billed;
        }
        let columns = self.zones.len() * 2;
        let add_row = |to: &mut Values, row: &Values| {
            to.resize(columns.max(to.len()), 0);
            for (column, value) in row.iter().enumerate().filter(|(_, value)| **value != 0) {
                if let Some(at) = places.get(column / 2) {
                    let to = &mut to[at * 2 + column % 2];
                    *to = to.saturating_add(*value);
                }
            }
        };
        for (name, part) in &other.kinds {
            let to = self.kinds.entry(name.clone()).or_default();
            add_row(&mut to.rest, &part.rest);
            for (id, row) in &part.rows {
                add_row(to.rows.entry(*id).or_default(), row);
            }
        }
        self.add_amounts(other);
    }

    /// The node's energy in the zones that are added up, in µJ.
    pub fn billed(&self) -> NodeEnergy {
        self.zones.iter().filter(|part| part.billed).fold(NodeEnergy::default(), |sum, part| sum + part.energy)
    }

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
        let billed = zones.iter().filter(|part| part.billed).map(|part| part.energy.total.0);
        let energy = billed.fold(0_u64, u64::saturating_add);
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
    fn add_amounts(&mut self, other: &Self) {
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
                    to.idle = to.idle.saturating_add(part.idle);
                    to.active = to.active.saturating_add(part.active);
                    to.unattributed = to.unattributed.saturating_add(part.unattributed);
                    to.uncounted = to.uncounted.saturating_add(part.uncounted);
                    part.sources.iter().for_each(|source| to.add_source(source));
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
        let add_row = |to: &mut Values, row: &Values| {
            to.resize(columns.max(to.len()), 0);
            for (column, value) in row.iter().enumerate().filter(|(_, value)| **value != 0) {
                if let Some(at) = places.get(column / 2) {
                    let to = &mut to[at * 2 + column % 2];
                    *to = to.saturating_add(*value);
                }
            }
        };
        for (name, part) in &other.kinds {
            let to = self.kinds.entry(name.clone()).or_default();
            add_row(&mut to.amounts_rest, &part.amounts_rest);
            for (id, row) in &part.amounts {
                add_row(to.amounts.entry(*id).or_default(), row);
            }
        }
        self.apply_uniform();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Microjoules;

    fn slot(zones: &[(&str, u64)], rows: &[(SeriesId, &[i64])], rest: &[i64]) -> Slot {
        let mut slot = Slot::empty(0, 60);
        for (name, total) in zones {
            let at = slot.zone_index(name, *name != "core");
            slot.zones[at].energy.total = Microjoules(*total);
        }
        let rows = rows.iter().map(|(id, values)| (*id, values.to_vec())).collect();
        slot.kinds.insert("unit".into(), KindPart { rows, rest: rest.to_vec(), ..KindPart::default() });
        slot
    }

    #[test]
    fn zones_are_added_by_name_whatever_their_order() {
        let mut sum = slot(&[("package", 10), ("core", 4)], &[(1, &[5, 1, 2, 0])], &[1, 0, 0, 0]);
        sum.add(&slot(&[("dram", 3), ("package", 20)], &[(1, &[7, 0, 9, 0]), (2, &[0, 0, 4, 2])], &[-3, 0, 0, 0]));
        let names: Vec<_> = sum.zones.iter().map(|zone| (zone.zone.as_str(), zone.energy.total.0)).collect();
        assert_eq!(names, [("package", 30), ("core", 4), ("dram", 3)]);
        let unit = &sum.kinds["unit"];
        assert_eq!(unit.rows[&1], [14, 1, 2, 0, 7, 0]);
        assert_eq!(unit.rows[&2], [4, 2, 0, 0, 0, 0]);
        assert_eq!(unit.rest, [1, 0, 0, 0, -3, 0]);
    }

    #[test]
    fn folding_small_series_changes_no_sum() {
        let rows: &[(SeriesId, &[i64])] = &[(1, &[5, 1]), (2, &[50, 0]), (3, &[0, 7]), (4, &[-6, 0])];
        let mut part = slot(&[("package", 0)], rows, &[2, 2]).kinds["unit"].clone();
        let before = part.sum();
        part.keep_largest(2);
        assert_eq!((part.rows.keys().copied().collect::<Vec<_>>(), part.sum()), (vec![2, 3], before));
    }
}
