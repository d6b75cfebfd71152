//! The remainder, zone `other`: the energy of the authority (the platform meter in use) beyond that of the components.
//! It is a domain like any other, with an idle floor, shares and totals. Its energy is computed in `platform`.

use super::Core;
use super::platform;
use super::settle::{Books, ClosedWindow};
use super::split;
use super::tick_use::TickUse;
use super::window::{self, Window};
use crate::model::domain::{Quality, Scope, Zone};
use crate::model::source::PciAddress;
use crate::model::units::{Microjoules, Nanos};
use platform::Remainder;
use std::sync::Arc;

impl Core {
    /// Chooses the authority, compares the other platform meters with it, and attributes the remainder where a window
    /// of it closes.
    pub(super) fn update_platform(&mut self, used: &TickUse, passed_through: &[PciAddress], now: Nanos) {
        self.platform.choose(&mut self.domains, &self.sources, now);
        self.platform.note_absence(&self.domains, self.first.unwrap_or(now), now);
        self.platform.find_unmetered(&self.domains, passed_through, now);
        self.platform.search_lag(&self.domains, now);
        self.platform.compare(&self.domains, now);
        if self.platform.authority.is_none() {
            if let Some(other) = &mut self.other {
                // At every tick: an older window would keep the accounts of all ended entities open.
                other.stand_by(now, self.ticks);
                self.platform.slices.clear();
            }
        } else {
            let worst = self.platform.components(&self.domains, now).map(|state| state.shared.quality).max();
            let quality = worst.unwrap_or(Quality::Derived).max(Quality::Derived);
            self.update_remainder(worst.is_some(), quality, used, now);
        }
        let needed = self.platform.needs_from(now);
        self.domains.iter_mut().for_each(|state| state.curve.forget(needed));
    }

    /// Shares out the remainder in proportion to the dynamic energy that entities drew from the components
    /// (`Core::attribute` adds these weights to the window). Without components, in proportion to use.
    fn update_remainder(&mut self, has_components: bool, quality: Quality, used: &TickUse, now: Nanos) {
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
        if platform.slices.limit(now) {
            if !platform.is_slow() {
                other.clear_power();
            }
            other.window.incomplete |= platform.slices.is_empty();
        }
        other.window.incomplete |= !used.known;
        other.window.count(used, Scope::Machine);
        other.window.has_unmetered_gpus |= !platform.unmetered.is_empty();
        if !has_components {
            other.window.lost = other.window.lost.saturating_add(used.lost(Scope::Machine, Zone::Other));
            used.of(Scope::Machine, Zone::Other).for_each(|(charge, weight)| other.window.add(charge, weight));
        }
        if now - other.window.since >= platform.refresh(domains) {
            platform.slices.push(std::mem::replace(&mut other.window, Window::open(*ticks, now, false)), now);
        }
        let mut books = Books { ledger, accounts, idle: config.idle, weights: config.weights, cpus };
        match platform.remainder(domains, now) {
            None => other.show_power(&mut books),
            Some(Remainder::Gap { time }) => other.add_gap(time),
            Some(Remainder::Energy { energy, time, to, doubtful }) => {
                let usage = platform.slices.take(to).filter(|(window, _)| !window.incomplete);
                let mut closed = ClosedWindow { doubtful, ..ClosedWindow::without_usage(energy, time) };
                if let Some((window, length)) = &usage {
                    closed.load = Some(split::utilisation(window.used.on_cpu, cpus, *length));
                    // The energy of a VM's own GPU is part of it, and is not for all to share.
                    if !window.has_unmetered_gpus {
                        closed.charges.extend(window.charges.iter().map(|(charge, weight)| (charge, *weight)));
                        closed.lost = window.lost;
                    }
                }
                if energy > Microjoules::ZERO {
                    platform.absorb(domains);
                }
                // Windows of the remainder are never one tick long.
                other.slow = window::SLOW_WINDOWS;
                other.settle(&mut books, &closed);
                other.curve.push(to, other.record.totals.total, false, true);
                other.curve.forget(now);
            }
        }
    }
}
