//! Meters of the whole machine beside what is in it: units that are too large, chassis of several servers, and GPUs
//! that no meter sees; parts of packages that count nothing.

use super::doubts::{is_refused, is_suspect};
use super::plausibility::{Host, PACKAGE, acpi, counter, gauge, package, view};
use super::*;
use crate::model::domain::Verdict;

const ACPI: &str = "hwmon/acpi";

/// What the meter of the whole machine says, as a power or as a counter.
fn says(by_counter: bool, watts: f64, total: &mut f64, every: u64) -> Option<Reading> {
    *total += watts * every as f64;
    if by_counter { counter(*total) } else { gauge((watts * 1e6) as u64) }
}

#[test]
fn a_unit_that_is_too_large_by_a_thousand_is_no_power_until_it_is_right() {
    // Watts of the machine, of its package, and CPUs that are busy: a server, a desktop, small boxes, at work and at
    // rest.
    for (whole, inside, busy) in
        [(95.0, 40.0, 1.0), (98.0, 20.0, 0.1), (45.0, 8.0, 0.05), (12.0, 3.0, 1.0), (6.0, 2.0, 0.02)]
    {
        for by_counter in [false, true] {
            let psys = domain(0, Zone::Psys);
            let mut host = Host::new(vec![acpi(), package(), domain(1, Zone::Package), psys]);
            host.every = 5;
            let (mut all, mut part, mut third, mut last) = (0.0, 100.0, 500.0, None);
            let mut tick = |host: &mut Host, factor: f64, seconds: u64| {
                for _ in 0..seconds / 5 {
                    part += inside * 5.0;
                    third += whole * 0.9 * 5.0;
                    let platform = says(by_counter, whole * factor, &mut all, 5);
                    last = Some(host.tick(busy, &[platform, counter(part / 2.0), counter(part / 2.0), counter(third)]));
                }
                last.clone().unwrap()
            };
            let snapshot = tick(&mut host, 1000.0, 900);
            let why = host.verdict(ACPI);
            assert!(is_refused(&why, "is its unit another one?"), "{whole} W, counter {by_counter}: {why:?}");
            assert_eq!(snapshot.platform.authority, Some(PlatformKind::Psys), "{whole} W");
            tick(&mut host, 1000.0, 1200);
            assert!(is_refused(&host.verdict(ACPI), "is its unit another one?"), "{whole} W stays refused");
            let snapshot = tick(&mut host, 1.0, 900);
            assert_eq!(host.verdict(ACPI), Verdict::Usable, "{whole} W, counter {by_counter}");
            assert_eq!(snapshot.platform.authority, Some(PlatformKind::Hwmon), "{whole} W");
        }
    }
}

#[test]
fn a_server_whose_gpus_have_no_meter_is_doubted_at_most_and_used() {
    // Watts of the machine and of its package: eight GPUs at work beside idle processors, a chassis of 16 servers, four
    // GPUs at work, a server at rest, a store with many disks, a laptop at rest.
    for (whole, inside, doubted) in [
        (15_000.0, 60.0, true),
        (6_000.0, 40.0, true),
        (2_400.0, 110.0, false),
        (700.0, 35.0, false),
        (500.0, 8.0, false),
        (9.0, 0.3, false),
    ] {
        let mut host = Host::new(vec![acpi(), package(), domain(1, Zone::Package)]);
        host.every = 5;
        let (mut part, mut all) = (100.0, 0.0);
        for step in 0..720 {
            part += inside * 5.0;
            let half = counter(part / 2.0);
            let snapshot = host.tick(0.2, &[says(false, whole, &mut all, 5), half, half]);
            let verdict = host.verdict(ACPI);
            let is_doubted = is_suspect(&verdict, "the components in it");
            assert!(verdict == Verdict::Usable || is_doubted, "{whole} W: {verdict:?}");
            if step > 100 {
                assert_eq!(is_doubted, doubted, "{whole} W beside {inside} W: {verdict:?}");
                assert_eq!(snapshot.platform.authority, Some(PlatformKind::Hwmon), "{whole} W");
            }
        }
    }
}

#[test]
fn a_meter_of_the_whole_machine_is_not_refused_by_packages_that_say_too_little() {
    // At rest; the package's counter has a unit that is too small by a thousand, or does not count.
    for watts in [0.02, 0.0] {
        let mut host = Host::new(vec![acpi(), package(), domain(1, Zone::Package)]);
        host.every = 5;
        for step in 0..500_u32 {
            let part = 100.0 + f64::from(step) * watts * 5.0;
            host.tick(0.1, &[gauge(650_000_000), counter(part), counter(part)]);
            assert!(!matches!(host.verdict(ACPI), Verdict::NoPower(_)), "{:?}", host.verdict(ACPI));
        }
    }
}

#[test]
fn a_counter_with_coarse_steps_beside_a_small_processor_is_believed() {
    // Steps of 0.1 kWh at 200 W: half an hour.
    let mut host = Host::new(vec![acpi(), package(), domain(1, Zone::Package)]);
    host.every = 10;
    for step in 0..2000_u32 {
        let kwh = (f64::from(step) * 10.0 * 200.0 / 3.6e5).floor();
        let package = counter(10.0 + f64::from(step) * 10.0);
        host.tick(0.1, &[counter(1000.0 + kwh * 3.6e5), package, package]);
        assert_eq!(host.verdict(ACPI), Verdict::Usable, "after {step} steps");
    }
}

#[test]
fn parts_that_count_nothing_beside_a_package_that_does_leave_its_meter_healthy() {
    let zones = [Zone::Package, Zone::Dram, Zone::Core];
    let mut host = Host::new(zones.map(|zone| domain(0, zone)).to_vec());
    let id = |zone: Zone| format!("rapl/package-0/{}", zone.as_str());
    let (mut total, mut last) = (100.0, None);
    let mut run = |host: &mut Host, seconds: u32, dram: f64| {
        for second in 0..seconds {
            total += 60.0;
            let dram = counter(f64::from(second) * dram);
            last = Some(host.tick(1.0, &[counter(total), dram, counter(0.0)]));
        }
        last.clone().unwrap()
    };
    let snapshot = run(&mut host, 60, 0.0);
    for zone in [Zone::Dram, Zone::Core] {
        let view = view(&snapshot, &id(zone));
        assert!(is_refused(&view.verdict, "does not move from 0 J"), "{zone:?}: {:?}", view.verdict);
        assert!(view.past && view.power.is_none() && view.error.starts_with("no power: "), "{view:?}");
    }
    assert_eq!(host.core.verdicts().count(), 0, "nothing speaks against the meter");
    // Memory that begins to count is measured.
    let snapshot = run(&mut host, 30, 5.0);
    assert_eq!(view(&snapshot, &id(Zone::Dram)).power, Some(Microwatts(5_000_000)));
    // One that counted and stopped is a fault.
    run(&mut host, 60, 0.0);
    assert!(host.core.verdicts().any(|(of, verdict)| of == *id(Zone::Dram) && matches!(verdict, Verdict::NoPower(_))));

    // Where the package does not move either, both are said.
    let mut host = Host::new(zones.map(|zone| domain(0, zone)).to_vec());
    (0..60).for_each(|_| drop(host.tick(1.0, &[counter(0.0), counter(0.0), counter(0.0)])));
    assert_eq!(host.core.verdicts().count(), 3);
}

#[test]
fn what_neighbours_said_is_dropped_where_they_are_not_compared_any_more() {
    let domains = [(0, Zone::Package), (0, Zone::Core), (1, Zone::Package)].map(|(number, zone)| domain(number, zone));
    let mut host = Host::new(domains.to_vec());
    let mut totals = [10.0; 3];
    let mut run = |host: &mut Host, watts: [f64; 3], busy: [f64; 2], core_reads: bool, seconds: u32| {
        for _ in 0..seconds {
            totals.iter_mut().zip(watts).for_each(|(total, watts)| *total += watts);
            let mut readings = totals.map(counter);
            readings[1] = readings[1].filter(|_| core_reads);
            host.work(&busy, &readings);
        }
        [PACKAGE, "rapl/package-0/core", "rapl/package-1/package"].map(|id| host.verdict(id).as_str())
    };
    let suspect = ["suspect", "suspect", "usable"];
    assert_eq!(run(&mut host, [30.0, 60.0, 58.0], [1.0, 1.0], true, 200), suspect);
    // Its cores cannot be read any more.
    assert_eq!(run(&mut host, [30.0, 60.0, 58.0], [1.0, 1.0], false, 300), suspect, "not at once");
    assert_eq!(run(&mut host, [30.0, 60.0, 58.0], [1.0, 1.0], false, 900), ["usable"; 3]);
    // One package of two draws a twentieth at the same load; then the loads differ for an hour.
    assert_eq!(run(&mut host, [60.0, 40.0, 3.0], [1.0, 1.0], true, 200), ["usable", "usable", "suspect"]);
    assert_eq!(run(&mut host, [60.0, 40.0, 3.0], [1.0, 0.1], true, 300), ["usable", "usable", "suspect"]);
    assert_eq!(run(&mut host, [60.0, 40.0, 3.0], [1.0, 0.1], true, 900), ["usable"; 3]);
    assert_eq!(run(&mut host, [60.0, 40.0, 3.0], [1.0, 1.0], true, 200), ["usable", "usable", "suspect"]);
}
