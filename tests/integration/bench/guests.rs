//! The guest channel with many guests on hybrid sockets: its costs on the host, and the delay of each guest's line.
//! Each guest is a process.

use crate::Failure;
use crate::clock::{median, monotonic, ms, process_time, thread_time};
use crate::report::{Limit, Report};
use jouled::attribution::ledger::Limits;
use jouled::attribution::{Core, CoreConfig, State};
use jouled::export::guest::{self, GuestConfig, Guests, HostFacts, Profile};
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::{Domain, NodeEnergy, Scope, Zone};
use jouled::model::entity::Kind;
use jouled::model::snapshot::{DomainView, Energy, Host, Row, Snapshot};
use jouled::model::source::{PackageId, Stamp};
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::model::usage::{ProcessKey, Used};
use jouled::model::vm::{Vm, Vmm};
use jouled::sys::proc_pid;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const GUESTS: usize = 1_000;
const EPOCHS: usize = 20;
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Results of the guests, in shared memory.
struct Results {
    listening: AtomicUsize,
    /// When the snapshot of an epoch was published, CLOCK_MONOTONIC in nanoseconds, by number of the epoch.
    published: [AtomicU64; EPOCHS],
    /// Nanoseconds until each guest had the line of an epoch; 0: never.
    delays: [[AtomicU64; GUESTS]; EPOCHS],
    connected: AtomicUsize,
}

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let results = results()?;
    let crowd = Crowd::gather(results, dir.path())?;
    wait("guests listen", || results.listening.load(Relaxed) == GUESTS)?;
    let mut host = host(&crowd.0);
    let (publish, snapshots) = watch::channel(Arc::new(host.clone()));
    // Makes the publisher allocate its memory before the measurement.
    (0..3).for_each(|_| drop(publish.send_replace(Arc::new(host.clone()))));
    std::thread::sleep(Duration::from_millis(100));
    let memory = resident()?;

    let stop = CancellationToken::new();
    let server = server(dir.path(), snapshots, stop.clone());
    wait("guests have read", || {
        std::thread::sleep(Duration::from_millis(50));
        results.connected.load(Relaxed) == GUESTS
    })?;
    let connected = resident()?;
    let (before, begin) = (process_time() - thread_time(), monotonic());
    for epoch in 0..EPOCHS {
        std::thread::sleep((begin + Duration::from_secs(epoch as u64 + 1)).saturating_sub(monotonic()));
        let now = Stamp::now();
        host.at = now;
        host.ticks += 1;
        host.domains[0].read_at = Some(now.monotonic);
        for row in &mut host.kinds[Kind::Vm.index()].rows {
            row.energy.dynamic[Zone::Package.index()] = Microjoules((epoch as u64 + 1) * 1_000_000);
        }
        let next = Arc::new(host.clone());
        results.published[epoch].store(Stamp::now().monotonic.0, Relaxed);
        publish.send_replace(next);
    }
    std::thread::sleep(Duration::from_millis(900));
    let (used, time) = (process_time() - thread_time() - before, monotonic() - begin);
    let after = resident()?;
    stop.cancel();
    server.join().map_err(|_| "the channel failed")?;

    let mut late: Vec<Duration> =
        results.delays.iter().flatten().map(|late| Duration::from_nanos(late.load(Relaxed))).collect();
    let missed = late.iter().filter(|late| late.is_zero()).count();
    late.retain(|late| !late.is_zero());
    late.sort_unstable();
    let of = |share: f64| late.get(((late.len() - 1) as f64 * share) as usize).copied().map(ms).unwrap_or_default();
    let share = used.as_secs_f64() / time.as_secs_f64() * 100.0;
    let each = (after.max(connected) - memory) / 1024.0 / GUESTS as f64;
    report.line(&format!(
        "{GUESTS} guests, {EPOCHS} epochs of 1 s: {:.1} µs of CPU time each and epoch; line after {:.2} ms (median), {:.2} ms (99 %), \
         {:.2} ms (last); {missed} missed",
        used.as_secs_f64() * 1e6 / (GUESTS * EPOCHS) as f64,
        ms(median(late.clone())),
        of(0.99),
        of(1.0)
    ))?;
    report.line(&format!(
        "resident {:.1} MB more than without guests, {:.1} MB at first",
        (after - memory) / 1e6,
        (connected - memory) / 1e6
    ))?;
    report.target("guest channel, 1,000 guests at 1 s, CPU", share, Limit::Most(1.5), "% of a CPU");
    report.target("guest channel, memory of a guest", each, Limit::Most(32.0), "KiB");
    report.target("guest channel, 1,000 guests at 1 s, the last one has its line", of(1.0), Limit::Most(50.0), "ms");
    report.target("guest channel, lines that did not come", missed as f64, Limit::Most(0.0), "lines");
    Ok(())
}

fn server(
    dir: &Path,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stop: CancellationToken,
) -> std::thread::JoinHandle<()> {
    let config = GuestConfig { profile: Profile::Trusted, hybrid: vec![dir.to_owned()], ..GuestConfig::default() };
    let facts = HostFacts {
        machine_id: "bench".into(),
        boot_id: "bench".into(),
        idle: IdlePolicy::Apart,
        alive: Arc::new(|process| proc_pid::process(Path::new("/proc"), process.pid) == Some(process)),
        procfs: "/proc".into(),
        connections: guest::connections(),
    };
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            if let Ok(channel) = guest::bind(Guests::new(config, facts)) {
                channel.serve(snapshots, stop).await;
            }
        });
    })
}

/// A snapshot with a VM for each process.
fn host(pids: &[libc::pid_t]) -> Snapshot {
    let config = CoreConfig {
        host: Host { interval: Nanos::SECOND, ..Host::default() },
        limits: Limits {
            shown: [2_000; Kind::ALL.len()],
            retention: Nanos::ZERO,
            least: Microjoules(0),
            name_wait: Nanos(0),
        },
        idle: IdlePolicy::Apart,
        floors: Default::default(),
        prior_ratio: 0.3,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    };
    let mut snapshot = Core::new(config, State::default(), false, Nanos::ZERO).blank();
    snapshot.at = Stamp::now();
    snapshot.ticks = 1;
    let scope = Scope::Package(PackageId(0));
    let domain = Domain {
        billed: true,
        continuous: true,
        max_power: Microwatts(500_000_000),
        ..Domain::measured("rapl/package-0", "rapl-perf", Zone::Package, scope, "power/energy-pkg/cpu0".into())
    };
    snapshot.domains = vec![DomainView {
        role: jouled::model::snapshot::Role::Billed,
        shares_estimated: false,
        domain: Arc::new(domain),
        past: false,
        energy: NodeEnergy::default(),
        power: None,
        idle_power: None,
        interval: None,
        floor: None,
        read_at: Some(snapshot.at.monotonic),
        error: String::new(),
        verdict: Default::default(),
        gaps: 0,
        gap_time: Nanos::ZERO,
        learned: None,
        shared_by: None,
    }];
    let vm = |(n, pid): (usize, &libc::pid_t)| {
        let pid = *pid as u32;
        let uuid = format!("8c0d1f6a-0000-4000-8000-{n:012}");
        Vm {
            id: uuid.clone(),
            name: format!("guest-{n}"),
            hypervisor: "kvm".into(),
            uuid: Some(uuid),
            vmm: Vmm::Firecracker,
            process: proc_pid::process(Path::new("/proc"), pid).unwrap_or(ProcessKey { pid, start: 0 }),
            vcpus: Some(2),
            cid: None,
            vhost_user: Vec::new(),
            pci: Vec::new(),
            vouched: true,
            manager: String::new(),
            state: String::new(),
            title: String::new(),
            profile: None,
            details: Default::default(),
        }
    };
    snapshot.vms = pids.iter().enumerate().map(vm).collect();
    snapshot.kinds[Kind::Vm.index()].rows = snapshot.vms.iter().map(row).collect();
    snapshot
}

fn row(vm: &Vm) -> Row {
    Row {
        labels: vm.labels(),
        state: jouled::model::snapshot::State::Running,
        energy: Energy::default(),
        power: Default::default(),
        idle_power: Default::default(),
        used: Used::default(),
        since: Nanos(1_700_000_000_000_000_000),
        on_page: Default::default(),
        within: None,
        settled: false,
    }
}

/// Processes that are VMM and guest in one. They are killed when this is dropped, or when this thread ends.
struct Crowd(Vec<libc::pid_t>);

impl Crowd {
    fn gather(results: &'static Results, dir: &Path) -> Result<Self, Failure> {
        let mut crowd = Self(Vec::with_capacity(GUESTS));
        for number in 0..GUESTS {
            // SAFETY: there is only one thread, so the child may do anything.
            match unsafe { libc::fork() } {
                0 => {
                    // SAFETY: valid arguments.
                    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                    let _ = run_guest(results, number, &dir.join(format!("{number}.vsock")));
                    // SAFETY: no arguments that could be wrong.
                    unsafe { libc::_exit(0) }
                }
                pid if pid < 0 => return Err(std::io::Error::last_os_error().into()),
                pid => crowd.0.push(pid),
            }
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for pid in &self.0 {
            // SAFETY: our own child, not reaped yet.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        for pid in &self.0 {
            // SAFETY: as above.
            unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
        }
    }
}

/// A guest: opens its VMM's socket, then reads the stream.
fn run_guest(results: &Results, number: usize, uds: &PathBuf) -> Result<(), Failure> {
    let _vmm = UnixListener::bind(uds)?;
    results.listening.fetch_add(1, Relaxed);
    let socket = format!("{}_28282", uds.display());
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    };
    stream.write_all(b"GET /v1/stream HTTP/1.1\r\nHost: host\r\n\r\n")?;
    let mut first = true;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        // The benchmark sets the energy in joules to the number of the epoch.
        let Some((_, rest)) = line.split_once("\"energy_uj\":") else { continue };
        let now = Stamp::now().monotonic.0;
        let joules = rest[..rest.find(',').unwrap_or(0)].parse::<usize>()? / 1_000_000;
        if std::mem::take(&mut first) {
            results.connected.fetch_add(1, Relaxed);
        } else if let Some(epoch) = joules.checked_sub(1).filter(|epoch| *epoch < EPOCHS) {
            results.delays[epoch][number].store(now - results.published[epoch].load(Relaxed), Relaxed);
        }
    }
    Ok(())
}

fn results() -> Result<&'static Results, Failure> {
    // SAFETY: fresh shared pages, zeroed, which is a valid Results, and never unmapped.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        match libc::mmap(std::ptr::null_mut(), size_of::<Results>(), access, flags, -1, 0) {
            libc::MAP_FAILED => Err(std::io::Error::last_os_error().into()),
            page => Ok(&*page.cast::<Results>()),
        }
    }
}

fn wait(what: &str, done: impl Fn() -> bool) -> Result<(), Failure> {
    let begin = monotonic();
    while !done() {
        if monotonic() - begin > TIME_LIMIT {
            return Err(format!("waited in vain: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Resident anonymous memory of this process (`RssAnon`) in bytes.
pub fn resident() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kib: f64 = line.trim_matches([' ', '\t', 'k', 'B']).parse()?;
    Ok(kib * 1024.0)
}
