//! IPMI over the network: the built daemon with OpenIPMI's simulator of a BMC, and faults of a BMC and of the network.
//! Needs no root.

use crate::common::{Daemon, Ticks, World, bare_jouled, get, joulectl, output, said};
use crate::ipmi_sim::{Line, PASSWORD, Sim, USER};
use jouled::model::domain::Zone;
use jouled::model::snapshot::{DomainView, Snapshot};
use jouled::model::source::Health;
use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Configures these BMCs: name, port, more keys.
fn config(world: &World, bmcs: &[(&str, u16, &str)]) {
    let mut text = "[meter.ipmi]\nperiod = \"5s\"\n".to_owned();
    let password = world.state.with_extension("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    for (name, port, more) in bmcs {
        text += &format!("[[meter.ipmi.lan]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n");
        for (key, line) in [
            ("username", format!("username = \"{USER}\"\n")),
            ("password_file", format!("password_file = \"{}\"\n", password.display())),
            ("privilege", "privilege = \"administrator\"\n".to_owned()),
            ("timeout", "timeout = \"400ms\"\n".to_owned()),
        ] {
            if !more.contains(key) {
                text += &line;
            }
        }
        text += &format!("{more}\n");
    }
    world.config(&text);
}

fn platform(snapshot: &Snapshot) -> Option<&DomainView> {
    snapshot.domains.iter().find(|view| view.domain.zone == Zone::Platform)
}

/// The power of the last reading, in watts.
fn watts(snapshot: &Snapshot) -> Option<u64> {
    platform(snapshot)?.power.map(|power| power.0 / 1_000_000)
}

fn health<'a>(snapshot: &'a Snapshot, source: &str) -> &'a Health {
    &snapshot.sources.iter().find(|one| one.source == source).unwrap_or_else(|| panic!("{source}")).health
}

/// `Ticks::find` with a longer limit: the period is 5 s, and a machine may be busy.
fn wait(daemon: &Daemon, what: &str, seen: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let (mut ticks, until): (Ticks, _) = (daemon.ticks(), Instant::now() + Duration::from_secs(90));
    loop {
        let snapshot = ticks.next();
        if seen(&snapshot) {
            return snapshot;
        }
        let ipmi: Vec<_> = snapshot.sources.iter().filter(|one| one.source.starts_with("ipmi")).collect();
        assert!(Instant::now() < until, "waited in vain for {what}: {:?} {ipmi:?}", watts(&snapshot));
    }
}

#[test]
fn a_bmc_over_the_network_is_asked_in_one_session_that_is_ended() {
    let Some(sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    let snapshot = wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    let domain = &platform(&snapshot).unwrap().domain;
    let expected = ("ipmi/bmc/platform", "ipmi:bmc", false);
    assert_eq!((domain.id.as_str(), domain.source.as_str(), domain.billed), expected);
    assert_eq!(domain.path, format!("127.0.0.1:{}", line.port));
    assert_eq!(health(&snapshot, "ipmi:bmc"), &Health::Healthy);
    // The number of scrapes does not matter: the BMC is asked once a period.
    let before = (line.faults.sent.load(SeqCst), Instant::now());
    for _ in 0..200 {
        get(daemon.address, "/metrics", &[]);
    }
    let asked = line.faults.sent.load(SeqCst) - before.0;
    // Two datagrams: the request, and one before it that flushes late answers.
    assert!(asked as u64 <= 2 * (1 + before.1.elapsed().as_secs() / 5), "{asked} datagrams");
    sim.says("watts 250");
    wait(&daemon, "250 W", |snapshot| watts(snapshot) == Some(250));
    assert_eq!(line.faults.sessions.load(SeqCst), 1);

    // The password is shown nowhere.
    let status = said(joulectl(&world.state, &["status"])) + &said(joulectl(&world.state, &["status", "--json"]));
    assert!(status.contains("ipmi:bmc") && !status.contains(PASSWORD), "{status}");
    let mut check = bare_jouled();
    check.arg("--check-config").arg("--config").arg(world.state.with_extension("toml"));
    assert_eq!(said(output(&mut check)), "the configuration is valid\n");
    assert!(!get(daemon.address, "/metrics", &[]).body.contains(PASSWORD));
    assert_eq!(sim.sessions(), 2, "the daemon's, and the one that asks");
    let log = daemon.stop();
    assert!(!log.contains(PASSWORD), "{log}");
    assert_eq!(sim.sessions(), 1, "the daemon's session was not ended");
}

#[test]
fn wrong_answers_have_a_reason_and_no_reading() {
    let Some(sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    for (says, state, words) in [
        ("off", "degraded", "not active"),
        ("cc c1", "failed", "(C1h)"),
        ("length 5", "failed", "5 bytes, not 18"),
        ("watts 0", "degraded", "0 W"),
    ] {
        sim.says(says);
        let snapshot = wait(&daemon, says, |snapshot| health(snapshot, "ipmi:bmc").why().contains(words));
        assert_eq!(health(&snapshot, "ipmi:bmc").as_str(), state, "{says}");
        assert_eq!(watts(&snapshot), None, "{says}");
    }
    sim.says("watts 140");
    wait(&daemon, "140 W", |snapshot| watts(snapshot) == Some(140) && health(snapshot, "ipmi:bmc") == &Health::Healthy);
    assert_eq!(line.faults.sessions.load(SeqCst), 1, "a wrong answer is no reason to log in anew");
    daemon.stop();
}

#[test]
fn where_a_bmc_has_no_dcmi_its_sensor_in_watts_is_found_and_read() {
    let Some(sim) = Sim::with_sensor() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    let snapshot = wait(&daemon, "136 W", |snapshot| watts(snapshot) == Some(136));
    let source = snapshot.sources.iter().find(|one| one.source == "ipmi:bmc").unwrap();
    assert!(source.detail.starts_with("sensor Pwr Consumption, in steps of 4 W, of 127.0.0.1:"), "{}", source.detail);
    daemon.stop();
}

#[test]
fn answers_that_are_lost_or_cut_cost_no_session() {
    let Some(sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    for (watt, fault) in [(150, &line.faults.lose), (151, &line.faults.cut)] {
        sim.says(&format!("watts {watt}"));
        fault.store(1, SeqCst);
        let snapshot = wait(&daemon, "the power", |snapshot| watts(snapshot) == Some(watt));
        assert_eq!((health(&snapshot, "ipmi:bmc"), fault.load(SeqCst)), (&Health::Healthy, 0));
    }
    assert_eq!(line.faults.sessions.load(SeqCst), 1);
    daemon.stop();
}

#[test]
fn answers_that_come_twice_cost_no_session() {
    let Some(sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    line.faults.twice.store(true, SeqCst);
    for watt in [160, 161, 162] {
        sim.says(&format!("watts {watt}"));
        wait(&daemon, "the power", |snapshot| watts(snapshot) == Some(watt));
    }
    assert_eq!(line.faults.sessions.load(SeqCst), 1);
    daemon.stop();
}

#[test]
fn a_late_answer_is_never_taken_for_the_next_one() {
    let Some(sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    // Each answer arrives after the next request was sent.
    sim.says("watts 100");
    line.faults.late_ms.store(600, SeqCst);
    let snapshot = wait(
        &daemon,
        "silence",
        |snapshot| matches!(health(snapshot, "ipmi:bmc"), Health::Failed(why) if why.contains("no answer")),
    );
    assert_eq!(watts(&snapshot), None);
    sim.says("watts 200");
    line.faults.late_ms.store(0, SeqCst);
    // Before 200 W comes the mean of 137 W, the last reading, and 200 W. Any mean with 100 W would be below.
    wait(&daemon, "200 W", |snapshot| {
        let watts = watts(snapshot);
        assert!(watts.is_none_or(|watts| watts >= 137), "{watts:?}");
        watts == Some(200)
    });
    daemon.stop();
}

#[test]
fn a_bmc_that_restarts_is_picked_up_again() {
    let Some(mut sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    config(&world, &[("bmc", line.port, "")]);
    let daemon = world.start();
    wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    sim.kill();
    let snapshot = wait(&daemon, "its end", |snapshot| health(snapshot, "ipmi:bmc").as_str() == "failed");
    assert_eq!(watts(&snapshot), None);
    sim.says("watts 99");
    sim.boot();
    wait(&daemon, "99 W", |snapshot| watts(snapshot) == Some(99));
    daemon.stop();
}

#[test]
fn a_log_in_that_fails_says_why_for_each_reason() {
    let Some(sim) = Sim::start() else { return };
    let world = World::new();
    let (wrong, empty) = (world.state.with_extension("wrong"), world.state.with_extension("empty"));
    fs::write(&wrong, "hunter2").unwrap();
    fs::write(&empty, "\n").unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let closed = port(&UdpSocket::bind("127.0.0.1:0").unwrap());
    let garbage = UdpSocket::bind("127.0.0.1:0").unwrap();
    let garbage_port = port(&garbage);
    std::thread::spawn(move || {
        while let Ok((_, peer)) = garbage.recv_from(&mut [0; 2048]) {
            let _ = garbage.send_to(b"HTTP/1.1 400 Bad Request\x1b[2J\r\n", peer);
        }
    });
    let file = |path: &std::path::Path| format!("password_file = \"{}\"", path.display());
    let bmcs = [
        (
            "privilege",
            sim.port,
            "privilege = \"user\"".to_owned(),
            "privilege (D4h): give [[meter.ipmi.lan]] a higher privilege",
        ),
        ("password", sim.port, file(&wrong), "wrong password, or no such user"),
        ("user", sim.port, "username = \"nobody\"".to_owned(), "wrong password, or no such user"),
        ("empty", sim.port, file(&empty), "it is empty"),
        (
            "none",
            sim.port,
            "password_file = \"/nonexistent/password\"".to_owned(),
            "no password for the BMC: /nonexistent/password: No such file",
        ),
        (
            "credential",
            sim.port,
            "credential = \"bmc\" # password_file".to_owned(),
            "no systemd credential \"bmc\": jouled's unit needs LoadCredential=bmc:FILE",
        ),
        ("closed", closed, String::new(), "nothing listens there"),
        ("silent", port(&silent), String::new(), "no answer within 400ms"),
        ("garbage", garbage_port, String::new(), "what answers there is no BMC"),
    ];
    let entries: Vec<_> = bmcs.iter().map(|(name, port, more, _)| (*name, *port, more.as_str())).collect();
    config(&world, &entries);
    let daemon = world.start();
    for (name, _, _, words) in &bmcs {
        let source = format!("ipmi:{name}");
        let snapshot = wait(&daemon, words, |snapshot| health(snapshot, &source).why() != "not yet read");
        let health = health(&snapshot, &source);
        assert!(health.as_str() == "failed" && health.why().contains(words), "{name}: {health:?}");
        assert!(!health.why().contains("hunter2") && !health.why().contains('\u{1b}'), "{health:?}");
    }
    let log = daemon.stop();
    assert!(!log.contains("hunter2") && !log.contains(PASSWORD), "{log}");
    drop(silent);
}

#[test]
fn a_wrong_password_is_tried_once_and_the_right_one_at_once() {
    let Some(sim) = Sim::start() else { return };
    let (world, line) = (World::new(), Line::to(sim.port));
    let file = world.state.with_extension("bmc");
    fs::write(&file, "hunter2").unwrap();
    config(&world, &[("bmc", line.port, &format!("password_file = \"{}\"", file.display()))]);
    let begun = Instant::now();
    let daemon = world.start();
    // On a busy machine an answer may be late first, which is another failure.
    let words = "wrong password, or no such user; tried again ever more rarely";
    let snapshot = wait(&daemon, "a refusal", |snapshot| health(snapshot, "ipmi:bmc").why().contains(words));
    assert_eq!(health(&snapshot, "ipmi:bmc").as_str(), "failed");
    let tried = line.faults.sessions.load(SeqCst);
    // Two more periods have passed, without a log-in at the BMC.
    std::thread::sleep(Duration::from_secs(16));
    if begun.elapsed() < Duration::from_secs(55) {
        assert_eq!(line.faults.sessions.load(SeqCst), tried);
    }
    fs::write(&file, PASSWORD).unwrap();
    wait(&daemon, "137 W", |snapshot| watts(snapshot) == Some(137));
    let log = daemon.stop();
    let refusals = log.lines().filter(|line| line.contains("ipmi:bmc: failed") && line.contains(words));
    assert_eq!(refusals.count(), 1, "{log}");
    assert!(log.contains(&format!("{}: everybody on this machine may read this password", file.display())), "{log}");
}

#[test]
fn nonsense_at_log_in_is_a_failure_and_takes_nothing_else_with_it() {
    let world = World::new();
    let bmc = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = bmc.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((_, peer)) = bmc.recv_from(&mut [0; 2048]) {
            // An RMCP pong with a length of 16 bytes and no data: ipmi-rs 0.6 reads beyond its end, and panics.
            let _ = bmc.send_to(&[6, 0, 0xFF, 6, 0, 0, 0x11, 0xBE, 0x40, 0xC8, 0, 0x10], peer);
        }
    });
    config(&world, &[("bmc", port, "")]);
    let daemon = world.start();
    let snapshot = wait(&daemon, "a failure", |snapshot| health(snapshot, "ipmi:bmc").as_str() == "failed");
    assert!(health(&snapshot, "ipmi:bmc").why().contains("nonsense"), "{:?}", health(&snapshot, "ipmi:bmc"));
    daemon.snapshot();
    // Not `stop`, which fails on the panic in the log.
    daemon.kill();
}

#[test]
fn the_bmc_of_the_booted_vm_speaks_its_protocol() {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/integration/vm/bmc.py");
    match std::process::Command::new("python3").args([program, "--self-test"]).output() {
        Ok(output) => assert_eq!(said(output), "ok\n"),
        Err(error) => println!("skipped: no python3: {error}"),
    }
}

#[test]
fn no_bmc_is_unsupported_and_a_configured_device_that_is_missing_is_a_failure() {
    let world = World::new();
    let daemon = world.start();
    let snapshot = daemon.snapshot();
    assert!(
        matches!(health(&snapshot, "ipmi"), Health::Unsupported(why) if why.contains("--sysfs")),
        "{:?}",
        health(&snapshot, "ipmi")
    );
    daemon.stop();
    world.config("[meter.ipmi]\ndevice = \"/nonexistent/ipmi0\"\n");
    let daemon = world.start();
    wait(
        &daemon,
        "that it is missed",
        |snapshot| matches!(health(snapshot, "ipmi"), Health::Failed(why) if why.contains("/nonexistent/ipmi0")),
    );
    daemon.stop();
}
