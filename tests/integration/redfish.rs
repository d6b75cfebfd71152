//! Redfish: the built daemon with a BMC that is an HTTPS server on this machine. Needs no root. Each fault of a BMC is
//! in the unit tests of meter/bmc/redfish.

use crate::common::redfish_sim::{Fault, PASSWORD, Sim, USER};
use crate::common::redfish_trees::{self as trees, UUID};
use crate::common::{World, bare_jouled, get, joulectl, output, refused, said};
use jouled::model::domain::Zone;
use jouled::model::snapshot::{DomainView, Snapshot};
use jouled::model::source::Health;
use std::time::{Duration, Instant};

const POWER: &str = "/redfish/v1/Chassis/1U/Sensors/TotalPower";

/// A host with a BMC: its UUID, and a configuration that names the BMC.
fn world(sim: &Sim, more: &str) -> World {
    let world = World::new();
    world.host.write_sys("class/dmi/id/product_uuid", format!("{UUID}\n"));
    let (password, ca) = (world.state.with_file_name("bmc.password"), world.state.with_file_name("ca.pem"));
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    std::fs::write(&ca, &sim.ca).unwrap();
    world.config(&format!(
        "[[meter.redfish.bmc]]\nurl = {:?}\nusername = {USER:?}\npassword_file = {password:?}\nca_file = {ca:?}\nperiod = \"5s\"\n{more}",
        sim.url()
    ));
    world
}

fn platform(snapshot: &Snapshot) -> Option<&DomainView> {
    snapshot.domains.iter().find(|view| view.domain.zone == Zone::Platform)
}

fn redfish(snapshot: &Snapshot) -> &Health {
    &snapshot.sources.iter().find(|source| source.source == "redfish").unwrap().health
}

#[test]
fn a_bmc_is_found_integrated_shown_asked_once_a_period_and_left_without_a_session() {
    let sim = Sim::start(trees::modern());
    let world = world(&sim, "");
    let mut command = world.jouled();
    let daemon = crate::common::Daemon::start(command.args(["--log-level", "trace"]), &world.state);
    let mut ticks = daemon.ticks();
    let begun = Instant::now();
    let first = ticks.find("a reading", |snapshot| platform(snapshot).is_some_and(|view| view.read_at.is_some()));
    let view = platform(&first).unwrap();
    assert_eq!(
        (view.domain.id.as_str(), view.domain.path.as_str()),
        ("redfish/127.0.0.1/1U/platform", &*format!("{POWER}#/Reading"))
    );
    assert_eq!((view.domain.source.as_str(), view.domain.billed), ("redfish", false));
    assert_eq!(redfish(&first), &Health::Healthy);
    // The number of scrapes does not matter to the BMC.
    for _ in 0..10 {
        get(daemon.address, "/metrics", &[]);
    }
    let energy = |view: &DomainView| view.energy.total;
    let second =
        ticks.find("energy", |snapshot| platform(snapshot).is_some_and(|view| view.energy.total.joules() > 0.0));
    let (from, to) = (platform(&first).unwrap(), platform(&second).unwrap());
    let time = to.read_at.unwrap() - from.read_at.unwrap();
    assert!((energy(to) - energy(from)).over(time).0.abs_diff(374_000_000) < 100, "{:?} in {time:?}", energy(to));
    let most = 1 + begun.elapsed().as_secs() as usize / 5;
    let seen = sim.seen();
    // The first sensor is read twice: to find out what it measures, and for its value.
    assert!(seen.count(&format!("GET {POWER}")) <= most + 1, "{seen:?}");
    assert_eq!((seen.logins, seen.connections, seen.at_once, sim.sessions()), (1, 1, 1, 1));

    let status = said(joulectl(&world.state, &["status"]));
    assert!(status.contains("redfish") && status.contains("its UUID is this machine's"), "{status}");
    let page = daemon.page();
    drop(page);
    let log = daemon.stop();
    for secret in [PASSWORD, "token-", "U3cwcmRm"] {
        assert!(!log.contains(secret) && !status.contains(secret), "{secret} is shown:\n{log}");
    }
    let seen = sim.seen();
    assert_eq!((sim.sessions(), seen.logouts), (0, 1), "it has logged out: {:?}", seen.requests);
}

#[test]
fn a_bmc_that_hangs_delays_no_tick_and_no_stop_and_gets_its_session_back() {
    let sim = Sim::start(trees::modern());
    let world = world(&sim, "timeout = \"8s\"");
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("a reading", |snapshot| platform(snapshot).is_some_and(|view| view.read_at.is_some()));
    sim.fail("GET", usize::MAX, Fault::Hang);
    let before = sim.seen().requests.len();
    crate::common::until("a request that hangs", || (sim.seen().requests.len() > before).then_some(()));
    let (start, first) = (Instant::now(), ticks.next().ticks);
    while ticks.next().ticks < first + 10 {}
    assert!(start.elapsed() < Duration::from_secs(6), "ten ticks of 100 ms took {:?}", start.elapsed());
    // The end takes less than the limit that `stop` checks.
    daemon.stop();
    assert_eq!((sim.sessions(), sim.seen().logins), (0, 1));
}

#[test]
fn a_bmc_that_restarts_is_picked_up_and_its_fault_is_one_line_in_the_log() {
    let sim = Sim::start(trees::modern());
    let world = world(&sim, "");
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("a reading", |snapshot| platform(snapshot).is_some_and(|view| view.read_at.is_some()));
    sim.fail("", 2, Fault::RetryAfter(503, "1"));
    sim.expire_sessions();
    let busy = ticks
        .find("that it is busy", |snapshot| matches!(redfish(snapshot), Health::Degraded(why) if why.contains("503")));
    assert!(platform(&busy).unwrap().power.is_none());
    ticks.find("that it is back", |snapshot| redfish(snapshot) == &Health::Healthy);
    ticks.find("a power", |snapshot| platform(snapshot).is_some_and(|view| view.power.is_some()));
    assert_eq!(sim.sessions(), 1);
    let log = daemon.stop();
    assert_eq!(log.lines().filter(|line| line.contains("redfish: degraded")).count(), 1, "{log}");
}

#[test]
fn a_wrong_password_is_shown_in_status_and_metrics_and_affects_nothing_else() {
    let sim = Sim::start(trees::modern());
    sim.password("another");
    let world = world(&sim, "name = \"rack-3\"");
    let daemon = world.start();
    daemon.log.wait_for("redfish:rack-3: failed: 127.0.0.1:");
    let snapshot = daemon.snapshot();
    let source = snapshot.sources.iter().find(|source| source.source == "redfish:rack-3").unwrap();
    assert!(matches!(&source.health, Health::Failed(why) if why.contains("wrong user or password")), "{source:?}");
    assert!(platform(&snapshot).is_none() && snapshot.domains.len() == 4, "RAPL is read all the same");
    let page = get(daemon.address, "/metrics", &[]).body;
    assert!(page.contains("redfish:rack-3") && !page.contains(PASSWORD), "{page}");
    daemon.stop();
    assert_eq!(sim.seen().refused, 1);
}

#[test]
fn check_config_asks_no_bmc_and_shows_no_secret() {
    let sim = Sim::start(trees::modern());
    let world = world(&sim, "");
    let path = world.state.with_extension("toml");
    let check = || {
        let mut command = bare_jouled();
        command.arg("--check-config").arg("--config").arg(&path);
        command
    };
    assert_eq!(said(output(&mut check())), "the configuration is valid\n");
    assert_eq!(sim.seen().connections, 0);
    for (text, words) in [
        (format!("[[meter.redfish.bmc]]\npassword = {PASSWORD:?}"), "password: there is no such key"),
        (
            format!("[[meter.redfish.bmc]]\nurl = \"https://root:{PASSWORD}@bmc\""),
            "meter.redfish.bmc.0.url: a user or password in it",
        ),
        ("[[meter.redfish.bmc]]\nsha256 = \"12\"".into(), "sha256: not the SHA-256 of a certificate"),
        ("[[meter.redfish.bmc]]\ntls = \"off\"".into(), "tls: \"off\" is not one of verify, insecure, none"),
    ] {
        std::fs::write(&path, text).unwrap();
        let message = refused(&mut check());
        assert!(
            message.contains(words) && message.contains(path.to_str().unwrap()) && !message.contains(PASSWORD),
            "{message}"
        );
    }
}

#[test]
fn a_password_may_be_a_systemd_credential() {
    let sim = Sim::start(trees::dell());
    let world = world(&sim, "");
    let file = world.state.with_extension("toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let credential: String = text
        .lines()
        .map(|line| {
            if line.starts_with("password_file") {
                "credential = \"bmc.password\"\n".into()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    std::fs::write(&file, credential).unwrap();
    let mut command = world.jouled();
    command.env("CREDENTIALS_DIRECTORY", world.state.parent().unwrap());
    let daemon = crate::common::Daemon::start(&mut command, &world.state);
    daemon.ticks().find("a reading", |snapshot| platform(snapshot).is_some_and(|view| view.read_at.is_some()));
    daemon.stop();
    assert_eq!((sim.seen().logins, sim.sessions()), (1, 0));
}
