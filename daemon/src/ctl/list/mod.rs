//! `joulectl list`: the entities of one kind with sums, as a table and as JSON. Pure: snapshot in, text out.
//!
//! Both forms are made of one list of [`Entry`]s, so that what one shows the other has. The table adds lines that
//! compare the sum of the entries with the node.

use super::billing::Base;
use super::{entity, text};
use crate::model::billing::Node;
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::guest::GuestView;
use crate::model::snapshot::{Energy, Row, Snapshot, State};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// The most power first, then the most energy.
    Power,
    /// The most energy first.
    Energy,
    /// By name.
    Name,
}

/// Which entities are listed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Their kind.
    pub kind: Kind,
    /// How many are listed at most; the others are one entry together.
    pub limit: usize,
    /// Their order.
    pub sort: Sort,
    /// Whether only entities that have ended are listed, without sums.
    pub ended: bool,
}

/// The entities of a kind in order, with their names.
pub fn sorted<'a>(snapshot: &'a Snapshot, base: &Base, kind: Kind, sort: Sort) -> Vec<(String, &'a Row)> {
    let names = entity::Names::of(snapshot);
    let mut rows: Vec<_> = snapshot.kind(kind).rows.iter().map(|row| (names.name(row), row)).collect();
    rows.sort_by_cached_key(|(name, row)| {
        let (power, energy) = (base.power(&row.whole_power()), base.energy(&row.energy));
        let (power, energy) = match sort {
            Sort::Power => (power, energy),
            Sort::Energy => (Microwatts::ZERO, energy),
            Sort::Name => (Microwatts::ZERO, Microjoules::ZERO),
        };
        (Reverse(power), Reverse(energy), name.clone())
    });
    rows
}

/// The cells of a line: name, power, energy, share of the node's power, CPU time. A cell is empty where its value is
/// not known.
pub fn cells(
    name: String,
    power: Option<Microwatts>,
    energy: Microjoules,
    node: Option<Microwatts>,
    cpu: Option<Nanos>,
) -> Vec<String> {
    let share = power.map(|power| text::share(power.0, node.unwrap_or_default().0));
    vec![
        name,
        power.map(text::watts).unwrap_or_default(),
        text::joules(energy),
        share.unwrap_or_default(),
        cpu.map(|cpu| format!("{:.2}", cpu.seconds())).unwrap_or_default(),
    ]
}

/// The headings above such lines.
pub fn headings(snapshot: &Snapshot, base: &Base, first: &str) -> Vec<String> {
    let marked = |heading| base.heading(snapshot, heading);
    vec![first.to_owned(), marked("POWER"), marked("ENERGY"), "SHARE".to_owned(), "CPU s".to_owned()]
}

/// What an entry of the list is about. All entries of a kind together are all that was ever charged to it.
enum Subject<'a> {
    /// One entity, with its name.
    Entity(String, &'a Row),
    /// So many entities beyond the limit.
    More(usize),
    /// Entities without a series of their own.
    Rest,
    /// Series that are no longer shown.
    Ended,
    /// Series of entities that are not among the busiest any more.
    Parked,
}

struct Entry<'a> {
    subject: Subject<'a>,
    /// Mean power by zone over the last window of each, dynamic and idle together; `None`: it has none.
    power: Option<[Microwatts; Zone::COUNT]>,
    energy: Energy,
    cpu: Option<Nanos>,
}

/// The list, and what its numbers are compared with.
struct List<'a> {
    snapshot: &'a Snapshot,
    kind: Kind,
    base: Base,
    node: Node,
    entries: Vec<Entry<'a>>,
    /// Only entities that have ended: nothing is added up.
    ended: bool,
}

impl<'a> List<'a> {
    fn of(snapshot: &'a Snapshot, Choice { kind, limit, sort, ended }: Choice) -> Self {
        let base = Base::of(snapshot);
        let view = snapshot.kind(kind);
        let entity = |(name, row): (String, &'a Row)| Entry {
            power: Some(row.whole_power()),
            energy: row.energy,
            cpu: Some(row.used.on_cpu),
            subject: Subject::Entity(name, row),
        };
        let mut rows = sorted(snapshot, &base, kind, sort);
        rows.retain(|(_, row)| !ended || row.state == State::Terminated);
        let mut entries: Vec<_> = rows.into_iter().map(entity).collect();
        let hidden = entries.split_off(limit.min(entries.len()));
        // Slices contain each other: they are never added up.
        if !hidden.is_empty() && kind != Kind::Slice {
            entries.push(Entry::sum(&hidden));
        }
        let entry = |subject, power, energy| Entry { subject, power, energy, cpu: None };
        if !ended {
            entries.push(entry(Subject::Rest, Some(view.rest_power), view.rest));
            entries.push(entry(Subject::Ended, None, view.ended));
            entries.push(entry(Subject::Parked, None, view.parked));
        }
        Self { node: base.node(snapshot), snapshot, kind, base, entries, ended }
    }

    /// Whether an entry is a line of the table, too.
    fn is_in_table(&self, entry: &Entry<'_>) -> bool {
        match entry.subject {
            Subject::Entity(..) | Subject::More(_) => true,
            Subject::Rest | Subject::Ended => self.kind != Kind::Slice,
            Subject::Parked => self.kind != Kind::Slice && entry.energy != Energy::default(),
        }
    }

    /// A line of the table.
    fn line(&self, entry: &Entry<'_>, guests: &[GuestView]) -> Vec<String> {
        let power = entry.power.map(|power| self.base.power(&power));
        let energy = self.base.energy(&entry.energy);
        let mut cells = cells(entry.subject.title(), power, energy, self.node.power, entry.cpu);
        if has_id(self.kind) {
            cells.insert(1, if let Subject::Entity(_, row) = entry.subject { entity::id(row) } else { String::new() });
        }
        if let (Kind::Vm, Subject::Entity(_, row)) = (self.kind, &entry.subject) {
            cells.push(channel(guest_of(row, guests)));
        }
        cells
    }

    /// The lines that add the entries up to the node.
    fn sums(&self) -> Vec<Vec<String>> {
        let word = self.kind.as_str();
        let mut charged = Energy::default();
        self.entries.iter().for_each(|entry| charged.add(&entry.energy));
        let power = self.entries.iter().filter_map(|entry| entry.power).map(|power| self.base.power(&power)).sum();
        let Node { energy: node, power: node_power, idle_power, .. } = self.node;
        let line = |name: String, power, energy| {
            let mut cells = cells(name, power, energy, node_power, None);
            if has_id(self.kind) {
                cells.insert(1, String::new());
            }
            cells
        };
        let mut lines =
            vec![line(format!("total of all {}", entity::plural(self.kind)), Some(power), self.base.energy(&charged))];
        let in_none = node.active - node.unattributed - self.base.dynamic(&charged);
        if in_none > Microjoules::ZERO {
            lines.push(line(format!("in no {word}"), None, in_none));
        }
        lines.push(line("unattributed".to_owned(), None, node.unattributed));
        lines.push(line("idle".to_owned(), idle_power, node.idle - self.base.idle(&charged)));
        lines.push(line("node".to_owned(), node_power, node.total));
        lines
    }

    /// The sentences below the table.
    fn notes(&self) -> Vec<String> {
        let base = format!("POWER and ENERGY: {}. {}", self.base.words(), self.base.lacks(self.snapshot));
        if self.ended {
            return vec![base];
        }
        if self.kind == Kind::Slice {
            return vec!["Slices contain each other, so there is no total.".to_owned(), base];
        }
        let is_parked = |entry: &&Entry<'_>| matches!(entry.subject, Subject::Parked) && self.is_in_table(entry);
        let parked = self.entries.iter().find(is_parked);
        let parked = parked.map(|_| {
            "parked: made room for busier ones, or have too little energy yet for a line of their own.".to_owned()
        });
        let rest = "rest: without a line of their own. ended: no longer shown.".to_owned();
        parked.into_iter().chain([base, rest]).collect()
    }

    /// An object of the JSON array.
    fn item(&self, entry: &Entry<'a>, zones: &[Zone], guests: &'a [GuestView]) -> Item<'a> {
        let (snapshot, energy) = (self.snapshot, &entry.energy);
        let modes = |zone: &Zone| Modes { dynamic: energy.dynamic[zone.index()].0, idle: energy.idle[zone.index()].0 };
        let row = match &entry.subject {
            Subject::Entity(_, row) => Some(*row),
            Subject::More(_) | Subject::Rest | Subject::Ended | Subject::Parked => None,
        };
        let used = row.map(|row| row.used);
        Item {
            row: entry.subject.as_str(),
            kind: self.kind.as_str(),
            name: match &entry.subject {
                Subject::Entity(name, _) => Some(name.clone()),
                Subject::More(_) | Subject::Rest | Subject::Ended | Subject::Parked => None,
            },
            labels: row.map(|row| row.labels.all_pairs().collect()).unwrap_or_default(),
            state: row.map(|row| row.state.as_str()),
            since: row.map(|row| text::rfc3339(row.since)),
            settled: row.filter(|row| row.state == State::Terminated).map(|row| row.settled),
            quality: self.base.quality(snapshot).map(|quality| quality.as_str()),
            watts: entry.power.map(|power| self.base.power(&power).watts()),
            microjoules: self.base.energy(energy).0,
            microjoules_total: zones.iter().map(|zone| (zone.as_str(), modes(zone))).collect(),
            cpu_seconds: entry.cpu.map(Nanos::seconds),
            cycles: used.filter(|_| snapshot.counted.cycles).map(|used| used.cycles),
            instructions: used.filter(|_| snapshot.counted.instructions).map(|used| used.instructions),
            cache_misses: used.filter(|_| snapshot.counted.cache_misses).map(|used| used.cache_misses),
            channel: row.and_then(|row| guest_of(row, guests)),
        }
    }
}

impl Entry<'_> {
    /// Entities beyond the limit as one entry.
    fn sum(entries: &[Self]) -> Self {
        let mut sum = Self {
            subject: Subject::More(entries.len()),
            power: Some(Default::default()),
            energy: Energy::default(),
            cpu: Some(Nanos::ZERO),
        };
        for entry in entries {
            sum.energy.add(&entry.energy);
            sum.cpu = sum.cpu.zip(entry.cpu).map(|(sum, cpu)| sum + cpu);
            sum.power =
                sum.power.zip(entry.power).map(|(sum, power)| std::array::from_fn(|zone| sum[zone] + power[zone]));
        }
        sum
    }
}

impl Subject<'_> {
    /// The name in the table.
    fn title(&self) -> String {
        match self {
            Self::Entity(name, _) => name.clone(),
            Self::More(count) => format!("({count} more)"),
            Self::Rest | Self::Ended | Self::Parked => self.as_str().to_owned(),
        }
    }

    /// The value of `row` in JSON.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Entity(..) => "entity",
            Self::More(_) => "more",
            Self::Rest => "rest",
            Self::Ended => "ended",
            Self::Parked => "parked",
        }
    }
}

/// Whether the table has a column with the id: where a name alone does not say which one is meant.
fn has_id(kind: Kind) -> bool {
    matches!(kind, Kind::Container | Kind::Pod)
}

/// The guest channel of a VM and when it was read last, in a few words.
fn channel(guest: Option<&GuestView>) -> String {
    let Some(guest) = guest.filter(|guest| !guest.channel.is_empty()) else { return "-".to_owned() };
    let state = match guest.served_seconds_ago {
        _ if guest.profile == "off" => "off".to_owned(),
        None => "never asked".to_owned(),
        Some(seconds) => format!("{seconds:.0} s ago"),
    };
    format!("{} {state}", text::safe(&guest.channel))
}

/// The guest channel of a VM's row.
fn guest_of<'a>(row: &Row, guests: &'a [GuestView]) -> Option<&'a GuestView> {
    guests.iter().find(|guest| row.labels.id() == guest.vm_id)
}

/// The table. `guests`: the channels of all VMs; empty for other kinds.
pub fn lines(snapshot: &Snapshot, guests: &[GuestView], choice: Choice, columns: Option<usize>) -> Vec<String> {
    let list = List::of(snapshot, choice);
    let first = if has_id(choice.kind) { "NAME".to_owned() } else { choice.kind.as_str().to_uppercase() };
    let mut headings = headings(snapshot, &list.base, &first);
    if has_id(choice.kind) {
        headings.insert(1, "ID".to_owned());
    }
    headings.extend((list.kind == Kind::Vm).then(|| "CHANNEL".to_owned()));
    let mut table = vec![headings];
    let in_table = list.entries.iter().filter(|entry| list.is_in_table(entry));
    table.extend(in_table.map(|entry| list.line(entry, guests)));
    if list.kind != Kind::Slice && !list.ended {
        table.extend(list.sums());
    }
    let mut lines = text::table(&table, true, columns);
    lines.push(String::new());
    lines.extend(list.notes().iter().flat_map(|note| text::wrap(note, columns)));
    lines
}

/// One object of the JSON array; documented in the help of `list`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Item<'a> {
    row: &'static str,
    kind: &'static str,
    name: Option<String>,
    labels: BTreeMap<&'a str, &'a str>,
    state: Option<&'static str>,
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<bool>,
    quality: Option<&'static str>,
    watts: Option<f64>,
    microjoules: u64,
    microjoules_total: BTreeMap<&'static str, Modes>,
    cpu_seconds: Option<f64>,
    cycles: Option<u64>,
    instructions: Option<u64>,
    cache_misses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a GuestView>,
}

#[derive(Debug, Serialize)]
struct Modes {
    dynamic: u64,
    idle: u64,
}

/// The JSON array. `guests` as for [`lines`].
pub fn json<'a>(snapshot: &'a Snapshot, guests: &'a [GuestView], choice: Choice) -> Vec<Item<'a>> {
    let list = List::of(snapshot, choice);
    let has = |zone: &Zone| snapshot.domains.iter().any(|view| view.domain.zone == *zone);
    let zones: Vec<Zone> = Zone::ALL.into_iter().filter(has).collect();
    list.entries.iter().map(|entry| list.item(entry, &zones, guests)).collect()
}

#[cfg(test)]
mod tests;
