//! Tenants: whose energy it is, by the rules of `[[tenant]]`. Every charge goes to exactly one tenant, so the energy of
//! all tenants is that of all processes, to the microjoule.
//!
//! A tenant is decided for a *place*: a cgroup, or a process that is a VM's outside of the VM's cgroup. It is decided
//! when the place is listed and when a label of its entities changes, never at a tick. Energy goes to the tenant that
//! the place has when its window closes; what was charged before stays where it was. While a name is awaited that could
//! decide otherwise, the energy of the place is held for at most as long as counters wait for names; it is shown as
//! parked, and then charged to the tenant.

mod rules;

use super::ledger::{AccountId, Ledger};
use crate::model::domain::Zone;
use crate::model::entity::{Kind, Labels, TenantLabels};
use crate::model::snapshot::Energy;
use crate::model::tenant::{TenantRule, UNASSIGNED};
use crate::model::units::{Microjoules, Nanos};
use crate::model::usage::Used;
use rules::Rules;
use rustc_hash::FxHashMap;

/// A place by its number. Numbers are used again, with another serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlaceId {
    index: u32,
    serial: u32,
}

impl PlaceId {
    /// No place: what runs there is of no tenant.
    pub const NONE: Self = Self { index: u32::MAX, serial: 0 };
}

/// What is charged to one tenant.
#[derive(Debug, Default)]
struct Place {
    serial: u32,
    /// Number of its tenant, as far as the labels say that are known.
    tenant: usize,
    /// Until when a name is awaited, CLOCK_MONOTONIC; `None`: the tenant is decided.
    awaits: Option<Nanos>,
    /// When it was first listed, CLOCK_MONOTONIC.
    since: Nanos,
    held: Option<Box<Held>>,
}

/// What was used and drawn while the tenant was not decided.
#[derive(Debug, Default)]
struct Held {
    energy: Energy,
    used: Used,
}

/// The tenants, and the places that are charged to them. Without rules there are neither.
#[derive(Debug, Default)]
pub struct Tenants {
    rules: Rules,
    names: Vec<String>,
    /// Account of each tenant, in the order of the rules; the last one is that of what no rule matches. Empty without
    /// rules.
    accounts: Vec<AccountId>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Places that await a name.
    waiting: Vec<PlaceId>,
    /// Energy of the window that closes, by tenant: dynamic and idle.
    window: Vec<[Microjoules; 2]>,
    /// Use of this tick, by tenant.
    used: Vec<Used>,
    /// What was held and is to be charged at this tick, by tenant.
    due: Vec<Held>,
    /// What processes were charged while there were no rules, or a restart came before a tenant was decided.
    missed: Energy,
    /// Time of the tick, CLOCK_MONOTONIC.
    now: Nanos,
}

impl Tenants {
    /// Whether there are rules.
    pub fn is_active(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// Sets other rules. Tenants that are in both go on; the series of one that is not any more ends as it is. The
    /// caller decides all places again. What processes were charged and no tenant is, as before there were rules, goes
    /// to the tenant of what no rule matches.
    pub fn set_rules(&mut self, ledger: &mut Ledger, rules: &[TenantRule]) {
        let names: Vec<String> = match rules {
            [] => Vec::new(),
            _ => rules.iter().map(|rule| rule.name.clone()).chain([UNASSIGNED.to_owned()]).collect(),
        };
        let due = std::mem::take(&mut self.due);
        let accounts = std::mem::take(&mut self.accounts);
        let mut earlier: FxHashMap<String, (AccountId, Held)> =
            std::mem::take(&mut self.names).into_iter().zip(accounts.into_iter().zip(due)).collect();
        for name in &names {
            let kept = earlier.remove(name);
            let (account, due) =
                kept.unwrap_or_else(|| (ledger.open(TenantLabels { tenant: name }.into()), Held::default()));
            self.accounts.push(account);
            self.due.push(due);
        }
        for (account, _) in earlier.into_values() {
            ledger.close(account);
        }
        self.rules = Rules::new(rules);
        self.window = vec![Default::default(); names.len()];
        self.used = vec![Used::default(); names.len()];
        self.names = names;
        if !self.is_active() {
            (self.places, self.free, self.waiting) = Default::default();
        }
        let mut held = Energy::default();
        self.places
            .iter()
            .filter_map(|place| place.held.as_deref())
            .chain(&self.due)
            .for_each(|one| held.add(&one.energy));
        ledger.set_held(Kind::Tenant, held);
        self.missed = Energy::default();
        if self.is_active() {
            self.missed = ledger.charged_to(Kind::Process);
            self.missed.subtract(&ledger.charged_to(Kind::Tenant));
        }
    }

    /// Begins a tick at `now`, CLOCK_MONOTONIC. Decides what has waited for long enough.
    pub fn begin_tick(&mut self, now: Nanos) {
        self.now = now;
        for id in std::mem::take(&mut self.waiting) {
            match self.place(id).map(|place| place.awaits) {
                Some(Some(until)) if until > now => self.waiting.push(id),
                Some(Some(_)) => self.settle(id),
                _ => {}
            }
        }
    }

    /// A new place, which is of no tenant until [`Tenants::decide`].
    pub fn open(&mut self) -> PlaceId {
        if !self.is_active() {
            return PlaceId::NONE;
        }
        let fresh = Place { tenant: self.rules.len(), since: self.now, ..Place::default() };
        let index = match self.free.pop() {
            Some(index) => {
                let place = &mut self.places[index as usize];
                *place = Place { serial: place.serial.wrapping_add(1), ..fresh };
                index
            }
            None => {
                self.places.push(fresh);
                (self.places.len() - 1) as u32
            }
        };
        PlaceId { index, serial: self.places[index as usize].serial }
    }

    /// Closes a place that no window can charge any more.
    pub fn close(&mut self, id: PlaceId) {
        if self.place(id).is_some() {
            self.settle(id);
            // The serial number of a free place is no one's.
            let place = &mut self.places[id.index as usize];
            place.serial = place.serial.wrapping_add(1);
            self.free.push(id.index);
        }
    }

    /// Decides the tenant of a place in which `entities` are charged.
    pub fn decide(&mut self, ledger: &Ledger, id: PlaceId, entities: &[&Labels]) {
        if self.place(id).is_none() {
            return;
        }
        let tenant = self.rules.decide(entities);
        let wait = entities.iter().filter_map(|labels| ledger.awaits_labels(labels)).max();
        let (may_change, now) = (self.rules.may_change(tenant), self.now);
        let Some(place) = self.place_mut(id) else { return };
        let is_new = place.since == now && place.held.is_none();
        place.tenant = tenant;
        let until = wait.map(|wait| place.since + wait).filter(|until| may_change && *until > now);
        match (place.awaits, until) {
            (None, Some(_)) if is_new => {
                place.awaits = until;
                self.waiting.push(id);
            }
            (Some(_), Some(_)) => place.awaits = until,
            // A tenant that was decided counts until another one is.
            (None, _) => {}
            (Some(_), None) => self.settle(id),
        }
    }

    /// The tenant of a place, as far as the labels say that are known; `None` without rules.
    pub fn tenant(&self, ledger: &Ledger, id: PlaceId) -> Option<Labels> {
        ledger.labels(*self.accounts.get(self.place(id)?.tenant)?).cloned()
    }

    /// Ends the wait of a place: what was held goes to its tenant at the end of the tick.
    fn settle(&mut self, id: PlaceId) {
        let Some(place) = self.place_mut(id) else { return };
        place.awaits = None;
        let tenant = place.tenant;
        if let Some(held) = place.held.take()
            && let Some(due) = self.due.get_mut(tenant)
        {
            due.energy.add(&held.energy);
            due.used.add(&held.used);
        }
    }

    fn place(&self, id: PlaceId) -> Option<&Place> {
        self.places.get(id.index as usize).filter(|place| place.serial == id.serial)
    }

    fn place_mut(&mut self, id: PlaceId) -> Option<&mut Place> {
        self.places.get_mut(id.index as usize).filter(|place| place.serial == id.serial)
    }

    /// Adds use of this tick.
    pub fn add_use(&mut self, id: PlaceId, used: &Used) {
        if !self.is_active() {
            return;
        }
        let unassigned = self.rules.len();
        let tenant = match self.place_mut(id) {
            Some(place) if place.awaits.is_some() => {
                place.held.get_or_insert_default().used.add(used);
                return;
            }
            Some(place) => place.tenant,
            None => unassigned,
        };
        if let Some(sum) = self.used.get_mut(tenant) {
            sum.add(used);
        }
    }

    /// Adds energy of the window that closes, whose length is `time`.
    pub fn add_energy(
        &mut self,
        ledger: &mut Ledger,
        id: PlaceId,
        zone: Zone,
        [dynamic, idle]: [Microjoules; 2],
        time: Nanos,
    ) {
        if !self.is_active() {
            return;
        }
        let unassigned = self.rules.len();
        let tenant = match self.place_mut(id) {
            Some(place) if place.awaits.is_some() => {
                let held = place.held.get_or_insert_default();
                held.energy.dynamic[zone.index()] += dynamic;
                held.energy.idle[zone.index()] += idle;
                ledger.hold(Kind::Tenant, zone, [dynamic, idle], time);
                return;
            }
            Some(place) => place.tenant,
            None => unassigned,
        };
        if let Some(sum) = self.window.get_mut(tenant) {
            sum[0] += dynamic;
            sum[1] += idle;
        }
    }

    /// Charges the tenants for the window that closes. `charged` gets what each was charged.
    pub fn close_window(
        &mut self,
        ledger: &mut Ledger,
        zone: Zone,
        time: Nanos,
        mut charged: impl FnMut(AccountId, [Microjoules; 2]),
    ) {
        for (account, sum) in self.accounts.iter().zip(&mut self.window) {
            let [dynamic, idle] = std::mem::take(sum);
            if dynamic.0 > 0 || idle.0 > 0 {
                ledger.add_energy(*account, zone, dynamic, idle, time);
                charged(*account, [dynamic, idle]);
            }
        }
    }

    /// Charges the use of this tick, and what was held, before the ledger commits.
    pub fn end_tick(&mut self, ledger: &mut Ledger) {
        for (account, (used, due)) in self.accounts.iter().zip(self.used.iter_mut().zip(&mut self.due)) {
            let (mut used, due) = (std::mem::take(used), std::mem::take(due));
            used.add(&due.used);
            if due.energy != Energy::default() {
                ledger.release(*account, &due.energy);
            }
            if used != Used::default() {
                ledger.add_use(*account, &used);
            }
        }
        let missed = std::mem::take(&mut self.missed);
        if missed != Energy::default()
            && let Some(account) = self.accounts.last()
        {
            ledger.add_without_power(*account, &missed);
        }
    }
}
