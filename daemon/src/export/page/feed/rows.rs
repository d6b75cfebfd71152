//! The rows of the page: each has a short number for its life, and what changed of it since the last tick.

use super::bounds::{Bounds, Intervals};
use super::curve::{Curve, POINTS};
use super::json::{Number, text};
use crate::export::page::belongs::place;
use crate::model::billing::Base;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{Row, Snapshot, State};
use crate::model::units::{Microwatts, Nanos};
use crate::words::entity::{Names, id as short_id, of_labels, unescaped};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Most rows of a kind; of more, those with the most energy.
const ROWS: usize = 12_000;

/// What readers have of a row.
pub(super) struct Known {
    /// Its number.
    pub id: u32,
    labels: Labels,
    /// In what it runs.
    within: Option<Arc<[Labels]>>,
    since: Nanos,
    ended: bool,
    power: u64,
    /// The ends of the interval of `power`; 0: it has none.
    bounds: [u64; 2],
    energy: u64,
    /// Tick at which it was seen last.
    seen: u64,
    /// `None`: it drew nothing in these minutes.
    pub curve: Option<Curve>,
    /// The span in which it was first seen.
    born: u64,
}

/// All rows.
#[derive(Default)]
pub(super) struct Rows {
    known: FxHashMap<Labels, Known>,
    next: u32,
}

/// What a tick changed, as pieces of JSON.
#[derive(Default)]
pub(super) struct Changes {
    /// Rows that are new, or have other names.
    pub rows: String,
    /// Pairs of number and power in µW.
    pub power: String,
    /// Number and both ends of the interval of its power in µW, 0 where it has none.
    pub bounds: String,
    /// Pairs of number and energy in µJ.
    pub energy: String,
    /// Numbers of rows that are gone.
    pub gone: String,
}

fn push(list: &mut String, item: std::fmt::Arguments<'_>) {
    use std::fmt::Write;
    let comma = if list.is_empty() { "" } else { "," };
    // Writing to a String cannot fail.
    let _ = write!(list, "{comma}{item}");
}

impl Rows {
    /// Takes in a tick. `wanted`: whether changes are written out.
    pub fn step(&mut self, snapshot: &Snapshot, at: &Tick<'_>, wanted: bool) -> Changes {
        let mut changes = Changes::default();
        let names = wanted.then(|| Names::of(snapshot));
        for (place, kind) in at.kinds.iter().enumerate() {
            for row in most(&snapshot.kind(*kind).rows, at.base) {
                self.row(row, place, at, names.as_ref().map(|names| (names, &mut changes)));
            }
        }
        self.known.retain(|_, known| {
            let here = known.seen == at.number;
            if !here && wanted {
                push(&mut changes.gone, format_args!("{}", known.id));
            }
            here
        });
        changes
    }

    fn row(&mut self, row: &Row, place: usize, at: &Tick<'_>, changes: Option<(&Names<'_>, &mut Changes)>) {
        let whole = row.whole_power();
        let power = at.base.power(&whole).0;
        let bounds = rounded_bounds(at.bounds.and_then(|intervals| intervals.of_sum(&whole, at.base)));
        let energy = at.base.energy(&row.energy).0;
        let ended = row.state == State::Terminated;
        let mut replaced = None;
        if self.known.get(&row.labels).is_none_or(|known| known.since != row.since) {
            replaced = self.known.remove(&row.labels).map(|known| known.id);
            let new = Known {
                id: self.next,
                labels: row.labels.clone(),
                within: row.within.clone(),
                since: row.since,
                // The other one, so that the row is written below.
                ended: !ended,
                power: 0,
                bounds: [0; 2],
                energy: 0,
                seen: 0,
                curve: None,
                born: at.span,
            };
            self.next = self.next.wrapping_add(1);
            self.known.insert(row.labels.clone(), new);
        }
        let Some(known) = self.known.get_mut(&row.labels) else { return };
        let (shown_power, shown_energy) = (rounded(power), rounded(energy));
        if let Some((names, changes)) = changes {
            if let Some(old) = replaced {
                push(&mut changes.gone, format_args!("{old}"));
            }
            if known.ended != ended || !known.names_are(row) {
                let whole = Whole { known, row, kinds: at.kinds, place, names, power, bounds, energy };
                push(&mut changes.rows, format_args!("{whole}"));
            } else {
                if known.power != shown_power {
                    push(&mut changes.power, format_args!("{},{}", known.id, Number(shown_power)));
                }
                if known.bounds != bounds {
                    let [low, high] = bounds.map(Number);
                    push(&mut changes.bounds, format_args!("{},{low},{high}", known.id));
                }
                if known.energy != shown_energy {
                    push(&mut changes.energy, format_args!("{},{}", known.id, Number(shown_energy)));
                }
            }
        }
        if !known.names_are(row) {
            (known.labels, known.within) = (row.labels.clone(), row.within.clone());
        }
        (known.ended, known.power, known.energy, known.seen) = (ended, shown_power, shown_energy, at.number);
        known.bounds = bounds;
        if at.gap && known.curve.is_none() {
            // What it drew until now is not known: that is a gap, and not nothing.
            known.born = known.born.max(at.span + 1);
        }
        if power > 0 && known.curve.is_none() {
            let begin = known.born.min(at.span);
            let mut curve = Curve::new(POINTS, begin.max(at.span.saturating_sub(POINTS as u64)));
            // It drew nothing since it was first seen.
            (curve.span()..at.span).for_each(|span| curve.add(span, Some(0.0)));
            known.curve = Some(curve);
        }
        if let Some(curve) = &mut known.curve {
            curve.add(at.span, (!at.gap).then_some(power as f64));
        }
    }

    /// All rows as JSON, and the curves of those with the most power.
    pub fn all(&self, snapshot: &Snapshot, kinds: &[Kind], base: &Base, curves: usize) -> (String, Vec<(u64, &Known)>) {
        let (mut list, mut busiest) = (String::new(), Vec::new());
        let names = Names::of(snapshot);
        let intervals = Intervals::of(snapshot);
        for (place, kind) in kinds.iter().enumerate() {
            for row in most(&snapshot.kind(*kind).rows, base) {
                let Some(known) = self.known.get(&row.labels).filter(|known| known.since == row.since) else {
                    continue;
                };
                let (power, energy) = (base.power(&row.whole_power()).0, base.energy(&row.energy).0);
                let bounds = rounded_bounds(intervals.of_sum(&row.whole_power(), base));
                let whole = Whole { known, row, kinds, place, names: &names, power, bounds, energy };
                push(&mut list, format_args!("{whole}"));
                if known.curve.is_some() {
                    busiest.push((power, known));
                }
            }
        }
        busiest.sort_by_key(|(power, known)| (std::cmp::Reverse(*power), known.id));
        busiest.truncate(curves);
        (list, busiest)
    }

    /// Takes the points of span `from` and later from the curves.
    pub fn forget(&mut self, from: u64) {
        self.known.values_mut().filter_map(|known| known.curve.as_mut()).for_each(|curve| curve.forget(from));
    }

    /// The row with this number.
    pub fn by_id(&self, id: u32) -> Option<(&Labels, &Known)> {
        self.known.iter().find(|(_, known)| known.id == id)
    }

    /// The rows with these numbers.
    pub fn by_ids(&self, ids: &[u32]) -> impl Iterator<Item = &Known> {
        self.known.values().filter(|known| ids.contains(&known.id))
    }

    /// The number of a row.
    pub fn id(&self, labels: &Labels) -> Option<u32> {
        self.known.get(labels).map(|known| known.id)
    }
}

/// What is the same for all rows of a tick.
pub(super) struct Tick<'a> {
    /// Number of the tick, from 1 on.
    pub number: u64,
    /// Number of the span of curves.
    pub span: u64,
    /// Whether the power of this tick is not known.
    pub gap: bool,
    /// The kinds that are shown.
    pub kinds: &'a [Kind],
    /// What is added up.
    pub base: &'a Base,
    /// The intervals of estimates, where there are any.
    pub bounds: Option<&'a Intervals>,
}

impl Known {
    /// Whether readers have the names of the row, and in what it runs.
    fn names_are(&self, row: &Row) -> bool {
        let same = match (&self.within, &row.within) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now) || known == now,
            (known, now) => known.is_none() && now.is_none(),
        };
        same && self.labels.same_values(&row.labels)
    }

    /// The points before `span`, the oldest first.
    pub fn points(&self, span: u64) -> Vec<Option<f64>> {
        match &self.curve {
            Some(curve) => curve.points(span).collect(),
            None => (span.saturating_sub(POINTS as u64)..span).map(|one| (one >= self.born).then_some(0.0)).collect(),
        }
    }
}

/// How many rows of a kind are not shown.
pub(super) fn cut(rows: &[Row]) -> usize {
    rows.len().saturating_sub(ROWS)
}

/// The rows that are shown of a kind.
fn most<'a>(rows: &'a [Row], base: &Base) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    if rows.len() > ROWS {
        rows.select_nth_unstable_by_key(ROWS, |row| std::cmp::Reverse(base.energy(&row.energy)));
        rows.truncate(ROWS);
    }
    rows
}

/// Four significant digits: what is shown has three.
pub(super) fn rounded(value: u64) -> u64 {
    let digits = value.checked_ilog10().unwrap_or(0);
    if digits < 4 {
        return value;
    }
    let unit = 10_u64.pow(digits - 3);
    value.saturating_add(unit / 2) / unit * unit
}

fn rounded_bounds(bounds: Bounds) -> [u64; 2] {
    bounds.map_or([0; 2], |ends| ends.map(|Microwatts(end)| rounded(end)))
}

/// A row in full: number, place of its kind, name, what tells it from others of its name, begin in seconds since 1970,
/// 1 where it has ended, power, energy, both ends of the interval of its power, its name without systemd's escapes. The
/// last three are left out where there are none.
struct Whole<'a> {
    known: &'a Known,
    row: &'a Row,
    kinds: &'a [Kind],
    place: usize,
    names: &'a Names<'a>,
    power: u64,
    bounds: [u64; 2],
    energy: u64,
}

impl std::fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.names.name(self.row);
        let name = name.strip_suffix(" [terminated]").unwrap_or(&name);
        write!(
            f,
            "[{},{},{},{},{},{},{},{}",
            self.known.id,
            self.place,
            text(name),
            text(&note(self.row, self.kinds)),
            self.row.since.0 / Nanos::SECOND.0,
            u8::from(self.row.state == State::Terminated),
            Number(rounded(self.power)),
            Number(rounded(self.energy)),
        )?;
        let unescaped = unescaped(&self.row.labels);
        if self.bounds != [0; 2] || unescaped.is_some() {
            let [low, high] = self.bounds.map(Number);
            write!(f, ",{low},{high}")?;
        }
        match unescaped {
            Some(name) => write!(f, ",{}]", text(&name)),
            None => f.write_str("]"),
        }
    }
}

/// What tells a row from others of its name, and can be searched for. Names nothing of other kinds than these.
pub(in crate::export::page) fn note(row: &Row, kinds: &[Kind]) -> String {
    let label = |name: &str| row.labels.get(name);
    let place = place(row).filter(|labels| row.labels.kind() == Kind::Process && kinds.contains(&labels.kind()));
    let place = place.map(|labels| unescaped(labels).unwrap_or_else(|| of_labels(labels))).unwrap_or_default();
    let words = match row.labels.kind() {
        Kind::Process => vec![&*place, label("exe")],
        Kind::Unit | Kind::UserUnit => vec![label("slice")],
        Kind::Container => vec![label("runtime"), label("image")],
        Kind::Vm => vec![label("hypervisor"), label("vm_id")],
        Kind::Job | Kind::JobStep => vec![label("account"), label("partition")],
        Kind::Slice | Kind::Session | Kind::User | Kind::Pod | Kind::Tenant => Vec::new(),
    };
    let id = if matches!(row.labels.kind(), Kind::Container | Kind::Pod) { short_id(row) } else { String::new() };
    let words = words.into_iter().chain([id.as_str()]).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_not_sent() {
        assert_eq!(
            [0, 9, 9_999, 12_344, 12_345_678, 99_999_999].map(rounded),
            [0, 9, 9_999, 12_340, 12_350_000, 100_000_000]
        );
        assert_eq!(rounded(u64::MAX), 18_440_000_000_000_000_000);
    }
}
