//! The daemon and a service manager: messages on NOTIFY_SOCKET, reloads, and sockets that the manager passes on. The
//! manager is a socket here; tests/integration/system has systemd.

use crate::common::{Daemon, World, get, refused, until};
use jouled::model::domain::Zone;
use jouled::model::entity::Kind;
use jouled::model::snapshot::{Snapshot, State};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A service manager: the messages on NOTIFY_SOCKET. It reads at all times, because a full socket would block the
/// daemon.
struct Manager(Receiver<String>);

impl Manager {
    fn new(world: &World) -> (Self, Command) {
        let path = world.state.with_extension("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut command = world.jouled();
        command.env("NOTIFY_SOCKET", path);
        let (heard, hear) = channel();
        std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(length) = socket.recv(&mut bytes)
                && heard.send(String::from_utf8(bytes[..length].to_vec()).unwrap()).is_ok()
            {}
        });
        (Self(hear), command)
    }

    fn next(&self) -> String {
        self.0.recv_timeout(crate::common::PATIENCE).expect("the manager hears nothing")
    }

    fn wait_for(&self, text: &str) -> String {
        loop {
            let heard = self.next();
            if heard.contains(text) {
                return heard;
            }
        }
    }
}

fn inhabited() -> World {
    let world = World::new();
    world.spawn(101, 11, "nginx", "/system.slice/nginx.service", 0);
    world
}

/// CPU time, and 1 J in each package.
fn work(world: &World) {
    world.run(101, 3);
    world.draw("intel-rapl:0", 1_000_000);
    world.draw("intel-rapl:1", 1_000_000);
}

fn nginx(snapshot: &Snapshot) -> u64 {
    let row = snapshot.kind(Kind::Unit).rows.iter().find(|row| row.labels.id() == "nginx.service");
    row.map_or(0, |row| row.energy.dynamic[Zone::Package.index()].0)
}

fn total(snapshot: &Snapshot) -> u64 {
    snapshot.domains.iter().map(|view| view.energy.total.0).sum()
}

fn reload(daemon: &Daemon, manager: &Manager) {
    daemon.signal(libc::SIGHUP);
    let heard = manager.wait_for("RELOADING=1");
    assert!(heard.contains("MONOTONIC_USEC="), "{heard}");
    manager.wait_for("READY=1");
}

#[test]
fn the_manager_gets_ready_a_status_and_a_watchdog_message_each_tick() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(command.env("WATCHDOG_USEC", "30000000"), &world.state);
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("STATUS=Measuring by rapl-powercap, use by procfs");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    daemon.signal(libc::SIGTERM);
    manager.wait_for("STOPPING=1");
    daemon.stop();
}

#[test]
fn a_watchdog_shorter_than_three_ticks_is_extended() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(command.env("WATCHDOG_USEC", "30000000").env("JOULED_INTERVAL", "20s"), &world.state);
    assert_eq!(manager.next().trim(), "WATCHDOG_USEC=60000000");
    daemon.stop();
}

#[test]
fn a_reload_keeps_every_counter() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    for _ in 0..5 {
        work(&world);
        ticks.caught_up();
    }
    let before = ticks.find("all is booked", |snapshot| total(snapshot) == 10_000_000);
    assert!(nginx(&before) > 0);
    let page = daemon.page();

    // This reload opens the sources again.
    world.config("[series]\nprocesses = 7\n");
    reload(&daemon, &manager);
    daemon.log.wait_for("configuration read again; restarted: measuring");
    let after = ticks.next();
    assert!(after.ticks > before.ticks);
    assert_eq!((total(&after), nginx(&after)), (10_000_000, nginx(&before)));
    assert_eq!(daemon.page().only_rose(&page), 0, "a series got lost");
    for _ in 0..3 {
        work(&world);
        ticks.caught_up();
    }
    let last = ticks.find("work after the reload is booked", |snapshot| total(snapshot) == 16_000_000);
    assert!(nginx(&last) > nginx(&before));
    let log = daemon.stop();
    assert!(
        log.lines().all(|line| !line.contains("WARN") || line.contains("usage procfs: degraded: not wanted")),
        "{log}"
    );
}

#[test]
fn a_reload_ends_no_idle_process() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    world.config("[series]\nretention = \"300ms\"\n");
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    for _ in 0..3 {
        work(&world);
        ticks.caught_up();
    }
    ticks.find("all is booked", |snapshot| total(snapshot) == 6_000_000);
    let process = |snapshot: &Snapshot| {
        let row = snapshot.kind(Kind::Process).rows.iter().find(|row| row.labels.id() == "101").cloned();
        row.map(|row| (row.state, row.energy, row.since))
    };
    let before = process(&daemon.snapshot()).unwrap();
    assert_eq!(before.0, State::Running);

    // A reload that succeeds, and one that is refused after the sampler was opened.
    let socket = world.state.with_extension("socket");
    std::fs::create_dir(&socket).unwrap();
    for rest in [String::new(), format!("[control]\nsocket = {socket:?}\n")] {
        world.config(&format!(
            "[attribution.idle_watts]\n\"rapl/package-0\" = 1.5\n[series]\nretention = \"400ms\"\n{rest}"
        ));
        reload(&daemon, &manager);
        let mut ticks = daemon.ticks();
        for _ in 0..8 {
            ticks.next();
        }
        assert_eq!(process(&ticks.next()), Some(before), "{rest}");
        world.config(&format!("[series]\nretention = \"200ms\"\n{rest}"));
    }
    // The process goes on from its last state, and its series ends with it.
    let mut ticks = daemon.ticks();
    ticks.find("the process was charged", |snapshot| {
        // Again and again: where a tick comes between the work and its energy, the process is not charged.
        work(&world);
        process(snapshot).is_some_and(|(_, energy, _)| energy.sum() > before.1.sum())
    });
    world.end(101);
    ticks.find("the process ended", |snapshot| process(snapshot).is_none());
    daemon.stop();
}

#[test]
fn what_is_drawn_during_a_reload_is_not_lost() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    ticks.next();
    for round in 0..4 {
        work(&world);
        world.config(&format!("[series]\nprocesses = {}\n", 10 + round));
        reload(&daemon, &manager);
        work(&world);
    }
    ticks.find("all is booked", |snapshot| total(snapshot) == 16_000_000);
    daemon.stop();
}

#[test]
fn a_broken_configuration_changes_nothing_and_the_reason_is_reported() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(&mut command, &world.state);
    let before = daemon.snapshot();
    world.config("[meter.rapl]\nvia = \"magic\"\n[series]\nprocesses = \"many\"\n");
    reload(&daemon, &manager);
    let status = manager.wait_for("STATUS=");
    assert!(status.contains("=configuration not reloaded: ") && status.contains("meter.rapl.via"), "{status}");
    assert_eq!(status.trim_end().lines().count(), 1, "{status}");
    daemon.log.wait_for("ERROR configuration not reloaded, the one before stays in force");
    assert!(daemon.snapshot().ticks >= before.ticks, "measuring went on");

    // The configuration is valid again, and the reason is gone.
    world.config("");
    reload(&daemon, &manager);
    let status = manager.wait_for("STATUS=");
    assert!(!status.contains("not reloaded"), "{status}");
    daemon.log.wait_for("configuration read again; nothing restarted");
    daemon.stop();
}

#[test]
fn a_configuration_whose_socket_cannot_be_bound_changes_nothing() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(&mut command, &world.state);
    let mut ticks = daemon.ticks();
    work(&world);
    ticks.find("all is booked", |snapshot| total(snapshot) == 2_000_000);
    drop(ticks);
    // The reload changes the sampler and the control socket, whose path is a folder.
    let socket = world.state.with_extension("socket");
    std::fs::create_dir(&socket).unwrap();
    world.config(&format!("[series]\nprocesses = 9\n[control]\nsocket = {socket:?}\n"));
    reload(&daemon, &manager);
    daemon.log.wait_for("exists and is no socket");
    let status = manager.wait_for("STATUS=");
    assert!(status.contains("=configuration not reloaded: ") && status.contains("is no socket"), "{status}");
    let after = daemon.ticks().find("goes on", |snapshot| total(snapshot) == 2_000_000);
    assert!(nginx(&after) > 0);
    assert_eq!(get(daemon.address, "/metrics", &[]).status, 200);
    daemon.stop();
}

#[test]
fn a_reload_moves_the_control_socket_and_refuses_no_scrape() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(&mut command, &world.state);
    let socket = world.state.with_extension("elsewhere");
    world.config(&format!(
        "log_level = \"debug\"\n[control]\nsocket = {socket:?}\n[export.prometheus]\nlevels = [\"vm\"]\n"
    ));
    let address = daemon.address;
    let scraping = std::thread::spawn(move || (0..200).all(|_| get(address, "/metrics", &[]).status == 200));
    reload(&daemon, &manager);
    daemon.log.wait_for("restarted: metrics page, joulectl's socket");
    assert!(scraping.join().unwrap());
    assert!(socket.exists() && !daemon.state.join("jouled.sock").exists());
    let page = get(daemon.address, "/metrics", &[]).body;
    assert!(!page.contains("jouled_unit_joules_total"), "units are not wanted any more");
    daemon.stop();
    assert!(!socket.exists());
}

#[test]
fn many_reloads_at_once_end_with_the_last_configuration() {
    let world = inhabited();
    let (manager, mut command) = Manager::new(&world);
    let daemon = Daemon::start(&mut command, &world.state);
    for round in 0..50 {
        world.config(&format!("[series]\nprocesses = {}\n", 10 + round));
        daemon.signal(libc::SIGHUP);
    }
    reload(&daemon, &manager);
    until("the last configuration is in force", || {
        // A reload without a change restarts nothing.
        daemon.signal(libc::SIGHUP);
        std::thread::sleep(Duration::from_millis(100));
        daemon.log.text().contains("nothing restarted").then_some(())
    });
    daemon.stop();
}

/// jouled with a descriptor from a service manager, as number 3.
fn activated(world: &World, fd: i32, name: &str) -> Command {
    let inner = world.jouled();
    let mut command = Command::new("sh");
    // LISTEN_PID must be jouled's pid: the shell replaces itself with jouled.
    command
        .args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).env("PATH", "/usr/bin:/bin");
    let move_to_3 = move || {
        // SAFETY: dup2 between descriptors of this process; it clears close-on-exec unless they are the same.
        let moved = unsafe { if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) } };
        if moved < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, move_to_3) };
    command
}

#[test]
fn a_socket_of_the_service_manager_takes_the_place_of_those_configured() {
    let world = inhabited();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let daemon = Daemon::start(&mut activated(&world, listener.as_raw_fd(), "metrics"), &world.state);
    assert_eq!(daemon.address, address);
    assert_eq!(get(address, "/metrics", &[]).status, 200);
    // A reload of the metrics page keeps the socket.
    world.config("[export.prometheus]\nlevels = [\"vm\"]\n");
    daemon.signal(libc::SIGHUP);
    daemon.log.wait_for("restarted: metrics page");
    assert_eq!(get(address, "/metrics", &[]).status, 200);
    daemon.stop();
}

#[test]
fn a_socket_that_is_none_for_the_page_is_refused_with_what_to_do() {
    let world = inhabited();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = refused(&mut activated(&world, listener.as_raw_fd(), "http"));
    assert!(text.contains("\"http\"") && text.contains("FileDescriptorName=metrics"), "{text}");
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = refused(&mut activated(&world, datagram.as_raw_fd(), "metrics"));
    assert!(text.contains("no listening TCP socket"), "{text}");
    let file = std::fs::File::open(Path::new("/dev/null")).unwrap();
    let text = refused(&mut activated(&world, file.as_raw_fd(), "metrics"));
    assert!(text.contains("no listening TCP socket"), "{text}");
}
