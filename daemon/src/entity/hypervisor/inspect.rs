//! Inspects one process in /proc: whether it runs a VM, what its command line claims, and the evidence that the kernel
//! has for it. Reads only; `identity` decides what is believed.

use super::command::{self, Claims};
use super::open_files::{OpenFiles, open_files};
use crate::entity::{mounts, path};
use crate::model::source::PciAddress;
use crate::model::usage::ProcessKey;
use crate::model::vm::Vmm;
use crate::sys::proc_pid;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Longest command line that is read, in bytes; a VM's is shorter.
const CMDLINE_MAX: u64 = 512 << 10;
/// Longest file of `-readconfig` that is read, in bytes; LXD's have some 10 KB.
const CONFIG_MAX: u64 = 256 << 10;
/// Threads of one process that are read at most.
const ENTRIES_MAX: usize = 8192;

/// A process that runs a VM (the VMM process).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmProcess {
    /// The process.
    pub process: ProcessKey,
    /// Its program.
    pub vmm: Vmm,
    /// What its command line says of the VM.
    pub claims: Claims,
    /// Path of its cgroup; empty where unknown.
    pub cgroup: String,
    /// What the kernel shows of it.
    pub evidence: Evidence,
}

/// What the kernel shows of a VMM process. Some of it appears a while after its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether it has /dev/vhost-vsock open; `None`: nothing shows that.
    pub vsock: Option<bool>,
    /// Major and minor numbers of the character devices below /dev/vfio that it has open; `None`: nothing shows that.
    pub vfio: Option<Vec<(u32, u32)>>,
    /// Every descriptor was seen: a device that is not in `vfio` is not open.
    pub whole: bool,
    /// Number of virtual CPUs of KVM that it has open, or of threads named as virtual CPUs, the higher of both; 0: none
    /// is seen.
    pub vcpus: u32,
    /// Whether KVM runs its virtual CPUs, and not QEMU's emulator; `None`: nothing shows that yet.
    pub kvm: Option<bool>,
}

/// Whether a process is in a machine scope now. Never blocks.
pub fn is_in_machine_scope(procfs: &Path, pid: u32) -> bool {
    let cgroup = fs::read(procfs.join(format!("{pid}/cgroup"))).ok().and_then(|text| mounts::place(&text));
    cgroup.is_some_and(|cgroup| path::machine(&cgroup.path).is_some())
}

/// Inspects a process; `None`: it runs no VM, or it ended meanwhile.
///
/// Reading /proc/PID/cmdline may block for as long as the process' owner likes (its pages may be of a file system in
/// user space). Not for a thread with a deadline.
pub fn inspect(procfs: &Path, pid: u32) -> Option<VmProcess> {
    let user = |stat: &proc_pid::Stat<'_>| (!stat.kernel && !stat.dead).then(|| (stat.start, stat.name()));
    let (start, name) = proc_pid::stat(procfs, pid, user)??;
    let process = ProcessKey { pid, start };
    let exe = proc_pid::exe(procfs, pid);
    let vmm = command::vmm(&exe, &name)?;
    let dir = procfs.join(pid.to_string());
    let mut cmdline = Vec::new();
    File::open(dir.join("cmdline")).ok()?.take(CMDLINE_MAX).read_to_end(&mut cmdline).ok()?;
    let whole = (cmdline.len() as u64) < CMDLINE_MAX;
    let claims = command::describe(vmm, &exe, &cmdline, whole, &|path| config_file(&dir, path))?;
    let cgroup = mounts::place(&fs::read(dir.join("cgroup")).unwrap_or_default());
    let evidence = evidence(procfs, pid);
    // The pid was not reused during the reads.
    proc_pid::process(procfs, pid).filter(|after| *after == process)?;
    Some(VmProcess { process, vmm, claims, cgroup: cgroup.map(|place| place.path).unwrap_or_default(), evidence })
}

/// The evidence of a VMM process now.
pub fn evidence(procfs: &Path, pid: u32) -> Evidence {
    let OpenFiles { vsock, vfio, whole, vcpus, mut kvm } = open_files(procfs, pid);
    let tasks = fs::read_dir(procfs.join(format!("{pid}/task"))).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let (mut emulated, mut named_vcpus) = (false, 0);
    for name in tasks.filter_map(|task| fs::read(task.path().join("comm")).ok()) {
        let name = name.trim_ascii_end();
        named_vcpus += u32::from(is_vcpu(name));
        kvm |= name.ends_with(b"/KVM") && is_vcpu(name);
        emulated |= name.ends_with(b"/TCG");
    }
    let kvm = if kvm { Some(true) } else { emulated.then_some(false) };
    Evidence { vsock, vfio, whole, vcpus: vcpus.max(named_vcpus), kvm }
}

/// Text of a file that a command line names, as the process at `dir` in /proc sees it; `None` where it cannot be read.
/// The owner of the VM chose the path: it stays inside of the process' own root, nothing but a regular file is opened,
/// and only so much is read.
fn config_file(dir: &Path, path: &str) -> Option<String> {
    let root = File::open(dir.join("root")).ok()?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside).ok()?;
    let is_file = FileType::from_raw_mode(fstat(&found).ok()?.st_mode) == FileType::RegularFile;
    let reopened = is_file.then(|| File::open(format!("/proc/self/fd/{}", found.as_raw_fd())))?.ok()?;
    let mut text = Vec::new();
    reopened.take(CONFIG_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Names of virtual CPU threads: `CPU 0/KVM` (QEMU), `vcpu0` (Cloud Hypervisor), `fc_vcpu 0` (Firecracker).
fn is_vcpu(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let number = match name.strip_prefix("CPU ") {
        Some(rest) => rest.split_once('/').map(|(number, _)| number),
        None => name.strip_prefix("vcpu").or_else(|| name.strip_prefix("fc_vcpu ")),
    };
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Device numbers of a PCI device's VFIO group and of its VFIO device. Empty: no VFIO driver is bound to it.
pub fn vfio(sysfs: &Path, address: PciAddress) -> Vec<(u32, u32)> {
    let dir = sysfs.join("bus/pci/devices").join(address.to_string());
    let group = fs::read_link(dir.join("iommu_group")).ok();
    let group = group.and_then(|group| Some(sysfs.join("class/vfio").join(group.file_name()?)));
    // With iommufd each device has a file of its own.
    let devices = fs::read_dir(dir.join("vfio-dev")).into_iter().flatten().flatten().map(|device| device.path());
    let numbers = |dir: PathBuf| {
        let text = fs::read_to_string(dir.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    group.into_iter().chain(devices).filter_map(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_is_known_by_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let (fd, dev) = (dir.path().join("7/fd"), dir.path().join("dev/vfio"));
        fs::create_dir_all(&fd).unwrap();
        fs::create_dir_all(&dev).unwrap();
        // Files with only the name of a device, and a link to another device.
        fs::write(dir.path().join("vhost-vsock"), "").unwrap();
        fs::write(dev.join("11"), "").unwrap();
        symlink("/dev/null", dev.join("12")).unwrap();
        for (number, target) in
            [dir.path().join("vhost-vsock"), "/dev/null".into(), dev.join("11"), dev.join("12")].iter().enumerate()
        {
            symlink(target, fd.join(number.to_string())).unwrap();
        }
        assert_eq!(
            evidence(dir.path(), 7),
            Evidence { vsock: Some(false), vfio: Some(vec![(1, 3)]), whole: true, ..Evidence::default() }
        );
        assert_eq!(evidence(dir.path(), 8), Evidence::default());
    }

    #[test]
    fn a_pci_devices_group_is_known_by_its_numbers_too() {
        let sysfs = tempfile::tempdir().unwrap();
        let device = sysfs.path().join("bus/pci/devices/0000:41:00.0");
        let address = "41:00.0".parse().unwrap();
        assert_eq!(vfio(sysfs.path(), address), []);
        fs::create_dir_all(device.join("vfio-dev/vfio3")).unwrap();
        fs::create_dir_all(sysfs.path().join("class/vfio/12")).unwrap();
        symlink("../../../../kernel/iommu_groups/12", device.join("iommu_group")).unwrap();
        fs::write(sysfs.path().join("class/vfio/12/dev"), "511:0\n").unwrap();
        fs::write(device.join("vfio-dev/vfio3/dev"), "510:3\n").unwrap();
        assert_eq!(vfio(sysfs.path(), address), [(511, 0), (510, 3)]);
        fs::write(device.join("vfio-dev/vfio3/dev"), "nonsense").unwrap();
        assert_eq!(vfio(sysfs.path(), address), [(511, 0)]);
    }

    #[test]
    fn what_kvm_has_open_and_threads_show_the_accelerator() {
        let dir = tempfile::tempdir().unwrap();
        let make = |pid: &str, fds: &[&str], threads: &[&str]| {
            let fd = dir.path().join(pid).join("fd");
            fs::create_dir_all(&fd).unwrap();
            for (number, target) in fds.iter().enumerate() {
                symlink(target, fd.join(number.to_string())).unwrap();
            }
            for (number, name) in threads.iter().enumerate() {
                let task = dir.path().join(pid).join("task").join(number.to_string());
                fs::create_dir_all(&task).unwrap();
                fs::write(task.join("comm"), format!("{name}\n")).unwrap();
            }
            let evidence = evidence(dir.path(), pid.parse().unwrap());
            (evidence.kvm, evidence.vcpus)
        };
        let open =
            ["anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0", "anon_inode:kvm-vcpu:1", "/tmp/anon_inode:kvm-vcpu:2"];
        assert_eq!(make("1", &open, &["kvm"]), (Some(true), 2));
        assert_eq!(make("2", &[], &["kvm", "CPU 0/KVM"]), (Some(true), 1));
        assert_eq!(make("3", &["/dev/null"], &["qemu", "CPU 0/TCG", "CPU 1/TCG"]), (Some(false), 2));
        assert_eq!(make("4", &["/dev/null"], &["qemu", "ALL CPUs/TCG"]), (Some(false), 0));
        assert_eq!(make("5", &["/tmp/anon_inode:kvm-vm"], &["x/KVM"]), (None, 0));
    }

    #[test]
    fn a_config_file_is_read_as_the_process_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/vm.conf"), "[smp-opts]").unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        symlink("/etc/vm.conf", root.join("absolute")).unwrap();
        symlink("../../outside", root.join("etc/out")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), Mode::RUSR).unwrap();
        let read = |path: &str| config_file(dir.path(), path);
        assert_eq!(read("/etc/vm.conf").as_deref(), Some("[smp-opts]"));
        assert_eq!(read("absolute").as_deref(), Some("[smp-opts]"));
        for path in ["/fifo", "/etc", "/etc/out", "../outside", "/none", "", "\0"] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    #[test]
    fn vcpu_threads() {
        for name in ["CPU 0/KVM", "CPU 12/TCG", "vcpu3", "fc_vcpu 1"] {
            assert!(is_vcpu(name.as_bytes()), "{name}");
        }
        for name in ["IO iothread1", "CPU /KVM", "vcpu", "vcpux", "fc_vmm", "qemu-system-x86", "ALL CPUs/TCG"] {
            assert!(!is_vcpu(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn this_process_runs_no_vm() {
        assert_eq!(inspect(Path::new("/proc"), std::process::id()), None);
        assert_eq!(inspect(Path::new("/proc"), u32::MAX), None);
    }
}
