//! VMs on the metrics page: made-up hosts with hostile command lines, and QEMU on this kernel. Not the guest channel:
//! that is in guest.rs.

use crate::common::client::Ticks;
use crate::common::sysfs::ICE_LAKE_SERVER;
use crate::common::{Daemon, World, jouled, root, until, whole_machine};
use jouled::model::entity::Kind;
use jouled::model::snapshot::{Row, Snapshot, State};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const UUID: &str = "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7";
const QEMU: &str = "qemu-system-x86_64";

/// A made-up QEMU.
fn qemu(world: &World, pid: u32, arguments: &[&[u8]], cgroup: &str) {
    world.spawn(pid, 100 + u64::from(pid), QEMU, cgroup, 0);
    let cmdline: Vec<u8> =
        [b"qemu" as &[u8]].iter().chain(arguments).flat_map(|one| one.iter().copied().chain([0])).collect();
    world.host.write_proc(&format!("{pid}/cmdline"), cmdline);
}

fn vm_rows(snapshot: &Snapshot) -> Vec<(&str, &str, u64)> {
    let rows = snapshot.kind(Kind::Vm).rows.iter();
    rows.map(|row| (row.labels.id(), row.labels.get("vm_name"), row.energy.dynamic[0].0 + row.energy.idle[0].0))
        .collect()
}

/// Kepler's fault no. 8: two QEMUs without -uuid and -name shared one vm_id, and `-name foo,debug-threads=on` gave the
/// name "foo,debug-threads=on".
#[test]
fn kepler_fault_8_every_vm_has_an_id_of_its_own_and_its_name() {
    let world = World::new();
    qemu(&world, 41, &[b"-m", b"1G"], "/user.slice/user-0.slice/session-1.scope");
    qemu(&world, 42, &[b"-m", b"1G"], "/user.slice/user-0.slice/session-1.scope");
    qemu(
        &world,
        43,
        &[b"-name", b"foo,debug-threads=on", b"-uuid", UUID.as_bytes()],
        "/user.slice/user-0.slice/session-1.scope",
    );
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("the VMs", |snapshot| snapshot.vms.len() == 3);
    for pid in 41..44 {
        world.run(pid, 5);
    }
    world.draw("intel-rapl:0", 90_000_000);
    let snapshot = ticks.find("their use", |snapshot| snapshot.kind(Kind::Vm).rows.len() == 3);
    let rows = vm_rows(&snapshot);
    assert_eq!(
        rows.iter().map(|(id, name, _)| (*id, *name)).collect::<Vec<_>>(),
        [(UUID, "foo"), ("qemu-41-141", "qemu-41-141"), ("qemu-42-142", "qemu-42-142")]
    );
    let page = daemon.page();
    let process = [("pid", "43"), ("vm_id", UUID), ("type", "vm"), ("zone", "package")];
    assert_eq!(page.values("kepler_process_cpu_joules_total", &process).count(), 1);
    let info =
        [("vm_id", UUID), ("vm_name", "foo"), ("hypervisor", "qemu"), ("uuid", UUID), ("vmm", "qemu"), ("manager", "")];
    assert_eq!(page.values("jouled_vm_info", &info).collect::<Vec<_>>(), [1.0]);
    assert_eq!(page.values("jouled_vm_vcpus", &[]).sum::<f64>(), 3.0);
    page.adds_up();
    // A VM ends with its process.
    world.end(41);
    let snapshot = ticks.find("its end", |snapshot| snapshot.vms.len() == 2);
    let row = snapshot.kind(Kind::Vm).rows.iter().find(|row| row.labels.id() == "qemu-41-141").unwrap();
    assert_eq!(row.state, State::Terminated);
    daemon.stop();
}

/// Kepler's fault no. 9: vhost kernel threads, virtiofsd and swtpm were not charged to the VM.
#[test]
fn kepler_fault_9_all_of_a_machine_scope_is_its_vm() {
    let world = World::new();
    let scope = r"/machine.slice/machine-qemu\x2d1\x2dweb.scope/libvirt";
    let emulator = format!("{scope}/emulator");
    qemu(
        &world,
        41,
        &[b"-name", b"guest=web,debug-threads=on", b"-uuid", UUID.as_bytes(), b"-accel", b"kvm", b"-smp", b"2"],
        &emulator,
    );
    world.spawn(42, 200, "virtiofsd", &emulator, 0);
    world.spawn(43, 201, "swtpm", &emulator, 0);
    world.spawn(44, 202, "vhost-41", &format!("{scope}/vcpu0"), 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    let vm = ticks.find("the VM", |snapshot| snapshot.vms.len() == 1).vms[0].clone();
    assert_eq!((vm.id.as_str(), vm.hypervisor.as_str(), vm.vcpus, vm.vouched), (UUID, "kvm", Some(2), true));
    // Only the helpers use CPU time, not QEMU: the energy is the VM's, under its UUID from the start.
    for pid in 42..45 {
        world.run(pid, 5);
    }
    world.draw("intel-rapl:0", 60_000_000);
    let snapshot = ticks.find("its use", |snapshot| snapshot.kind(Kind::Process).rows.len() == 3);
    let processes = &snapshot.kind(Kind::Process).rows;
    assert!(
        processes.iter().all(|row| row.labels.get("type") == "vm" && row.labels.get("vm_id") == UUID),
        "{processes:#?}"
    );
    let charged: u64 = processes.iter().map(|row| row.energy.dynamic[0].0).sum();
    assert_eq!(vm_rows(&snapshot), [(UUID, "web", charged)]);
    daemon.page().adds_up();
    daemon.stop();
}

#[test]
fn hostile_command_lines_leave_the_page_well_formed() {
    let world = World::new();
    let own = "/user.slice/user-1000.slice/session-2.scope";
    let long = "x\n\"\\".repeat(3000);
    qemu(&world, 41, &[b"-name", long.as_bytes(), b"-uuid", b"../../../etc/shadow"], own);
    qemu(&world, 42, &[b"-name", b"\xff\xfe\"}\n# HELP evil evil\nevil 1", b"-uuid", UUID.as_bytes()], own);
    qemu(&world, 43, &[b"-name", b"../../run/x", b"-uuid", UUID.as_bytes(), b"-smp", b"99999999999"], own);
    qemu(&world, 44, &[b"--version"], own);
    qemu(&world, 45, &[b"-machine", b"none,accel=kvm:tcg"], own);
    world.spawn(46, 1, "vhost-42", own, 0);
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("the VMs", |snapshot| snapshot.vms.len() == 3);
    for pid in 41..47 {
        world.run(pid, 5);
    }
    world.draw("intel-rapl:0", 90_000_000);
    let snapshot = ticks.find("their use", |snapshot| snapshot.kind(Kind::Process).rows.len() == 6);
    let ids: Vec<&str> = vm_rows(&snapshot).iter().map(|row| row.0).collect();
    assert_eq!(ids, [UUID, "qemu-41-141", "qemu-43-143"]);
    for row in &snapshot.kind(Kind::Vm).rows {
        let name = row.labels.get("vm_name");
        assert!(name.len() <= 256 && !name.chars().any(char::is_control), "{:?}", row.labels);
    }
    // A process that is no VM, and one that only has the name of a VM's kernel thread, belong to no VM.
    let of = |pid: &str| {
        snapshot
            .kind(Kind::Process)
            .rows
            .iter()
            .find(|row| row.labels.id() == pid)
            .map(|row| row.labels.get("vm_id").to_owned())
    };
    assert_eq!((of("44"), of("45"), of("46")), (Some(String::new()), Some(String::new()), Some(String::new())));
    daemon.page().adds_up();
    daemon.stop();
}

#[test]
fn idle_by_allocation_is_stated_and_within_what_there_is() {
    let world = World::new();
    world.config("[attribution]\nidle = \"by-allocation\"\n[attribution.idle_watts]\n\"rapl/package-0\" = 50000\n\"rapl/package-1\" = 50000\n");
    qemu(&world, 41, &[b"-smp", b"1", b"-uuid", UUID.as_bytes()], "/a.scope");
    qemu(&world, 42, &[b"-smp", b"2"], "/b.scope");
    let daemon = world.start();
    let mut ticks = daemon.ticks();
    ticks.find("the VMs", |snapshot| snapshot.vms.len() == 2);
    // Four CPUs, all idle.
    world.draw("intel-rapl:0", 80_000_000);
    let snapshot = ticks.find("idle energy", |snapshot| snapshot.kind(Kind::Vm).rows.len() == 2);
    assert_eq!(vm_rows(&snapshot), [(UUID, UUID_NAME, 20_000_000), ("qemu-42-142", "qemu-42-142", 40_000_000)]);
    let page = daemon.page();
    assert_eq!(page.values("jouled_idle_policy_info", &[("policy", "by-allocation")]).collect::<Vec<_>>(), [1.0]);
    assert_eq!(page.microjoules("jouled_vm_joules_total", &[("mode", "idle"), ("zone", "package")]), 60_000_000);
    assert_eq!(page.microjoules("kepler_node_cpu_idle_joules_total", &[("zone", "package")]), 80_000_000);
    page.adds_up();
    daemon.stop();
}

/// The name of a VM without a name.
const UUID_NAME: &str = "qemu-41-141";

/// A QEMU whose guest is one instruction that jumps to itself. Killed when dropped.
struct Spinner {
    child: Child,
    uuid: String,
    _disk: tempfile::TempDir,
}

impl Spinner {
    /// `None`, with a message, where QEMU is not installed. With `cgroup` the process enters it before it executes
    /// QEMU, as with libvirt.
    fn start(accel: &str, name: &str, cgroup: Option<&Path>) -> Option<Self> {
        let disk = tempfile::tempdir().unwrap();
        let mut sector = [0; 512];
        sector[..2].copy_from_slice(&[0xeb, 0xfe]);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let image = disk.path().join("spin.img");
        fs::write(&image, sector).unwrap();
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned();
        let mut command = Command::new(QEMU);
        command.args(["-accel", accel, "-nodefaults", "-no-user-config", "-display", "none", "-m", "32", "-smp", "2"]);
        command.args(["-name", &format!("guest={name},debug-threads=on"), "-uuid", &uuid.to_uppercase()]);
        command.arg("-drive").arg(format!("file={},format=raw,if=ide", image.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(cgroup) = cgroup {
            let procs = cgroup.join("cgroup.procs");
            // SAFETY: the child only writes to a file before it becomes QEMU.
            unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        }
        match command.spawn() {
            Ok(child) => Some(Self { child, uuid, _disk: disk }),
            Err(error) => {
                println!("skipped: {QEMU}: {error}");
                None
            }
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A daemon with a fake meter for this machine's CPUs as one package, and this machine's processes.
fn live(source: &str) -> (World, Daemon, Ticks) {
    let world = World::new();
    fs::remove_dir_all(world.host.sysfs()).unwrap();
    world.host.cpus(1, std::thread::available_parallelism().unwrap().get() as u32, &ICE_LAKE_SERVER);
    world.host.zone("intel-rapl:0", "package-0", 1_000_000);
    world.config("[attribution.idle_watts]\n\"rapl/package-0\" = 0\n");
    let mut command = jouled(&world.host.sysfs(), Path::new("/proc"), &world.state);
    command.env("JOULED_USAGE__SOURCE", source).env("JOULED_INTERVAL", "500ms");
    let daemon = Daemon::start(&mut command, &world.state);
    let ticks = daemon.ticks();
    (world, daemon, ticks)
}

fn row<'a>(snapshot: &'a Snapshot, uuid: &str) -> Option<&'a Row> {
    snapshot.kind(Kind::Vm).rows.iter().find(|row| row.labels.id() == uuid)
}

/// Draws energy until the VM has some of it.
fn charged(world: &World, ticks: &mut Ticks, uuid: &str) -> Snapshot {
    until("the VM is charged", || {
        world.draw("intel-rapl:0", 10_000_000);
        let snapshot = ticks.next();
        row(&snapshot, uuid).is_some_and(|row| row.energy.dynamic[0].0 > 10_000_000).then_some(snapshot)
    })
}

#[test]
fn root_a_real_qemu_is_a_vm_before_and_after_jouleds_start() {
    if !root() {
        return;
    }
    let _alone = whole_machine();
    let Some(early) = Spinner::start("tcg", "jtest,,early", None) else { return };
    for source in ["auto", "procfs"] {
        let (world, daemon, mut ticks) = live(source);
        let Some(late) = Spinner::start("tcg", "jtest-late", None) else { return };
        for (qemu, name) in [(&early, "jtest,early"), (&late, "jtest-late")] {
            let snapshot = charged(&world, &mut ticks, &qemu.uuid);
            assert_eq!(row(&snapshot, &qemu.uuid).unwrap().labels.values()[1..], [name.to_owned(), "qemu".to_owned()]);
            let pid = qemu.child.id();
            let vm = snapshot.vms.iter().find(|vm| vm.id == qemu.uuid).unwrap();
            assert_eq!(
                (vm.process.pid, vm.vcpus, vm.vouched, vm.uuid.as_ref()),
                (pid, Some(2), false, Some(&qemu.uuid))
            );
            let page = daemon.page();
            let (pid, zone) = (pid.to_string(), ("zone", "package"));
            let process =
                page.microjoules("kepler_process_cpu_joules_total", &[("pid", &pid), ("vm_id", &qemu.uuid), zone]);
            let vm =
                page.microjoules("kepler_vm_cpu_joules_total", &[("vm_id", &qemu.uuid), ("hypervisor", "qemu"), zone]);
            println!("{source}: {name}: process {process} µJ, VM {vm} µJ");
            assert!(process > 10_000_000 && process <= vm);
        }
        let uuid = late.uuid.clone();
        drop(late);
        let snapshot = ticks.find("its end", |snapshot| !snapshot.vms.iter().any(|vm| vm.id == uuid));
        assert_eq!(row(&snapshot, &uuid).unwrap().state, State::Terminated);
        assert!(snapshot.vms.iter().any(|vm| vm.id == early.uuid));
        daemon.page().adds_up();
        daemon.stop();
    }
}

/// On kernels where KVM's workers are no threads of QEMU, they are kernel threads in a cgroup of no VM.
#[test]
fn root_a_real_kvm_guest_has_its_kernel_threads() {
    if !root() {
        return;
    }
    let _alone = whole_machine();
    let (world, daemon, mut ticks) = live("auto");
    let Some(mut qemu) = Spinner::start("kvm", "jtest-kvm", None) else { return };
    std::thread::sleep(std::time::Duration::from_secs(1));
    if let Some(status) = qemu.child.try_wait().unwrap() {
        return println!("skipped: QEMU cannot use KVM here: {status}");
    }
    let snapshot = charged(&world, &mut ticks, &qemu.uuid);
    assert_eq!(row(&snapshot, &qemu.uuid).unwrap().labels.values()[1..], ["jtest-kvm".to_owned(), "kvm".to_owned()]);
    let name = format!("kvm-pit/{}", qemu.child.id());
    let is_pit =
        |process: &fs::DirEntry| fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
    let Some(pit) = fs::read_dir("/proc").unwrap().flatten().find(is_pit) else {
        return println!("skipped: this kernel has no thread {name}");
    };
    let pit = pit.file_name().into_string().unwrap();
    let of = |snapshot: &Snapshot| {
        snapshot
            .kind(Kind::Process)
            .rows
            .iter()
            .find(|row| row.labels.id() == pit)
            .map(|row| row.labels.get("vm_id").to_owned())
    };
    let snapshot = ticks.find("the kernel thread runs", |snapshot| of(snapshot).is_some());
    assert_eq!(of(&snapshot).as_ref(), Some(&qemu.uuid));
    daemon.page().adds_up();
    daemon.stop();
}

/// Cgroups as libvirt makes them. Removed when dropped.
struct Scope(PathBuf);

impl Scope {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
        let scope = format!(r"machine.slice/machine-qemu\x2d{}\x2djtest.scope", std::process::id());
        let dir = Path::new(mount).join(scope);
        fs::create_dir_all(dir.join("libvirt/emulator")).unwrap();
        Some(Self(dir))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        for dir in ["libvirt/emulator", "libvirt", ""] {
            // The last processes may still be ending.
            let gone = (0..100).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                fs::remove_dir(self.0.join(dir)).is_ok()
            });
            println!("{dir:?} removed: {gone}");
        }
        // Removed with the last cgroup in it.
        let _ = fs::remove_dir(self.0.parent().unwrap());
    }
}

#[test]
fn root_all_of_a_real_machine_scope_is_its_vm() {
    if !root() {
        return;
    }
    let _alone = whole_machine();
    let Some(scope) = Scope::new() else { return println!("skipped: no cgroup v2") };
    let (world, daemon, mut ticks) = live("auto");
    let emulator = scope.0.join("libvirt/emulator");
    // A helper that runs before QEMU.
    let mut helper = Command::new("sh");
    let procs = emulator.join("cgroup.procs");
    // SAFETY: the child only writes to a file before it becomes a shell.
    unsafe { helper.args(["-c", "while :; do :; done"]).pre_exec(move || fs::write(&procs, "0")) };
    let mut helper = helper.spawn().unwrap();
    ticks.next();
    let qemu = Spinner::start("tcg", "jtest-scope", Some(&emulator));
    if let Some(qemu) = &qemu {
        let of_vm = |snapshot: &Snapshot, pid: u32| {
            let pid = pid.to_string();
            snapshot
                .kind(Kind::Process)
                .rows
                .iter()
                .any(|row| row.labels.id() == pid && row.labels.get("vm_id") == qemu.uuid)
        };
        let snapshot = charged(&world, &mut ticks, &qemu.uuid);
        let vm = snapshot.vms.iter().find(|vm| vm.id == qemu.uuid).unwrap();
        assert!(vm.vouched && vm.name == "jtest-scope", "{vm:?}");
        assert!(of_vm(&snapshot, qemu.child.id()) && of_vm(&snapshot, helper.id()));
        let ids: Vec<&str> = vm_rows(&snapshot).iter().map(|row| row.0).collect();
        assert!(!ids.iter().any(|id| id.starts_with("qemu-")), "{ids:?}");
    }
    helper.kill().unwrap();
    helper.wait().unwrap();
    drop(qemu);
    daemon.page().adds_up();
    daemon.stop();
}
