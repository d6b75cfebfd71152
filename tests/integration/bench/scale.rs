//! The built jouled with many processes: its memory, and the time of a scrape.

use crate::Failure;
use crate::clock::{median, ms};
use crate::crowd::Crowd;
use crate::daemon::Daemon;
use crate::report::{Limit, Report};
use crate::tick::fake_host;
use std::time::{Duration, Instant};

const PROCESSES: usize = 10_000;
const ACTIVE: usize = 100;
/// Longer than the minute between two checkpoints, so that one is included.
const TIME: Duration = Duration::from_secs(63);
const CONFIG: &str = "interval = \"100ms\"\n[usage]\nsource = \"bpf\"\n[series]\nprocesses = 500\n";

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let host = fake_host()?;
    let daemon = Daemon::start(&host, CONFIG)?;
    let at_start = daemon.memory_mb("VmRSS")?;
    let crowd = Crowd::gather(PROCESSES)?;
    let begin = Instant::now();
    let mut energy = 1_000_000;
    while begin.elapsed() < TIME {
        crowd.wake(ACTIVE)?;
        energy += 2_000_000;
        host.set_energy("intel-rapl:0", energy);
        std::thread::sleep(Duration::from_millis(70));
    }
    let (resident, peak) = (daemon.memory_mb("VmRSS")?, daemon.memory_mb("VmHWM")?);
    let ticks = daemon.series()?.get("jouled_ticks_total").copied().unwrap_or_default();
    report.line(&format!(
        "{PROCESSES} processes that ran, {ACTIVE} of them all the time, {ticks} ticks: resident {resident:.1} MB (at start \
         {at_start:.1}, peak {peak:.1})"
    ))?;
    report.target("memory, 10,000 processes", resident, Limit::Most(20.0), "MB");
    report.target("memory, peak", peak, Limit::Most(24.0), "MB");
    for (name, accept) in
        [("OpenMetrics", "application/openmetrics-text;version=1.0.0"), ("the text format", "text/plain")]
    {
        let mut times = Vec::new();
        let mut length = 0;
        for _ in 0..50 {
            let before = Instant::now();
            length = daemon.get(accept)?.len();
            times.push(before.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        let time = ms(median(times));
        report.line(&format!("scrape as {name}: {time:.2} ms, {} KB, median of 50", length / 1000))?;
        report.target(&format!("scrape, 10,000 processes, 500 shown, {name}"), time, Limit::Most(5.0), "ms");
    }
    Ok(())
}
