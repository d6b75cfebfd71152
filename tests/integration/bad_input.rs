//! The daemon on hosts whose files are damaged, vanish or have any content: it keeps running, reports what is wrong and
//! invents no number.

use crate::common::sysfs::INTEL_RANGE;
use crate::common::{Daemon, World, get, joulectl, said};
use jouled::model::entity::Kind;
use jouled::model::snapshot::{DomainView, Snapshot};
use jouled::model::source::Health;
use jouled::model::text::acts;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

fn domain<'a>(snapshot: &'a Snapshot, id: &str) -> &'a DomainView {
    snapshot.domains.iter().find(|view| view.domain.id == id).unwrap()
}

fn health<'a>(snapshot: &'a Snapshot, source: &str) -> &'a Health {
    &snapshot.sources.iter().find(|view| view.source == source).unwrap().health
}

#[test]
fn a_damaged_counter_gives_no_reading_until_it_is_valid_again() {
    let world = World::new();
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    let file = world.host.zone_dir("intel-rapl:1").join("energy_uj");
    let too_high = (INTEL_RANGE + 1).to_string();
    let mut drawn = 0;
    for (damage, words) in [
        ("garbage\n", "not a number: \"garbage\""),
        ("", "empty"),
        ("-5\n", "not a number"),
        ("1 2\n", "not a number"),
        ("18446744073709551616\n", "not a number"),
        (&"9".repeat(200), "too long for a number"),
        (&too_high, "above its range"),
        ("\u{feff}1\n", "not a number"),
    ] {
        fs::write(&file, damage).unwrap();
        let hurt = ticks.find(words, |snapshot| domain(snapshot, "rapl/package-1").error.contains(words));
        let view = domain(&hurt, "rapl/package-1");
        assert!(view.error.contains("intel-rapl:1/energy_uj") && view.power.is_none(), "{view:#?}");
        assert_eq!(view.energy.total.0, drawn, "no number is made up");
        assert!(
            matches!(health(&hurt, "rapl-powercap"), Health::Degraded(why) if why.contains("1 of 4 domains cannot be read"))
        );
        let other = domain(&hurt, "rapl/package-0").energy.total.0;
        world.draw("intel-rapl:0", 5_000_000);
        ticks.find("the others go on", |snapshot| {
            domain(snapshot, "rapl/package-0").energy.total.0 == other + 5_000_000
        });

        fs::write(&file, "").unwrap();
        world.draw("intel-rapl:1", 3_000_000);
        drawn += 3_000_000;
        ticks.find("it is well again", |snapshot| {
            let view = domain(snapshot, "rapl/package-1");
            view.error.is_empty() && view.energy.total.0 == drawn
        });
    }
    let page = daemon.page();
    page.adds_up();
    let log = daemon.stop();
    assert!(
        log.contains("rapl-powercap: degraded") && log.contains("rapl-powercap: healthy"),
        "each change is logged: {log}"
    );
}

#[test]
fn a_counter_that_falls_is_a_gap() {
    let world = World::new();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    world.reset_counters(100_000_000_000);
    let high = ticks.find("a jump", |snapshot| domain(snapshot, "rapl/package-0").gaps == 1);
    assert_eq!(domain(&high, "rapl/package-0").energy.total.0, 0, "100 kJ in one tick are none");
    world.reset_counters(5);
    let low = ticks.find("a fall", |snapshot| domain(snapshot, "rapl/package-0").gaps == 2);
    assert_eq!(domain(&low, "rapl/package-0").energy.total.0, 0);
    world.draw("intel-rapl:0", 1_000_000);
    ticks.find("it goes on", |snapshot| domain(snapshot, "rapl/package-0").energy.total.0 == 1_000_000);
    daemon.stop();
}

#[test]
fn a_counter_that_wraps_is_no_gap() {
    // Of its own: a counter that jumps three times in a minute is not believed.
    let world = World::new();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    world.draw("intel-rapl:0", 1_000_000);
    ticks.find("energy", |snapshot| domain(snapshot, "rapl/package-0").energy.total.0 == 1_000_000);
    world.reset_counters(INTEL_RANGE - 400_000);
    ticks.find("a jump", |snapshot| domain(snapshot, "rapl/package-0").gaps == 1);
    world.host.set_energy("intel-rapl:0", 600_000);
    let wrapped = ticks.find("a wrap", |snapshot| domain(snapshot, "rapl/package-0").energy.total.0 > 1_000_000);
    assert_eq!(
        (domain(&wrapped, "rapl/package-0").energy.total.0, domain(&wrapped, "rapl/package-0").gaps),
        (2_000_000, 1)
    );
    daemon.stop();
}

#[test]
fn a_host_that_is_damaged_from_the_start() {
    let world = World::new();
    world.host.break_sys("class/powercap/intel-rapl:1/energy_uj");
    fs::remove_file(world.host.zone_dir("intel-rapl:1:0").join("name")).unwrap();
    world.host.write_sys("class/powercap/intel-rapl:0/max_energy_range_uj", "plenty\n");
    world.host.write_sys("class/powercap/intel-rapl:7/name", b"\xff\xfe\n");
    world.host.write_sys("class/powercap/intel-rapl:x/name", "package-9\n");
    world.host.write_sys("devices/system/cpu/online", "0-\n");
    world.host.write_sys("devices/system/cpu/cpu1/topology/physical_package_id", "-1\n");
    world.host.write_sys("devices/system/cpu/cpu2/topology/core_id", "");
    world.host.write_proc("cpuinfo", b"\x00\xff\nprocessor\t: \n: :\nflags");
    world.host.write_proc("self/mountinfo", b"\xff - cgroup2\n - \n");
    for (pid, text) in [
        (7, &b""[..]),
        (8, b"8 (x"),
        (9, b"\xff\xfe\x00"),
        (10, b"10 (a) S 1 1 1"),
        (11, b"11 (a) S x x x x x x x x x x x x x x x x x x x x x"),
    ] {
        world.host.write_proc(&format!("{pid}/stat"), text);
    }
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    world.draw("intel-rapl:0", 2_000_000);
    let snapshot = ticks.find("energy", |snapshot| domain(snapshot, "rapl/package-0").energy.total.0 == 2_000_000);
    assert!(
        matches!(health(&snapshot, "rapl-powercap"), Health::Degraded(why) if why.contains("intel-rapl:")),
        "{:#?}",
        snapshot.sources
    );
    daemon.page().adds_up();
    daemon.stop();
}

#[test]
fn a_host_with_nothing() {
    let world = World::new();
    fs::remove_dir_all(world.host.sysfs()).unwrap();
    fs::remove_dir_all(world.host.procfs()).unwrap();
    fs::create_dir_all(world.host.procfs()).unwrap();
    let daemon = world.start();
    daemon.log.wait_for("no meter");
    daemon.ticks().next();
    let page = daemon.page();
    assert_eq!(page.values("kepler_node_cpu_joules_total", &[]).count(), 0, "missing beats wrong");
    assert!(said(joulectl(&daemon.state, &["status"])).contains("NO ENERGY IS MEASURED"));
    daemon.stop();
}

#[test]
fn names_can_be_anything() {
    let world = World::new();
    let comms: [&[u8]; 7] =
        [b"new\nline", b"quo\"te\\", b"\xff\xfebad", b") R 1 (x", b"\ttab \x1b[31m", "日本語".as_bytes(), b"#{}=,"];
    let units = [
        "a\"b.service",
        "dev-disk\\x2dby-x.swap",
        "sp ace\\.service",
        "日本.service",
        "_x.service",
        "{}#.scope",
        "\u{1b}[0m.service",
    ];
    for (index, (comm, unit)) in comms.iter().zip(units).enumerate() {
        world.spawn(100 + index as u32, 1, comm, &format!("/system.slice/{unit}"), 0);
    }
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    for index in 0..comms.len() as u32 {
        world.run(100 + index, 5);
    }
    world.draw("intel-rapl:0", 7_000_000);
    ticks.find("all of them", |snapshot| snapshot.kind(Kind::Process).rows.len() == comms.len());
    let page = daemon.page();
    for (index, (comm, unit)) in comms.iter().zip(units).enumerate() {
        // Characters that act on a terminal are replaced.
        let shown = |text: &str| text.replace('\n', "\\u{a}").replace('\t', "\\u{9}").replace('\u{1b}', "\\u{1b}");
        let comm = shown(&String::from_utf8_lossy(comm));
        let pid = (100 + index).to_string();
        assert_eq!(
            page.values("kepler_process_cpu_seconds_total", &[("comm", &comm), ("pid", &pid)]).count(),
            1,
            "{comm:?}"
        );
        let unit = shown(unit.strip_prefix('_').unwrap_or(unit));
        assert_eq!(
            page.values("jouled_unit_cpu_seconds_total", &[("unit", &unit), ("slice", "system.slice")]).count(),
            1,
            "{unit:?}"
        );
    }
    page.adds_up();
    for kind in ["process", "unit"] {
        let text = said(joulectl(&daemon.state, &["list", kind]));
        assert!(text.chars().all(|char| !char.is_control() || char == '\n'), "{text:?}");
        let shown = text.lines().filter(|line| line.contains("running")).count();
        assert!(shown <= comms.len(), "a name broke a line: {text}");
    }
    daemon.stop();
}

#[test]
fn fifty_thousand_processes() {
    const COUNT: u32 = 50_000;
    const KINDS: u32 = 10;
    let world = World::new();
    // One folder of each kind; the other processes are links to it.
    for kind in 0..KINDS {
        world.spawn(1 + kind, 1, format!("crowd{kind}"), "/system.slice/crowd.service", kind % 4);
    }
    for pid in KINDS + 1..=COUNT {
        symlink((1 + pid % KINDS).to_string(), world.host.procfs().join(pid.to_string())).unwrap();
    }
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    let start = Instant::now();
    let mut seen = 0;
    for _ in 0..3 {
        for kind in 0..KINDS / 2 {
            world.run(1 + kind, 1);
        }
        world.draw("intel-rapl:0", 2_000_000);
        seen = ticks.next().ticks;
    }
    println!("{:?} a tick with {COUNT} processes, half of them busy, in this build", start.elapsed() / 3);
    let page = daemon.page();
    page.adds_up();
    let series = page.values("kepler_process_cpu_joules_total", &[("zone", "package")]).count();
    assert!((1..=500).contains(&series), "{series} series");
    assert!(page.microjoules("jouled_process_rest_joules_total", &[("zone", "package")]) > 0);
    let energy = page.microjoules("jouled_unit_joules_total", &[("unit", "crowd.service"), ("zone", "package")]);
    assert!(energy > 0);
    assert!(ticks.next().ticks > seen && start.elapsed() < Duration::from_secs(180), "{:?}", start.elapsed());
    daemon.stop();
}

#[test]
fn proc_goes_away_and_comes_back() {
    let world = World::new();
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    let away = world.host.procfs().with_extension("away");
    fs::rename(world.host.procfs(), &away).unwrap();
    let failed = ticks.find("a failure", |snapshot| matches!(health(snapshot, "procfs"), Health::Failed(_)));
    assert!(health(&failed, "procfs").why().contains(world.host.procfs().to_str().unwrap()));
    let before = domain(&failed, "rapl/package-0").energy.unattributed.0;
    world.draw("intel-rapl:0", 4_000_000);
    ticks.find("nobody's energy", |snapshot| domain(snapshot, "rapl/package-0").energy.unattributed.0 > before);
    fs::rename(&away, world.host.procfs()).unwrap();
    ticks.find("it is back", |snapshot| matches!(health(snapshot, "procfs"), Health::Degraded(_)));
    world.run(101, 5);
    ticks.find("use", |snapshot| snapshot.kind(Kind::Process).rows.iter().any(|row| row.used.on_cpu.0 == 50_000_000));
    daemon.page().adds_up();
    daemon.stop();
}

#[test]
fn a_damaged_ledger_is_set_aside_and_a_torn_one_holds_as_far_as_it_goes() {
    let world = World::new();
    world.spawn(101, 1, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    for _ in 0..5 {
        world.run(101, 3);
        world.draw("intel-rapl:0", 1_000_000);
        ticks.next();
    }
    ticks.find("all energy", |snapshot| domain(snapshot, "rapl/package-0").energy.total.0 == 5_000_000);
    daemon.kill();

    // The last frames are damaged: those before them are read.
    let journal = world.state.join("ledger.journal");
    let mut bytes = fs::read(&journal).unwrap();
    let last = bytes.len() - 5;
    bytes[last] ^= 0x55;
    fs::write(&journal, &bytes).unwrap();
    let daemon = world.start();
    assert!(daemon.log.text().contains("ledger.journal: the last"), "{}", daemon.log.text());
    let snapshot = daemon.ticks().find("a tick", |snapshot| !snapshot.domains.is_empty());
    assert_eq!(domain(&snapshot, "rapl/package-0").energy.total.0, 5_000_000, "the counter itself still knows");
    daemon.kill();

    // Neither file can be read at all.
    for name in ["ledger.journal", "ledger"] {
        fs::write(world.state.join(name), vec![0xa5; 4096]).unwrap();
    }
    let daemon = Daemon::start(&mut world.jouled(), &world.state);
    let log = daemon.log.text();
    assert!(log.matches("damaged; set aside as").count() == 2, "{log}");
    assert!(world.state.join("ledger.damaged").exists());
    let snapshot = daemon.ticks().next();
    assert_eq!(domain(&snapshot, "rapl/package-0").energy.total.0, 0);
    daemon.page().adds_up();
    daemon.stop();
}

/// Every name is chosen by a stranger: of a process, its program, its cgroup, and a VM.
#[test]
fn names_that_act_on_a_terminal_reach_no_page() {
    let world = World::new();
    let odd = "\u{1b}[2J\u{7}\u{202e}\u{200b}x";
    world.spawn(101, 1, odd, &format!("/system.slice/{odd}.service"), 0);
    world.spawn(102, 2, "sh", &format!("/lxc/{odd}"), 0);
    world.spawn(103, 3, "qemu-system-x86", "/system.slice/vm.service", 0);
    let line = format!("qemu\0-name\0{odd}\0-accel\0kvm\0-smp\02\0");
    fs::write(world.host.procfs().join("103/cmdline"), line).unwrap();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    for pid in [101, 102, 103] {
        world.run(pid, 3);
    }
    world.draw("intel-rapl:0", 60_000_000);
    ticks.find("all have series", |snapshot| {
        let has = |kind: Kind, count| snapshot.kind(kind).rows.len() >= count;
        has(Kind::Process, 3) && has(Kind::Container, 1) && has(Kind::Vm, 1) && has(Kind::Unit, 1)
    });
    for format in ["text/plain", "application/openmetrics-text; version=1.0.0"] {
        let page = get(daemon.address, "/metrics", &[&format!("Accept: {format}")]).body;
        let acting = page.lines().find(|line| line.chars().any(acts));
        assert_eq!(acting, None);
        assert!(
            page.contains("\\\\u{1b}[2J\\\\u{7}"),
            "the name is shown, escaped twice: for people and for the format"
        );
    }
    let list = said(joulectl(&world.state, &["list", "process", "--json"]));
    assert!(!list.chars().any(|c| c != '\n' && acts(c)), "{list}");
    daemon.stop();
}
