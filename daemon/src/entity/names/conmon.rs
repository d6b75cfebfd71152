//! The name of a container of Podman, from the arguments of the conmon that runs it: `conmon … -c ID … -n NAME …`
//! (sharedConmonArgs in Podman's libpod/oci_conmon_common.go; the same for rootless containers and quadlets). Reads
//! cgroup.procs, and /proc/PID/stat, cmdline and cgroup. The user of Podman chose the name. What runs in the container
//! has no say in it: a process of the container with the arguments of a conmon is none, as conmon is never in its
//! cgroup.

use crate::sys::proc_pid;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Parents that are followed from a process of the container to its conmon.
const PARENTS_MAX: usize = 32;
/// Bytes of conmon's arguments that are read. Id and name are among the first.
const ARGUMENTS_MAX: u64 = 8192;
/// Longest name that is taken. Podman has no limit of its own; a longer one is not shown.
const NAME_MAX: usize = 255;

/// The name of the container with this id, some of whose processes are in the cgroup at `dir`.
pub(super) fn name(procfs: &Path, dir: &Path, id: &str) -> Option<String> {
    let mut pid: u32 = read(&dir.join("cgroup.procs")).split(|byte| *byte == b'\n').find_map(number)?;
    for _ in 0..PARENTS_MAX {
        if pid <= 1 {
            return None;
        }
        let arguments = read(&procfs.join(pid.to_string()).join("cmdline"));
        if let Some(name) = by_arguments(&arguments, id).filter(|_| is_outside(procfs, pid, id)) {
            return Some(name);
        }
        pid = proc_pid::stat(procfs, pid, |stat| stat.parent)?;
    }
    None
}

/// Whether a process is in no cgroup of the container with this id; conmon's own has the id behind `libpod-conmon-`.
fn is_outside(procfs: &Path, pid: u32, id: &str) -> bool {
    let cgroups = read(&procfs.join(pid.to_string()).join("cgroup"));
    let cgroups = String::from_utf8_lossy(&cgroups);
    let is_inside = |segment: &str| segment.contains(id) && !segment.starts_with("libpod-conmon-");
    !cgroups.is_empty() && !cgroups.split(['/', '\n']).any(is_inside)
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is used.
        let _ = file.take(ARGUMENTS_MAX).read_to_end(&mut bytes);
    }
    bytes
}

fn number(line: &[u8]) -> Option<u32> {
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// The name in the arguments of a conmon of the container with this id.
fn by_arguments(arguments: &[u8], id: &str) -> Option<String> {
    let mut words = arguments.split(|byte| *byte == 0);
    let program = words.next()?.rsplit(|byte| *byte == b'/').next()?;
    if !matches!(program, b"conmon" | b"conmonrs") {
        return None;
    }
    let (mut is_its_own, mut name) = (false, None);
    while let Some(word) = words.next() {
        match word {
            b"-c" | b"--cid" => is_its_own = words.next()? == id.as_bytes(),
            b"-n" | b"--name" => name = name.or(words.next()),
            _ => {}
        }
        if is_its_own && name.is_some() {
            break;
        }
    }
    let name = std::str::from_utf8(name.filter(|_| is_its_own)?).ok()?;
    // Podman's rule for names (libpod/define: NameRegex).
    let is_first = |byte: &u8| byte.is_ascii_alphanumeric();
    let is_other = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let fits = name.len() <= NAME_MAX && name.as_bytes().first().is_some_and(is_first) && name.bytes().all(is_other);
    fits.then(|| name.to_owned())
}
