//! Statements: the energy charged to one entity between two times, by zone and mode, with carbon, cost and each of its
//! runs. Reads the database; shows nothing.

use super::collector::SeriesName;
use super::db::{Db, DbError, Step};
use super::encoding::{Header, Line};
use super::report::{Declared, NodeAmounts, NodeLine, ReportError, Sum, Sums, own_id};
use super::slot::{AmountPart, AmountSource, SeriesId};
use crate::model::entity::{Kind, Labels};
use crate::model::units::Nanos;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The question that statements answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementQuery {
    /// Begin in seconds since 1970.
    pub from: i64,
    /// End in seconds since 1970.
    pub until: i64,
    /// Kind of the entity.
    pub kind: Kind,
    /// Its id, or its name where it has one.
    pub name: String,
}

/// Most entities with one name.
const ENTITIES_MAX: usize = 100;

/// The statements of all entities that have the name: two jobs of two managers may have one id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statements {
    /// Name of the machine.
    pub node: String,
    /// Time zone of the machine.
    pub zone: String,
    /// Begin of the time that was asked for, in seconds since 1970.
    pub from: i64,
    /// Its end.
    pub until: i64,
    /// In the order of their labels. Entities without energy in that time are left out.
    pub entities: Vec<Statement>,
    /// What the operator declared.
    #[serde(default)]
    pub declared: Declared,
}

/// Energy, carbon and cost charged to one entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Its kind and labels, the latest names included.
    pub labels: Labels,
    /// Whether it runs now.
    pub running: bool,
    /// Begin of the first interval in which it was charged, in seconds since 1970: a minute, an hour or a day.
    pub first: i64,
    /// End of the last one.
    pub last: i64,
    /// Its energy in the zones that are added up.
    pub energy: Sum,
    /// Its energy in every zone, in the order of names. Zones may contain each other.
    pub zones: Vec<ZoneLine>,
    /// Each run of it: the same entity with another begin.
    pub runs: Vec<Run>,
    /// Its carbon and cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<StatementAmount>,
    /// The node in the intervals in which the entity was charged: its quality is that of the energy it was charged.
    pub during: NodeLine,
    /// How long jouled ran in these intervals, in seconds.
    pub observed_seconds: u64,
    /// Length of these intervals, in seconds.
    pub seconds: u64,
}

/// Energy in one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneLine {
    /// Name of the zone.
    pub zone: String,
    /// Whether it is one of the zones that are added up.
    pub billed: bool,
    /// The energy in it.
    pub energy: Sum,
}

/// Carbon or cost of an entity, in billionths of the unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementAmount {
    /// `co2e_location`, `co2e_market` or `cost`.
    pub measure: String,
    /// `gCO2e`, or a currency.
    pub unit: String,
    /// The amount: of own work, and of the charged part of the idle energy.
    pub amount: Sum,
    /// Where the factors came from, with the node's energy and amount in the intervals of [`Statement::during`].
    pub sources: Vec<AmountSource>,
    /// The node's energy in these intervals for which there was no factor, in µJ: the amount lacks it.
    pub uncounted: u64,
}

/// One run of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it began, CLOCK_REALTIME in ns.
    pub since: Nanos,
    /// Its energy in the zones that are added up.
    pub energy: Sum,
    /// Its carbon and cost, in the order of [`Statement::amounts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amounts: Vec<Sum>,
}

/// Makes the statements. `runs` says whether an entity with these labels and this begin runs now.
///
/// # Errors
/// Where the database cannot be read, the times are none, or too many entities have the name.
pub fn statements(
    db: &Db,
    query: &StatementQuery,
    node: &str,
    runs: impl Fn(&Labels, Nanos) -> bool,
) -> Result<Statements, ReportError> {
    if query.from >= query.until {
        return Err(ReportError::Asked("the begin has to be before the end".into()));
    }
    let of_kind = |name: &SeriesName| name.labels.kind() == query.kind;
    let identity = |labels: &Labels| labels.identity().map(str::to_owned).collect::<Vec<_>>();
    let called = db.named(|name| of_kind(name) && is_called(&name.labels, &query.name))?;
    let wanted: BTreeSet<Vec<String>> = called.iter().map(|(_, name)| identity(&name.labels)).collect();
    // Also runs in which the entity had no name yet, or another one.
    let names = db.named(|name| of_kind(name) && wanted.contains(&identity(&name.labels)))?;
    let mut growing: BTreeMap<Vec<String>, Growing> = BTreeMap::new();
    let mut of: FxHashMap<SeriesId, Vec<String>> = FxHashMap::default();
    for (id, name) in names {
        let identity = identity(&name.labels);
        growing.entry(identity.clone()).or_insert_with(|| Growing::new(&name)).add_series(id, &name);
        of.insert(id, identity);
    }
    if growing.len() > ENTITIES_MAX {
        let (count, kind) = (growing.len(), query.kind.as_str());
        return Err(ReportError::Asked(format!("{count} entities of kind {kind} have this name: ask by id")));
    }
    read(db, &(query.from..query.until), query.kind, &of, &mut growing)?;
    let entities = growing.into_values().filter(|growing| !growing.is_empty()).map(|growing| growing.finish(&runs));
    Ok(Statements {
        node: node.to_owned(),
        zone: db.calendar().name().to_owned(),
        from: query.from,
        until: query.until,
        entities: entities.collect(),
        declared: Declared::default(),
    })
}

/// Whether an entity has this id, or this name.
fn is_called(labels: &Labels, name: &str) -> bool {
    let named = labels.kind().name_labels().iter().any(|label| label.ends_with("_name") && labels.get(label) == name);
    !name.is_empty() && (own_id(labels) == name || named)
}

fn read(
    db: &Db,
    times: &Range<i64>,
    kind: Kind,
    of: &FxHashMap<SeriesId, Vec<String>>,
    growing: &mut BTreeMap<Vec<String>, Growing>,
) -> Result<(), DbError> {
    db.read(times, Step::Hour, |slot| {
        // The entities with a line in this interval, and the places of its amounts in theirs.
        let mut charged: BTreeMap<&Vec<String>, Vec<usize>> = BTreeMap::new();
        slot.lines(
            |name| name == kind.as_str(),
            |_, line, values| {
                let Line::Series(id) = line else { return };
                if let Some(identity) = of.get(&id)
                    && let Some(growing) = growing.get_mut(identity)
                {
                    let places = charged.entry(identity).or_insert_with(|| growing.add_interval(&slot.header));
                    growing.add(id, &slot.header.zones, values, places);
                }
            },
        )
    })
}

/// A statement that is being added up.
#[derive(Debug)]
struct Growing {
    labels: Labels,
    /// Begin of the series that has the labels.
    named: Nanos,
    runs: BTreeMap<SeriesId, (Nanos, Sums)>,
    amounts: NodeAmounts,
    zones: BTreeMap<String, ZoneLine>,
    first: i64,
    last: i64,
    seconds: i64,
    observed_ms: u64,
    during: NodeLine,
    missing_ms: BTreeMap<String, u64>,
}

impl Growing {
    fn new(name: &SeriesName) -> Self {
        Self {
            labels: name.labels.clone(),
            named: name.since,
            runs: BTreeMap::new(),
            amounts: NodeAmounts::default(),
            zones: BTreeMap::new(),
            first: i64::MAX,
            last: i64::MIN,
            seconds: 0,
            observed_ms: 0,
            during: NodeLine::default(),
            missing_ms: BTreeMap::new(),
        }
    }

    fn add_series(&mut self, id: SeriesId, name: &SeriesName) {
        if name.since >= self.named {
            (self.labels, self.named) = (name.labels.clone(), name.since);
        }
        self.runs.insert(id, (name.since, Sums::default()));
    }

    /// Adds a line of an interval. `places`: of the interval's amounts in `amounts`.
    fn add(&mut self, id: SeriesId, zones: &[super::slot::ZonePart], values: &[i64], places: &[usize]) {
        let (energies, amounts) = values.split_at(zones.len() * 2);
        let mut billed = Sum::default();
        for (part, modes) in zones.iter().zip(energies.as_chunks::<2>().0) {
            let sum = Sum { dynamic: modes[0], idle: modes[1] };
            let line = self.zones.entry(part.zone.clone()).or_default();
            line.billed |= part.billed;
            line.energy.add(sum);
            if part.billed {
                billed.add(sum);
            }
        }
        if let Some((_, sums)) = self.runs.get_mut(&id) {
            sums.add_line(billed, amounts, places);
        }
    }

    /// Adds the node in an interval in which the entity has a line. Returns the places of its amounts in `amounts`.
    fn add_interval(&mut self, header: &Header) -> Vec<usize> {
        self.first = self.first.min(header.from);
        self.last = self.last.max(header.until);
        self.seconds = self.seconds.saturating_add(header.until.saturating_sub(header.from));
        self.observed_ms = self.observed_ms.saturating_add(header.observed_ms);
        self.during.add(header, &mut self.missing_ms);
        self.amounts.add(header)
    }

    fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    fn finish(mut self, runs: &impl Fn(&Labels, Nanos) -> bool) -> Statement {
        self.during.missing_seconds = self.missing_ms.values().copied().max().unwrap_or_default() / 1_000;
        let name = |(zone, line): (String, ZoneLine)| ZoneLine { zone, ..line };
        let mut all = Sums::default();
        self.runs.values().for_each(|(_, sums)| all.add(sums));
        let count = self.amounts.parts.len();
        all.1.resize(count, Sum::default());
        let running = self.runs.values().any(|(since, _)| runs(&self.labels, *since));
        let run = |(since, Sums(energy, mut amounts)): (Nanos, Sums)| {
            amounts.resize(count, Sum::default());
            Run { since, energy, amounts }
        };
        let is_0 = |run: &Run| run.energy == Sum::default() && run.amounts.iter().all(|sum| *sum == Sum::default());
        let mut each: Vec<Run> = self.runs.into_values().map(run).filter(|run| !is_0(run)).collect();
        each.sort_unstable_by_key(|run| run.since);
        let amount = |(AmountPart { measure, unit, sources, uncounted, .. }, amount)| StatementAmount {
            measure,
            unit,
            amount,
            sources,
            uncounted,
        };
        Statement {
            running,
            labels: self.labels,
            first: self.first,
            last: self.last,
            energy: all.0,
            amounts: self.amounts.parts.into_iter().zip(all.1).map(amount).collect(),
            zones: self.zones.into_iter().map(name).collect(),
            runs: each,
            during: self.during,
            observed_seconds: self.observed_ms / 1_000,
            seconds: self.seconds.max(0).unsigned_abs(),
        }
    }
}
