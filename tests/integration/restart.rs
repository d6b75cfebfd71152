//! Crashes, restarts, reboots, a change of the source, and replays of recordings: counters go on, and no energy appears
//! or is lost.

use crate::common::client::Ticks;
use crate::common::world::ZONES;
use crate::common::{Daemon, World, bare_jouled, output, refused, root, said, shared_machine};
use jouled::model::domain::Zone;
use jouled::model::entity::Kind;
use jouled::model::snapshot::{DomainView, Snapshot};
use jouled::model::units::Nanos;
use jouled::run::record;

fn inhabit(world: &World) {
    world.spawn(101, 11, "nginx", "/system.slice/nginx.service", 0);
    world.spawn(102, 12, "postgres", "/system.slice/postgresql.service", 2);
    world.spawn(103, 13, "backup", "/system.slice/backup.service", 1);
}

/// CPU time and energy in each of `count` ticks, with a short process in each.
fn work(world: &World, ticks: &mut Ticks, count: u32) {
    for tick in 0..count {
        world.run(101, 3);
        world.run(102, u64::from(1 + tick % 3));
        world.spawn(2000 + tick, 50, "job", "/system.slice/job.service", 1);
        world.run(2000 + tick, 2);
        if tick > 0 {
            world.end(2000 + tick - 1);
        }
        for (zone, _) in ZONES {
            world.draw(zone, 1_000_000 + u64::from(tick) * 1000);
        }
        ticks.caught_up();
    }
    world.end(2000 + count - 1);
}

/// Waits until the domains have all energy that was drawn: nothing changes after that.
fn settle(world_drawn: u64, ticks: &mut Ticks) -> Snapshot {
    ticks.find("all energy booked", |snapshot| total(snapshot) == world_drawn)
}

fn total(snapshot: &Snapshot) -> u64 {
    snapshot.domains.iter().map(|view| view.energy.total.0).sum()
}

fn unattributed(snapshot: &Snapshot) -> u64 {
    snapshot.domains.iter().map(|view| view.energy.unattributed.0).sum()
}

fn unit(snapshot: &Snapshot, name: &str) -> u64 {
    let row = snapshot.kind(Kind::Unit).rows.iter().find(|row| row.labels.id() == name);
    row.map_or(0, |row| row.energy.dynamic[Zone::Package.index()].0)
}

/// The energy of [`work`] in `count` ticks, in microjoules.
fn drawn(count: u64) -> u64 {
    4 * (count * 1_000_000 + 1000 * count * (count - 1) / 2)
}

#[test]
fn a_crash_loses_nothing() {
    let world = World::new();
    inhabit(&world);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    work(&world, &mut ticks, 10);
    let before = settle(drawn(10), &mut ticks);
    let page = daemon.page();
    daemon.kill();

    // Energy and CPU time while the daemon is down.
    for (zone, _) in ZONES {
        world.draw(zone, 7_000_000);
    }
    world.run(101, 1000);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let after = settle(drawn(10) + 28_000_000, &mut ticks);
    assert_eq!(
        unattributed(&after),
        unattributed(&before) + 28_000_000,
        "what was drawn while it was down is nobody's"
    );
    assert!(after.domains.iter().all(|view| view.gaps == 0), "{:#?}", after.domains);
    assert_eq!(unit(&after, "nginx.service"), unit(&before, "nginx.service"));
    let resumed = daemon.page();
    resumed.adds_up();
    assert_eq!(resumed.only_rose(&page), 0, "a series got lost");

    work(&world, &mut ticks, 3);
    let last = settle(drawn(10) + 28_000_000 + drawn(3), &mut ticks);
    assert!(unit(&last, "nginx.service") > unit(&before, "nginx.service"), "the unit goes on");
    let page = daemon.page();
    page.adds_up();
    page.only_rose(&resumed);
    daemon.stop();
}

#[test]
fn crashes_at_any_moment() {
    let world = World::new();
    inhabit(&world);
    let (mut page, mut energy): (Option<crate::common::Page>, u64) = (None, 0);
    for round in 0..6u32 {
        let daemon = world.start();
        let mut ticks = daemon.ticks();
        ticks.next();
        work(&world, &mut ticks, 2 + round % 3);
        energy += drawn(2 + u64::from(round % 3));
        let now = daemon.page();
        now.adds_up();
        if let Some(page) = &page {
            now.only_rose(page);
        }
        page = Some(now);
        daemon.kill();
    }
    let daemon = world.start();
    settle(energy, &mut daemon.ticks());
    let last = daemon.page();
    last.adds_up();
    last.only_rose(&page.unwrap());
    daemon.stop();
}

#[test]
fn after_a_reboot_units_go_on_and_nothing_jumps() {
    let world = World::new();
    inhabit(&world);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    work(&world, &mut ticks, 8);
    let before = settle(drawn(8), &mut ticks);
    daemon.stop();

    // A reboot: another boot id, other counters, an empty /run, other processes.
    world.boot("66666666-7777-8888-9999-000000000000");
    world.reset_counters(90_000_000_000);
    std::fs::remove_file(world.state.join("ledger.journal")).unwrap();
    world.end(101);
    world.spawn(77, 3, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let after = ticks.next();
    assert_eq!(total(&after), drawn(8), "the counters of another boot are no energy");
    assert_eq!(unattributed(&after), unattributed(&before));
    assert_eq!(unit(&after, "nginx.service"), unit(&before, "nginx.service"));
    for _ in 0..3 {
        world.run(77, 5);
        ZONES.iter().for_each(|(zone, _)| world.draw(zone, 2_000_000));
        ticks.caught_up();
    }
    let last = settle(drawn(8) + 24_000_000, &mut ticks);
    assert!(unit(&last, "nginx.service") > unit(&before, "nginx.service"));
    daemon.page().adds_up();
    daemon.stop();
}

/// The software clock of this kernel stands in for an energy event. It counts at all times.
#[test]
fn root_another_source_invents_no_energy() {
    if !root() {
        return;
    }
    let _shared = shared_machine();
    let world = World::new();
    inhabit(&world);
    world.host.power_pmu(1, "0,2", &[("energy-pkg", 0)]);
    world.config("[meter.rapl]\nvia = \"perf\"\n");
    let daemon = world.start();
    if daemon.log.text().contains("rapl-perf: failed") {
        return println!("skipped: no perf events here: {}", daemon.log.text());
    }
    let before = daemon.ticks().find("energy by perf", |snapshot| total(snapshot) > 0);
    assert!(before.domains.iter().any(|view| view.domain.source == "rapl-perf"), "{:#?}", before.domains);
    daemon.stop();

    let history = |snapshot: &Snapshot| {
        let view = snapshot.domains.iter().find(|view| view.domain.id == "rapl/package-0").unwrap();
        (view.domain.source.clone(), view.energy.total.0)
    };
    world.config("[meter.rapl]\nvia = \"powercap\"\n");
    world.draw("intel-rapl:0", 50_000_000_000);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let (source, at_first) = history(&ticks.next());
    // The event counted for a moment after this snapshot, 2^-32 J for each ns: far below a joule.
    assert!(
        source == "rapl-powercap" && (history(&before).1..history(&before).1 + 1_000_000).contains(&at_first),
        "{at_first}"
    );
    world.draw("intel-rapl:0", 3_000_000);
    ticks.find("energy by powercap", |snapshot| history(snapshot).1 == at_first + 3_000_000);
    daemon.stop();

    world.config("[meter.rapl]\nvia = \"perf\"\n");
    world.draw("intel-rapl:0", 9_000_000);
    let daemon = world.start();
    let (source, back) = history(&daemon.ticks().next());
    assert!(source == "rapl-perf" && back < at_first + 3_000_000 + 1_000_000, "{back} after {at_first}");
    daemon.stop();
}

#[test]
fn a_recording_replays_to_the_same_numbers() {
    let world = World::new();
    inhabit(&world);
    let file = world.state.with_extension("recording");
    let daemon = Daemon::start(world.jouled().arg("--record").arg(&file), &world.state);
    let mut ticks = daemon.ticks();
    let mut live = vec![ticks.line()];
    for tick in 0..20u32 {
        world.run(101, 3);
        world.spawn(3000 + tick, u64::from(tick), "job", &format!("/system.slice/run-{}.scope", tick / 4), tick % 4);
        world.run(3000 + tick, 1 + u64::from(tick % 5));
        if tick >= 2 {
            world.end(3000 + tick - 2);
        }
        match tick {
            5 => world.host.remove_zone("intel-rapl:1:0"),
            9 => world.bring_back("intel-rapl:1:0"),
            _ => {}
        }
        ZONES.iter().for_each(|(zone, _)| world.draw(zone, 1_234_567 + 1000 * u64::from(tick)));
        live.push(ticks.line());
    }
    daemon.stop();

    let mut replayed = std::collections::BTreeMap::new();
    let count = record::replay(&file, |snapshot| {
        replayed.insert(snapshot.ticks, serde_json::to_string(&**snapshot).unwrap() + "\n");
    })
    .unwrap();
    assert!(count >= 20);
    for line in &live {
        let ticks = serde_json::from_str::<Snapshot>(line).unwrap().ticks;
        assert_eq!(Some(line), replayed.get(&ticks), "tick {ticks}");
    }
    let printed = said(output(bare_jouled().arg("--replay").arg(&file)));
    assert_eq!(printed, *replayed.last_key_value().unwrap().1);
    assert!(total(&serde_json::from_str(&printed).unwrap()) > 0);

    // A recording is not overwritten, and a file that is no recording is named.
    let text = refused(world.jouled().arg("--record").arg(&file));
    assert!(text.contains("cannot record") && text.contains(file.to_str().unwrap()), "{text}");
    let cut = world.state.with_extension("cut");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 3]).unwrap();
    let text = refused(bare_jouled().arg("--replay").arg(&cut));
    assert!(
        text.contains(cut.to_str().unwrap()) && text.contains("cut short") && text.contains("after tick"),
        "{text}"
    );
    std::fs::write(&cut, "garbage").unwrap();
    let text = refused(bare_jouled().arg("--replay").arg(&cut));
    assert!(text.contains("not a recording"), "{text}");
}

/// A recording in which CLOCK_REALTIME jumps: only the times that are shown may change.
#[test]
fn a_clock_step_changes_no_energy_and_a_suspend_is_a_gap() {
    let world = World::new();
    inhabit(&world);
    let file = world.state.with_extension("recording");
    let daemon = Daemon::start(world.jouled().arg("--record").arg(&file), &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    work(&world, &mut ticks, 6);
    daemon.stop();
    let plain = replay(&file);

    let stepped = world.state.with_extension("stepped");
    rewrite(&file, &stepped, |number, tick| {
        let day = Nanos(86_400 * Nanos::SECOND.0);
        tick.at.realtime = if number % 2 == 0 { tick.at.realtime - day } else { tick.at.realtime + day };
    });
    let energy = |views: &[DomainView]| {
        views
            .iter()
            .map(|view| (view.energy.total, view.energy.idle, view.energy.unattributed, view.gaps))
            .collect::<Vec<_>>()
    };
    let after = replay(&stepped);
    assert_eq!(energy(&after.domains), energy(&plain.domains));
    let rows = |snapshot: &Snapshot| -> Vec<_> {
        snapshot
            .kinds
            .iter()
            .flat_map(|view| view.rows.iter().map(|row| (row.labels.clone(), row.state, row.energy)))
            .collect()
    };
    assert_eq!(rows(&after), rows(&plain));

    // From a tick on in which energy was drawn: on a busy machine there are ticks without.
    let slept = world.state.with_extension("slept");
    let (mut counted, mut sleeps) = (Vec::new(), false);
    rewrite(&file, &slept, |number, tick| {
        let counts: Vec<_> = tick.readings.iter().map(|reading| reading.reading.clone()).collect();
        sleeps |= number > 3 && counts != counted;
        counted = counts;
        if sleeps {
            tick.at.boottime += Nanos(3_600 * Nanos::SECOND.0);
        }
    });
    assert!(sleeps);
    let after = replay(&slept);
    assert!(after.domains.iter().all(|view| view.gaps == 1), "{:#?}", after.domains);
    assert!(total(&after) < total(&plain));
}

fn replay(file: &std::path::Path) -> Snapshot {
    serde_json::from_str(&said(output(bare_jouled().arg("--replay").arg(file)))).unwrap()
}

/// Copies a recording, changing its ticks.
fn rewrite(from: &std::path::Path, to: &std::path::Path, mut change: impl FnMut(u32, &mut jouled::model::tick::Tick)) {
    use jouled::run::store::frames;
    let bytes = std::fs::read(from).unwrap();
    let head_at = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut rest = &bytes[head_at..];
    let head: record::Head = frames::read(&mut rest).unwrap().unwrap();
    let mut recorder = record::Recorder::create(to, &head).unwrap();
    let mut number = 0;
    while let Some(mut tick) = frames::read(&mut rest).unwrap() {
        number += 1;
        change(number, &mut tick);
        recorder.tick(&tick).unwrap();
    }
}
