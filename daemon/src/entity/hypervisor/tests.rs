//! Tests of the VM search on fake /proc and cgroup trees, also with hostile content. The parsers of command lines have
//! tests of their own.

use super::*;
use crate::entity::inventory::{Class, KnownMachine};
use crate::model::entity::Labels;
use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use tokio::sync::watch;

const UUID: &str = "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7";
const SCOPE: &str = r"/machine.slice/machine-qemu\x2d1\x2dweb.scope";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";

struct Fake {
    dir: tempfile::TempDir,
    cgroups: HashMap<CgroupId, PathBuf>,
    /// The VM labels of each cgroup, one entry for each tick that reported the cgroup.
    vms_of: HashMap<CgroupId, Vec<Option<Labels>>>,
}

/// What the usage source reports in one tick.
#[derive(Default)]
struct TickInput<'a> {
    infos: Vec<(u32, &'a str, &'a str)>,
    cgroups: Vec<(u64, &'a str)>,
    ended: Vec<u32>,
}

impl Fake {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), cgroups: HashMap::new(), vms_of: HashMap::new() }
    }

    fn proc(&self) -> PathBuf {
        self.dir.path().join("proc")
    }

    fn sys(&self) -> PathBuf {
        self.dir.path().join("sys")
    }

    fn pid(&self, pid: u32) -> PathBuf {
        self.proc().join(pid.to_string())
    }

    /// Adds a process to /proc; its start is ten times its id.
    fn spawn(&self, pid: u32, comm: &str, exe: &str, args: &[&str], cgroup: &str) {
        let dir = self.pid(pid);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let (flags, start) = (if exe == "kernel" { 0x0020_8040 } else { 0x0040_0100 }, pid * 10);
        fs::write(
            dir.join("stat"),
            format!("{pid} ({comm}) S 1 1 1 0 -1 {flags} 1 1 1 1 9 0 0 0 20 0 1 0 {start} 1 1"),
        )
        .unwrap();
        let cmdline: Vec<u8> = args.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
        fs::write(dir.join("cmdline"), cmdline).unwrap();
        fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        if exe != "kernel" {
            std::os::unix::fs::symlink(exe, dir.join("exe")).unwrap();
        }
    }

    fn qemu(&self, pid: u32, args: &[&str], cgroup: &str) {
        let args: Vec<&str> = ["qemu"].iter().chain(args).copied().collect();
        self.spawn(pid, "qemu-system-x86", QEMU, &args, cgroup);
    }

    /// Writes the process list of a cgroup.
    fn set_processes(&self, cgroup: &str, pids: &str) {
        let dir = self.dir.path().join("cgroup").join(&cgroup[1..]);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), pids).unwrap();
    }

    /// Ticks wait for the readers however long this machine takes.
    fn open(&self, inventory: Option<Inventory>) -> Hypervisors {
        let mut hypervisors = Hypervisors::open(&self.proc(), &self.sys(), inventory);
        hypervisors.reply_wait = Duration::from_secs(30);
        hypervisors
    }

    fn tick(&mut self, hypervisors: &mut Hypervisors, input: TickInput<'_>) -> VmChanges {
        let key = |pid: u32| ProcessKey { pid, start: u64::from(pid) * 10 };
        let info =
            |(pid, comm, exe): (u32, &str, &str)| ProcessInfo { process: key(pid), comm: comm.into(), exe: exe.into() };
        let sample = UsageSample {
            processes: input.infos.into_iter().map(info).collect(),
            ended: input.ended.into_iter().map(key).collect(),
            ..UsageSample::default()
        };
        let path = |(id, path): (u64, &str)| {
            self.cgroups.insert(CgroupId(id), self.dir.path().join("cgroup").join(&path[1..]));
            CgroupPath { cgroup: CgroupId(id), path: Some(path.into()), vm: None }
        };
        let mut cgroups: Vec<CgroupPath> = input.cgroups.into_iter().map(path).collect();
        let dirs = &self.cgroups;
        let changes = hypervisors.tick(&sample, &mut cgroups, &[], |id| dirs.get(&id).map(PathBuf::as_path));
        for cgroup in cgroups {
            self.vms_of.entry(cgroup.cgroup).or_default().push(cgroup.vm);
        }
        changes
    }

    /// The VM ids of a cgroup, one for each tick that reported it; `-` without labels.
    fn ids_of(&self, cgroup: u64) -> Vec<&str> {
        let reports = self.vms_of[&CgroupId(cgroup)].iter();
        reports.map(|vm| vm.as_ref().map_or("-", |labels| labels.id())).collect()
    }
}

fn ids(changes: &VmChanges) -> Vec<&str> {
    changes.vms.as_ref().expect("a change").iter().map(|vm| vm.id.as_str()).collect()
}

fn members(changes: &VmChanges) -> Vec<(u32, &str)> {
    let mut members: Vec<_> = changes.members.iter().map(|member| (member.process.pid, member.vm.id())).collect();
    members.sort_unstable();
    members
}

#[test]
fn a_vm_that_is_idle_from_the_start_is_found_and_becomes_a_member_when_it_runs() {
    let mut fake = Fake::new();
    fake.qemu(
        7,
        &["-name", "guest=web", "-uuid", UUID, "-smp", "2", "-accel", "kvm"],
        "/user.slice/user-0.slice/session-1.scope",
    );
    let mut hypervisors = fake.open(None);
    let changes = fake.tick(&mut hypervisors, TickInput::default());
    let vm = &changes.vms.as_ref().unwrap()[0];
    assert_eq!((vm.id.as_str(), vm.name.as_str(), vm.hypervisor.as_str(), vm.vcpus), (UUID, "web", "kvm", Some(2)));
    assert!(!vm.vouched && vm.process == ProcessKey { pid: 7, start: 70 });
    assert_eq!(fake.tick(&mut hypervisors, TickInput::default()), VmChanges::default());
    let changes =
        fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "qemu-system-x86", QEMU)], ..TickInput::default() });
    assert_eq!((members(&changes), &changes.vms), (vec![(7, UUID)], &None));
}

#[test]
fn a_new_vm_is_found_at_once_and_removed_when_it_ends() {
    let mut fake = Fake::new();
    let mut hypervisors = fake.open(None);
    fake.qemu(7, &["-uuid", UUID], "/");
    let changes = fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "x", QEMU)], ..TickInput::default() });
    assert_eq!((ids(&changes), members(&changes)), (vec![UUID], vec![(7, UUID)]));
    // A thread that renames itself changes nothing.
    let changes =
        fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "CPU 0/KVM", QEMU)], ..TickInput::default() });
    assert_eq!(changes.vms, None);
    let changes = fake.tick(&mut hypervisors, TickInput { ended: vec![7], ..TickInput::default() });
    assert!(ids(&changes).is_empty());
    // The end of the next VM with this UUID is not reported: it is found by a check.
    fake.qemu(8, &["-uuid", UUID], "/");
    assert_eq!(
        ids(&fake.tick(&mut hypervisors, TickInput { infos: vec![(8, "x", QEMU)], ..TickInput::default() })),
        [UUID]
    );
    fs::remove_dir_all(fake.pid(8)).unwrap();
    assert!(ids(&fake.tick(&mut hypervisors, TickInput::default())).is_empty());
}

#[test]
fn a_program_without_a_vm_or_after_an_exec_is_not_a_vm() {
    let mut fake = Fake::new();
    let mut hypervisors = fake.open(None);
    fake.qemu(7, &["--version"], "/");
    fake.spawn(8, "qemu-img", "/usr/bin/qemu-img", &["qemu-img", "convert"], "/");
    // Only its short name is QEMU's.
    fake.spawn(9, "qemu-system-x86", "/usr/bin/sleep", &["qemu-system-x86_64", "-uuid", UUID], "/");
    let infos = vec![(7, "x", QEMU), (8, "qemu-img", "/usr/bin/qemu-img"), (9, "qemu-system-x86", "/usr/bin/sleep")];
    assert_eq!(fake.tick(&mut hypervisors, TickInput { infos, ..TickInput::default() }), VmChanges::default());
    fake.qemu(10, &["-uuid", UUID], "/");
    assert_eq!(
        ids(&fake.tick(&mut hypervisors, TickInput { infos: vec![(10, "x", QEMU)], ..TickInput::default() })),
        [UUID]
    );
    fake.spawn(10, "sleep", "/usr/bin/sleep", &["sleep"], "/");
    let changes =
        fake.tick(&mut hypervisors, TickInput { infos: vec![(10, "sleep", "/usr/bin/sleep")], ..TickInput::default() });
    assert!(ids(&changes).is_empty());
}

/// Kepler's fault no. 9: vhost kernel threads, virtiofsd and swtpm were not charged to the VM.
#[test]
fn kepler_fault_9_helpers_and_kernel_threads_belong_to_the_vm() {
    let mut fake = Fake::new();
    let (emulator, vcpu) = (format!("{SCOPE}/libvirt/emulator"), format!("{SCOPE}/libvirt/vcpu0"));
    // swtpm runs first, in libvirt's emulator cgroup; libvirt's child has not executed QEMU yet.
    let mut hypervisors = fake.open(None);
    fake.spawn(6, "swtpm", "/usr/bin/swtpm", &["swtpm"], &emulator);
    fake.spawn(7, "rpc-libvirtd", "/usr/sbin/libvirtd", &["libvirtd"], &emulator);
    fake.set_processes(SCOPE, "");
    fake.set_processes(&format!("{SCOPE}/libvirt"), "7\n6\n");
    let changes = fake.tick(&mut hypervisors, TickInput { cgroups: vec![(1, &emulator)], ..TickInput::default() });
    assert_eq!((changes, fake.ids_of(1)), (VmChanges::default(), vec!["-"]));
    // The child executes QEMU, and need not run in the tick in which that is seen.
    fake.qemu(7, &["-uuid", UUID, "-name", "guest=web", "-accel", "kvm"], &emulator);
    let changes = fake.tick(&mut hypervisors, TickInput::default());
    assert!(ids(&changes) == [UUID] && changes.vms.unwrap()[0].vouched);
    assert_eq!(fake.ids_of(1), ["-", UUID]);
    // Every later cgroup of the scope has the labels from the start.
    fake.tick(
        &mut hypervisors,
        TickInput { cgroups: vec![(2, &vcpu), (3, SCOPE), (4, "/machine.slice")], ..TickInput::default() },
    );
    assert_eq!((fake.ids_of(2), fake.ids_of(3), fake.ids_of(4)), (vec![UUID], vec![UUID], vec!["-"]));
    // Kernel threads of the VM, and a user's process with such a name.
    fake.spawn(20, "vhost-7", "kernel", &[], "/");
    fake.spawn(21, "kvm-nx-lpage-recovery-7", "kernel", &[], "/");
    fake.spawn(22, "kvm-pit/7", "kernel", &[], "/");
    fake.spawn(23, "vhost-7", "/home/user/vhost", &["vhost-7"], "/");
    fs::remove_file(fake.pid(23).join("exe")).unwrap();
    fake.spawn(24, "vhost-99", "kernel", &[], "/");
    let infos = vec![
        (20, "vhost-7", ""),
        (21, "kvm-nx-lpage-re", ""),
        (22, "kvm-pit/7", ""),
        (23, "vhost-7", ""),
        (24, "vhost-99", ""),
    ];
    let changes = fake.tick(&mut hypervisors, TickInput { infos, ..TickInput::default() });
    assert_eq!(members(&changes), [(20, UUID), (21, UUID), (22, UUID)]);
    // A second QEMU in the scope belongs to the VM and is not a VM itself.
    fake.qemu(30, &["-uuid", "11111111-2222-3333-4444-555555555555"], &emulator);
    assert_eq!(
        fake.tick(&mut hypervisors, TickInput { infos: vec![(30, "x", QEMU)], ..TickInput::default() }),
        VmChanges::default()
    );
}

#[test]
fn a_worker_seen_before_its_vm_waits_for_it() {
    let mut fake = Fake::new();
    let mut hypervisors = fake.open(None);
    fake.spawn(20, "vhost-7", "kernel", &[], "/");
    assert_eq!(
        fake.tick(&mut hypervisors, TickInput { infos: vec![(20, "vhost-7", "")], ..TickInput::default() }),
        VmChanges::default()
    );
    fake.qemu(7, &["-uuid", UUID], "/");
    let changes = fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "x", QEMU)], ..TickInput::default() });
    assert!(ids(&changes) == [UUID] && members(&changes) == [(7, UUID), (20, UUID)]);
}

#[test]
fn a_scope_without_a_readable_vmm_has_its_machine_name_until_there_is_one() {
    let mut fake = Fake::new();
    let mut hypervisors = fake.open(None);
    fake.set_processes(SCOPE, "");
    fake.tick(&mut hypervisors, TickInput { cgroups: vec![(1, SCOPE)], ..TickInput::default() });
    for _ in 0..15 {
        fake.tick(&mut hypervisors, TickInput::default());
    }
    assert_eq!(fake.ids_of(1), ["-", "qemu-1-web"]);
    fake.qemu(7, &["-uuid", UUID], SCOPE);
    fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "x", QEMU)], ..TickInput::default() });
    assert_eq!(fake.ids_of(1), ["-", "qemu-1-web", UUID]);
}

#[test]
fn an_impostor_loses_its_uuid_to_a_vouched_vm() {
    let mut fake = Fake::new();
    fake.qemu(
        7,
        &["-uuid", UUID, "-device", "vhost-vsock-pci,guest-cid=5"],
        "/user.slice/user-1000.slice/session-1.scope",
    );
    let mut hypervisors = fake.open(None);
    let changes = fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "x", QEMU)], ..TickInput::default() });
    assert_eq!((ids(&changes), changes.vms.as_ref().unwrap()[0].cid), (vec![UUID], Some(5)));
    fake.qemu(8, &["-uuid", UUID, "-device", r#"{"driver":"vhost-vsock-pci","guest-cid":5}"#], SCOPE);
    let input = TickInput { infos: vec![(8, "x", QEMU)], cgroups: vec![(1, SCOPE)], ..TickInput::default() };
    let changes = fake.tick(&mut hypervisors, input);
    assert_eq!((ids(&changes), fake.ids_of(1)), (vec![UUID, "qemu-7-70"], vec![UUID]));
    let vms = changes.vms.as_ref().unwrap();
    assert_eq!((vms[0].process.pid, vms[0].cid, vms[1].cid), (8, Some(5), None));
    assert_eq!(members(&changes), [(7, "qemu-7-70"), (8, UUID)]);
}

#[test]
fn a_cid_is_believed_where_the_device_is_open() {
    let mut fake = Fake::new();
    fake.qemu(7, &["-device", "vhost-vsock-pci,guest-cid=5"], "/");
    fs::create_dir(fake.pid(7).join("fd")).unwrap();
    std::os::unix::fs::symlink("/dev/null", fake.pid(7).join("fd/3")).unwrap();
    // A file with only the name of the device.
    let file = fake.dir.path().join("vhost-vsock");
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, fake.pid(7).join("fd/4")).unwrap();
    let mut hypervisors = fake.open(None);
    let changes = fake.tick(&mut hypervisors, TickInput::default());
    assert_eq!(changes.vms.unwrap()[0].cid, None);
    // It is inspected again; here, its descriptors can no longer be read.
    fs::remove_dir_all(fake.pid(7).join("fd")).unwrap();
    let vms = (0..50).find_map(|_| fake.tick(&mut hypervisors, TickInput::default()).vms);
    assert_eq!(vms.unwrap()[0].cid, Some(5));
}

#[test]
fn vcpus_are_counted_by_their_threads_when_these_appear() {
    let mut fake = Fake::new();
    fake.spawn(
        7,
        "firecracker",
        "/usr/bin/firecracker",
        &["firecracker", "--id", "vm1", "--config-file", "/etc/shadow"],
        "/",
    );
    let mut hypervisors = fake.open(None);
    let changes = fake.tick(&mut hypervisors, TickInput::default());
    let vm = &changes.vms.as_ref().unwrap()[0];
    assert_eq!((vm.id.as_str(), vm.name.as_str(), vm.vcpus), ("firecracker-7-70", "vm1", None));
    for (task, name) in [(7, "firecracker\n"), (71, "fc_vcpu 0\n"), (72, "fc_vcpu 1\n")] {
        fs::create_dir_all(fake.pid(7).join(format!("task/{task}"))).unwrap();
        fs::write(fake.pid(7).join(format!("task/{task}/comm")), name).unwrap();
    }
    let vms = (0..50).find_map(|_| fake.tick(&mut hypervisors, TickInput::default()).vms);
    assert_eq!(vms.unwrap()[0].vcpus, Some(2));
}

#[test]
fn hostile_command_lines_make_safe_labels() {
    let mut fake = Fake::new();
    let long = "x\n".repeat(5000);
    fake.qemu(
        7,
        &["-name", &long, "-uuid", "../../etc", "-smp", "4294967297", "-device", "vhost-vsock-pci,guest-cid=2"],
        "/",
    );
    fake.qemu(8, &["-name", "../../../etc/passwd", "-uuid", UUID], "/");
    fake.qemu(9, &["-name", "a\u{1b}[31m\"\\{}", "-uuid", UUID], "/");
    fake.qemu(10, &[&"-".repeat(100_000)], "/");
    fs::write(fake.pid(11).join("cmdline"), "").unwrap_or_default();
    fake.spawn(12, "kvm", "/usr/bin/kvm", &[], "/");
    fake.qemu(13, &["-name", &"y".repeat(2 << 20), "-uuid", UUID], "/");
    let mut hypervisors = fake.open(None);
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    let all: Vec<(u32, &str)> = vms.iter().map(|vm| (vm.process.pid, vm.id.as_str())).collect();
    assert_eq!(all, [(8, UUID), (10, "qemu-10-100"), (13, "qemu-13-130"), (7, "qemu-7-70"), (9, "qemu-9-90")]);
    for vm in &vms {
        assert!(vm.name.len() <= 256 && !vm.name.is_empty() && !vm.name.chars().any(char::is_control), "{:?}", vm.name);
    }
    assert_eq!((vms[3].uuid.as_deref(), vms[3].vcpus, vms[3].cid), (None, None, None));
}

#[test]
fn the_inventory_applies_to_vouched_vms_only() {
    let known = |manager: &str, leader: Option<u32>, state: &str, class| KnownMachine {
        manager: manager.into(),
        name: "web".into(),
        uuid: leader.is_none().then(|| UUID.to_uppercase()),
        state: state.into(),
        title: "The\nweb".into(),
        vcpus: Some(6),
        cid: Some(9),
        profile: Some("trusted".into()),
        leader,
        class,
        labels: [("project", "shop\n\u{202e}".to_owned()), ("flavor", "f".repeat(10_000)), ("pid", "1".to_owned())]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
    };
    let mut fake = Fake::new();
    fake.qemu(7, &["-uuid", UUID, "-smp", "2"], SCOPE);
    fake.qemu(8, &["-uuid", UUID, "-smp", "2"], "/user.slice/x.scope");
    let (sender, receiver) = watch::channel(Arc::from([known("machined", Some(7), "", Class::Container)]));
    let mut hypervisors = fake.open(Some(receiver));
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!((vms[0].manager.as_str(), vms[0].vcpus), ("", Some(2)));
    // The second domain of the same manager is another one, and its entry is not used.
    let mut other = known("libvirt", None, "paused", Class::Vm);
    other.profile = None;
    sender.send_replace(Arc::from([other, known("libvirt", None, "running", Class::Vm)]));
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    let vm = &vms[0];
    assert_eq!((vm.process.pid, vm.manager.as_str(), vm.state.as_str()), (7, "libvirt", "paused"));
    assert_eq!(
        (vm.title.as_str(), vm.vcpus, vm.cid, vm.profile.as_deref()),
        ("The\u{fffd}web", Some(6), Some(9), None)
    );
    let details: Vec<(&str, usize)> = vm.details.iter().map(|(name, value)| (name.as_str(), value.len())).collect();
    assert_eq!(details, [("flavor", 256), ("project", vm.details["project"].len())]);
    let labels = vm.labels();
    let project = labels.get("project");
    assert!(project.starts_with("shop") && !project.contains(['\n', '\u{202e}']), "{project:?}");
    assert!(vms[1].details.is_empty(), "a user's own");
    assert_eq!(
        (vms[1].manager.as_str(), vms[1].vcpus, vms[1].cid, vms[1].profile.as_deref()),
        ("", Some(2), None, None)
    );
    // A CID that only the manager has must be held too.
    fs::create_dir(fake.pid(7).join("fd")).unwrap();
    hypervisors.other_reader.request(Request::Evidence(ProcessKey { pid: 7, start: 70 }));
    let vms = (0..50).find_map(|_| fake.tick(&mut hypervisors, TickInput::default()).vms);
    assert_eq!(vms.unwrap()[0].cid, None);
    fs::remove_dir(fake.pid(7).join("fd")).unwrap();
    let vms = (0..50).find_map(|_| fake.tick(&mut hypervisors, TickInput::default()).vms);
    assert_eq!(vms.unwrap()[0].cid, Some(9));
    // libvirt is gone: the shape of the machine stays as it said last, its state does not.
    sender.send_replace(Arc::from([]));
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!(vms[0].details.len(), 2, "whose it is stays");
    assert_eq!((vms[0].manager.as_str(), vms[0].state.as_str(), vms[0].vcpus), ("", "", Some(6)));
}

#[test]
fn a_thousand_vms_are_read_once() {
    let mut fake = Fake::new();
    for pid in 1000..2000 {
        fake.qemu(pid, &["-name", "x"], "/");
    }
    let mut hypervisors = fake.open(None);
    while hypervisors.running.len() < 1000 {
        fake.tick(&mut hypervisors, TickInput::default());
    }
    fake.tick(&mut hypervisors, TickInput::default());
    // A command line that is changed later is not read again.
    for pid in 1000..2000 {
        fs::write(fake.pid(pid).join("cmdline"), format!("qemu\0-uuid\0{UUID}\0")).unwrap();
    }
    for _ in 0..10 {
        let infos = (1000..1010).map(|pid| (pid, "CPU 0/KVM", QEMU)).collect();
        assert_eq!(fake.tick(&mut hypervisors, TickInput { infos, ..TickInput::default() }).vms, None);
    }
}

#[test]
fn a_users_blocking_command_line_does_not_hide_a_vm_in_a_machine_scope() {
    let mut fake = Fake::new();
    fs::create_dir_all(fake.proc()).unwrap();
    let mut hypervisors = fake.open(None);
    fake.qemu(7, &[], "/user.slice/user-1000.slice/session-1.scope");
    let pipe = fake.pid(7).join("cmdline");
    fs::remove_file(&pipe).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    fake.qemu(8, &["-name", "web", "-uuid", UUID], SCOPE);
    let changes =
        fake.tick(&mut hypervisors, TickInput { infos: vec![(7, "q", QEMU), (8, "q", QEMU)], ..TickInput::default() });
    assert_eq!(changes.vms.unwrap().iter().map(|vm| vm.id.as_str()).collect::<Vec<_>>(), [UUID]);
    // Lets the thread end.
    fs::OpenOptions::new().write(true).open(&pipe).unwrap();
}

#[test]
fn an_entry_for_another_process_with_the_same_uuid_is_not_used() {
    let mut fake = Fake::new();
    fake.qemu(8, &["-uuid", UUID, "-device", "vhost-vsock-pci,guest-cid=5"], SCOPE);
    let machine = |leader, cid| KnownMachine {
        manager: "machined".into(),
        uuid: Some(UUID.into()),
        leader: Some(leader),
        cid: Some(cid),
        state: leader.to_string(),
        ..KnownMachine::default()
    };
    let (_say, inventory) = watch::channel(Arc::from([machine(7, 6), machine(8, 5)]));
    let mut hypervisors = fake.open(Some(inventory));
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!((vms[0].cid, vms[0].state.as_str()), (Some(5), "8"));
}

#[test]
fn a_profile_stays_while_libvirt_is_silent() {
    let mut fake = Fake::new();
    fake.qemu(8, &["-uuid", UUID], SCOPE);
    let libvirt = |profile: Option<&str>| KnownMachine {
        manager: "libvirt".into(),
        uuid: Some(UUID.into()),
        state: "running".into(),
        profile: profile.map(str::to_owned),
        ..KnownMachine::default()
    };
    let machined = KnownMachine {
        manager: "machined".into(),
        uuid: Some(UUID.into()),
        leader: Some(8),
        ..KnownMachine::default()
    };
    let (say, inventory) = watch::channel(Arc::from([libvirt(Some("multi-tenant")), machined.clone()]));
    let mut hypervisors = fake.open(Some(inventory));
    let mut profile =
        |fake: &mut Fake| fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap()[0].profile.clone();
    assert_eq!(profile(&mut fake).as_deref(), Some("multi-tenant"));
    say.send_replace(Arc::from([machined]));
    assert_eq!(profile(&mut fake).as_deref(), Some("multi-tenant"));
    // libvirt is back, and has no profile.
    say.send_replace(Arc::from([libvirt(None)]));
    assert_eq!(profile(&mut fake), None);
}

#[test]
fn a_device_belongs_to_the_vm_that_has_it_open() {
    let mut fake = Fake::new();
    let gpu = "0000:41:00.0";
    let pci = fake.sys().join("bus/pci/devices").join(gpu);
    fs::create_dir_all(&pci).unwrap();
    fs::create_dir_all(fake.sys().join("class/vfio/12")).unwrap();
    std::os::unix::fs::symlink("../../../../kernel/iommu_groups/12", pci.join("iommu_group")).unwrap();
    // The device number of /dev/null, which every machine has.
    fs::write(fake.sys().join("class/vfio/12/dev"), "1:3\n").unwrap();
    let group = fake.dir.path().join("dev/vfio/12");
    fs::create_dir_all(group.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/null", &group).unwrap();
    for pid in [7, 8] {
        fake.qemu(pid, &["-device", r#"{"driver":"vfio-pci","host":"0000:41:00.0","id":"hostdev0"}"#], "/");
        fs::create_dir(fake.pid(pid).join("fd")).unwrap();
    }
    let mut hypervisors = fake.open(None);
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert!(vms.len() == 2 && vms.iter().all(|vm| vm.pci.is_empty()), "{vms:?}");
    // The second process opens the device a while after its start.
    std::os::unix::fs::symlink(&group, fake.pid(8).join("fd/30")).unwrap();
    let vms = (0..50).find_map(|_| fake.tick(&mut hypervisors, TickInput::default()).vms).unwrap();
    let devices: Vec<(u32, Vec<String>)> =
        vms.iter().map(|vm| (vm.process.pid, vm.pci.iter().map(ToString::to_string).collect())).collect();
    assert_eq!(devices, [(7, vec![]), (8, vec![gpu.to_owned()])]);
}

/// Links of /proc/PID/fd to what QEMU has open of KVM.
fn open_kvm(fake: &Fake, pid: u32, vcpus: u32) {
    let fd = fake.pid(pid).join("fd");
    fs::create_dir_all(&fd).unwrap();
    let links = std::iter::once("kvm-vm".to_owned()).chain((0..vcpus).map(|number| format!("kvm-vcpu:{number}")));
    for (number, link) in links.enumerate() {
        let _ = std::os::unix::fs::symlink(format!("anon_inode:{link}"), fd.join(number.to_string()));
    }
}

#[test]
fn a_vm_of_proxmox_is_kvm() {
    let mut fake = Fake::new();
    let uuid = format!("type=1,uuid={UUID}");
    let line = ["/usr/bin/kvm", "-id", "100", "-name", "web,debug-threads=on", "-smbios", &uuid, "-smp", "4"];
    fake.spawn(7, "kvm", QEMU, &line, "/qemu.slice/100.scope");
    let mut hypervisors = fake.open(None);
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!((vms[0].hypervisor.as_str(), vms[0].vcpus, vms[0].name.as_str()), ("kvm", Some(4), "web"));
    assert_eq!(fake.tick(&mut hypervisors, TickInput::default()), VmChanges::default());
}

#[test]
fn what_the_command_line_leaves_open_is_seen_in_the_kernel() {
    let mut fake = Fake::new();
    let conf = "[machine]\ntype = \"q35\"\n[device \"qemu_vsock\"]\ndriver = \"vhost-vsock-pci\"\nguest-cid = \"10\"\n";
    let line = ["-S", "-name", "v1", "-uuid", UUID, "-readconfig", "/var/log/lxd/v1/qemu.conf", "-daemonize"];
    fake.qemu(7, &line, "/lxc.monitor.v1");
    let dir = fake.pid(7).join("root/var/log/lxd/v1");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("qemu.conf"), conf).unwrap();
    open_kvm(&fake, 7, 1);
    let mut hypervisors = fake.open(None);
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!((vms[0].hypervisor.as_str(), vms[0].vcpus), ("kvm", Some(1)));
    // The manager adds CPUs after the start.
    open_kvm(&fake, 7, 4);
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!((vms[0].hypervisor.as_str(), vms[0].vcpus, vms[0].uuid.as_deref()), ("kvm", Some(4), Some(UUID)));
}

#[test]
fn an_emulated_vm_is_qemu_whatever_was_asked_for() {
    let mut fake = Fake::new();
    fake.qemu(7, &["-machine", "q35,accel=kvm:tcg", "-name", "web"], "/a.slice/vm.service");
    let task = fake.pid(7).join("task/9");
    fs::create_dir_all(&task).unwrap();
    fs::write(task.join("comm"), "CPU 0/TCG\n").unwrap();
    let mut hypervisors = fake.open(None);
    let vms = fake.tick(&mut hypervisors, TickInput::default()).vms.unwrap();
    assert_eq!(vms[0].hypervisor, "qemu");
}
