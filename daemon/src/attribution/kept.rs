//! What of the core outlives a run, and what goes over from one core to the next in the same run.

use super::Core;
use super::idle::IdleModel;
use super::interval::LastReading;
use super::ledger::{Entry, Ledger};
use crate::model::domain::{Domain, NodeEnergy};
use crate::model::entity::Awaited;
use crate::model::units::Nanos;
use serde::{Deserialize, Serialize};

/// One domain's totals and what its next interval needs. Kept over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// The domain, to know it again by.
    pub domain: Domain,
    /// Its last good reading.
    pub last: Option<LastReading>,
    /// Energy of this domain since its totals began, over all runs.
    pub totals: NodeEnergy,
    /// Intervals that were not measured.
    pub gaps: u64,
    /// Their time.
    pub gap_time: Nanos,
    /// What was learned of its idle floor.
    pub model: IdleModel,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Domains.
    pub domains: Vec<DomainRecord>,
    /// The ledger.
    pub entries: Vec<Entry>,
}

impl Core {
    /// Series of before, on this boot, that wait for entities which may be there still.
    pub fn awaited(&self) -> Awaited {
        if self.same_boot { self.ledger.awaited().collect() } else { Awaited::default() }
    }

    /// Goes on counting where another core of the same run ended, whose [`Core::state`] this one was made with.
    pub fn follow(&mut self, earlier: &Self) {
        (self.ticks, self.lost_cpu) = (earlier.ticks, earlier.lost_cpu);
        (self.overflows, self.overflows_before) = (earlier.overflows, earlier.overflows);
    }

    /// Goes on with that core's entities as well, where whoever tells of them is the same as before: nobody ends or begins anew.
    pub fn keep_entities(&mut self, earlier: &mut Self) {
        self.ledger = std::mem::replace(&mut earlier.ledger, Ledger::new(self.config.limits));
        self.ledger.set_limits(self.config.limits);
        self.accounts = std::mem::take(&mut earlier.accounts);
        (self.vms, self.overflows_before) = (earlier.vms.clone(), earlier.overflows_before);
    }

    /// What has to be kept, whole.
    pub fn state(&self, boot_id: &str) -> State {
        let unseen = self.earlier.iter().cloned();
        State {
            boot_id: boot_id.to_string(),
            domains: self.records().chain(unseen).collect(),
            entries: self.ledger.entries().collect(),
        }
    }

    /// What has to be kept of the last tick.
    pub fn changes(&self) -> (Vec<DomainRecord>, Vec<Entry>) {
        (self.records().collect(), self.ledger.changes().collect())
    }

    fn records(&self) -> impl Iterator<Item = DomainRecord> + '_ {
        self.domains.iter().chain(&self.other).map(|state| state.record.clone())
    }
}
