//! Meters beside RAPL, on a fake host: the platform as ACPI sees it. Needs no root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

mod common;

use common::{World, get};
use jouled::meter::Zone;
use jouled::snapshot::{DomainView, Role, Snapshot};
use jouled::source::Health;
use jouled::units::Microjoules;
use std::os::unix::fs::symlink;

const POWER: &str = "devices/LNXSYSTM:00/ACPI000D:00/power1_average";

fn power_meter(world: &World, microwatts: u64) {
    let sysfs = world.host.sysfs();
    world.host.write_sys(POWER, format!("{microwatts}\n"));
    world.host.write_sys("devices/LNXSYSTM:00/ACPI000D:00/power1_is_battery", "0\n");
    std::fs::create_dir_all(sysfs.join("class/hwmon/hwmon4")).unwrap();
    symlink(sysfs.join("devices/LNXSYSTM:00/ACPI000D:00"), sysfs.join("class/hwmon/hwmon4/device")).unwrap();
}

fn platform(snapshot: &Snapshot) -> Option<&DomainView> {
    snapshot.domains.iter().find(|view| view.domain.zone == Zone::Platform)
}

fn hwmon(snapshot: &Snapshot) -> &Health {
    &snapshot.sources.iter().find(|source| source.source == "hwmon").unwrap().health
}

#[test]
fn a_platform_meter_that_appears_later_is_picked_up_integrated_and_let_go() {
    let world = World::new();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find(
        "that there is none",
        |snapshot| matches!(hwmon(snapshot), Health::Unsupported(why) if why.starts_with("no power sensor whose meaning is known")),
    );
    power_meter(&world, 137_000_000);
    let first = ticks.find("a power", |snapshot| platform(snapshot).is_some_and(|view| view.power.is_some()));
    let later = ticks.find("some energy", |snapshot| platform(snapshot).is_some_and(|view| view.total.joules() > 300.0));
    let (first, later) = (platform(&first).unwrap(), platform(&later).unwrap());
    assert_eq!((first.domain.id.as_str(), first.domain.billed), ("hwmon/ACPI000D:00/platform", false));
    let time = later.read_at.unwrap() - first.read_at.unwrap();
    let energy = later.total - first.total;
    // A steady power is integrated exactly, but for the rounding of each interval to the microjoule.
    assert!(energy.over(time).0.abs_diff(137_000_000) < 100, "{energy:?} in {time:?}");
    assert_eq!((later.role, later.idle, later.active), (Role::Authority, Microjoules(0), Microjoules(0)), "not shared out itself");

    let page = get(daemon.address, "/metrics", &[]).body;
    let kepler = "kepler_platform_watts{source=\"acpi\",";
    assert!(page.lines().any(|line| line.starts_with(kepler) && line.ends_with(" 137.0")), "{page}");
    assert!(!page.lines().any(|line| line.starts_with("kepler_node_cpu") && line.contains("zone=\"platform\"")), "{page}");

    world.host.break_sys(POWER);
    let gone = ticks.find("that it is gone", |snapshot| platform(snapshot).is_some_and(|view| view.power.is_none()));
    assert!(platform(&gone).unwrap().error.contains("power1_average"), "{:?}", platform(&gone));
    daemon.stop();
}
