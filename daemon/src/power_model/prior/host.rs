//! The host that a machine is, or is a part of: its processor, its TDP, and what it draws with turbo and tuned for
//! efficiency. What becomes of it for the machine is in `prior`.

use super::super::Predicted;
use super::tables::{self, ByLoad, GENERATIONS, Generation};
use super::{Machine, arm, between, client, name, rising};

/// TDP of a thread of processors of which nothing is known but that they are a server's: the median of the generations
/// since 2017.
const WATTS_PER_THREAD: f64 = 3.6;
/// The same of a client's: 65 W with 12 threads. An assumption.
const CLIENT_WATTS_PER_THREAD: f64 = 5.4;
/// The same of Apple's: 20 W with 8 threads (M1) to 55 W with 16 (M3 Max), as reviewers measured them. An assumption.
const APPLE_WATTS_PER_THREAD: f64 = 3.0;
/// Wall power of an ARM server's thread at rest and at full load, in watts: the middle of Altra Q64 and Altra Max in
/// kepler-model-db's curves of SPEC's results (0.6 to 1.0, 1.8 to 2.0).
const ARM_WATTS_PER_THREAD: (f64, f64) = (0.7, 1.9);
/// Share of the wall power that the packages draw in a server tuned for efficiency, at rest and at full load: the rest
/// is memory (10 to 18 %), fans, disks, board, network (10 %) and losses (6 to 8 %). An assumption.
const SHARE: (f64, f64) = (0.45, 0.65);
/// Factor by which that share may be wrong, either way. An assumption.
const SHARE_SPREAD: f64 = 1.25;
/// Part of the wall power that leaves a server's power supply.
pub(super) const SUPPLY: f64 = 0.92;
/// Factor of the intervals of what was not measured: packages with turbo that are not Intel servers, clients, ARM. An
/// assumption.
const UNMEASURED_SPREAD: f64 = 1.6;
/// The same of clients, by what is known of their TDP: firmware sets their limits from half of the listed TDP to more
/// than twice of it (i9-13900K: 125 and 253 W; N100: 6 W, 6 to 25 W). By letters the TDP may be wrong as well; threads
/// alone say little: 1.2 W each of an i7-1365U, 16 W each of an i3-8100. Assumptions.
const CLIENT_SPREADS: (f64, f64, f64) = (2.2, 2.8, 3.6);
/// The same of ARM processors whose core has no figures of its own: boards and older servers.
const OTHER_ARM_SPREAD: f64 = 2.5;
/// Part of full power that a laptop's package draws at rest: its sleep states are deep. An assumption.
const MOBILE_REST: f64 = 0.05;
/// What a laptop draws beside packages and memory in watts: board, disk, network, and a dim screen; lowest and highest.
/// An assumption.
const MOBILE_BOARD: [f64; 3] = [1.5, 3.5, 12.0];
/// Part of the wall power that leaves a laptop's adapter. An assumption.
const ADAPTER: f64 = 0.87;
/// Watts of a laptop's memory over those of a server's, and factor by which they may be lower: soldered memory sleeps.
/// An assumption.
const MOBILE_MEMORY: (f64, f64) = (0.5, 6.0);
/// Factor by which intervals are wider where the TDP is not listed: errors of the regression on CPU models left out.
const REGRESSED_SPREAD: f64 = 1.35;
/// The most that a package draws in units of a listed TDP: loads of wide vectors, measured up to 1.5.
const MOST_OF_LISTED: f64 = 1.5;
/// Memory beyond this many times that of SPECpower's servers of its generation is not scaled by the regression: it adds
/// what memory draws.
const MUCH_MEMORY: f64 = 4.0;
/// Least memory that the regression is asked for, in GiB.
const LEAST_GIB: f64 = 2.0;
/// Hardware threads and packages of the servers that were fitted: beyond them the regression extrapolates.
const SEEN_THREADS: std::ops::RangeInclusive<f64> = 2.0..=480.0;
const SEEN_PACKAGES: f64 = 8.0;
/// Nominal frequencies of the servers that were fitted, in GHz. Others are taken for the nearest of these.
const SEEN_GHZ: std::ops::RangeInclusive<f64> = 1.6..=3.8;
/// Packages of the largest hosts of VMs, with Intel's processors and with others.
const MOST_PACKAGES: (f64, f64) = (8.0, 2.0);
/// Factor by which the interval is wider there. An assumption.
const EXTRAPOLATION_SPREAD: f64 = 1.5;

/// Generations of clients that are in laptops and small boards only.
const MOBILE: [&str; 4] = ["Alder Lake-N", "Ice Lake client", "Tiger Lake", "Lunar Lake"];

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

/// Where a TDP comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TdpFrom {
    /// The table of processors.
    Listed,
    /// Generation, cores and frequency.
    Regressed,
    /// The letters of a client's name: `U`, `HX`, `K`.
    Letters,
    /// The threads alone, as of servers of its generation, or of all.
    Threads,
}

/// What is known of one processor model.
pub(super) struct Processor {
    pub(super) key: String,
    /// The generation's own name.
    pub(super) generation: Option<&'static str>,
    /// The fitted generation that it is taken for.
    pub(super) fitted: Option<&'static Generation>,
    pub(super) server: bool,
    pub(super) arm: bool,
    /// A laptop's or a small board's.
    pub(super) mobile: bool,
}

impl Processor {
    pub(super) fn of(machine: &Machine) -> Self {
        let key = name::normalise(&machine.cpu);
        let generation = machine.generation.or_else(|| name::generation(&machine.cpu));
        let row = |name: &str| GENERATIONS.iter().find(|row| row.name == name);
        let stand_in = |name| NEAREST.iter().find(|(from, _)| *from == name).and_then(|(_, to)| row(to));
        let fitted = generation.and_then(|name| row(name).or_else(|| stand_in(name)));
        let arm = generation.is_some_and(arm::is_arm);
        // Machines of which nothing is known are taken for servers, and VMs for parts of servers.
        let unknown = key.is_empty() || (machine.guest && generation.is_none());
        let server = machine.server.unwrap_or_else(|| arm || unknown || name::is_server(&key));
        let by_letters = client::letters(&key).is_some_and(|letters| letters.mobile) || client::is_apple(&key);
        let mobile = !server && (by_letters || generation.is_some_and(|name| MOBILE.contains(&name)));
        Self { key, generation, fitted, server, arm, mobile }
    }

    /// Whether it is one of Intel's servers.
    pub(super) fn is_xeon(&self) -> bool {
        self.server && self.key.starts_with("xeon")
    }

    /// Whether results of this very generation were fitted.
    pub(super) fn is_fitted(&self) -> bool {
        self.fitted.is_some_and(|row| Some(row.name) == self.generation)
    }
}

/// The host that a machine is, or is a part of.
pub(super) struct Host {
    pub(super) packages: f64,
    pub(super) threads: f64,
    pub(super) gib: f64,
    /// Nominal frequency, and whether that is one of those fitted.
    ghz: f64,
    seen_ghz: bool,
    pub(super) tdp: f64,
    pub(super) tdp_from: TdpFrom,
}

impl Host {
    pub(super) fn of(machine: &Machine, cpu: &Processor) -> Self {
        let typical = cpu.fitted.map_or(WATTS_PER_THREAD, |row| row.watts_per_thread);
        let typical = match cpu.server {
            true => typical,
            false if client::is_apple(&cpu.key) => APPLE_WATTS_PER_THREAD,
            false => CLIENT_WATTS_PER_THREAD,
        };
        let stated = name::ghz(&machine.cpu).or(cpu.fitted.map(|row| row.ghz)).unwrap_or(2.5);
        let (ghz, seen_ghz) = (stated.clamp(*SEEN_GHZ.start(), *SEEN_GHZ.end()), SEEN_GHZ.contains(&stated));
        let listed = name::listed_tdp(&cpu.key);
        let (mut packages, mut threads) = (f64::from(machine.packages.max(1)), f64::from(machine.threads.max(1)));
        if machine.guest {
            // Its packages and threads are what its VMM makes up. Hosts are servers of two packages.
            packages = if cpu.server { 2.0 } else { 1.0 };
            let of_one = name::threads_of_a_package(&cpu.key).map(f64::from);
            let of_one = of_one.or(listed.map(|tdp| (tdp / typical).max(1.0))).unwrap_or(48.0);
            // A VM that is larger than the usual host is a part of a larger one.
            packages = packages.max((threads / of_one).ceil());
            threads = packages * of_one;
        }
        let per_package = (threads / packages).max(1.0);
        let (tdp, tdp_from) = match (listed, cpu.fitted) {
            (Some(watts), _) => (watts, TdpFrom::Listed),
            (None, Some(row)) if cpu.server && name::has_number(&cpu.key) => {
                let cores = (per_package / row.smt).max(1.0);
                let [one, per_cores, per_ghz] = tables::TDP;
                ((one + per_cores * cores.ln() + per_ghz * (ghz / 2.5).ln() + row.tdp_offset).exp(), TdpFrom::Regressed)
            }
            _ => match client::letters(&cpu.key).filter(|_| !cpu.server) {
                Some(letters) => (letters.watts, TdpFrom::Letters),
                None => (typical * per_package, TdpFrom::Threads),
            },
        };
        let of_thread = cpu.fitted.map_or(2.0, |row| row.gib_per_thread);
        let gib = match machine.memory_gib {
            Some(gib) => gib / f64::from(machine.threads.max(1)) * threads,
            None => of_thread * threads,
        };
        Self { packages, threads, gib, ghz, seen_ghz, tdp, tdp_from }
    }

    /// The most hardware threads that a host with such processors can have. The size of a package is known to a half
    /// where it follows from its TDP.
    pub(super) fn most_threads(cpu: &Processor) -> f64 {
        let most = if cpu.is_xeon() { MOST_PACKAGES.0 } else { MOST_PACKAGES.1 };
        let typical = cpu.fitted.map_or(WATTS_PER_THREAD, |row| row.watts_per_thread);
        match (name::threads_of_a_package(&cpu.key), name::listed_tdp(&cpu.key)) {
            (Some(threads), _) => most * f64::from(threads),
            (None, Some(tdp)) if cpu.server => most * 1.5 * (tdp / typical).max(1.0),
            // The largest host of VMs that is sold.
            _ => 1920.0,
        }
    }

    /// The wall power of a laptop or a small board, by load.
    pub(super) fn mobile(&self, packages: &[Predicted; 11]) -> [Predicted; 11] {
        let memory = Self::mobile_memory(self.gib);
        let [low, board, high] = MOBILE_BOARD;
        std::array::from_fn(|load| {
            let (package, memory) = (packages[load], memory[load]);
            between(
                (package.watts + memory.watts + board) / ADAPTER,
                (package.low + memory.low + low) / ADAPTER,
                (package.high + memory.high + high) / ADAPTER,
            )
        })
    }

    /// Watts of a laptop's memory of this many GiB, by load.
    pub(super) fn mobile_memory(gib: f64) -> [Predicted; 11] {
        let (part, lower) = MOBILE_MEMORY;
        Self::memory(gib).map(|p| between(p.watts * part, p.watts * part / lower, p.high))
    }

    /// Watts of memory of this many GiB, by load.
    pub(super) fn memory(gib: f64) -> [Predicted; 11] {
        std::array::from_fn(|load| {
            let [rest, added] = tables::DRAM;
            let watts = gib * (rest + added * tables::DRAM_SHAPE[load]);
            // What load of the CPUs does not tell: work that does little but use memory.
            let stress = gib * (rest + (tables::DRAM_STRESS - rest) * load as f64 / 10.0);
            between(watts, watts / tables::DRAM_SPREAD, stress.max(watts * tables::DRAM_SPREAD))
        })
    }

    /// The whole server as SPECpower's are tuned, by load.
    pub(super) fn efficient(&self, cpu: &Processor) -> [Predicted; 11] {
        if cpu.arm {
            let (rest, full) = ARM_WATTS_PER_THREAD;
            let known = cpu.generation.is_some_and(arm::is_server_core);
            let spread = if known { UNMEASURED_SPREAD } else { OTHER_ARM_SPREAD };
            return std::array::from_fn(|load| {
                let watts = self.threads * (rest + (full - rest) * load as f64 / 10.0);
                between(watts, watts / spread, watts * spread)
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
        let extrapolating = !SEEN_THREADS.contains(&self.threads) || self.packages > SEEN_PACKAGES || !self.seen_ghz;
        // The whole grows with the TDP's power of 0.65, so a TDP that may be wrong by 3 is 2 there.
        let wider = match self.tdp_from {
            TdpFrom::Listed => 1.0,
            TdpFrom::Threads if !cpu.server => CLIENT_SPREADS.2.powf(0.65),
            TdpFrom::Regressed | TdpFrom::Letters | TdpFrom::Threads => REGRESSED_SPREAD,
        };
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
    pub(super) fn efficient_packages(&self, platform: &[Predicted; 11]) -> [Predicted; 11] {
        let most = if self.tdp_from == TdpFrom::Listed { MOST_OF_LISTED * self.tdp * self.packages } else { f64::MAX };
        std::array::from_fn(|load| {
            let share = SHARE.0 + (SHARE.1 - SHARE.0) * load as f64 / 10.0;
            let p = platform[load];
            let high = (p.high * share * SHARE_SPREAD).min(p.high).min(most);
            let one = between(p.watts * share, p.low * share / SHARE_SPREAD, high);
            Predicted { extrapolating: p.extrapolating, ..one }
        })
    }

    /// Its packages with turbo.
    pub(super) fn turbo_packages(&self, cpu: &Processor) -> [Predicted; 11] {
        let full = match self.tdp_from {
            // A list that covers the generation lacks a processor that is made for one cloud: its limit is higher.
            // Known of Intel's only.
            TdpFrom::Regressed if cpu.is_fitted() && cpu.is_xeon() => self.tdp * tables::FULL_OF_CUSTOM,
            _ => self.tdp * tables::FULL_OF_LISTED,
        };
        let measured =
            cpu.server && cpu.key.starts_with("xeon") && cpu.is_fitted() && self.tdp_from != TdpFrom::Threads;
        let spread = match self.tdp_from {
            _ if measured => tables::PACKAGE_SPREAD,
            TdpFrom::Threads if cpu.server => UNMEASURED_SPREAD * REGRESSED_SPREAD,
            _ if cpu.server => UNMEASURED_SPREAD,
            TdpFrom::Listed => CLIENT_SPREADS.0,
            TdpFrom::Letters => CLIENT_SPREADS.1,
            TdpFrom::Regressed | TdpFrom::Threads => CLIENT_SPREADS.2,
        };
        let rest = tables::SHAPE[0];
        let shape = |load: usize| match cpu.mobile {
            true => MOBILE_REST + (1.0 - MOBILE_REST) * (tables::SHAPE[load] - rest) / (1.0 - rest),
            false => tables::SHAPE[load],
        };
        std::array::from_fn(|load| {
            let watts = full * self.packages * shape(load);
            between(watts, watts / spread, watts * spread)
        })
    }
}
