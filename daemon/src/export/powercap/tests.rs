//! The mirror on made-up snapshots: what is in the tree, and what is left alone.

use super::*;
use crate::export::prometheus::tests;
use std::os::unix::fs::symlink;

fn options(path: &Path) -> PowercapOptions {
    PowercapOptions { path: Some(path.to_owned()), ..PowercapOptions::default() }
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

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(zones(root).join(file)).unwrap()
}

#[test]
fn the_tree_is_the_kernels() {
    let (_dir, path) = place();
    let mut mirror = Mirror::open(&path, &options(&path)).unwrap();
    let mut snapshot = snapshot();
    mirror.show(&snapshot).unwrap();
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
    mirror.show(&snapshot).unwrap();
    assert_eq!(read(&path, "intel-rapl:0/energy_uj"), format!("{}\n", total(&snapshot, Zone::Package)));
    assert_ne!(inode("intel-rapl:0/energy_uj"), before.0);
    assert_eq!(inode("intel-rapl:0:2/energy_uj"), before.1);
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
    mirror.show(&snapshot).unwrap();
    let zone = zones(&path).join("intel-rapl:0");
    assert_eq!(zone.join("energy_uj").metadata().unwrap().mode() & 0o777, 0o444);

    // Another meter stands in, and estimates.
    let measured = total(&snapshot, Zone::Package);
    snapshot.domains.iter_mut().for_each(|view| view.past = true);
    let mut estimate = snapshot.domains[0].clone();
    std::sync::Arc::make_mut(&mut estimate.domain).quality = Quality::Estimated;
    (estimate.past, estimate.energy.total) = (false, Microjoules(7));
    snapshot.domains.push(estimate);
    mirror.show(&snapshot).unwrap();
    assert!(!zone.exists());
    assert_eq!(energy(&snapshot, Zone::Package, true), Some(Microjoules(measured + 7)), "unless it is wanted");

    // It measures again: what was measured before is in it, what was estimated is not.
    snapshot.domains.iter_mut().for_each(|view| view.past = view.domain.quality == Quality::Estimated);
    mirror.show(&snapshot).unwrap();
    assert_eq!(read(&path, "intel-rapl:0/energy_uj"), format!("{measured}\n"));

    // The source fails.
    let source = snapshot.domains[0].domain.source.clone();
    let mut failed = snapshot.sources[0].clone();
    (failed.source, failed.role, failed.health) =
        (source.clone(), SourceRole::Meter, Health::Failed("gone".to_owned()));
    snapshot.sources.retain(|state| state.source != source);
    snapshot.sources.push(failed);
    mirror.show(&snapshot).unwrap();
    assert!(!zone.exists());
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
    refused("others may write");
    let gone = dir.path().join("none/sysfs");
    assert!(Mirror::open(&gone, &options(&gone)).unwrap_err().to_string().contains("No such file"));
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
