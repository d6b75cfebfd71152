//! org.jouled1 on a private bus: the time of a read, and the costs of reads, signals and introspection. The client is
//! another process, so that its CPU time does not count.

use crate::Failure;
use crate::bus::{Bus, Policy};
use crate::clock::{median, ms, process_time, thread_time, time_of};
use crate::many_units::{later, snapshot};
use crate::report::{Limit, Report};
use jouled::export::HealthBoard;
use jouled::export::dbus::{self, DbusConfig, DbusMode, Facts, NAME};
use jouled::model::snapshot::Snapshot;
use jouled::model::units::Microjoules;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zbus::Address;
use zbus::connection::Builder;

const UNITS: usize = 2_000;
const READS: u32 = 10_000;
const RATE: u32 = 1_000;
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let Some(bus) = Bus::start(folder.path(), Policy::Open) else { return Err("no dbus-daemon".into()) };
    let (ours, theirs) = UnixDatagram::pair()?;
    // SAFETY: there is only one thread, so the child may do anything.
    let child = match unsafe { libc::fork() } {
        0 => {
            // SAFETY: valid arguments.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let _ = client(&bus.address, &theirs);
            // SAFETY: no arguments that could be wrong.
            unsafe { libc::_exit(0) }
        }
        child if child < 0 => return Err(std::io::Error::last_os_error().into()),
        child => child,
    };
    ours.set_read_timeout(Some(Duration::from_secs(120)))?;
    let result = measure(report, &bus, &ours);
    // SAFETY: our own child, not reaped yet.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    result
}

fn measure(report: &mut Report, bus: &Bus, client: &UnixDatagram) -> Result<(), Failure> {
    let mut host = snapshot(UNITS);
    let (publish, snapshots) = watch::channel(Arc::new(host.clone()));
    let stop = CancellationToken::new();
    let server = server(bus.address.clone(), snapshots, stop.clone());
    let ask = |what: &[u8]| -> Result<(f64, Duration), Failure> {
        let before = process_time().saturating_sub(thread_time());
        client.send(what)?;
        let mut answer = [0; 8];
        client.recv(&mut answer)?;
        Ok((f64::from_le_bytes(answer), process_time().saturating_sub(thread_time()).saturating_sub(before)))
    };
    ask(b"hello")?;
    let (read, used) = ask(b"one after another")?;
    report.line(&format!(
        "a property, of {UNITS} units, one after another: {read:.3} ms from call to answer (median of {READS}), {:.1} µs of CPU time each",
        used.as_secs_f64() * 1e6 / f64::from(READS)
    ))?;
    report.target("org.jouled1, a read", read, Limit::Most(1.0), "ms");
    // With a tick a second, as on a real host: the first read of each snapshot has to index it.
    let ticking = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (mut next, still) = (host.clone(), Arc::clone(&ticking));
    let spent = std::thread::spawn(move || {
        while still.load(std::sync::atomic::Ordering::Relaxed) {
            later(&mut next, 1, Microjoules(1_500_000));
            publish.send_replace(Arc::new(next.clone()));
            std::thread::sleep(Duration::from_secs(1));
        }
        (thread_time(), publish, next)
    });
    let bus_time = time_of(bus.pid());
    let (seconds, used) = ask(b"at a rate")?;
    let bus_time = time_of(bus.pid()).saturating_sub(bus_time);
    ticking.store(false, std::sync::atomic::Ordering::Relaxed);
    let (publisher_time, publish, next) = spent.join().map_err(|_| "the publisher failed")?;
    host = next;
    let share = used.saturating_sub(publisher_time).as_secs_f64() / seconds * 100.0;
    report.line(&format!(
        "{RATE} reads a second, {UNITS} units, a tick a second, signals of all: {share:.2} % of a CPU; dbus-daemon for the same: {:.2} %",
        bus_time.as_secs_f64() / seconds * 100.0
    ))?;
    report.target("org.jouled1, 1,000 reads a second, CPU", share, Limit::Most(5.0), "% of a CPU");
    for (what, words) in
        [(&b"introspect"[..], "introspection of the folder of units"), (b"managed", "GetManagedObjects")]
    {
        let (time, used) = ask(what)?;
        report.line(&format!("{words}, {UNITS} units: {time:.2} ms, {:.2} ms of CPU time", ms(used)))?;
    }
    later(&mut host, 10, Microjoules(5_000_000));
    drop(publish);
    stop.cancel();
    server.join().map_err(|_| "the export failed")?;
    Ok(())
}

fn server(
    address: String,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let facts = Facts {
            place_of: Arc::new(|_| None),
            owner_of: Arc::new(|_| None),
            machine_id: String::new(),
            reports: Default::default(),
        };
        let config = DbusConfig { mode: DbusMode::Auto, ..DbusConfig::default() };
        // On a task, as in the daemon: the future of `block_on` itself costs one more epoll_wait each time it is woken.
        let served = runtime.spawn(async {
            let bus = move || Address::try_from(address.as_str());
            if let Ok(served) = dbus::bind(config, facts, HealthBoard::default().slot(dbus::SOURCE), bus.clone()).await
            {
                served.serve(bus, snapshots, stop).await;
            }
        });
        let _ = runtime.block_on(served);
    })
}

/// The client process: receives orders, and answers each with a figure.
fn client(address: &str, orders: &UnixDatagram) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bus = Builder::address(address).build().await?;
        let call = async |path: &str, interface: &str, member: &str| {
            bus.call_method(Some(NAME), path, Some(interface), member, &()).await
        };
        let get = async |unit: u32| {
            let path = format!("/org/jouled1/unit/unit_2d{}_2eservice", unit as usize % UNITS);
            bus.call_method(Some(NAME), path, Some(PROPERTIES), "Get", &("org.jouled1.Unit", "EnergyMicrojoules")).await
        };
        loop {
            let mut order = [0; 64];
            let length = orders.recv(&mut order)?;
            let begun = Instant::now();
            let figure = match &order[..length] {
                b"hello" => {
                    while get(0).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    0.0
                }
                b"one after another" => {
                    let mut times = Vec::new();
                    for unit in 0..READS {
                        let asked = Instant::now();
                        get(unit).await?;
                        times.push(asked.elapsed());
                        // Stays below the rate that one client may sustain.
                        if unit % 4 == 0 {
                            tokio::time::sleep(Duration::from_micros(500)).await;
                        }
                    }
                    ms(median(times))
                }
                b"at a rate" => {
                    for unit in 0..READS {
                        let due = begun + Duration::from_secs(1) / RATE * unit;
                        tokio::time::sleep_until(due.into()).await;
                        get(unit).await?;
                    }
                    begun.elapsed().as_secs_f64()
                }
                b"introspect" => {
                    call("/org/jouled1/unit", "org.freedesktop.DBus.Introspectable", "Introspect").await?;
                    ms(begun.elapsed())
                }
                _ => {
                    call("/org/jouled1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects").await?;
                    ms(begun.elapsed())
                }
            };
            orders.send(&figure.to_le_bytes())?;
        }
    })
}
