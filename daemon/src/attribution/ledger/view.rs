//! The ledger's part of a snapshot: the rows and sums of each kind.

use super::{Account, KindTotals, Ledger, Power, Series};
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::{KindView, OnPage, Row, State};

impl Ledger {
    /// Rows and sums of all kinds, in the order of [`Kind::ALL`]. Rows are in the order of their labels.
    pub fn view(&self) -> Vec<KindView> {
        Kind::ALL.into_iter().zip(&self.kinds).map(|(kind, totals)| self.view_kind(kind, totals)).collect()
    }

    fn view_kind(&self, kind: Kind, totals: &KindTotals) -> KindView {
        let mut rows = Vec::with_capacity(totals.shown.len() + totals.retired.len());
        for &place in &totals.shown {
            if let Some(account @ Account { labels, series: Some(series), tick, charged, ended, .. }) =
                self.accounts[place as usize].as_ref()
            {
                let on_page = if account.settled { on_page(account.first_labels.as_ref()) } else { OnPage::Waiting };
                let charge = self.charged.get(*charged as usize).filter(|_| *tick == self.tick);
                let power = charge.map_or_else(Power::default, |charge| charge.power);
                let state = if *ended { State::Terminated } else { State::Running };
                let within = account.within.clone();
                rows.push(Row { settled: false, within, ..row(labels, series, state, power, on_page) });
            }
        }
        for (labels, retired) in &totals.retired {
            let power = if retired.power_tick == self.tick { retired.power } else { Default::default() };
            let on_page = on_page(retired.first_labels.as_ref());
            let within = retired.within.clone();
            rows.push(Row { within, ..row(labels, &retired.series, State::Terminated, power, on_page) });
        }
        rows.sort_by(|a, b| a.labels.cmp(&b.labels).then((a.state as u8).cmp(&(b.state as u8))));
        let KindTotals { rest, rest_power, ended, mut parked, .. } = *totals;
        parked.add(&totals.small);
        parked.add(&totals.held);
        KindView { kind, rows, rest, ended, parked, rest_power }
    }
}

fn on_page(first_labels: Option<&Labels>) -> OnPage {
    first_labels.map_or(OnPage::Current, |labels| OnPage::First(labels.clone()))
}

fn row(labels: &Labels, series: &Series, state: State, [power, idle_power]: Power, on_page: OnPage) -> Row {
    Row {
        labels: labels.clone(),
        state,
        energy: series.energy,
        power,
        idle_power,
        used: series.used,
        since: series.since,
        on_page,
        within: None,
        settled: true,
    }
}
