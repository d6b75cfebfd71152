//! Meters besides RAPL on a fake host: the ACPI power meter of the platform. RAPL that appears later. Needs no root.

use crate::common::{World, get};
use jouled::model::domain::Zone;
use jouled::model::snapshot::{DomainView, Role, Snapshot};
use jouled::model::source::Health;
use jouled::model::units::Microjoules;
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
    let later =
        ticks.find("some energy", |snapshot| platform(snapshot).is_some_and(|view| view.energy.total.joules() > 300.0));
    let (first, later) = (platform(&first).unwrap(), platform(&later).unwrap());
    assert_eq!((first.domain.id.as_str(), first.domain.billed), ("hwmon/ACPI000D:00/platform", false));
    let time = later.read_at.unwrap() - first.read_at.unwrap();
    let energy = later.energy.total - first.energy.total;
    // A constant power is integrated exactly, except that each interval is rounded to the microjoule.
    assert!(energy.over(time).0.abs_diff(137_000_000) < 100, "{energy:?} in {time:?}");
    assert_eq!(
        (later.role, later.energy.idle, later.energy.active),
        (Role::Authority, Microjoules(0), Microjoules(0)),
        "not shared out itself"
    );

    let page = get(daemon.address, "/metrics", &[]).body;
    let kepler = "kepler_platform_watts{source=\"acpi\",";
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    let watts = page.lines().find(|line| line.starts_with(kepler)).and_then(value);
    // Energy is in whole microjoules, which limits how exact the power of a window is.
    assert!(watts.is_some_and(|watts| (watts - 137.0).abs() < 1e-4), "{watts:?} in {page}");
    assert!(
        !page.lines().any(|line| line.starts_with("kepler_node_cpu") && line.contains("zone=\"platform\"")),
        "{page}"
    );

    world.host.break_sys(POWER);
    let gone = ticks.find("that it is gone", |snapshot| platform(snapshot).is_some_and(|view| view.power.is_none()));
    assert!(platform(&gone).unwrap().error.contains("power1_average"), "{:?}", platform(&gone));
    daemon.stop();
}

const IDS: [&str; 2] = ["rapl/package-0", "rapl/package-1"];

fn total(snapshot: &Snapshot, id: &str) -> u64 {
    snapshot.domains.iter().find(|view| view.domain.id == id).map_or(0, |view| view.energy.total.0)
}

fn state<'a>(snapshot: &'a Snapshot, source: &str) -> (&'static str, &'a str) {
    let state = snapshot.sources.iter().find(|state| state.source == source).unwrap();
    (state.health.as_str(), state.health.why())
}

#[test]
fn rapl_that_appears_later_takes_over_from_the_estimate_and_gives_back_to_it() {
    let world = World::new();
    for zone in ["intel-rapl:0:0", "intel-rapl:1:0", "intel-rapl:0", "intel-rapl:1"] {
        world.host.remove_zone(zone);
    }
    world.spawn(101, 11, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let estimated = ticks.find("the estimate", |snapshot| total(snapshot, "estimate/package-0") > 100_000);
    assert!(estimated.estimated());
    let (word, why) = state(&estimated, "rapl-powercap");
    assert!(word == "unsupported" && why.starts_with("no RAPL zone in "), "{word} {why}");
    let mut page = daemon.page();
    let mut only_rose = |what: &str| {
        let now = daemon.page();
        now.adds_up();
        now.only_rose(&page);
        assert!(!what.is_empty());
        page = now;
    };

    // The driver is loaded.
    for (zone, name) in [("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1")] {
        world.host.zone(zone, name, 7_000_000_000);
    }
    let measured = ticks.find("RAPL", |snapshot| state(snapshot, "rapl-powercap").0 == "healthy");
    assert!(!measured.estimated(), "both measure the same time");
    assert_eq!(state(&measured, "estimate"), ("unsupported", "not needed: the packages are measured"));
    let stood_in = ["estimate/package-0", "estimate/package-1"].map(|id| total(&measured, id));
    assert_eq!(IDS.map(|id| total(&measured, id)), [0, 0], "what a counter shows at first was drawn before");
    for (zone, id) in [("intel-rapl:0", IDS[0]), ("intel-rapl:1", IDS[1])] {
        world.host.set_energy(zone, 7_005_000_000);
        ticks.find("its energy", |snapshot| total(snapshot, id) == 5_000_000);
    }
    only_rose("measured");
    let before = ticks.next();
    assert_eq!(["estimate/package-0", "estimate/package-1"].map(|id| total(&before, id)), stood_in);

    // The driver is unloaded.
    world.host.remove_zone("intel-rapl:0");
    world.host.remove_zone("intel-rapl:1");
    let again = ticks.find("the estimate again", |snapshot| total(snapshot, "estimate/package-0") > stood_in[0]);
    assert!(again.estimated());
    assert_eq!(state(&again, "rapl-powercap").0, "unsupported");
    let view = again.domains.iter().find(|view| view.domain.id == IDS[0]).unwrap();
    assert!(view.past && view.power.is_none() && view.energy.total.0 == 5_000_000, "{view:#?}");
    only_rose("estimated again");

    // The driver is loaded again; its counters begin at zero.
    for (zone, name) in [("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1")] {
        world.host.zone(zone, name, 3);
    }
    ticks.find("RAPL again", |snapshot| state(snapshot, "rapl-powercap").0 == "healthy");
    world.host.set_energy("intel-rapl:0", 2_000_003);
    ticks.find("its energy again", |snapshot| total(snapshot, IDS[0]) == 7_000_000);
    only_rose("measured again");
    let log = daemon.stop();
    assert_eq!(log.matches("meter rapl-powercap: healthy").count(), 2, "{log}");
}

#[test]
fn hwmon_that_renumbers_goes_on_under_its_name() {
    let world = World::new();
    power_meter(&world, 137_000_000);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let first =
        ticks.find("a power", |snapshot| platform(snapshot).is_some_and(|view| view.energy.total.joules() > 100.0));
    // The driver is loaded again: for a moment there is no hwmon device, then it has another number.
    let class = world.host.sysfs().join("class/hwmon");
    std::fs::remove_dir_all(class.join("hwmon4")).unwrap();
    std::fs::remove_file(world.host.sysfs().join(POWER)).unwrap();
    ticks.find("that it is gone", |snapshot| platform(snapshot).is_some_and(|view| view.power.is_none()));
    world.host.write_sys(POWER, "50000000\n");
    std::fs::create_dir_all(class.join("hwmon7")).unwrap();
    symlink(world.host.sysfs().join("devices/LNXSYSTM:00/ACPI000D:00"), class.join("hwmon7/device")).unwrap();
    let watts = |view: &DomainView| view.power.is_some_and(|power| power.0 == 50_000_000);
    let again = ticks.find("its power", |snapshot| platform(snapshot).is_some_and(watts));
    assert_eq!(again.domains.iter().filter(|view| view.domain.zone == Zone::Platform).count(), 1);
    assert!(platform(&again).unwrap().energy.total >= platform(&first).unwrap().energy.total);
    assert_eq!(*hwmon(&again), Health::Healthy);
    daemon.stop();
}
