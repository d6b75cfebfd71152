//! Meters that say what cannot be true, through the real binary on a fake host: health, log, what stands in, `joulectl
//! meters` and the metrics page; and the way back. What is judged how is in the core's own tests. Needs no root.

use crate::common::{Daemon, Page, World, joulectl, said};
use jouled::model::domain::Zone;
use jouled::model::platform::PlatformKind;
use jouled::model::snapshot::{DomainView, Snapshot};
use jouled::model::units::Microwatts;
use serde_json::Value;
use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

const PACKAGE: &str = "rapl/package-0";
const ACPI: &str = "hwmon/ACPI000D:00/platform";
const OTHER: &str = "rapl/package-1";
/// Processes that keep one CPU of package 0 and one of package 1 busy.
const WORKER: u32 = 101;
const SECOND: u32 = 102;

fn view<'a>(snapshot: &'a Snapshot, id: &str) -> &'a DomainView {
    snapshot.domains.iter().find(|view| view.domain.id == *id).unwrap()
}

fn total(snapshot: &Snapshot, id: &str) -> u64 {
    snapshot.domains.iter().find(|view| view.domain.id == *id).map_or(0, |view| view.energy.total.0)
}

fn state<'a>(snapshot: &'a Snapshot, source: &str) -> (&'static str, &'a str) {
    let state = snapshot.sources.iter().find(|state| state.source == source).unwrap();
    (state.health.as_str(), state.health.why())
}

/// The row of a domain in `joulectl meters`, and the same in JSON.
fn meter(daemon: &Daemon, id: &str) -> (String, Value) {
    let text = said(joulectl(&daemon.state, &["meters"]));
    let row = text.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id} is not in\n{text}"));
    let json: Value = serde_json::from_str(&said(joulectl(&daemon.state, &["meters", "--json"]))).unwrap();
    let meter = json["domains"].as_array().unwrap().iter().find(|one| one["domain"] == id).unwrap();
    (row.to_owned(), meter.clone())
}

fn is_in_state(page: &Page, source: &str, state: &str) -> bool {
    page.values("jouled_source_state", &[("source", source), ("role", "meter"), ("state", state)]).eq([1.0])
}

fn has_power(page: &Page, domain: &str) -> bool {
    page.values("jouled_domain_watts", &[("domain", domain)]).next().is_some()
}

/// Lines of warnings and errors about a meter.
fn warnings<'a>(log: &'a str, meter: &str) -> Vec<&'a str> {
    let of = format!("meter {meter}: ");
    log.lines().filter(|line| (line.contains("WARN") || line.contains("ERROR")) && line.contains(&of)).collect()
}

#[test]
fn a_counter_that_stands_still_while_cpus_are_busy_gives_way_to_the_estimate_and_comes_back() {
    let world = World::new();
    world.host.remove_zone("intel-rapl:1:0");
    world.spawn(WORKER, 11, "worker", "/system.slice/worker.service", 0);
    world.spawn(SECOND, 12, "second", "/system.slice/worker.service", 2);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    // Between two ticks of 100 ms one CPU of each package is busy, and the package draws 60 W.
    let work = || [WORKER, SECOND].into_iter().for_each(|pid| world.run(pid, 10));
    let draw = || {
        work();
        world.draw("intel-rapl:0", 6_000_000);
        world.draw("intel-rapl:1", 6_000_000);
        world.draw("intel-rapl:0:0", 500_000);
    };
    let measured = ticks.find("energy by RAPL", |snapshot| {
        draw();
        total(snapshot, PACKAGE) > 10_000_000
    });
    assert_eq!(state(&measured, "rapl-powercap"), ("healthy", ""));
    let page = daemon.page();
    assert!(is_in_state(&page, "rapl-powercap", "healthy") && has_power(&page, PACKAGE), "{page:?}");

    let still = ticks.find("that it does not move", |snapshot| {
        work();
        state(snapshot, "rapl-powercap").0 == "failed"
    });
    let why = state(&still, "rapl-powercap").1;
    assert!(why.starts_with("no power: rapl/package-0: its counter does not move from "), "{why}");
    assert!(why.ends_with(" J while CPUs are busy"), "{why}");
    let package = view(&still, PACKAGE);
    assert!(
        package.past && package.power.is_none() && package.error.starts_with("no power: its counter"),
        "{package:?}"
    );
    let estimated = ticks.find("the estimate", |snapshot| {
        work();
        total(snapshot, "estimate/package-0") > 1_000_000
    });
    assert!(estimated.estimated());
    let stood_in = daemon.page();
    assert!(is_in_state(&stood_in, "rapl-powercap", "failed") && !has_power(&stood_in, PACKAGE), "{stood_in:?}");
    assert!(has_power(&stood_in, "estimate/package-0"));
    stood_in.adds_up();
    stood_in.only_rose(&page);
    let (row, json) = meter(&daemon, PACKAGE);
    assert!(row.contains("nothing: no power: its counter does not move from ") && row.contains("  -  "), "{row}");
    assert_eq!((&json["role"], &json["watts"]), (&"past".into(), &Value::Null), "{json:#}");

    let before = total(&daemon.snapshot(), PACKAGE);
    let back = ticks.find("RAPL again", |snapshot| {
        draw();
        state(snapshot, "rapl-powercap").0 == "healthy" && total(snapshot, PACKAGE) > before + 20_000_000
    });
    assert_eq!(state(&back, "estimate"), ("unsupported", "not needed: the packages are measured"));
    let (row, json) = meter(&daemon, PACKAGE);
    assert!(row.contains("  billed  ") && json["role"] == "billed" && json["watts"].is_number(), "{row} {json:#}");
    let page = daemon.page();
    assert!(is_in_state(&page, "rapl-powercap", "healthy") && has_power(&page, PACKAGE), "{page:?}");
    page.adds_up();
    page.only_rose(&stood_in);
    let log = daemon.stop();
    // Where a tick came between the draws of both packages, one is found out before the other, which is a state of its
    // own.
    let warned = warnings(&log, "rapl-powercap");
    let of = |state: &str| warned.iter().filter(|line| line.contains(&format!("rapl-powercap: {state}: "))).count();
    assert!(of("failed") == 1 && of("degraded") <= 1 && of("failed") + of("degraded") == warned.len(), "{log}");
    assert_eq!(log.matches("meter rapl-powercap: healthy").count(), 2, "{log}");
}

#[test]
fn one_package_of_two_that_is_dead_is_estimated_and_named_or_missing() {
    for estimate in ["auto", "never"] {
        let world = World::new();
        world.config(&format!("[meter.estimate]\nuse = \"{estimate}\"\n"));
        world.spawn(WORKER, 11, "worker", "/system.slice/worker.service", 0);
        world.spawn(SECOND, 12, "second", "/system.slice/worker.service", 2);
        let daemon = world.start();
        let mut ticks = daemon.ticks();
        // The counter of package 1 stands still.
        let work = |dead: bool| {
            [WORKER, SECOND].into_iter().for_each(|pid| world.run(pid, 10));
            world.draw("intel-rapl:0", 6_000_000);
            world.draw("intel-rapl:0:0", 500_000);
            world.draw("intel-rapl:1:0", 500_000);
            if !dead {
                world.draw("intel-rapl:1", 6_000_000);
            }
        };
        let of_packages = |page: &Page| page.values("kepler_node_cpu_watts", &[("zone", "package")]).next().is_some();
        ticks.find("both packages", |snapshot| {
            work(false);
            view(snapshot, OTHER).power.is_some() && view(snapshot, PACKAGE).power.is_some()
        });
        let before = daemon.page();
        assert!(of_packages(&before), "{before:?}");
        let dead = ticks.find("that one is dead", |snapshot| {
            work(true);
            view(snapshot, OTHER).past
        });
        assert!(view(&dead, PACKAGE).power.is_some());
        let known = ticks.find("that its meter says so", |snapshot| {
            work(true);
            state(snapshot, "rapl-powercap").0 == "degraded"
                && (estimate == "never" || total(snapshot, "estimate/package-1") > 1_000_000)
        });
        let why = state(&known, "rapl-powercap").1;
        assert!(why.starts_with("no power: rapl/package-1: its counter does not move from "), "{why}");
        let page = daemon.page();
        page.adds_up();
        page.only_rose(&before);
        let verdict = [("domain", OTHER), ("verdict", "no power")];
        assert!(page.values("jouled_domain_verdict_info", &verdict).eq([1.0]), "{page:?}");
        let status = said(joulectl(&daemon.state, &["status"]));
        if estimate == "auto" {
            let (word, why) = state(&known, "estimate");
            assert!(word == "degraded" && why.starts_with("it stands in for package 1: "), "{word} {why}");
            assert_eq!(total(&known, "estimate/package-0"), 0, "package 0 is measured");
            assert!(of_packages(&page) && has_power(&page, "estimate/package-1"), "{page:?}");
            assert!(status.contains("Power (est.): ") && !status.contains("unread"), "{status}");
        } else {
            assert!(!of_packages(&page) && has_power(&page, PACKAGE), "half of it is not all: {page:?}");
            assert!(status.contains("without 1 unread domain(s)"), "{status}");
        }
        let measured = total(&known, OTHER);
        ticks.find("it again", |snapshot| {
            work(false);
            state(snapshot, "rapl-powercap").0 == "healthy" && total(snapshot, OTHER) > measured + 20_000_000
        });
        let again = daemon.page();
        again.adds_up();
        again.only_rose(&page);
        assert!(of_packages(&again) && !has_power(&again, "estimate/package-1"), "{again:?}");
        daemon.stop();
    }
}

#[test]
fn a_package_without_a_counter_is_named_and_estimated() {
    let world = World::new();
    ["intel-rapl:1:0", "intel-rapl:1"].into_iter().for_each(|zone| world.host.remove_zone(zone));
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let snapshot = ticks.find("its estimate", |snapshot| {
        world.draw("intel-rapl:0", 6_000_000);
        total(snapshot, "estimate/package-1") > 100_000 && total(snapshot, PACKAGE) > 10_000_000
    });
    let why = "package 1 has no energy counter: it is not measured";
    assert_eq!(state(&snapshot, "rapl-powercap"), ("degraded", why));
    assert!(state(&snapshot, "estimate").1.starts_with("it stands in for package 1: "));
    assert_eq!(total(&snapshot, "estimate/package-0"), 0);
    daemon.stop();
}

/// The ACPI power meter of a host.
struct PowerMeter<'a>(&'a World);

impl<'a> PowerMeter<'a> {
    const DEVICE: &'static str = "devices/LNXSYSTM:00/ACPI000D:00";

    fn new(world: &'a World, microwatts: u64) -> Self {
        let sysfs = world.host.sysfs();
        world.host.write_sys(&format!("{}/power1_average", Self::DEVICE), "");
        world.host.write_sys(&format!("{}/power1_is_battery", Self::DEVICE), "0\n");
        fs::create_dir_all(sysfs.join("class/hwmon/hwmon4")).unwrap();
        symlink(sysfs.join(Self::DEVICE), sysfs.join("class/hwmon/hwmon4/device")).unwrap();
        let meter = Self(world);
        meter.say(microwatts);
        meter
    }

    /// One write of the same length each time, so that no read sees a part of it.
    fn say(&self, microwatts: u64) {
        let path = self.0.host.sysfs().join(Self::DEVICE).join("power1_average");
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(format!("{microwatts:<20}\n").as_bytes()).unwrap();
    }
}

const GOOD: u64 = 137_000_000;
/// What acpi_power_meter says where the firmware has no value: all bits of 32 set, in mW.
const ERROR: u64 = 4_294_967_295_000;

#[test]
fn a_power_meter_that_says_its_error_gives_way_to_psys_and_comes_back_and_single_errors_are_bridged() {
    let world = World::new();
    world.host.zone("intel-rapl:2", "psys", 1_000_000);
    let psys = Cell::new(1_000_000);
    let acpi = PowerMeter::new(&world, GOOD);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let draw = || {
        psys.set(psys.get() + 8_000_000);
        world.host.set_energy("intel-rapl:2", psys.get());
    };
    let believed = |snapshot: &Snapshot, kind: PlatformKind| snapshot.platform.authority == Some(kind);
    let first = ticks.find("the ACPI meter", |snapshot| {
        draw();
        believed(snapshot, PlatformKind::Hwmon) && total(snapshot, ACPI) > 300_000_000
    });
    assert_eq!((state(&first, "hwmon"), view(&first, ACPI).power), (("healthy", ""), Some(Microwatts(GOOD))));

    acpi.say(ERROR);
    let failed = ticks.find("that it has no value", |snapshot| {
        draw();
        state(snapshot, "hwmon").0 == "failed"
    });
    let why = state(&failed, "hwmon").1;
    assert!(why.starts_with("no power: hwmon/ACPI000D:00/platform: 4294967.295 W is "), "{why}");
    let instead = ticks.find("psys instead", |snapshot| {
        draw();
        believed(snapshot, PlatformKind::Psys)
    });
    assert_eq!((view(&instead, ACPI).power, view(&instead, ACPI).past), (None, true));
    let (row, _) = meter(&daemon, ACPI);
    assert!(row.contains("nothing: no power: 4294967.295 W is "), "{row}");
    let (row, _) = meter(&daemon, "rapl/psys");
    assert!(row.contains("  authority  "), "{row}");
    let page = daemon.page();
    assert!(is_in_state(&page, "hwmon", "failed") && !has_power(&page, ACPI), "{page:?}");
    assert!(page.values("jouled_platform_authority_info", &[("authority", "psys")]).eq([1.0]), "{page:?}");

    acpi.say(GOOD);
    let back = ticks.find("the ACPI meter again", |snapshot| {
        draw();
        believed(snapshot, PlatformKind::Hwmon) && state(snapshot, "hwmon").0 == "healthy"
    });
    let from = view(&back, ACPI).clone();

    let mut doubted = None;
    for _ in 0..3 {
        acpi.say(ERROR);
        ticks.find("one bad value", |snapshot| {
            draw();
            !view(snapshot, ACPI).error.is_empty()
        });
        acpi.say(GOOD);
        let mut read_at = None;
        for _ in 0..3 {
            let good = ticks.find("a good value", |snapshot| {
                draw();
                let acpi = view(snapshot, ACPI);
                acpi.error.is_empty() && acpi.power.is_some() && acpi.read_at > read_at
            });
            read_at = view(&good, ACPI).read_at;
            doubted = Some(good);
        }
    }
    let doubted = doubted.unwrap();
    let (word, why) = state(&doubted, "hwmon");
    assert!(
        word == "degraded" && why.starts_with("some of its values are no power, and are left out: "),
        "{word} {why}"
    );
    let now = view(&doubted, ACPI);
    assert!(believed(&doubted, PlatformKind::Hwmon) && now.gaps == from.gaps, "{now:?}");
    let (energy, time) = (now.energy.total - from.energy.total, now.read_at.unwrap() - from.read_at.unwrap());
    assert!(energy.over(time).0.abs_diff(GOOD) < 100, "bridged: {energy:?} in {time:?}");
    assert_eq!(doubted.domains.iter().filter(|view| view.domain.zone == Zone::Platform).count(), 1);
    let log = daemon.stop();
    let warnings = warnings(&log, "hwmon");
    assert!(warnings.len() == 2 && warnings[0].contains("failed: no power: "), "{log}");
    assert!(warnings[1].contains("degraded: some of its values"), "{log}");
}
