//! Converts the part of the ledger that is kept over restarts to entries for `run/store`, and restores it from them.
//! The store decides how entries are written to files.

use super::{KindTotals, Ledger, Power, Retired, Series};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Energy;
use crate::model::units::Nanos;

/// One change of the ledger. A later entry for the same labels or kind replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The new totals of a series.
    Series {
        /// Labels of the series.
        labels: Labels,
        /// Its totals.
        series: Series,
    },
    /// A series was dropped: its energy is in the kind's `ended`.
    Dropped {
        /// Labels of the series.
        labels: Labels,
    },
    /// Energy of a kind that is in no series.
    Kind {
        /// The kind.
        kind: Kind,
        /// Energy charged to accounts without a shown series.
        rest: Energy,
        /// Energy of dropped series.
        ended: Energy,
    },
}

impl Ledger {
    /// Takes over the totals of an earlier run. Each series is shown as terminated until an entity with its labels
    /// continues it. It is dropped at `until` (CLOCK_MONOTONIC), unless entities with its labels are expected to return
    /// ([`Labels::returns`]).
    pub fn restore(&mut self, entries: impl Iterator<Item = Entry>, until: Nanos) {
        for entry in entries {
            match entry {
                Entry::Series { labels, series } => {
                    let until = if labels.returns() { Nanos(u64::MAX) } else { until };
                    let power = Power::default();
                    let (first_labels, within) = (None, None);
                    let retired = Retired { series, power, power_tick: 0, until, restored: true, first_labels, within };
                    let known = &mut self.kinds[labels.kind().index()].retired;
                    let labels = match known.remove_entry(&labels) {
                        Some((earlier, _)) => labels.or_names_of(&earlier),
                        None => labels,
                    };
                    known.insert(labels, retired);
                }
                Entry::Dropped { labels } => {
                    self.kinds[labels.kind().index()].retired.remove(&labels);
                }
                Entry::Kind { kind, rest, ended } => {
                    let totals = &mut self.kinds[kind.index()];
                    (totals.rest, totals.ended) = (rest, ended);
                }
            }
        }
    }

    /// Labels of all series without a living entity, with the time at which each series began (CLOCK_REALTIME).
    pub fn awaited(&self) -> impl Iterator<Item = (Labels, Nanos)> + '_ {
        self.retired().map(|(labels, retired)| (labels.clone(), retired.series.since))
    }

    /// The entries that changed at this tick, for the store.
    pub fn changes(&self) -> impl Iterator<Item = Entry> + '_ {
        let series = self.charged.iter().filter(|charge| charge.changes_series()).filter_map(|charge| {
            let account = self.accounts[charge.account as usize].as_ref()?;
            let series = account.series.as_ref().filter(|_| account.shown)?;
            Some(Entry::Series { labels: account.labels.clone(), series: **series })
        });
        let retired = self.retired().filter(|(_, retired)| retired.power_tick == self.tick).map(retired_entry);
        let dropped = self.dropped.iter().map(|labels| Entry::Dropped { labels: labels.clone() });
        let kinds = self.kinds().filter(|(kind, _)| self.dirty[kind.index()]).map(kind_entry);
        series.chain(retired).chain(dropped).chain(kinds)
    }

    /// All entries, for the store.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let living = self.accounts.iter().flatten().filter_map(|account| {
            let series = account.series.as_ref().filter(|_| !account.small)?;
            Some(Entry::Series { labels: account.labels.clone(), series: **series })
        });
        self.kinds().map(kind_entry).chain(living).chain(self.retired().map(retired_entry))
    }

    fn kinds(&self) -> impl Iterator<Item = (Kind, &KindTotals)> {
        Kind::ALL.into_iter().zip(&self.kinds)
    }

    fn retired(&self) -> impl Iterator<Item = (&Labels, &Retired)> {
        self.kinds.iter().flat_map(|totals| &totals.retired)
    }
}

fn kind_entry((kind, totals): (Kind, &KindTotals)) -> Entry {
    // Small series are not kept over a restart: what they had reached is over then.
    let mut ended = totals.ended;
    ended.add(&totals.small);
    Entry::Kind { kind, rest: totals.rest, ended }
}

fn retired_entry((labels, retired): (&Labels, &Retired)) -> Entry {
    Entry::Series { labels: labels.clone(), series: retired.series }
}
