//! What the platform meter sees beyond the components, as a domain like any other.

use super::Core;
use super::platform;
use super::settle::{Books, Due};
use super::split;
use super::tick_use::TickUse;
use super::window::{self, Window};
use crate::model::domain::{Quality, Scope, Zone};
use crate::model::source::PciAddress;
use crate::model::units::{Microjoules, Nanos};
use platform::Remainder;
use std::sync::Arc;

impl Core {
    /// Attributes what the platform meter saw beyond the components, where a window of that closes. It is shared by what entities drew of
    /// the components; where there are none, by use.
    pub(super) fn take_remainder(&mut self, used: &TickUse, passed_through: &[PciAddress], now: Nanos) {
        self.platform.choose(&mut self.domains, &self.sources, now);
        self.platform.find_unmetered(&self.domains, passed_through, now);
        self.platform.compare(&self.domains, now);
        if self.platform.authority.is_none() {
            if let Some(other) = &mut self.other {
                // At every tick: a window that stays open keeps everybody's account.
                other.stand_by(now, self.ticks);
            }
        } else {
            let worst = self.platform.components(&self.domains, now).map(|state| state.shared.quality).max();
            let quality = worst.unwrap_or(Quality::Derived).max(Quality::Derived);
            self.follow_remainder(worst.is_some(), quality, used, now);
        }
        let needed = self.platform.needs_from(now);
        self.domains.iter_mut().for_each(|state| state.curve.forget(needed));
    }

    fn follow_remainder(&mut self, components: bool, quality: Quality, used: &TickUse, now: Nanos) {
        if self.other.is_none() {
            let domain = self.platform.domain(quality);
            self.other = Some(self.open_domain(domain, now));
        }
        let cpus = self.cpus.values().sum();
        let Self { domains, platform, other: Some(other), ledger, accounts, config, ticks, .. } = self else { return };
        if other.shared.quality != quality {
            other.shared = Arc::new(platform.domain(quality));
        }
        other.standby = false;
        other.outdate(*ticks, now);
        other.window.incomplete |= !used.known;
        other.window.busy += used.busy(Scope::Machine);
        other.window.foreign |= !platform.unmetered.is_empty();
        if !components {
            other.window.lost = other.window.lost.saturating_add(used.lost(Scope::Machine, Zone::Other));
            used.of(Scope::Machine, Zone::Other).for_each(|(charge, weight)| other.window.add(charge, weight));
        }
        let mut books = Books { ledger, accounts, idle: config.idle, cpus };
        match platform.remainder(domains, now) {
            None => return other.show_drawn(&mut books),
            Some(Remainder::Gap(time)) => {
                other.record.gaps += 1;
                other.record.gap_time += time;
                other.without_power();
            }
            Some(Remainder::Energy(energy, time)) => {
                let window = std::mem::take(&mut other.window);
                let mut due = Due { energy, time, charges: Vec::new(), lost: 1, load: None };
                if !window.incomplete {
                    due.load = Some(split::utilisation(window.busy, cpus, now - window.since));
                }
                // What a VM's own GPU draws is in it, and is not everybody's.
                if !window.incomplete && !window.foreign {
                    due.charges.extend(window.charges.iter().map(|(charge, weight)| (charge, *weight)));
                    due.lost = window.lost;
                }
                if energy > Microjoules::ZERO {
                    platform.absorb(domains);
                }
                // Its windows are long: whose power it is, is shown until the next one closes.
                other.slow = window::KEEP_DRAWN;
                other.settle(&mut books, &due);
                other.curve.push(platform.computed_to(), other.record.totals.total, false, true);
                other.curve.forget(now);
            }
        }
        other.window = Window::open(*ticks, now, false);
    }
}
