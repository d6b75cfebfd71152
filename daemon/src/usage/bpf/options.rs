//! Options of the eBPF source (`[usage]` in the configuration), and the reasons why it cannot be used.

use super::offsets;
use crate::model::source::PackageId;
use serde::Deserialize;

/// How the programs identify the running task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BpfPath {
    /// [`BpfPath::Btf`] where the kernel has BTF, else [`BpfPath::Helpers`].
    #[default]
    Auto,
    /// Reads the kernel's own task structures, at offsets from BTF.
    Btf,
    /// Asks helper functions: for kernels without BTF. Run time is the monotonic clock's between two switches, so it
    /// includes interrupts, and two processes that had the same id between two samples are taken for one.
    Helpers,
}

/// Which counters the programs read at each context switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counters {
    /// Cycles, instructions and last-level cache misses, as far as this machine's PMU counts them.
    #[default]
    Auto,
    /// None.
    Off,
    /// CPU clock, task clock and context switches instead, which the kernel counts in software: for tests without a
    /// PMU.
    Software,
}

/// Options of [`BpfUsage`](super::BpfUsage).
#[derive(Clone, Debug)]
pub struct BpfOptions {
    /// How the programs identify the running task.
    pub path: BpfPath,
    /// Which counters are read.
    pub counters: Counters,
    /// Entries that each map of totals holds, one for each (process, cgroup, package) that ran between two samples; an
    /// entry takes some 300 bytes of kernel memory.
    pub max_entries: u32,
    /// The package of each CPU, indexed by the CPU's number. CPUs beyond its end belong to package 0.
    pub packages: Vec<PackageId>,
}

impl Default for BpfOptions {
    fn default() -> Self {
        Self { path: BpfPath::Auto, counters: Counters::Auto, max_entries: 16_384, packages: Vec::new() }
    }
}

/// Why eBPF cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The process lacks capabilities: their names.
    #[error("eBPF needs {0}, which this process does not have (before Linux 5.8, CAP_SYS_ADMIN)")]
    Missing(String),
    /// Kernel lockdown in confidentiality mode, as secure boot may set it.
    #[error("the kernel is locked down (confidentiality): eBPF may not read its memory")]
    Lockdown,
    /// The kernel is older than 5.8: its release.
    #[error("Linux {0} is too old for eBPF here: 5.8 is needed")]
    TooOld(String),
    /// bpf(2) is refused although the capabilities are there: the error.
    #[error(
        "the kernel does not allow it (a security module, a seccomp filter, or before Linux 5.11 the \
         limit RLIMIT_MEMLOCK): {0}"
    )]
    Denied(String),
    /// [`BpfPath::Btf`] was asked for and BTF cannot be used: the reason.
    #[error("{path} cannot be used: {0}", path = offsets::VMLINUX)]
    NoBtf(String),
    /// Any other refusal, in the kernel's own words.
    #[error("the kernel refused the eBPF programs: {0}")]
    Refused(String),
}
