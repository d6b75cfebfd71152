//! Reports: what was drawn between two times, by entity, in sums that match the node's to the microjoule. Reads the
//! database; shows nothing.

mod query;

pub use query::{By, Query, ReportStep};

use super::collector::SeriesName;
use super::db::{Db, DbError, Step};
use super::encoding::{Encoded, Header, Line};
use super::slot::{AmountPart, AmountSource, SeriesId, Spans};
use crate::model::entity::{Kind, Labels};
use crate::model::units::Nanos;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most parts of a report: the days of ten years, or the hours of five months.
const PARTS_MAX: usize = 3_700;
/// Most lines of all parts together.
const LINES_MAX: usize = 200_000;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// What was asked for cannot be had.
    #[error("{0}")]
    Asked(String),
}

/// A report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the machine.
    pub node: String,
    /// Time zone of hours, days and months.
    pub zone: String,
    /// What its lines are.
    pub by: String,
    /// Its parts in the order of time; those without an interval are left out.
    pub parts: Vec<Part>,
    /// What the operator declared.
    #[serde(default)]
    pub declared: Declared,
}

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
    /// What entities without a line were charged: those that had no series of their own, and small ones that were
    /// added up. Negative where an entity's line has energy that was counted here earlier.
    pub rest: Sum,
    /// What was charged to processes in no entity of this kind. `None` where entities contain each other.
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
    /// Where the factors came from, and whether they stood in for better ones.
    pub sources: Vec<AmountSource>,
    /// The node's energy for which there was no factor, in µJ: the amounts lack it.
    pub uncounted: u64,
}

/// What the operator declared for reports, which measures nothing.
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
    pub(super) fn add(&mut self, header: &Header, missing_ms: &mut BTreeMap<String, u64>) {
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

    pub(super) const fn add(&mut self, other: Self) {
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

/// Makes a report.
///
/// # Errors
/// Where the database cannot be read, the times are none, or the report would be too long.
pub fn report(db: &Db, query: &Query, node: &str) -> Result<Report, ReportError> {
    let calendar = db.calendar();
    if query.from >= query.until {
        return Err(ReportError::Asked("the begin has to be before the end".into()));
    }
    let span = |at: i64| match query.step {
        None => query.from..query.until,
        Some(ReportStep::Hour) => calendar.hour(at),
        Some(ReportStep::Day) => calendar.day(at),
        Some(ReportStep::Month) => calendar.month(at),
    };
    let mut parts: BTreeMap<i64, Growing> = BTreeMap::new();
    let step = if query.step == Some(ReportStep::Hour) { Step::Hour } else { Step::Day };
    db.read(&(query.from..query.until), step, |slot| {
        let span = span(slot.header.from);
        parts.entry(span.start).or_insert_with(|| Growing::new(span)).add(slot, query.by)
    })?;
    let lines: usize = parts.values().map(|part| part.series.len().min(query.limit)).sum();
    if parts.len() > PARTS_MAX || lines > LINES_MAX {
        let (most, all) = (PARTS_MAX, parts.len());
        let why = format!(
            "{all} parts with {lines} lines are too many (at most {most} and {LINES_MAX}): ask for a shorter time, a \
             longer step or a lower limit"
        );
        return Err(ReportError::Asked(why));
    }
    let ids: BTreeSet<SeriesId> = parts.values().flat_map(|part| part.series.keys().copied()).collect();
    let names: FxHashMap<SeriesId, SeriesName> = db.names(&ids)?.into_iter().collect();
    let parts = parts.into_values().map(|part| part.finish(query, &names)).collect();
    Ok(Report {
        node: node.to_owned(),
        zone: calendar.name().to_owned(),
        by: query.by.as_str().into(),
        parts,
        declared: Declared::default(),
    })
}

/// A part that is being added up.
#[derive(Debug)]
struct Growing {
    part: Part,
    /// Sum of idle and unattributed energy of the zones that are added up, and of what work was charged.
    idle: u64,
    unattributed: u64,
    active: u64,
    missing_ms: BTreeMap<String, u64>,
    observed_ms: u64,
    series: FxHashMap<SeriesId, Sums>,
    rest: Sums,
    /// The node's carbon and cost.
    amounts: Vec<AmountPart>,
}

/// Energy, and carbon and cost in the order of [`Growing::amounts`], which are as many as intervals have had so far.
#[derive(Clone, Debug, Default)]
struct Sums(Sum, Vec<Sum>);

impl Sums {
    fn add_at(&mut self, at: usize, sum: Sum) {
        if self.1.len() <= at {
            self.1.resize(at + 1, Sum::default());
        }
        self.1[at].add(sum);
    }

    fn add(&mut self, other: &Self) {
        self.0.add(other.0);
        other.1.iter().enumerate().for_each(|(at, sum)| self.add_at(at, *sum));
    }
}

impl Growing {
    fn new(span: Range<i64>) -> Self {
        let part = Part { from: span.start, until: span.end, first: i64::MAX, last: i64::MIN, ..Part::default() };
        let (missing_ms, series) = (BTreeMap::new(), FxHashMap::default());
        Self {
            part,
            idle: 0,
            unattributed: 0,
            active: 0,
            missing_ms,
            observed_ms: 0,
            series,
            rest: Sums::default(),
            amounts: Vec::new(),
        }
    }

    fn add(&mut self, slot: &Encoded<'_>, by: By) -> Result<(), super::encoding::DecodeError> {
        let header = &slot.header;
        self.part.first = self.part.first.min(header.from);
        self.part.last = self.part.last.max(header.until);
        self.observed_ms = self.observed_ms.saturating_add(header.observed_ms);
        self.part.node.add(header, &mut self.missing_ms);
        for zone in header.zones.iter().filter(|zone| zone.billed) {
            self.idle = self.idle.saturating_add(zone.energy.idle.0);
            self.active = self.active.saturating_add(zone.energy.active.0);
            self.unattributed = self.unattributed.saturating_add(zone.energy.unattributed.0);
        }
        let places = self.add_node_amounts(slot);
        let Some(kind) = by.kind() else { return Ok(()) };
        let energies = header.zones.len() * 2;
        let billed: Vec<usize> = (0..header.zones.len()).filter(|at| header.zones[*at].billed).collect();
        slot.lines(
            |name| name == kind.as_str(),
            |_, line, values| {
                let mut sum = Sum::default();
                for at in &billed {
                    sum.add(Sum { dynamic: values[at * 2], idle: values[at * 2 + 1] });
                }
                let mut sums = Sums(sum, Vec::new());
                for (pair, at) in values[energies..].chunks(2).zip(&places) {
                    sums.add_at(*at, Sum { dynamic: pair[0], idle: pair[1] });
                }
                match line {
                    Line::Series(id) => self.series.entry(id).or_default().add(&sums),
                    Line::Rest => self.rest.add(&sums),
                }
            },
        )
    }

    /// Adds the node's carbon and cost. Returns where each of the interval's amounts is in `amounts`.
    fn add_node_amounts(&mut self, slot: &Encoded<'_>) -> Vec<usize> {
        let energy = |header: &Header| {
            let billed = header.zones.iter().filter(|zone| zone.billed).map(|zone| zone.energy.total.0);
            billed.fold(0_u64, u64::saturating_add)
        };
        let of_slot = energy(&slot.header);
        let mut places = Vec::new();
        let mut absent: Vec<usize> = (0..self.amounts.len()).collect();
        for part in &slot.header.amounts {
            let is_it = |one: &AmountPart| (&one.measure, &one.unit) == (&part.measure, &part.unit);
            let at = self.amounts.iter().position(is_it).unwrap_or_else(|| {
                let (measure, unit) = (part.measure.clone(), part.unit.clone());
                // What was drawn before this measure was counted has no amount.
                let uncounted = self.part.node.total.saturating_sub(of_slot);
                self.amounts.push(AmountPart { measure, unit, uncounted, ..AmountPart::default() });
                self.amounts.len() - 1
            });
            let to = &mut self.amounts[at];
            to.idle = to.idle.saturating_add(part.idle);
            to.active = to.active.saturating_add(part.active);
            to.unattributed = to.unattributed.saturating_add(part.unattributed);
            to.uncounted = to.uncounted.saturating_add(part.uncounted);
            part.sources.iter().for_each(|source| to.add_source(source));
            absent.retain(|one| *one != at);
            places.push(at);
        }
        for at in absent {
            self.amounts[at].uncounted = self.amounts[at].uncounted.saturating_add(of_slot);
        }
        places
    }

    fn finish(self, query: &Query, names: &FxHashMap<SeriesId, SeriesName>) -> Part {
        let mut part = self.part;
        part.observed_seconds = self.observed_ms / 1_000;
        part.node.missing_seconds = self.missing_ms.values().copied().max().unwrap_or_default() / 1_000;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut lines: BTreeMap<Vec<String>, (Nanos, ReportLine)> = BTreeMap::new();
        let count = self.amounts.len();
        let mut rest = self.rest;
        for (id, mut sums) in self.series {
            let Some(name) = names.get(&id) else {
                rest.add(&sums);
                continue;
            };
            sums.1.resize(count, Sum::default());
            let line = line(query.by, &name.labels, count);
            // The same labels at another time are one line here; the latest names count.
            let place = lines.entry(identity(query.by, &name.labels)).or_insert_with(|| (name.since, line.clone()));
            place.1.energy.add(sums.0);
            place.1.amounts.iter_mut().zip(&sums.1).for_each(|(to, sum)| to.add(*sum));
            if name.since > place.0 {
                let (energy, amounts) = (place.1.energy, std::mem::take(&mut place.1.amounts));
                *place = (name.since, ReportLine { energy, amounts, ..line });
            }
        }
        part.lines = lines.into_values().map(|(_, line)| line).collect();
        if query.by == By::Zone {
            part.lines = zones(&part.node);
            part.idle = 0;
            part.amounts = self.amounts.iter().map(AmountLine::of_node).collect();
            return part;
        }
        part.lines.sort_by(|one, other| {
            other.energy.whole().cmp(&one.energy.whole()).then_with(|| one.name.cmp(&other.name))
        });
        for line in part.lines.drain(query.limit.min(part.lines.len())..) {
            rest.add(&Sums(line.energy, line.amounts));
        }
        part.rest = rest.0;
        part.amounts = self.amounts.iter().map(AmountLine::of_node).collect();
        for (at, amount) in part.amounts.iter_mut().enumerate() {
            amount.rest = rest.1.get(at).copied().unwrap_or_default();
            let mut charged = amount.rest;
            part.lines.iter().filter_map(|line| line.amounts.get(at)).for_each(|sum| charged.add(*sum));
            let node = &self.amounts[at];
            amount.unattributed = node.unattributed;
            amount.idle = node.idle.saturating_sub(charged.idle);
            let outside = node.active.saturating_sub(node.unattributed).saturating_sub(charged.dynamic);
            amount.outside = (!query.by.overlaps()).then_some(Sum { dynamic: outside, idle: 0 });
        }
        let mut charged = part.rest;
        part.lines.iter().for_each(|line| charged.add(line.energy));
        part.unattributed = signed(self.unattributed);
        part.idle = signed(self.idle).saturating_sub(charged.idle);
        let outside = signed(self.active).saturating_sub(part.unattributed).saturating_sub(charged.dynamic);
        part.outside = (!query.by.overlaps()).then_some(Sum { dynamic: outside, idle: 0 });
        part
    }
}

impl AmountLine {
    /// The node's, with nothing of lines yet.
    fn of_node(part: &AmountPart) -> Self {
        let AmountPart { measure, unit, sources, uncounted, .. } = part.clone();
        Self { measure, unit, node: part.total(), sources, uncounted, ..Self::default() }
    }
}

fn zones(node: &NodeLine) -> Vec<ReportLine> {
    let line = |(zone, total): (&String, &u64)| ReportLine {
        name: zone.clone(),
        labels: None,
        energy: Sum { dynamic: i64::try_from(*total).unwrap_or(i64::MAX), idle: 0 },
        amounts: Vec::new(),
    };
    node.zones.iter().map(line).collect()
}

fn line(by: By, labels: &Labels, amounts: usize) -> ReportLine {
    let amounts = vec![Sum::default(); amounts];
    if by == By::Namespace {
        return ReportLine { name: namespace(labels), labels: None, energy: Sum::default(), amounts };
    }
    ReportLine { name: own_id(labels), labels: Some(labels.clone()), energy: Sum::default(), amounts }
}

/// The id of an entity among those of its kind. The first label of a job is its manager.
pub(super) fn own_id(labels: &Labels) -> String {
    match labels.kind() {
        Kind::Job => labels.get("job_id").to_owned(),
        Kind::JobStep => format!("{}.{}", labels.get("job_id"), labels.get("step_id")),
        _ => labels.id().to_owned(),
    }
}

/// What makes two series one line.
fn identity(by: By, labels: &Labels) -> Vec<String> {
    if by == By::Namespace { vec![namespace(labels)] } else { labels.identity().map(str::to_owned).collect() }
}

fn namespace(labels: &Labels) -> String {
    let name = labels.get("pod_namespace");
    if name.is_empty() { "(unknown)".into() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
