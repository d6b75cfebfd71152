//! Tests of the perf meter: sockets that hold what a group read returns, and real software events of this kernel.

use super::*;
use crate::meter::fake_sysfs::{FakeHost, ICE_LAKE_SERVER, MILAN, TIGER_LAKE_CLIENT};
use crate::model::domain::Scope;
use perf_event_open_sys::bindings::{PERF_COUNT_SW_CPU_CLOCK, PERF_TYPE_SOFTWARE};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

type Pipes = Arc<Mutex<Vec<(u32, u64, UnixStream)>>>;

/// Every event is a pipe of sorts (a read of an empty one fails instead of waiting); what a test writes into the
/// leader's is what the group reads.
fn pipes() -> (Pipes, Opener) {
    let pipes = Pipes::default();
    let ours = pipes.clone();
    let open = move |_, config, cpu, _: Option<&File>| {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        ours.lock().unwrap().push((cpu, config, writer));
        Ok(File::from(OwnedFd::from(reader)))
    };
    (pipes, Box::new(open))
}

fn give(pipes: &Pipes, cpu: u32, joules: &[u64]) {
    let mut pipes = pipes.lock().unwrap();
    let (_, _, writer) = pipes.iter_mut().rfind(|(on, config, _)| *on == cpu && *config == 2).unwrap();
    let words = std::iter::once(joules.len() as u64).chain(joules.iter().map(|joules| joules << 32));
    writer.write_all(&words.flat_map(u64::to_ne_bytes).collect::<Vec<u8>>()).unwrap();
}

fn roots(host: &FakeHost) -> Roots {
    Roots { sysfs: host.sysfs(), procfs: host.procfs() }
}

fn open(host: &FakeHost, open: Opener) -> Result<Option<Perf>, String> {
    Perf::open_with(&RaplConfig::default(), &roots(host), &Topology::read(&roots(host)), open)
}

/// Opens with a first reading of `joules` on each of `cpus` already in the pipes.
fn open_on_pipes(host: &FakeHost, cpus: &[u32], joules: &[u64]) -> (Perf, Pipes) {
    let (pipes, mut inner) = pipes();
    let (ours, cpus, joules) = (pipes.clone(), cpus.to_vec(), joules.to_vec());
    let filled: Opener = Box::new(move |kind, config, cpu, leader| {
        let file = inner(kind, config, cpu, leader)?;
        if leader.is_none() && cpus.contains(&cpu) {
            give(&ours, cpu, &joules);
        }
        Ok(file)
    });
    (open(host, filled).unwrap().unwrap(), pipes)
}

fn read(meter: &mut Perf) -> Vec<Result<u64, String>> {
    let mut out = Vec::new();
    meter.read(Stamp::default(), &mut out);
    assert!(out.iter().zip(meter.domains()).all(|(reading, domain)| reading.domain == domain.id));
    out.into_iter()
        .map(|reading| match reading.reading? {
            Reading::Counter { total, wraps_at: None } => Ok(total.0),
            other => Err(format!("{other:?}")),
        })
        .collect()
}

fn ids(meter: &Perf) -> Vec<&str> {
    meter.domains().iter().map(|domain| domain.id.as_str()).collect()
}

#[test]
fn two_sockets_and_one_live_psys() {
    let host = FakeHost::new();
    host.cpus(2, 4, &ICE_LAKE_SERVER);
    host.power_pmu(23, "0,4", &[("energy-pkg", 2), ("energy-ram", 3), ("energy-psys", 5)]);
    let (mut meter, pipes) = open_on_pipes(&host, &[0, 4], &[0, 0, 0]);
    assert_eq!(ids(&meter), ["rapl/package-0", "rapl/package-0/dram", "rapl/package-1", "rapl/package-1/dram"]);
    assert!(meter.domains().iter().all(|domain| domain.billed && domain.source == SOURCE));
    assert_eq!(meter.domains()[3].path, "perf:power/energy-ram/cpu4");
    give(&pipes, 0, &[10, 1, 30]);
    give(&pipes, 4, &[20, 2, 0]);
    let joules = |joules: [u64; 5]| joules.map(|joules| Ok(joules * 1_000_000));
    assert_eq!(read(&mut meter), joules([10, 1, 20, 2, 30]));
    assert_eq!(ids(&meter)[4], "rapl/psys");
    assert_eq!(meter.domains()[4].scope, Scope::Machine);
    assert!(!meter.domains()[4].billed);
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn a_mask_with_one_cpu_a_die_counts_the_package_once() {
    let host = FakeHost::new();
    host.cpus(2, 4, &MILAN);
    host.power_pmu(12, "0,2,4,6", &[("energy-pkg", 2), ("energy-cores", 1)]);
    let (mut meter, pipes) = open_on_pipes(&host, &[0, 4], &[0]);
    assert_eq!(ids(&meter), ["rapl/package-0", "rapl/package-1"]);
    let opened: Vec<(u32, u64)> = pipes.lock().unwrap().iter().map(|(cpu, config, _)| (*cpu, *config)).collect();
    assert_eq!(opened, [(0, 2), (4, 2)]);
    give(&pipes, 0, &[5]);
    give(&pipes, 4, &[6]);
    assert_eq!(read(&mut meter), [Ok(5_000_000), Ok(6_000_000)]);
}

#[test]
fn a_client_bills_its_package_only() {
    let host = FakeHost::new();
    host.cpus(1, 8, &TIGER_LAKE_CLIENT);
    host.power_pmu(
        9,
        "0",
        &[("energy-pkg", 2), ("energy-cores", 1), ("energy-gpu", 4), ("energy-ram", 3), ("energy-psys", 5)],
    );
    let (meter, _pipes) = open_on_pipes(&host, &[0], &[1, 1, 1, 1, 1]);
    let billed: Vec<&str> =
        meter.domains().iter().filter(|domain| domain.billed).map(|domain| domain.id.as_str()).collect();
    assert_eq!(billed, ["rapl/package-0"]);
    assert_eq!(ids(&meter)[1..], ["rapl/package-0/core", "rapl/package-0/uncore", "rapl/package-0/dram", "rapl/psys"]);
}

#[test]
fn a_group_that_fails_is_opened_again() {
    let host = FakeHost::new();
    host.cpus(2, 1, &ICE_LAKE_SERVER);
    host.power_pmu(23, "0-1", &[("energy-pkg", 2)]);
    let (mut meter, pipes) = open_on_pipes(&host, &[0, 1], &[0]);
    let writer = pipes.lock().unwrap().remove(1);
    drop(writer);
    give(&pipes, 0, &[1]);
    let readings = read(&mut meter);
    assert_eq!(readings[0], Ok(1_000_000));
    assert!(
        readings[1]
            .as_ref()
            .is_err_and(|error| error == "perf:power/energy-pkg/cpu1: read: no longer counting (its CPUs are offline)")
    );
    assert!(matches!(meter.health(), Health::Degraded(why) if why.starts_with("1 of 2")));
    for _ in 1..RESCAN_EVERY {
        give(&pipes, 0, &[1]);
        read(&mut meter);
    }
    give(&pipes, 0, &[2]);
    give(&pipes, 1, &[3]);
    assert_eq!(read(&mut meter), [Ok(2_000_000), Ok(3_000_000)]);
    assert_eq!(meter.health(), Health::Healthy);
}

#[test]
fn a_package_that_comes_online_is_appended() {
    let host = FakeHost::new();
    host.cpus(2, 1, &ICE_LAKE_SERVER);
    host.power_pmu(23, "1", &[("energy-pkg", 2)]);
    let (mut meter, pipes) = open_on_pipes(&host, &[0, 1], &[0]);
    host.power_pmu(23, "0-1", &[("energy-pkg", 2)]);
    for _ in 0..RESCAN_EVERY {
        give(&pipes, 1, &[1]);
        read(&mut meter);
    }
    assert_eq!(ids(&meter), ["rapl/package-1", "rapl/package-0"]);
}

#[test]
fn a_pmu_without_events_is_no_meter() {
    let host = FakeHost::new();
    assert!(open(&host, pipes().1).unwrap().is_none());
    host.power_pmu(23, "0", &[]);
    assert!(open(&host, pipes().1).unwrap().is_none());
    host.power_pmu(23, "0", &[("energy-psys", 5)]);
    assert!(open(&host, pipes().1).unwrap().is_none());
}

#[test]
fn faults_name_their_file() {
    for (file, text, why) in [
        ("type", "x", "power/type: no number"),
        ("cpumask", "", "power/cpumask: no list of CPUs"),
        ("format/event", "config1:0-7", "format/event: not bits of config"),
        ("events/energy-pkg", "nonsense", "energy-pkg: no event number"),
        ("events/energy-pkg.unit", "Watts", "energy-pkg.unit: unit \"Watts\""),
        ("events/energy-pkg.scale", "-1", "energy-pkg.scale: no usable scale"),
    ] {
        let host = FakeHost::new();
        host.power_pmu(23, "0", &[("energy-pkg", 2)]);
        host.write_sys(&format!("bus/event_source/devices/power/{file}"), text);
        let error = open(&host, pipes().1).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn no_permission_says_which() {
    let host = FakeHost::new();
    host.power_pmu(23, "0", &[("energy-pkg", 2)]);
    let error = open(&host, Box::new(|_, _, _, _| Err(ErrorKind::PermissionDenied.into()))).err().unwrap();
    assert!(
        error.contains("CAP_PERFMON") && error.starts_with("perf:power/energy-pkg/cpu0: perf_event_open: "),
        "{error}"
    );
}

#[test]
fn an_event_that_cannot_be_opened_leaves_the_others() {
    let host = FakeHost::new();
    host.cpus(1, 2, &ICE_LAKE_SERVER);
    host.power_pmu(23, "0", &[("energy-pkg", 2), ("energy-ram", 3)]);
    let (pipes, mut inner) = pipes();
    let ours = pipes.clone();
    let opener: Opener = Box::new(move |kind, config, cpu, leader| {
        if config == 3 {
            return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
        }
        let file = inner(kind, config, cpu, leader)?;
        give(&ours, cpu, &[7]);
        Ok(file)
    });
    let mut meter = open(&host, opener).unwrap().unwrap();
    give(&pipes, 0, &[8]);
    let readings = read(&mut meter);
    assert_eq!(readings[0], Ok(8_000_000));
    assert!(
        readings[1].as_ref().is_err_and(|error| error.contains("energy-ram/cpu0: perf_event_open: Invalid argument"))
    );
}

/// The type of the PMU `power_core`.
const CORES: u32 = 40;

/// An AMD host with two packages of four cores with one thread each, its counters, and the meter on it.
struct Amd {
    host: FakeHost,
    pipes: Pipes,
    meter: Perf,
    second: u64,
}

/// Writes what the counter of the core of `cpu` says from now on.
fn give_core(pipes: &Pipes, cpu: u32, joules: u64) {
    let mut pipes = pipes.lock().unwrap();
    let (_, _, writer) = pipes.iter_mut().rfind(|(on, config, _)| *on == cpu && *config == 1).unwrap();
    // The meter may have closed the counter of a core that is offline.
    drop(writer.write_all(&[1, joules << 32].map(u64::to_ne_bytes).concat()));
}

impl Amd {
    fn open() -> Self {
        let host = FakeHost::new();
        host.cpus(2, 4, &MILAN);
        host.power_pmu(12, "0,4", &[("energy-pkg", 2), ("energy-cores", 1)]);
        host.power_core_pmu(CORES, "0-7");
        let (pipes, mut inner) = pipes();
        let ours = pipes.clone();
        let opener: Opener = Box::new(move |kind, config, cpu, leader| {
            assert_eq!(kind == CORES, config == 1, "energy-cores of `power` is one core's");
            let file = inner(kind, config, cpu, leader)?;
            match kind {
                CORES => give_core(&ours, cpu, 0),
                _ => give(&ours, cpu, &[0]),
            }
            Ok(file)
        });
        let meter = open(&host, opener).unwrap().unwrap();
        Self { host, pipes, meter, second: 0 }
    }

    /// The readings of `core` at the next second, in microjoules with their beginning; each package is at 9 J.
    fn read(&mut self, cores: &[(u32, u64)]) -> Vec<Result<(u64, u64), String>> {
        self.second += 1;
        [0, 4].into_iter().for_each(|cpu| give(&self.pipes, cpu, &[9]));
        cores.iter().for_each(|(cpu, joules)| give_core(&self.pipes, *cpu, *joules));
        let mut out = Vec::new();
        let at = Nanos(self.second * Nanos::SECOND.0);
        self.meter.read(Stamp { monotonic: at, ..Stamp::default() }, &mut out);
        let of_cores = out.into_iter().filter(|reading| reading.domain.as_str().ends_with("/core"));
        of_cores
            .map(|reading| match reading.reading? {
                Reading::Total { total, since } => Ok((total.0, since)),
                other => Err(format!("{other:?}")),
            })
            .collect()
    }
}

fn all(joules: u64) -> [(u32, u64); 8] {
    std::array::from_fn(|cpu| (cpu as u32, joules))
}

#[test]
fn the_cores_of_amd_processors_are_added_up_by_package_as_a_breakdown() {
    let mut amd = Amd::open();
    assert_eq!(ids(&amd.meter), ["rapl/package-0", "rapl/package-1", "rapl/package-0/core", "rapl/package-1/core"]);
    let core = &amd.meter.domains()[3];
    assert_eq!((core.zone, core.scope, core.billed), (Zone::Core, Scope::Package(PackageId(1)), false));
    assert_eq!(core.path, "perf:power_core/energy-core/cpu4 and those of all 4 cores, added up");
    assert_eq!(amd.read(&all(1)), [Ok((4_000_000, 1)), Ok((4_000_000, 1))]);
    let mut busy = all(2);
    busy[6].1 = 30;
    assert_eq!(amd.read(&busy), [Ok((8_000_000, 1)), Ok((36_000_000, 1))]);
    assert_eq!((amd.meter.health(), amd.meter.detail()), (Health::Healthy, String::new()));
    // Ticks that are shorter than a second: each read interrupts every core.
    let mut out = Vec::new();
    [0, 4].into_iter().for_each(|cpu| give(&amd.pipes, cpu, &[9]));
    let at = Nanos(amd.second * Nanos::SECOND.0 + 100_000_000);
    amd.meter.read(Stamp { monotonic: at, ..Stamp::default() }, &mut out);
    assert_eq!(out.len(), 2, "{out:?}");
}

#[test]
fn a_core_that_goes_offline_begins_the_sum_again_and_one_that_cannot_be_read_is_not_left_out_of_it() {
    let mut amd = Amd::open();
    amd.read(&all(5));
    // Its counter ends, and it is still listed: the sum is not known until it is opened again.
    amd.pipes.lock().unwrap().retain(|(cpu, config, _)| (*cpu, *config) != (2, 1));
    let others: Vec<(u32, u64)> = all(6).into_iter().filter(|(cpu, _)| *cpu != 2).collect();
    let readings = amd.read(&others);
    assert!(readings[0].as_ref().is_err_and(|why| why.contains("cpu2: no longer counting")), "{readings:?}");
    assert_eq!(readings[1], Ok((24_000_000, 1)));
    assert!(matches!(amd.meter.health(), Health::Degraded(why) if why.starts_with("1 of 4")));
    let others: Vec<(u32, u64)> = all(7).into_iter().filter(|(cpu, _)| *cpu != 2).collect();
    assert_eq!(amd.read(&others), [Ok((21_000_000, 3)), Ok((28_000_000, 1))], "it began at 0 when it was opened again");
    // CPU 2 goes offline: the mask lacks it, and the others go on.
    amd.host.power_core_pmu(CORES, "0-1,3-7");
    let mut last = Vec::new();
    for joules in 8..8 + u64::from(RESCAN_EVERY) {
        last = amd.read(&all(joules));
    }
    let joules = 7 + u64::from(RESCAN_EVERY);
    assert_eq!(last, [Ok((3 * joules * 1_000_000, 4)), Ok((4 * joules * 1_000_000, 1))]);
    assert_eq!(amd.meter.health(), Health::Healthy);
}

#[test]
fn packages_are_measured_where_the_description_of_the_cores_is_odd() {
    let host = FakeHost::new();
    host.cpus(1, 2, &MILAN);
    host.power_pmu(12, "0", &[("energy-pkg", 2)]);
    host.power_core_pmu(CORES, "0-1");
    host.write_sys("bus/event_source/devices/power_core/events/energy-core.unit", "Watts");
    let (meter, _pipes) = open_on_pipes(&host, &[0], &[0]);
    assert_eq!(ids(&meter), ["rapl/package-0"]);
    assert!(meter.detail().contains("energy-core.unit: unit \"Watts\""), "{}", meter.detail());
    assert_eq!(meter.health(), Health::Healthy);
}

/// The layout of a group read is the kernel's, not ours: software events stand in for energy.
#[test]
fn groups_of_real_events_count() {
    let host = FakeHost::new();
    host.power_pmu(23, "0", &[("energy-pkg", 2), ("energy-ram", 3)]);
    let opener: Opener =
        Box::new(|_, _, cpu, leader| open_event(PERF_TYPE_SOFTWARE, u64::from(PERF_COUNT_SW_CPU_CLOCK), cpu, leader));
    let mut meter = match open(&host, opener) {
        Err(why) if why.contains("CAP_PERFMON") => return eprintln!("skipped: {why}"),
        other => other.unwrap().unwrap(),
    };
    let mut last = vec![0; 2];
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now: Vec<u64> = read(&mut meter).into_iter().map(Result::unwrap).collect();
        // A clock counts 20e6 ns in 20 ms: 4656 µJ at 2^-32 J each.
        assert!(now.len() == 2 && now.iter().zip(&last).all(|(now, last)| *now >= last + 4000), "{last:?} {now:?}");
        last = now;
    }
}
