//! The state of the core: `run/store` keeps it over restarts, and one core passes it to the next at a reload.

use super::Core;
use super::idle::IdleModel;
use super::interval::LastReading;
use super::learned::Learned;
use super::ledger::{Entry, Ledger};
use super::window::DomainState;
use crate::model::domain::{Domain, NodeEnergy};
use crate::model::entity::Awaited;
use crate::model::footprint::AmountTotals;
use crate::model::units::Nanos;
use crate::power_model::stand_in::Taught;

/// One domain's totals, last reading and idle model. Kept over restarts.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainRecord {
    /// The domain. A domain of the next run with the same id continues the totals.
    pub domain: Domain,
    /// Its last good reading.
    pub last: Option<LastReading>,
    /// Energy of this domain since its totals began, over all runs.
    pub totals: NodeEnergy,
    /// Number of intervals whose energy is not known.
    pub gaps: u64,
    /// Sum of the lengths of these intervals.
    pub gap_time: Nanos,
    /// The model of its idle floor, with all observations.
    pub model: IdleModel,
    /// What was learned of its power. Only in a whole state, and not in the changes of a tick: it is large.
    pub learned: Option<Box<Learned>>,
}

/// What a tick changed of a [`State`].
pub type Changes = (Vec<DomainRecord>, Vec<Entry>, AmountTotals);

/// Everything that is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The kernel's boot id (/proc/sys/kernel/random/boot_id) of the run that wrote this.
    pub boot_id: String,
    /// Domains.
    pub domains: Vec<DomainRecord>,
    /// The ledger.
    pub entries: Vec<Entry>,
    /// Carbon and cost.
    pub footprint: AmountTotals,
}

impl Core {
    /// Labels of series from an earlier run, if the machine has not rebooted since: their entities may still exist.
    pub fn awaited(&self) -> Awaited {
        if self.same_boot { self.ledger.awaited().collect() } else { Awaited::default() }
    }

    /// Continues the counters of `earlier`, a core of the same run whose [`Core::state`] this one was made with.
    pub fn follow(&mut self, earlier: &Self) {
        (self.ticks, self.lost_cpu) = (earlier.ticks, earlier.lost_cpu);
        (self.overflows, self.overflows_before) = (earlier.overflows, earlier.overflows);
        self.accounts.follow(&earlier.accounts);
        self.origins.clone_from(&earlier.origins);
    }

    /// Takes over the accounts and VMs of `earlier`. For a reload that keeps the usage and entity sources: these report
    /// each process and cgroup only once, so no entity ends or begins.
    pub fn keep_entities(&mut self, earlier: &mut Self) {
        self.ledger = std::mem::replace(&mut earlier.ledger, Ledger::new(self.config.limits));
        self.ledger.set_limits(self.config.limits);
        self.accounts = std::mem::take(&mut earlier.accounts);
        self.accounts.set_tenants(&mut self.ledger, &self.config.tenants);
        (self.vms, self.overflows_before) = (earlier.vms.clone(), earlier.overflows_before);
    }

    /// The whole state, for the store.
    pub fn state(&self, boot_id: &str) -> State {
        let unseen = self.earlier.iter().cloned();
        let with_learned = |state: &DomainState| DomainRecord {
            // What has learned nothing yet is not worth a line.
            learned: state.learned.clone().filter(|learned| learned.taught() > Nanos::ZERO),
            ..state.record.clone()
        };
        State {
            boot_id: boot_id.to_string(),
            domains: self.domains.iter().chain(&self.other).map(with_learned).chain(unseen).collect(),
            entries: self.ledger.entries().collect(),
            footprint: self.footprint.state(),
        }
    }

    /// The part of the state that the last tick changed.
    pub fn changes(&self) -> Changes {
        let records = self.domains.iter().chain(&self.other).map(|state| state.record.clone());
        (records.collect(), self.ledger.changes().collect(), self.footprint.changes())
    }

    /// What meters of this machine taught, also of domains that are not there now.
    pub fn taught(&self) -> Vec<Taught> {
        let now = self.domains.iter().map(|state| (&*state.shared, &state.learned));
        let is_of_here = |record: &&DomainRecord| {
            let machine = Learned::machine(&record.domain, &self.host.cpus);
            record.learned.as_ref().is_some_and(|learned| Some(&learned.machine) == machine.as_ref())
        };
        let earlier = self.earlier.iter().filter(is_of_here).map(|record| (&record.domain, &record.learned));
        now.chain(earlier).filter_map(|(domain, learned)| learned.as_ref()?.taught_of(domain)).collect()
    }

    /// Whether no meter of the whole machine measures: none did in the last tick, and jouled has waited for one for as
    /// long as for one that is silent. A host that reports this VM's part counts as one.
    pub fn platform_is_away(&self) -> bool {
        self.platform.is_away
    }

    /// Takes what the operator should know of what was learned: a line each.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}
