//! Chooses the accounts whose series are shown: the busiest of each kind. Parks, retires and resumes series. Adds no
//! energy.

use super::{Ledger, Power, Retired, SCORE_HALF_LIFE, Series};
use crate::model::entity::Kind;
use crate::model::snapshot::Energy;
use crate::model::units::Nanos;

impl Ledger {
    /// Parks the least busy series if more are shown than the limit allows. That happens because resumed series are
    /// shown without a check of the limit.
    pub(super) fn trim(&mut self, kind: Kind) {
        let excess = self.kinds[kind.index()].shown.len().saturating_sub(self.limit(kind));
        if excess > 0 {
            for place in self.weakest(kind).into_iter().take(excess) {
                self.park(place);
            }
        }
    }

    /// Places of the accounts whose series are shown, the least busy first.
    fn weakest(&self, kind: Kind) -> Vec<u32> {
        let mut shown = self.kinds[kind.index()].shown.clone();
        // While all scores are 0, as after a restart, the energy of the series decides.
        let energy =
            |place: u32| self.accounts[place as usize].as_ref()?.series.as_ref().map(|series| series.energy.sum());
        shown.sort_by(|a, b| {
            self.score(*a).total_cmp(&self.score(*b)).then_with(|| energy(*a).cmp(&energy(*b))).then_with(|| a.cmp(b))
        });
        shown
    }

    /// Shows the busiest of the accounts at `candidates`: while there is room all of them, then each one that is more
    /// than twice as busy as the least busy shown account.
    pub(super) fn choose(&mut self, kind: Kind, mut candidates: Vec<u32>) {
        if candidates.is_empty() {
            return;
        }
        candidates.sort_by(|a, b| self.score(*b).total_cmp(&self.score(*a)).then(a.cmp(b)));
        let limit = self.limit(kind);
        let mut candidates = candidates.into_iter();
        while self.kinds[kind.index()].shown.len() < limit {
            let Some(place) = candidates.next() else { return };
            self.show(place);
        }
        for (candidate, weak) in candidates.zip(self.weakest(kind)) {
            if self.score(candidate) <= 2.0 * self.score(weak) {
                break;
            }
            self.park(weak);
            self.show(candidate);
        }
    }

    /// The account's score as of this tick.
    fn score(&self, place: u32) -> f64 {
        self.accounts[place as usize]
            .as_ref()
            .map_or(0.0, |account| account.score * 0.5f64.powf((self.tick - account.tick) as f64 / SCORE_HALF_LIFE))
    }

    /// Parks the series of an account: it is kept and not shown.
    fn park(&mut self, place: u32) {
        if let Some(account) = self.accounts[place as usize].as_mut() {
            let totals = &mut self.kinds[account.labels.kind().index()];
            account.shown = false;
            totals.shown.retain(|shown| *shown != place);
            totals.parked.add(&account.series.as_ref().map_or_else(Energy::default, |series| series.energy));
        }
    }

    /// Shows the series of an account: its parked one, or a new one.
    fn show(&mut self, place: u32) {
        let since = self.realtime;
        if let Some(account) = self.accounts[place as usize].as_mut() {
            let totals = &mut self.kinds[account.labels.kind().index()];
            let small = std::mem::take(&mut account.small);
            (account.shown, account.grown) = (true, true);
            match &account.series {
                Some(series) if small => totals.small.subtract(&series.energy),
                Some(series) => totals.parked.subtract(&series.energy),
                None => account.series = Some(Box::new(Series { since, ..Series::default() })),
            }
            totals.shown.push(place);
        }
    }

    /// Continues the retired series that has the account's labels, if there is one.
    pub(super) fn resume(&mut self, place: u32) {
        let Some(account) = self.accounts[place as usize].as_mut() else { return };
        let totals = &mut self.kinds[account.labels.kind().index()];
        if let Some((labels, retired)) = totals.retired.remove_entry(&account.labels) {
            let first = retired.first_labels.unwrap_or_else(|| labels.clone());
            account.labels = account.labels.clone().or_names_of(&labels);
            if !retired.restored {
                account.settled = true;
                account.first_labels = (first.values() != account.labels.values()).then_some(first);
            }
            account.series = Some(Box::new(retired.series));
            account.shown = true;
            totals.shown.push(place);
        }
    }

    /// Retires the series of an account: it is shown as terminated for a while, then counted in the kind's `ended`.
    pub(super) fn retire(&mut self, place: u32) {
        let Some(account) = self.accounts[place as usize].as_mut() else { return };
        let until = if account.labels.returns() { Nanos(u64::MAX) } else { self.now + self.limits.retention };
        let Some(series) = account.series.take() else { return };
        let kind = account.labels.kind().index();
        let totals = &mut self.kinds[kind];
        account.grown = false;
        if std::mem::take(&mut account.small) {
            totals.small.subtract(&series.energy);
            totals.ended.add(&series.energy);
            self.dirty[kind] = true;
            return;
        }
        if account.shown {
            totals.shown.retain(|shown| *shown != place);
        } else {
            totals.parked.subtract(&series.energy);
        }
        account.shown = false;
        let power = match self.charged.get(account.charged as usize) {
            Some(charge) if account.tick == self.tick => charge.power,
            _ => Power::default(),
        };
        let (first_labels, within) = (account.first_labels.take(), account.within.clone());
        let (series, power_tick) = (*series, account.tick);
        let retired = Retired { series, power, power_tick, until, restored: false, first_labels, within };
        let twin = totals.retired.remove(&account.labels);
        totals.retired.insert(account.labels.clone(), retired);
        if let Some(twin) = twin {
            // No two open accounts have the same labels, so the entity of the replaced series ended earlier and was not
            // resumed: its energy counts as ended.
            totals.ended.add(&twin.series.energy);
            self.dirty[kind] = true;
        }
    }
}
