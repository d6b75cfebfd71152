//! One tick of all entity sources on a made-up /proc and cgroup tree.

use super::*;
use crate::model::entity::{SliceLabels, UnitLabels};
use crate::model::source::PackageId;
use crate::model::units::Nanos;
use crate::model::usage::{CgroupBorn, ProcessKey, Use, Used};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// A host with cgroup v2 and no processes.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(host.proc().join("self")).unwrap();
        let mount = format!("26 25 0:23 / {} rw - cgroup2 cgroup2 rw\n", host.dir("").display());
        fs::write(host.proc().join("self/mountinfo"), mount).unwrap();
        host.make("/system.slice");
        host
    }

    fn proc(&self) -> PathBuf {
        self.root.path().join("proc")
    }

    fn dir(&self, path: &str) -> PathBuf {
        self.root.path().join("cgroup").join(path.trim_start_matches('/'))
    }

    fn make(&self, path: &str) -> CgroupId {
        fs::create_dir_all(self.dir(path)).unwrap();
        CgroupId(fs::metadata(self.dir(path)).unwrap().ino())
    }

    fn open(&self) -> Entities {
        let mut entities = Entities::open(&self.proc(), &self.root.path().join("sys"), None);
        // A busy machine may take longer than a tick waits.
        let patience = Duration::from_secs(20);
        (entities.hypervisors.reply_wait, entities.jobs.reply_wait) = (patience, patience);
        entities
    }
}

fn used(pid: u32, cgroup: CgroupId) -> Use {
    let process = ProcessKey { pid, start: 1 };
    Use { process, cgroup, package: PackageId(0), used: Used::on_cpu(Nanos(1)) }
}

fn unit(name: &str) -> Labels {
    UnitLabels { unit: name, slice: "system.slice" }.into()
}

fn in_slice(name: &str) -> Vec<Labels> {
    vec![SliceLabels { slice: "system.slice" }.into(), unit(name)]
}

#[test]
fn a_cgroup_is_listed_once_and_its_end_is_reported() {
    let host = Host::new();
    let a = host.make("/system.slice/a.service");
    let mut entities = host.open();
    // Made and removed since the last tick: only its birth has the path.
    let short = host.make("/system.slice/short.service");
    fs::remove_dir(host.dir("/system.slice/short.service")).unwrap();
    let born = vec![CgroupBorn { cgroup: short, path: "/system.slice/short.service".into() }];
    let mut sample = UsageSample { uses: vec![used(1, a), used(2, short)], born, ..UsageSample::default() };
    let named = entities.observe(&mut sample, Stamp::default());
    let listed: Vec<_> = named.cgroups.into_iter().map(|listed| (listed.cgroup, listed.entities)).collect();
    assert_eq!(listed, [(a, in_slice("a.service")), (short, in_slice("short.service"))]);
    assert_eq!((named.gone, sample.born.len(), sample.uses.len()), (vec![short], 0, 2));
    fs::remove_dir(host.dir("/system.slice/a.service")).unwrap();
    let mut sample = UsageSample { uses: vec![used(1, a)], ..UsageSample::default() };
    let named = entities.observe(&mut sample, Stamp::default());
    assert_eq!((named.cgroups, named.gone), (vec![], vec![a]));
}

#[test]
fn an_idle_cgroup_of_an_awaited_series_is_added_to_the_first_sample_only() {
    let host = Host::new();
    let idle = host.make("/system.slice/idle.service");
    host.make("/system.slice/idle.service/below");
    let mut entities = host.open();
    entities.await_series([(unit("idle.service"), Nanos(1)), (unit("gone.service"), Nanos(1))].into_iter().collect());
    let mut sample = UsageSample::default();
    let named = entities.observe(&mut sample, Stamp::default());
    let added: Vec<_> = sample.uses.iter().map(|one| (one.process.pid, one.cgroup, one.used)).collect();
    assert_eq!(added, [(0, idle, Used::default())]);
    assert_eq!((named.cgroups.len(), named.survivors.len()), (1, 0));
    let mut sample = UsageSample::default();
    entities.observe(&mut sample, Stamp::default());
    assert!(sample.uses.is_empty());
}

#[test]
fn a_scope_in_which_a_vmm_runs_is_no_container() {
    let host = Host::new();
    let path = "/machine.slice/machine-web.scope";
    let scope = host.make(path);
    let mut entities = host.open();
    let listed = |named: &Named| {
        let kinds = |listed: &CgroupEntities| listed.entities.iter().map(Labels::kind).collect::<Vec<_>>();
        named.cgroups.iter().map(kinds).collect::<Vec<_>>()
    };
    let mut sample = UsageSample { uses: vec![used(1, scope)], ..UsageSample::default() };
    let named = entities.observe(&mut sample, Stamp::default());
    assert_eq!(listed(&named), [[Kind::Slice, Kind::Unit, Kind::Container]]);
    // What was systemd-vmspawn executes QEMU.
    let dir = host.proc().join("7");
    fs::create_dir_all(&dir).unwrap();
    let stat = "7 (qemu-system-x86) S 1 1 1 0 -1 4194560 1 1 1 1 9 0 0 0 20 0 1 0 1 1 1";
    fs::write(dir.join("stat"), stat).unwrap();
    fs::write(dir.join("cmdline"), "qemu\0-name\0web\0-accel\0kvm\0-smp\x001\0").unwrap();
    fs::write(dir.join("cgroup"), format!("0::{path}\n")).unwrap();
    let exe = "/usr/bin/qemu-system-x86_64";
    std::os::unix::fs::symlink(exe, dir.join("exe")).unwrap();
    let process = ProcessKey { pid: 7, start: 1 };
    let info = ProcessInfo { process, comm: "qemu-system-x86".into(), exe: exe.into() };
    let mut sample = UsageSample { uses: vec![used(7, scope)], processes: vec![info], ..UsageSample::default() };
    let named = entities.observe(&mut sample, Stamp::default());
    assert_eq!(listed(&named), [[Kind::Slice, Kind::Unit]]);
    assert_eq!(named.members.iter().map(|member| member.process).collect::<Vec<_>>(), [process]);
    assert!(!named.vms.unwrap()[0].vouched, "any container's scope has such a name");
}
