//! Parsers for /proc/PID/mountinfo (where cgroup hierarchies are mounted) and /proc/PID/cgroup (the cgroup of a
//! process). Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount point.
    pub point: PathBuf,
    /// Mount options of a v1 hierarchy, which name its controllers or `name=systemd`. Empty for v2.
    pub controllers: String,
}

/// Cgroup mounts in a mountinfo text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// The v2 tree, if there is one.
    pub v2: Option<Mount>,
    /// The v1 hierarchies; empty on hosts with v2 alone.
    pub v1: Vec<Mount>,
}

/// Cgroup mounts in the text of /proc/PID/mountinfo (proc(5)). Where the v2 tree is mounted several times, the first
/// mount counts.
pub fn parse(mountinfo: &str) -> Mounts {
    let mut mounts = Mounts::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
        let point = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape_octal(point)));
        match right.next() {
            Some("cgroup2") if mounts.v2.is_none() => mounts.v2 = Some(Mount { point, controllers: String::new() }),
            Some("cgroup") => {
                mounts.v1.push(Mount { point, controllers: right.nth(1).unwrap_or_default().to_string() })
            }
            _ => {}
        }
    }
    mounts
}

/// Undoes the octal escapes of mountinfo: `\040` is a blank.
fn unescape_octal(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .and_then(|octal| std::str::from_utf8(octal).ok())
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// The cgroup of a process on a host with v1 hierarchies, from the text of /proc/PID/cgroup: controllers and path.
/// systemd's own hierarchy is preferred, then those in which container engines make cgroups. `None` where the process
/// is in the root of every hierarchy.
pub fn v1_place(text: &str) -> Option<(String, String)> {
    let places: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
        .filter(|(controllers, path)| !controllers.is_empty() && *path != "/" && path.starts_with('/'))
        .collect();
    let by = |wanted: &str| places.iter().find(|(controllers, _)| controllers.split(',').any(|one| one == wanted));
    let wanted = ["name=systemd", "cpuacct", "cpu", "pids", "memory"];
    let (controllers, path) = wanted.iter().find_map(|wanted| by(wanted))?;
    Some((controllers.to_string(), path.to_string()))
}

/// The path of the cgroup that a process is in, from the text of /proc/PID/cgroup: in the v2 tree, or where that has
/// the process in its root, in the preferred v1 hierarchy. `None` where the process is in every root.
pub fn place(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let v2 =
        text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.starts_with('/') && *path != "/");
    match v2 {
        Some(path) => Some(path.to_owned()),
        None => v1_place(&text).map(|(_, path)| path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn mounts_of_a_hybrid_host() {
        let text = "25 30 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    26 25 0:23 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
                    27 25 0:24 / /sys/fs/cgroup/sys\\040temd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let mounts = parse(text);
        assert_eq!(mounts.v2.unwrap().point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts.v1[0].point, Path::new("/sys/fs/cgroup/sys temd"));
        assert_eq!(mounts.v1[0].controllers, "rw,xattr,name=systemd");
    }

    #[test]
    fn v1_prefers_systemd_then_controllers() {
        assert_eq!(
            v1_place("3:cpu,cpuacct:/docker/x\n1:name=systemd:/system.slice/a.service\n0::/\n").unwrap().1,
            "/system.slice/a.service"
        );
        assert_eq!(v1_place("3:cpu,cpuacct:/docker/a:b\n1:name=systemd:/\n").unwrap().1, "/docker/a:b");
        assert_eq!(v1_place("0::/system.slice\nrubbish\n"), None);
        assert_eq!(place(b"1:name=systemd:/a.service\n0::/b.service\n").unwrap(), "/b.service");
        assert_eq!(place(b"1:name=systemd:/a.service\n0::/\n").unwrap(), "/a.service");
        assert_eq!(place(b"\xff"), None);
    }

    #[test]
    fn garbage_mountinfo_is_no_mount() {
        assert_eq!(parse("a - \n - cgroup2\n\\"), Mounts::default());
    }
}
