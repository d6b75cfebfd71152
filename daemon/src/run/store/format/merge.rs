//! Adds what an earlier version carried to a state. Not what is known and what is not: that is [`super::read`]'s.

use crate::attribution::ledger::{Entry, Series};
use crate::attribution::{DomainRecord, State};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Energy;
use crate::model::usage::Used;
use rustc_hash::FxHashMap;

/// What the entries of a state have come to, and what is added to that.
pub struct Merge {
    series: FxHashMap<Labels, Option<Series>>,
    totals: FxHashMap<Kind, (Energy, Energy)>,
    changed: Vec<Changed>,
}

enum Changed {
    Series(Labels),
    Totals(Kind),
}

impl Merge {
    pub fn new(state: &State) -> Self {
        let mut merge = Self { series: FxHashMap::default(), totals: FxHashMap::default(), changed: Vec::new() };
        for entry in &state.entries {
            match entry {
                Entry::Series { labels, series } => {
                    merge.series.insert(labels.clone(), Some(*series));
                }
                Entry::Dropped { labels } => {
                    merge.series.insert(labels.clone(), None);
                }
                Entry::Kind { kind, rest, ended } => {
                    merge.totals.insert(*kind, (*rest, *ended));
                }
            }
        }
        merge
    }

    /// Adds the totals of a domain that was carried.
    pub fn domain(&mut self, record: DomainRecord, state: &mut State) {
        match state.domains.iter_mut().find(|kept| kept.domain.id == record.domain.id) {
            Some(kept) => {
                kept.totals += record.totals;
                kept.gaps += record.gaps;
                kept.gap_time += record.gap_time;
            }
            None => state.domains.push(record),
        }
    }

    /// Adds a series, or a part of one. Where the series of a part is no more, its energy is its kind's `ended`.
    pub fn series(&mut self, labels: &Labels, series: &Series, whole: bool) {
        if !whole && series.energy == Energy::default() && series.used == Used::default() {
            return;
        }
        let known = self.series.entry(labels.clone()).or_default();
        match known {
            Some(known) => {
                known.energy.add(&series.energy);
                known.used.add(&series.used);
                if series.since.0 > 0 {
                    known.since = known.since.min(series.since);
                }
            }
            None if whole => *known = Some(*series),
            None => return self.totals(labels.kind(), &Energy::default(), &series.energy),
        }
        self.changed.push(Changed::Series(labels.clone()));
    }

    /// Adds to what a kind has beside its series.
    pub fn totals(&mut self, kind: Kind, rest: &Energy, ended: &Energy) {
        if (rest, ended) == (&Energy::default(), &Energy::default()) {
            return;
        }
        let totals = self.totals.entry(kind).or_default();
        totals.0.add(rest);
        totals.1.add(ended);
        self.changed.push(Changed::Totals(kind));
    }

    /// Writes what has changed behind the other entries: of two, the later one counts.
    pub fn into_state(self, state: &mut State) {
        for changed in self.changed {
            state.entries.extend(match changed {
                Changed::Series(labels) => {
                    let series = self.series.get(&labels).copied().flatten();
                    series.map(|series| Entry::Series { labels, series })
                }
                Changed::Totals(kind) => {
                    self.totals.get(&kind).map(|(rest, ended)| Entry::Kind { kind, rest: *rest, ended: *ended })
                }
            });
        }
    }
}
