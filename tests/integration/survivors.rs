//! Series over a restart of jouled, of processes and cgroups that sleep, have ended or were replaced meanwhile. Not the
//! energy of the node: that is in restart.rs.

use crate::common::World;
use crate::common::client::Ticks;
use crate::common::world::ZONES;
use jouled::model::entity::Kind;
use jouled::model::snapshot::{Row, Snapshot, State};
use jouled::model::source::Stamp;
use std::time::Duration;

/// CPU time of these processes and energy in each of `count` ticks.
fn work(world: &World, ticks: &mut Ticks, pids: &[u32], count: u32) {
    for _ in 0..count {
        pids.iter().for_each(|pid| world.run(*pid, 3));
        ZONES.iter().for_each(|(zone, _)| world.draw(zone, 2_000_000));
        ticks.caught_up();
    }
}

/// Waits until the domains have all energy of `count` ticks of work.
fn settle(count: u64, ticks: &mut Ticks) -> Snapshot {
    let drawn = count * ZONES.len() as u64 * 2_000_000;
    ticks.find("all energy booked", |snapshot| {
        snapshot.domains.iter().map(|view| view.energy.total.0).sum::<u64>() == drawn
    })
}

/// Longer than `series.retention`.
const LONGER_THAN_RETENTION: Duration = Duration::from_millis(1500);

/// The row of a kind that has `name` among its labels.
fn row<'a>(snapshot: &'a Snapshot, kind: Kind, name: &str) -> Option<&'a Row> {
    snapshot.kind(kind).rows.iter().find(|row| row.labels.values().iter().any(|label| label == name))
}

#[test]
fn sleeping_processes_go_on_after_a_restart_and_ended_ones_end() {
    let world = World::new();
    world.config("[series]\nretention = \"1s\"\n");
    let container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let now = Stamp::now().boottime.0 / 10_000_000;
    world.spawn(101, 11, "bash", "/user.slice/user-1000.slice/session-3.scope", 0);
    world.spawn(102, 12, "worker", &format!("/system.slice/docker-{container}.scope"), 1);
    let kernel_thread = |name: &str| {
        world.spawn(103, 13, name, "/", 2);
        std::fs::remove_file(world.host.procfs().join("103/exe")).unwrap();
    };
    kernel_thread("kworker/0:1");
    world.spawn(104, 14, "gone", "/user.slice/user-1000.slice/session-4.scope", 2);
    world.spawn(105, 15, "reused", "/system.slice/pool.service", 2);
    world.spawn(106, 16, "renamed", "/system.slice/pool.service", 2);
    world.spawn(107, 17, "zombie", "/system.slice/pool.service", 2);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    work(&world, &mut ticks, &[101, 102, 103, 104, 105, 106, 107], 4);
    let before = settle(4, &mut ticks);
    daemon.stop();

    // /proc appends to its name what a kernel worker does.
    kernel_thread("kworker/0:1-events");
    world.end(104);
    std::fs::remove_dir(world.cgroups().join("user.slice/user-1000.slice/session-4.scope")).unwrap();
    // Another process with the same pid and name, younger than the series.
    world.spawn(105, now + 1_000_000, "reused", "/system.slice/pool.service", 2);
    world.spawn(106, 16, "another", "/system.slice/pool.service", 2);
    // A process that ended and was not waited for.
    let stat = world.host.procfs().join("107/stat");
    std::fs::write(&stat, std::fs::read_to_string(&stat).unwrap().replace(") S ", ") Z ")).unwrap();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let asleep = [
        (Kind::Process, "101"),
        (Kind::Process, "102"),
        (Kind::Process, "103"),
        (Kind::Session, "3"),
        (Kind::Container, container),
        (Kind::Unit, "session-3.scope"),
        (Kind::Unit, "pool.service"),
        (Kind::Slice, "user-1000.slice"),
    ];
    let ended = [
        (Kind::Process, "104"),
        (Kind::Process, "105"),
        (Kind::Process, "106"),
        (Kind::Process, "107"),
        (Kind::Session, "4"),
    ];
    let check = |snapshot: &Snapshot| {
        for (kind, name) in asleep {
            let (now, was) = (row(snapshot, kind, name).unwrap(), row(&before, kind, name).unwrap());
            assert_eq!((now.state, now.energy, now.since), (State::Running, was.energy, was.since), "{kind:?} {name}");
            assert!(was.energy.sum().0 > 0, "{kind:?} {name}");
        }
    };
    let first = ticks.next();
    check(&first);
    for (kind, name) in ended {
        assert_eq!(row(&first, kind, name).unwrap().state, State::Terminated, "{kind:?} {name}");
    }
    std::thread::sleep(LONGER_THAN_RETENTION);
    let later = daemon.snapshot();
    check(&later);
    for (kind, name) in ended {
        assert_eq!(row(&later, kind, name), None, "{kind:?} {name}");
    }

    // The series go on from their last values, and end with their processes.
    let rose = |last: &Snapshot| {
        let energy = |snapshot, kind, name| row(snapshot, kind, name).unwrap().energy.sum();
        let mut rows = asleep.iter().filter(|(_, name)| *name != "103");
        rows.all(|(kind, name)| energy(last, *kind, name) > energy(&before, *kind, name))
    };
    // Energy is idle where a tick comes between the work and this energy: they work again.
    let all_rose = (5..25).any(|count| {
        work(&world, &mut ticks, &[101, 102, 105], 1);
        rose(&settle(count, &mut ticks))
    });
    assert!(all_rose, "{:#?}", daemon.snapshot());
    daemon.page().adds_up();
    world.end(101);
    std::fs::remove_dir(world.cgroups().join("user.slice/user-1000.slice/session-3.scope")).unwrap();
    ticks.find("the session and its process are over", |snapshot| {
        row(snapshot, Kind::Process, "101").is_none() && row(snapshot, Kind::Session, "3").is_none()
    });
    daemon.stop();
}

#[test]
fn after_a_reboot_the_same_pid_is_another_process() {
    let world = World::new();
    world.spawn(101, 11, "nginx", "/system.slice/nginx.service", 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.next();
    work(&world, &mut ticks, &[101], 4);
    settle(4, &mut ticks);
    daemon.stop();
    world.boot("66666666-7777-8888-9999-000000000000");
    let daemon = world.start();
    assert_eq!(row(&daemon.ticks().next(), Kind::Process, "101").unwrap().state, State::Terminated);
    daemon.stop();
}
