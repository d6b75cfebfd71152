//! The daemon with eBPF, cgroups and processes of this kernel, and a fake energy counter. Not the eBPF source alone:
//! that is in root_bpf.rs.

use crate::common::burn::{Burner, Cgroup, all_used, slice, stolen};
use crate::common::client::Ticks;
use crate::common::sysfs::ICE_LAKE_SERVER;
use crate::common::{Daemon, World, joulectl, jouled, monotonic, root, said, shared_machine, until, whole_machine};
use jouled::model::domain::Zone;
use jouled::model::entity::Kind;
use jouled::model::snapshot::{Snapshot, State};
use jouled::model::source::Health;
use jouled::usage::bpf::{BpfError, BpfOptions, BpfUsage};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::RwLockWriteGuard;
use std::time::Duration;

/// Energy of one window, in microjoules.
const ENERGY: u64 = 100_000_000;
const INTERVAL: &str = "2s";
const BUSY: Duration = Duration::from_millis(800);

/// Whether this process may use eBPF here; prints the reason where it may not.
fn has_bpf() -> bool {
    if !root() {
        return false;
    }
    match BpfUsage::open(&BpfOptions::default()) {
        Ok(_) => true,
        Err(error @ (BpfError::Missing(_) | BpfError::Lockdown | BpfError::TooOld(_) | BpfError::Denied(_))) => {
            println!("skipped: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// A fake meter with this machine's CPUs as one package, without an idle floor.
fn world() -> World {
    let world = World::new();
    fs::remove_dir_all(world.host.sysfs()).unwrap();
    world.host.cpus(1, std::thread::available_parallelism().unwrap().get() as u32, &ICE_LAKE_SERVER);
    world.host.zone("intel-rapl:0", "package-0", 1_000_000);
    world.config("[attribution.idle_watts]\n\"rapl/package-0\" = 0\n");
    world
}

struct Live {
    world: World,
    daemon: Daemon,
    ticks: Ticks,
    _alone: RwLockWriteGuard<'static, ()>,
}

impl Live {
    fn start() -> Option<Self> {
        let alone = whole_machine();
        if !has_bpf() {
            return None;
        }
        let world = world();
        let mut command = jouled(&world.host.sysfs(), Path::new("/proc"), &world.state);
        // These tests compare with the kernel's CPU time, which has no cycles.
        command
            .env("JOULED_USAGE__COUNTERS", "off")
            .env("JOULED_USAGE__SOURCE", "bpf")
            .env("JOULED_INTERVAL", INTERVAL);
        let daemon = Daemon::start(&mut command, &world.state);
        let ticks = daemon.ticks();
        Some(Self { world, daemon, ticks, _alone: alone })
    }

    /// Does `work` in one window with [`ENERGY`]: the snapshots before and after it, and the busy time in it. Repeated
    /// where a busy machine was too slow, or the host took much of its time.
    fn window(&mut self, work: impl Fn()) -> (Snapshot, Snapshot, Busy) {
        for attempt in 0..15 {
            let before = self.ticks.next();
            let (used, from, taken) = (all_used(), monotonic(), stolen());
            self.world.draw("intel-rapl:0", ENERGY);
            work();
            let done = monotonic();
            let after = self.ticks.next();
            // On a busy machine a snapshot arrives late: scaled to the time between the two ticks.
            let window = (after.at.monotonic.0 - before.at.monotonic.0) as f64 / (monotonic() - from) as f64;
            let now = all_used();
            let busy = Busy { most: (now.0 - used.0) as f64 * window, least: (now.1 - used.1) as f64 * window };
            // In ticks of 10 ms.
            let taken = stolen() - taken;
            if taken > 10 && attempt < 5 {
                println!("the host took {taken} ticks of this machine's time in the window: again");
                continue;
            }
            if after.ticks == before.ticks + 1 && after.at.monotonic.0 > done {
                let total = |snapshot: &Snapshot| snapshot.domains[0].energy.total.0;
                assert_eq!(total(&after) - total(&before), ENERGY);
                return (before, after, busy);
            }
            println!("the work took longer than the window: again");
        }
        panic!("15 times the work took longer than the window: this machine is too busy");
    }

    fn stop(self) {
        self.daemon.page().adds_up();
        self.daemon.stop();
    }
}

fn unit(snapshot: &Snapshot, name: &str) -> u64 {
    let row = snapshot.kind(Kind::Unit).rows.iter().find(|row| row.labels.values() == [name.to_string(), slice()]);
    row.map_or(0, |row| row.energy.dynamic[Zone::Package.index()].0)
}

/// Busy time of all CPUs in a window, in nanoseconds: with and without interrupts and steal ([`all_used`]).
struct Busy {
    most: f64,
    least: f64,
}

/// Whether `energy` is at least `percent` % of the share for `used` nanoseconds of CPU time. It may be a little more,
/// because busy time is counted in steps of 10 ms.
fn is_due(what: &str, energy: u64, used: u64, all: &Busy, percent: f64) -> bool {
    let least = ENERGY as f64 * used as f64 / all.most * percent / 100.0;
    let most = ENERGY as f64 * used as f64 / all.least * 1.05;
    println!("{what}: {energy} µJ of {ENERGY} for {used} ns; {least:.0} to {most:.0} µJ are due");
    (least..=most).contains(&(energy as f64))
}

#[test]
fn root_a_burners_unit_gets_its_share_and_a_sleepers_nothing() {
    let (Some(burning), Some(sleeping)) = (Cgroup::new("jtest-burn.service"), Cgroup::new("jtest-sleep.service"))
    else {
        return println!("skipped: no cgroup v2");
    };
    let sleeper = sleeping.child(None, Duration::ZERO);
    until("it sleeps", || {
        fs::read_to_string(format!("/proc/{}/stat", sleeper.0)).unwrap().contains(") S ").then_some(())
    });
    let Some(mut live) = Live::start() else { return };
    let mut good = 0;
    // A fault is in each window; something else on this machine may disturb one of them.
    for round in 0..6 {
        let used = std::cell::Cell::new(0);
        let (before, after, all) = live.window(|| {
            let at_first = burning.used();
            burning.child(Some(0), BUSY).wait();
            used.set(burning.used() - at_first);
        });
        let energy = unit(&after, "jtest-burn.service") - unit(&before, "jtest-burn.service");
        good += u32::from(is_due(&format!("burner, window {round}"), energy, used.get(), &all, 95.0));
        assert_eq!(unit(&after, "jtest-sleep.service"), 0);
        let rows = &after.kind(Kind::Unit).rows;
        assert!(rows.iter().any(|row| row.labels.values() == ["jtest-burn.service".to_string(), slice()]), "{rows:#?}");
        if good == 2 {
            return live.stop();
        }
    }
    panic!("fewer than two of six windows are right: see above");
}

#[test]
fn root_two_burners_share_by_their_time() {
    let (Some(long), Some(short)) = (Cgroup::new("jtest-long.service"), Cgroup::new("jtest-short.service")) else {
        return println!("skipped: no cgroup v2");
    };
    let Some(mut live) = Live::start() else { return };
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    let truth = std::cell::Cell::new((0, 0));
    for _ in 0..4 {
        let (before, after, _) = live.window(|| {
            let at_first = (long.used(), short.used());
            let both: [Burner; 2] = [long.child(Some(0), BUSY), short.child(Some(last), BUSY / 3)];
            both.into_iter().for_each(Burner::wait);
            truth.set((long.used() - at_first.0, short.used() - at_first.1));
        });
        let energy = |name: &str| (unit(&after, name) - unit(&before, name)) as f64;
        let ours = energy("jtest-long.service") / energy("jtest-short.service");
        let kernels = truth.get().0 as f64 / truth.get().1 as f64;
        println!("energies {ours:.3} to 1, CPU times {kernels:.3} to 1");
        if (ours / kernels - 1.0).abs() < 0.02 {
            return live.stop();
        }
    }
    panic!("four times the shares are not those of the CPU times: see above");
}

#[test]
fn root_a_storm_of_short_processes_is_all_on_its_unit() {
    let Some(storm) = Cgroup::new("jtest-storm.service") else { return println!("skipped: no cgroup v2") };
    let Some(mut live) = Live::start() else { return };
    let cpus = std::thread::available_parallelism().unwrap().get();
    let used = std::cell::Cell::new(0);
    let mut storm_alone = || {
        live.window(|| {
            let at_first = storm.used();
            for number in 0..24 {
                storm.child(Some(number % cpus), Duration::from_millis(30)).wait();
            }
            used.set(storm.used() - at_first);
        })
    };
    for _ in 0..10 {
        let (before, after, all) = storm_alone();
        let energy = unit(&after, "jtest-storm.service") - unit(&before, "jtest-storm.service");
        if is_due("storm", energy, used.get(), &all, 98.0) {
            return live.stop();
        }
    }
    panic!("ten times the storm's unit did not have what is due: see above");
}

#[test]
fn root_a_cgroup_that_lives_for_a_moment_keeps_its_name() {
    let Some(mut live) = Live::start() else { return };
    if Cgroup::new("jtest-probe.service").is_none() {
        return println!("skipped: no cgroup v2");
    }
    let (_, after, _) = live.window(|| {
        for name in ["jtest-brief\\x2da.service", "jtest-brief\\x2db.scope"] {
            let brief = Cgroup::new(name).unwrap();
            brief.child(Some(0), Duration::from_millis(20)).wait();
        }
    });
    for name in ["jtest-brief\\x2da.service", "jtest-brief\\x2db.scope"] {
        assert!(unit(&after, name) > 0, "{name}: {:#?}", after.kind(Kind::Unit).rows);
    }
    live.stop();
}

/// A process that uses CPU time, then sleeps.
fn sleeper() -> Child {
    let script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read line";
    Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn root_a_sleeping_process_goes_on_after_a_restart() {
    let _shared = shared_machine();
    if !has_bpf() {
        return;
    }
    let world = world();
    world.config("[attribution.idle_watts]\n\"rapl/package-0\" = 0\n[series]\nretention = \"1s\"\n");
    let mut command = jouled(&world.host.sysfs(), Path::new("/proc"), &world.state);
    command.env("JOULED_USAGE__SOURCE", "bpf");
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    let mut sleeper = sleeper();
    let pid = sleeper.id().to_string();
    let row =
        |snapshot: &Snapshot| snapshot.kind(Kind::Process).rows.iter().find(|row| row.labels.id() == pid).cloned();
    let mut before = ticks.find("the process worked and sleeps", |snapshot| {
        world.draw("intel-rapl:0", 1_000_000);
        row(snapshot).is_some_and(|row| row.energy.sum().0 > 0 && row.power.iter().all(|power| power.0 == 0))
    });
    // What was drawn while it worked may be charged some ticks later.
    let mut unchanged = 0;
    while unchanged < 30 {
        let next = ticks.next();
        let same = row(&next).map(|row| row.energy) == row(&before).map(|row| row.energy);
        unchanged = if same { unchanged + 1 } else { 0 };
        before = next;
    }
    daemon.stop();

    let daemon = Daemon::start(&mut command, &world.state);
    let same = |snapshot: &Snapshot| {
        let (now, was) = (row(snapshot).unwrap(), row(&before).unwrap());
        assert_eq!((now.state, now.energy, now.since), (State::Running, was.energy, was.since));
    };
    same(&daemon.ticks().next());
    std::thread::sleep(Duration::from_millis(1500));
    same(&daemon.snapshot());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    daemon
        .ticks()
        .find("the process is over", |snapshot| row(snapshot).is_none_or(|row| row.state == State::Terminated));
    daemon.stop();
}

/// The same command for the user nobody, with a copy of the program that all users can execute.
fn as_nobody(world: &World, command: &Command) -> Command {
    let program = world.state.with_extension("program");
    fs::copy(command.get_program(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for dir in [world.state.parent().unwrap(), world.host.sysfs().parent().unwrap()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir_all(&world.state).unwrap();
    chown(&world.state, Some(65534), Some(65534)).unwrap();
    let mut nobody = Command::new(program);
    nobody.env_clear().args(command.get_args()).uid(65534).gid(65534);
    for (name, value) in command.get_envs() {
        nobody.env(name, value.unwrap());
    }
    nobody.env("JOULED_USAGE__SOURCE", "auto");
    nobody
}

#[test]
fn root_a_plain_user_gets_what_is_readable_and_the_reason_for_the_rest() {
    if !root() {
        return;
    }
    let _shared = shared_machine();
    let world = world();
    let energy = world.host.zone_dir("intel-rapl:0").join("energy_uj");
    fs::set_permissions(&energy, fs::Permissions::from_mode(0o400)).unwrap();
    let mut command = as_nobody(&world, &jouled(&world.host.sysfs(), Path::new("/proc"), &world.state));

    // Only root may read the counter: an estimate, and a message with the remedy.
    let daemon = Daemon::start(&mut command, &world.state);
    let snapshot = daemon.ticks().find("a tick", |snapshot| snapshot.ticks > 1);
    let health = |name: &str| &snapshot.sources.iter().find(|view| view.source == name).unwrap().health;
    assert!(
        matches!(health("rapl-powercap"), Health::Failed(why) if why.contains("run as root") && why.contains("CAP_DAC_READ_SEARCH"))
    );
    assert!(matches!(health("bpf"), Health::Failed(why) if why.contains("CAP_BPF")), "{:?}", health("bpf"));
    assert!(matches!(health("procfs"), Health::Degraded(_)));
    assert!(snapshot.estimated());
    assert!(said(joulectl(&world.state, &["status"])).contains("ESTIMATE"));
    let log = daemon.stop();
    assert!(log.contains("CAP_BPF") && log.contains("CAP_DAC_READ_SEARCH"), "{log}");

    // All users may read the counter: it is measured, and attributed by /proc. With a new ledger, which has no
    // estimated energy.
    fs::remove_dir_all(&world.state).unwrap();
    fs::create_dir(&world.state).unwrap();
    chown(&world.state, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&energy, fs::Permissions::from_mode(0o444)).unwrap();
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    let Some(cgroup) = Cgroup::new("jtest-user.service") else { return println!("skipped: no cgroup v2") };
    let end = monotonic() + 60_000_000_000;
    let charged = loop {
        let burner = cgroup.child(Some(0), Duration::from_millis(300));
        let pid = burner.0.to_string();
        world.draw("intel-rapl:0", 10_000_000);
        ticks.next();
        burner.wait();
        let snapshot = ticks.next();
        let process =
            snapshot.kind(Kind::Process).rows.iter().any(|row| row.labels.id() == pid && row.energy.sum().0 > 0);
        if process && unit(&snapshot, "jtest-user.service") > 1_000_000 {
            break snapshot;
        }
        assert!(monotonic() < end, "the burner gets nothing: {snapshot:#?}");
    };
    assert!(!charged.estimated() && charged.domains[0].domain.source == "rapl-powercap");
    daemon.page().adds_up();
    daemon.stop();
}
