//! Tests of the estimate on fake hosts: exact energy, hotplug, errors, and its description.

use super::super::fake_sysfs::{FakeCpu, FakeHost, ICE_LAKE_SERVER, MILAN, TIGER_LAKE_CLIENT};
use super::*;
use proptest::prelude::*;

/// 1 W per thread at rest, 5 W at full load, all of it the package's.
fn round_figures() -> EstimateConfig {
    EstimateConfig {
        idle_watts_per_thread: Some(1.0),
        full_watts_per_thread: Some(5.0),
        package_share: Some(1.0),
        ..EstimateConfig::default()
    }
}

fn open(host: &FakeHost, config: &EstimateConfig) -> Result<Estimate, String> {
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    Estimate::open(config, &roots, &Topology::read(&roots))
}

fn at(monotonic: u64) -> Stamp {
    Stamp { monotonic: Nanos(monotonic), ..Stamp::default() }
}

fn read(meter: &mut Estimate, monotonic: u64) -> Vec<Result<u64, String>> {
    let mut out = Vec::new();
    meter.read(at(monotonic), &mut out);
    assert!(out.iter().zip(meter.domains()).all(|(reading, domain)| reading.domain == domain.id));
    out.into_iter()
        .map(|reading| match reading.reading? {
            Reading::Counter { total, wraps_at: None } => Ok(total.0),
            other => Err(format!("{other:?}")),
        })
        .collect()
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn idle_and_busy_threads_by_package() {
    let host = FakeHost::new();
    host.cpus(2, 2, &ICE_LAKE_SERVER);
    host.stat(&[1000, 0, 50, 7], &[0, 0, 0, 0]);
    let mut meter = open(&host, &round_figures()).unwrap();
    assert_eq!(meter.domains().len(), 2);
    assert_eq!(meter.domains()[1].id, "estimate/package-1");
    assert!(meter.domains().iter().all(|domain| domain.billed && domain.quality == Quality::Estimated));
    assert_eq!(read(&mut meter, 10 * SECOND), [Ok(0), Ok(0)]);
    host.stat(&[1200, 0, 50, 57], &[0, 200, 200, 150]);
    // Two threads at 1 W for 2 s; then 4 W for 2 s of busy time in package 0 and for 0.5 s in package 1.
    assert_eq!(read(&mut meter, 12 * SECOND), [Ok(4_000_000 + 8_000_000), Ok(4_000_000 + 2_000_000)]);
    assert_eq!(read(&mut meter, 13 * SECOND), [Ok(14_000_000), Ok(8_000_000)]);
}

#[test]
fn late_clock_ticks_are_carried_but_impossible_ones_are_not() {
    let host = FakeHost::new();
    host.cpus(1, 1, &MILAN);
    host.stat(&[0], &[0]);
    let mut meter = open(&host, &round_figures()).unwrap();
    read(&mut meter, 0);
    host.stat(&[101], &[0]);
    assert_eq!(read(&mut meter, SECOND), [Ok(5_000_000)]);
    host.stat(&[200], &[0]);
    assert_eq!(read(&mut meter, 2 * SECOND), [Ok(10_000_000)]);
    host.stat(&[u64::MAX], &[0]);
    assert_eq!(read(&mut meter, 3 * SECOND), [Ok(15_000_000)]);
    host.stat(&[5], &[0]);
    assert_eq!(read(&mut meter, 4 * SECOND), [Ok(20_000_000)]);
    assert_eq!(read(&mut meter, 5 * SECOND), [Ok(21_000_000)]);
}

#[test]
fn offline_cpus_draw_nothing_and_return() {
    let host = FakeHost::new();
    host.cpus(1, 2, &MILAN);
    host.stat(&[0, 0], &[0, 0]);
    let mut meter = open(&host, &round_figures()).unwrap();
    read(&mut meter, 0);
    host.stat(&[0], &[0]);
    assert_eq!(read(&mut meter, SECOND), [Ok(1_000_000)]);
    host.stat(&[0, 50], &[0, 0]);
    assert_eq!(read(&mut meter, 2 * SECOND), [Ok(1_000_000 + 2_000_000 + 2_000_000)]);
}

#[test]
fn a_cpu_that_is_new_brings_its_package() {
    let host = FakeHost::new();
    host.cpus(1, 1, &MILAN);
    host.stat(&[0], &[0]);
    let mut meter = open(&host, &round_figures()).unwrap();
    read(&mut meter, 0);
    host.cpus(2, 1, &MILAN);
    host.stat(&[0, 9999], &[0, 0]);
    assert_eq!(read(&mut meter, SECOND), [Ok(1_000_000), Ok(1_000_000)]);
    assert_eq!(meter.domains()[1].id, "estimate/package-1");
}

#[test]
fn an_error_loses_no_energy() {
    let host = FakeHost::new();
    host.cpus(1, 1, &MILAN);
    host.stat(&[0], &[0]);
    let mut meter = open(&host, &round_figures()).unwrap();
    read(&mut meter, 0);
    host.write_proc("stat", "garbage");
    assert!(read(&mut meter, SECOND)[0].as_ref().is_err_and(|error| error.contains("stat: no line for any CPU")));
    assert!(matches!(meter.health(), Health::Failed(_)));
    host.stat(&[200], &[0]);
    assert_eq!(read(&mut meter, 2 * SECOND), [Ok(10_000_000)]);
    assert!(matches!(meter.health(), Health::Degraded(_)));
}

#[test]
fn the_description_names_its_basis() {
    let describe = |cpu: &FakeCpu, config: &EstimateConfig| {
        let host = FakeHost::new();
        host.cpus(1, 1, cpu);
        host.stat(&[0], &[0]);
        open(&host, config).unwrap().health().why().to_owned()
    };
    let default = EstimateConfig::default();
    let text = describe(&MILAN, &default);
    assert!(
        text.contains("not a measurement")
            && text.contains("EPYC 3rd Gen servers, 0.4454 to 2.0193 W")
            && text.contains("65 %"),
        "{text}"
    );
    assert!(describe(&TIGER_LAKE_CLIENT, &default).contains("Coffee Lake servers, the nearest to Tiger Lake"));
    assert!(describe(&FakeCpu { model: 9999, ..ICE_LAKE_SERVER }, &default).contains("this processor is not known"));
    assert!(describe(&FakeCpu { flags: "fpu hypervisor", ..MILAN }, &default).contains("vCPUs"));
    assert!(describe(&MILAN, &round_figures()).contains("configured watts, 1 to 5 W a thread, 100 %"));
}

#[test]
fn contradictory_figures_are_refused() {
    let host = FakeHost::new();
    host.cpus(1, 1, &MILAN);
    host.stat(&[0], &[0]);
    for (idle, full, share) in
        [(2.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (f64::NAN, 1.0, 1.0), (0.0, 1e9, 1.0), (1.0, 2.0, 0.0), (1.0, 2.0, 1.1)]
    {
        let config = EstimateConfig {
            idle_watts_per_thread: Some(idle),
            full_watts_per_thread: Some(full),
            package_share: Some(share),
            ..EstimateConfig::default()
        };
        assert!(
            open(&host, &config).is_err_and(|error| error.starts_with("[meter.estimate]: ")),
            "{idle} {full} {share}"
        );
    }
    assert!(
        open(&FakeHost::new(), &EstimateConfig::default()).is_err_and(|error| error.contains("stat: No such file"))
    );
}

#[test]
fn the_idle_to_full_ratio() {
    let host = FakeHost::new();
    host.cpus(1, 1, &MILAN);
    let milan = Topology::read(&Roots { sysfs: host.sysfs(), procfs: host.procfs() }).model;
    assert!((idle_to_full_ratio(&milan) - 0.4454 / 2.0193).abs() < 1e-9);
}

proptest! {
    /// However the time is divided into reads, the sum is the closed form of the whole, to the microjoule.
    #[test]
    fn energy_does_not_depend_on_the_reads(
        steps in proptest::collection::vec((1u64..3_000_000_000, 0u64..=100), 1..60),
        idle in 0u64..3_000_000,
        dynamic in 0u64..9_000_000,
        threads in 1u64..300,
    ) {
        let mut package = Package { threads, ..Package::new(PackageId(0)) };
        let (mut time, mut busy, mut last) = (0u128, 0u128, Microjoules::ZERO);
        for (span, percent) in steps {
            let used = span * threads / 100 * percent;
            package.busy += Nanos(used);
            package.integrate(Nanos(span), Microwatts(idle), Microwatts(dynamic));
            prop_assert!(package.total >= last);
            last = package.total;
            time += u128::from(span * threads);
            busy += u128::from(used);
        }
        let exact = (u128::from(idle) * time + u128::from(dynamic) * busy) / MICROJOULE;
        prop_assert_eq!(u128::from(package.total.0), exact);
    }
}
