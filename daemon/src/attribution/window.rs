//! A domain between two readings: its totals, and the use that waits for the next one. Shares nothing out.

use super::DomainRecord;
use super::accounts::{Charge, ChargeKey};
use super::curve::Curve;
use super::ledger::AccountId;
use super::tick_use::TickUse;
use crate::model::domain::{Domain, Zone};
use crate::model::snapshot::{DomainView, Role};
use crate::model::units::{Microwatts, Nanos};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A domain that gave no reading for so long closes its window: who used that energy is no longer kept.
pub(super) const LONGEST_WINDOW: Nanos = Nanos(300 * Nanos::SECOND.0);
/// So many ticks in a row with a reading make a domain one that is read at every tick.
pub(super) const KEEP_DRAWN: u8 = 10;

/// One domain in the core: its totals, and the window that is open.
pub(super) struct DomainState {
    pub shared: Arc<Domain>,
    pub record: DomainRecord,
    pub carry: u64,
    pub window: Window,
    /// The last reading is an earlier run's: what was drawn since then was drawn while jouled was down, and is nobody's.
    pub resumed: bool,
    /// It gives nothing now, as something else does: its last reading was [`crate::model::domain::Reading::Standby`], or (of the remainder)
    /// there is no platform meter.
    pub standby: bool,
    pub power: Option<Microwatts>,
    pub idle_power: Option<Microwatts>,
    /// What it is used for.
    pub role: Role,
    /// Whether shares of its last window are by a rule, not by use that was seen.
    pub shares_estimated: bool,
    pub error: String,
    /// Energy by time, of domains that the remainder is computed from.
    pub curve: Curve,
    /// Who drew its power, while its next window is open: only of a domain that is not read at every tick.
    pub drawn: Vec<Drawn>,
    /// Ticks for which to go on keeping that.
    pub slow: u8,
}

/// Power of a window that closed at an earlier tick: whose it is until the next one closes.
#[derive(Clone)]
pub(super) struct Drawn {
    pub who: Drawer,
    pub dynamic: Microwatts,
    pub idle: Microwatts,
}

/// Who draws.
#[derive(Clone)]
pub(super) enum Drawer {
    Charge(Charge),
    Account(AccountId),
}

/// Use since a domain's last reading, where that was before the last tick. Empty otherwise: the tick's own use is the window's.
#[derive(Default)]
pub(super) struct Window {
    pub charges: Vec<(Charge, u64)>,
    positions: FxHashMap<ChargeKey, usize>,
    /// Weight of use that is nobody's.
    pub lost: u64,
    /// Time for which what it covers was in use.
    pub busy: Nanos,
    /// The tick that it began with, and its time.
    pub from: u64,
    pub since: Nanos,
    /// Who ran is not known for a part of it.
    pub incomplete: bool,
    /// There is energy in it that is not of those who ran: of a VM's own GPU.
    pub foreign: bool,
}

impl Window {
    /// An empty window.
    pub fn open(from: u64, since: Nanos, incomplete: bool) -> Self {
        Self { from, since, incomplete, ..Self::default() }
    }

    /// Adds the weight of a use.
    pub fn add(&mut self, charge: &Charge, weight: u64) {
        match self.positions.get(&charge.key()) {
            Some(position) => self.charges[*position].1 = self.charges[*position].1.saturating_add(weight),
            None => {
                self.positions.insert(charge.key(), self.charges.len());
                self.charges.push((charge.clone(), weight));
            }
        }
    }
}

impl DomainRecord {
    /// A domain of an earlier run that this run has not seen yet: its energy is part of the totals.
    pub(super) fn view_past(&self) -> DomainView {
        self.view(Arc::new(self.domain.clone()), "of an earlier run".to_owned())
    }

    /// What is kept of a domain: energy and gaps, without power. `error` says why it has none.
    fn view(&self, domain: Arc<Domain>, error: String) -> DomainView {
        DomainView {
            domain,
            role: Role::Past,
            shares_estimated: false,
            past: true,
            energy: self.totals,
            power: None,
            idle_power: None,
            floor: None,
            read_at: None,
            error,
            gaps: self.gaps,
            gap_time: self.gap_time,
        }
    }
}

impl DomainState {
    /// It gives nothing from here on. What is not measured between its last reading and its next one is no interval of it.
    pub fn stand_by(&mut self, at: Nanos, tick: u64) {
        self.restart_interval(at);
        self.standby = true;
        self.without_power();
        self.error.clear();
        self.window = Window::open(tick, at, false);
    }

    /// Its next reading continues none.
    pub fn restart_interval(&mut self, at: Nanos) {
        if let Some(last) = self.record.last.take() {
            self.record.gaps += 1;
            self.record.gap_time += at - last.at;
        }
        self.resumed = false;
    }

    /// No reading at this tick: its use waits for the next.
    pub fn keep_window(&mut self, used: &TickUse, tick: u64, now: Nanos) {
        self.outdate(tick, now);
        if self.undivided() {
            return;
        }
        self.slow = KEEP_DRAWN;
        let (scope, zone) = (self.shared.scope, self.shared.zone);
        let window = &mut self.window;
        window.incomplete |= !used.knows(scope);
        window.busy += used.busy(scope);
        window.lost = window.lost.saturating_add(used.lost(scope, zone));
        for (charge, weight) in used.of(scope, zone) {
            window.add(charge, weight);
        }
    }

    /// Gives up a window that is open for too long, and the power of the one before it.
    pub fn outdate(&mut self, tick: u64, now: Nanos) {
        if now - self.window.since > LONGEST_WINDOW {
            self.window = Window::open(tick, now, true);
            self.without_power();
        }
    }

    /// Whether its energy is not shared out: what a platform meter sees beyond the components is, as zone `other`.
    pub fn undivided(&self) -> bool {
        self.shared.zone == Zone::Platform
    }

    /// It gives no power now.
    pub fn without_power(&mut self) {
        (self.power, self.idle_power) = (None, None);
        self.drawn.clear();
    }

    pub fn view(&self) -> DomainView {
        let error = match (self.standby, self.shared.zone) {
            (true, Zone::Other) => "no platform meter measures now".to_owned(),
            (true, _) => "stands back for another meter".to_owned(),
            (false, _) => self.error.clone(),
        };
        DomainView {
            role: if self.standby { Role::Past } else { self.role },
            shares_estimated: self.shares_estimated,
            past: self.standby,
            power: self.power,
            idle_power: self.idle_power,
            floor: self.record.model.floor(),
            read_at: self.record.last.map(|last| last.at).or(self.curve.last_at()),
            ..self.record.view(self.shared.clone(), error)
        }
    }
}
