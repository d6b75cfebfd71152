//! What of the ledger outlives a run: told to the store, and taken from it. Not how that keeps it.

use super::{KindTotals, Ledger, Retired, Series};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Energy;
use crate::model::units::Nanos;
use serde::{Deserialize, Serialize};

/// One changed thing, for the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A series' new totals.
    Series(Kind, Labels, Series),
    /// A series is no more: its energy is in the kind's `ended`.
    Dropped(Kind, Labels),
    /// A kind's `rest` and `ended`.
    Kind(Kind, Energy, Energy),
}

impl Ledger {
    /// Takes over totals of an earlier run. A series waits, as ended, for an entity with its labels to go on with it.
    pub fn restore(&mut self, entries: impl Iterator<Item = Entry>, until: Nanos) {
        for entry in entries {
            match entry {
                Entry::Series(kind, labels, series) => {
                    let until = if kind.returns(&labels) { Nanos(u64::MAX) } else { until };
                    let retired = Retired { series, power: Default::default(), power_tick: 0, until };
                    self.kinds[kind.index()].retired.insert(labels, retired);
                }
                Entry::Dropped(kind, labels) => {
                    self.kinds[kind.index()].retired.remove(&labels);
                }
                Entry::Kind(kind, rest, ended) => {
                    let totals = &mut self.kinds[kind.index()];
                    (totals.rest, totals.ended) = (rest, ended);
                }
            }
        }
    }

    /// Series whose entities are not there, or not known to be, and when each began (CLOCK_REALTIME).
    pub fn awaited(&self) -> impl Iterator<Item = ((Kind, Labels), Nanos)> + '_ {
        let series = |(kind, totals): (Kind, &'_ KindTotals)| {
            totals
                .retired
                .iter()
                .map(move |(labels, retired)| ((kind, labels.clone()), retired.series.since))
                .collect::<Vec<_>>()
        };
        Kind::ALL.into_iter().zip(&self.kinds).flat_map(series)
    }

    /// What changed at this tick, for the store.
    pub fn changes(&self) -> impl Iterator<Item = Entry> + '_ {
        let series = self.charged.iter().filter(|charged| charged.changed()).filter_map(|charged| {
            let account = self.accounts[charged.account as usize].as_ref()?;
            Some(Entry::Series(
                account.kind,
                account.labels.clone(),
                **account.series.as_ref().filter(|_| account.shown)?,
            ))
        });
        let retired = Kind::ALL.into_iter().zip(&self.kinds).flat_map(|(kind, totals)| {
            let fresh = totals.retired.iter().filter(|(_, retired)| retired.power_tick == self.tick);
            fresh.map(move |(labels, retired)| Entry::Series(kind, labels.clone(), retired.series))
        });
        let dropped = self.dropped.iter().map(|(kind, labels)| Entry::Dropped(*kind, labels.clone()));
        let kinds = Kind::ALL.into_iter().zip(&self.kinds).filter(|(kind, _)| self.dirty[kind.index()]);
        series
            .chain(retired)
            .chain(dropped)
            .chain(kinds.map(|(kind, totals)| Entry::Kind(kind, totals.rest, totals.ended)))
    }

    /// Everything, for the store.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let living = self.accounts.iter().flatten().filter_map(|account| {
            Some(Entry::Series(account.kind, account.labels.clone(), **account.series.as_ref()?))
        });
        let kinds = Kind::ALL.into_iter().zip(&self.kinds);
        let rest = kinds.clone().map(|(kind, totals)| Entry::Kind(kind, totals.rest, totals.ended));
        let retired = kinds.flat_map(|(kind, totals)| {
            totals.retired.iter().map(move |(labels, retired)| Entry::Series(kind, labels.clone(), retired.series))
        });
        rest.chain(living).chain(retired)
    }
}
