//! Carbon and cost: what each tick's energy of tenants and of the node comes to by the factors of that tick. The parts
//! are added up to the node's, and only rise. Energy of which an account learns late waits as a debt, so that no part
//! ever falls.

use crate::model::billing::Base;
use crate::model::domain::{NodeEnergy, Zone};
use crate::model::entity::Kind;
use crate::model::footprint::{Amount, AmountTotals, Amounts, Factor, Footprint, Part};
use crate::model::snapshot::{Energy, KindView, Snapshot};
use crate::model::units::Microjoules;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A tenant's energy up to which it is counted.
#[derive(Debug)]
struct Known {
    name: Arc<str>,
    base: Energy,
    /// Number of the tick in which it had a row.
    seen: u64,
}

/// The amounts, and the energy up to which they are counted.
#[derive(Debug, Default)]
pub struct FootprintAccounts {
    totals: AmountTotals,
    node: [NodeEnergy; Zone::COUNT],
    charged: Energy,
    tenants: FxHashMap<Arc<str>, Known>,
    /// What tenants were charged of idle energy and work before the node had it, in µJ: negative.
    idle_owed: i64,
    outside_owed: i64,
    ticks: u64,
    /// What the last tick changed, by position in the totals' amounts.
    changed: BTreeMap<usize, BTreeSet<Part>>,
}

impl FootprintAccounts {
    /// Goes on from what was kept, with the totals that `first`, a snapshot before the first tick, has.
    pub fn new(totals: AmountTotals, first: &Snapshot) -> Self {
        let tenants = first.kind(Kind::Tenant);
        let known = |row: &crate::model::snapshot::Row| {
            let name: Arc<str> = row.labels.id().into();
            (Arc::clone(&name), Known { name, base: row.energy, seen: 0 })
        };
        Self {
            totals,
            node: node(first),
            charged: charged(tenants),
            tenants: tenants.rows.iter().map(known).collect(),
            ..Self::default()
        }
    }

    /// Adds what was drawn since the last snapshot; what the snapshot shows of it.
    pub fn charge(&mut self, snapshot: &Snapshot, factors: &[Factor]) -> Option<Arc<Footprint>> {
        self.ticks += 1;
        self.changed.clear();
        let drawn = self.drawn(snapshot);
        if factors.is_empty() {
            return None;
        }
        for factor in factors {
            self.add(factor, &drawn);
        }
        Some(Arc::new(Footprint { factors: factors.to_vec(), totals: self.totals.clone() }))
    }

    fn add(&mut self, factor: &Factor, drawn: &[(Part, Microjoules)]) {
        if factor.per_kwh.is_none() {
            let energy = drawn.iter().map(|(_, energy)| *energy).sum();
            *self.totals.uncounted.entry(factor.measure).or_default() += energy;
            return;
        }
        let is_it = |one: &Amounts| {
            one.measure == factor.measure && one.fallback == factor.fallback && *one.unit == *factor.unit
        };
        let at = self.totals.amounts.iter().position(is_it).unwrap_or_else(|| {
            let (measure, unit, fallback) = (factor.measure, Arc::clone(&factor.unit), factor.fallback);
            self.totals.amounts.push(Amounts { measure, unit, fallback, parts: BTreeMap::new() });
            self.totals.amounts.len() - 1
        });
        let parts = &mut self.totals.amounts[at].parts;
        for (part, energy) in drawn {
            // A factor of 0 makes a counter of 0, so that 0 is told from not known.
            if let Some(product) = factor.product(*energy) {
                parts.entry(part.clone()).or_default().add(product);
                self.changed.entry(at).or_default().insert(part.clone());
            }
        }
    }

    /// The node's energy since the last snapshot in parts.
    fn drawn(&mut self, snapshot: &Snapshot) -> Vec<(Part, Microjoules)> {
        let billed = Base::of(snapshot);
        let (mut idle, mut active, mut unattributed) = (0, 0, 0);
        let now = node(snapshot);
        for zone in billed.zones() {
            let (now, base) = (now[zone.index()], self.node[zone.index()]);
            idle += signed(now.idle.saturating_sub(base.idle));
            active += signed(now.active.saturating_sub(base.active));
            unattributed += signed(now.unattributed.saturating_sub(base.unattributed));
        }
        self.node = now;
        let view = snapshot.kind(Kind::Tenant);
        let mut gained = charged(view);
        let all = gained;
        gained.subtract(&self.charged);
        self.charged = all;
        let (tenants_dynamic, tenants_idle) = (billed.dynamic(&gained), billed.idle(&gained));
        let mut parts = self.tenants(view, &billed, tenants_dynamic + tenants_idle);
        self.idle_owed = self.idle_owed.saturating_add(idle).saturating_sub(signed(tenants_idle));
        self.outside_owed = (self.outside_owed.saturating_add(active))
            .saturating_sub(unattributed)
            .saturating_sub(signed(tenants_dynamic));
        for (part, owed) in [(Part::Idle, &mut self.idle_owed), (Part::Outside, &mut self.outside_owed)] {
            if *owed > 0 {
                parts.push((part, Microjoules(std::mem::take(owed).unsigned_abs())));
            }
        }
        if unattributed > 0 {
            parts.push((Part::Unattributed, Microjoules(unattributed.unsigned_abs())));
        }
        parts
    }

    /// What each tenant gained. A row that comes back was counted among the others meanwhile: it goes on from what it
    /// has now.
    fn tenants(&mut self, view: &KindView, billed: &Base, all: Microjoules) -> Vec<(Part, Microjoules)> {
        let (mut left, mut parts) = (all, Vec::with_capacity(view.rows.len() + 4));
        let mut new = Vec::new();
        for row in &view.rows {
            match self.tenants.get_mut(row.labels.id()) {
                Some(known) => {
                    let returned = known.seen + 1 < self.ticks;
                    let mut gained = row.energy;
                    gained.subtract(&known.base);
                    (known.base, known.seen) = (row.energy, self.ticks);
                    let gained = if returned { Microjoules::ZERO } else { billed.energy(&gained).min(left) };
                    left = left - gained;
                    if gained > Microjoules::ZERO {
                        parts.push((Part::Tenant(Arc::clone(&known.name)), gained));
                    }
                }
                None => new.push(row),
            }
        }
        for row in new {
            // What it has beyond this tick's energy is of a time when it had no row.
            let gained = billed.energy(&row.energy).min(left);
            left = left - gained;
            let name: Arc<str> = row.labels.id().into();
            self.tenants
                .insert(Arc::clone(&name), Known { name: Arc::clone(&name), base: row.energy, seen: self.ticks });
            if gained > Microjoules::ZERO {
                parts.push((Part::Tenant(name), gained));
            }
        }
        if left > Microjoules::ZERO {
            parts.push((Part::OtherTenants, left));
        }
        // Names of tenants may be made of names of namespaces, of which there are ever new ones.
        if self.tenants.len() > 2 * view.rows.len() + 16 {
            self.tenants.retain(|_, known| known.seen == self.ticks);
        }
        parts
    }

    /// Everything, for the store.
    pub fn state(&self) -> AmountTotals {
        self.totals.clone()
    }

    /// What the last tick changed.
    pub fn changes(&self) -> AmountTotals {
        let amounts = self.changed.iter().filter_map(|(at, parts)| {
            let Amounts { measure, unit, fallback, parts: all } = self.totals.amounts.get(*at)?;
            let of = |part: &Part| Some((part.clone(), *all.get(part)?));
            let parts: BTreeMap<Part, Amount> = parts.iter().filter_map(of).collect();
            Some(Amounts { measure: *measure, unit: Arc::clone(unit), fallback: *fallback, parts })
        });
        AmountTotals { amounts: amounts.collect(), uncounted: self.totals.uncounted.clone() }
    }
}

/// The node's energy by zone.
fn node(snapshot: &Snapshot) -> [NodeEnergy; Zone::COUNT] {
    let mut zones = [NodeEnergy::default(); Zone::COUNT];
    for view in &snapshot.domains {
        zones[view.domain.zone.index()] += view.energy;
    }
    zones
}

/// All that was ever charged to tenants.
fn charged(view: &KindView) -> Energy {
    let mut sum = view.rest;
    sum.add(&view.ended);
    sum.add(&view.parked);
    view.rows.iter().for_each(|row| sum.add(&row.energy));
    sum
}

fn signed(energy: Microjoules) -> i64 {
    i64::try_from(energy.0).unwrap_or(i64::MAX)
}
