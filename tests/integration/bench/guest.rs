//! The guest channel in the guest: the time from the end of an epoch until the guest's reader has it. The costs on the
//! host are measured by `guests`.

use crate::Failure;
use crate::protocol_host::ProtocolHost;
use crate::report::{Limit, Report};
use jouled::meter::host_channel::{Address, Reader};
use std::time::{Duration, Instant};

const EPOCHS: usize = 150;

pub fn run(report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("host.sock");
    let mut host = ProtocolHost::new(&path);
    let reader = Reader::start(Address::Unix(path))?;
    let holds = |epoch: u64| {
        let held = reader
            .link()
            .wait(Duration::from_secs(10), |channel| channel.latest().is_some_and(|it| it.object.epoch == epoch));
        held.map(drop).ok_or("an epoch did not reach the guest")
    };
    holds(host.next.epoch)?;
    let mut times = Vec::new();
    for step in 0..EPOCHS {
        // At irregular intervals, so that the reader sleeps as it does between epochs.
        std::thread::sleep(Duration::from_micros(50_000 + 137 * (step as u64 % 31)));
        host.next.package += 1_000;
        let sent = Instant::now();
        host.send_epoch();
        holds(host.next.epoch)?;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, p99, most) = (times[EPOCHS / 2], times[EPOCHS * 99 / 100], times[EPOCHS - 1]);
    report.line(&format!(
        "{EPOCHS} epochs over a Unix socket: median {median:.3} ms, 99 % {p99:.3} ms, most {most:.3} ms"
    ))?;
    report.target(
        "guest: from the end of an epoch to the guest's reader holding it, most",
        most,
        Limit::Most(50.0),
        "ms",
    );
    Ok(())
}
