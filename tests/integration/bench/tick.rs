//! The cost of a tick: the daemon's own sampler, with real eBPF or by /proc, over real processes most of which sleep.
//! In this process, so that its stages can be measured.

use crate::Failure;
use crate::clock::{self, median, ms, thread_time};
use crate::crowd::Crowd;
use crate::report::{Limit, Report};
use crate::sysfs::{FakeHost, ICE_LAKE_SERVER, INTEL_RANGE};
use jouled::config::{Config, UsageSource};
use jouled::export::prometheus::{Format, render};
use jouled::model::snapshot::Snapshot;
use jouled::model::source::Stamp;
use jouled::model::tick::Tick;
use jouled::run::sampler::Sampler;
use std::sync::Arc;
use std::time::Duration;

const TICKS: usize = 20;
const BETWEEN: Duration = Duration::from_millis(100);
const STAGES: [&str; 5] = ["meters", "usage", "resolve", "core", "store"];

/// A fake host with one package and as many CPUs as this machine.
pub fn fake_host() -> Result<FakeHost, Failure> {
    let host = FakeHost::new();
    host.cpus(1, u32::try_from(std::thread::available_parallelism()?.get())?, &ICE_LAKE_SERVER);
    host.zone("intel-rapl:0", "package-0", 1_000_000);
    Ok(host)
}

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let stages: String = STAGES.iter().map(|stage| format!("{stage:>9}")).collect();
    report.line(&format!("CPU time in ms: median of {TICKS} ticks, and of each stage of {TICKS} others"))?;
    report.line(&format!(
        "by    {:>9}{:>8}{:>7}{:>10}{:>10}{stages}",
        "processes", "active", "uses", "tick", "highest"
    ))?;
    let mut cells = Vec::new();
    let (bpf, procfs) = (UsageSource::Bpf, UsageSource::Procfs);
    for (source, size) in [(bpf, 1_000), (bpf, 10_000), (procfs, 1_000), (procfs, 10_000)] {
        let host = fake_host()?;
        let state = tempfile::tempdir()?;
        let mut config = Config { sysfs: host.sysfs(), state_dir: Some(state.path().into()), ..Config::default() };
        config.runtime_dir.clone_from(&config.state_dir);
        config.usage.source = source;
        let mut sampler = {
            use jouled::run::{Reports, SourceSettings, Start, open};
            open(&SourceSettings::of(&config), None, &Reports::default(), &mut Start::Fresh)?
        };
        let crowd = Crowd::gather(size)?;
        sampler.tick();
        for active in [100, 1_000] {
            let cell = measure(&mut sampler, &host, &crowd, active)?;
            let by = if source == bpf { "eBPF" } else { "/proc" };
            report.line(&format!("{by:<6}{size:>9}{active:>8}{cell}"))?;
            cells.push(((source, size, active), cell.tick));
        }
        if source == bpf && size == 10_000 {
            let snapshot = sampler.tick();
            for format in [Format::OpenMetrics, Format::Classic] {
                let (time, bytes) = page(&snapshot, format);
                report.line(&format!(
                    "rendering the page as {format:?}: {:.2} ms of CPU time, {} KB",
                    ms(time),
                    bytes / 1000
                ))?;
            }
        }
    }
    let cost = |source, size| {
        cells.iter().find(|(cell, _)| *cell == (source, size, 100)).map_or(f64::NAN, |(_, time)| ms(*time))
    };
    report.target("tick, 10,000 processes, 100 active", cost(bpf, 10_000), Limit::Most(5.0), "ms");
    report.target("tick by /proc, 10,000 processes, 100 active", cost(procfs, 10_000), Limit::Most(40.0), "ms");
    report.target(
        "tick, 10,000 processes over 1,000, 100 active",
        cost(bpf, 10_000) / cost(bpf, 1_000),
        Limit::Most(2.0),
        "times",
    );
    Ok(())
}

struct Cell {
    uses: usize,
    tick: Duration,
    highest: Duration,
    stages: [Duration; STAGES.len()],
}

impl std::fmt::Display for Cell {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{:>7}{:>10.2}{:>10.2}", self.uses, ms(self.tick), ms(self.highest))?;
        self.stages.iter().try_for_each(|stage| write!(to, "{:>9.2}", ms(*stage)))
    }
}

fn measure(sampler: &mut Sampler, host: &FakeHost, crowd: &Crowd, active: usize) -> Result<Cell, Failure> {
    let work = || -> Result<(), Failure> {
        crowd.wake(active)?;
        std::thread::sleep(BETWEEN);
        // About 30 W.
        host.set_energy("intel-rapl:0", clock::monotonic().as_micros() as u64 * 30 % INTEL_RANGE);
        Ok(())
    };
    // Processes that this measurement wakes for the first time must first get their series.
    for _ in 0..3 {
        work()?;
        sampler.tick();
    }
    let mut ticks = Vec::new();
    for _ in 0..TICKS {
        work()?;
        let before = thread_time();
        sampler.tick();
        ticks.push(thread_time() - before);
    }
    let mut stages: [Vec<Duration>; STAGES.len()] = Default::default();
    let mut uses = 0;
    for _ in 0..TICKS {
        work()?;
        let (times, number) = staged(sampler)?;
        uses = number;
        stages.iter_mut().zip(times).for_each(|(stage, time)| stage.push(time));
    }
    let highest = ticks.iter().max().copied().unwrap_or_default();
    Ok(Cell { uses, tick: median(ticks), highest, stages: stages.map(median) })
}

/// The stages of [`Sampler::tick`], without its bookkeeping of sources; there is one meter, whose domains are known
/// already.
fn staged(sampler: &mut Sampler) -> Result<([Duration; STAGES.len()], usize), Failure> {
    let at = Stamp::now();
    let mut tick = Tick { at, ..Tick::default() };
    let begin = thread_time();
    sampler.meters.read(at, &mut tick);
    let meters = thread_time();
    let mut sample = sampler.observers.usage.sample()?;
    let usage = thread_time();
    let uses = sample.uses.len();
    let named = sampler.observers.entities.observe(&mut sample, at);
    (tick.cgroups, tick.gone) = (named.cgroups, named.gone);
    (tick.vm_members, tick.vms) = (named.members, named.vms);
    tick.usage = Some(sample);
    let resolve = thread_time();
    let snapshot = sampler.core.step(&tick);
    let core = thread_time();
    drop(snapshot);
    if let Some(store) = &mut sampler.store {
        store.append(sampler.core.changes(), || sampler.core.state(&sampler.boot_id))?;
    }
    let store = thread_time();
    Ok(([meters - begin, usage - meters, resolve - usage, core - resolve, store - core], uses))
}

/// Median CPU time of 50 renderings of the page, and its length in bytes.
fn page(snapshot: &Arc<Snapshot>, format: Format) -> (Duration, usize) {
    let options = Config::default().export.prometheus;
    let mut length = 0;
    let times = (0..50).map(|_| {
        let before = thread_time();
        length = render(snapshot, None, Stamp::now(), &options, format).len();
        thread_time() - before
    });
    (median(times.collect()), length)
}
