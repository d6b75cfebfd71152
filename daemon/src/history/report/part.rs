//! What a report consists of: the node's energy, lines of entities, carbon and cost. Programs get it in this form.

use crate::history::encoding::Header;
use crate::history::slot::{AmountSource, Spans};
use crate::model::entity::Labels;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A part of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Begin in seconds since 1970.
    pub from: i64,
    /// End in seconds since 1970.
    pub until: i64,
    /// Begin of the first interval in it.
    pub first: i64,
    /// End of the last interval in it.
    pub last: i64,
    /// How long jouled measured in it, in seconds.
    pub observed_seconds: u64,
    /// The node.
    pub node: NodeLine,
    /// Entities, the most energy first.
    pub lines: Vec<ReportLine>,
    /// Energy charged to entities without a line: entities without a series of their own, and small entities that
    /// were added up. Negative where an entity's line has energy that was counted here earlier.
    pub rest: Sum,
    /// Energy charged to processes in no entity of this kind. `None` where entities contain each other.
    pub outside: Option<Sum>,
    /// Idle energy that no entity was charged.
    pub idle: i64,
    /// Energy of work of unknown processes.
    pub unattributed: i64,
    /// Carbon and cost of everything but the lines, which have theirs in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<AmountLine>,
}

/// Carbon or cost in a part, in billionths of the unit. Lines + rest + outside + idle + unattributed = node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmountLine {
    /// `co2e_location`, `co2e_market` or `cost`.
    pub measure: String,
    /// `gCO2e`, or a currency.
    pub unit: String,
    /// The node's.
    pub node: i64,
    /// As [`Part::rest`].
    pub rest: Sum,
    /// As [`Part::outside`].
    pub outside: Option<Sum>,
    /// As [`Part::idle`].
    pub idle: i64,
    /// As [`Part::unattributed`].
    pub unattributed: i64,
    /// The sources of the factors.
    pub sources: Vec<AmountSource>,
    /// The node's energy for which there was no factor, in µJ: the amounts lack it.
    pub uncounted: u64,
}

/// Declarations of the operator for reports. They measure nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Declared {
    /// `[report] pue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pue: Option<f64>,
    /// `[carbon] embodied_kg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embodied_kg: Option<f64>,
    /// `[carbon] lifetime_years`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_years: Option<f64>,
}

/// The node's energy in a part, in µJ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// All of it, in the zones that are added up.
    pub total: u64,
    /// The part that meters measured.
    pub measured: u64,
    /// The part that was derived from meters.
    pub derived: u64,
    /// The part that was estimated.
    pub estimated: u64,
    /// The longest time of a zone that was not measured while jouled ran, in seconds.
    pub missing_seconds: u64,
    /// How long it was measured, and how, by the worst zone at each minute, in ms.
    #[serde(default)]
    pub quality_ms: Spans,
    /// The same of each zone.
    #[serde(default)]
    pub zone_quality_ms: BTreeMap<String, Spans>,
    /// Names of the zones that are added up.
    #[serde(default)]
    pub billed: BTreeSet<String>,
    /// The total of every zone by name; they may contain each other.
    pub zones: BTreeMap<String, u64>,
}

impl NodeLine {
    /// Adds an interval, and its time without readings to that of its zones.
    pub(in crate::history) fn add(&mut self, header: &Header, missing_ms: &mut BTreeMap<String, u64>) {
        self.quality_ms.add(&header.quality_ms);
        for zone in &header.zones {
            self.zone_quality_ms.entry(zone.zone.clone()).or_default().add(&zone.quality_ms);
            let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
            add(self.zones.entry(zone.zone.clone()).or_default(), zone.energy.total.0);
            if zone.billed {
                self.billed.insert(zone.zone.clone());
                add(&mut self.total, zone.energy.total.0);
                add(&mut self.measured, zone.measured);
                add(&mut self.derived, zone.derived);
                add(&mut self.estimated, zone.estimated);
                add(missing_ms.entry(zone.zone.clone()).or_default(), zone.missing_ms);
            }
        }
    }
}

/// Energy in the zones that are added up, in µJ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Of own work.
    pub dynamic: i64,
    /// The charged part of the idle energy.
    pub idle: i64,
}

impl Sum {
    /// Both.
    pub const fn whole(self) -> i64 {
        self.dynamic.saturating_add(self.idle)
    }

    pub(in crate::history) const fn add(&mut self, other: Self) {
        self.dynamic = self.dynamic.saturating_add(other.dynamic);
        self.idle = self.idle.saturating_add(other.idle);
    }
}

/// A line of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// The id of the entity, or the name of the namespace or zone.
    pub name: String,
    /// The entity's kind and labels, names included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Its energy.
    pub energy: Sum,
    /// Its carbon and cost, in billionths of the units, in the order of [`Part::amounts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<Sum>,
}
