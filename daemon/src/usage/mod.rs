//! Usage sources: the CPU and GPU use of processes since the last tick, from eBPF (`bpf`), /proc (`procfs`), NVML or
//! DRM (`gpu`). They know no energy, and not what a cgroup means.

pub mod bpf;
pub mod gpu;
pub mod procfs;

use crate::model::source::Health;
use crate::model::usage::{GpuSample, ProcessInfo, UsageSample};

/// A source of GPU use. It may be slow, so it works on its own thread, and [`GpuUsage::sample`] only takes what that
/// thread found.
pub trait GpuUsage: Send {
    /// The source's name in log and metrics: `nvml`, `drm`.
    fn source(&self) -> &str;

    /// Adds the use since the last call to `out`. Never waits.
    fn sample(&mut self, out: &mut GpuSample);

    /// Its health as of the last [`GpuUsage::sample`].
    fn health(&self) -> Health;

    /// One line for people: what it is connected to, and how. Empty where there is nothing to say.
    fn detail(&self) -> String {
        String::new()
    }
}

/// A source of CPU use.
pub trait Usage: Send {
    /// The source's name in configuration, log and metrics: `bpf`, `procfs`.
    fn source(&self) -> &'static str;

    /// The use since the last call; at the first call, since the source was opened.
    ///
    /// # Errors
    /// Where the use since the last call is not known: the energy of this tick is then unattributed.
    fn sample(&mut self) -> Result<UsageSample, String>;

    /// Adds processes that exist and were in no sample yet, so that later samples report their ends.
    fn adopt(&mut self, _processes: &[ProcessInfo]) {}

    /// Its health as of the last [`Usage::sample`].
    fn health(&self) -> Health;
}
