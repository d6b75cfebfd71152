//! Closes one window of one domain: splits its energy into idle and dynamic, charges both to accounts, and adds it to
//! the domain's totals. The caller determines the energy and the window.

use super::accounts::{Accounts, Charge};
use super::ledger::Ledger;
use super::lessons::{Counters, Observed};
use super::split::{self, Split};
use super::window::{DomainState, Payer, ShownPower};
use crate::model::billing::{IdlePolicy, SharedBy, Weights};
use crate::model::domain::NodeEnergy;
use crate::model::units::{Microjoules, Nanos};
use crate::model::usage::Used;

/// The ledger and accounts that energy is added to, and the settings for that.
pub(super) struct Books<'a> {
    pub ledger: &'a mut Ledger,
    pub accounts: &'a mut Accounts,
    /// The rule for idle energy.
    pub idle: IdlePolicy,
    /// What dynamic energy is shared by.
    pub weights: Weights,
    /// Number of CPUs of the machine.
    pub cpus: usize,
}

/// A window that closes.
pub(super) struct ClosedWindow<'a> {
    /// Energy drawn in it.
    pub energy: Microjoules,
    /// Its length.
    pub time: Nanos,
    /// Usage with its weight.
    pub charges: Vec<(&'a Charge, u64)>,
    /// Weight of usage that cannot be attributed.
    pub lost: u64,
    /// Mean load of the domain's scope, 0 to 1; `None`: unknown.
    pub load: Option<f64>,
    /// All use in the domain's scope, with what cannot be attributed.
    pub used: Used,
    /// What was counted of the use in the domain's scope.
    pub counters: Counters,
    /// What the weights are.
    pub by: SharedBy,
    /// Its energy may be of another moment than its load: it teaches no idle floor.
    pub doubtful: bool,
}

impl<'a> ClosedWindow<'a> {
    /// A window whose usage is unknown: its dynamic energy is unattributed.
    pub fn without_usage(energy: Microjoules, time: Nanos) -> Self {
        Self {
            energy,
            time,
            charges: Vec::new(),
            lost: 1,
            load: None,
            used: Used::default(),
            counters: Counters::default(),
            by: SharedBy::Time,
            doubtful: false,
        }
    }

    /// What it says of the domain's power; `None`: its load is not known.
    pub fn observed(&self) -> Option<Observed> {
        let Self { energy, time, counters, .. } = *self;
        Some(Observed { energy, time, load: self.load?, counters })
    }
}

impl DomainState {
    /// Splits the energy of a window into idle and dynamic, and charges both. Returns the shares, in the order of the
    /// charges.
    pub fn settle(&mut self, books: &mut Books<'_>, closed: &ClosedWindow<'_>) -> Split {
        let ClosedWindow { energy, time, ref charges, lost, by, doubtful, .. } = *closed;
        let zone = self.shared.zone;
        self.learn(closed.observed().filter(|_| !doubtful));
        let floor = match self.record.model.floor() {
            Some(floor) if !self.resumed => floor.power.for_time(time),
            _ => Microjoules::ZERO,
        };
        let weights: Vec<u64> = charges.iter().map(|(_, weight)| *weight).collect();
        let split = match self.costed(books.weights, closed) {
            Some(costed) => {
                self.shared_by = Some(SharedBy::Model);
                split::split(energy, floor, &costed.charges, costed.lost)
            }
            None => {
                self.shared_by = (!charges.is_empty()).then_some(by);
                split::split(energy, floor, &weights, lost)
            }
        };
        let idle_shares = match books.idle {
            IdlePolicy::ByUse if !charges.is_empty() => {
                split::split(split.idle, Microjoules::ZERO, &weights, lost).shares
            }
            _ => Vec::new(),
        };
        self.shown.clear();
        self.slow = self.slow.saturating_sub(1);
        let mut keep_power = |of: &dyn Fn() -> Payer, dynamic: Microjoules, idle: Microjoules| {
            if self.slow > 0 {
                self.shown.push(ShownPower { of: of(), dynamic: dynamic.over(time), idle: idle.over(time) });
            }
        };
        if books.idle == IdlePolicy::ByAllocation {
            let vms: Vec<_> = books.accounts.allocations().collect();
            let vcpus: Vec<u32> = vms.iter().map(|(_, _, vcpus)| *vcpus).collect();
            let parts = split::allot(split.idle, &vcpus, books.cpus);
            for ((account, place, _), part) in vms.into_iter().zip(parts).filter(|(_, part)| part.0 > 0) {
                books.accounts.allot(books.ledger, (account, place), zone, part, time);
                keep_power(&|| Payer::Account(account), Microjoules::ZERO, part);
            }
        }
        for (position, ((charge, _), dynamic)) in charges.iter().zip(&split.shares).enumerate() {
            let idle = idle_shares.get(position).copied().unwrap_or_default();
            books.accounts.add_energy(books.ledger, charge, zone, *dynamic, idle, time);
            keep_power(&|| Payer::Charge((*charge).clone()), *dynamic, idle);
        }
        books.accounts.close_window(books.ledger, zone, time, |account, [dynamic, idle]| {
            keep_power(&|| Payer::Account(account), dynamic, idle);
        });
        self.record.totals += NodeEnergy {
            total: energy,
            idle: split.idle,
            active: energy - split.idle,
            unattributed: split.unattributed,
        };
        (self.power, self.idle_power) = (Some(energy.over(time)), Some(split.idle.over(time)));
        split
    }

    /// Shows the power of the last window again, at a tick that closes no window.
    pub fn show_power(&self, books: &mut Books<'_>) {
        let zone = self.shared.zone;
        for ShownPower { of, dynamic, idle } in &self.shown {
            match of {
                Payer::Charge(charge) => books.accounts.show_power(books.ledger, charge, zone, *dynamic, *idle),
                Payer::Account(account) => drop(books.ledger.show_power(*account, zone, *dynamic, *idle)),
            }
        }
    }
}
