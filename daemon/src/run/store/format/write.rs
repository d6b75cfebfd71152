//! States and changes as JSON. The shape of each part is in [`super::records`].

use super::convert::EnergyRest;
use super::fields::Rest;
use super::records::Domain;
use crate::attribution::ledger::{Entry, Series};
use crate::attribution::{DomainRecord, State};
use crate::model::by_name;
use crate::model::domain::Zone;
use crate::model::entity::Labels;
use crate::model::footprint::AmountTotals;
use crate::model::snapshot::{ByZone, Energy};
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// A whole ledger. `carried` and `fields`: what this version does not know, see [`super::read`].
#[derive(Serialize)]
pub struct Whole<'a> {
    /// Ticks since the very first start.
    pub generation: u64,
    pub boot_id: &'a str,
    /// Of which machine it is; empty where that is not known.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub machine: &'a str,
    pub domains: Domains<'a>,
    pub entries: Entries<'a>,
    #[serde(skip_serializing_if = "AmountTotals::is_empty")]
    pub footprint: &'a AmountTotals,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub carried: &'a [Box<RawValue>],
    #[serde(flatten)]
    pub fields: &'a BTreeMap<String, Box<RawValue>>,
}

/// What a tick changed.
#[derive(Serialize)]
pub struct Changes<'a> {
    pub domains: Domains<'a>,
    pub entries: Entries<'a>,
    #[serde(skip_serializing_if = "AmountTotals::is_empty")]
    pub footprint: &'a AmountTotals,
}

/// A state by itself: in the head of a recording.
#[derive(Serialize)]
pub struct Bare<'a> {
    boot_id: &'a str,
    domains: Domains<'a>,
    entries: Entries<'a>,
}

impl<'a> From<&'a State> for Bare<'a> {
    fn from(State { boot_id, domains, entries, footprint: _ }: &'a State) -> Self {
        Self { boot_id, domains: Domains(domains), entries: Entries(entries) }
    }
}

pub struct Domains<'a>(pub &'a [DomainRecord]);
pub struct Entries<'a>(pub &'a [Entry]);

impl Serialize for Domains<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Domain::of))
    }
}

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(written))
    }
}

fn written(entry: &Entry) -> Written<'_> {
    match entry {
        Entry::Series { labels, series: Series { energy, used, since } } => Written::Series {
            kind: labels.kind().as_str(),
            labels: Named(labels),
            dynamic_uj: Zones(&energy.dynamic),
            idle_uj: Zones(&energy.idle),
            on_cpu_ns: used.on_cpu.0,
            cycles: used.cycles,
            instructions: used.instructions,
            cache_misses: used.cache_misses,
            since_ns: since.0,
        },
        Entry::Dropped { labels } => Written::Dropped { kind: labels.kind().as_str(), labels: Named(labels) },
        Entry::Kind { kind, rest, ended } => {
            Written::Kind { kind: kind.as_str(), rest: Energies::of(rest), ended: Energies::of(ended) }
        }
    }
}

/// An entry, under the name of what it is. Zeros are left out.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Written<'a> {
    Series {
        kind: &'static str,
        labels: Named<'a>,
        #[serde(skip_serializing_if = "Zones::are_zero")]
        dynamic_uj: Zones<'a>,
        #[serde(skip_serializing_if = "Zones::are_zero")]
        idle_uj: Zones<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        on_cpu_ns: u64,
        #[serde(skip_serializing_if = "is_zero")]
        cycles: u64,
        #[serde(skip_serializing_if = "is_zero")]
        instructions: u64,
        #[serde(skip_serializing_if = "is_zero")]
        cache_misses: u64,
        since_ns: u64,
    },
    Dropped {
        kind: &'static str,
        labels: Named<'a>,
    },
    Kind {
        kind: &'static str,
        rest: Energies<'a>,
        ended: Energies<'a>,
    },
}

#[derive(Serialize)]
struct Energies<'a> {
    #[serde(skip_serializing_if = "Zones::are_zero")]
    dynamic_uj: Zones<'a>,
    #[serde(skip_serializing_if = "Zones::are_zero")]
    idle_uj: Zones<'a>,
}

impl<'a> Energies<'a> {
    fn of(energy: &'a Energy) -> Self {
        Self { dynamic_uj: Zones(&energy.dynamic), idle_uj: Zones(&energy.idle) }
    }
}

/// Energy by the names of zones.
struct Zones<'a>(&'a ByZone);

impl Zones<'_> {
    fn are_zero(&self) -> bool {
        self.0.iter().all(|energy| energy.0 == 0)
    }
}

impl Serialize for Zones<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let energies = Zone::ALL.into_iter().map(|zone| (zone.as_str(), self.0[zone.index()]));
        serializer.collect_map(energies.filter(|(_, energy)| energy.0 > 0))
    }
}

/// Labels by their names. Empty ones are left out.
pub struct Named<'a>(pub &'a Labels);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Details come again from where they came, and an earlier version would take a series with them for another.
        by_name::labels_alone(self.0, serializer)
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What of a record this version does not know, with what tells the record.
#[derive(Serialize)]
pub enum Part<'a> {
    #[serde(rename = "domain_part")]
    Domain {
        id: &'a str,
        #[serde(flatten)]
        fields: &'a Rest,
    },
    #[serde(rename = "series_part")]
    Series {
        kind: &'static str,
        labels: Named<'a>,
        #[serde(skip_serializing_if = "Rest::is_empty")]
        dynamic_uj: &'a Rest,
        #[serde(skip_serializing_if = "Rest::is_empty")]
        idle_uj: &'a Rest,
        #[serde(flatten)]
        fields: &'a Rest,
    },
    #[serde(rename = "kind_part")]
    Kind {
        kind: &'static str,
        rest: PartEnergy<'a>,
        ended: PartEnergy<'a>,
        #[serde(flatten)]
        fields: &'a Rest,
    },
}

/// What of an energy this version does not know.
#[derive(Serialize)]
pub struct PartEnergy<'a> {
    #[serde(skip_serializing_if = "Rest::is_empty")]
    dynamic_uj: &'a Rest,
    #[serde(skip_serializing_if = "Rest::is_empty")]
    idle_uj: &'a Rest,
    #[serde(flatten)]
    fields: &'a Rest,
}

impl<'a> From<&'a EnergyRest> for PartEnergy<'a> {
    fn from(EnergyRest { dynamic, idle, fields }: &'a EnergyRest) -> Self {
        Self { dynamic_uj: dynamic, idle_uj: idle, fields }
    }
}
