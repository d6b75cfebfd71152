//! The pure core: one tick in, one snapshot out. No clock, no I/O, no globals: the same ticks give the same snapshots.

pub mod accounts;
mod curve;
pub mod idle;
pub mod interval;
pub mod ledger;
pub mod platform;
mod remainder;
mod settle;
mod sources;
pub mod split;
mod state;
mod tick_use;
mod window;

use crate::model::billing::IdlePolicy;
use crate::model::domain::{Domain, DomainId, DomainReading, Reading, Scope, Zone};
use crate::model::platform::PlatformChoice;
use crate::model::snapshot::{Host, IdleFrom, Role, Snapshot};
use crate::model::source::PackageId;
use crate::model::tick::{Tick, VmMember};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, GpuSample, UsageSample};
use crate::model::vm::Vm;
use accounts::Accounts;
use idle::IdleModel;
use interval::{Interval, LastReading};
use ledger::{Ledger, Limits};
use platform::Platform;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use settle::{Books, Due};
use sources::Sources;
pub use state::{DomainRecord, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use tick_use::{GpuCharges, TickUse};
use window::{DomainState, Window};

/// Idle over full power of GPUs, until it is learned: data-centre cards draw 50 to 70 of their 400 to 700 W at rest.
const GPU_PRIOR_RATIO: f64 = 0.12;

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
    /// Which platform meter is believed.
    pub platform: PlatformChoice,
}

/// The core.
pub struct Core {
    config: CoreConfig,
    host: Arc<Host>,
    domains: Vec<DomainState>,
    /// Index of each domain in `domains`.
    by_id: FxHashMap<DomainId, usize>,
    platform: Platform,
    /// What the platform meter sees beyond the components; from the time on that there was one.
    other: Option<DomainState>,
    earlier: Vec<DomainRecord>,
    same_boot: bool,
    cpus: BTreeMap<PackageId, usize>,
    ledger: Ledger,
    accounts: Accounts,
    sources: Sources,
    vms: Arc<[Vm]>,
    ticks: u64,
    /// The first tick and the last one. Who ran before the first is not known.
    first: Option<Nanos>,
    last: Option<Nanos>,
    counted: Counted,
    overflows: u64,
    /// Those of usage sources that an earlier core was told of.
    overflows_before: u64,
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
            platform: Platform::new(config.platform.clone()),
            other: None,
            config,
            domains: Vec::new(),
            by_id: FxHashMap::default(),
            earlier: state.domains,
            same_boot,
            cpus,
            ledger,
            accounts: Accounts::default(),
            sources: Sources::default(),
            vms: Arc::default(),
            ticks: 0,
            first: None,
            last: None,
            counted: Counted::default(),
            overflows: 0,
            overflows_before: 0,
            lost_cpu: Nanos::ZERO,
        }
    }

    /// Takes in one tick.
    pub fn step(&mut self, tick: &Tick) -> Arc<Snapshot> {
        self.ticks += 1;
        let now = tick.at.monotonic;
        self.first.get_or_insert(now);
        self.ledger.begin_tick(now, tick.at.realtime);
        for domain in &tick.new_domains {
            if !self.by_id.contains_key(&domain.id) {
                self.by_id.insert(domain.id.clone(), self.domains.len());
                let state = self.open_domain(domain.clone(), now);
                self.domains.push(state);
            }
        }
        for cgroup in &tick.cgroups {
            self.accounts.set_cgroup(&mut self.ledger, cgroup, self.ticks);
        }
        if let Some(vms) = &tick.vms {
            self.vms = vms.clone().into();
            self.accounts.set_vms(&mut self.ledger, vms, self.ticks);
        }
        let used = self.resolve(tick.usage.as_ref(), &tick.gpus, &tick.vm_members);
        let cpu_usage = self.cpu_usage(&used, now);
        let mut read = vec![false; self.domains.len()];
        for reading in &tick.readings {
            let Some(index) = self.by_id.get(&reading.domain).copied() else { continue };
            read[index] |= self.take_reading(index, reading, tick.at.boottime - tick.at.monotonic, &used);
        }
        self.keep_windows(&read, &used, now);
        self.sources.update(&tick.sources);
        self.sources.mark_read(&self.domains, now);
        self.take_remainder(&used, &tick.gpus.passed_through, now);
        self.ledger.commit();
        let windows = self.domains.iter().filter(|state| !state.undivided()).chain(&self.other);
        let closed_before = windows.map(|state| state.window.from).min().unwrap_or(self.ticks);
        let ended = tick.usage.iter().flat_map(|usage| &usage.ended);
        self.accounts.close_ended(&mut self.ledger, ended, &tick.gone, self.ticks, closed_before);
        self.ledger.expire();
        self.last = Some(now);
        Arc::new(self.snapshot(tick, cpu_usage))
    }

    /// The snapshot before the first tick.
    pub fn blank(&self) -> Snapshot {
        self.snapshot(&Tick::default(), None)
    }

    fn open_domain(&mut self, domain: Domain, now: Nanos) -> DomainState {
        let configured = self.config.floors.get(domain.id.as_str()).map(|power| (*power, IdleFrom::Configured));
        let known = configured.or(domain.at_rest.map(|power| (power, IdleFrom::Model)));
        let mut record = DomainRecord {
            domain: domain.clone(),
            last: None,
            totals: Default::default(),
            gaps: 0,
            gap_time: Nanos::ZERO,
            model: IdleModel::new(
                if domain.zone == Zone::Gpu { GPU_PRIOR_RATIO } else { self.config.prior_ratio },
                known,
            ),
        };
        if let Some(position) = self.earlier.iter().position(|earlier| earlier.domain.id == domain.id) {
            let earlier = self.earlier.swap_remove(position);
            (record.totals, record.gaps, record.gap_time) = (earlier.totals, earlier.gaps, earlier.gap_time);
            record.model.learn_from(earlier.model);
            let provable = |last: &LastReading| interval::provable(&domain, &last.reading, now - last.at);
            let same = earlier.domain.source == domain.source && earlier.domain.path == domain.path;
            record.last = earlier.last.filter(|last| self.same_boot && same && domain.continuous && provable(last));
        }
        if domain.zone == Zone::Dram && domain.billed {
            Arc::make_mut(&mut self.host).dram_billed = true;
        }
        DomainState {
            shared: Arc::new(domain),
            resumed: record.last.is_some(),
            record,
            carry: 0,
            window: Window::open(self.ticks, now, false),
            standby: false,
            power: None,
            idle_power: None,
            role: Role::Billed,
            shares_estimated: false,
            error: String::new(),
            curve: curve::Curve::default(),
            drawn: Vec::new(),
            slow: 0,
        }
    }

    fn resolve(&mut self, usage: Option<&UsageSample>, gpus: &GpuSample, members: &[VmMember]) -> TickUse {
        let Some(usage) = usage else {
            return TickUse { counted: self.counted, gpus: self.resolve_gpus(gpus), ..TickUse::default() };
        };
        self.counted = usage.counted;
        self.overflows = self.overflows.max(self.overflows_before + usage.overflows);
        self.lost_cpu += usage.lost.iter().map(|lost| lost.used.on_cpu).sum();
        self.accounts.set_process_names(&mut self.ledger, &usage.processes);
        for member in members {
            self.accounts.add_vm_member(&mut self.ledger, member, self.ticks);
        }
        let charges = usage.uses.iter().map(|one| self.accounts.attribute_use(&mut self.ledger, one)).collect();
        let gpus = self.resolve_gpus(gpus);
        TickUse { charges, lost: usage.lost.clone(), counted: usage.counted, known: true, gpus }
    }

    fn resolve_gpus(&self, sample: &GpuSample) -> Vec<GpuCharges> {
        let resolve = |watched: &crate::model::usage::WatchedGpu| {
            let uses = sample.uses.iter().filter(|one| one.gpu == watched.gpu);
            let charges: Vec<_> = uses.filter_map(|one| self.accounts.attribute_gpu_use(one)).collect();
            // What it did for processes that nobody knows is nobody's.
            let lost = watched.busy - charges.iter().map(|charge| charge.used.on_cpu).sum();
            GpuCharges { gpu: watched.gpu, charges, lost, estimated: watched.estimated, owner: None }
        };
        let mut gpus: Vec<GpuCharges> = sample.watched.iter().map(resolve).collect();
        for gpu in self.domains.iter().filter_map(|state| match state.shared.scope {
            Scope::Gpu(gpu) => Some(gpu),
            Scope::Package(_) | Scope::Machine => None,
        }) {
            if let Some(owner) = self.accounts.attribute_passthrough(gpu) {
                gpus.retain(|one| one.gpu != gpu);
                gpus.push(GpuCharges {
                    gpu,
                    charges: Vec::new(),
                    lost: Nanos::ZERO,
                    estimated: false,
                    owner: Some(owner),
                });
            }
        }
        gpus
    }

    fn cpu_usage(&self, used: &TickUse, now: Nanos) -> Option<f64> {
        let time = now - self.last?;
        let on_cpu = used.busy(Scope::Machine);
        used.known.then(|| split::utilisation(on_cpu, self.cpus.values().sum(), time))
    }

    /// Attributes the interval that a reading closes; false where it gave nothing.
    fn take_reading(&mut self, index: usize, reading: &DomainReading, suspended: Nanos, used: &TickUse) -> bool {
        let Some(state) = self.domains.get_mut(index) else { return false };
        let new = match &reading.reading {
            Ok(Reading::Standby) => {
                state.stand_by(reading.at, self.ticks);
                return true;
            }
            Ok(value) => LastReading { at: reading.at, suspended, reading: *value },
            Err(why) => {
                state.error.clone_from(why);
                state.without_power();
                return false;
            }
        };
        // What an earlier run ended with, told once more; or a meter's clock was set back.
        if state.record.last.is_some_and(|last| interval::accounted(&last, &new)) {
            return false;
        }
        state.error.clear();
        state.standby = false;
        let changed = state.record.last.is_none_or(|last| last.reading != new.reading);
        let interval = interval::interval(&state.shared, state.record.last.as_ref(), &new, &mut state.carry);
        state.record.last = Some(new);
        let broken = matches!(interval, Interval::Gap { .. });
        match interval {
            Interval::First => state.without_power(),
            Interval::Gap { time, why } => {
                state.record.gaps += 1;
                state.record.gap_time += time;
                state.error = format!("{:.1} s not measured: {why}", time.seconds());
                state.without_power();
            }
            Interval::Energy { energy, time } => self.attribute(index, energy, time, used),
        }
        if let Some(state) = self.domains.get_mut(index) {
            let incomplete = self.first.is_some_and(|first| new.at < first);
            state.window = Window::open(self.ticks, new.at, incomplete);
            state.resumed = false;
            if platform::is_component(state) || platform::kind_of(&state.shared).is_some() {
                state.curve.push(new.at, state.record.totals.total, broken, changed);
            }
        }
        true
    }

    /// Attributes the energy of a domain's window.
    fn attribute(&mut self, index: usize, energy: Microjoules, time: Nanos, used: &TickUse) {
        let cpus = self.cpus.values().sum();
        let Self { domains, other, ledger, accounts, config, cpus: by_package, .. } = self;
        let Some(state) = domains.get_mut(index) else { return };
        if state.undivided() {
            state.record.totals.total += energy;
            state.power = Some(energy.over(time));
            return;
        }
        let (scope, zone) = (state.shared.scope, state.shared.zone);
        let window = std::mem::take(&mut state.window);
        let mut due = Due { energy, time, charges: Vec::new(), lost: 1, load: None };
        if used.knows(scope) && !window.incomplete && !state.resumed {
            due.charges.extend(window.charges.iter().map(|(charge, weight)| (charge, *weight)));
            due.charges.extend(used.of(scope, zone));
            due.lost = window.lost.saturating_add(used.lost(scope, zone));
            let units = match scope {
                Scope::Package(package) => by_package.get(&package).copied().unwrap_or_default(),
                Scope::Machine => cpus,
                Scope::Gpu(_) => 1,
            };
            let load = split::utilisation(window.busy + used.busy(scope), units, time);
            due.load = used.measures_load(scope).then_some(load);
        }
        // Otherwise others may have used it too: nobody who is known pays for them.
        state.shares_estimated = used.estimated(scope);
        let split = state.settle(&mut Books { ledger, accounts, idle: config.idle, cpus }, &due);
        if let Some(other) = other
            && !other.standby
            && platform::is_component(state)
        {
            other.window.lost = other.window.lost.saturating_add(split.unattributed.0);
            for ((charge, _), dynamic) in due.charges.iter().zip(&split.shares).filter(|(_, dynamic)| dynamic.0 > 0) {
                other.window.add(charge, dynamic.0);
            }
        }
    }

    /// Use waits for the next reading of domains that gave none; their power is shown on.
    fn keep_windows(&mut self, read: &[bool], used: &TickUse, now: Nanos) {
        let cpus = self.cpus.values().sum();
        let Self { domains, ledger, accounts, config, ticks, .. } = self;
        let mut books = Books { ledger, accounts, idle: config.idle, cpus };
        for (state, read) in domains.iter_mut().zip(read) {
            if !read {
                state.keep_window(used, *ticks, now);
                state.show_drawn(&mut books);
            }
        }
    }

    fn snapshot(&self, tick: &Tick, cpu_usage: Option<f64>) -> Snapshot {
        Snapshot {
            host: self.host.clone(),
            ticks: self.ticks,
            at: tick.at,
            cpu_usage,
            sources: self.sources.view(),
            domains: self
                .domains
                .iter()
                .chain(&self.other)
                .map(DomainState::view)
                .chain(self.earlier.iter().map(DomainRecord::view_past))
                .collect(),
            platform: self.platform.view(),
            kinds: self.ledger.view(),
            vms: self.vms.clone(),
            counted: self.counted,
            overflows: self.overflows,
            lost_cpu: self.lost_cpu,
            own_cpu: tick.own_cpu,
        }
    }
}

#[cfg(test)]
mod tests;
