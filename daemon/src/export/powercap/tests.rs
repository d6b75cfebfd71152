//! The mirror on made-up snapshots: what is in the tree, and what is left alone.

use super::*;
use crate::export::prometheus::tests;
use crate::model::units::Microjoules;
use std::os::unix::fs::symlink;

fn options(path: &Path) -> PowercapOptions {
    PowercapOptions { path: Some(path.to_owned()), ..PowercapOptions::default() }
}

fn zones(root: &Path) -> PathBuf {
    root.join("class/powercap")
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sysfs");
    (dir, path)
}

/// Two packages and their memory, measured.
fn snapshot() -> Snapshot {
    let mut snapshot = tests::snapshot();
    snapshot.domains.retain(|view| matches!(view.domain.zone, Zone::Package | Zone::Dram));
    snapshot
}

fn total(snapshot: &Snapshot, zone: Zone) -> u64 {
    snapshot.domains.iter().filter(|view| view.domain.zone == zone).map(|view| view.energy.total.0).sum()
}

/// Takes a snapshot, and writes when all of its energy is handed out.
fn show(mirror: &mut Mirror, snapshot: &Snapshot) {
    let at = Nanos(snapshot.ticks * 1_000 * Nanos::SECOND.0);
    mirror.take(snapshot, at);
    mirror.write(at + Nanos(999 * Nanos::SECOND.0)).unwrap();
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(zones(root).join(file)).unwrap()
}

#[test]
fn the_tree_is_the_kernels() {
    let (_dir, path) = place();
    let mut mirror = Mirror::open(&path, &options(&path)).unwrap();
    let mut snapshot = snapshot();
    show(&mut mirror, &snapshot);
    assert_eq!(read(&path, "intel-rapl:0/name"), "package-0\n");
    assert_eq!(read(&path, "intel-rapl:0/energy_uj"), format!("{}\n", total(&snapshot, Zone::Package)));
    assert_eq!(read(&path, "intel-rapl:0/max_energy_range_uj"), format!("{RANGE}\n"));
    assert_eq!(read(&path, "intel-rapl:0/enabled"), "1\n");
    assert_eq!(read(&path, "intel-rapl:0:2/name"), "dram\n");
    assert_eq!(read(&path, "intel-rapl:0:2/energy_uj"), format!("{}\n", total(&snapshot, Zone::Dram)));
    assert!(!zones(&path).join("intel-rapl:0:1").exists(), "no uncore here");
    let mode = |file: &str| zones(&path).join(file).metadata().unwrap().mode() & 0o777;
    assert_eq!(
        (mode("intel-rapl:0/energy_uj"), mode("intel-rapl:0/name"), mode("intel-rapl:0")),
        (0o400, 0o444, 0o755)
    );

    // Only what changed is written.
    let inode = |file: &str| zones(&path).join(file).metadata().unwrap().ino();
    let before = (inode("intel-rapl:0/energy_uj"), inode("intel-rapl:0:2/energy_uj"));
    snapshot.domains[0].energy.total += Microjoules(5);
    snapshot.ticks += 1;
    show(&mut mirror, &snapshot);
    assert_eq!(read(&path, "intel-rapl:0/energy_uj"), format!("{}\n", total(&snapshot, Zone::Package)));
    assert_ne!(inode("intel-rapl:0/energy_uj"), before.0);
    assert_eq!(inode("intel-rapl:0:2/energy_uj"), before.1);
    assert_eq!(mode("intel-rapl:0/energy_uj"), 0o400);
    drop(mirror);
    assert!(!path.exists());
}

#[test]
fn what_is_not_measured_now_is_missing() {
    let (_dir, path) = place();
    let mut options = options(&path);
    options.mode = crate::model::values::Mode(0o444);
    let mut mirror = Mirror::open(&path, &options).unwrap();
    let mut snapshot = snapshot();
    show(&mut mirror, &snapshot);
    let zone = zones(&path).join("intel-rapl:0");
    assert_eq!(zone.join("energy_uj").metadata().unwrap().mode() & 0o777, 0o444);

    // Another meter stands in, and estimates.
    let measured = total(&snapshot, Zone::Package);
    snapshot.domains.iter_mut().for_each(|view| view.past = true);
    let mut estimate = snapshot.domains[0].clone();
    Arc::make_mut(&mut estimate.domain).quality = Quality::Estimated;
    (estimate.past, estimate.energy.total) = (false, Microjoules(7));
    snapshot.domains.push(estimate);
    show(&mut mirror, &snapshot);
    assert!(!zone.exists());
    let all = domains(&snapshot, Zone::Package, true);
    let all: Microjoules = all.iter().map(|view| view.energy.total).sum();
    assert_eq!(all, Microjoules(measured + 7), "unless it is wanted");

    // It measures again: what was measured before is in it, what was estimated is not.
    snapshot.domains.iter_mut().for_each(|view| view.past = view.domain.quality == Quality::Estimated);
    show(&mut mirror, &snapshot);
    assert_eq!(read(&path, "intel-rapl:0/energy_uj"), format!("{measured}\n"));

    // The source fails.
    let source = snapshot.domains[0].domain.source.clone();
    let mut failed = snapshot.sources[0].clone();
    (failed.source, failed.role, failed.health) =
        (source.clone(), SourceRole::Meter, Health::Failed("gone".to_owned()));
    snapshot.sources.retain(|state| state.source != source);
    snapshot.sources.push(failed);
    show(&mut mirror, &snapshot);
    assert!(!zone.exists());
}

/// The first package has drawn more, by a reading this much later, in seconds.
fn draw(snapshot: &mut Snapshot, microjoules: u64, seconds: u64) {
    let view = &mut snapshot.domains[0];
    view.energy.total += Microjoules(microjoules);
    view.read_at = view.read_at.map(|at| at + Nanos(seconds * Nanos::SECOND.0));
}

#[test]
fn energy_is_handed_out_evenly_or_at_once() {
    let (_dir, path) = place();
    for smooth in [true, false] {
        let mut mirror = Mirror::open(&path, &PowercapOptions { smooth, ..options(&path) }).unwrap();
        let mut snapshot = snapshot();
        let shown = || read(&path, "intel-rapl:0/energy_uj").trim().parse::<u64>().unwrap();
        let begun = snapshot.domains[0].read_at.unwrap();
        let (first, tick) = (total(&snapshot, Zone::Package), snapshot.host.interval);
        mirror.take(&snapshot, begun);
        mirror.write(begun).unwrap();
        draw(&mut snapshot, 790_000_000, 10);
        let at = begun + Nanos(10 * Nanos::SECOND.0);
        mirror.take(&snapshot, at);
        for tenth in 0..=10 {
            mirror.write(at + tick + Nanos(tenth * Nanos::SECOND.0)).unwrap();
            assert_eq!(shown() - first, if smooth { tenth * 79_000_000 } else { 790_000_000 });
        }
        drop(mirror);
    }
}

/// What is shown of the packages.
fn shown(path: &Path) -> u64 {
    read(path, "intel-rapl:0/energy_uj").trim().parse().unwrap()
}

/// A mirror that has handed out the half of 790 J in 10 s, with the snapshot and the time.
fn half_handed_out(path: &Path) -> (Mirror, Snapshot, Nanos) {
    let mut mirror = Mirror::open(path, &options(path)).unwrap();
    let mut snapshot = snapshot();
    let begun = snapshot.domains[0].read_at.unwrap();
    mirror.take(&snapshot, begun);
    mirror.write(begun).unwrap();
    draw(&mut snapshot, 790_000_000, 10);
    let read = begun + Nanos(10 * Nanos::SECOND.0);
    mirror.take(&snapshot, read);
    let half = read + snapshot.host.interval + Nanos(5 * Nanos::SECOND.0);
    mirror.write(half).unwrap();
    (mirror, snapshot, half)
}

/// The zone goes on from `before`, and what was not handed out is handed out within `time`, evenly.
fn goes_on(mirror: &mut Mirror, path: &Path, snapshot: &Snapshot, before: u64, now: Nanos, time: Nanos) {
    mirror.take(snapshot, now);
    mirror.write(now).unwrap();
    assert_eq!(shown(path), before, "nothing at once");
    let all = total(snapshot, Zone::Package);
    let mut last = before;
    for tenth in 1..=10 {
        mirror.write(now + Nanos(time.0 / 10 * tenth)).unwrap();
        let expected = before + (all - before) * tenth / 10;
        assert!(shown(path).abs_diff(expected) <= (all - before) / 50, "{tenth}: {} of {expected}", shown(path));
        assert!(shown(path) >= last);
        last = shown(path);
    }
    mirror.write(now + time + time).unwrap();
    assert_eq!(shown(path), all);
}

#[test]
fn what_was_not_handed_out_before_a_restart_is_not_handed_out_at_once() {
    // Stopped.
    let (_dir, path) = place();
    let (mirror, snapshot, now) = half_handed_out(&path);
    let (before, five) = (shown(&path), Nanos(5 * Nanos::SECOND.0));
    assert_eq!(before + 395_000_000, total(&snapshot, Zone::Package));
    drop(mirror);
    assert!(!path.exists());
    let mut mirror = Mirror::open(&path, &options(&path)).unwrap();
    goes_on(&mut mirror, &path, &snapshot, before, now, five);
    // Nothing waited when it was stopped: it begins with the whole total.
    drop(mirror);
    let mut mirror = Mirror::open(&path, &options(&path)).unwrap();
    let mut more = snapshot.clone();
    draw(&mut more, 5_000_000, 1);
    mirror.take(&more, now);
    mirror.write(now).unwrap();
    assert_eq!(shown(&path), total(&more, Zone::Package));
    drop(mirror);

    // Killed: its folder is left as it was. The lag is the usual one: a reading of 10 s and a tick.
    let (dir, path) = place();
    let (mirror, snapshot, now) = half_handed_out(&path);
    let copy = dir.path().join("killed");
    let status = std::process::Command::new("cp").arg("-a").arg(&path).arg(&copy).status().unwrap();
    assert!(status.success());
    let usual = Nanos(10 * Nanos::SECOND.0) + snapshot.host.interval;
    let mut next = Mirror::open(&copy, &options(&copy)).unwrap();
    goes_on(&mut next, &copy, &snapshot, before, now, usual);
    drop((mirror, next));
}

#[test]
fn a_zone_whose_meter_is_back_goes_on_from_what_it_showed() {
    let (_dir, path) = place();
    let (mut mirror, snapshot, now) = half_handed_out(&path);
    let before = shown(&path);
    let mut gone = snapshot.clone();
    gone.domains.clear();
    mirror.take(&gone, now);
    mirror.write(now).unwrap();
    assert!(!zones(&path).join("intel-rapl:0").exists());
    // Two seconds later it is read again.
    let two = Nanos(2 * Nanos::SECOND.0);
    goes_on(&mut mirror, &path, &snapshot, before, now + two, Nanos(5 * Nanos::SECOND.0) + two);
}

#[test]
fn what_was_shown_long_ago_is_not_gone_on_from() {
    let (_dir, path) = place();
    let (mut mirror, snapshot, now) = half_handed_out(&path);
    mirror.take(&Snapshot { domains: Vec::new(), ..snapshot.clone() }, now);
    mirror.write(now).unwrap();
    let later = now + Nanos(301 * Nanos::SECOND.0);
    mirror.take(&snapshot, later);
    mirror.write(later).unwrap();
    assert_eq!(shown(&path), total(&snapshot, Zone::Package));
}

#[test]
fn a_reader_that_keeps_the_file_open_sees_every_value_and_nothing_after_the_last() {
    let (_dir, path) = place();
    let mut mirror = Mirror::open(&path, &PowercapOptions { smooth: false, ..options(&path) }).unwrap();
    let mut snapshot = snapshot();
    show(&mut mirror, &snapshot);
    let open = || File::open(zones(&path).join("intel-rapl:0/energy_uj")).unwrap();
    let text = |file: &File| {
        let mut bytes = [0; 64];
        let length = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let mut readers = vec![open()];
    for step in 1..6 {
        draw(&mut snapshot, step * 999, 10);
        show(&mut mirror, &snapshot);
        readers.push(open());
        assert!(mirror.is_pending(), "the other file is written at the next step");
        mirror.write(Nanos(u64::MAX)).unwrap();
        assert!(!mirror.is_pending());
        for reader in &readers {
            assert_eq!(text(reader), format!("{}\n", total(&snapshot, Zone::Package)));
        }
    }
    snapshot.domains.clear();
    show(&mut mirror, &snapshot);
    assert!(readers.iter().all(|reader| text(reader).is_empty()), "no number that stands still");
}

#[test]
fn only_its_own_folder_is_touched() {
    let (dir, path) = place();
    let refused = |word: &str| {
        let error = Mirror::open(&path, &options(&path)).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(path.to_str().unwrap()), "{error}");
    };
    let precious = dir.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "text").unwrap();

    symlink(&precious, &path).unwrap();
    refused("no folder");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    refused("no folder");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "text").unwrap();
    refused("not made by jouled");
    symlink(precious.join("file"), path.join(MARKER)).unwrap();
    refused("not made by jouled");
    fs::remove_dir_all(&path).unwrap();

    // Left by a run that was killed, with a link in it.
    fs::create_dir(&path).unwrap();
    fs::write(path.join(MARKER), "").unwrap();
    symlink(&precious, path.join("class")).unwrap();
    let mirror = Mirror::open(&path, &options(&path)).unwrap();
    assert!(zones(&path).is_dir() && !path.join("class").is_symlink());
    assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "text");
    refused("another jouled's");
    drop(mirror);

    fs::create_dir(&path).unwrap();
    drop(Mirror::open(&path, &options(&path)).unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    refused("other users may write to it");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let gone = dir.path().join("none/sysfs");
    assert!(Mirror::open(&gone, &options(&gone)).unwrap_err().to_string().contains("No such file"));
}

#[test]
fn a_tree_that_is_removed_is_made_again() {
    let (_dir, path) = place();
    let mut mirror = Mirror::open(&path, &options(&path)).unwrap();
    let mut snapshot = snapshot();
    show(&mut mirror, &snapshot);
    for gone in [path.clone(), path.join("class"), zones(&path)] {
        fs::remove_dir_all(gone).unwrap();
        mirror.keep_tree().unwrap();
        snapshot.ticks += 1;
        show(&mut mirror, &snapshot);
        assert_eq!(read(&path, "intel-rapl:0/energy_uj"), format!("{}\n", total(&snapshot, Zone::Package)));
    }
    // What somebody else puts there is left alone, also at the end.
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "text").unwrap();
    assert!(mirror.keep_tree().unwrap_err().to_string().contains("not made by jouled"));
    drop(mirror);
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "text");
}

#[test]
fn paths_of_the_kernel_are_refused() {
    for bad in ["/sys", "/sys/class", "/proc/x", "/dev/shm/x", "sysfs", "/run/../sys/x", "/", ""] {
        assert!(options(Path::new(bad)).wrong_path().is_some(), "{bad}");
    }
    for good in ["/run/jouled/sysfs", "/system/x"] {
        assert_eq!(options(Path::new(good)).wrong_path(), None, "{good}");
    }
    assert_eq!(PowercapOptions::default().wrong_path(), None);
}
