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

mod arm;
mod client;
mod host;
mod name;
mod tables;

use super::Predicted;
use host::{Host, Processor, SUPPLY, TdpFrom};
use std::fmt::Write as _;

/// The most hardware threads that are believed of a machine.
pub const MOST_THREADS: u32 = 8192;
/// The most packages.
pub const MOST_PACKAGES: u32 = 64;
/// The most memory, in GiB: twice that of the largest server. More is given in another unit.
pub const MOST_GIB: f64 = 131_072.0;

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

impl Prior {
    /// The prior of a machine. Whatever the description lacks, there is an answer; its interval and
    /// [`Prior::description`] say how much is known.
    pub fn of(machine: &Machine) -> Self {
        let cpu = Processor::of(machine);
        let host = Host::of(machine, &cpu);
        // The limits of a laptop bound its load, whatever its policy says.
        let turbo = !cpu.arm
            && match machine.policy {
                _ if cpu.mobile => true,
                Policy::Turbo => true,
                Policy::Efficient => false,
                Policy::Unknown => machine.guest || !cpu.server || made_for_a_cloud(machine, &cpu, &host),
            };
        let efficient = host.efficient(&cpu);
        let packages = host.efficient_packages(&efficient);
        let (package, platform) = if cpu.mobile && !cpu.arm {
            let package = host.turbo_packages(&cpu);
            (package, host.mobile(&package))
        } else if turbo {
            let with_turbo = host.turbo_packages(&cpu);
            // What turbo adds to the packages goes through the power supply, too.
            let added = |load: usize, of: fn(&Predicted) -> f64| of(&with_turbo[load]) - of(&packages[load]);
            let mut platform = std::array::from_fn(|load| {
                let plus = |of: fn(&Predicted) -> f64| of(&efficient[load]) + (added(load, of) / SUPPLY).max(0.0);
                between(plus(|p| p.watts), plus(|p| p.low), plus(|p| p.high))
            });
            // Hosts of clouds have more memory than SPECpower's servers: the whole is at least its parts.
            let memory = Host::memory(host.gib);
            for (load, whole) in platform.iter_mut().enumerate() {
                let parts = |of: fn(&Predicted) -> f64| (of(&with_turbo[load]) + of(&memory[load])) / SUPPLY;
                whole.watts = whole.watts.max(parts(|p| p.watts));
                whole.low = whole.low.max(parts(|p| p.low)).min(whole.watts);
                whole.high = whole.high.max(parts(|p| p.high));
            }
            rising(&mut platform);
            (with_turbo, platform)
        } else {
            (packages, efficient)
        };
        let part = f64::from(machine.threads.max(1)) / host.threads;
        let dram = machine.memory_gib.map(|gib| {
            let mut memory = if cpu.mobile { Host::mobile_memory(gib) } else { Host::memory(gib) };
            // The whole is known better than its parts: what the packages leave of it bounds memory.
            for (load, one) in memory.iter_mut().enumerate() {
                let room = |whole: f64, packages: f64| ((whole * SUPPLY - packages) * part).max(0.0);
                let (whole, packages) = (platform[load], package[load]);
                if !turbo {
                    let room = room(whole.watts, packages.watts);
                    *one = between(one.watts.min(room), one.low.min(room / tables::DRAM_SPREAD), one.high);
                }
                *one = between(one.watts, one.low, one.high.min(room(whole.high, packages.low)));
            }
            rising(&mut memory);
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

    /// Hardware threads of the host of a VM with such a processor.
    pub fn host_threads(machine: &Machine) -> u32 {
        let guest = Machine { guest: true, ..machine.clone() };
        Host::of(&guest, &Processor::of(&guest)).threads.round() as u32
    }

    /// The most hardware threads that a host of VMs with such processors can have.
    pub fn most_host_threads(machine: &Machine) -> u32 {
        Host::most_threads(&Processor::of(&Machine { guest: true, ..machine.clone() })).round() as u32
    }

    /// Whether it has fewer hardware threads than its packages are known to have, so that it is a VM.
    pub fn is_less_than_a_package(machine: &Machine) -> bool {
        let of_one = name::threads_of_a_package(&name::normalise(&machine.cpu));
        of_one.is_some_and(|threads| machine.threads < threads * machine.packages.max(1))
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
fn made_for_a_cloud(machine: &Machine, cpu: &Processor, host: &Host) -> bool {
    let not_listed = host.tdp_from == TdpFrom::Regressed && cpu.is_fitted() && cpu.is_xeon();
    name::is_made_for_a_cloud(&cpu.key) || (not_listed && name::ghz(&machine.cpu).is_some())
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
        TdpFrom::Letters => write!(text, ", TDP {:.0} W (not listed: by the letters of its name)", host.tdp),
        TdpFrom::Threads => write!(text, ", TDP {:.0} W (not listed: by threads alone)", host.tdp),
    };
    if cpu.arm && !cpu.generation.is_some_and(arm::is_server_core) {
        text.push_str(" (this one is not among them)");
    }
    text.push_str(match (turbo, cpu.arm) {
        (true, _) if cpu.mobile => ", load curve of cloud bare metal by Teads, rest of a laptop",
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
