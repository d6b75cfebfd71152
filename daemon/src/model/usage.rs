//! Who ran, as any usage source says it: processes, cgroups, CPU time and GPU time. Pure data.

use super::source::{PackageId, PciAddress};
use super::units::Nanos;
use serde::{Deserialize, Serialize};

/// A process for as long as it lives: the process id alone is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Thread group id. 0: no process in particular (what a cgroup used beyond the processes that were seen).
    pub pid: u32,
    /// Start since boot in clock ticks of 1/100 s, as /proc/PID/stat field 22 shows it (CLOCK_BOOTTIME). 0: not known.
    pub start: u64,
}

impl ProcessKey {
    /// A clock tick of [`ProcessKey::start`].
    pub const CLOCK_TICK: Nanos = Nanos(10_000_000);

    /// When it began, CLOCK_BOOTTIME: at most a clock tick later.
    pub const fn began(self) -> Nanos {
        Nanos(self.start.saturating_mul(Self::CLOCK_TICK.0))
    }
}

/// A cgroup for as long as it lives: on cgroup v2 the 64-bit kernfs id. On hosts where the v2 tree says nothing, ids above
/// [`CgroupId::SYNTHETIC`] stand for v1 paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// The root of the v2 tree.
    pub const ROOT: Self = Self(1);
    /// Ids from here on are made by jouled for v1 paths.
    pub const SYNTHETIC: u64 = 1 << 63;
}

/// What one process used in one cgroup and on one package since the last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Who ran.
    pub process: ProcessKey,
    /// In which cgroup it ran.
    pub cgroup: CgroupId,
    /// On which package's CPUs.
    pub package: PackageId,
    /// Time on a CPU.
    pub on_cpu: Nanos,
    /// Unhalted core cycles; 0 where not counted.
    pub cycles: u64,
    /// Retired instructions; 0 where not counted.
    pub instructions: u64,
    /// Last-level cache misses; 0 where not counted.
    pub cache_misses: u64,
}

/// What is known of a process besides its use. Sent when first seen and when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Which process.
    pub process: ProcessKey,
    /// The kernel's short name; at most 15 bytes, any bytes: invalid UTF-8 replaced.
    pub comm: String,
    /// Path of the executable; empty where unknown (kernel threads, processes that ended before anybody looked, no permission).
    pub exe: String,
}

/// Which hardware counters fill [`Use`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// [`Use::cycles`] is counted.
    pub cycles: bool,
    /// [`Use::instructions`] is counted.
    pub instructions: bool,
    /// [`Use::cache_misses`] is counted.
    pub cache_misses: bool,
}

/// Use that could not be charged to anybody (a full map).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostUse {
    /// On which package.
    pub package: PackageId,
    /// Time on a CPU.
    pub on_cpu: Nanos,
    /// Unhalted core cycles, where counted.
    pub cycles: u64,
    /// Last-level cache misses, where counted.
    pub cache_misses: u64,
}

/// What one process used of one GPU since the last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuUse {
    /// Which GPU.
    pub gpu: PciAddress,
    /// Who used it.
    pub process: ProcessKey,
    /// Time for which its work kept the GPU busy: the sum over engines, or utilisation × time.
    pub busy: Nanos,
}

/// Who used GPUs since the last sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuSample {
    /// At most one entry per (GPU, process).
    pub uses: Vec<GpuUse>,
    /// GPUs of which it is known who used them, also where nobody did; energy of others is nobody's.
    pub watched: Vec<WatchedGpu>,
    /// GPUs that are handed to VMs: nothing on this host uses them.
    pub passed_through: Vec<PciAddress>,
}

/// A GPU of which it is known who used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedGpu {
    /// Which GPU.
    pub gpu: PciAddress,
    /// Whether shares are by a rule (MIG: slices) and not by use that was seen.
    pub estimated: bool,
    /// Time for which it was busy since the last sample, whoever kept it so: at least the sum of its [`GpuSample::uses`]. What is more
    /// was of processes that are not known (ended, in another pid namespace), and is to be charged to nobody.
    pub busy: Nanos,
}

/// A cgroup whose path became known at its birth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupBorn {
    /// Its id.
    pub cgroup: CgroupId,
    /// Its path from the cgroup root, as in /proc/PID/cgroup: `/system.slice/ssh.service`.
    pub path: String,
}

/// Everything that ran since the last sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSample {
    /// At most one entry per (process, cgroup, package).
    pub uses: Vec<Use>,
    /// Processes that are new or whose name changed.
    pub processes: Vec<ProcessInfo>,
    /// Processes that ended. Their last use is in [`UsageSample::uses`] of this sample or an earlier one.
    pub ended: Vec<ProcessKey>,
    /// Cgroups that were made.
    pub born: Vec<CgroupBorn>,
    /// Use that nobody can be charged for.
    pub lost: Vec<LostUse>,
    /// How often something did not fit (map entries), cumulative.
    pub overflows: u64,
    /// Which counters were counted in this sample.
    pub counted: Counted,
}
