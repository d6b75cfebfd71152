//! `joulectl list`: all entities of one kind, as a table and as JSON. Pure: snapshot in, text out.

use super::base::{self, Base};
use super::text;
use crate::export::guest::GuestView;
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::{Energy, Row, Snapshot};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::Used;
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

/// What of the snapshot is listed, and how.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Which kind.
    pub kind: Kind,
    /// How many entities at most.
    pub limit: usize,
    /// In which order.
    pub sort: Sort,
}

/// The entities of a kind in order, with their names.
pub fn sorted<'a>(snapshot: &'a Snapshot, base: &Base, kind: Kind, sort: Sort) -> Vec<(String, &'a Row)> {
    let mut rows: Vec<_> = snapshot.kind(kind).rows.iter().map(|row| (base::name(row), row)).collect();
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

/// The cells of one line: name, power, energy, share of the node's power, CPU time. What is not known stays empty.
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

/// The heading of such lines.
pub fn headings(snapshot: &Snapshot, base: &Base, first: &str) -> Vec<String> {
    let marked = |heading| base.heading(snapshot, heading);
    vec![first.to_owned(), marked("POWER"), marked("ENERGY"), "SHARE".to_owned(), "CPU s".to_owned()]
}

/// Several rows as one: power, energy, CPU time.
fn sum(base: &Base, rows: &[(String, &Row)]) -> (Microwatts, Energy, Nanos) {
    let mut energy = Energy::default();
    rows.iter().for_each(|(_, row)| energy.add(&row.energy));
    (
        rows.iter().map(|(_, row)| base.power(&row.whole_power())).sum(),
        energy,
        rows.iter().map(|(_, row)| row.used.on_cpu).sum(),
    )
}

/// What the guest channel of a VM is doing, in a few words.
fn channel(guest: Option<&GuestView>) -> String {
    let Some(guest) = guest.filter(|guest| !guest.channel.is_empty()) else { return "-".to_owned() };
    let state = match guest.served_seconds_ago {
        _ if guest.profile == "off" => "off".to_owned(),
        None => "never asked".to_owned(),
        Some(seconds) => format!("{seconds:.0} s ago"),
    };
    format!("{} {state}", text::safe(&guest.channel))
}

/// The channel of a row that is a VM's.
fn guest_of<'a>(row: &Row, guests: &'a [GuestView]) -> Option<&'a GuestView> {
    guests.iter().find(|guest| row.labels.id() == guest.vm_id)
}

/// The table. `guests` is what is known of the VMs' channels; empty for other kinds.
pub fn lines(snapshot: &Snapshot, guests: &[GuestView], choice: Choice, columns: Option<usize>) -> Vec<String> {
    let base = Base::of(snapshot);
    let node = base.node(snapshot);
    let Choice { kind, limit, sort } = choice;
    let view = snapshot.kind(kind);
    let rows = sorted(snapshot, &base, kind, sort);
    let (shown, hidden) = rows.split_at(limit.min(rows.len()));
    let word = kind.as_str();

    let mut out = vec![headings(snapshot, &base, &word.to_uppercase())];
    let with_channel = kind == Kind::Vm;
    out[0].extend(with_channel.then(|| "CHANNEL".to_owned()));
    for (name, row) in shown {
        let (power, energy) = (Some(base.power(&row.whole_power())), base.energy(&row.energy));
        let mut cells = cells(name.clone(), power, energy, node.power, Some(row.used.on_cpu));
        cells.extend(with_channel.then(|| channel(guest_of(row, guests))));
        out.push(cells);
    }
    let mut line = |name: String, power, energy, cpu| out.push(cells(name, power, energy, node.power, cpu));
    if !hidden.is_empty() && kind != Kind::Slice {
        let (power, energy, cpu) = sum(&base, hidden);
        line(format!("({} more)", hidden.len()), Some(power), base.energy(&energy), Some(cpu));
    }
    let mut notes = Vec::new();
    if kind == Kind::Slice {
        notes.push("Slices contain each other, so there is no total.".to_owned());
    } else {
        let (power, mut total, _) = sum(&base, &rows);
        total.add(&view.rest);
        total.add(&view.ended);
        total.add(&view.parked);
        let rest_power = base.power(&view.rest_power);
        line("rest".to_owned(), Some(rest_power), base.energy(&view.rest), None);
        line("ended".to_owned(), None, base.energy(&view.ended), None);
        if view.parked != Energy::default() {
            line("parked".to_owned(), None, base.energy(&view.parked), None);
            notes.push("parked: had a line of their own and made room for busier ones.".to_owned());
        }
        line(format!("total of all {}", base::plural(kind)), Some(power + rest_power), base.energy(&total), None);
        let outside = node.energy.active - node.energy.unattributed - base.dynamic(&total);
        if outside > Microjoules::ZERO {
            line(format!("in no {word}"), None, outside, None);
        }
        line("unattributed".to_owned(), None, node.energy.unattributed, None);
        line("idle".to_owned(), node.idle_power, node.energy.idle - base.idle(&total), None);
        line("node".to_owned(), node.power, node.energy.total, None);
    }
    notes.push(format!("POWER and ENERGY: {}. {}", base.words(), base.lacks(snapshot)));
    if kind != Kind::Slice {
        notes.push("rest: without a line of their own. ended: no longer shown.".to_owned());
    }
    let mut lines = text::table(&out, true, columns);
    lines.push(String::new());
    lines.extend(notes.iter().flat_map(|note| text::wrap(note, columns)));
    lines
}

/// One object of the JSON array; documented in the help of `list`. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Item<'a> {
    row: &'static str,
    kind: &'static str,
    labels: BTreeMap<&'static str, &'a str>,
    state: Option<&'static str>,
    since: Option<String>,
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
    let base = Base::of(snapshot);
    let Choice { kind, limit, sort } = choice;
    let view = snapshot.kind(kind);
    let rows = sorted(snapshot, &base, kind, sort);
    let (shown, hidden) = rows.split_at(limit.min(rows.len()));
    let here = |zone: &Zone| snapshot.domains.iter().any(|view| view.domain.zone == *zone);
    let zones: Vec<Zone> = Zone::ALL.into_iter().filter(here).collect();

    let item = |row, power: Option<Microwatts>, energy: &Energy, used: Option<Used>| {
        let modes = |zone: &Zone| Modes { dynamic: energy.dynamic[zone.index()].0, idle: energy.idle[zone.index()].0 };
        Item {
            row,
            kind: kind.as_str(),
            labels: BTreeMap::new(),
            state: None,
            since: None,
            quality: base.quality(snapshot).map(|quality| quality.as_str()),
            watts: power.map(Microwatts::watts),
            microjoules: base.energy(energy).0,
            microjoules_total: zones.iter().map(|zone| (zone.as_str(), modes(zone))).collect(),
            cpu_seconds: used.map(|used| used.on_cpu.seconds()),
            cycles: used.filter(|_| snapshot.counted.cycles).map(|used| used.cycles),
            instructions: used.filter(|_| snapshot.counted.instructions).map(|used| used.instructions),
            cache_misses: used.filter(|_| snapshot.counted.cache_misses).map(|used| used.cache_misses),
            channel: None,
        }
    };
    let mut items: Vec<Item<'_>> = shown
        .iter()
        .map(|(_, row)| Item {
            labels: row.labels.pairs().collect(),
            state: Some(row.state.as_str()),
            since: Some(text::rfc3339(row.since)),
            channel: guest_of(row, guests),
            ..item("entity", Some(base.power(&row.whole_power())), &row.energy, Some(row.used))
        })
        .collect();
    if !hidden.is_empty() && kind != Kind::Slice {
        let (power, energy, cpu) = sum(&base, hidden);
        items.push(Item { cpu_seconds: Some(cpu.seconds()), ..item("more", Some(power), &energy, None) });
    }
    items.push(item("rest", Some(base.power(&view.rest_power)), &view.rest, None));
    items.push(item("ended", None, &view.ended, None));
    items.push(item("parked", None, &view.parked, None));
    items
}

#[cfg(test)]
mod tests;
