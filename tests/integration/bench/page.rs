//! The page with many rows: what a tick costs with no, one and 100 open pages, and their memory. The browsers are
//! another process, so that its CPU time does not count; this thread makes the snapshots, as the sampler does, and does
//! not count either.

use crate::Failure;
use crate::clock::{median, monotonic, ms, process_time, thread_time};
use crate::guests::resident;
use crate::many_units::{later, snapshot};
use crate::report::{Limit, Report};
use jouled::export::guest::{self, GuestConfig, Guests, HostFacts};
use jouled::export::http;
use jouled::export::page::{self, Feed};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::Zone;
use jouled::model::entity::{Kind, ProcessLabels};
use jouled::model::snapshot::{Row, Snapshot};
use jouled::model::units::{Microjoules, Microwatts};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const UNITS: usize = 2_000;
const PROCESSES: usize = 10_000;
/// Processes whose power is another one at each tick; all units have another energy.
const ACTIVE: usize = 1_000;
/// Open pages, in turn: each number several times, as the machine may do other things meanwhile.
const PAGES: [usize; 3] = [0, 1, 100];
const ROUNDS: usize = 3;
const TICKS: usize = 8;
const SECOND: Duration = Duration::from_secs(1);

/// What was measured with one number of open pages.
#[derive(Default)]
struct Phase {
    used: Duration,
    time: Duration,
    memory: f64,
    late: Vec<Duration>,
}

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (ours, theirs) = UnixDatagram::pair()?;
    // SAFETY: there is only one thread, so the child may do anything.
    let child = match unsafe { libc::fork() } {
        0 => {
            // SAFETY: valid arguments.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let _ = browsers(address, &theirs);
            // SAFETY: no arguments that could be wrong.
            unsafe { libc::_exit(0) }
        }
        child if child < 0 => return Err(std::io::Error::last_os_error().into()),
        child => child,
    };
    ours.set_read_timeout(Some(Duration::from_secs(60)))?;
    let result = measure(report, address, &ours);
    // SAFETY: our own child, not reaped yet.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    result
}

fn measure(report: &mut Report, address: SocketAddr, browsers: &UnixDatagram) -> Result<(), Failure> {
    let mut host = crowded()?;
    let (publish, snapshots) = watch::channel(Arc::new(host.clone()));
    let stop = CancellationToken::new();
    let server = server(address, snapshots, stop.clone());
    let mut tick = |last: &watch::Sender<Arc<Snapshot>>| {
        next(&mut host);
        last.send_replace(Arc::new(host.clone()));
    };
    // Rows and curves are there before anything is measured, and a page has been open.
    for pages in [0, 1, 0] {
        open(browsers, pages)?;
        for _ in 0..3 {
            tick(&publish);
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    let mut phases = PAGES.map(|_| Phase::default());
    for _ in 0..ROUNDS {
        for (pages, phase) in PAGES.into_iter().zip(&mut phases) {
            open(browsers, pages)?;
            // The first frame is another matter: it is made once.
            std::thread::sleep(Duration::from_millis(500));
            let (used, begin) = (process_time() - thread_time(), monotonic());
            for number in 1..=TICKS {
                let due = begin + SECOND * number as u32;
                std::thread::sleep(due.saturating_sub(monotonic()));
                phase.late.push(monotonic().saturating_sub(due));
                tick(&publish);
                phase.memory = phase.memory.max(resident()?);
            }
            std::thread::sleep((begin + SECOND * (TICKS as u32 + 1)).saturating_sub(monotonic()));
            phase.memory = phase.memory.max(resident()?);
            phase.used += process_time() - thread_time() - used;
            phase.time += monotonic() - begin;
        }
    }
    let bytes = order(browsers, "bytes")?;
    stop.cancel();
    drop(publish);
    server.join().map_err(|_| "the server failed")??;
    said(report, &phases, bytes)
}

fn said(report: &mut Report, phases: &[Phase; 3], bytes: u64) -> Result<(), Failure> {
    let [none, one, all] = phases;
    let percent = |phase: &Phase| phase.used.as_secs_f64() / phase.time.as_secs_f64() * 100.0;
    let megabytes = |phase: &Phase| (phase.memory - none.memory).max(0.0) / 1e6;
    let frame = bytes as f64 / 1e3 / (ROUNDS * TICKS) as f64 / (PAGES[1] + PAGES[2]) as f64;
    let late = |phase: &Phase| {
        let mut late = phase.late.clone();
        late.sort_unstable();
        let at = |share: f64| late.get(((late.len() - 1) as f64 * share) as usize).copied().unwrap_or_default();
        format!("{:.2} ms ({:.2} ms at most)", ms(at(0.5)), ms(at(1.0)))
    };
    report.line(&format!(
        "{PROCESSES} processes of which {ACTIVE} change, {UNITS} units that all do, a tick a second; a frame has {frame:.0} KB"
    ))?;
    for (pages, phase) in PAGES.into_iter().zip(phases) {
        report.line(&format!(
            "{pages:>3} open pages: {:.2} % of a CPU, {:.2} ms a tick; resident {:+.1} MB; a tick begins {} late",
            percent(phase),
            ms(phase.used) / (ROUNDS * TICKS) as f64,
            megabytes(phase),
            late(phase)
        ))?;
    }
    report.line(&format!(
        "CPU time over that without a page: one page {:.2}, 100 pages {:.2}",
        percent(one) / percent(none),
        percent(all) / percent(none)
    ))?;
    report.target(
        "100 open pages, CPU, more than without",
        percent(all) - percent(none),
        Limit::Most(1.0),
        "% of a CPU",
    );
    report.target("100 open pages, memory, more than without", megabytes(all), Limit::Most(10.0), "MB");
    let later = ms(median(all.late.clone())) - ms(median(none.late.clone()));
    report.target("100 open pages, a tick is later", later, Limit::Most(0.5), "ms");
    Ok(())
}

/// A snapshot with all units and processes. The active processes come first.
fn crowded() -> Result<Snapshot, Failure> {
    let mut host = snapshot(UNITS);
    let like = host.kinds[Kind::Unit.index()].rows.first().cloned().ok_or("no unit")?;
    let within: Vec<Arc<[_]>> =
        host.kinds[Kind::Unit.index()].rows.iter().map(|unit| [unit.labels.clone()].into()).collect();
    let process = |number: usize| {
        let (pid, comm) = ((10_000 + number).to_string(), format!("worker-{}", number % 50));
        let exe = format!("/usr/lib/service-{}/{comm}", number % UNITS);
        let labels =
            ProcessLabels { pid: &pid, comm: &comm, exe: &exe, process_type: "regular", container_id: "", vm_id: "" };
        Row { labels: labels.into(), within: within.get(number % UNITS).cloned(), ..like.clone() }
    };
    host.kinds[Kind::Process.index()].rows = (0..PROCESSES).map(process).collect();
    Ok(host)
}

fn next(host: &mut Snapshot) {
    later(host, 1, Microjoules(10_000));
    let zone = Zone::Package.index();
    for (number, row) in host.kinds[Kind::Process.index()].rows.iter_mut().take(ACTIVE).enumerate() {
        // Numbers of four digits that are others each time.
        let drawn = 20_000 + (number as u64 * 7_919 + host.ticks * 104_729) % 60_000;
        row.energy.dynamic[zone] += Microjoules(drawn);
        row.power[zone] = Microwatts(drawn);
    }
}

fn server(
    address: SocketAddr,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) -> std::thread::JoinHandle<Result<(), String>> {
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let facts = HostFacts {
            machine_id: "bench".into(),
            boot_id: "bench".into(),
            idle: IdlePolicy::Apart,
            alive: Arc::new(|_| false),
            procfs: "/proc".into(),
            connections: guest::connections(),
        };
        let guests = Guests::new(GuestConfig::default(), facts);
        // On tasks, as in the daemon.
        let served = runtime.spawn(async move {
            let listeners = http::bind(&[address]).map_err(|error| error.to_string())?;
            let (texts, feed) = (http::SharedTexts::default(), Arc::new(Feed::new()));
            let router = page::routes(&texts, Arc::clone(&feed), guests, stop.clone());
            tokio::join!(
                feed.run(snapshots, Kind::ALL.to_vec(), stop.clone()),
                http::serve(listeners, router, None, stop)
            );
            Ok(())
        });
        runtime.block_on(served).map_err(|error| error.to_string())?
    })
}

fn order(browsers: &UnixDatagram, words: &str) -> Result<u64, Failure> {
    browsers.send(words.as_bytes())?;
    let mut answer = [0; 8];
    browsers.recv(&mut answer)?;
    Ok(u64::from_le_bytes(answer))
}

/// Lets the browsers have this many open pages; each has its first frame when this returns.
fn open(browsers: &UnixDatagram, pages: usize) -> Result<(), Failure> {
    match order(browsers, &pages.to_string())? {
        open if open == pages as u64 => Ok(()),
        open => Err(format!("{open} of {pages} pages could be opened").into()),
    }
}

/// The browsers: a process that obeys orders (how many pages are to be open), and reads what comes.
fn browsers(address: SocketAddr, orders: &UnixDatagram) -> Result<(), Failure> {
    orders.set_nonblocking(true)?;
    let (mut pages, mut bytes, mut buffer) = (Vec::<TcpStream>::new(), 0_u64, vec![0; 1 << 16]);
    loop {
        let mut order = [0; 16];
        if let Ok(length) = orders.recv(&mut order) {
            let words = std::str::from_utf8(&order[..length])?;
            let answer = match words.parse::<usize>() {
                Ok(wanted) => {
                    pages.clear();
                    for _ in 0..wanted {
                        pages.push(page(address, &mut buffer)?);
                    }
                    pages.len() as u64
                }
                Err(_) => bytes,
            };
            orders.send(&answer.to_le_bytes())?;
        }
        for page in &mut pages {
            while let Ok(length) = page.read(&mut buffer) {
                if length == 0 {
                    return Err("a page was closed".into());
                }
                bytes += length as u64;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One open page, which has its first frame.
fn page(address: SocketAddr, buffer: &mut [u8]) -> Result<TcpStream, Failure> {
    let begin = monotonic();
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            // The server may not listen yet.
            Err(_) if monotonic() - begin < Duration::from_secs(10) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")?;
    let mut first = Vec::new();
    let ends = |text: &[u8]| {
        let is_full = text.windows(12).any(|part| part == b"event: full\n");
        is_full && text.windows(3).any(|part| part == b"]}\n")
    };
    // The end of the first frame is looked for in what came last.
    while !ends(&[&first[..first.len().min(4096)], &first[first.len().saturating_sub(8)..]].concat()) {
        let length = stream.read(buffer)?;
        if length == 0 {
            return Err("no first frame".into());
        }
        first.extend_from_slice(&buffer[..length]);
    }
    stream.set_nonblocking(true)?;
    Ok(stream)
}
