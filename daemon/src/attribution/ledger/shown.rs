//! Who is shown: the busiest of a kind, those that make room for them, those that ended. Books nothing.

use super::{Ledger, Power, Retired, SCORE_HALF_LIFE, Series};
use crate::model::entity::Kind;
use crate::model::snapshot::Energy;
use crate::model::units::Nanos;

impl Ledger {
    /// Those that came back were shown at once: the least busy make room for them.
    pub(super) fn trim(&mut self, kind: Kind) {
        let excess = self.kinds[kind.index()].shown.len().saturating_sub(self.limits.shown[kind.index()] as usize);
        if excess > 0 {
            for index in self.weakest(kind).into_iter().take(excess) {
                self.park(index);
            }
        }
    }

    /// Those that are shown, the least busy first.
    fn weakest(&self, kind: Kind) -> Vec<u32> {
        let mut shown = self.kinds[kind.index()].shown.clone();
        // Before anything was shared out, as after a restart, who has least in its series.
        let energy =
            |index: u32| self.accounts[index as usize].as_ref()?.series.as_ref().map(|series| series.energy.sum());
        shown.sort_by(|a, b| {
            self.score(*a).total_cmp(&self.score(*b)).then_with(|| energy(*a).cmp(&energy(*b))).then_with(|| a.cmp(b))
        });
        shown
    }

    /// Shows the busiest: while there is room, everybody; then whoever is at least twice as busy as the least busy one shown.
    pub(super) fn choose(&mut self, kind: Kind, mut candidates: Vec<u32>) {
        if candidates.is_empty() {
            return;
        }
        candidates.sort_by(|a, b| self.score(*b).total_cmp(&self.score(*a)).then(a.cmp(b)));
        let limit = self.limits.shown[kind.index()] as usize;
        let mut candidates = candidates.into_iter();
        while self.kinds[kind.index()].shown.len() < limit {
            let Some(index) = candidates.next() else { return };
            self.show(index);
        }
        for (candidate, weak) in candidates.zip(self.weakest(kind)) {
            if self.score(candidate) <= 2.0 * self.score(weak) {
                break;
            }
            self.park(weak);
            self.show(candidate);
        }
    }

    fn score(&self, index: u32) -> f64 {
        self.accounts[index as usize]
            .as_ref()
            .map_or(0.0, |account| account.score * 0.5f64.powf((self.tick - account.tick) as f64 / SCORE_HALF_LIFE))
    }

    fn park(&mut self, index: u32) {
        if let Some(account) = self.accounts[index as usize].as_mut() {
            let totals = &mut self.kinds[account.kind.index()];
            account.shown = false;
            totals.shown.retain(|shown| *shown != index);
            totals.parked.add(&account.series.as_ref().map_or_else(Energy::default, |series| series.energy));
        }
    }

    fn show(&mut self, index: u32) {
        let since = self.realtime;
        if let Some(account) = self.accounts[index as usize].as_mut() {
            let totals = &mut self.kinds[account.kind.index()];
            account.shown = true;
            match &account.series {
                Some(series) => totals.parked.subtract(&series.energy),
                None => account.series = Some(Box::new(Series { since, ..Series::default() })),
            }
            totals.shown.push(index);
        }
    }

    /// Goes on with the series of an earlier entity with the same labels, if there is one.
    pub(super) fn resume(&mut self, index: u32) {
        let Some(account) = self.accounts[index as usize].as_mut() else { return };
        if let Some(retired) = self.kinds[account.kind.index()].retired.remove(&account.labels) {
            account.series = Some(Box::new(retired.series));
            account.shown = true;
            self.kinds[account.kind.index()].shown.push(index);
        }
    }

    /// The series of an account is over: shown for a while, then counted in `ended`.
    pub(super) fn retire(&mut self, index: u32) {
        let Some(account) = self.accounts[index as usize].as_mut() else { return };
        let until =
            if account.kind.returns(&account.labels) { Nanos(u64::MAX) } else { self.now + self.limits.retention };
        let Some(series) = account.series.take() else { return };
        let totals = &mut self.kinds[account.kind.index()];
        if account.shown {
            totals.shown.retain(|shown| *shown != index);
        } else {
            totals.parked.subtract(&series.energy);
        }
        account.shown = false;
        let power = match self.charged.get(account.charged as usize) {
            Some(charged) if account.tick == self.tick => charged.power,
            _ => Power::default(),
        };
        let retired = Retired { series: *series, power, power_tick: account.tick, until };
        if let Some(twin) = totals.retired.insert(account.labels.clone(), retired) {
            // Labels of two entities at a time are excluded, so a twin ended earlier and was not resumed: count it as ended.
            totals.ended.add(&twin.series.energy);
            self.dirty[account.kind.index()] = true;
        }
    }
}
