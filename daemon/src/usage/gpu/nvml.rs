//! Who uses NVIDIA GPUs, by NVML's samples of each process; under MIG by a rule. Not the arithmetic (`shares`), nor the energy.

use super::shares::{Instance, Sample, Shares, by_samples, by_slices};
use super::thread::{Look, Looker, Threaded};
use crate::model::source::{Health, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{GpuSample, GpuUse, ProcessKey, WatchedGpu};
use crate::sys::nvml::{self, Card, SOURCE, Way, words};
use crate::sys::proc_pid;
use crate::usage::GpuUsage;
use nvml_wrapper::enum_wrappers::device::Sampling;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper::{Device, Nvml};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A time without any sample is asked about again with the next one, up to this: the driver's own period is up to a second.
const LONGEST: Nanos = Nanos(3 * Nanos::SECOND.0);

/// Starts looking, on a thread of its own.
///
/// # Errors
/// The system gives no thread.
pub fn start(way: Way, procfs: &Path) -> Result<Box<dyn GpuUsage>, String> {
    let looker = Watch { way, procfs: procfs.to_path_buf(), open: None, known: FxHashMap::default() };
    Ok(Box::new(Threaded::start(SOURCE, looker)?))
}

struct Watch {
    way: Way,
    procfs: PathBuf,
    open: Option<Open>,
    /// Processes that had work on a GPU at the last look: one that ended since is still known.
    known: FxHashMap<u32, ProcessKey>,
}

struct Open {
    nvml: Nvml,
    count: u32,
    gpus: Vec<Gpu>,
}

struct Gpu {
    card: Card,
    /// Until when its use is known, CLOCK_MONOTONIC.
    until: Nanos,
    /// When the driver took the last samples of processes and of the whole, by its clock in microseconds.
    seen: (u64, u64),
}

/// What is known of a GPU's use since the last look.
enum Known {
    /// This.
    Shares(Shares),
    /// This, by a rule.
    Estimate(Shares),
    /// Nothing yet: the driver has no new sample.
    NotYet,
}

impl Looker for Watch {
    fn look(&mut self) -> Look {
        let open = match self.open.take() {
            Some(open) => open,
            None => match self.way.open() {
                Ok(Some((nvml, count))) => Open { nvml, count, gpus: Vec::new() },
                Ok(None) => return Look::nothing(Health::Unsupported(self.way.absent())),
                Err(why) => return Look::nothing(Health::Failed(why)),
            },
        };
        self.all(open)
    }
}

impl Watch {
    /// Looks at every GPU. Where none can be looked at, the library is let go: its driver may be about to be reloaded.
    fn all(&mut self, mut open: Open) -> Look {
        let (mut sample, mut failed, mut notes) = (GpuSample::default(), Vec::new(), Vec::new());
        let mut met = FxHashMap::default();
        let (now, clock) = (Stamp::now().monotonic, Stamp::now().realtime.0 / 1000);
        for index in 0..open.count {
            if open.gpus.iter().any(|gpu| gpu.card.index == index) {
                continue;
            }
            match nvml::card(&open.nvml, index) {
                Ok(card) => open.gpus.push(Gpu { card, until: now, seen: (clock, clock) }),
                Err(why) => failed.push(why),
            }
        }
        for gpu in &mut open.gpus {
            let (index, address) = (gpu.card.index, gpu.card.address);
            let told = nvml::device(&open.nvml, &gpu.card).and_then(|device| gpu.look(&open.nvml, &device, now, clock));
            let (shares, estimated) = match told {
                Ok(Known::Shares(shares)) => (shares, false),
                Ok(Known::Estimate(shares)) => {
                    notes.push(format!(
                        "GPU {index} is in MIG mode, in which NVML does not say who uses it: shared by the slices of instances with processes"
                    ));
                    (shares, true)
                }
                Ok(Known::NotYet) => (Shares::default(), false),
                Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
                    notes.push(format!(
                        "GPU {index} or its driver does not say which process uses it: its energy is nobody's"
                    ));
                    continue;
                }
                Err(error) => {
                    failed.push(format!("GPU {index}: {}", words(&error)));
                    continue;
                }
            };
            sample.watched.push(WatchedGpu { gpu: address, estimated, busy: shares.busy });
            for (pid, busy) in shares.processes {
                if let Some(process) = self.process(pid) {
                    met.insert(pid, process);
                    sample.uses.push(GpuUse { gpu: address, process, busy });
                }
            }
            // Those that have not used it yet: they may have ended by the time that it is told that they did.
            for pid in nvml::device(&open.nvml, &gpu.card).map(|device| holders(&device)).unwrap_or_default() {
                if let Some(process) = self.process(pid) {
                    met.insert(pid, process);
                }
            }
        }
        self.known = met;
        let gone = failed.len() as u32 == open.count;
        if !gone {
            self.open = Some(open);
        }
        let health = match (failed.first(), notes.first()) {
            (Some(why), _) if gone => Health::Failed(why.clone()),
            (Some(why), _) | (None, Some(why)) => Health::Degraded(why.clone()),
            (None, None) => Health::Healthy,
        };
        Look { sample, health, detail: notes.get(1..).unwrap_or_default().join("; ") }
    }

    /// Which process has this id; `None` where there is none here (it is in another pid namespace, or ended unseen), or another one has
    /// taken the id since.
    fn process(&self, pid: u32) -> Option<ProcessKey> {
        let now = proc_pid::process(&self.procfs, pid);
        match (self.known.get(&pid), now) {
            (Some(known), Some(now)) => (*known == now).then_some(now),
            (known, now) => now.or(known.copied()),
        }
    }
}

impl Gpu {
    fn look(&mut self, nvml: &Nvml, device: &Device<'_>, now: Nanos, clock: u64) -> Result<Known, NvmlError> {
        let time = now - self.until;
        if device.mig_mode().is_ok_and(|mode| mode.current == 1) {
            (self.until, self.seen) = (now, (clock, clock));
            return Ok(Known::Estimate(by_slices(time, &instances(nvml, device)?)));
        }
        // The driver stamps with the wall clock, which may have been set back.
        let since = |seen: u64| if seen > clock { clock.saturating_sub(time.0 / 1000) } else { seen };
        let samples = match device.process_utilization_stats(since(self.seen.0)) {
            Ok(samples) => samples,
            Err(NvmlError::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        let samples: Vec<Sample> =
            samples.iter().map(|one| Sample { pid: one.pid, at: one.timestamp, percent: one.sm_util }).collect();
        let (percent, last_of_all) = utilisation(device, since(self.seen.1));
        let last = samples.iter().map(|one| one.at).max();
        if last.is_none() && percent.is_none() && time < LONGEST {
            return Ok(Known::NotYet);
        }
        (self.until, self.seen) =
            (now, (last.unwrap_or(since(self.seen.0)), last_of_all.unwrap_or(since(self.seen.1))));
        Ok(Known::Shares(by_samples(time, &samples, percent)))
    }
}

/// How busy the GPU was since then, in thousandths of a percent, and the time of the last sample that says so.
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
        // Of the driver's last period, which is all that there is then.
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
            (device.utilization_rates().ok().map(|rates| rates.gpu.min(100) * 1000), None)
        }
        Err(_) => (None, None),
    }
}

/// Processes that have something open on the GPU.
fn holders(device: &Device<'_>) -> Vec<u32> {
    let lists = [device.running_compute_processes(), device.running_graphics_processes()];
    lists.into_iter().flatten().flatten().map(|process| process.pid).collect()
}

/// The GPU instances, with their slices and processes.
fn instances(nvml: &Nvml, device: &Device<'_>) -> Result<Vec<Instance>, NvmlError> {
    let mut found: BTreeMap<u32, Instance> = BTreeMap::new();
    for index in 0..device.mig_device_count()?.min(64) {
        let part = match device.mig_device_by_index(index) {
            Ok(part) => part,
            // Not every number is taken.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => return Err(error),
        };
        let (instance, slices) = place(nvml, &part)?;
        let entry = found.entry(instance).or_insert(Instance { slices, pids: Vec::new() });
        entry.pids.extend(holders(&part));
    }
    for instance in found.values_mut() {
        instance.pids.sort_unstable();
        instance.pids.dedup();
    }
    Ok(found.into_values().collect())
}

/// Which GPU instance a MIG device is part of, and how many slices that has. The crate wraps neither question.
fn place(nvml: &Nvml, part: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let missing = |error: &dyn std::fmt::Display| NvmlError::FailedToLoadSymbol(error.to_string());
    let id_of = nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref().map_err(|error| missing(error))?;
    let attributes_of = nvml.lib().nvmlDeviceGetAttributes_v2.as_ref().map_err(|error| missing(error))?;
    let mut id = 0;
    // SAFETY: all zero is a valid nvmlDeviceAttributes_t: it is made of integers.
    let mut attributes = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is of this open library; `id` and `attributes` are places of the types that these two fill, and outlive the calls.
    unsafe {
        nvml_try(id_of(part.handle(), &mut id))?;
        nvml_try(attributes_of(part.handle(), &mut attributes))?;
    }
    Ok((id, attributes.gpuInstanceSliceCount))
}
