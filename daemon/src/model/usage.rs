//! What a usage source says ran since its last sample: processes, cgroups, CPU time and GPU time. Plain data; how it is
//! measured is [`crate::usage`]'s, and what a cgroup means is decided in `entity`.

use super::source::{PackageId, PciAddress};
use super::units::Nanos;
use serde::{Deserialize, Serialize};

/// A process for as long as it lives: the kernel gives its id to another process later, so the start is a part of the
/// key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Process id (thread group id). 0 stands for no process in particular: what a cgroup used beyond the processes
    /// that were seen.
    pub pid: u32,
    /// Start since boot in clock ticks of 1/100 s, as field 22 of /proc/PID/stat shows it (CLOCK_BOOTTIME). 0 where it
    /// is not known.
    pub start: u64,
}

impl ProcessKey {
    /// The clock tick that [`ProcessKey::start`] counts: 10 ms.
    pub const CLOCK_TICK: Nanos = Nanos(10_000_000);

    /// The start of the process, CLOCK_BOOTTIME, rounded down to a clock tick.
    pub const fn began(self) -> Nanos {
        Nanos(self.start.saturating_mul(Self::CLOCK_TICK.0))
    }
}

/// A cgroup for as long as it lives: on cgroup v2 the 64-bit kernfs id. On hosts where processes are in v1 hierarchies,
/// ids from [`CgroupId::SYNTHETIC`] on stand for v1 paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// The root of the v2 tree.
    pub const ROOT: Self = Self(1);
    /// The first id that jouled itself gives to v1 paths.
    pub const SYNTHETIC: u64 = 1 << 63;
}

/// An amount of CPU use: of one sample in [`Use`], of a whole series in a snapshot's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Time on a CPU, in nanoseconds.
    pub on_cpu: Nanos,
    /// Unhalted core cycles; 0 where they are not counted.
    pub cycles: u64,
    /// Retired instructions; 0 where they are not counted.
    pub instructions: u64,
    /// Last-level cache misses; 0 where they are not counted.
    pub cache_misses: u64,
}

impl Used {
    /// CPU time of which nothing else was counted.
    pub fn on_cpu(on_cpu: Nanos) -> Self {
        Self { on_cpu, ..Self::default() }
    }

    /// Adds another amount to this one. Saturates.
    pub fn add(&mut self, other: &Self) {
        self.on_cpu += other.on_cpu;
        self.cycles = self.cycles.saturating_add(other.cycles);
        self.instructions = self.instructions.saturating_add(other.instructions);
        self.cache_misses = self.cache_misses.saturating_add(other.cache_misses);
    }
}

/// What one process used in one cgroup and on one package since the last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The process that ran.
    pub process: ProcessKey,
    /// The cgroup in which it ran.
    pub cgroup: CgroupId,
    /// The package on whose CPUs it ran.
    pub package: PackageId,
    /// CPU time and counters since the last sample.
    pub used: Used,
}

/// Names of a process. Sent when a process is first seen, and again when a name changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// The process that has these names.
    pub process: ProcessKey,
    /// The kernel's short name: at most 15 bytes, any bytes, with invalid UTF-8 replaced.
    pub comm: String,
    /// Path of the executable; empty where it is not known: kernel threads, processes that ended too soon, no
    /// permission.
    pub exe: String,
}

/// Which hardware counters fill the [`Used`] of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Whether [`Used::cycles`] is counted.
    pub cycles: bool,
    /// Whether [`Used::instructions`] is counted.
    pub instructions: bool,
    /// Whether [`Used::cache_misses`] is counted.
    pub cache_misses: bool,
}

/// Use on one package that cannot be attributed to a process, because a map of the eBPF programs was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostUse {
    /// The package on whose CPUs it was.
    pub package: PackageId,
    /// CPU time and counters since the last sample.
    pub used: Used,
}

/// What one process used of one GPU since the last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// PCI address of the GPU.
    pub gpu: PciAddress,
    /// The process whose work it was.
    pub process: ProcessKey,
    /// Time for which its work kept the GPU busy, in nanoseconds: the sum over engines, or utilisation × time.
    pub busy: Nanos,
}

/// Use of GPUs since the last sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSample {
    /// Use by process; at most one entry per (GPU, process).
    pub uses: Vec<GpuUse>,
    /// GPUs whose use by process is known, also where no process used them. The energy of all other GPUs is
    /// unattributed.
    pub watched: Vec<WatchedGpu>,
    /// GPUs that are bound to a VFIO driver and handed to VMs: no process of this host uses them.
    pub passed_through: Vec<PciAddress>,
}

/// A GPU whose use by process is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedGpu {
    /// PCI address of the GPU.
    pub gpu: PciAddress,
    /// Whether shares are computed by a rule (MIG: slices) and not from use that was seen.
    pub estimated: bool,
    /// Time for which the GPU was busy since the last sample, in nanoseconds: at least the sum of its
    /// [`GpuSample::uses`]. The excess was work of processes that are not known (ended, in another pid namespace) and
    /// is unattributed.
    pub busy: Nanos,
}

/// A cgroup whose path was seen when it was made (the tracepoint `cgroup_mkdir`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupBorn {
    /// The id of the new cgroup.
    pub cgroup: CgroupId,
    /// Its path from the cgroup root, as in /proc/PID/cgroup: `/system.slice/ssh.service`.
    pub path: String,
}

/// All use since the last sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSample {
    /// Use by process; at most one entry per (process, cgroup, package).
    pub uses: Vec<Use>,
    /// Processes that are new, and those whose name changed.
    pub processes: Vec<ProcessInfo>,
    /// Processes that ended. Their last use is in [`UsageSample::uses`] of this sample or of an earlier one.
    pub ended: Vec<ProcessKey>,
    /// Cgroups that were made since the last sample.
    pub born: Vec<CgroupBorn>,
    /// Use that cannot be attributed, by package.
    pub lost: Vec<LostUse>,
    /// How often an entry did not fit into a bounded map, since the source was opened.
    pub overflows: u64,
    /// The counters that were counted in this sample.
    pub counted: Counted,
}
