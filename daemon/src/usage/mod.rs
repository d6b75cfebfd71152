//! Usage: who ran. One type for every way of knowing it. Knows nothing of energy, nor of what a cgroup means.

pub mod bpf;
pub mod gpu;
pub mod procfs;

use crate::model::source::Health;
use crate::model::usage::{GpuSample, ProcessInfo, UsageSample};

/// A way of knowing who used GPUs. It may be slow: it has a thread of its own, and [`GpuUsage::sample`] only takes what that found.
pub trait GpuUsage: Send {
    /// The source's name in log and metrics: `nvml`, `drm`.
    fn source(&self) -> &str;

    /// Adds what was used since the last call to `out`. Never waits.
    fn sample(&mut self, out: &mut GpuSample);

    /// How it is, after the last [`GpuUsage::sample`].
    fn health(&self) -> Health;

    /// One line for people; empty where there is nothing to say.
    fn detail(&self) -> String {
        String::new()
    }
}

/// A way of knowing who ran.
pub trait Usage: Send {
    /// The source's name in configuration, log and metrics: `bpf`, `procfs`.
    fn source(&self) -> &'static str;

    /// What ran since the last call. The first call returns what ran since the source was opened.
    ///
    /// # Errors
    /// Where nothing can be said of this interval: the sampler then charges nobody.
    fn sample(&mut self) -> Result<UsageSample, String>;

    /// Takes over processes that exist and were not sampled: their ends are told as those of others.
    fn adopt(&mut self, _processes: &[ProcessInfo]) {}

    /// How it is, after the last [`Usage::sample`].
    fn health(&self) -> Health;
}
