//! The daemon on a fake host with two sockets, in a run whose energy is known to the microjoule. Needs no root. Not
//! invalid input: that is in bad_input.rs.

use crate::common::known::{CONTAINER, POD, VM, inhabit, known_run};
use crate::common::world::ZONES;
use crate::common::{Daemon, Page, World, get};
use jouled::model::domain::Zone;
use jouled::model::entity::Kind;
use jouled::model::snapshot::{IdleFrom, Snapshot};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn energy(snapshot: &Snapshot, kind: Kind, label: &str, zone: Zone) -> u64 {
    let rows = snapshot.kind(kind).rows.iter().filter(|row| row.labels.values().iter().any(|own| own == label));
    rows.map(|row| row.energy.dynamic[zone.index()].0).sum()
}

#[test]
fn energy_goes_to_who_worked_on_its_socket() {
    let (_world, daemon, snapshot) = known_run();
    let joules = |kind, label: &str| [Zone::Package, Zone::Dram].map(|zone| energy(&snapshot, kind, label, zone));
    // 10 ticks on the first socket drew 40 J and 4 J, 20 ticks on the second 20 J and 2 J.
    assert_eq!(joules(Kind::Process, "nginx"), [16_000_000, 1_600_000]);
    assert_eq!(joules(Kind::Unit, "nginx.service"), [16_000_000, 1_600_000]);
    assert_eq!(joules(Kind::Process, "postgres"), [12_000_000, 1_200_000]);
    assert_eq!(joules(Kind::Slice, "system-postgresql.slice"), [12_000_000, 1_200_000]);
    assert_eq!(joules(Kind::Slice, "system.slice"), [16_000_000 + 12_000_000 + 12_000_000, 4_000_000]);
    assert_eq!(joules(Kind::Container, CONTAINER), [12_000_000, 1_200_000]);
    assert_eq!(joules(Kind::Vm, VM), [3_000_000, 300_000]);
    assert_eq!(joules(Kind::Vm, "web"), [3_000_000, 300_000]);
    assert_eq!(joules(Kind::Session, "2"), [4_000_000, 400_000]);
    assert_eq!(joules(Kind::User, "1000"), [8_000_000, 800_000]);
    assert_eq!(joules(Kind::UserUnit, "editor.service"), [4_000_000, 400_000]);
    assert_eq!(joules(Kind::Pod, &POD.replace('_', "-")), [5_000_000, 500_000]);
    assert_eq!(joules(Kind::Process, "kworker/0:1"), [4_000_000, 400_000]);
    assert!(
        snapshot.kinds.iter().all(|view| view.rows.iter().all(|row| !row
            .labels
            .values()
            .iter()
            .any(|label| label.contains("sleeper"))))
    );
    let domain = |id: &str| snapshot.domains.iter().find(|view| view.domain.id == id).unwrap();
    let first = domain("rapl/package-0");
    assert_eq!(
        [first.energy.total, first.energy.idle, first.energy.active, first.energy.unattributed].map(|energy| energy.0),
        [41_000_000, 1_000_000, 40_000_000, 0]
    );
    assert_eq!(first.floor.unwrap().from, IdleFrom::Configured);
    assert!(domain("rapl/package-1/dram").domain.billed);
    daemon.page().adds_up();
    daemon.stop();
}

/// The page, with placeholders for values that differ between runs.
fn scrubbed(page: &str, world: &World) -> String {
    let root = world.host.sysfs();
    let page = page.replace(root.parent().unwrap().to_str().unwrap(), "ROOT");
    let page = page.replace(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), "version=\"VERSION\"");
    let page = page.replace(&format!("arch=\"{}\"", std::env::consts::ARCH), "arch=\"ARCH\"");
    let varying = [
        "jouled_ticks_total",
        "jouled_tick_age_seconds",
        "jouled_cpu_seconds_total",
        "jouled_source_age_seconds",
        "jouled_domain_age_seconds",
    ];
    let lines = page.lines().map(|line| match line.rsplit_once(' ') {
        Some((series, _)) if varying.iter().any(|name| line.starts_with(name)) => format!("{series} VARIES\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn the_page_is_the_golden_one() {
    let (world, daemon, _) = known_run();
    let page = scrubbed(&get(daemon.address, "/metrics", &[]).body, &world);
    daemon.stop();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/integration/golden/host-metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (page.lines().collect(), golden.lines().collect());
    let new: Vec<&&str> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    let gone: Vec<&&str> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    assert!(page == golden, "UPDATE_GOLDEN=1 takes it over; new lines: {new:#?}\nmissing lines: {gone:#?}");
}

#[test]
fn promtool_likes_the_page() {
    let (_world, daemon, _) = known_run();
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return println!("skipped: no promtool") };
    let page = get(daemon.address, "/metrics", &[]);
    assert!(page.head.contains("content-type: text/plain; version=0.0.4"), "{}", page.head);
    promtool.stdin.take().unwrap().write_all(page.body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn open_metrics_says_the_same() {
    let (_world, daemon, _) = known_run();
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let answer = get(daemon.address, "/metrics", &[accept]);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    let open = Page::parse_open_metrics(&answer.body);
    let joules = |page: &Page| -> Vec<_> {
        let samples = page.samples.iter().filter(|((name, _), _)| name.contains("_joules"));
        samples.map(|(series, value)| (series.clone(), value.parse::<f64>().unwrap())).collect()
    };
    assert_eq!(joules(&open), joules(&daemon.page()));
    assert!(open.microjoules("kepler_node_cpu_joules_total", &[("zone", "package")]) == 61_000_000);
}

/// Small pseudo-random numbers, the same in every run.
fn number(tick: u64, of: u64) -> u64 {
    (tick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(of.wrapping_mul(1_442_695_040_888_963_407)) >> 33) % 97
}

#[test]
fn counters_only_rise_and_add_up_whatever_comes_and_goes() {
    let world = World::new();
    inhabit(&world);
    world.spawn(500, 1, "reborn", "/system.slice/reborn.service", 3);
    let mut command = world.jouled();
    command
        .env("JOULED_SERIES__PROCESSES", "5")
        .env("JOULED_SERIES__RETENTION", "400ms")
        .env("JOULED_SERIES__OTHERS", "6");
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    let (mut page, mut drawn, mut gone, mut parked) = (daemon.page(), [0; 4], 0, 0);
    for tick in 0..40 {
        for pid in 101..109u32 {
            world.run(pid, number(tick, u64::from(pid)) % 4);
        }
        let visitor = 1000 + tick as u32;
        world.spawn(
            visitor,
            7000 + tick,
            format!("visitor{}", tick % 3),
            &format!("/system.slice/run-{tick}.scope"),
            visitor % 4,
        );
        // Every tenth visitor uses enough energy to have a series.
        world.run(visitor, if tick % 10 == 5 { 60 } else { 1 + number(tick, 1) % 3 });
        if tick >= 3 {
            world.end(visitor - 3);
        }
        // The same pid is another process each time.
        world.end(500);
        world.spawn(500, 100 + tick, "reborn", "/system.slice/reborn.service", 3);
        world.run(500, 2);
        match tick {
            8 => world.host.remove_zone("intel-rapl:1:0"),
            14 => {
                // The file that jouled has open goes on to be readable here, where sysfs says ENODEV: jouled must have
                // looked at the folder before the next one has its inode number.
                ticks.find("the zone is gone", |snapshot| {
                    snapshot
                        .domains
                        .iter()
                        .any(|view| view.domain.id == "rapl/package-1/dram" && !view.error.is_empty())
                });
                world.bring_back("intel-rapl:1:0");
            }
            _ => {}
        }
        for (index, (zone, _)) in ZONES.into_iter().enumerate() {
            let energy = 100_000 * number(tick, index as u64);
            world.draw(zone, energy);
            drawn[index] += energy;
        }
        ticks.caught_up();
        let next = daemon.page();
        next.adds_up();
        gone += next.only_rose(&page);
        parked = parked.max(next.microjoules("jouled_process_parked_joules", &[]));
        page = next;
    }
    assert!(gone > 0 && parked > 0, "nothing ended ({gone}), nothing made room ({parked} µJ)");
    assert!(page.microjoules("jouled_process_ended_joules_total", &[]) > 0);
    assert!(page.microjoules("jouled_process_rest_joules_total", &[]) > 0);
    assert!(page.microjoules("kepler_node_cpu_idle_joules_total", &[("zone", "package")]) > 0);
    // A later tick finds the zone again, with the energy that was drawn meanwhile.
    let ids = ["rapl/package-0", "rapl/package-0/dram", "rapl/package-1", "rapl/package-1/dram"];
    let last = ticks.find("all energy", |snapshot| {
        ids.iter().zip(drawn).all(|(id, drawn)| {
            snapshot.domains.iter().any(|view| view.domain.id == *id && view.energy.total.0 == drawn)
        })
    });
    assert!(last.domains.iter().all(|view| view.gaps == 0 && view.error.is_empty()), "{:#?}", last.domains);
    daemon.stop();
}
