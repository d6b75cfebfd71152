//! Samples for `joulectl model train`, `evaluate` and `compare` from a recording: the use of CPUs and the measured
//! power in windows of at least five seconds. Energy is the core's, which has checked it; use is that of the ticks.

use super::{RecordError, replay_ticks};
use crate::model::domain::{Quality, Zone};
use crate::model::snapshot::{DomainView, Role, Snapshot};
use crate::model::tick::Tick;
use crate::model::units::Nanos;
use crate::model::usage::{Counted, ProcessKey, Used};
use crate::power_model::model::Machine;
use crate::power_model::samples::{Sample, Target};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Shortest window: the kernel counts CPU time in steps of 10 ms, and meters are read some milliseconds apart.
const SHORTEST: Nanos = Nanos(5 * Nanos::SECOND.0);
/// Longest window: a meter that is read less often than that says nothing about what ran.
const LONGEST: Nanos = Nanos(300 * Nanos::SECOND.0);
/// Below this share of busy threads nothing in particular ran.
const IDLE: f64 = 0.05;

/// The samples of a recording, and the machine that it is of.
pub struct Recorded {
    /// In the order of time. The regime is the name of the process that ran most, or `idle`.
    pub samples: Vec<Sample>,
    /// The machine; its threads are those that were online at the start, 0 where the recording does not say.
    pub machine: Machine,
}

/// Reads the samples of `target`.
///
/// # Errors
/// As [`super::replay`].
pub fn samples(path: &Path, target: Target) -> Result<Recorded, RecordError> {
    let mut collector = Collector::new(target);
    replay_ticks(path, |tick, snapshot| collector.take(tick, snapshot))?;
    Ok(Recorded { samples: collector.samples, machine: collector.machine })
}

/// Reading of one domain: total energy in microjoules, its time, and the number of gaps so far.
type Reading = (u64, Nanos, u64);

struct Collector {
    target: Target,
    samples: Vec<Sample>,
    machine: Machine,
    names: HashMap<ProcessKey, String>,
    /// Time of the last tick, CLOCK_MONOTONIC.
    last: Option<Nanos>,
    /// Readings at the last tick.
    read: BTreeMap<String, Nanos>,
    window: Option<Window>,
}

/// What was seen since the last sample.
struct Window {
    readings: BTreeMap<String, Reading>,
    time: Nanos,
    used: Used,
    by_name: BTreeMap<String, Nanos>,
    counted: Counted,
}

impl Window {
    fn new(readings: BTreeMap<String, Reading>) -> Self {
        let counted = Counted { cycles: true, instructions: true, cache_misses: true };
        Self { readings, time: Nanos::ZERO, used: Used::default(), by_name: BTreeMap::new(), counted }
    }
}

impl Collector {
    fn new(target: Target) -> Self {
        let (samples, names, read) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Self { target, samples, machine: Machine::default(), names, last: None, read, window: None }
    }

    /// Whether the meter of a domain measures a part of the target.
    fn is_of_target(&self, view: &DomainView) -> bool {
        let wanted = match self.target {
            Target::Package => view.domain.zone == Zone::Package && view.role == Role::Billed,
            Target::Dram => view.domain.zone == Zone::Dram,
            Target::Platform => view.domain.zone == Zone::Platform && view.role == Role::Authority,
        };
        wanted && view.domain.quality == Quality::Measured && !view.past
    }

    fn take(&mut self, tick: &Tick, snapshot: &Snapshot) {
        if self.machine.threads == 0 {
            let cpus = &snapshot.host.cpus;
            let packages: BTreeSet<u32> = cpus.iter().map(|cpu| cpu.physical_id).collect();
            self.machine.threads = u32::try_from(cpus.len()).unwrap_or_default();
            self.machine.packages = u32::try_from(packages.len()).ok().filter(|packages| *packages > 0);
            self.machine.processor = cpus.first().map(|cpu| cpu.model_name.clone()).unwrap_or_default();
        }
        let now = tick.at.monotonic;
        let since = self.last.replace(now);
        self.add_use(tick, since.map_or(Nanos::ZERO, |since| now - since));
        let of_target = snapshot.domains.iter().filter(|view| self.is_of_target(view));
        let readings: Option<BTreeMap<String, Reading>> = of_target
            .map(|view| {
                let good = view.error.is_empty().then_some(view.read_at?)?;
                Some((view.domain.id.as_str().to_owned(), (view.energy.total.0, good, view.gaps)))
            })
            .collect();
        let Some(readings) = readings.filter(|readings| !readings.is_empty()) else {
            self.window = None;
            self.read.clear();
            return;
        };
        let times: BTreeMap<String, Nanos> = readings.iter().map(|(id, (_, at, _))| (id.clone(), *at)).collect();
        // A window ends only with new readings: between two of a slow meter nobody knows the power.
        let fresh = times.iter().all(|(id, at)| self.read.get(id).is_none_or(|before| before != at));
        self.read = times;
        match &self.window {
            Some(window) if window.time > LONGEST => self.window = None,
            Some(window) if fresh && window.time >= SHORTEST => {
                let sample = self.sample(window, &readings);
                self.samples.extend(sample);
                self.window = Some(Window::new(readings));
            }
            None if fresh => self.window = Some(Window::new(readings)),
            _ => {}
        }
    }

    /// Adds the use of a tick to the window, which it ends where the use is not known.
    fn add_use(&mut self, tick: &Tick, time: Nanos) {
        let Some(usage) = &tick.usage else {
            self.window = None;
            return;
        };
        self.names.extend(usage.processes.iter().map(|info| (info.process, info.comm.clone())));
        if let Some(window) = &mut self.window {
            window.time += time;
            let counted = usage.counted;
            window.counted.cycles &= counted.cycles;
            window.counted.instructions &= counted.instructions;
            window.counted.cache_misses &= counted.cache_misses;
            for one in &usage.uses {
                window.used.add(&one.used);
                // "@" begins a frequency in the name of a regime.
                let name = self.names.get(&one.process).map_or("unknown", String::as_str).replace('@', "_");
                *window.by_name.entry(name).or_default() += one.used.on_cpu;
            }
            usage.lost.iter().for_each(|lost| window.used.add(&lost.used));
        }
        for ended in &usage.ended {
            self.names.remove(ended);
        }
    }

    /// The sample of a window that ends with these readings; `None` where a part of it was not measured.
    fn sample(&self, window: &Window, readings: &BTreeMap<String, Reading>) -> Option<Sample> {
        if !readings.keys().eq(window.readings.keys()) {
            return None;
        }
        let mut watts = 0.0;
        for ((energy, at, gaps), (before, since, gaps_before)) in readings.values().zip(window.readings.values()) {
            if gaps != gaps_before || at <= since {
                return None;
            }
            watts += energy.saturating_sub(*before) as f64 / 1e6 / (*at - *since).seconds();
        }
        let seconds = window.time.seconds();
        let busy = window.used.on_cpu.seconds() / seconds;
        let idle = self.machine.threads > 0 && busy < IDLE * f64::from(self.machine.threads);
        let most = window.by_name.iter().max_by_key(|(_, time)| **time);
        let regime = most.filter(|_| !idle).map_or("idle", |(name, _)| name.as_str());
        let rate = |counted: bool, count: u64| counted.then_some(count as f64 / seconds);
        let mut sample = Sample {
            regime: regime.to_owned(),
            seconds,
            busy: Some(busy),
            cycles: rate(window.counted.cycles, window.used.cycles),
            instructions: rate(window.counted.instructions, window.used.instructions),
            cache_misses: rate(window.counted.cache_misses, window.used.cache_misses),
            ..Sample::default()
        };
        match self.target {
            Target::Package => sample.package = Some(watts),
            Target::Dram => sample.dram = Some(watts),
            Target::Platform => sample.platform = Some(watts),
        }
        Some(sample)
    }
}
