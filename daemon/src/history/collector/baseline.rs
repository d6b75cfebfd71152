//! The totals up to which the history has the energy, a finished minute, and differences between totals.

use crate::history::MOST_SERIES;
use crate::history::slot::{SeriesId, Slot, Values};
use crate::model::domain::{NodeEnergy, Zone};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{DomainView, Energy, KindView, Snapshot};
use crate::model::units::{Microjoules, Nanos};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of a series in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesName {
    /// Its kind and labels.
    pub labels: Labels,
    /// When it began, CLOCK_REALTIME. The same labels with another begin are another series.
    pub since: Nanos,
}

/// The totals up to which history has the energy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    /// Energy of each domain, with its gap time, by id.
    pub domains: BTreeMap<String, DomainBaseline>,
    /// All that each kind was charged, by name of the kind.
    pub kinds: BTreeMap<String, Energy>,
    /// The last number that a series got.
    pub next: SeriesId,
    /// The latest begin of a series that was forgotten without having ended, CLOCK_REALTIME. One that began up to then
    /// and is not known may be that one: what it had before is in the history already.
    pub forgotten: Nanos,
}

impl Baseline {
    /// Whether history begins.
    pub(super) fn is_new(&self) -> bool {
        self.domains.is_empty() && self.kinds.is_empty()
    }

    pub(super) fn begin_at(&mut self, snapshot: &Snapshot) {
        let domain = |view: &DomainView| {
            (view.domain.id.to_string(), DomainBaseline { energy: view.energy, gap: view.gap_time })
        };
        self.domains = snapshot.domains.iter().map(domain).collect();
        self.kinds = kinds(snapshot).map(|view| (view.kind.as_str().to_owned(), charged(view))).collect();
    }
}

/// Totals of a domain up to which history has the energy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainBaseline {
    /// Its totals.
    pub energy: NodeEnergy,
    /// Time in which it could not be measured.
    pub gap: Nanos,
}

/// A finished minute, with the changes of series and baseline that are written with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closed {
    /// The minute.
    pub slot: Slot,
    /// Series that are new, or have other labels than before.
    pub named: Vec<(SeriesId, SeriesName)>,
    /// New bases of series whose energy changed.
    pub bases: BTreeMap<SeriesId, Energy>,
    /// Series that are gone: their bases are not needed any more.
    pub gone: Vec<SeriesId>,
    /// The base of domains and kinds.
    pub base: Baseline,
}

impl Closed {
    /// Adds an earlier minute, whose times are lost.
    pub fn join(&mut self, earlier: Self) {
        let Self { mut slot, named, bases, gone, base: _ } = earlier;
        (slot.from, slot.until) = (self.slot.from, self.slot.until);
        slot.add(&self.slot);
        self.slot = slot;
        let later = std::mem::replace(&mut self.named, named);
        self.named.extend(later);
        for (id, energy) in bases {
            self.bases.entry(id).or_insert(energy);
        }
        self.gone.extend(gone);
        for id in &self.gone {
            self.bases.remove(id);
        }
        self.slot.kinds.values_mut().for_each(|part| part.keep_largest(MOST_SERIES));
        // The labels of series that are gone and in no interval are not needed.
        let Self { slot, named, gone, .. } = self;
        let gone: FxHashSet<SeriesId> = gone.iter().copied().collect();
        named.retain(|(id, _)| !gone.contains(id) || slot.kinds.values().any(|part| part.rows.contains_key(id)));
    }
}

/// The state that the database kept, for a new collector.
#[derive(Debug, Default)]
pub struct Kept {
    /// The base of domains and kinds.
    pub base: Baseline,
    /// Series with a base.
    pub series: Vec<(SeriesId, SeriesName, Energy)>,
}

/// The kinds that history has: all but processes, of which there are too many and which are gone too soon.
pub(super) fn kinds(snapshot: &Snapshot) -> impl Iterator<Item = &KindView> {
    snapshot.kinds.iter().filter(|view| view.kind != Kind::Process)
}

/// All that was ever charged to a kind.
pub(super) fn charged(view: &KindView) -> Energy {
    let mut sum = view.rest;
    sum.add(&view.ended);
    sum.add(&view.parked);
    view.rows.iter().for_each(|row| sum.add(&row.energy));
    sum
}

/// Lowers each number of `energy` to that of `limit`.
pub(super) fn at_most(energy: &mut Energy, limit: &Energy) {
    for zone in 0..Zone::COUNT {
        energy.dynamic[zone] = energy.dynamic[zone].min(limit.dynamic[zone]);
        energy.idle[zone] = energy.idle[zone].min(limit.idle[zone]);
    }
}

/// Energy gained since `base`, in the columns of the slot.
pub(super) fn values(slot: &Slot, now: &Energy, base: &Energy) -> Values {
    let zones = slot.zones.iter().filter_map(|part| Zone::ALL.into_iter().find(|zone| zone.as_str() == part.zone));
    let less = |now: Microjoules, base: Microjoules| {
        i64::try_from(now.0).unwrap_or(i64::MAX) - i64::try_from(base.0).unwrap_or(i64::MAX)
    };
    zones
        .map(Zone::index)
        .flat_map(|zone| [less(now.dynamic[zone], base.dynamic[zone]), less(now.idle[zone], base.idle[zone])])
        .collect()
}
