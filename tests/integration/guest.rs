//! The built daemon with a guest channel, on a host without VMs: what it logs, shows and leaves alone. Made-up guests
//! are in the unit tests, and real ones in tests/integration/vm.

use crate::common::known::{inhabit, known_run};
use crate::common::{World, joulectl, said};
use std::os::unix::net::UnixListener;

#[test]
fn a_channel_without_vms_serves_no_guest_and_makes_no_file() {
    let world = World::new();
    inhabit(&world);
    let (dir, missing) = (tempfile::tempdir().unwrap(), world.state.with_extension("missing"));
    // A socket of a program that is no VM.
    let _other = UnixListener::bind(dir.path().join("other.sock")).unwrap();
    world.config(&format!("[export.guest]\nhybrid = [{:?}, {missing:?}]\nserial = [{:?}]\n", dir.path(), dir.path()));
    let daemon = world.start();
    let line = daemon.log.wait_for("cannot be looked into");
    assert!(line.contains(missing.to_str().unwrap()) && line.contains("No such file"), "{line}");
    daemon.ticks().next();
    let page = daemon.page();
    let value = |name: &str| page.samples.iter().find(|((own, _), _)| own == name).map(|(_, value)| value.clone());
    assert_eq!(value("jouled_guest_connections").as_deref(), Some("0"));
    assert_eq!(value("jouled_guest_requests_total").as_deref(), Some("0"));
    assert_eq!(value("jouled_guest_refused_total").as_deref(), Some("0"));
    let log = daemon.stop();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(log.matches("cannot be looked into").count(), 1, "once: {log}");
}

#[test]
fn without_a_channel_nothing_of_it_is_shown() {
    let (_world, daemon, _) = known_run();
    assert!(!daemon.page().samples.iter().any(|((name, _), _)| name.starts_with("jouled_guest")));
    let table = said(joulectl(&daemon.state, &["list", "vm"]));
    assert!(table.lines().next().unwrap().ends_with("CHANNEL"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("web") && line.ends_with(" -")), "{table}");
    let items: serde_json::Value =
        serde_json::from_str(&said(joulectl(&daemon.state, &["list", "vm", "--json"]))).unwrap();
    assert!(items[0].get("channel").is_none() && items[0]["watts"].is_number(), "{items}");
    assert!(!daemon.stop().contains("guest channel"));
}
