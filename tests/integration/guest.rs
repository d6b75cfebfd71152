//! The built daemon with a guest channel, on a host without VMs: what it logs, shows and leaves alone. Made-up guests
//! are in the unit tests, and real ones in tests/integration/vm.

use crate::common::known::{NO_FLOOR, inhabit, known_run};
use crate::common::world::ZONES;
use crate::common::{World, joulectl, said, until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

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
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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

/// Epoch, power in mW and period in ms in the page of a VM.
fn page(path: &Path) -> [u32; 3] {
    let bytes = fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    [word(20), word(12), word(16)]
}

#[test]
fn a_guest_without_an_agent_has_a_page_with_its_power() {
    const UNKNOWN: u32 = u32::MAX;
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    inhabit(&world);
    let me = rustix::process::geteuid().as_raw();
    world.host.write_proc("104/status", format!("Name:\tqemu\nUid:\t{me}\t{me}\t{me}\t{me}\n"));
    let (folder, web, db) =
        (dir.path().join("pages"), dir.path().join("pages/web.page"), dir.path().join("pages/db.page"));
    let acpi = format!("[export.guest]\nprofile = \"trusted\"\n[export.guest.acpi]\nfolder = {folder:?}\n");
    world.config(&format!("{NO_FLOOR}{acpi}vms = {{ web = \"{me}\", db = \"{me}\" }}\n"));
    let daemon = world.start();
    assert_eq!((page(&web)[1..].to_vec(), page(&db)[1]), (vec![UNKNOWN, 1000], UNKNOWN));
    let measured = || {
        until("a power in the page", || {
            world.run(104, 3);
            // A meter that stands still beside busy CPUs is not believed, and then nothing is known.
            ZONES.iter().for_each(|(zone, _)| world.draw(zone, 1_000_000));
            (1..UNKNOWN).contains(&page(&web)[1]).then_some(())
        });
    };
    measured();
    assert_eq!(page(&db)[1], UNKNOWN, "another VM has none of it");
    let all = said(joulectl(&daemon.state, &["guest", "acpi"]));
    assert!(all.lines().any(|line| line.starts_with("web ") && line.ends_with(" W")), "{all}");
    assert!(all.lines().any(|line| line.starts_with("db ") && line.ends_with("its VM does not run")), "{all}");
    let how = said(joulectl(&daemon.state, &["guest", "acpi", "web"]));
    assert!(how.contains(&format!("mem-path={},", web.display())) && how.contains("readonly=on"), "{how}");
    let unknown = joulectl(&daemon.state, &["guest", "acpi", "mail"]);
    let why = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        unknown.status.code() == Some(2) && why.contains("db, web") && why.contains("[export.guest.acpi]"),
        "{why}"
    );
    // What is left by a kill is not believed at the next start, and the page stays the same file.
    let file = fs::File::open(&web).unwrap();
    daemon.kill();
    assert_ne!(page(&web)[1], UNKNOWN);
    let daemon = world.start();
    assert_eq!(page(&web)[1], UNKNOWN);
    measured();
    assert!(file.metadata().unwrap().ino() == fs::metadata(&web).unwrap().ino());
    daemon.stop();
    assert_eq!((page(&web)[1], page(&db)[1]), (UNKNOWN, UNKNOWN), "after the stop");
}

#[test]
fn a_folder_of_pages_that_cannot_be_used_is_named() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("pages"), "a file").unwrap();
    let folder = dir.path().join("pages");
    world.config(&format!("[export.guest.acpi]\nfolder = {folder:?}\nvms = {{ web = \"0\" }}\n"));
    let ended = crate::common::output(&mut world.jouled());
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("export.guest.acpi.folder"), "{said}");
    assert!(said.contains(folder.to_str().unwrap()), "{said}");
}
