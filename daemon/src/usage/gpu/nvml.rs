//! GPU use by process on NVIDIA GPUs, from NVML's process utilisation samples; in MIG mode, which has none, by slices.
//! `shares` has the arithmetic. Reads no energy: that is `meter/nvml`.

use super::shares::{Instance, Sample, Shares, by_samples, by_slices};
use super::thread::{Probe, ProbeResult, ThreadedProbe};
use crate::model::source::{Health, PciAddress, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{GpuSample, GpuUse, ProcessKey, WatchedGpu};
use crate::sys::nvml::{self, Card, Library, SOURCE, holders, words};
use crate::sys::nvml_sleep::LetGo;
use crate::sys::proc_pid;
use crate::usage::GpuUsage;
use nvml_wrapper::enum_wrappers::device::Sampling;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::{Device, Nvml};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Longest time without a sample that is added to the next interval. The driver samples at least once a second.
const NO_SAMPLE_MAX: Nanos = Nanos(3 * Nanos::SECOND.0);

/// Starts the source on a thread of its own.
///
/// # Errors
/// The system gives no thread.
pub fn start(library: Library, procfs: &Path) -> Result<Box<dyn GpuUsage>, String> {
    let probe = NvmlProbe {
        library,
        procfs: procfs.to_path_buf(),
        open: None,
        let_go: LetGo::default(),
        gpus: Vec::new(),
        known: FxHashMap::default(),
    };
    Ok(Box::new(ThreadedProbe::start(SOURCE, probe)?))
}

struct NvmlProbe {
    library: Library,
    procfs: PathBuf,
    open: Option<OpenLibrary>,
    let_go: LetGo,
    /// Addresses of the GPUs that were seen when the library was last open.
    gpus: Vec<PciAddress>,
    /// Processes that had work on a GPU at the last probe: one that ended since can still be identified.
    known: FxHashMap<u32, ProcessKey>,
}

struct OpenLibrary {
    nvml: Nvml,
    count: u32,
    gpus: Vec<Gpu>,
}

struct Gpu {
    card: Card,
    /// The time up to which its use is accounted for, CLOCK_MONOTONIC.
    accounted_until: Nanos,
    /// Time stamps of the last samples of processes and of the whole GPU: CLOCK_REALTIME in microseconds, by the
    /// driver.
    last_samples: (u64, u64),
}

/// Use of one GPU since the last probe.
enum UseSinceProbe {
    /// By utilisation samples.
    Shares(Shares),
    /// By a rule: in MIG mode, by slices.
    Estimate(Shares),
    /// The driver has no new sample yet.
    NotYet,
}

impl Probe for NvmlProbe {
    fn probe(&mut self) -> ProbeResult {
        if self.library.all_asleep(self.gpus.iter().copied()) {
            // The open library would keep them awake.
            self.open = None;
            self.let_go.asleep();
            return self.unused(" (asleep)");
        }
        if self.open.is_none() && !self.let_go.is_due(Instant::now()) {
            return self.unused(", asked rarely while nothing uses them, so that they can sleep");
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => match self.library.open() {
                Ok(Some((nvml, count))) => OpenLibrary { nvml, count, gpus: Vec::new() },
                Ok(None) => return ProbeResult::nothing(Health::Unsupported(self.library.absent())),
                Err(why) => return ProbeResult::nothing(Health::Failed(why)),
            },
        };
        self.probe_all(open)
    }
}

impl NvmlProbe {
    /// The result where no GPU is asked. It is known that nothing uses them, so each is watched.
    fn unused(&self, why: &str) -> ProbeResult {
        let gpus = if self.gpus.is_empty() { self.library.gpus() } else { self.gpus.clone() };
        let watched = |gpu: &PciAddress| WatchedGpu { gpu: *gpu, estimated: false, busy: Nanos::ZERO };
        let sample = GpuSample { watched: gpus.iter().map(watched).collect(), ..GpuSample::default() };
        ProbeResult { sample, health: Health::Healthy, detail: format!("{} GPU(s){why}", gpus.len()) }
    }

    /// Probes every GPU. Where none can be read, the library is closed: its driver may be about to be reloaded.
    fn probe_all(&mut self, mut open: OpenLibrary) -> ProbeResult {
        let (mut sample, mut failed, mut notes) = (GpuSample::default(), Vec::new(), Vec::new());
        let mut current = FxHashMap::default();
        let (now, clock) = (Stamp::now().monotonic, Stamp::now().realtime.0 / 1000);
        for index in 0..open.count {
            if open.gpus.iter().any(|gpu| gpu.card.index == index) {
                continue;
            }
            match nvml::card(&open.nvml, index) {
                Ok(card) => open.gpus.push(Gpu { card, accounted_until: now, last_samples: (clock, clock) }),
                Err(why) => failed.push(why),
            }
        }
        let (mut held, mut asleep) = (false, Vec::new());
        for gpu in &mut open.gpus {
            let (index, address) = (gpu.card.index, gpu.card.address);
            if self.library.is_asleep(address) {
                (gpu.accounted_until, gpu.last_samples) = (now, (clock, clock));
                sample.watched.push(WatchedGpu { gpu: address, estimated: false, busy: Nanos::ZERO });
                asleep.push(format!("GPU {index} (asleep)"));
                continue;
            }
            let use_since =
                nvml::device(&open.nvml, &gpu.card).and_then(|device| gpu.probe(&open.nvml, &device, now, clock));
            let (shares, estimated) = match use_since {
                Ok(UseSinceProbe::Shares(shares)) => (shares, false),
                Ok(UseSinceProbe::Estimate(shares)) => {
                    notes.push(format!(
                        "GPU {index} is in MIG mode, in which NVML does not say who uses it: \
                         shared by the slices of instances with processes"
                    ));
                    (shares, true)
                }
                Ok(UseSinceProbe::NotYet) => (Shares::default(), false),
                Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
                    notes.push(format!(
                        "GPU {index} or its driver does not say which process uses it: its energy is unattributed"
                    ));
                    continue;
                }
                Err(error) => {
                    failed.push(format!("GPU {index}: {}", words(&error)));
                    continue;
                }
            };
            held |= estimated || shares.busy > Nanos::ZERO || !self.library.may_sleep(address);
            sample.watched.push(WatchedGpu { gpu: address, estimated, busy: shares.busy });
            for (pid, busy) in shares.processes {
                if let Some(process) = self.process(pid) {
                    current.insert(pid, process);
                    sample.uses.push(GpuUse { gpu: address, process, busy });
                }
            }
            // Processes with work but no use yet: they may have ended by the time that a sample names them.
            for pid in nvml::device(&open.nvml, &gpu.card).map(|device| holders(&device)).unwrap_or_default() {
                held = true;
                if let Some(process) = self.process(pid) {
                    current.insert(pid, process);
                }
            }
        }
        self.known = current;
        let gone = failed.len() as u32 == open.count;
        self.gpus = open.gpus.iter().map(|gpu| gpu.card.address).collect();
        let could_sleep = !held && failed.is_empty() && notes.is_empty() && !open.gpus.is_empty();
        if !gone && !self.let_go.after_look(could_sleep, Instant::now()) {
            self.open = Some(open);
        }
        let health = match (failed.first(), notes.first()) {
            (Some(why), _) if gone => Health::Failed(why.clone()),
            (Some(why), _) | (None, Some(why)) => Health::Degraded(why.clone()),
            (None, None) => Health::Healthy,
        };
        asleep.extend(notes.get(1..).unwrap_or_default().iter().cloned());
        ProbeResult { sample, health, detail: asleep.join("; ") }
    }

    /// The process with this id. `None`: it is in another pid namespace, it ended without having been seen, or the id
    /// was reused since.
    fn process(&self, pid: u32) -> Option<ProcessKey> {
        let now = proc_pid::process(&self.procfs, pid);
        match (self.known.get(&pid), now) {
            (Some(known), Some(now)) => (*known == now).then_some(now),
            (known, now) => now.or(known.copied()),
        }
    }
}

impl Gpu {
    fn probe(&mut self, nvml: &Nvml, device: &Device<'_>, now: Nanos, clock: u64) -> Result<UseSinceProbe, NvmlError> {
        let time = now - self.accounted_until;
        if device.mig_mode().is_ok_and(|mode| mode.current == 1) {
            (self.accounted_until, self.last_samples) = (now, (clock, clock));
            return Ok(UseSinceProbe::Estimate(by_slices(time, &instances(nvml, device)?)));
        }
        // The driver stamps with the wall clock, which may have been set back.
        let since =
            |last_samples: u64| if last_samples > clock { clock.saturating_sub(time.0 / 1000) } else { last_samples };
        let samples = match device.process_utilization_stats(since(self.last_samples.0)) {
            Ok(samples) => samples,
            Err(NvmlError::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        let samples: Vec<Sample> =
            samples.iter().map(|one| Sample { pid: one.pid, at: one.timestamp, percent: one.sm_util }).collect();
        let (percent, last_of_all) = utilisation(device, since(self.last_samples.1));
        let last = samples.iter().map(|one| one.at).max();
        if last.is_none() && percent.is_none() && time < NO_SAMPLE_MAX {
            return Ok(UseSinceProbe::NotYet);
        }
        (self.accounted_until, self.last_samples) =
            (now, (last.unwrap_or(since(self.last_samples.0)), last_of_all.unwrap_or(since(self.last_samples.1))));
        Ok(UseSinceProbe::Shares(by_samples(time, &samples, percent)))
    }
}

/// Utilisation of the whole GPU since that time stamp in thousandths of a percent, and the time stamp of the last
/// sample.
fn utilisation(device: &Device<'_>, since: u64) -> (Option<u32>, Option<u64>) {
    let value = |value: &SampleValue| match value {
        SampleValue::U32(percent) => Some(u64::from(*percent)),
        SampleValue::U64(percent) => Some(*percent),
        SampleValue::I64(percent) => u64::try_from(*percent).ok(),
        SampleValue::F64(percent) => (0.0..=100.0).contains(percent).then_some(*percent as u64),
    };
    match device.samples(Sampling::GpuUtilization, since) {
        Ok(samples) => {
            let good: Vec<u64> =
                samples.iter().filter_map(|one| value(&one.value)).filter(|percent| *percent <= 100).collect();
            let mean = (good.iter().sum::<u64>() * 1000).checked_div(good.len() as u64);
            (mean.map(|mean| mean as u32), samples.iter().map(|one| one.timestamp).max())
        }
        // Utilisation in the driver's last period: all that there is then.
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
            (device.utilization_rates().ok().map(|rates| rates.gpu.min(100) * 1000), None)
        }
        Err(_) => (None, None),
    }
}

/// The GPU instances (MIG), with their slices and processes.
fn instances(nvml: &Nvml, device: &Device<'_>) -> Result<Vec<Instance>, NvmlError> {
    let mut found: BTreeMap<u32, Instance> = BTreeMap::new();
    for index in 0..device.mig_device_count()?.min(64) {
        let part = match device.mig_device_by_index(index) {
            Ok(part) => part,
            // The index has gaps.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => return Err(error),
        };
        let (instance, slices) = gpu_instance(nvml, &part)?;
        let entry = found.entry(instance).or_insert(Instance { slices, pids: Vec::new() });
        entry.pids.extend(holders(&part));
    }
    for instance in found.values_mut() {
        instance.pids.sort_unstable();
        instance.pids.dedup();
    }
    Ok(found.into_values().collect())
}

/// The GPU instance of a MIG device, and its number of slices. nvml-wrapper has neither call.
fn gpu_instance(nvml: &Nvml, part: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let missing = |error: &dyn std::fmt::Display| NvmlError::FailedToLoadSymbol(error.to_string());
    let id_of = nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref().map_err(|error| missing(error))?;
    let attributes_of = nvml.lib().nvmlDeviceGetAttributes_v2.as_ref().map_err(|error| missing(error))?;
    let mut id = 0;
    // SAFETY: all zero is a valid nvmlDeviceAttributes_t: it is made of integers.
    let mut attributes = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is of this open library; `id` and `attributes` are places of the types that these calls fill,
    // and outlive them.
    unsafe {
        nvml_try(id_of(part.handle(), &mut id))?;
        nvml_try(attributes_of(part.handle(), &mut attributes))?;
    }
    Ok((id, attributes.gpuInstanceSliceCount))
}
