//! A domain between two readings: its totals, and the use that waits for the next one. Shares nothing out.

use super::{DomainRecord, weight};
use crate::meter::{Domain, Scope};
use crate::roster::{Charge, ChargeKey};
use crate::snapshot::DomainView;
use crate::source::PackageId;
use crate::units::{Microwatts, Nanos};
use crate::usage::{Counted, LostUse};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A domain that gave no reading for so long closes its window: who used that energy is no longer kept.
const LONGEST_WINDOW: Nanos = Nanos(300 * Nanos::SECOND.0);

/// One domain in the core: its totals, and the window that is open.
pub(super) struct DomainState {
    pub shared: Arc<Domain>,
    pub record: DomainRecord,
    pub carry: u64,
    pub window: Window,
    /// The last reading is an earlier run's: what was drawn since then was drawn while jouled was down, and is nobody's.
    pub resumed: bool,
    /// Its last reading was [`Reading::Standby`].
    pub standby: bool,
    pub power: Option<Microwatts>,
    pub idle_power: Option<Microwatts>,
    pub error: String,
}

/// Use since a domain's last reading, where that was before the last tick. Empty otherwise: the tick's own use is the window's.
#[derive(Default)]
pub(super) struct Window {
    pub charges: Vec<Charge>,
    pub positions: FxHashMap<ChargeKey, usize>,
    pub lost: u64,
    pub on_cpu: Nanos,
    /// The tick that it began with, and its time.
    pub from: u64,
    pub since: Nanos,
    /// Who ran is not known for a part of it.
    pub incomplete: bool,
}

/// A tick's use, resolved to accounts.
pub(super) struct TickUse {
    pub charges: Vec<Charge>,
    pub lost: Vec<LostUse>,
    pub counted: Counted,
    pub known: bool,
}

impl DomainRecord {
    pub(super) fn view_past(&self) -> DomainView {
        let [total, idle, active, unattributed] = self.totals;
        DomainView {
            domain: Arc::new(self.domain.clone()),
            past: true,
            total,
            idle,
            active,
            unattributed,
            power: None,
            idle_power: None,
            floor: None,
            read_at: None,
            error: "of an earlier run".to_owned(),
            gaps: self.gaps,
            gap_time: self.gap_time,
        }
    }
}

impl TickUse {
    pub fn on_cpu(&self, scope: Scope) -> Nanos {
        let charged = self.charges.iter().filter(|charge| in_scope(scope, charge.package)).map(|charge| charge.used.on_cpu);
        let lost = self.lost.iter().filter(|lost| in_scope(scope, lost.package)).map(|lost| lost.on_cpu);
        charged.chain(lost).sum()
    }
}

impl DomainState {
    /// It gives nothing from here on. What is not measured between its last reading and its next one is no interval of it.
    pub fn stand_by(&mut self, at: Nanos, tick: u64) {
        if let Some(last) = self.record.last.take() {
            self.record.gaps += 1;
            self.record.gap_time += at - last.at;
        }
        (self.standby, self.resumed) = (true, false);
        (self.power, self.idle_power) = (None, None);
        self.error.clear();
        self.window = Window { from: tick, since: at, ..Window::default() };
    }

    /// No reading at this tick: its use waits for the next.
    pub fn keep_window(&mut self, used: &TickUse, tick: u64, now: Nanos) {
        let scope = self.shared.scope;
        let weigh = |on_cpu, cycles, misses| weight(self.shared.zone, used.counted, on_cpu, cycles, misses);
        let window = &mut self.window;
        if now - window.since > LONGEST_WINDOW {
            *window = Window { from: tick, since: now, incomplete: true, ..Window::default() };
        }
        window.incomplete |= !used.known;
        window.on_cpu += used.on_cpu(scope);
        let lost = used.lost.iter().filter(|lost| in_scope(scope, lost.package));
        window.lost += lost.map(|lost| weigh(lost.on_cpu, lost.cycles, lost.cache_misses)).sum::<u64>();
        for charge in used.charges.iter().filter(|charge| in_scope(scope, charge.package)) {
            match window.positions.get(&charge.key()) {
                Some(position) => window.charges[*position].used.add(&charge.used),
                None => {
                    window.positions.insert(charge.key(), window.charges.len());
                    window.charges.push(charge.clone());
                }
            }
        }
    }

    pub fn view(&self) -> DomainView {
        let [total, idle, active, unattributed] = self.record.totals;
        DomainView {
            domain: self.shared.clone(),
            past: self.standby,
            total,
            idle,
            active,
            unattributed,
            power: self.power,
            idle_power: self.idle_power,
            floor: self.record.model.floor(),
            read_at: self.record.last.map(|last| last.at),
            error: if self.standby { "stands back for another meter".to_owned() } else { self.error.clone() },
            gaps: self.record.gaps,
            gap_time: self.record.gap_time,
        }
    }
}

/// Whether what ran on a package is a domain's.
pub(super) fn in_scope(scope: Scope, package: PackageId) -> bool {
    match scope {
        Scope::Package(own) => own == package,
        Scope::Machine => true,
        Scope::Gpu(_) => false,
    }
}
