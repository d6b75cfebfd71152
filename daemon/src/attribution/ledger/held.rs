//! Energy without power, and energy that is held until it is known whom it is charged to. Of tenants only: which energy
//! is held is decided in `attribution/tenants`.

use super::{AccountId, Ledger};
use crate::model::domain::Zone;
use crate::model::entity::Kind;
use crate::model::snapshot::Energy;
use crate::model::units::{Microjoules, Nanos};

impl Ledger {
    /// Holds energy, dynamic and idle, of a window of length `time`. It is part of what is parked of the kind until
    /// [`Ledger::release`]; its power is part of the kind's `rest`.
    pub fn hold(&mut self, kind: Kind, zone: Zone, [dynamic, idle]: [Microjoules; 2], time: Nanos) {
        let totals = &mut self.kinds[kind.index()];
        totals.held.dynamic[zone.index()] += dynamic;
        totals.held.idle[zone.index()] += idle;
        totals.rest_power[zone.index()] += (dynamic + idle).over(time);
    }

    /// Charges an account with energy that was held. To be called before [`Ledger::commit`].
    pub fn release(&mut self, id: AccountId, energy: &Energy) {
        let Some(kind) = self.labels(id).map(|labels| labels.kind()) else { return };
        self.kinds[kind.index()].held.subtract(energy);
        self.add_without_power(id, energy);
    }

    /// Sets how much energy is held.
    pub fn set_held(&mut self, kind: Kind, energy: Energy) {
        self.kinds[kind.index()].held = energy;
    }

    /// Charges an account with energy of an earlier time. To be called before [`Ledger::commit`].
    pub fn add_without_power(&mut self, id: AccountId, energy: &Energy) {
        if let Some(charge) = self.tick_charge(id) {
            charge.energy.add(energy);
        }
    }

    /// Everything that was ever charged to a kind, with what is held.
    pub fn charged_to(&self, kind: Kind) -> Energy {
        let totals = &self.kinds[kind.index()];
        let mut sum = totals.held;
        let of_kind = self.accounts.iter().flatten().filter(|account| account.labels.kind() == kind);
        let living = of_kind.filter_map(|account| account.series.as_ref()).map(|series| &series.energy);
        let retired = totals.retired.values().map(|retired| &retired.series.energy);
        living.chain(retired).chain([&totals.rest, &totals.ended]).for_each(|energy| sum.add(energy));
        sum
    }
}
