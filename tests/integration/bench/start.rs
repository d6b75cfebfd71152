//! The time from the start of the built daemon to its READY=1, as a service manager sees it: RAPL by powercap, eBPF.

use crate::Failure;
use crate::clock::{median, ms};
use crate::daemon::Daemon;
use crate::report::{Limit, Report};
use crate::tick::fake_host;

const STARTS: usize = 11;

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let host = fake_host()?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(Daemon::ready(&host, "")?.0);
    }
    times.sort_unstable();
    let (least, most) = (times.first().copied().unwrap_or_default(), times.last().copied().unwrap_or_default());
    let median = median(times);
    report.line(&format!("{STARTS} starts: {:.0} ms (median), {:.0} to {:.0} ms", ms(median), ms(least), ms(most)))?;
    report.target("start to READY, local meters", ms(median), Limit::Most(300.0), "ms");
    Ok(())
}
