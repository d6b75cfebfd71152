//! The meter `estimate` (`[meter.estimate]`): package power from CPU utilisation (/proc/stat) and published watts of
//! similar servers, for machines where nothing measures it. It is labelled as an estimate everywhere.
//!
//! E += (threads · idle · Δt + (full − idle) · busy time) · package share, for each package and read, in integers with
//! the remainder carried. The table's watts are wall power of a whole server divided by its hardware threads, so the
//! package gets a share of them.

pub mod machine;
mod stat;
mod watts;

use super::open::{Opening, Section};
use super::topology::{Topology, package_of};
use super::{CpuModel, Meter, Roots};
use crate::model::domain::{Domain, DomainReading, Quality, Reading, Scope, Zone};
use crate::model::source::Stamp;
use crate::model::source::{Health, PackageId};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::values::{Use, broken};
use serde::Deserialize;
use stat::Stat;
use std::path::PathBuf;
use watts::Watts;

/// Name of this source.
pub const SOURCE: &str = "estimate";

/// The packages' share of wall power: what remains at full load after the losses of the power supply (6 to 8 %), memory
/// (10 to 18 %), fans, disks, board and network (about 10 %). An assumption. At idle the true share is closer to a
/// half, so idle comes out high.
pub const PACKAGE_SHARE: f64 = 0.65;

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
        let watts_ok = |watts: Option<f64>| watts.is_none_or(|watts| (0.0..=100_000.0).contains(&watts));
        [
            ("package_share", share_ok, "above 0, at most 1"),
            ("idle_watts_per_thread", watts_ok(self.idle_watts_per_thread), "0 to 100000 watts"),
            ("full_watts_per_thread", watts_ok(self.full_watts_per_thread), "0 to 100000 watts"),
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
            Use::Always => opening.add_or_fail(SOURCE, open(opening)),
            Use::Auto => opening.add_standby(SOURCE, open(opening)),
        }
    }
}

/// Power at rest over power at full load of processors like this one, between 0 and 1: the prior of the idle floor.
pub fn idle_to_full_ratio(model: &CpuModel) -> f64 {
    let (watts, ..) = watts::lookup(model);
    watts.idle / watts.full
}

/// The estimate, with its state per CPU and package.
pub struct Estimate {
    sysfs: PathBuf,
    path: String,
    stat: Stat,
    /// The clock tick of /proc/stat.
    tick: Nanos,
    /// Idle power of one hardware thread, times the package share.
    idle: Microwatts,
    /// Full less idle power of one hardware thread, times the package share.
    dynamic: Microwatts,
    /// Time of the last successful read, CLOCK_MONOTONIC.
    last: Option<Nanos>,
    cpus: Vec<CpuState>,
    packages: Vec<Package>,
    domains: Vec<Domain>,
    /// What the estimate is based on, for its health.
    described: String,
    /// Error of the last read.
    error: Option<String>,
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
    threads: u64,
    /// Busy time not yet turned into energy. The kernel counts a clock tick when it ends, so an interval may show more
    /// busy time than it is long.
    busy: Nanos,
    total: Microjoules,
    /// Energy below one microjoule, in µW·ns.
    remainder: u128,
}

/// One microjoule in µW·ns.
const MICROJOULE: u128 = 1_000_000_000;

impl Estimate {
    /// Opens the estimate and reads /proc/stat for the first time.
    ///
    /// # Errors
    /// The configured figures contradict each other, or /proc/stat cannot be read.
    pub fn open(config: &EstimateConfig, roots: &Roots, topology: &Topology) -> Result<Self, String> {
        let (table, table_name, known_as) = watts::lookup(&topology.model);
        let watts = Watts {
            idle: config.idle_watts_per_thread.unwrap_or(table.idle),
            full: config.full_watts_per_thread.unwrap_or(table.full),
        };
        let share = config.package_share.unwrap_or(PACKAGE_SHARE);
        if !(0.0 <= watts.idle && watts.idle <= watts.full && watts.full <= 1000.0) {
            return Err(format!(
                "[meter.estimate]: {} W idle and {} W full a thread: must be 0 <= idle <= full <= 1000",
                watts.idle, watts.full
            ));
        }
        if !(0.0 < share && share <= 1.0) {
            return Err(format!("[meter.estimate]: package_share {share}: must be above 0 and up to 1"));
        }
        let microwatts = |watts: f64| Microwatts((watts * share * 1e6).round() as u64);
        let mut meter = Self {
            sysfs: roots.sysfs.clone(),
            path: "/proc/stat".to_owned(),
            stat: Stat::new(roots.procfs.join("stat")),
            tick: clock_tick(),
            idle: microwatts(watts.idle),
            dynamic: microwatts(watts.full) - microwatts(watts.idle),
            last: None,
            cpus: Vec::new(),
            packages: Vec::new(),
            domains: Vec::new(),
            described: describe(config, &topology.model, watts, share, table_name, known_as),
            error: None,
        };
        for (package, threads) in topology.packages() {
            meter.package(package, Some(threads));
        }
        meter.read_busy_time().map(|()| meter)
    }

    /// The index of a package, which is added if it is new. `threads`: its number of online threads; `None` for a
    /// package found later, whose threads come online one by one.
    fn package(&mut self, id: PackageId, threads: Option<usize>) -> usize {
        self.packages.iter().position(|package| package.id == id).unwrap_or_else(|| {
            self.packages.push(Package::new(id));
            self.domains.push(Domain {
                id: format!("estimate/package-{}", id.0).into(),
                source: SOURCE.to_owned(),
                zone: Zone::Package,
                scope: Scope::Package(id),
                path: self.path.clone(),
                billed: true,
                quality: Quality::Estimated,
                continuous: false,
                at_rest: threads.map(|threads| Microwatts(self.idle.0 * threads as u64)),
                // 10 kW, ten times the limit for packages with RAPL. The estimate cannot jump as a counter can, so the
                // limit may be loose.
                max_power: Microwatts(10_000_000_000),
                accuracy_ppm: None,
                refresh: None,
                gpu: None,
                platform: None,
                by_host: false,
            });
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
        for (cpu, busy_ticks) in new {
            let package = self.package(package_of(&self.sysfs, cpu), None);
            self.packages[package].threads += 1;
            if self.cpus.len() <= cpu as usize {
                self.cpus.resize(cpu as usize + 1, CpuState::default());
            }
            self.cpus[cpu as usize] = CpuState { package: Some(package), busy_ticks };
        }
        Ok(())
    }
}

/// The kernel's largest CONFIG_NR_CPUS.
const MAX_CPUS: u32 = 8192;

impl Package {
    fn new(id: PackageId) -> Self {
        Self { id, threads: 0, busy: Nanos::ZERO, total: Microjoules::ZERO, remainder: 0 }
    }

    /// Adds the energy of `span` to the total, and keeps the part below a microjoule.
    fn integrate(&mut self, span: Nanos, idle: Microwatts, dynamic: Microwatts) {
        let capacity = Nanos(span.0.saturating_mul(self.threads));
        let busy = self.busy.min(capacity);
        // More than a second of carried busy time per thread cannot come from the rounding of clock ticks, so it is
        // dropped.
        self.busy = (self.busy - busy).min(Nanos(self.threads * Nanos::SECOND.0));
        let energy =
            u128::from(idle.0) * u128::from(capacity.0) + u128::from(dynamic.0) * u128::from(busy.0) + self.remainder;
        self.total += Microjoules(u64::try_from(energy / MICROJOULE).unwrap_or(u64::MAX));
        self.remainder = energy % MICROJOULE;
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
            for package in &mut self.packages {
                package.integrate(span, self.idle, self.dynamic);
            }
        }
        for (domain, package) in self.domains.iter().zip(&self.packages) {
            let reading = match &self.error {
                None => Ok(Reading::Counter { total: package.total, wraps_at: None }),
                Some(error) => Err(error.clone()),
            };
            out.push(DomainReading { domain: domain.id.clone(), at: now.monotonic, reading });
        }
    }

    fn health(&self) -> Health {
        match &self.error {
            Some(error) => Health::Failed(error.clone()),
            None => Health::Degraded(self.described.clone()),
        }
    }
}

/// What the estimate is based on, in one line.
fn describe(
    config: &EstimateConfig,
    model: &CpuModel,
    watts: Watts,
    share: f64,
    table_name: &str,
    known_as: Option<&str>,
) -> String {
    let basis = match (config.idle_watts_per_thread.and(config.full_watts_per_thread), known_as) {
        (Some(_), _) => "configured watts".to_owned(),
        (None, Some(known_as)) if known_as == table_name => format!("published watts of {known_as} servers"),
        (None, Some(known_as)) => format!("published watts of {table_name} servers, the nearest to {known_as}"),
        (None, None) => {
            format!("published watts of {table_name} servers, as this processor is not known ({:?})", model.name)
        }
    };
    let guest = if model.guest {
        "; this is a guest: its threads are vCPUs, and the host may draw more or less for them"
    } else {
        ""
    };
    format!(
        "estimate, not a measurement: utilisation and {basis}, {} to {} W a thread, {:.0} % of it the package's{guest}",
        watts.idle,
        watts.full,
        share * 100.0
    )
}

/// The clock tick of /proc/stat (USER_HZ).
fn clock_tick() -> Nanos {
    Nanos(Nanos::SECOND.0 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests;
