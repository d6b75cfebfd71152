//! Shares the energy of one window of one domain out and books it. Decides no energy and no window.

use super::accounts::{Accounts, Charge};
use super::ledger::Ledger;
use super::split::{self, Split};
use super::window::{DomainState, Drawer, Drawn};
use crate::model::billing::IdlePolicy;
use crate::model::domain::NodeEnergy;
use crate::model::units::{Microjoules, Nanos};

/// Where it is booked.
pub(super) struct Books<'a> {
    pub ledger: &'a mut Ledger,
    pub accounts: &'a Accounts,
    pub idle: IdlePolicy,
    /// CPUs of the machine.
    pub cpus: usize,
}

/// A window that closes.
pub(super) struct Due<'a> {
    pub energy: Microjoules,
    pub time: Nanos,
    /// Who used it, and by what weight.
    pub charges: Vec<(&'a Charge, u64)>,
    /// Weight of use that is nobody's.
    pub lost: u64,
    /// Share of what it covers that was in use, where that is known.
    pub load: Option<f64>,
}

impl DomainState {
    /// Splits the energy of a window into idle and dynamic, and charges it.
    pub fn settle(&mut self, books: &mut Books<'_>, due: &Due<'_>) -> Split {
        let Due { energy, time, ref charges, lost, load } = *due;
        let zone = self.shared.zone;
        if let Some(load) = load {
            self.record.model.observe(load, energy.over(time));
        }
        let floor = match self.record.model.floor() {
            Some(floor) if !self.resumed => floor.power.for_time(time),
            _ => Microjoules::ZERO,
        };
        let weights: Vec<u64> = charges.iter().map(|(_, weight)| *weight).collect();
        let split = split::split(energy, floor, &weights, lost);
        let idle_shares = match books.idle {
            IdlePolicy::ByUse if !charges.is_empty() => {
                split::split(split.idle, Microjoules::ZERO, &weights, lost).shares
            }
            _ => Vec::new(),
        };
        self.drawn.clear();
        self.slow = self.slow.saturating_sub(1);
        let mut drawn = |who: &dyn Fn() -> Drawer, dynamic: Microjoules, idle: Microjoules| {
            if self.slow > 0 {
                self.drawn.push(Drawn { who: who(), dynamic: dynamic.over(time), idle: idle.over(time) });
            }
        };
        if books.idle == IdlePolicy::ByAllocation {
            let (accounts, vcpus): (Vec<_>, Vec<_>) = books.accounts.allocations().unzip();
            let parts = split::allot(split.idle, &vcpus, books.cpus);
            for (account, part) in accounts.into_iter().zip(parts).filter(|(_, part)| part.0 > 0) {
                books.ledger.add_energy(account, zone, Microjoules::ZERO, part, time);
                drawn(&|| Drawer::Account(account), Microjoules::ZERO, part);
            }
        }
        for (position, ((charge, _), dynamic)) in charges.iter().zip(&split.shares).enumerate() {
            let idle = idle_shares.get(position).copied().unwrap_or_default();
            books.accounts.add_energy(books.ledger, charge, zone, *dynamic, idle, time);
            drawn(&|| Drawer::Charge((*charge).clone()), *dynamic, idle);
        }
        self.record.totals += NodeEnergy {
            total: energy,
            idle: split.idle,
            active: energy - split.idle,
            unattributed: split.unattributed,
        };
        (self.power, self.idle_power) = (Some(energy.over(time)), Some(split.idle.over(time)));
        split
    }

    /// Shows the power of the last window on, at a tick that closes none.
    pub fn show_drawn(&self, books: &mut Books<'_>) {
        let zone = self.shared.zone;
        for Drawn { who, dynamic, idle } in &self.drawn {
            match who {
                Drawer::Charge(charge) => books.accounts.show_power(books.ledger, charge, zone, *dynamic, *idle),
                Drawer::Account(account) => drop(books.ledger.show_power(*account, zone, *dynamic, *idle)),
            }
        }
    }
}
