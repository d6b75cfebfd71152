//! What a VMM process has open of KVM, vhost-vsock and VFIO: by the links in /proc/PID/fd, and where these are refused
//! by /proc/PID/fdinfo and /proc/PID/maps. CAP_SYS_PTRACE opens the last two, since Linux 5.14, and not `fd`, whose
//! mode is 0500. Reads only.

use rustc_hash::FxHashSet;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use std::fs::{self, File, ReadDir};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Descriptors of one process that are read at most.
const ENTRIES_MAX: usize = 8192;
/// Bytes of one file in /proc that are read at most: each of a thousand mappings or mounts has some hundred.
const TEXT_MAX: u64 = 4 << 20;
/// Bytes of one fdinfo file that are read at most. `mnt_id` and `ino` stand at its beginning.
const FDINFO_MAX: u64 = 4 << 10;
/// Major and minor number of /dev/vhost-vsock: MISC_MAJOR and VHOST_VSOCK_MINOR of the kernel.
const VHOST_VSOCK: (u32, u32) = (10, 241);
/// What the kernel calls the file of a virtual CPU, with its number behind it. No other file has such a name, as a
/// path begins with a slash.
const KVM_VCPU: &[u8] = b"anon_inode:kvm-vcpu:";

/// What a process has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenFiles {
    /// Whether it has /dev/vhost-vsock open; `None`: that is not known.
    pub vsock: Option<bool>,
    /// Major and minor numbers of the character devices below /dev/vfio that it has open; `None`: that is not known.
    pub vfio: Option<Vec<(u32, u32)>>,
    /// Every descriptor was seen: what is not listed is not open.
    pub whole: bool,
    /// Number of virtual CPUs of KVM that it has open.
    pub vcpus: u32,
    /// It has files of KVM open.
    pub kvm: bool,
}

/// What a process has open now.
pub fn open_files(procfs: &Path, pid: u32) -> OpenFiles {
    let dir = procfs.join(pid.to_string());
    match fs::read_dir(dir.join("fd")) {
        Ok(fds) => by_links(fds),
        Err(_) => {
            let roots = [dir.join("root"), procfs.join("1/root")];
            by_fdinfo(procfs, &dir, &roots.iter().flat_map(|root| nodes(root)).collect::<Vec<_>>())
        }
    }
}

/// By the links in /proc/PID/fd, which show everything.
fn by_links(fds: ReadDir) -> OpenFiles {
    let (mut open, mut vsock, mut vfio) = (OpenFiles { whole: true, ..OpenFiles::default() }, false, Vec::new());
    let mut vcpus = FxHashSet::default();
    for fd in fds.flatten().take(ENTRIES_MAX) {
        let Ok(link) = fs::read_link(fd.path()) else { continue };
        let name = link.as_os_str().as_bytes();
        open.kvm |= name.starts_with(b"anon_inode:kvm-v");
        // The link's name is compared first, then statx reads the device number without asking the file's own file
        // system: a user's file system may never answer. The number decides, as any file may have such a name.
        if name.starts_with(KVM_VCPU) {
            vcpus.insert(name.to_vec());
        } else if name.ends_with(b"vhost-vsock") {
            vsock |= device(&fd.path()) == Some(VHOST_VSOCK);
        } else if link.to_string_lossy().contains("/dev/vfio/") {
            vfio.extend(device(&fd.path()));
        }
    }
    OpenFiles { vsock: Some(vsock), vfio: Some(vfio), vcpus: vcpus.len() as u32, ..open }
}

/// By /proc/PID/maps, where each virtual CPU's shared page stands under its name, and by /proc/PID/fdinfo, which has
/// the mount and the inode of each open file: those of the device nodes that are visible to the process and to process
/// 1 are known. A node elsewhere is not seen, so that nothing can be said to be closed.
fn by_fdinfo(procfs: &Path, dir: &Path, nodes: &[Node]) -> OpenFiles {
    let maps = read(&dir.join("maps"), TEXT_MAX);
    // The sixth column is the name. The kernel writes a newline in a path as \012.
    let mapped = maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.windows(KVM_VCPU.len()).position(|part| part == KVM_VCPU)?;
        let columns = line[..at].split(|byte| *byte == b' ').filter(|column| !column.is_empty()).count();
        (columns == 5).then_some(&line[at..])
    });
    let vcpus = mapped.collect::<FxHashSet<_>>().len() as u32;
    let mut open = OpenFiles { vcpus, kvm: vcpus > 0, ..OpenFiles::default() };
    let files = fs::read_dir(dir.join("fdinfo")).ok().filter(|_| !nodes.is_empty());
    let mounts = || [read(&dir.join("mountinfo"), TEXT_MAX), read(&procfs.join("1/mountinfo"), TEXT_MAX)].concat();
    let mounts = files.is_some().then(mounts).unwrap_or_default();
    let mut vfio = Vec::new();
    for file in files.into_iter().flatten().flatten().take(ENTRIES_MAX) {
        let text = read(&file.path(), FDINFO_MAX);
        let Some((mount, inode)) = mount_and_inode(&text) else { continue };
        let is_it = |node: &&Node| node.inode == inode && Some(node.file_system) == file_system(&mounts, mount);
        let Some(node) = nodes.iter().find(is_it) else { continue };
        match node.device {
            VHOST_VSOCK => open.vsock = Some(true),
            device => vfio.push(device),
        }
    }
    open.vfio = Some(vfio).filter(|devices| !devices.is_empty());
    open
}

/// A device node in a /dev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    /// Major and minor number of the file system that it is in, as in /proc/PID/mountinfo.
    file_system: (u32, u32),
    inode: u64,
    /// Major and minor number of its device.
    device: (u32, u32),
}

/// The nodes of vhost-vsock and VFIO in the /dev of a process, whose root is at `root` in /proc. Their owner may have
/// made that /dev: the lookup stays inside, nothing is opened but by its path, and the numbers decide.
fn nodes(root: &Path) -> Vec<Node> {
    let Ok(root) = File::open(root) else { return Vec::new() };
    let open = |path: &str, kind: OFlags| -> Option<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, path, kind | OFlags::CLOEXEC, Mode::empty(), inside).ok()
    };
    let names = |folder: &str| -> Vec<String> {
        let entries = open(folder, OFlags::RDONLY | OFlags::DIRECTORY).and_then(|fd| rustix::fs::Dir::new(fd).ok());
        let entries = entries.into_iter().flatten().flatten().take(ENTRIES_MAX);
        entries.filter_map(|entry| Some(format!("{folder}/{}", entry.file_name().to_str().ok()?))).collect()
    };
    let paths = ["dev/vhost-vsock".to_owned()].into_iter().chain(names("dev/vfio")).chain(names("dev/vfio/devices"));
    paths.filter_map(|path| node(&open(&path, OFlags::PATH)?)).collect()
}

fn node(file: &OwnedFd) -> Option<Node> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::EMPTY_PATH;
    let found = statx(file, "", flags, StatxFlags::TYPE | StatxFlags::INO).ok()?;
    let is_device = FileType::from_raw_mode(found.stx_mode.into()) == FileType::CharacterDevice;
    is_device.then_some(Node {
        file_system: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        device: (found.stx_rdev_major, found.stx_rdev_minor),
    })
}

/// Number of the mount and of the inode of an open file, by its fdinfo (proc_pid_fdinfo(5)).
fn mount_and_inode(fdinfo: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(fdinfo);
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    Some((value("mnt_id:")?, value("ino:")?))
}

/// Device number of the file system that a mount is of, by lines of mountinfo (proc_pid_mountinfo(5)).
fn file_system(mountinfo: &[u8], mount: u64) -> Option<(u32, u32)> {
    let line = mountinfo.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b' '));
    let number = line.map(|mut columns| (columns.next(), columns.nth(1)));
    let mount = mount.to_string();
    let (_, device) = number.into_iter().find(|(id, _)| *id == Some(mount.as_bytes()))?;
    let (major, minor) = std::str::from_utf8(device?).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The beginning of a file; empty where it cannot be read.
fn read(path: &Path, most: u64) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = File::open(path).map(|file| file.take(most).read_to_end(&mut text));
    text
}

/// Major and minor number of a character device; `None`: it is another kind of file.
fn device(path: &Path) -> Option<(u32, u32)> {
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE).ok()?;
    let is_device = FileType::from_raw_mode(found.stx_mode.into()) == FileType::CharacterDevice;
    is_device.then_some((found.stx_rdev_major, found.stx_rdev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_device_is_known_by_its_numbers() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((device(Path::new("/dev/null")), device(dir.path())), (Some((1, 3)), None));
    }

    #[test]
    fn virtual_cpus_are_seen_in_the_mappings_where_descriptors_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("7");
        fs::create_dir(&process).unwrap();
        let maps = "\
7f96f1dba000-7f96f1dbd000 rw-s 00000000 00:10 1039                       anon_inode:kvm-vcpu:0
7f96f11e0000-7f96f11e3000 rw-s 00000000 00:10 1039                       anon_inode:kvm-vcpu:1
7f96f11e3000-7f96f11e4000 rw-s 00003000 00:10 1039                       anon_inode:kvm-vcpu:1
7f96f11e0000-7f96f11e3000 r--p 00000000 fe:00 11                         /tmp/anon_inode:kvm-vcpu:2
7f96f11e0000-7f96f11e3000 r--p 00000000 fe:00 11                         /tmp/a anon_inode:kvm-vcpu:3
7f96f11e0000-7f96f11e3000 rw-p 00000000 00:00 0                          [anon:anon_inode:kvm-vcpu:4]
7f96f11e0000-7f96f11e3000 rw-p 00000000 00:00 0
\u{fffd}
";
        fs::write(process.join("maps"), maps).unwrap();
        let expected = OpenFiles { vcpus: 2, kvm: true, ..OpenFiles::default() };
        assert_eq!(open_files(dir.path(), 7), expected);
        // Links show more: what is not among them is not open.
        fs::create_dir(process.join("fd")).unwrap();
        let links = OpenFiles { vsock: Some(false), vfio: Some(Vec::new()), whole: true, ..OpenFiles::default() };
        assert_eq!(open_files(dir.path(), 7), links);
        for (number, vcpu) in [(3, 0), (4, 0), (5, 1)] {
            symlink(format!("anon_inode:kvm-vcpu:{vcpu}"), process.join(format!("fd/{number}"))).unwrap();
        }
        assert_eq!(
            open_files(dir.path(), 7),
            OpenFiles { vcpus: 2, kvm: true, ..links },
            "a descriptor was duplicated"
        );
    }

    /// Needs root, to make device nodes. Nothing opens them.
    #[test]
    fn root_devices_are_known_by_mount_and_inode_where_descriptors_are_refused() {
        use rustix::fs::{makedev, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), text).unwrap();
        };
        let root = File::open(dir.path()).unwrap();
        let found = |path: &str| {
            node(&openat2(&root, path, OFlags::PATH, Mode::empty(), ResolveFlags::empty()).unwrap()).unwrap()
        };
        for (path, (major, minor)) in [("1/root/dev/vhost-vsock", (10, 241)), ("7/root/dev/vfio/12", (511, 7))] {
            file(&format!("{path}.x"), "");
            let mode = Mode::RUSR | Mode::WUSR;
            let made = mknodat(CWD, dir.path().join(path), FileType::CharacterDevice, mode, makedev(major, minor));
            assert_eq!(made, Ok(()));
        }
        let (vsock, vfio) = (found("1/root/dev/vhost-vsock"), found("7/root/dev/vfio/12"));
        let (major, minor) = vsock.file_system;
        file("1/mountinfo", "17 1 0:16 / /dev rw - devtmpfs x rw\n");
        file("7/mountinfo", &format!("9 1 0:99 / / rw - tmpfs x rw\n24 9 {major}:{minor} / /dev rw - devtmpfs x rw\n"));
        let shown = |number: u32, mount: u32, inode: u64| {
            file(&format!("7/fdinfo/{number}"), &format!("pos:\t0\nflags:\t02\nmnt_id:\t{mount}\nino:\t{inode}\n"));
            let open = open_files(dir.path(), 7);
            (open.vsock, open.vfio, open.whole)
        };
        // Of another file system, of a mount that is not known, and another file.
        assert_eq!(shown(3, 9, vsock.inode), (None, None, false));
        assert_eq!(shown(4, 77, vsock.inode), (None, None, false));
        assert_eq!(shown(5, 24, 1), (None, None, false));
        assert_eq!(shown(6, 24, vsock.inode), (Some(true), None, false));
        assert_eq!(shown(7, 24, vfio.inode), (Some(true), Some(vec![(511, 7)]), false));
    }

    /// The real /proc, as the packaged unit sees it: another user's process, and CAP_SYS_PTRACE alone.
    #[test]
    fn root_another_users_files_are_seen_with_cap_sys_ptrace_alone() {
        use crate::sys::tests::as_nobody_with;
        use std::io::BufRead;
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};
        let script = "exec 7</dev/null; echo; read -r line";
        let mut command = Command::new("/bin/sh");
        let command = command.args(["-c", script]).uid(1234).gid(1234).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let null =
            node(&openat2(CWD, "/dev/null", OFlags::PATH, Mode::empty(), ResolveFlags::empty()).unwrap()).unwrap();
        let (procfs, dir) = (Path::new("/proc"), Path::new("/proc").join(child.id().to_string()));
        let look = || by_fdinfo(procfs, &dir, &[null]).vfio.map(|devices| devices.contains(&(1, 3)));
        as_nobody_with(&[caps::Capability::CAP_SYS_PTRACE], || {
            assert!(fs::read_dir(dir.join("fd")).is_err(), "then fdinfo is not needed");
            assert_eq!(look(), Some(true));
            assert!(File::open(dir.join("root")).is_ok());
        });
        as_nobody_with(&[], || assert_eq!(look(), None));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in proptest::collection::vec(any::<u8>(), 0..200), mount in any::<u64>()) {
            let _ = mount_and_inode(&text);
            let _ = file_system(&text, mount);
        }
    }
}
