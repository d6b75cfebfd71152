//! A part of a report while its intervals are added up.

use super::part::{AmountLine, NodeLine, Part, ReportLine, Sum};
use super::query::{By, Query};
use super::sums::{NodeAmounts, Sums};
use crate::history::collector::SeriesName;
use crate::history::encoding::{DecodeError, Encoded, Line};
use crate::history::slot::{AmountPart, SeriesId};
use crate::model::entity::{Kind, Labels};
use crate::model::units::Nanos;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// A part that is being added up.
#[derive(Debug)]
pub(super) struct Growing {
    part: Part,
    /// Sum of idle and unattributed energy of the zones that are added up, and of what work was charged.
    idle: u64,
    unattributed: u64,
    active: u64,
    missing_ms: BTreeMap<String, u64>,
    observed_ms: u64,
    pub(super) series: FxHashMap<SeriesId, Sums>,
    rest: Sums,
    amounts: NodeAmounts,
}

impl Growing {
    /// An empty part.
    pub(super) fn new(span: Range<i64>) -> Self {
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
            amounts: NodeAmounts::default(),
        }
    }

    /// Adds an interval.
    pub(super) fn add(&mut self, slot: &Encoded<'_>, by: By) -> Result<(), DecodeError> {
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
        let places = self.amounts.add(header);
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
                let to = match line {
                    Line::Series(id) => self.series.entry(id).or_default(),
                    Line::Rest => &mut self.rest,
                };
                to.add_line(sum, &values[energies..], &places);
            },
        )
    }

    /// Keeps the `count` series with the most energy so far; what the others were charged is added to the rest.
    pub(super) fn keep_largest(&mut self, count: usize) {
        if self.series.len() <= count {
            return;
        }
        let mut by_size: Vec<(i64, SeriesId)> =
            self.series.iter().map(|(id, sums)| (sums.0.whole().saturating_abs(), *id)).collect();
        by_size.sort_unstable_by(|one, other| other.cmp(one));
        for (_, id) in by_size.drain(count..) {
            if let Some(sums) = self.series.remove(&id) {
                self.rest.add(&sums);
            }
        }
    }

    /// The part, with entities by name.
    pub(super) fn finish(self, query: &Query, names: &FxHashMap<SeriesId, SeriesName>) -> Part {
        let mut part = self.part;
        part.observed_seconds = self.observed_ms / 1_000;
        part.node.missing_seconds = self.missing_ms.values().copied().max().unwrap_or_default() / 1_000;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut lines: BTreeMap<Vec<String>, (Nanos, ReportLine)> = BTreeMap::new();
        let amounts = self.amounts.parts;
        let count = amounts.len();
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
            part.amounts = amounts.iter().map(AmountLine::of_node).collect();
            return part;
        }
        part.lines.sort_by(|one, other| {
            other.energy.whole().cmp(&one.energy.whole()).then_with(|| one.name.cmp(&other.name))
        });
        for line in part.lines.drain(query.limit.min(part.lines.len())..) {
            rest.add(&Sums(line.energy, line.amounts));
        }
        part.rest = rest.0;
        part.amounts = amounts.iter().map(AmountLine::of_node).collect();
        for (at, amount) in part.amounts.iter_mut().enumerate() {
            amount.rest = rest.1.get(at).copied().unwrap_or_default();
            let mut charged = amount.rest;
            part.lines.iter().filter_map(|line| line.amounts.get(at)).for_each(|sum| charged.add(*sum));
            let node = &amounts[at];
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
pub fn own_id(labels: &Labels) -> String {
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
