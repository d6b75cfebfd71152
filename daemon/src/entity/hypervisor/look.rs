//! One process, looked at in /proc: whether it runs a VM, and what of its claims the kernel confirms. Reads; decides nothing.

use super::command::{self, Described};
use crate::entity::vm::Vmm;
use crate::entity::{mounts, path};
use crate::usage::ProcessKey;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// No command line of a VM is longer; what is beyond is not read.
const CMDLINE_MAX: u64 = 512 << 10;
/// So many descriptors and threads of one process are looked at.
const ENTRIES_MAX: usize = 8192;
/// /dev/vhost-vsock: MISC_MAJOR and VHOST_VSOCK_MINOR of the kernel.
const VHOST_VSOCK: (u32, u32) = (10, 241);
/// PF_KTHREAD of linux/sched.h: no process of a user can have it.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What /proc/PID/stat says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub process: ProcessKey,
    /// Its name; of a kernel thread the whole one.
    pub comm: String,
    /// The kernel runs it.
    pub kernel: bool,
    /// It ended.
    pub dead: bool,
}

/// A process that runs a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Which.
    pub process: ProcessKey,
    /// The program.
    pub vmm: Vmm,
    /// What its command line says.
    pub said: Described,
    /// Its cgroup's path; empty where unknown.
    pub cgroup: String,
    /// What the kernel shows of it.
    pub shown: Shown,
}

/// What the kernel shows of a VM's process, which may come some time after its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Whether it has /dev/vhost-vsock open; `None`: that cannot be read.
    pub vsock: Option<bool>,
    /// Threads that are virtual CPUs; 0: none bears such a name.
    pub vcpus: u32,
}

/// Reads /proc/PID/stat; `None` where there is no such process.
pub fn stat(procfs: &Path, pid: u32) -> Option<Stat> {
    let text = fs::read(procfs.join(format!("{pid}/stat"))).ok()?;
    // The name may hold anything, also `) `.
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    // State is field 3, flags field 9, start field 22.
    let dead = matches!(fields.next()?, "Z" | "X" | "x");
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let start = fields.nth(12)?.parse().ok()?;
    Some(Stat { process: ProcessKey { pid, start }, comm, kernel: flags & KERNEL_THREAD != 0, dead })
}

/// Path of a process' executable; empty where it cannot be read.
pub fn exe(procfs: &Path, pid: u32) -> String {
    fs::read_link(procfs.join(format!("{pid}/exe"))).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a process is in a machine scope now. Never blocks.
pub fn in_scope(procfs: &Path, pid: u32) -> bool {
    let cgroup = fs::read(procfs.join(format!("{pid}/cgroup"))).ok().and_then(|text| mounts::place(&text));
    cgroup.is_some_and(|cgroup| path::machine(&cgroup).is_some())
}

/// Looks at a process; `None`: it runs no VM, or it ended meanwhile.
///
/// Reading a command line may block for as long as the process' owner likes (its pages may be of a file system of his): not for a
/// thread that has to be on time.
pub fn look(procfs: &Path, pid: u32) -> Option<Sight> {
    let before = stat(procfs, pid).filter(|stat| !stat.kernel && !stat.dead)?;
    let exe = exe(procfs, pid);
    let vmm = command::vmm(&exe, &before.comm)?;
    let dir = procfs.join(pid.to_string());
    let mut cmdline = Vec::new();
    File::open(dir.join("cmdline")).ok()?.take(CMDLINE_MAX).read_to_end(&mut cmdline).ok()?;
    let said = command::describe(vmm, &exe, &cmdline, (cmdline.len() as u64) < CMDLINE_MAX)?;
    let cgroup = mounts::place(&fs::read(dir.join("cgroup")).unwrap_or_default());
    let shown = shown(procfs, pid);
    // All of that was of one process.
    stat(procfs, pid).filter(|after| after.process == before.process)?;
    Some(Sight { process: before.process, vmm, said, cgroup: cgroup.unwrap_or_default(), shown })
}

/// What the kernel shows of a VM's process now.
pub fn shown(procfs: &Path, pid: u32) -> Shown {
    let dir = procfs.join(pid.to_string());
    let fds = fs::read_dir(dir.join("fd")).ok();
    let vsock = fds.map(|fds| fds.flatten().take(ENTRIES_MAX).any(|fd| is_vhost_vsock(&fd.path())));
    let tasks = fs::read_dir(dir.join("task")).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let names = tasks.filter_map(|task| fs::read(task.path().join("comm")).ok());
    Shown { vsock, vcpus: names.filter(|name| is_vcpu(name.trim_ascii_end())).count() as u32 }
}

/// QEMU's, Cloud Hypervisor's and Firecracker's names of a virtual CPU's thread.
fn is_vcpu(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let number = match name.strip_prefix("CPU ") {
        Some(rest) => rest.split_once('/').map(|(number, _)| number),
        None => name.strip_prefix("vcpu").or_else(|| name.strip_prefix("fc_vcpu ")),
    };
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The device by its numbers: anybody may give a file its name. The name is looked at first, and what is known of the file without
/// asking its file system, because others' file systems may never answer.
fn is_vhost_vsock(fd: &Path) -> bool {
    let named = fs::read_link(fd).is_ok_and(|link| link.as_os_str().as_bytes().ends_with(b"vhost-vsock"));
    named && device(fd) == Some(VHOST_VSOCK)
}

fn device(path: &Path) -> Option<(u32, u32)> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` is a C string and `found` a place for a statx, both outliving the call.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), libc::AT_STATX_DONT_SYNC, libc::STATX_TYPE, found.as_mut_ptr()) };
    // SAFETY: all zero is a valid statx, and the call left it so or filled it.
    let found = unsafe { found.assume_init() };
    let is_device = result == 0 && u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFCHR;
    is_device.then_some((found.stx_rdev_major, found.stx_rdev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_is_known_by_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vhost-vsock"), "").unwrap();
        symlink(dir.path().join("vhost-vsock"), dir.path().join("3")).unwrap();
        symlink("/dev/null", dir.path().join("4")).unwrap();
        assert!(!is_vhost_vsock(&dir.path().join("3")) && !is_vhost_vsock(&dir.path().join("4")));
        assert_eq!((device(Path::new("/dev/null")), device(dir.path())), (Some((1, 3)), None));
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
        let me = stat(Path::new("/proc"), std::process::id()).unwrap();
        assert!(!me.kernel && !me.dead && me.process.start > 0);
        assert_eq!(look(Path::new("/proc"), std::process::id()), None);
        assert_eq!(stat(Path::new("/proc"), u32::MAX), None);
    }
}
