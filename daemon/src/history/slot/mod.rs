//! What an interval of history holds: energy of the node by zone, and what each series was charged in it. Intervals
//! are added up to longer ones, and their parts stay exact: integers of microjoules.

mod amounts;

pub use amounts::{AmountPart, AmountSource};

use crate::model::domain::NodeEnergy;
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
    /// How long the node's energy was measured, and how: by the worst zone among the zones that are added up.
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

impl ZonePart {
    /// The node's energy in the zones that are added up, in µJ.
    pub fn billed_total(zones: &[Self]) -> u64 {
        let billed = zones.iter().filter(|part| part.billed).map(|part| part.energy.total.0);
        billed.fold(0_u64, u64::saturating_add)
    }
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

/// What entities of one kind were charged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindPart {
    /// By series.
    pub rows: BTreeMap<SeriesId, Values>,
    /// Entities without a row: entities without a series of their own, and small series that were added up to save
    /// space.
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

/// Adds a row, two columns for each of `places`, to one of so many columns in which these have other places.
fn add_at(to: &mut Values, row: &[i64], places: &[usize], columns: usize) {
    to.resize(columns.max(to.len()), 0);
    for (column, value) in row.iter().enumerate().filter(|(_, value)| **value != 0) {
        if let Some(at) = places.get(column / 2) {
            let to = &mut to[at * 2 + column % 2];
            *to = to.saturating_add(*value);
        }
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
        for (name, part) in &other.kinds {
            let to = self.kinds.entry(name.clone()).or_default();
            add_at(&mut to.rest, &part.rest, &places, columns);
            for (id, row) in &part.rows {
                add_at(to.rows.entry(*id).or_default(), row, &places, columns);
            }
        }
        self.add_amounts(other);
    }

    /// The node's energy in the zones that are added up, in µJ.
    pub fn billed(&self) -> NodeEnergy {
        self.zones.iter().filter(|part| part.billed).fold(NodeEnergy::default(), |sum, part| sum + part.energy)
    }
}

#[cfg(test)]
mod tests;
