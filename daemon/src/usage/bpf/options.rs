//! How eBPF is to be used, and why it cannot be.

use super::offsets;
use crate::model::source::PackageId;
use serde::Deserialize;

/// Where the programs learn who runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BpfPath {
    /// The kernel's own structures where it describes them (BTF), else helper functions.
    #[default]
    Auto,
    /// The kernel's own structures.
    Btf,
    /// Helper functions: for kernels without BTF. Time is the clock's between switches, so it includes interrupts, and two processes
    /// that had the same id between two samples are one.
    Helpers,
}

/// Which counters are read at each switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counters {
    /// Cycles, instructions and last-level cache misses, as far as the machine has them.
    #[default]
    Auto,
    /// None.
    Off,
    /// The kernel's CPU clock, task clock and context switches in their place: to test without a PMU.
    Software,
}

/// How [`BpfUsage`] runs.
#[derive(Clone, Debug)]
pub struct BpfOptions {
    /// Where the programs learn who runs.
    pub path: BpfPath,
    /// Which counters are read.
    pub counters: Counters,
    /// How many (process, cgroup, package) fit between two samples; some 300 bytes of kernel memory each.
    pub max_entries: u32,
    /// The package of each CPU, by its number. CPUs beyond its end belong to package 0.
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
    /// The process lacks capabilities.
    #[error("eBPF needs {0}, which this process does not have (before Linux 5.8, CAP_SYS_ADMIN)")]
    Missing(String),
    /// Secure boot or its like.
    #[error("the kernel is locked down (confidentiality): it lets nobody read its memory with eBPF")]
    Lockdown,
    /// The kernel's release.
    #[error("Linux {0} is too old for eBPF here: 5.8 is needed")]
    TooOld(String),
    /// The capabilities are there, and still it is not allowed.
    #[error(
        "the kernel does not allow it (a security module, a seccomp filter, or before Linux 5.11 the limit RLIMIT_MEMLOCK): {0}"
    )]
    Denied(String),
    /// [`BpfPath::Btf`] was asked for.
    #[error("{path} cannot be used: {0}", path = offsets::VMLINUX)]
    NoBtf(String),
    /// Anything else, in the kernel's words.
    #[error("the kernel refused the eBPF programs: {0}")]
    Refused(String),
}
