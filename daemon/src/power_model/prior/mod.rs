//! The prior: what a machine is expected to draw by load, from its description alone. Nothing is measured on it.
//!
//! - *Package*: the TDP of the processor by its name, else by a regression on generation, cores and frequency; times a
//!   curve of load. With turbo the curve is that of cloud bare metal, measured by RAPL. Tuned for efficiency, as the
//!   servers of SPECpower are, the packages are a share of the whole server.
//! - *Memory*: watts per GiB at rest, and more by load of the CPUs.
//! - *Whole server*: a ridge regression on SPECpower's results.
//!
//! Each interval holds 90 % of the values of processors that were left out of the fit; where nothing was measured, an
//! assumption takes its place, and the description says so. In a VM everything is the guest's part of a host of this
//! kind, by its vCPUs. docs/power-models.md has the figures, packaging/dev/fit-prior.py makes the tables.

mod name;
mod tables;

use super::Predicted;
use std::fmt::Write as _;
use tables::{ByLoad, GENERATIONS, Generation};

/// How the frequency of the processors is controlled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Not known: with turbo if the processor is made for a cloud, else as SPECpower's servers are tuned.
    #[default]
    Unknown,
    /// The processors raise their frequency above the nominal one: the default of firmware, and of clouds.
    Turbo,
    /// They do not, as in the servers of SPECpower.
    Efficient,
}

/// A description of a machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// `model name` of /proc/cpuinfo; empty where it has none (ARM).
    pub cpu: String,
    /// Generation by family and model number, as `meter::cpu` names it; `None`: by the name.
    pub generation: Option<&'static str>,
    /// Whether it is a server's processor; `None`: by the name.
    pub server: Option<bool>,
    /// Number of packages, at least 1.
    pub packages: u32,
    /// Hardware threads of all packages, at least 1; in a VM, its vCPUs.
    pub threads: u32,
    /// Memory in GiB; `None`: not known.
    pub memory_gib: Option<f64>,
    /// Whether it is a VM.
    pub guest: bool,
    /// How its frequency is controlled.
    pub policy: Policy,
}

/// The expected power of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// All packages, by load.
    package: [Predicted; 11],
    /// All memory, by load; `None`: its size is not known.
    dram: Option<[Predicted; 11]>,
    /// The whole machine at the wall, by load.
    platform: [Predicted; 11],
    /// TDP of one package of the host in watts, and where it is from.
    tdp: f64,
    tdp_from: TdpFrom,
    /// Turbo or not, as it was used.
    turbo: bool,
    server: bool,
    described: String,
}

/// Where a TDP comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TdpFrom {
    /// The table of processors.
    Listed,
    /// Generation, cores and frequency.
    Regressed,
    /// The threads alone, as of servers of its generation, or of all.
    Threads,
}

/// TDP of a thread of processors of which nothing is known but that they are a server's: the median of the generations
/// since 2017.
const WATTS_PER_THREAD: f64 = 3.6;
/// The same of a client's: 65 W with 12 threads. An assumption.
const CLIENT_WATTS_PER_THREAD: f64 = 5.4;
/// Wall power of an ARM server's thread at rest and at full load, in watts: the middle of Altra Q64 and Altra Max in
/// kepler-model-db's curves of SPEC's results (0.6 to 1.0, 1.8 to 2.0).
const ARM_WATTS_PER_THREAD: (f64, f64) = (0.7, 1.9);
/// Share of the wall power that the packages draw in a server tuned for efficiency, at rest and at full load: the rest
/// is memory (10 to 18 %), fans, disks, board, network (10 %) and losses (6 to 8 %). An assumption.
const SHARE: (f64, f64) = (0.45, 0.65);
/// Factor by which that share may be wrong, either way. An assumption.
const SHARE_SPREAD: f64 = 1.25;
/// Part of the wall power that leaves a server's power supply.
const SUPPLY: f64 = 0.92;
/// Factor of the intervals of what was not measured: packages with turbo that are not Intel servers, clients, ARM. An
/// assumption.
const UNMEASURED_SPREAD: f64 = 1.6;
/// Factor by which intervals are wider where the TDP is not listed: errors of the regression on CPU models left out.
const REGRESSED_SPREAD: f64 = 1.35;
/// Memory beyond this many times that of SPECpower's servers of its generation is not scaled by the regression: it adds
/// what memory draws.
const MUCH_MEMORY: f64 = 4.0;
/// Least memory that the regression is asked for, in GiB.
const LEAST_GIB: f64 = 2.0;
/// Hardware threads and packages of the servers that were fitted: beyond them the regression extrapolates.
const SEEN_THREADS: std::ops::RangeInclusive<f64> = 2.0..=480.0;
const SEEN_PACKAGES: f64 = 8.0;
/// Factor by which the interval is wider there. An assumption.
const EXTRAPOLATION_SPREAD: f64 = 1.5;

/// Generations without results of their own, and the nearest that has some.
const NEAREST: [(&str, &str); 15] = [
    ("Granite Rapids", "Emerald Rapids"),
    ("Sierra Forest", "Emerald Rapids"),
    ("Clearwater Forest", "Emerald Rapids"),
    ("EPYC 5th Gen", "EPYC 4th Gen"),
    ("EPYC 4004", "EPYC 4th Gen"),
    ("Skylake client", "Skylake"),
    ("Comet Lake", "Coffee Lake"),
    ("Tiger Lake", "Rocket Lake"),
    ("Alder Lake", "Rocket Lake"),
    ("Raptor Lake", "Rocket Lake"),
    ("Ice Lake client", "Rocket Lake"),
    ("Meteor Lake", "Rocket Lake"),
    ("Arrow Lake", "Rocket Lake"),
    ("Zen 3 client", "Rocket Lake"),
    ("Zen 4 client", "Rocket Lake"),
];

/// ARM's server cores, as `meter::cpu` names them.
const ARM: [&str; 8] = [
    "Cortex-A72",
    "Neoverse N1",
    "Neoverse N2",
    "Neoverse N3",
    "Neoverse V1",
    "Neoverse V2",
    "Neoverse V3",
    "AmpereOne",
];

/// One load's watts with an interval.
fn between(watts: f64, low: f64, high: f64) -> Predicted {
    Predicted { watts, low: low.min(watts).max(0.0), high: high.max(watts), extrapolating: false }
}

/// The value of a curve at a load of 0 to 1: a straight line between the eleven points.
fn at(curve: &[Predicted; 11], load: f64) -> Predicted {
    let place = load.clamp(0.0, 1.0) * 10.0;
    let lower = (place.floor() as usize).min(9);
    let part = place - lower as f64;
    let (a, b) = (curve[lower], curve[lower + 1]);
    let mix = |a: f64, b: f64| a + (b - a) * part;
    Predicted {
        watts: mix(a.watts, b.watts),
        low: mix(a.low, b.low),
        high: mix(a.high, b.high),
        extrapolating: a.extrapolating || b.extrapolating,
    }
}

/// Power does not fall with load.
fn rising(curve: &mut [Predicted; 11]) {
    for load in 1..11 {
        let (before, one) = (curve[load - 1], &mut curve[load]);
        one.watts = one.watts.max(before.watts);
        one.low = one.low.max(before.low).min(one.watts);
        one.high = one.high.max(before.high);
    }
}

fn scaled(curve: [Predicted; 11], by: f64) -> [Predicted; 11] {
    curve.map(|p| Predicted { watts: p.watts * by, low: p.low * by, high: p.high * by, ..p })
}

/// What is known of one processor model.
struct Processor {
    key: String,
    /// The generation's own name.
    generation: Option<&'static str>,
    /// The fitted generation that it is taken for.
    fitted: Option<&'static Generation>,
    server: bool,
    arm: bool,
}

impl Processor {
    fn of(machine: &Machine) -> Self {
        let key = name::normalise(&machine.cpu);
        let generation = machine.generation.or_else(|| name::generation(&machine.cpu));
        let row = |name: &str| GENERATIONS.iter().find(|row| row.name == name);
        let stand_in = |name| NEAREST.iter().find(|(from, _)| *from == name).and_then(|(_, to)| row(to));
        let fitted = generation.and_then(|name| row(name).or_else(|| stand_in(name)));
        let arm = generation.is_some_and(|name| ARM.contains(&name));
        // Machines of which nothing is known are taken for servers, and VMs for parts of servers.
        let unknown = key.is_empty() || (machine.guest && generation.is_none());
        let server = machine.server.unwrap_or_else(|| arm || unknown || name::is_server(&key));
        Self { key, generation, fitted, server, arm }
    }

    /// Whether results of this very generation were fitted.
    fn is_fitted(&self) -> bool {
        self.fitted.is_some_and(|row| Some(row.name) == self.generation)
    }
}

/// The host that a machine is, or is a part of.
struct Host {
    packages: f64,
    threads: f64,
    gib: f64,
    ghz: f64,
    tdp: f64,
    tdp_from: TdpFrom,
}

impl Host {
    fn of(machine: &Machine, cpu: &Processor) -> Self {
        let typical = cpu.fitted.map_or(WATTS_PER_THREAD, |row| row.watts_per_thread);
        let typical = if cpu.server { typical } else { CLIENT_WATTS_PER_THREAD };
        let ghz = name::ghz(&machine.cpu).or(cpu.fitted.map(|row| row.ghz)).unwrap_or(2.5);
        let listed = name::listed_tdp(&cpu.key);
        let (mut packages, mut threads) = (f64::from(machine.packages.max(1)), f64::from(machine.threads.max(1)));
        if machine.guest {
            // Its packages and threads are what its VMM makes up. Hosts are servers of two packages.
            packages = if cpu.server { 2.0 } else { 1.0 };
            let of_one = name::threads_of_a_package(&cpu.key).map(f64::from);
            threads = packages * of_one.or(listed.map(|tdp| (tdp / typical).max(1.0))).unwrap_or(48.0);
        }
        let per_package = (threads / packages).max(1.0);
        let (tdp, tdp_from) = match (listed, cpu.fitted) {
            (Some(watts), _) => (watts, TdpFrom::Listed),
            (None, Some(row)) if cpu.server && name::ghz(&machine.cpu).is_some() && !cpu.key.is_empty() => {
                let cores = (per_package / row.smt).max(1.0);
                let [one, per_cores, per_ghz] = tables::TDP;
                ((one + per_cores * cores.ln() + per_ghz * (ghz / 2.5).ln() + row.tdp_offset).exp(), TdpFrom::Regressed)
            }
            _ => (typical * per_package, TdpFrom::Threads),
        };
        let of_thread = cpu.fitted.map_or(2.0, |row| row.gib_per_thread);
        let gib = match machine.memory_gib {
            Some(gib) => gib / f64::from(machine.threads.max(1)) * threads,
            None => of_thread * threads,
        };
        Self { packages, threads, gib, ghz, tdp, tdp_from }
    }

    /// Watts of memory of this many GiB, by load.
    fn memory(gib: f64) -> [Predicted; 11] {
        std::array::from_fn(|load| {
            let [rest, added] = tables::DRAM;
            let watts = gib * (rest + added * tables::DRAM_SHAPE[load]);
            // What load of the CPUs does not tell: work that does little but use memory.
            let stress = gib * (rest + (tables::DRAM_STRESS - rest) * load as f64 / 10.0);
            between(watts, watts / tables::DRAM_SPREAD, stress.max(watts * tables::DRAM_SPREAD))
        })
    }

    /// The whole server as SPECpower's are tuned, by load.
    fn efficient(&self, cpu: &Processor) -> [Predicted; 11] {
        if cpu.arm {
            let (rest, full) = ARM_WATTS_PER_THREAD;
            return std::array::from_fn(|load| {
                let watts = self.threads * (rest + (full - rest) * load as f64 / 10.0);
                between(watts, watts / UNMEASURED_SPREAD, watts * UNMEASURED_SPREAD)
            });
        }
        let usual = cpu.fitted.map_or(2.0, |row| row.gib_per_thread) * self.threads * MUCH_MEMORY;
        let gib = self.gib.clamp(LEAST_GIB, usual.max(LEAST_GIB));
        let beyond = Self::memory((self.gib - gib).max(0.0));
        let single = self.packages <= 1.0;
        let entry = single && self.tdp <= tables::ENTRY_WATTS;
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let features = [
            (self.tdp * self.packages).ln(),
            self.threads.ln(),
            gib.ln(),
            self.ghz.ln(),
            self.packages.ln(),
            flag(entry),
            flag(single),
        ];
        let (low, high): &(ByLoad, ByLoad) = match (cpu.is_fitted(), entry) {
            (false, _) => &tables::NEW,
            (true, true) => &tables::ENTRY,
            (true, false) => &tables::SERVER,
        };
        let extrapolating = !SEEN_THREADS.contains(&self.threads) || self.packages > SEEN_PACKAGES;
        let wider = if self.tdp_from == TdpFrom::Listed { 1.0 } else { REGRESSED_SPREAD };
        let wider = if extrapolating { wider * EXTRAPOLATION_SPREAD } else { wider };
        let mut curve = std::array::from_fn(|load| {
            let sum: f64 = features.iter().zip(&tables::SLOPES).map(|(feature, slope)| feature * slope[load]).sum();
            let offset = cpu.fitted.map_or(0.0, |row| row.offset[load]);
            let (watts, beyond) = ((tables::INTERCEPT[load] + sum + offset).exp(), beyond[load]);
            let one = between(
                watts + beyond.watts,
                watts * low[load] / wider + beyond.low,
                watts * high[load] * wider + beyond.high,
            );
            Predicted { extrapolating, ..one }
        });
        // Each load has a regression of its own.
        rising(&mut curve);
        curve
    }

    /// Its packages as SPECpower's are tuned: a share of the whole server.
    fn efficient_packages(platform: &[Predicted; 11]) -> [Predicted; 11] {
        std::array::from_fn(|load| {
            let share = SHARE.0 + (SHARE.1 - SHARE.0) * load as f64 / 10.0;
            let p = platform[load];
            between(p.watts * share, p.low * share / SHARE_SPREAD, (p.high * share * SHARE_SPREAD).min(p.high))
        })
    }

    /// Its packages with turbo.
    fn turbo_packages(&self, cpu: &Processor) -> [Predicted; 11] {
        let full = match self.tdp_from {
            // A list that covers the generation lacks a processor that is made for one cloud: its limit is higher.
            TdpFrom::Regressed if cpu.is_fitted() => self.tdp * tables::FULL_OF_CUSTOM,
            _ => self.tdp * tables::FULL_OF_LISTED,
        };
        let measured =
            cpu.server && cpu.key.starts_with("xeon") && cpu.is_fitted() && self.tdp_from != TdpFrom::Threads;
        let spread = if measured { tables::PACKAGE_SPREAD } else { UNMEASURED_SPREAD };
        std::array::from_fn(|load| {
            let watts = full * self.packages * tables::SHAPE[load];
            between(watts, watts / spread, watts * spread)
        })
    }
}

impl Prior {
    /// The prior of a machine. Whatever the description lacks, there is an answer; its interval and
    /// [`Prior::description`] say how much is known.
    pub fn of(machine: &Machine) -> Self {
        let cpu = Processor::of(machine);
        let host = Host::of(machine, &cpu);
        let turbo = !cpu.arm
            && match machine.policy {
                Policy::Turbo => true,
                Policy::Efficient => false,
                Policy::Unknown => machine.guest || !cpu.server || made_for_a_cloud(&cpu, &host),
            };
        let efficient = host.efficient(&cpu);
        let packages = Host::efficient_packages(&efficient);
        let (package, platform) = if turbo {
            let with_turbo = host.turbo_packages(&cpu);
            // What turbo adds to the packages goes through the power supply, too.
            let added = |load: usize, of: fn(&Predicted) -> f64| of(&with_turbo[load]) - of(&packages[load]);
            let mut platform = std::array::from_fn(|load| {
                let plus = |of: fn(&Predicted) -> f64| of(&efficient[load]) + (added(load, of) / SUPPLY).max(0.0);
                between(plus(|p| p.watts), plus(|p| p.low), plus(|p| p.high))
            });
            rising(&mut platform);
            (with_turbo, platform)
        } else {
            (packages, efficient)
        };
        let part = f64::from(machine.threads.max(1)) / host.threads;
        let dram = machine.memory_gib.map(|gib| {
            let mut memory = Host::memory(gib);
            if !turbo {
                // The whole is known better than its parts: what the packages leave of it bounds memory.
                for (load, one) in memory.iter_mut().enumerate() {
                    let room = ((platform[load].watts * SUPPLY - package[load].watts) * part).max(0.0);
                    *one = between(one.watts.min(room), one.low.min(room / tables::DRAM_SPREAD), one.high);
                }
            }
            memory
        });
        let described = describe(machine, &cpu, &host, turbo);
        Self {
            package: scaled(package, part),
            dram,
            platform: scaled(platform, part),
            tdp: host.tdp,
            tdp_from: host.tdp_from,
            turbo,
            server: cpu.server,
            described,
        }
    }

    /// Power of all packages in watts at a load of 0 to 1. In a VM: of its part of them.
    pub fn package(&self, load: f64) -> Predicted {
        at(&self.package, load)
    }

    /// Power of all memory in watts at a load of the CPUs of 0 to 1; `None`: its size is not known.
    pub fn dram(&self, load: f64) -> Option<Predicted> {
        self.dram.as_ref().map(|curve| at(curve, load))
    }

    /// Wall power of the whole machine in watts at a load of 0 to 1. In a VM: of its part of the host.
    pub fn platform(&self, load: f64) -> Predicted {
        at(&self.platform, load)
    }

    /// Power of the packages at rest over that at full load, above 0 and below 1.
    pub fn idle_to_full_ratio(&self) -> f64 {
        self.package[0].watts / self.package[10].watts
    }

    /// Whether it is of processors with turbo.
    pub fn has_turbo(&self) -> bool {
        self.turbo
    }

    /// Whether its processor is a server's, whose package does not include memory.
    pub fn is_server(&self) -> bool {
        self.server
    }

    /// TDP of one package of the host in watts.
    pub fn tdp_watts(&self) -> f64 {
        self.tdp
    }

    /// Whether that TDP is the listed one of this very processor.
    pub fn tdp_is_listed(&self) -> bool {
        self.tdp_from == TdpFrom::Listed
    }

    /// One line for people: the processor, its TDP and where that is from, the curve of load, the interval.
    pub fn description(&self) -> &str {
        &self.described
    }
}

/// Whether a processor is one that a cloud had made for it: by its number, or because the list of its generation lacks
/// it.
fn made_for_a_cloud(cpu: &Processor, host: &Host) -> bool {
    name::is_made_for_a_cloud(&cpu.key) || (host.tdp_from == TdpFrom::Regressed && cpu.is_fitted())
}

fn describe(machine: &Machine, cpu: &Processor, host: &Host, turbo: bool) -> String {
    let mut text = match (machine.cpu.trim(), cpu.generation) {
        ("", None) => "a processor without a name".to_owned(),
        ("", Some(generation)) => generation.to_owned(),
        (name, None) => format!("{name:?}"),
        (name, Some(generation)) => format!("{name:?} ({generation})"),
    };
    // Writing into a String does not fail.
    let _ = match host.tdp_from {
        _ if cpu.arm => write!(text, ", wall watts per thread of published ARM servers"),
        TdpFrom::Listed => write!(text, ", TDP {:.0} W (codecarbon's list)", host.tdp),
        TdpFrom::Regressed => write!(text, ", TDP {:.0} W (by cores, frequency and generation)", host.tdp),
        TdpFrom::Threads => write!(text, ", TDP {:.0} W (not listed: by threads alone)", host.tdp),
    };
    text.push_str(match (turbo, cpu.arm) {
        (true, _) => ", load curve of cloud bare metal by Teads (turbo on)",
        (false, true) => ", straight line of load",
        (false, false) => ", load curve of SPECpower's servers (turbo off)",
    });
    if machine.guest {
        let _ = write!(text, "; a VM: its {} vCPUs' part of a host with {:.0} threads", machine.threads, host.threads);
    }
    text
}

#[cfg(test)]
mod tests;
