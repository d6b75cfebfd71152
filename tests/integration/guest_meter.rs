//! The daemon in a guest, with a host that speaks the guest protocol on a Unix socket: the numbers that it derives from
//! the host's. There is no VM.

use crate::common::client::Ticks;
use crate::common::{Daemon, ProtocolHost, World, joulectl, monotonic, said, until};
use jouled::model::domain::Zone;
use jouled::model::entity::Kind;
use jouled::model::snapshot::{DomainView, Snapshot};
use std::time::Duration;

/// A guest and its host.
fn guest() -> (World, ProtocolHost) {
    let world = World::new();
    let path = world.state.with_extension("host");
    world.config(&format!("[meter.vsock]\nconnect = \"unix:{}\"\n", path.display()));
    world.spawn(101, 11, "nginx", "/system.slice/nginx.service", 0);
    world.spawn(102, 12, "postgres", "/system.slice/postgresql.service", 2);
    let host = ProtocolHost::new(&path);
    (world, host)
}

fn view<'a>(snapshot: &'a Snapshot, id: &str) -> &'a DomainView {
    snapshot
        .domains
        .iter()
        .find(|view| view.domain.id == id)
        .unwrap_or_else(|| panic!("no {id} in {:#?}", snapshot.domains))
}

fn totals(snapshot: &Snapshot) -> [u64; 2] {
    ["guest/package", "guest/dram"]
        .map(|id| snapshot.domains.iter().find(|view| view.domain.id == id).map_or(0, |view| view.energy.total.0))
}

fn unit(snapshot: &Snapshot, name: &str, zone: Zone) -> u64 {
    let row = snapshot.kind(Kind::Unit).rows.iter().find(|row| row.labels.id() == name);
    row.map_or(0, |row| row.energy.dynamic[zone.index()].0)
}

fn health<'a>(snapshot: &'a Snapshot, source: &str) -> (&'static str, &'a str) {
    let state = snapshot.sources.iter().find(|state| state.source == source).unwrap();
    (state.health.as_str(), state.health.why())
}

/// Both processes use CPU time, three to one; then the host reports the energy of this time.
fn work(world: &World, host: &mut ProtocolHost, ticks: &mut Ticks, package: u64, dram: u64) {
    world.run(101, 3);
    world.run(102, 1);
    let done = monotonic();
    ticks.find("a tick after the work", |snapshot| snapshot.at.monotonic.0 > done);
    (host.next.package, host.next.dram) = (host.next.package + package, host.next.dram + dram);
    host.send_epoch();
}

/// The first epochs. Energy from before the guest connected is not attributed.
fn settled(world: &World, host: &mut ProtocolHost, ticks: &mut Ticks) -> Snapshot {
    ticks.find("the host's zones", |snapshot| snapshot.domains.len() == 2);
    work(world, host, ticks, 1_000_000, 100_000);
    ticks.find("the first epoch", |snapshot| totals(snapshot) == [1_000_000, 100_000])
}

#[test]
fn energy_of_the_host_channel_is_attributed_by_cpu_time() {
    let (world, mut host) = guest();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let before = settled(&world, &mut host, &mut ticks);
    let start =
        [("nginx", 0), ("postgresql", 1)].map(|(name, _)| unit(&before, &format!("{name}.service"), Zone::Package));
    let (mut package, mut dram) = (1_000_000, 100_000);
    for step in 1..=5 {
        work(&world, &mut host, &mut ticks, 4_000_000 * step, 400_000 * step);
        (package, dram) = (package + 4_000_000 * step, dram + 400_000 * step);
        ticks.find("the epoch", |snapshot| totals(snapshot) == [package, dram]);
    }
    let last = ticks.next();
    assert_eq!(unit(&last, "nginx.service", Zone::Package) - start[0], 45_000_000);
    assert_eq!(unit(&last, "postgresql.service", Zone::Package) - start[1], 15_000_000);
    for id in ["guest/package", "guest/dram"] {
        let view = view(&last, id);
        assert_eq!((view.gaps, view.energy.idle.0, view.domain.quality.as_str()), (0, 0, "derived"), "{view:#?}");
    }
    assert!(!last.estimated() && last.host.dram_billed);
    assert_eq!(health(&last, "vsock"), ("healthy", ""));
    assert_eq!(health(&last, "rapl-powercap").0, "unsupported");
    assert!(health(&last, "rapl-powercap").1.contains("[meter.vsock]"));
    assert_eq!(health(&last, "estimate").0, "unsupported");

    let page = daemon.page();
    page.adds_up();
    assert_eq!(page.microjoules("kepler_node_cpu_joules_total", &[("zone", "package")]), package);
    assert_eq!(page.values("jouled_estimated", &[]).sum::<f64>(), 0.0);
    let text = said(joulectl(&daemon.state, &["status"]));
    for words in [
        "vsock          meter      healthy",
        "host 9f0c9f0c… calls this machine \"web\", period 0.2 s, quantum 0.001 J, its idle energy is not in here",
        "guest/package",
        "derived",
        "(package + dram)",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let status: serde_json::Value =
        serde_json::from_str(&said(joulectl(&daemon.state, &["status", "--json"]))).unwrap();
    let source = status["sources"].as_array().unwrap().iter().find(|source| source["source"] == "vsock").unwrap();
    assert!(
        source["detail"].as_str().unwrap().starts_with("host 9f0c9f0c…") && source["age_seconds"].is_f64(),
        "{source}"
    );
    daemon.stop();
}

#[test]
fn migration_new_generations_and_pauses_are_no_energy() {
    let (world, mut host) = guest();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    settled(&world, &mut host, &mut ticks);
    let mut page = daemon.page();
    type Change = (&'static str, fn(&mut ProtocolHost));
    let changes: [Change; 4] = [
        ("a new generation", |host| (host.next.generation, host.next.package) = ("abcd".repeat(4), 900_000_000)),
        ("a migration", |host| (host.next.source, host.next.package) = ("77".repeat(16), 3_000_000)),
        ("a pause", |host| (host.next.paused_ms, host.next.package) = (3_600_000, host.next.package + 777_000_000)),
        ("epochs from the beginning", |host| host.next.epoch = 5),
    ];
    for (number, (what, change)) in changes.into_iter().enumerate() {
        let number = number as u64;
        change(&mut host);
        host.send_epoch();
        let gaps = |snapshot: &Snapshot| view(snapshot, "guest/package").gaps;
        let after = ticks.find(what, |snapshot| gaps(snapshot) == number + 1);
        assert_eq!(totals(&after), [1_000_000 * (number + 1), 100_000 * (number + 1)], "{what}");
        work(&world, &mut host, &mut ticks, 1_000_000, 100_000);
        ticks.find(what, |snapshot| totals(snapshot) == [1_000_000 * (number + 2), 100_000 * (number + 2)]);
        let now = daemon.page();
        now.adds_up();
        now.only_rose(&page);
        page = now;
    }
    daemon.stop();
}

/// All energy of the node, from its metrics page.
fn node(page: &crate::common::Page) -> u64 {
    page.microjoules("kepler_node_cpu_joules_total", &[("zone", "package")])
}

#[test]
fn while_the_host_is_away_the_numbers_are_marked_as_estimated() {
    let (world, mut host) = guest();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    settled(&world, &mut host, &mut ticks);
    let page = daemon.page();
    host.close();
    ticks.find("the estimate", Snapshot::estimated);
    let estimated = ticks.find("estimated energy", |snapshot| {
        snapshot.domains.iter().any(|view| view.domain.source == "estimate" && view.energy.total.0 > 0)
    });
    assert_eq!(totals(&estimated), [1_000_000, 100_000]);
    assert!(view(&estimated, "guest/package").past && view(&estimated, "guest/package").power.is_none());
    let (state, why) = health(&estimated, "vsock");
    assert!(
        state == "failed" && why.contains("no word from the host for 0.6") && why.contains("unix:"),
        "{state}: {why}"
    );
    assert!(health(&estimated, "estimate").1.contains("not a measurement"));
    let away = daemon.page();
    assert_eq!(away.values("jouled_estimated", &[]).sum::<f64>(), 1.0);
    assert!(node(&away) > node(&page));
    away.adds_up();
    away.only_rose(&page);
    let text = said(joulectl(&daemon.state, &["status"]));
    assert!(text.contains("\nESTIMATE: ") && text.contains("on standby: another meter measures"), "{text}");

    // The host comes back, after a time that the estimate has covered.
    host.next.package += 500_000_000;
    host.listen();
    until("the guest to connect again", || (host.readers() > 0).then_some(()));
    assert!(ticks.next().estimated(), "an epoch that ended before is no beginning");
    host.send_epoch();
    let back = ticks.find("the host again", |snapshot| !snapshot.estimated());
    assert_eq!(totals(&back), [1_000_000, 100_000]);
    let estimate = |snapshot: &Snapshot| view(snapshot, "estimate/package-0").energy.total.0;
    let stood_in = estimate(&back);
    work(&world, &mut host, &mut ticks, 4_000_000, 0);
    let last = ticks.find("energy of the host again", |snapshot| totals(snapshot) == [5_000_000, 100_000]);
    assert_eq!(estimate(&last), stood_in, "both for the same time");
    assert_eq!(health(&last, "vsock").0, "healthy");
    let page = daemon.page();
    page.adds_up();
    page.only_rose(&away);
    assert_eq!(page.values("jouled_estimated", &[]).sum::<f64>(), 0.0);
    assert!(said(joulectl(&daemon.state, &["status"])).contains("are an estimate, from a time without a meter"));
    daemon.stop();
}

#[test]
fn after_a_restart_the_host_reports_the_energy_of_the_time_between() {
    let (world, mut host) = guest();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let before = settled(&world, &mut host, &mut ticks);
    let page = daemon.page();
    daemon.kill();

    host.next.package += 7_000_000;
    host.send_epoch();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let after = ticks.find("the energy of the time between", |snapshot| totals(snapshot) == [8_000_000, 100_000]);
    let unattributed = |snapshot: &Snapshot| view(snapshot, "guest/package").energy.unattributed.0;
    assert_eq!((unattributed(&after), view(&after, "guest/package").gaps), (unattributed(&before) + 7_000_000, 0));
    daemon.page().only_rose(&page);
    daemon.stop();

    // The VM was started again on its host while jouled was down.
    (host.next.generation, host.next.package) = ("abcd".repeat(4), 90_000_000);
    host.send_epoch();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let after = ticks.find("a gap", |snapshot| view(snapshot, "guest/package").gaps == 1);
    assert_eq!(totals(&after), [8_000_000, 100_000]);
    work(&world, &mut host, &mut ticks, 1_000_000, 0);
    ticks.find("energy", |snapshot| totals(snapshot)[0] == 9_000_000);
    daemon.stop();
}

#[test]
fn a_guest_without_a_host_starts_and_estimates() {
    let (world, mut host) = guest();
    host.close();
    let daemon = Daemon::start(&mut world.jouled(), &world.state);
    let mut ticks = daemon.ticks();
    let first = ticks.next();
    assert!(first.domains.is_empty() && health(&first, "vsock").0 == "degraded", "{first:#?}");
    let estimated = ticks.find("the estimate", Snapshot::estimated);
    assert!(health(&estimated, "vsock").1.contains("No such file"), "{:?}", health(&estimated, "vsock"));
    host.listen();
    until("the guest to connect", || (host.readers() > 0).then_some(()));
    // The guest waits for the end of an epoch.
    std::thread::sleep(Duration::from_millis(300));
    host.send_epoch();
    ticks.find("the host", |snapshot| {
        !snapshot.estimated() && snapshot.domains.iter().any(|view| view.domain.source == "vsock")
    });
    daemon.stop();
}

#[test]
fn without_an_estimate_there_is_no_number() {
    let (world, mut host) = guest();
    let mut command = world.jouled();
    let daemon = Daemon::start(command.env("JOULED_METER__ESTIMATE__USE", "never"), &world.state);
    let mut ticks = daemon.ticks();
    settled(&world, &mut host, &mut ticks);
    host.close();
    let silent = ticks.find("silence", |snapshot| health(snapshot, "vsock").0 == "failed");
    let package = view(&silent, "guest/package");
    assert!(package.power.is_none() && package.error.contains("no word from the host"), "{package:#?}");
    assert!(!silent.estimated());
    let page = daemon.page();
    assert_eq!(page.values("kepler_node_cpu_watts", &[]).count(), 0);
    assert_eq!(node(&page), 1_000_000);
    daemon.stop();
}
