//! Files and lines of earlier releases, read by this one: ledgers, journals, recordings, snapshots of the control
//! socket, inventory lines, lines of the guest protocol. Everything that jouled keeps on disk or sends to another
//! process.
//!
//! **Files of older releases: never edit; add a folder at each release.** `fixtures/VERSION/README.md` says what made
//! each file and how the next release makes its own. A change that makes one of these tests fail breaks an upgrade:
//! change the reader, not the file.

use crate::common::{World, bare_jouled, output, said};
use jouled::attribution::{Core, CoreConfig, State};
use jouled::meter::host_channel::Object;
use jouled::model::billing::IdlePolicy;
use jouled::model::domain::Zone;
use jouled::model::entity::{Kind, Limits};
use jouled::model::snapshot::{CpuInfo, Energy, Host, Snapshot};
use jouled::model::source::{Health, Stamp};
use jouled::model::tick::Tick;
use jouled::model::units::{Microjoules, Microwatts, Nanos};
use jouled::run::record;
use jouled::run::store::{Store, StoreError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The folders of releases, and of what will be the next one.
const RELEASES: [&str; 2] = ["0.1.0", "unreleased"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/integration/fixtures").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(fixture(name)).unwrap()
}

/// All energies of a snapshot, by domain, kind and series, one a line: what the release itself computed is kept in this
/// form.
fn digest(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let zones = |out: &mut String, head: &str, energy: &Energy| {
        for zone in Zone::ALL {
            let (dynamic, idle) = (energy.dynamic[zone.index()].0, energy.idle[zone.index()].0);
            if (dynamic, idle) != (0, 0) {
                writeln!(out, "{head} {} {dynamic} {idle}", zone.as_str()).unwrap();
            }
        }
    };
    let domain = |view: &jouled::model::snapshot::DomainView| {
        let (domain, energy) = (&view.domain, &view.energy);
        format!(
            "domain {} {} {} {} total {} idle {} active {} unattributed {} gaps {} {}",
            domain.id,
            domain.source,
            domain.zone.as_str(),
            view.role.as_str(),
            energy.total.0,
            energy.idle.0,
            energy.active.0,
            energy.unattributed.0,
            view.gaps,
            view.gap_time.0
        )
    };
    let floor = |view: &jouled::model::snapshot::DomainView| {
        let floor = view.floor?;
        let (power, uncertainty) = (floor.power.0, floor.uncertainty.0);
        Some(format!("floor {} {power} {uncertainty} {}", view.domain.id, floor.from.as_str()))
    };
    let views = || snapshot.domains.iter();
    for mut lines in [views().map(domain).collect::<Vec<_>>(), views().filter_map(floor).collect::<Vec<_>>()] {
        lines.sort();
        lines.iter().for_each(|line| writeln!(out, "{line}").unwrap());
    }
    for view in &snapshot.kinds {
        let kind = view.kind.as_str();
        zones(&mut out, &format!("{kind} rest"), &view.rest);
        zones(&mut out, &format!("{kind} ended"), &view.ended);
        zones(&mut out, &format!("{kind} parked"), &view.parked);
        for row in &view.rows {
            let head = format!("{kind} [{}] {}", row.labels.values().join("|"), row.state.as_str());
            let used = &row.used;
            writeln!(
                out,
                "{head} used {} {} {} {} since {}",
                used.on_cpu.0, used.cycles, used.instructions, used.cache_misses, row.since.0
            )
            .unwrap();
            zones(&mut out, &head, &row.energy);
        }
    }
    out
}

fn assert_same(found: &str, expected: &str, what: &str) {
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(differs.is_none(), "{what}: {differs:#?}");
    assert_eq!(found.lines().count(), expected.lines().count(), "{what}");
}

/// The energy of each domain that has a meter. Without idle floors and the remainder, and without what depends on them
/// (shares, and which series are shown): a later release may know better.
fn measured(digest: &str) -> String {
    let total = |line: &str| {
        let (total, rest) = line.split_once(" idle ")?;
        let metered = line.starts_with("domain ") && !line.starts_with("domain other ");
        metered.then(|| format!("{total}{}\n", &rest[rest.find(" gaps ").unwrap()..]))
    };
    digest.lines().filter_map(total).collect()
}

#[test]
fn recordings_replay_to_what_the_release_that_made_them_measured() {
    for release in RELEASES {
        let files = fs::read_dir(fixture(release)).unwrap().map(|entry| entry.unwrap().path());
        let recordings: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|end| end == "recording")).collect();
        assert!(recordings.len() > 2, "{recordings:?}");
        for path in recordings {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let mut last = None;
            let ticks = record::replay(&path, |snapshot| last = Some(snapshot.clone())).unwrap();
            assert!(ticks >= 10, "{}: {ticks} ticks", path.display());
            let replayed = digest(&last.unwrap());
            let expected = text(&format!("{release}/{name}.replayed.txt"));
            assert_same(&measured(&replayed), &measured(&expected), &path.display().to_string());
            if name == "real" {
                // The program says the same.
                let printed = said(output(bare_jouled().arg("--replay").arg(&path)));
                let snapshot: Snapshot = serde_json::from_str(&printed).unwrap();
                assert_same(&digest(&snapshot), &replayed, "jouled --replay");
            }
        }
    }
}

/// Folders of a store that hold copies of these files of a release.
fn store(release: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, State, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in files {
        let to = dir.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fixture(&format!("{release}/{from}")), to).unwrap();
    }
    let (state, notes) = open(dir.path());
    (dir, state, notes)
}

fn open(dir: &Path) -> (State, Vec<String>) {
    let mut notes = Vec::new();
    let (_, state) = open_store(dir, "some machine", &mut notes);
    (state, notes)
}

/// Opens the store. A program that another test starts at this moment holds copies of the locks until it executes.
fn open_store(dir: &Path, machine: &str, notes: &mut Vec<String>) -> (Store, State) {
    for _ in 0..100 {
        match Store::open(&dir.join("run"), &dir.join("state"), machine, notes) {
            Err(StoreError::Busy(_)) => thread::sleep(Duration::from_millis(20)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the locks in {} are not released", dir.display())
}

/// The configuration that the made-up state was made with.
fn config(idle: IdlePolicy) -> CoreConfig {
    let cpu = |processor: u32| CpuInfo {
        processor,
        vendor_id: "GenuineIntel".into(),
        model_name: "Made Up".into(),
        physical_id: processor / 2,
        core_id: processor % 2,
    };
    let mut shown = [4; Kind::ALL.len()];
    (shown[Kind::Slice.index()], shown[Kind::User.index()]) = (6, 1);
    CoreConfig {
        host: Host { cpus: (0..4).map(cpu).collect(), interval: Nanos::SECOND, idle, ..Host::default() },
        limits: Limits { shown, retention: Nanos(5 * Nanos::SECOND.0), least: Microjoules(0), name_wait: Nanos(0) },
        idle,
        floors: BTreeMap::from([("rapl/package-1".to_owned(), Microwatts(28_000_000))]),
        prior_ratio: 0.1 + 0.2,
        platform: Default::default(),
        learn: false,
        weights: Default::default(),
        tenants: Vec::new(),
    }
}

/// What a run that goes on from a state shows before its first tick, and the idle floors when all domains are there
/// again.
fn goes_on(idle: IdlePolicy, state: &State) -> String {
    let now = Nanos(2000 * Nanos::SECOND.0);
    let before = digest(&Core::new(config(idle), state.clone(), false, now).blank());
    let at = Stamp { monotonic: now, boottime: now, realtime: now };
    let domains = state.domains.iter().map(|record| record.domain.clone());
    let new_domains = domains.filter(|domain| domain.zone != Zone::Other).collect();
    let mut core = Core::new(config(idle), state.clone(), false, now);
    let after = digest(&core.step(&Tick { at, new_domains, ..Tick::default() }));
    let floors: String =
        after.lines().filter(|line| line.starts_with("floor ")).fold(String::new(), |all, line| all + line + "\n");
    before + &floors
}

#[test]
fn totals_are_taken_over_exactly() {
    for release in RELEASES {
        let both = [("all-kinds/ledger", "state/ledger"), ("all-kinds/ledger.journal", "run/ledger.journal")];
        for (idle, files, expected) in [
            (IdlePolicy::ByUse, &both[..1], "all-kinds/ledger.txt"),
            // The journal is newer: a whole state, and changes with series that ended.
            (IdlePolicy::ByUse, &both[..], "all-kinds/journal.txt"),
            (IdlePolicy::ByUse, &both[1..], "all-kinds/journal.txt"),
            (IdlePolicy::ByAllocation, &[("by-allocation/ledger", "state/ledger")][..], "by-allocation/ledger.txt"),
        ] {
            let (dir, state, notes) = store(release, files);
            assert!(notes.is_empty(), "{release}: {notes:?}");
            let expected = text(&format!("{release}/{expected}"));
            let total =
                |text: &str| text.lines().filter(|line| !line.starts_with("floor ")).collect::<Vec<_>>().join("\n");
            let taken_over = goes_on(idle, &state);
            assert_same(&total(&taken_over), &total(&expected), release);

            // Written by this version, they are the same once more; the core itself has them, too.
            let mut notes = Vec::new();
            let (mut store, _) = open_store(dir.path(), "some machine", &mut notes);
            let core = Core::new(config(idle), state.clone(), false, Nanos(1));
            store.append((vec![], vec![], Default::default()), || core.state(&state.boot_id)).unwrap();
            store.checkpoint(core.state(&state.boot_id)).unwrap();
            drop(store);
            let (again, notes) = open(dir.path());
            assert!(notes.is_empty(), "{release}: {notes:?}");
            assert_same(&goes_on(idle, &again), &taken_over, release);
            for file in ["state/ledger", "run/ledger.journal"] {
                let text = fs::read_to_string(dir.path().join(file)).unwrap();
                assert!(text.starts_with("jouled ledger 3\n") && !text.contains("\"carried\""), "{file}");
            }
        }
    }
}

#[test]
fn a_ledger_that_was_cut_is_read_up_to_there() {
    for release in RELEASES {
        let whole = fs::read(fixture(&format!("{release}/all-kinds/ledger.journal"))).unwrap();
        let (_dir, state, _) = store(release, &[("all-kinds/ledger.journal", "run/ledger.journal")]);
        // In the last change, and in the whole state.
        for (cut, kept) in [(whole.len() - 5, true), (1000, false)] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("run")).unwrap();
            fs::write(dir.path().join("run/ledger.journal"), &whole[..cut]).unwrap();
            let (read, notes) = open(dir.path());
            assert_eq!(read.domains.len(), if kept { state.domains.len() } else { 0 }, "{release}");
            let word = if kept { "cut short or damaged" } else { "set aside as" };
            assert!(notes.len() == 1 && notes[0].contains(word), "{release}: {notes:?}");
            assert!(!kept || read.entries.len() < state.entries.len());
        }
    }
}

/// Series with fewer and with more labels than their kind has, as no jouled writes them.
#[test]
fn odd_numbers_of_labels_are_kept_and_said() {
    let (dir, state, notes) = store("0.1.0", &[("odd-labels/ledger", "state/ledger")]);
    assert!(notes.len() == 1 && notes[0].contains("label \"label-3\""), "{notes:?}");
    let core = Core::new(config(IdlePolicy::Apart), state.clone(), false, Nanos(1));
    let package = |kind: Kind| {
        let rows = &core.blank().kinds[kind.index()].rows.clone();
        rows.iter().map(|row| row.energy.dynamic[Zone::Package.index()].0 / 1_000_000).collect::<Vec<_>>()
    };
    assert_eq!((package(Kind::Unit), package(Kind::Process)), (vec![2, 1], vec![8]));
    let mut notes = Vec::new();
    let (mut store, _) = open_store(dir.path(), "", &mut notes);
    store.checkpoint(core.state("")).unwrap();
    assert!(fs::read_to_string(dir.path().join("state/ledger")).unwrap().contains("many.service"), "it is carried");
}

#[test]
fn a_snapshot_of_the_control_socket_is_read() {
    for release in RELEASES {
        for name in ["all-kinds", "real"] {
            let snapshot: Snapshot = serde_json::from_str(&text(&format!("{release}/{name}.snapshot.json"))).unwrap();
            assert_same(
                &digest(&snapshot),
                &text(&format!("{release}/{name}.replayed.txt")),
                &format!("{release}/{name}"),
            );
        }
    }
}

/// Answers with a snapshot as long as the test runs.
fn serve(socket: &Path, snapshot: String) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for peer in listener.incoming() {
            let mut peer = peer.unwrap();
            let _ = peer.read(&mut [0; 4096]);
            let _ = write!(peer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{snapshot}", snapshot.len());
        }
    });
}

/// joulectl of now, asking a jouled of then: everything that joulectl of then said is said, with the same numbers.
#[test]
fn joulectl_understands_a_jouled_of_an_earlier_release() {
    for release in RELEASES {
        let dir = tempfile::tempdir().unwrap();
        for (name, commands) in [("all-kinds", &["status", "meters"][..]), ("real", &["real-status"])] {
            let socket = dir.path().join(name);
            serve(&socket, text(&format!("{release}/{name}.snapshot.json")));
            // VMs have a form of their own, and release 0.1.0 knew no jobs and no tenants.
            let is_other = |kind: &Kind| !matches!(kind, Kind::Vm | Kind::Job | Kind::JobStep | Kind::Tenant);
            let kinds = Kind::ALL.into_iter().filter(|kind| name == "all-kinds" && is_other(kind));
            let lists = kinds.map(|kind| format!("list-{}", kind.as_str()));
            for command in commands.iter().map(|command| (*command).to_owned()).chain(lists) {
                let expected: Value = serde_json::from_str(&text(&format!("0.1.0/joulectl/{command}.json"))).unwrap();
                let mut joulectl = Command::new(env!("CARGO_BIN_EXE_joulectl"));
                joulectl.env_clear().arg("--socket").arg(&socket);
                match command.strip_prefix("list-") {
                    Some(kind) => joulectl.args(["list", kind]),
                    None => joulectl.arg(command.trim_start_matches("real-")),
                };
                let found: Value = serde_json::from_str(&said(output(joulectl.arg("--json")))).unwrap();
                assert_holds(&found, &expected, &format!("{release}: joulectl {command}"));
            }
        }
    }
}

/// Whether `found` has all that `expected` has. Fields may have been added; what is as old as the answer differs.
fn assert_holds(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (name, expected) in
                expected.iter().filter(|(name, _)| !["age_seconds", "stalled"].contains(&name.as_str()))
            {
                let place = format!("{place}.{name}");
                // Then an estimate's floor was said to be exact; its error is not known.
                if name == "floor_uncertainty_watts" && *expected == 0.0 && found.get(name) == Some(&Value::Null) {
                    continue;
                }
                assert_holds(found.get(name).unwrap_or_else(|| panic!("{place} is missing")), expected, &place);
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{place}");
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_holds(found, expected, &format!("{place}[{at}]"));
            }
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn a_guest_understands_a_host_of_an_earlier_release() {
    let lines = text("0.1.0/guest-lines.json");
    let objects: Vec<Object> = lines.lines().map(|line| Object::parse(line.as_bytes()).unwrap()).collect();
    assert_eq!(
        objects.iter().map(|object| object.epoch).collect::<Vec<_>>(),
        [1_700_000_100, 1_700_000_101, 1_700_000_102]
    );
    let package = |object: &Object| {
        let zone = object.zones.iter().find(|zone| zone.zone == Zone::Package).unwrap();
        (zone.energy.0, zone.billed, zone.window.0)
    };
    assert_eq!(
        objects.iter().map(package).collect::<Vec<_>>(),
        [(1_234_000, true, 0), (8_888_000, true, 1_000_000_000), (8_888_000, true, 1_000_000_000)]
    );
    let all = objects[0].zones.iter().map(|zone| zone.zone).collect::<Vec<_>>();
    assert_eq!((all, objects[0].vm.as_str()), (vec![Zone::Package, Zone::Core, Zone::Dram], "vm1"));
}

#[test]
fn helpers_of_earlier_releases_are_understood() {
    understood("libvirt", "0.1.0/inventory-lines.json");
    understood("containers", "unreleased/inventory-lines-containers.json");
}

fn understood(source: &str, lines: &str) {
    let world = World::new();
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let health = |snapshot: &Snapshot| {
        snapshot.sources.iter().find(|view| view.source == source).map(|view| view.health.clone())
    };
    let mut stream = UnixStream::connect(daemon.state.join("inventory.sock")).unwrap();
    stream.write_all(text(lines).as_bytes()).unwrap();
    ticks.find("the lines are taken", |snapshot| health(snapshot) == Some(Health::Healthy));
    // One that is refused is told why, and closed.
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let refused = stream.read(&mut [0; 100]);
    assert!(refused.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{refused:?}");
    daemon.stop();
}
