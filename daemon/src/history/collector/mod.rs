//! From snapshots to finished minutes: what each series and the node gained since the last one. Pure: reads no clock
//! and no file.
//!
//! Counters of a snapshot are totals, and a minute's energy is the difference to the totals at its begin, the
//! *baseline*. The baseline is kept in the database, so that energy of a minute that a crash cut off is in the next
//! one. So sums over time are exact, whatever is late.

mod amounts;
mod baseline;
mod quality;

pub use baseline::{Baseline, Closed, DomainBaseline, Kept, SeriesName};

use super::MOST_SERIES;
use super::slot::{SeriesId, Slot, ZonePart};
use crate::model::domain::{NodeEnergy, Quality, Zone};
use crate::model::entity::Labels;
use crate::model::snapshot::{DomainView, Energy, KindView, Row, Snapshot, State};
use crate::model::units::{Microjoules, Nanos};
use baseline::{at_most, charged, kinds, values};
use quality::{Unsettled, ZoneTime};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::sync::Arc;

/// Length of the shortest interval, in seconds.
pub const MINUTE: i64 = 60;
/// Minutes after which a series without a row is forgotten. A row that made room for a busier series and comes back
/// later is then counted from its begin.
const FORGET: u64 = 7 * 24 * 60;
/// Most series without a row that are remembered. Those that had none for longest are forgotten first.
const MOST_WITHOUT_ROW: usize = 10_000;
/// How many series may get a number at once, and how many more each minute. A machine that starts a hundred containers
/// a second would fill the database with names within an hour. The series with the most energy get the numbers; what
/// the others are charged is in the rest of their kind.
const NEW_AT_ONCE: usize = 50_000;
const NEW_A_MINUTE: usize = 1_000;

#[derive(Debug)]
struct Known {
    /// `None`: it has no number yet, as too many others were new. It may get one at a later minute.
    id: Option<SeriesId>,
    base: Energy,
    /// As in the database, names included.
    labels: Labels,
    /// Number of the close at which it had a row.
    seen: u64,
}

/// A series is known by its labels and its begin.
type Key = (Labels, Nanos);

/// A series without a number that gained energy in the minute that ends.
#[derive(Debug)]
struct New {
    key: Key,
    base: Energy,
    energy: Energy,
    /// Its row is still there.
    has_row: bool,
}

impl New {
    fn gained(&self) -> Microjoules {
        self.energy.sum().saturating_sub(self.base.sum())
    }
}

/// Collects minutes from snapshots.
#[derive(Debug)]
pub struct Collector {
    known: FxHashMap<Key, Known>,
    base: Baseline,
    /// The last snapshot. At the end of a minute it has the totals with which the minute ended.
    last: Arc<Snapshot>,
    /// When the current minute began, CLOCK_BOOTTIME.
    begun: Nanos,
    /// Series without a row any more since the last minute ended: their last energy, and whether they had ended. A row
    /// that makes room for a busier one comes back later.
    dropped: FxHashMap<Key, (Energy, State)>,
    /// How many minutes were closed.
    closes: u64,
    begin: Option<Closed>,
    unsettled: Unsettled,
    /// How many series may get a number now.
    numbers: usize,
    new: Vec<New>,
}

impl Collector {
    /// Goes on after what the database kept. `first` is a snapshot of this run. Totals that are lower in it than the
    /// kept ones (the totals' files were lost) begin again from there: energy that is measured from now on is new.
    pub fn new(kept: Kept, first: Arc<Snapshot>) -> Self {
        let Kept { mut base, series } = kept;
        let mut known: FxHashMap<Key, Known> = FxHashMap::default();
        let mut begin = None;
        if base.is_new() {
            // Energy from before history began is in no minute.
            base.begin_at(&first);
            let at = minute(&first) * MINUTE;
            let mut closed = Closed { slot: Slot::empty(at, at), ..Closed::default() };
            for row in rows(&first) {
                base.next += 1;
                let name = SeriesName { labels: row.labels.clone(), since: row.since };
                closed.named.push((base.next, name));
                closed.bases.insert(base.next, row.energy);
                let entry = Known { id: Some(base.next), base: row.energy, labels: row.labels.clone(), seen: 0 };
                known.insert((row.labels.clone(), row.since), entry);
            }
            closed.base = base.clone();
            begin = Some(closed);
        }
        let rows: FxHashMap<(&Labels, Nanos), &Row> = rows(&first).map(|row| ((&row.labels, row.since), row)).collect();
        for (id, name, mut energy) in series {
            if let Some(row) = rows.get(&(&name.labels, name.since)) {
                at_most(&mut energy, &row.energy);
            }
            let entry = Known { id: Some(id), base: energy, labels: name.labels.clone(), seen: 0 };
            known.insert((name.labels, name.since), entry);
        }
        for view in &first.domains {
            if let Some(base) = base.domains.get_mut(view.domain.id.as_str()) {
                let (to, now) = (&mut base.energy, &view.energy);
                to.total = to.total.min(now.total);
                to.idle = to.idle.min(now.idle);
                to.active = to.active.min(now.active);
                to.unattributed = to.unattributed.min(now.unattributed);
            }
        }
        for view in kinds(&first) {
            if let Some(base) = base.kinds.get_mut(view.kind.as_str()) {
                at_most(base, &charged(view));
            }
        }
        let begun = first.at.boottime;
        Self {
            known,
            base,
            last: first,
            begun,
            dropped: FxHashMap::default(),
            closes: 0,
            begin,
            unsettled: Unsettled::default(),
            numbers: NEW_AT_ONCE,
            new: Vec::new(),
        }
    }

    /// Where history begins with this run: the totals up to which nothing is counted, as a minute without length. It
    /// has to be written before the first minute.
    pub const fn take_begin(&mut self) -> Option<Closed> {
        self.begin.take()
    }

    /// Takes the next snapshot. Returns the minute that it ended, if any.
    pub fn observe(&mut self, snapshot: &Arc<Snapshot>) -> Option<Closed> {
        if self.last.ticks == 0 {
            // The first snapshot has the totals of the runs before, and no time.
            self.begun = snapshot.at.boottime;
            self.last = Arc::clone(snapshot);
            return None;
        }
        let closed = (minute(snapshot) != minute(&self.last)).then(|| self.close());
        self.keep_dropped(snapshot);
        self.last = Arc::clone(snapshot);
        closed
    }

    /// The unfinished minute at a stop; `None` before the first tick.
    pub fn finish(mut self) -> Option<Closed> {
        (self.last.ticks > 0).then(|| self.close())
    }

    /// Rows that the last snapshot had and this one lacks were dropped: their energy is final.
    fn keep_dropped(&mut self, snapshot: &Snapshot) {
        for (view, before) in kinds(snapshot).zip(kinds(&self.last)) {
            if view.ended == before.ended && view.rows.len() >= before.rows.len() {
                continue;
            }
            let now: FxHashSet<(&Labels, Nanos)> = view.rows.iter().map(|row| (&row.labels, row.since)).collect();
            for row in before.rows.iter().filter(|row| !now.contains(&(&row.labels, row.since))) {
                self.dropped.insert((row.labels.clone(), row.since), (row.energy, row.state));
            }
        }
    }

    fn close(&mut self) -> Closed {
        let snapshot = Arc::clone(&self.last);
        self.closes += 1;
        let from = minute(&snapshot) * MINUTE;
        let mut closed = Closed { slot: Slot::empty(from, from + MINUTE), ..Closed::default() };
        let observed = snapshot.at.boottime.saturating_sub(self.begun);
        closed.slot.observed_ms = observed.0 / 1_000_000;
        self.begun = snapshot.at.boottime;
        self.close_zones(&mut closed.slot, &snapshot);
        for view in kinds(&snapshot) {
            self.close_kind(&mut closed, view);
        }
        self.close_dropped(&mut closed, &snapshot);
        self.number_new(&mut closed);
        // The rest of each kind is its energy without that of its series.
        for view in kinds(&snapshot) {
            let now = charged(view);
            let base = self.base.kinds.entry(view.kind.as_str().to_owned()).or_default();
            let gained = values(&closed.slot, &now, base);
            *base = now;
            let part = closed.slot.kinds.entry(view.kind.as_str().to_owned()).or_default();
            let mut rest = gained;
            for row in part.rows.values() {
                rest.iter_mut().zip(row).for_each(|(rest, value)| *rest -= value);
            }
            part.rest = rest;
            part.keep_largest(MOST_SERIES);
        }
        closed.slot.kinds.retain(|_, part| !part.rows.is_empty() || part.rest.iter().any(|value| *value != 0));
        amounts::add(&mut closed.slot, &snapshot);
        self.forget(&mut closed.gone);
        closed.base = self.base.clone();
        closed
    }

    /// Forgets series that had no row for long.
    fn forget(&mut self, gone: &mut Vec<SeriesId>) {
        let Self { known, base, closes, .. } = self;
        let without_row: usize = known.values().filter(|known| known.seen < *closes).count();
        let mut first_kept = closes.saturating_sub(FORGET - 1);
        if without_row > MOST_WITHOUT_ROW {
            let mut seen: Vec<u64> = known.values().map(|known| known.seen).filter(|seen| seen < closes).collect();
            let (_, seen, _) = seen.select_nth_unstable(without_row - MOST_WITHOUT_ROW - 1);
            first_kept = first_kept.max(*seen + 1);
        }
        known.retain(|(_, since), known| {
            let keep = known.seen >= first_kept;
            if !keep {
                base.forgotten = base.forgotten.max(*since);
                gone.extend(known.id);
            }
            keep
        });
    }

    fn close_zones(&mut self, slot: &mut Slot, snapshot: &Snapshot) {
        let billed = crate::model::billing::Base::of(snapshot);
        let mut times = Vec::new();
        for zone in Zone::ALL {
            let mut part =
                ZonePart { zone: zone.as_str().into(), billed: billed.contains(zone), ..ZonePart::default() };
            let mut time = None;
            for view in snapshot.domains.iter().filter(|view| view.domain.zone == zone) {
                let before = part.energy.total;
                self.add_domain(&mut part, view);
                time.get_or_insert_with(ZoneTime::default).add(view, part.energy.total > before);
            }
            if let Some(time) = time {
                slot.zones.push(part);
                times.push(time);
            }
        }
        slot.quality_ms = self.unsettled.close(slot.observed_ms, &mut slot.zones, &times);
    }

    fn add_domain(&mut self, part: &mut ZonePart, view: &DomainView) {
        let now = DomainBaseline { energy: view.energy, gap: view.gap_time };
        let base = self.base.domains.insert(view.domain.id.to_string(), now).unwrap_or_default();
        let less = |now: Microjoules, base: Microjoules| now.saturating_sub(base);
        let energy = NodeEnergy {
            total: less(now.energy.total, base.energy.total),
            idle: less(now.energy.idle, base.energy.idle),
            active: less(now.energy.active, base.energy.active),
            unattributed: less(now.energy.unattributed, base.energy.unattributed),
        };
        part.energy += energy;
        *match view.domain.quality {
            Quality::Measured => &mut part.measured,
            Quality::Derived => &mut part.derived,
            Quality::Estimated => &mut part.estimated,
        } += energy.total.0;
        if !view.past {
            let missing = now.gap.saturating_sub(base.gap).0 / 1_000_000;
            part.missing_ms = part.missing_ms.max(missing);
        }
    }

    /// Series whose row is gone. Those that ended are forgotten.
    fn close_dropped(&mut self, closed: &mut Closed, snapshot: &Snapshot) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped.is_empty() {
            return;
        }
        let now: FxHashSet<(&Labels, Nanos)> = rows(snapshot).map(|row| (&row.labels, row.since)).collect();
        for (key, (energy, state)) in &dropped {
            if now.contains(&(&key.0, key.1)) {
                continue;
            }
            self.charge(closed, key, energy, *state != State::Terminated);
            if *state == State::Terminated
                && let Some(Known { id: Some(id), .. }) = self.known.remove(key)
            {
                closed.bases.remove(&id);
                closed.gone.push(id);
            }
        }
    }

    fn close_kind(&mut self, closed: &mut Closed, view: &KindView) {
        for row in &view.rows {
            let key = (row.labels.clone(), row.since);
            self.charge(closed, &key, &row.energy, true);
        }
    }

    /// Puts the energy that a series gained into the slot. A series without a number is put into `new`.
    fn charge(&mut self, closed: &mut Closed, key: &Key, energy: &Energy, has_row: bool) {
        let known = match self.known.get_mut(key) {
            Some(known) => known,
            None if energy.sum() == Microjoules::ZERO => return,
            None => {
                // What a forgotten series had before is in the history already.
                let base = if key.1 <= self.base.forgotten { *energy } else { Energy::default() };
                self.new.push(New { key: key.clone(), base, energy: *energy, has_row });
                return;
            }
        };
        known.seen = self.closes;
        let Some(id) = known.id else {
            if known.base != *energy {
                self.new.push(New { key: key.clone(), base: known.base, energy: *energy, has_row });
            }
            return;
        };
        if known.base == *energy && known.labels.same_values(&key.0) {
            return;
        }
        if !known.labels.same_values(&key.0) {
            known.labels = key.0.clone();
            closed.named.push((id, SeriesName { labels: key.0.clone(), since: key.1 }));
        }
        let gained = values(&closed.slot, energy, &known.base);
        if gained.iter().any(|value| *value != 0) {
            known.base = *energy;
            closed.bases.insert(id, *energy);
            let part = closed.slot.kinds.entry(key.0.kind().as_str().to_owned()).or_default();
            part.rows.insert(id, gained);
        }
    }

    /// Gives numbers to series that have none, to those with the most energy where there are too many. What the others
    /// gained is in the rest of their kind, and is not charged to them later.
    fn number_new(&mut self, closed: &mut Closed) {
        let mut new = std::mem::take(&mut self.new);
        if new.len() > self.numbers {
            new.sort_by_key(|one| Reverse(one.gained()));
        }
        for (position, New { key, base, energy, has_row }) in new.into_iter().enumerate() {
            let id = (position < self.numbers).then(|| {
                // The first number is 1.
                self.base.next += 1;
                self.base.next
            });
            if let Some(id) = id {
                closed.named.push((id, SeriesName { labels: key.0.clone(), since: key.1 }));
                let gained = values(&closed.slot, &energy, &base);
                if gained.iter().any(|value| *value != 0) {
                    let part = closed.slot.kinds.entry(key.0.kind().as_str().to_owned()).or_default();
                    part.rows.insert(id, gained);
                }
                if has_row {
                    closed.bases.insert(id, energy);
                } else {
                    closed.gone.push(id);
                }
            }
            if has_row {
                let known = Known { id, base: energy, labels: key.0.clone(), seen: self.closes };
                self.known.insert(key, known);
            }
        }
        self.numbers = (self.numbers.saturating_sub(closed.named.len()) + NEW_A_MINUTE).min(NEW_AT_ONCE);
    }
}

fn rows(snapshot: &Snapshot) -> impl Iterator<Item = &Row> {
    kinds(snapshot).flat_map(|view| &view.rows)
}

/// Number of the minute of a snapshot, since 1970.
fn minute(snapshot: &Snapshot) -> i64 {
    i64::try_from(snapshot.at.realtime.0 / Nanos::SECOND.0).unwrap_or(i64::MAX) / MINUTE
}

#[cfg(test)]
mod tests;
