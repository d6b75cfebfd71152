//! The pure core: one tick in, one snapshot out. No clock, no I/O, no globals: the same ticks give the same snapshots.

mod window;

use crate::attribute::{self, IdlePolicy, Split};
use crate::domain::{self, Interval, LastReading};
use crate::entity::vm::Vm;
use crate::idle::IdleModel;
use crate::ledger::{Entry, Ledger, Limits};
use crate::meter::{Domain, DomainReading, Reading, Scope, Zone};
use crate::roster::{Charge, Roster};
use crate::sample::{Tick, VmMember};
use crate::snapshot::{Host, IdleFrom, Snapshot, SourceView};
use crate::source::PackageId;
use crate::source::SourceState;
use crate::units::{Microjoules, Microwatts, Nanos};
use crate::usage::{Counted, UsageSample};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use window::{DomainState, TickUse, Window, in_scope};

/// What the core is made with. Serialisable: the head of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoreConfig {
    /// The host, as shown.
    pub host: Host,
    /// Series limits.
    pub limits: Limits,
    /// What becomes of idle energy.
    pub idle: IdlePolicy,
    /// Idle floors that the operator configured, by domain id.
    pub floors: BTreeMap<String, Microwatts>,
    /// Idle over full power of this kind of processor: what the idle floor leans on until it is learned.
    pub prior_ratio: f64,
}

/// One domain's totals and what its next interval needs. Kept over restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// The domain, to know it again by.
    pub domain: Domain,
    /// Its last good reading.
    pub last: Option<LastReading>,
    /// Totals: all, idle, active, unattributed.
    pub totals: [Microjoules; 4],
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

/// The core.
pub struct Core {
    config: CoreConfig,
    host: Arc<Host>,
    domains: Vec<DomainState>,
    earlier: Vec<DomainRecord>,
    same_boot: bool,
    cpus: BTreeMap<PackageId, usize>,
    ledger: Ledger,
    roster: Roster,
    sources: Vec<SourceView>,
    vms: Arc<[Vm]>,
    ticks: u64,
    /// The first tick and the last one. Who ran before the first is not known.
    first: Option<Nanos>,
    last: Option<Nanos>,
    counted: Counted,
    overflows: u64,
    lost_cpu: Nanos,
}

impl Core {
    /// A core that goes on from `state`; `same_boot` says whether the machine has run since.
    pub fn new(config: CoreConfig, state: State, same_boot: bool, now: Nanos) -> Self {
        let mut cpus = BTreeMap::new();
        for cpu in &config.host.cpus {
            *cpus.entry(PackageId(cpu.physical_id as u16)).or_insert(0) += 1;
        }
        let mut ledger = Ledger::new(config.limits);
        ledger.restore(state.entries.into_iter(), now + config.limits.retention);
        Self {
            host: Arc::new(Host { idle: config.idle, ..config.host.clone() }),
            config,
            domains: Vec::new(),
            earlier: state.domains,
            same_boot,
            cpus,
            ledger,
            roster: Roster::default(),
            sources: Vec::new(),
            vms: Arc::default(),
            ticks: 0,
            first: None,
            last: None,
            counted: Counted::default(),
            overflows: 0,
            lost_cpu: Nanos::ZERO,
        }
    }

    /// Takes in one tick.
    pub fn step(&mut self, tick: &Tick) -> Arc<Snapshot> {
        self.ticks += 1;
        let now = tick.at.monotonic;
        self.first.get_or_insert(now);
        self.ledger.begin(now, tick.at.realtime);
        for domain in &tick.new_domains {
            self.add_domain(domain.clone(), now);
        }
        for cgroup in &tick.cgroups {
            self.roster.name(&mut self.ledger, cgroup, self.ticks);
        }
        if let Some(vms) = &tick.vms {
            self.vms = vms.clone().into();
            self.roster.machines(&mut self.ledger, vms, self.ticks);
        }
        let used = self.resolve(tick.usage.as_ref(), &tick.vm_members);
        let cpu_usage = self.cpu_usage(&used, now);
        let mut read = vec![false; self.domains.len()];
        for reading in &tick.readings {
            if self.take_reading(reading, tick.at.boottime - tick.at.monotonic, &used)
                && let Some(read) = read.get_mut(reading.domain)
            {
                *read = true;
            }
        }
        for (state, read) in self.domains.iter_mut().zip(read) {
            if !read {
                state.keep_window(&used, self.ticks, now);
            }
        }
        self.ledger.book();
        let closed_before = self.domains.iter().map(|state| state.window.from).min().unwrap_or(self.ticks);
        let ended = tick.usage.iter().flat_map(|usage| &usage.ended);
        self.roster.end(&mut self.ledger, ended, &tick.gone, self.ticks, closed_before);
        self.ledger.expire();
        self.take_sources(&tick.sources, now);
        self.last = Some(now);
        Arc::new(self.snapshot(tick, cpu_usage))
    }

    /// The snapshot before the first tick.
    pub fn blank(&self) -> Snapshot {
        self.snapshot(&Tick::default(), None)
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
        self.domains.iter().map(|state| state.record.clone())
    }

    fn add_domain(&mut self, domain: Domain, now: Nanos) {
        let configured = self.config.floors.get(&domain.id).map(|power| (*power, IdleFrom::Configured));
        let known = configured.or(domain.at_rest.map(|power| (power, IdleFrom::Model)));
        let mut record = DomainRecord {
            domain: domain.clone(),
            last: None,
            totals: Default::default(),
            gaps: 0,
            gap_time: Nanos::ZERO,
            model: IdleModel::new(self.config.prior_ratio, known),
        };
        if let Some(position) = self.earlier.iter().position(|earlier| earlier.domain.id == domain.id) {
            let earlier = self.earlier.swap_remove(position);
            (record.totals, record.gaps, record.gap_time) = (earlier.totals, earlier.gaps, earlier.gap_time);
            record.model.learn_from(earlier.model);
            let provable = |last: &LastReading| domain::provable(&domain, &last.reading, now - last.at);
            let same = earlier.domain.source == domain.source && earlier.domain.path == domain.path;
            record.last = earlier.last.filter(|last| self.same_boot && same && domain.continuous && provable(last));
        }
        if domain.zone == Zone::Dram && domain.billed {
            Arc::make_mut(&mut self.host).dram_billed = true;
        }
        self.domains.push(DomainState {
            shared: Arc::new(domain),
            resumed: record.last.is_some(),
            record,
            carry: 0,
            window: Window { from: self.ticks, since: now, ..Window::default() },
            standby: false,
            power: None,
            idle_power: None,
            error: String::new(),
        });
    }

    fn resolve(&mut self, usage: Option<&UsageSample>, members: &[VmMember]) -> TickUse {
        let Some(usage) = usage else {
            return TickUse { charges: Vec::new(), lost: Vec::new(), counted: self.counted, known: false };
        };
        self.counted = usage.counted;
        self.overflows = self.overflows.max(usage.overflows);
        self.lost_cpu += usage.lost.iter().map(|lost| lost.on_cpu).sum();
        self.roster.know(&mut self.ledger, &usage.processes);
        for member in members {
            self.roster.join(&mut self.ledger, member, self.ticks);
        }
        let charges = usage.uses.iter().map(|one| self.roster.charge(&mut self.ledger, one)).collect();
        TickUse { charges, lost: usage.lost.clone(), counted: usage.counted, known: true }
    }

    fn cpu_usage(&self, used: &TickUse, now: Nanos) -> Option<f64> {
        let time = now - self.last?;
        let on_cpu = used.on_cpu(Scope::Machine);
        used.known.then(|| attribute::utilisation(on_cpu, self.cpus.values().sum(), time))
    }

    /// Attributes the interval that a reading closes; false where it gave nothing.
    fn take_reading(&mut self, reading: &DomainReading, suspended: Nanos, used: &TickUse) -> bool {
        let Some(state) = self.domains.get_mut(reading.domain) else { return false };
        let new = match &reading.reading {
            Ok(Reading::Standby) => {
                state.stand_by(reading.at, self.ticks);
                return true;
            }
            Ok(value) => LastReading { at: reading.at, suspended, reading: *value },
            Err(why) => {
                state.error.clone_from(why);
                (state.power, state.idle_power) = (None, None);
                return false;
            }
        };
        if state.record.last.is_some_and(|last| last.reading == new.reading && last.at >= new.at) {
            // What an earlier run ended with, told once more.
            return false;
        }
        state.error.clear();
        state.standby = false;
        let interval = domain::interval(&state.shared, state.record.last.as_ref(), &new, &mut state.carry);
        state.record.last = Some(new);
        match interval {
            Interval::First => (state.power, state.idle_power) = (None, None),
            Interval::Gap(time, why) => {
                state.record.gaps += 1;
                state.record.gap_time += time;
                state.error = format!("{:.1} s not measured: {why}", time.seconds());
                (state.power, state.idle_power) = (None, None);
            }
            Interval::Energy(energy, time) => self.attribute(reading.domain, energy, time, used),
        }
        if let Some(state) = self.domains.get_mut(reading.domain) {
            let incomplete = self.first.is_some_and(|first| new.at < first);
            state.window = Window { from: self.ticks, since: new.at, incomplete, ..Window::default() };
            state.resumed = false;
        }
        true
    }

    fn attribute(&mut self, index: usize, energy: Microjoules, time: Nanos, used: &TickUse) {
        let Some(state) = self.domains.get_mut(index) else { return };
        let scope = state.shared.scope;
        let counted = used.counted;
        let weigh = |on_cpu, cycles, misses| weight(state.shared.zone, counted, on_cpu, cycles, misses);
        let lost = used.lost.iter().filter(|lost| in_scope(scope, lost.package));
        let mut lost = state.window.lost + lost.map(|lost| weigh(lost.on_cpu, lost.cycles, lost.cache_misses)).sum::<u64>();
        let mut charges: Vec<&Charge> = state.window.charges.iter().collect();
        charges.extend(used.charges.iter().filter(|charge| in_scope(scope, charge.package)));
        if used.known && !state.window.incomplete && !state.resumed {
            let cpus = self.cpus.iter().filter(|(package, _)| in_scope(scope, **package)).map(|(_, count)| count).sum();
            let utilisation = attribute::utilisation(used.on_cpu(scope) + state.window.on_cpu, cpus, time);
            state.record.model.observe(utilisation, energy.over(time));
        } else {
            // Others may have run too: nobody who is known pays for them.
            charges.clear();
            lost = lost.max(1);
        }
        let weights: Vec<u64> =
            charges.iter().map(|charge| weigh(charge.used.on_cpu, charge.used.cycles, charge.used.cache_misses)).collect();
        let floor = match state.record.model.floor() {
            Some(floor) if !state.resumed => floor.power.for_time(time),
            _ => Microjoules::ZERO,
        };
        let Split { idle, shares, unattributed } = attribute::split(energy, floor, &weights, lost);
        let idle_shares = match self.config.idle {
            IdlePolicy::ByUse if !charges.is_empty() => attribute::split(idle, Microjoules::ZERO, &weights, lost).shares,
            _ => Vec::new(),
        };
        if self.config.idle == IdlePolicy::ByAllocation {
            let (accounts, vcpus): (Vec<_>, Vec<_>) = self.roster.allocations().unzip();
            let parts = attribute::allot(idle, &vcpus, self.cpus.values().sum());
            for (account, part) in accounts.into_iter().zip(parts).filter(|(_, part)| part.0 > 0) {
                self.ledger.charge(account, state.shared.zone, Microjoules::ZERO, part, time);
            }
        }
        let totals = &mut state.record.totals;
        for (total, part) in totals.iter_mut().zip([energy, idle, energy - idle, unattributed]) {
            *total += part;
        }
        (state.power, state.idle_power) = (Some(energy.over(time)), Some(idle.over(time)));
        let zone = state.shared.zone;
        for (position, (charge, dynamic)) in charges.into_iter().zip(shares).enumerate() {
            let idle = idle_shares.get(position).copied().unwrap_or_default();
            self.roster.credit(&mut self.ledger, charge, zone, dynamic, idle, time);
        }
    }

    fn take_sources(&mut self, states: &[SourceState], now: Nanos) {
        if !states.is_empty() {
            let earlier = std::mem::take(&mut self.sources);
            let read_at = |source: &str| earlier.iter().find(|view| view.source == source).and_then(|view| view.read_at);
            let view = |state: &SourceState| SourceView {
                source: state.source.clone(),
                role: state.role.clone(),
                health: state.health.clone(),
                detail: state.detail.clone(),
                read_at: read_at(&state.source),
            };
            self.sources = states.iter().map(view).collect();
        }
        for source in &mut self.sources {
            use crate::source::Health::{Degraded, Healthy};
            if source.role == "usage" && matches!(source.health, Healthy | Degraded(_)) {
                source.read_at = Some(now);
            }
            let reads = self.domains.iter().filter(|state| state.shared.source == source.source);
            source.read_at = reads.filter_map(|state| state.record.last.map(|last| last.at)).max().or(source.read_at);
        }
    }

    fn snapshot(&self, tick: &Tick, cpu_usage: Option<f64>) -> Snapshot {
        Snapshot {
            host: self.host.clone(),
            ticks: self.ticks,
            at: tick.at,
            cpu_usage,
            sources: self.sources.clone(),
            domains: self.domains.iter().map(DomainState::view).chain(self.earlier.iter().map(DomainRecord::view_past)).collect(),
            kinds: self.ledger.view(),
            vms: self.vms.clone(),
            counted: self.counted,
            overflows: self.overflows,
            lost_cpu: self.lost_cpu,
            own_cpu: tick.own_cpu,
        }
    }
}

/// What use counts for in a zone: memory by cache misses, all else by cycles, which see frequency and SMT; by time where those
/// are not counted.
fn weight(zone: Zone, counted: Counted, on_cpu: Nanos, cycles: u64, cache_misses: u64) -> u64 {
    match zone {
        Zone::Dram if counted.cache_misses => cache_misses,
        _ if counted.cycles => cycles,
        _ => on_cpu.0,
    }
}

#[cfg(test)]
mod tests;
