//! The core: one [`Tick`] in, one [`Snapshot`] out, by [`Core::step`]. Pure: no clock, no I/O, no globals, so the
//! same ticks give the same snapshots. It knows no meter, usage source or export by name.
//!
//! A step handles in this order: new domains, names of cgroups and VMs, usage by account (`tick_use`), readings to
//! energy (`readings`), the platform and its remainder (`platform`, `remainder`), then the ledger is committed and the
//! accounts of ended entities are closed.

mod absence;
pub mod accounts;
mod curve;
mod footprint;
pub mod idle;
pub mod interval;
mod lag;
pub mod learned;
pub mod ledger;
mod lessons;
mod neighbours;
pub mod platform;
mod plausibility;
mod readings;
mod remainder;
mod settle;
mod shares;
mod slices;
mod sources;
pub mod split;
mod state;
pub mod tenants;
mod tick_use;
mod window;

use crate::model::billing::{IdlePolicy, Weights};
use crate::model::domain::{Domain, DomainId, Scope, Verdict, Zone};
use crate::model::platform::PlatformChoice;
use crate::model::snapshot::{DomainView, Host, IdleFrom, Role, Snapshot};
use crate::model::source::PackageId;
use crate::model::tenant::TenantRule;
use crate::model::tick::{Tick, VmMember};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::usage::{Counted, GpuSample, UsageSample};
use crate::model::vm::Vm;
use crate::model::zone_origin::{ZoneOrigin, ZoneOrigins};
use accounts::Accounts;
use footprint::FootprintAccounts;
use idle::IdleModel;
use interval::LastReading;
use learned::Learned;
use ledger::{Ledger, Limits, NamesToCome};
use neighbours::Neighbours;
use platform::Platform;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sources::Sources;
pub use state::{Changes, DomainRecord, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use tick_use::{GpuCharges, TickUse};
use window::{DomainState, Window};

/// Ratio of idle to full power of a GPU, until its idle floor is learned: data-centre cards draw 50 to 70 of their
/// 400 to 700 W at rest.
const GPU_PRIOR_RATIO: f64 = 0.12;

/// Settings of the core. They are stored in the head of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoreConfig {
    /// The machine, as the snapshot shows it.
    pub host: Host,
    /// Limits for series.
    pub limits: Limits,
    /// The rule for idle energy.
    pub idle: IdlePolicy,
    /// Idle floors that the operator configured, by domain id.
    pub floors: BTreeMap<String, Microwatts>,
    /// Ratio of idle to full power of this kind of processor, 0 to 1: the prior of idle floors until they are learned.
    pub prior_ratio: f64,
    /// Which platform meter may be the authority.
    pub platform: PlatformChoice,
    /// Whether meters teach power models. Recordings of releases before 0.2 have none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learn: bool,
    /// What dynamic energy is shared by. Recordings of releases before 0.2 shared by cycles.
    #[serde(default = "Weights::before", skip_serializing_if = "Weights::is_before")]
    pub weights: Weights,
    /// Rules for tenants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantRule>,
}

/// The core.
pub struct Core {
    config: CoreConfig,
    host: Arc<Host>,
    domains: Vec<DomainState>,
    /// Index of each domain in `domains`.
    by_id: FxHashMap<DomainId, usize>,
    platform: Platform,
    neighbours: Neighbours,
    /// The domain of the remainder; `None` until the first tick with an authority.
    other: Option<DomainState>,
    /// Records of domains that earlier runs of jouled saw and this run has not seen yet.
    earlier: Vec<DomainRecord>,
    /// Whether the earlier run ended after the last boot of the machine: counters of meters then continue.
    same_boot: bool,
    /// Number of CPUs of each package.
    cpus: BTreeMap<PackageId, usize>,
    ledger: Ledger,
    accounts: Accounts,
    sources: Sources,
    vms: Arc<[Vm]>,
    ticks: u64,
    /// Time of the first tick, CLOCK_MONOTONIC: usage before it is not known.
    first: Option<Nanos>,
    /// Time of the last tick, CLOCK_MONOTONIC.
    last: Option<Nanos>,
    counted: Counted,
    overflows: u64,
    /// Overflows of the usage sources that were closed at reloads of this run: a new source counts from zero.
    overflows_before: u64,
    /// CPU time that cannot be attributed, since jouled started.
    lost_cpu: Nanos,
    /// Where the energy of each zone came from when it was first shown.
    origins: ZoneOrigins,
    /// What the operator should know of what was learned.
    notes: Vec<String>,
    footprint: FootprintAccounts,
}

impl Core {
    /// A core that continues from `state`. `same_boot`: whether `state` was written on this boot. `now`:
    /// CLOCK_MONOTONIC.
    pub fn new(config: CoreConfig, state: State, same_boot: bool, now: Nanos) -> Self {
        let mut cpus = BTreeMap::new();
        for cpu in &config.host.cpus {
            *cpus.entry(PackageId(cpu.physical_id as u16)).or_insert(0) += 1;
        }
        let mut ledger = Ledger::new(config.limits);
        ledger.restore(state.entries.into_iter(), now + config.limits.retention);
        let mut earlier = state.domains;
        for record in &mut earlier {
            let DomainRecord { domain, learned: Some(learned), .. } = record else { continue };
            // It may stand in before its meter is seen, or without it.
            if !learned.is_made() && Learned::machine(domain, &config.host.cpus).as_ref() == Some(&learned.machine) {
                learned.refresh(domain);
            }
        }
        let mut accounts = Accounts::default();
        accounts.set_tenants(&mut ledger, &config.tenants);
        let mut core = Self {
            host: Arc::new(Host { idle: config.idle, ..config.host.clone() }),
            platform: Platform::new(config.platform.clone(), &earlier),
            neighbours: Neighbours::default(),
            other: None,
            config,
            domains: Vec::new(),
            by_id: FxHashMap::default(),
            earlier,
            same_boot,
            cpus,
            ledger,
            accounts,
            sources: Sources::default(),
            vms: Arc::default(),
            ticks: 0,
            first: None,
            last: None,
            counted: Counted::default(),
            overflows: 0,
            overflows_before: 0,
            lost_cpu: Nanos::ZERO,
            origins: ZoneOrigins::default(),
            notes: Vec::new(),
            footprint: FootprintAccounts::default(),
        };
        core.footprint = FootprintAccounts::new(state.footprint, &core.blank());
        core
    }

    /// Processes one tick, and returns the snapshot after it.
    pub fn step(&mut self, tick: &Tick) -> Arc<Snapshot> {
        self.ticks += 1;
        let now = tick.at.monotonic;
        self.first.get_or_insert(now);
        self.ledger.begin_tick(now, tick.at.realtime);
        self.ledger.expect_names(NamesToCome { reported: tick.names_reported, sought: tick.names_sought });
        self.accounts.begin_tick(now);
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
            read[index] |= self.add_reading(index, reading, tick.at, &used);
        }
        self.keep_windows(&read, &used, now);
        self.neighbours.tick(&mut self.domains, &used, &self.host, &self.cpus, now);
        self.sources.update(&tick.sources);
        self.sources.mark_read(&self.domains, now);
        self.update_platform(&used, &tick.gpus.passed_through, now);
        self.accounts.end_tick(&mut self.ledger);
        self.ledger.commit();
        // Accounts of ended entities stay open until every window that may charge them has closed.
        let windows = self.domains.iter().filter(|state| !state.undivided()).chain(&self.other);
        let slices = self.platform.slices.oldest_tick();
        let closed_before = windows.map(|state| state.window.from).chain(slices).min().unwrap_or(self.ticks);
        let ended = tick.usage.iter().flat_map(|usage| &usage.ended);
        self.accounts.close_ended(&mut self.ledger, ended, &tick.gone, self.ticks, closed_before);
        self.ledger.expire();
        self.domains.iter_mut().flat_map(|state| &mut state.learned).for_each(|one| one.date(tick.at.realtime));
        self.last = Some(now);
        let mut snapshot = self.snapshot(tick, cpu_usage);
        self.origins.clone_from(&snapshot.origins);
        snapshot.footprint = self.footprint.charge(&snapshot, &tick.factors);
        Arc::new(snapshot)
    }

    /// The snapshot before the first tick.
    pub fn blank(&self) -> Snapshot {
        self.snapshot(&Tick::default(), None)
    }

    /// The state of a new domain. It continues the record that an earlier run kept under the same id, if there is one.
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
            learned: None,
        };
        let mut learned = None;
        if let Some(position) = self.earlier.iter().position(|earlier| earlier.domain.id == domain.id) {
            let earlier = self.earlier.swap_remove(position);
            (record.totals, record.gaps, record.gap_time) = (earlier.totals, earlier.gaps, earlier.gap_time);
            record.model.learn_from(earlier.model);
            learned = earlier.learned;
            let provable = |last: &LastReading| interval::provable(&domain, &last.reading, now - last.at);
            let same = earlier.domain.source == domain.source && earlier.domain.path == domain.path;
            record.last = earlier.last.filter(|last| self.same_boot && same && domain.continuous && provable(last));
        }
        let machine = Learned::machine(&domain, &self.host.cpus);
        let learned = match learned {
            Some(mut learned) if Some(&learned.machine) == machine.as_ref() => {
                learned.refresh(&domain);
                Some(learned)
            }
            Some(learned) => {
                self.notes.push(learned.discarded(&domain, machine.as_ref()));
                machine.map(|machine| Box::new(Learned::new(machine)))
            }
            None => machine.filter(|_| self.config.learn).map(|machine| Box::new(Learned::new(machine))),
        };
        let learns = self.config.learn && learned.is_some();
        if domain.zone == Zone::Dram && domain.billed {
            Arc::make_mut(&mut self.host).dram_billed = true;
        }
        DomainState {
            shared: Arc::new(domain),
            resumed: record.last.is_some(),
            record,
            carry: 0,
            window: Window::open(self.ticks, now, false),
            watch: Default::default(),
            standby: false,
            power: None,
            idle_power: None,
            interval: None,
            role: Role::Billed,
            shares_estimated: false,
            error: String::new(),
            curve: curve::Curve::default(),
            lessons: Default::default(),
            learned,
            predicted: None,
            learns,
            rivals: Default::default(),
            shared_by: None,
            shown: Vec::new(),
            slow: 0,
        }
    }

    /// Attributes the usage of a tick to accounts.
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
        let by_time = self.config.weights == Weights::Time;
        TickUse { charges, lost: usage.lost.clone(), counted: usage.counted, by_time, known: true, gpus }
    }

    /// Attributes the GPU usage of a tick to accounts. A GPU that is passed through to a VM is charged to that VM as a
    /// whole.
    fn resolve_gpus(&self, sample: &GpuSample) -> Vec<GpuCharges> {
        let resolve = |watched: &crate::model::usage::WatchedGpu| {
            let uses = sample.uses.iter().filter(|one| one.gpu == watched.gpu);
            let charges: Vec<_> = uses.filter_map(|one| self.accounts.attribute_gpu_use(one)).collect();
            // Busy time that no known process accounts for is unattributed.
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

    /// Mean utilisation of all CPUs since the last tick, 0 to 1.
    fn cpu_usage(&self, used: &TickUse, now: Nanos) -> Option<f64> {
        let time = now - self.last?;
        let on_cpu = used.busy(Scope::Machine);
        used.known.then(|| split::utilisation(on_cpu, self.cpus.values().sum(), time))
    }

    /// The domains of which not every value can be used, after the last tick. Without parts of packages that have never
    /// counted anything, beside packages that do: a machine without such a counter has a healthy meter, too.
    pub fn verdicts(&self) -> impl Iterator<Item = (DomainId, Verdict)> {
        let verdict = |state: &DomainState| (state.shared.id.clone(), state.watch.verdict());
        let is_absent = |state: &&DomainState| !self.is_absent(state);
        self.domains.iter().filter(is_absent).map(verdict).filter(|(_, verdict)| *verdict != Verdict::Usable)
    }

    /// Whether a domain is a part of a package, or its memory, that has never counted anything.
    fn is_absent(&self, state: &DomainState) -> bool {
        let is_part = matches!(state.shared.zone, Zone::Core | Zone::Uncore | Zone::Dram);
        let counts = |other: &DomainState| {
            let same = other.shared.source == state.shared.source && other.shared.scope == state.shared.scope;
            same && other.shared.zone == Zone::Package && !other.watch.has_no_power()
        };
        let never = state.watch.never_counted() && state.record.totals.total == Microjoules::ZERO;
        is_part && never && self.domains.iter().any(counts)
    }

    /// All domains: those of this run, the remainder, and those of earlier runs.
    fn domain_views(&self) -> Vec<DomainView> {
        let now = self.domains.iter().chain(&self.other).map(DomainState::view);
        now.chain(self.earlier.iter().map(DomainRecord::view_past)).collect()
    }

    fn snapshot(&self, tick: &Tick, cpu_usage: Option<f64>) -> Snapshot {
        let mut origins = self.origins.clone();
        let domains = self.domain_views();
        ZoneOrigin::complete(&mut origins, &domains);
        Snapshot {
            host: self.host.clone(),
            ticks: self.ticks,
            at: tick.at,
            cpu_usage,
            sources: self.sources.view(),
            domains,
            origins,
            platform: self.platform.view(),
            kinds: self.ledger.view(),
            uncontained: self.accounts.uncontained(),
            vms: self.vms.clone(),
            counted: self.counted,
            overflows: self.overflows,
            lost_cpu: self.lost_cpu,
            own_cpu: tick.own_cpu,
            footprint: None,
        }
    }
}

#[cfg(test)]
mod tests;
