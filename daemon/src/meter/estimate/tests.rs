//! Tests of the estimate on fake hosts: exact energy, hotplug, errors, and its description.

use super::super::fake_sysfs::{FakeCpu, FakeHost, ICE_LAKE_SERVER, MILAN, TIGER_LAKE_CLIENT};
use super::*;

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
        host.write_proc("meminfo", "MemTotal: 16777216 kB\n");
        open(&host, config).unwrap().health().why().to_owned()
    };
    let default = EstimateConfig::default();
    let text = describe(&MILAN, &default);
    let said = ["estimate, not a measurement: ", "(EPYC 3rd Gen), TDP ", "; packages ", " at rest to ", ", memory "];
    assert!(said.iter().all(|said| text.contains(said)), "{text}");
    assert!(!describe(&TIGER_LAKE_CLIENT, &default).contains("memory"), "a client's is in the package");
    let unknown = describe(&FakeCpu { model: 9999, name: "Magic 9000", ..ICE_LAKE_SERVER }, &default);
    assert!(
        unknown.contains("\"Magic 9000\", TDP ") && unknown.contains("(not listed: by threads alone)"),
        "{unknown}"
    );
    assert!(describe(&FakeCpu { flags: "fpu hypervisor", ..MILAN }, &default).contains("a VM: its 1 vCPUs' part"));
    let configured = describe(&MILAN, &round_figures());
    assert!(configured.contains("configured watts, 1 to 5 W a thread, 100 %") && !configured.contains("memory"));
    let half = EstimateConfig { package_share: Some(0.5), ..EstimateConfig::default() };
    assert!(
        describe(&MILAN, &half).contains("published watts of EPYC 3rd Gen servers, 0.4454 to 2.0193 W a thread, 50 %")
    );
    assert!(describe(&TIGER_LAKE_CLIENT, &half).contains("Coffee Lake servers, the nearest to Tiger Lake"));
}

/// Two packages of cloud bare metal with 96 threads and 192 GiB.
fn cloud() -> FakeHost {
    let host = FakeHost::new();
    let name = "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz";
    host.cpus(2, 48, &FakeCpu { model: 85, stepping: 7, name, ..ICE_LAKE_SERVER });
    host.write_proc("meminfo", "MemTotal: 201326592 kB\n");
    host.stat(&[0; 96], &[0; 96]);
    host
}

#[test]
fn without_configured_watts_the_prior_speaks_with_its_curve() {
    let host = cloud();
    let mut meter = open(&host, &EstimateConfig::default()).unwrap();
    let ids: Vec<&str> = meter.domains().iter().map(|domain| domain.id.as_str()).collect();
    assert_eq!(ids, ["estimate/package-0", "estimate/package-1", "estimate/dram"]);
    assert_eq!((meter.domains()[2].zone, meter.domains()[2].scope), (Zone::Dram, Scope::Machine));
    assert!(meter.domains()[2].billed && meter.domains()[2].quality == Quality::Estimated);
    read(&mut meter, 0);
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    let prior = Prior::of(&machine::machine(&roots, &Topology::read(&roots)));
    // 25 % on package 0, full load on package 1, for 10 s.
    let busy: Vec<u64> = (0..96).map(|cpu| if cpu < 48 { 250 } else { 1000 }).collect();
    host.stat(&busy, &[0; 96]);
    let joules: Vec<f64> = read(&mut meter, 10 * SECOND).into_iter().map(|total| total.unwrap() as f64 / 1e6).collect();
    let expected = [
        10.0 * prior.package(0.25).watts / 2.0,
        10.0 * prior.package(1.0).watts / 2.0,
        10.0 * prior.dram(0.625).unwrap().watts,
    ];
    assert!(joules.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-4), "{joules:?} {expected:?}");
    // RAPL says 617 W of both packages at full load.
    assert!((joules[1] / 10.0 / 308.5 - 1.0).abs() < 0.25, "{joules:?}");
    assert_eq!(meter.domains()[0].at_rest.unwrap().0 / 1000, (prior.package(0.0).watts / 2.0 * 1e3) as u64);
}

#[test]
fn an_estimate_has_an_interval_and_configured_watts_have_none() {
    let host = cloud();
    let mut meter = open(&host, &EstimateConfig::default()).unwrap();
    let intervals = |meter: &mut Estimate, seconds: u64| {
        let mut out = Vec::new();
        meter.read(at(seconds * SECOND), &mut out);
        out.into_iter().map(|reading| reading.interval).collect::<Vec<_>>()
    };
    assert_eq!(intervals(&mut meter, 0), [None; 3], "no time has passed");
    host.stat(&[100; 96], &[0; 96]);
    let full = intervals(&mut meter, 1);
    let [package, _, memory] = [full[0], full[1], full[2]].map(Option::unwrap);
    assert!(package.low.watts() < 308.0 && package.high.watts() > 309.0 && package.low.watts() > 150.0, "{package:?}");
    assert!(memory.low.watts() < 94.0 && memory.high.watts() > 213.0, "stress of memory draws 214 W: {memory:?}");
    let rest = intervals(&mut meter, 2);
    assert!(rest[0].unwrap().high < package.low);
    host.write_proc("stat", "garbage");
    assert_eq!(intervals(&mut meter, 3), [None; 3]);
    host.stat(&[100; 96], &[0; 96]);
    let mut configured = open(&host, &round_figures()).unwrap();
    intervals(&mut configured, 0);
    assert_eq!(intervals(&mut configured, 1), [None; 2]);
}

#[test]
fn a_package_draws_what_it_draws_with_threads_offline_and_a_vm_does_not() {
    let second = |host: &FakeHost, meter: &mut Estimate| {
        read(meter, 0);
        host.stat(&[0; 48], &[0; 48]);
        read(meter, SECOND)[0].clone().unwrap()
    };
    let host = cloud();
    let mut meter = open(&host, &EstimateConfig::default()).unwrap();
    let whole = second(&host, &mut meter);
    host.stat(&[0; 24], &[0; 24]);
    assert_eq!(read(&mut meter, 2 * SECOND)[0], Ok(2 * whole));
    let vm = FakeHost::new();
    vm.cpus(1, 4, &FakeCpu { flags: "fpu hypervisor", ..MILAN });
    vm.stat(&[0; 4], &[0; 4]);
    let mut meter = open(&vm, &EstimateConfig::default()).unwrap();
    read(&mut meter, 0);
    let four = read(&mut meter, SECOND)[0].clone().unwrap();
    vm.stat(&[0; 2], &[0; 2]);
    let two = read(&mut meter, 2 * SECOND)[0].clone().unwrap() - four;
    assert!(two.abs_diff(four / 2) <= 1, "{four} {two}");
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
    let host = cloud();
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    let ratio = idle_to_full_ratio(&roots, &Topology::read(&roots));
    // Measured on such hosts: 58 of 617 W.
    assert!((0.09..0.13).contains(&ratio), "{ratio}");
    let nothing = Roots { sysfs: "/nonexistent".into(), procfs: "/nonexistent".into() };
    assert!((0.01..0.9).contains(&idle_to_full_ratio(&nothing, &Topology::default())));
}
