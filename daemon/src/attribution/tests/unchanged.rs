//! Powers and rates that stay the same while the load changes: doubted, and used. And honest meters that look alike.

use super::doubts::is_suspect;
use super::plausibility::{Host, PACKAGE, acpi, counter, gauge, package, view};
use super::*;
use crate::model::domain::{GpuInfo, Verdict};
use crate::model::source::PciAddress;

const ACPI: &str = "hwmon/acpi";
const GPU: &str = "gpu/GPU-1";

fn gpu() -> Domain {
    let info = GpuInfo { index: 0, uuid: "GPU-1".into(), name: "a GPU".into(), vendor: "nvidia".into() };
    let scope = Scope::Gpu(PciAddress { domain: 0, bus: 1, devfn: 0 });
    Domain { billed: true, gpu: Some(info), ..Domain::measured(GPU, "nvml", Zone::Gpu, scope, "/gpu".into()) }
}

#[test]
fn the_components_mean_is_of_all_the_time_between_two_readings() {
    // The BMC is read every 10 s, and each time in the first hour just when the package works, in the second one just
    // when it rests: the package's mean is 30 W all the time.
    let mut host = Host::new(vec![acpi(), package()]);
    let mut total = 100.0;
    for second in 0..7200_u32 {
        let works = (second % 10 == 0) == (second < 3600);
        let (watts, busy) = match (works, second < 3600) {
            (true, true) => (120.0, 2.0),
            (false, true) => (20.0, 0.2),
            (true, false) => (33.3, 0.4),
            (false, false) => (2.0, 0.0),
        };
        total += watts;
        let mut readings = vec![(PACKAGE, counter(total).unwrap())];
        if second % 10 == 0 {
            readings.push((ACPI, gauge(206_000_000).unwrap()));
        }
        host.only(busy, &readings);
        assert_eq!(host.verdict(ACPI), Verdict::Usable, "after {second} s");
    }
}

#[test]
fn a_component_that_joins_is_no_swing() {
    // The driver of a GPU is loaded after 20 minutes, and draws 60 W ever since.
    let mut host = Host::new(vec![acpi(), package(), gpu()]);
    host.every = 5;
    let (mut cpu, mut card) = (100.0, 0.0);
    for step in 0..1000_u32 {
        cpu += 20.0 * 5.0;
        card += 60.0 * 5.0;
        let mut readings = vec![(PACKAGE, counter(cpu).unwrap()), (ACPI, gauge(206_000_000).unwrap())];
        if step > 240 {
            readings.insert(1, (GPU, counter(card).unwrap()));
        }
        host.only(0.1, &readings);
        assert_eq!(host.verdict(ACPI), Verdict::Usable, "after {step} steps");
    }
    // Then it works, for the first time: that is one.
    for _ in 0..300 {
        cpu += 20.0 * 5.0;
        card += 300.0 * 5.0;
        let all = [(PACKAGE, counter(cpu).unwrap()), (GPU, counter(card).unwrap())];
        host.only(0.1, &[all[0], all[1], (ACPI, gauge(206_000_000).unwrap())]);
    }
    assert!(is_suspect(&host.verdict(ACPI), "it does not change from 206 W"), "{:?}", host.verdict(ACPI));
}

/// Half an hour of rest, half an hour of full load, and so on: what the meters say in each step of 10 s.
fn halves(host: &mut Host, hours: u32, says: impl Fn(bool, u32) -> Vec<Option<Reading>>) -> Vec<Arc<Snapshot>> {
    host.every = 10;
    let step = |step: u32| {
        let busy = step / 180 % 2 == 1;
        host.tick(if busy { 2.0 } else { 0.02 }, &says(busy, step))
    };
    (0..hours * 360).map(step).collect()
}

#[test]
fn a_stuck_power_with_a_bit_of_noise_is_doubted() {
    for noise in [0, 1] {
        let mut host = Host::new(vec![acpi(), package()]);
        let total = std::cell::Cell::new(100.0);
        let all = halves(&mut host, 3, |busy, step| {
            total.set(total.get() + if busy { 900.0 } else { 200.0 });
            let watts = 206 + if step.wrapping_mul(2_654_435_761) >> 31 == 1 { noise } else { 0 };
            vec![gauge(watts * 1_000_000), counter(total.get())]
        });
        let words = if noise == 0 { "it does not change from 206 W" } else { "it stays between 206 and 207 W" };
        assert!(is_suspect(&host.verdict(ACPI), words), "{:?}", host.verdict(ACPI));
        let last = all.last().unwrap();
        assert!(view(last, ACPI).power.is_some() && last.platform.authority == Some(PlatformKind::Hwmon), "it is used");
    }
}

#[test]
fn a_counter_of_constant_rate_beside_idle_and_busy_cpus_is_doubted() {
    let mut host = Host::new(vec![package()]);
    let all = halves(&mut host, 2, |_, step| vec![counter(100.0 + f64::from(step) * 350.0)]);
    assert!(
        is_suspect(&host.verdict(PACKAGE), "its counter goes on at 35.0 W all the time"),
        "{:?}",
        host.verdict(PACKAGE)
    );
    assert_eq!(view(all.last().unwrap(), PACKAGE).power, Some(Microwatts(35_000_000)), "it is used");
    let total = std::cell::Cell::new(100.0 + 720.0 * 350.0);
    halves(&mut host, 1, |busy, _| {
        total.set(total.get() + if busy { 900.0 } else { 100.0 });
        vec![counter(total.get())]
    });
    assert_eq!(host.verdict(PACKAGE), Verdict::Usable);
}

#[test]
fn honest_rates_that_hardly_change_are_believed() {
    // A processor at its power limit from half to full load; one whose load never falls below a third; an idle one.
    for busy in [[1.1, 2.0], [0.7, 2.0], [0.01, 0.02]] {
        let mut host = Host::new(vec![package()]);
        host.every = 10;
        for step in 0..1440_u32 {
            host.tick(busy[(step / 180 % 2) as usize], &[counter(100.0 + f64::from(step) * 150.0)]);
            assert_eq!(host.verdict(PACKAGE), Verdict::Usable, "{busy:?} after {step} steps");
        }
    }
    // A package that draws a little more at work, and memory and cores that draw the same.
    let zones = [Zone::Package, Zone::Dram, Zone::Core];
    let mut host = Host::new(zones.map(|zone| domain(0, zone)).to_vec());
    let total = std::cell::Cell::new(100.0);
    let all = halves(&mut host, 3, |busy, step| {
        total.set(total.get() + if busy { 330.0 } else { 300.0 });
        vec![counter(total.get()), counter(50.0 * f64::from(step)), counter(100.0 * f64::from(step))]
    });
    assert!(all.iter().all(|one| one.domains.iter().all(|view| view.verdict == Verdict::Usable)));
}
