//! The meter `estimate` (`[meter.estimate]`): power of packages and memory from CPU utilisation (/proc/stat) and a
//! power model, for machines where nothing measures it. The model is what this machine's own meter taught while it
//! measured, else one of such a machine from a file (`power_model::stand_in`), else the prior of the machine
//! (`power_model::prior`). With one of the first two, the power of the whole machine is estimated, too, while no meter
//! measures that. It is labelled as an estimate everywhere, and has an interval.
//!
//! For each package and read, E += P(u) · Δt, where u is the busy share of the time, and P is a curve with straight
//! lines between its points: in integers, with the remainder carried. Memory is a domain of its own on servers, by the
//! busy share of all CPUs. With watts in the configuration the curve is a straight line and the packages get a share of
//! those watts, which are wall power of a whole server divided by its hardware threads; memory is then in no domain.

mod curve;
pub mod machine;
mod model;
mod stand_in;
mod stat;
mod watts;

use super::open::{Opening, Section};
use super::standby::{Needed, Standby};
use super::topology::{Topology, package_of};
use super::{Meter, Roots};
use crate::model::domain::{Domain, DomainReading, PowerInterval, Quality, Reading, Scope, Zone};
use crate::model::source::Stamp;
use crate::model::source::{Health, PackageId};
use crate::model::units::{Microwatts, Nanos};
use crate::model::values::{Use, broken};
use crate::power_model::prior::{self, Prior};
use crate::power_model::samples::Target;
use crate::power_model::stand_in::{Known, Wanted, choose};
use curve::{Curve, Energy};
use model::Model;
use serde::Deserialize;
use stand_in::StandIn;
use stat::Stat;
use std::path::PathBuf;

/// Name of this source.
pub const SOURCE: &str = "estimate";

/// The packages' share of the wall power that the configuration or the table has: what remains at full load after the
/// losses of the power supply (6 to 8 %), memory (10 to 18 %), fans, disks, board and network (about 10 %). An
/// assumption. At idle the true share is closer to a half, so idle comes out high.
pub const PACKAGE_SHARE: f64 = 0.65;

/// The most watts of a hardware thread that are believed.
const MOST_WATTS: f64 = 1000.0;

/// `[meter.estimate]`: the estimate, used where nothing is measured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EstimateConfig {
    /// When it is used.
    pub r#use: Use,
    /// Wall power per hardware thread of this server at rest, in watts, in place of the table's.
    pub idle_watts_per_thread: Option<f64>,
    /// The same at full load.
    pub full_watts_per_thread: Option<f64>,
    /// Share of those watts that the packages draw, above 0 and up to 1, in place of [`PACKAGE_SHARE`]. Use 1 if the
    /// configured watts are those of the packages alone.
    pub package_share: Option<f64>,
}

impl Section for EstimateConfig {
    fn check(&self) -> Vec<(String, String)> {
        let share_ok = self.package_share.is_none_or(|share| share > 0.0 && share <= 1.0);
        let watts_ok = |watts: Option<f64>| watts.is_none_or(|watts| (0.0..=MOST_WATTS).contains(&watts));
        // Of the two the table has one where it is not configured.
        let full = self.full_watts_per_thread.unwrap_or_else(watts::highest);
        let ordered = self.idle_watts_per_thread.is_none_or(|idle| idle <= full || !watts_ok(Some(idle)));
        let lower = match self.full_watts_per_thread {
            Some(_) => "at most full_watts_per_thread: a machine at rest does not draw more than at full load",
            None => "at most what any processor of the table draws at full load: set full_watts_per_thread, too",
        };
        [
            ("package_share", share_ok, "above 0, at most 1"),
            ("idle_watts_per_thread", watts_ok(self.idle_watts_per_thread), "0 to 1000 watts"),
            ("full_watts_per_thread", watts_ok(self.full_watts_per_thread), "0 to 1000 watts"),
            ("idle_watts_per_thread", ordered, lower),
        ]
        .into_iter()
        .filter(|(_, ok, _)| !ok)
        .map(|(key, _, rule)| (key.to_owned(), broken(rule)))
        .collect()
    }

    fn open(&self, opening: &mut Opening<'_>) {
        let open = |opening: &Opening<'_>| Estimate::open(self, opening.roots, opening.topology);
        match self.r#use {
            Use::Never => opening.unused(SOURCE, "not wanted: use = \"never\" in [meter.estimate]"),
            Use::Always => {
                let always = |meter| Standby::new(meter, || Needed::All, "");
                opening.add_or_fail(SOURCE, open(opening).map(always));
            }
            Use::Auto => opening.add_standby(SOURCE, open(opening)),
        }
    }
}

/// Power at rest over power at full load of a machine like this one, between 0 and 1: the prior of the idle floor.
pub fn idle_to_full_ratio(roots: &Roots, topology: &Topology) -> f64 {
    Prior::of(&machine::machine(roots, topology)).idle_to_full_ratio()
}

/// The estimate, with its state per CPU and package.
pub struct Estimate {
    sysfs: PathBuf,
    path: String,
    stat: Stat,
    /// The clock tick of /proc/stat.
    tick: Nanos,
    machine: prior::Machine,
    /// What counts where no better model is known.
    model: Model,
    /// Its power of a package by the busy share of its threads, for one thread.
    curve: Curve,
    memory: Option<Memory>,
    platform: Option<Whole>,
    /// The models that there are.
    known: Known,
    /// Time of the last successful read, CLOCK_MONOTONIC.
    last: Option<Nanos>,
    cpus: Vec<CpuState>,
    packages: Vec<Package>,
    domains: Vec<Domain>,
    /// What `model` is based on.
    described: String,
    /// What the estimate is based on, for its health.
    basis: String,
    /// Error of the last read.
    error: Option<String>,
}

/// The domain of memory.
struct Memory {
    /// Its index in `domains`.
    domain: usize,
    /// The prior's power of it by the busy share of all threads, for one thread; `None`: the prior does not say it.
    curve: Option<Curve>,
    energy: Energy,
    /// Of the time up to the last read.
    interval: Option<PowerInterval>,
}

/// The domain of the whole machine.
struct Whole {
    /// Its index in `domains`.
    domain: usize,
    /// `None`: its model is gone.
    model: Option<StandIn>,
    energy: Energy,
    /// Of the time up to the last read.
    interval: Option<PowerInterval>,
}

/// State of one CPU.
#[derive(Clone, Copy, Default)]
struct CpuState {
    /// Index of its package in `packages`; `None`: this CPU was never seen online.
    package: Option<usize>,
    busy_ticks: u64,
}

/// State of one package.
struct Package {
    id: PackageId,
    /// Its index in `domains`.
    domain: usize,
    /// Its threads that are online.
    threads: u64,
    /// The most threads of it that were online at once.
    most: u64,
    /// Busy time not yet turned into energy. The kernel counts a clock tick when it ends, so an interval may show more
    /// busy time than it is long.
    busy: Nanos,
    /// What stands in for its meter; `None`: the prior does.
    model: Option<StandIn>,
    /// The same for its memory.
    memory: Option<StandIn>,
    energy: Energy,
    /// Of the time up to the last read.
    interval: Option<PowerInterval>,
}

impl Estimate {
    /// Opens the estimate and reads /proc/stat for the first time.
    ///
    /// # Errors
    /// The configured figures contradict each other, or /proc/stat cannot be read.
    pub fn open(config: &EstimateConfig, roots: &Roots, topology: &Topology) -> Result<Self, String> {
        let configured =
            config.idle_watts_per_thread.or(config.full_watts_per_thread).or(config.package_share).is_some();
        let machine = machine::machine(roots, topology);
        let (model, curve, memory, described) =
            if configured { model::per_thread(config, &topology.model)? } else { model::by_prior(&machine) };
        let mut meter = Self {
            sysfs: roots.sysfs.clone(),
            path: "/proc/stat".to_owned(),
            stat: Stat::new(roots.procfs.join("stat")),
            tick: clock_tick(),
            machine,
            model,
            curve,
            memory: None,
            platform: None,
            known: Known::default(),
            last: None,
            cpus: Vec::new(),
            packages: Vec::new(),
            domains: Vec::new(),
            basis: described.clone(),
            described,
            error: None,
        };
        for (package, threads) in topology.packages() {
            meter.package(package, Some(threads));
        }
        if let Some(curve) = memory {
            let at_rest = curve.at_rest(u64::from(meter.machine.threads));
            let domain = meter.domain("estimate/dram".to_owned(), Zone::Dram, Scope::Machine, Some(at_rest));
            meter.memory = Some(Memory { domain, curve: Some(curve), energy: Energy::default(), interval: None });
        }
        meter.read_busy_time().map(|()| meter)
    }

    /// Appends a domain, and returns its index.
    fn domain(&mut self, id: String, zone: Zone, scope: Scope, at_rest: Option<Microwatts>) -> usize {
        self.domains.push(Domain {
            billed: true,
            quality: Quality::Estimated,
            at_rest,
            // 10 kW, ten times the limit for packages with RAPL. The estimate cannot jump as a counter can, so the
            // limit may be loose.
            max_power: Microwatts(10_000_000_000),
            ..Domain::measured(id, SOURCE, zone, scope, self.path.clone())
        });
        self.domains.len() - 1
    }

    /// The index of a package, which is added if it is new. `threads`: its number of online threads; `None` for a
    /// package found later, whose threads come online one by one.
    fn package(&mut self, id: PackageId, threads: Option<usize>) -> usize {
        self.packages.iter().position(|package| package.id == id).unwrap_or_else(|| {
            let at_rest = threads.map(|threads| self.curve.at_rest(threads as u64));
            let name = format!("estimate/package-{}", id.0);
            let domain = self.domain(name, Zone::Package, Scope::Package(id), at_rest);
            let most = threads.unwrap_or_default() as u64;
            self.packages.push(Package { most, ..Package::new(id, domain) });
            self.packages.len() - 1
        })
    }

    /// Counts the online threads of each package, and adds their busy time since the last read.
    fn read_busy_time(&mut self) -> Result<(), String> {
        for package in &mut self.packages {
            package.threads = 0;
        }
        let Self { stat, cpus, packages, tick, .. } = self;
        let mut unknown = false;
        stat.read(|cpu, busy_ticks| match cpus.get_mut(cpu as usize) {
            Some(CpuState { package: Some(package), busy_ticks: last }) => {
                let busy = busy_ticks.saturating_sub(*last).saturating_mul(tick.0);
                *last = busy_ticks;
                let package = &mut packages[*package];
                package.threads += 1;
                package.busy += Nanos(busy);
            }
            _ => unknown = true,
        })?;
        if unknown { self.add_new_cpus() } else { Ok(()) }
    }

    /// Adds CPUs that are seen for the first time. Their busy time up to now is not counted, because an unknown part of
    /// it is from before this interval.
    fn add_new_cpus(&mut self) -> Result<(), String> {
        let mut new = Vec::new();
        let cpus = &self.cpus;
        self.stat.read(|cpu, busy_ticks| {
            if cpu < MAX_CPUS && cpus.get(cpu as usize).is_none_or(|state| state.package.is_none()) {
                new.push((cpu, busy_ticks));
            }
        })?;
        let before = self.packages.len();
        for (cpu, busy_ticks) in new {
            let package = self.package(package_of(&self.sysfs, cpu), None);
            self.packages[package].threads += 1;
            if self.cpus.len() <= cpu as usize {
                self.cpus.resize(cpu as usize + 1, CpuState::default());
            }
            self.cpus[cpu as usize] = CpuState { package: Some(package), busy_ticks };
        }
        if self.packages.len() > before {
            self.choose();
        }
        Ok(())
    }
}

/// The kernel's largest CONFIG_NR_CPUS.
const MAX_CPUS: u32 = 8192;

impl Package {
    fn new(id: PackageId, domain: usize) -> Self {
        let (busy, energy) = (Nanos::ZERO, Energy::default());
        Self { id, domain, threads: 0, most: 0, busy, model: None, memory: None, energy, interval: None }
    }

    /// Takes the busy time of `span`: that, and the time of all its threads. `whole`: also of those that are offline.
    fn take(&mut self, span: Nanos, whole: bool) -> (Nanos, Nanos) {
        self.most = self.most.max(self.threads);
        let threads = if whole { self.most } else { self.threads };
        let capacity = Nanos(span.0.saturating_mul(threads));
        let busy = self.busy.min(capacity);
        // More than a second of carried busy time per thread cannot come from the rounding of clock ticks, so it is
        // dropped.
        self.busy = (self.busy - busy).min(Nanos(threads * Nanos::SECOND.0));
        (busy, capacity)
    }
}

impl Estimate {
    /// Adds the energy of `span` to every domain.
    fn integrate(&mut self, span: Nanos) {
        let (mut all_busy, mut all_capacity, mut all_threads) = (Nanos::ZERO, Nanos::ZERO, 0);
        // In a VM a vCPU that is offline draws nothing. Elsewhere the package draws what it draws, whichever of its
        // threads are online.
        let whole = !self.machine.guest && !matches!(self.model, Model::PerThread);
        let by_package = self.has_memory_models();
        let mut of_memory = Vec::new();
        for package in &mut self.packages {
            let (busy, capacity) = package.take(span, whole);
            let threads = if whole { package.most } else { package.threads };
            package.energy.add(package.model.as_ref().map_or(&self.curve, |model| &model.curve), busy, capacity);
            package.interval = match &package.model {
                Some(model) => model.interval(busy, capacity, threads),
                None => self.model.interval(busy, capacity, threads, |prior, load| Some(prior.package(load))),
            };
            if let (Some(memory), Some(model)) = (&mut self.memory, package.memory.as_ref().filter(|_| by_package)) {
                memory.energy.add(&model.curve, busy, capacity);
                of_memory.push(model.interval(busy, capacity, threads));
            }
            (all_busy, all_capacity, all_threads) = (all_busy + busy, all_capacity + capacity, all_threads + threads);
        }
        if let Some(memory) = &mut self.memory {
            memory.interval = match &memory.curve {
                _ if by_package => stand_in::sum(of_memory.into_iter()),
                Some(curve) => {
                    memory.energy.add(curve, all_busy, all_capacity);
                    self.model.interval(all_busy, all_capacity, all_threads, Prior::dram)
                }
                None => None,
            };
        }
        if let Some(Whole { model: Some(model), energy, interval, .. }) = &mut self.platform {
            energy.add(&model.curve, all_busy, all_capacity);
            *interval = model.interval(all_busy, all_capacity, all_threads);
        }
    }

    /// Whether the memory of every package has a model.
    fn has_memory_models(&self) -> bool {
        !self.packages.is_empty() && self.packages.iter().all(|package| package.memory.is_some())
    }

    /// Chooses the model of each domain.
    fn choose(&mut self) {
        let (known, machine) = (self.known.clone(), self.machine.clone());
        let find = |target: Target, scope: Scope, threads: u64| {
            let threads = u32::try_from(threads).unwrap_or(u32::MAX);
            let chosen = choose(&known, &Wanted { target, scope, threads, machine: &machine })?;
            Some(StandIn::new(chosen, u64::from(threads)))
        };
        // What the operator configured counts more than any model.
        let configured = matches!(self.model, Model::PerThread);
        for package in &mut self.packages {
            let threads = package.most.max(package.threads);
            let of = |target: Target| find(target, Scope::Package(package.id), threads).filter(|_| !configured);
            (package.model, package.memory) = (of(Target::Package), of(Target::Dram));
            let rest = package.model.as_ref().map(StandIn::at_rest);
            let prior = self.domains[package.domain].at_rest.map(|_| self.curve.at_rest(threads));
            self.domains[package.domain].at_rest = rest.or(prior);
        }
        let all = self.packages.iter().map(|package| package.most.max(package.threads)).sum();
        if self.has_memory_models() {
            let rest = self.packages.iter().filter_map(|package| Some(package.memory.as_ref()?.at_rest()));
            let at_rest = Some(rest.sum());
            match self.memory.as_ref().map(|memory| memory.domain) {
                Some(domain) => self.domains[domain].at_rest = at_rest,
                None => {
                    let domain = self.domain("estimate/dram".to_owned(), Zone::Dram, Scope::Machine, at_rest);
                    self.memory = Some(Memory { domain, curve: None, energy: Energy::default(), interval: None });
                }
            }
        }
        let model = find(Target::Platform, Scope::Machine, all);
        match (&mut self.platform, model) {
            (Some(whole), model) => whole.model = model,
            (None, Some(model)) => {
                let domain = self.domain("estimate/platform".to_owned(), Zone::Platform, Scope::Machine, None);
                // Contains the packages and the memory.
                self.domains[domain].billed = false;
                let energy = Energy::default();
                self.platform = Some(Whole { domain, model: Some(model), energy, interval: None });
            }
            (None, None) => {}
        }
        self.describe();
    }

    /// Says what the estimate is based on now.
    fn describe(&mut self) {
        let with = || self.packages.iter().filter_map(|package| Some((package, package.model.as_ref()?)));
        let without: Vec<String> = self
            .packages
            .iter()
            .filter(|package| package.model.is_none())
            .map(|package| package.id.0.to_string())
            .collect();
        let mut basis = self.described.clone();
        if with().next().is_some() {
            let by = stand_in::described(with().map(|(_, model)| model.chosen()));
            basis = format!("estimate, not a measurement: packages by {by}");
            if !without.is_empty() {
                basis += &format!("; package {} by the prior", without.join(", "));
            }
        }
        let memory = self.packages.iter().filter_map(|package| Some(package.memory.as_ref()?.chosen()));
        if self.has_memory_models() {
            basis += &format!("; memory by {}", stand_in::described(memory));
        } else if with().next().is_some() && self.memory.is_some() {
            basis += "; memory by the prior";
        }
        if let Some(said) = self.platform_stand_in().filter(|_| self.known.platform_is_away) {
            basis += &format!("; the whole machine by {said}");
        }
        self.basis = basis;
    }
}

impl Meter for Estimate {
    fn source(&self) -> &str {
        SOURCE
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// After an error the next read covers the whole time since the last good one, as /proc/stat is cumulative.
    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        self.error = self.read_busy_time().err();
        if self.error.is_none() {
            let span = now.monotonic - self.last.unwrap_or(now.monotonic);
            self.last = Some(now.monotonic);
            self.integrate(span);
        }
        let packages = self.packages.iter().map(|package| (package.domain, package.energy.total(), package.interval));
        let memory = self.memory.iter().filter(|memory| memory.curve.is_some() || self.has_memory_models());
        let memory = memory.map(|memory| (memory.domain, memory.energy.total(), memory.interval));
        let whole = self.platform.iter().filter(|whole| whole.model.is_some());
        let whole = whole.map(|whole| (whole.domain, whole.energy.total(), whole.interval));
        for (domain, total, interval) in packages.chain(memory).chain(whole) {
            let reading = match &self.error {
                None => Ok(Reading::Counter { total, wraps_at: None }),
                Some(error) => Err(error.clone()),
            };
            let reading = DomainReading::new(self.domains[domain].id.clone(), now.monotonic, reading);
            out.push(DomainReading { interval: interval.filter(|_| self.error.is_none()), ..reading });
        }
        // Domains whose models are gone.
        let memory = self.memory.iter().filter(|memory| memory.curve.is_none() && !self.has_memory_models());
        let whole = self.platform.iter().filter(|whole| whole.model.is_none());
        for domain in memory.map(|memory| memory.domain).chain(whole.map(|whole| whole.domain)) {
            out.push(DomainReading::standby(&self.domains[domain], now.monotonic));
        }
    }

    fn health(&self) -> Health {
        match &self.error {
            Some(error) => Health::Failed(error.clone()),
            None => Health::Degraded(self.basis.clone()),
        }
    }

    fn set_models(&mut self, known: &Known) {
        let same = self.known.same_models(known);
        let moved = self.known.platform_is_away != known.platform_is_away;
        self.known = known.clone();
        if !same {
            self.choose();
        } else if moved {
            self.describe();
        }
    }

    fn platform_stand_in(&self) -> Option<String> {
        Some(stand_in::described([self.platform.as_ref()?.model.as_ref()?.chosen()].into_iter()))
    }
}

/// The clock tick of /proc/stat (USER_HZ).
fn clock_tick() -> Nanos {
    Nanos(Nanos::SECOND.0 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests;
